"""The style sheet of the report page, and the colours of sensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

# Colours of the modalities. People with any of the three dichromacies can distinguish them (simulated as in Machado et
# al. 2009: OKLab distance of at least 0.10 between any two). The contrast to the page is at least 3:1 in both schemes.
LIGHT_COLOURS = {"vision": "#1c5bce", "depth": "#2c997f", "thermal": "#bd3112", "audio": "#c27e18", "imu": "#7c3b65"}
DARK_COLOURS = {"vision": "#38a1f8", "depth": "#77edd7", "thermal": "#e9613b", "audio": "#f5c762", "imu": "#b56aa2"}
FUSED_COLOURS = ("#3d4656", "#c9d0da")
EXTRA_COLOURS = (("#5b6b12", "#b5cf55"), ("#56508f", "#a9a2e6"), ("#8a5a44", "#d3a68f"))
# The sensors of one modality have shades of its colour, from the colour itself on; after the last shade they begin again.
# A shade has a fraction of the text's colour, or of the page's where the colour is bright and the page dark. So the
# contrast to the page stays at least 3:1. The OKLab distance of a shade to the next is at least 0.045.
INK_COLOURS, PAGE_COLOURS = ("#15181e", "#eceff2"), ("#fcfcfb", "#111417")
INK_FRACTIONS, PAGE_FRACTIONS = (0.0, 0.24, 0.45, 0.63), (0.0, 0.2, 0.36, 0.48)
SHADE_COUNT = len(INK_FRACTIONS)
BRIGHT = 156  # of 255, mean of red, green and blue


def _colours(scheme: int) -> dict[str, str]:
    """Name of each colour → its code, in the light (0) or the dark (1) scheme."""
    extra = {f"other{i}": pair[scheme] for i, pair in enumerate(EXTRA_COLOURS)}
    return {**(LIGHT_COLOURS, DARK_COLOURS)[scheme], "fused": FUSED_COLOURS[scheme], **extra}


def colour_names(modalities: Mapping[str, str], order: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Sensor → the name of its colour, that of its modality, and its shade, 0 for the first sensor of a modality.

    `modalities` is sensor → its modality. `order` are the sensors, sorted; user-defined modalities have the extra
    colours in that order.
    """
    others = [m for m in dict.fromkeys(modalities[s] for s in order) if m not in (*LIGHT_COLOURS, "fused")]
    found: dict[str, tuple[str, int]] = {}
    for place, sensor in enumerate(order):
        modality = modalities[sensor]
        name = f"other{others.index(modality) % len(EXTRA_COLOURS)}" if modality in others else modality
        earlier = sum(modalities[other] == modality for other in order[:place])
        found[sensor] = name, earlier % SHADE_COUNT
    return found


def colour_code(name: str, shade: int, scheme: int) -> str:
    """The code of a shade of a colour, in the light (0) or the dark (1) scheme."""
    colour = rgb(_colours(scheme)[name])
    to_page = scheme == 1 and sum(colour) > 3 * BRIGHT
    end = rgb((PAGE_COLOURS if to_page else INK_COLOURS)[scheme])
    fraction = (PAGE_FRACTIONS if to_page else INK_FRACTIONS)[shade]
    return "#" + "".join(f"{round(a + fraction * (b - a)):02x}" for a, b in zip(colour, end, strict=True))


def rgb(code: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of the code of a colour."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def colour_class(name: str, shade: int) -> str:
    """The CSS class that sets a shade of a colour."""
    return f"s-{name}-{shade}" if shade else f"s-{name}"


def _variables(scheme: int, shades: Collection[tuple[str, int]]) -> str:
    rules = {(name, 0): colour for name, colour in _colours(scheme).items()}
    rules |= {(name, shade): colour_code(name, shade, scheme) for name, shade in sorted(shades) if shade}
    return "".join(f".{colour_class(*key)}{{--c:{colour}}}" for key, colour in rules.items())


def stylesheet(shades: Collection[tuple[str, int]] = ()) -> str:
    """The style sheet. `shades`: names of colours and their shades that the page uses beside the colours themselves."""
    named = NAMED_SENSORS if any(shade for _, shade in shades) else ""
    return BASE + named + _variables(0, shades) + "@media (prefers-color-scheme:dark){" + _variables(1, shades) + "}"


# Names of sensors can be long.
NAMED_SENSORS = """.keys h3{overflow-wrap:anywhere}
.scores .keys>div>span:first-child{overflow:hidden;text-overflow:ellipsis;min-width:0}
"""
BASE = """
:root{color-scheme:light dark;--page:#fcfcfb;--panel:#f4f4f2;--ink:#15181e;--soft:#535a66;--faint:#6c737f;
--line:#e3e3e0;--grid:#ecece9;--bar:#232b38;--onbar:#fff;--key:184px;--row:16px;
--miss:#b3261e;--hatch:#a9b0ba}
@media (prefers-color-scheme:dark){:root{--page:#111417;--panel:#191d21;--ink:#eceff2;--soft:#aab1bb;--faint:#89919c;
--line:#2a2f35;--grid:#1f2429;--bar:#dce1e8;--onbar:#111417;
--miss:#ff8a80;--hatch:#6d747e}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1280px;margin:0 auto;padding:36px 40px 56px}
header .brand{font-size:13px;color:var(--faint);margin:0 0 20px;display:flex;gap:10px;align-items:center}
header .brand svg{width:26px;height:14px;flex:none}
h1{font-size:34px;line-height:1.15;font-weight:650;letter-spacing:-.022em;margin:0;overflow-wrap:anywhere}
.meta{margin:8px 0 0;color:var(--soft);overflow-wrap:anywhere}
.meta span+span::before{content:"·";margin:0 .55em;color:var(--faint)}
bdi{unicode-bidi:isolate}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:0;margin:28px 0 0;
border-top:1px solid var(--line);border-bottom:1px solid var(--line);overflow:hidden}
.figures div{padding:14px 18px 15px;margin-left:-1px;border-left:1px solid var(--line)}
.figures div:first-child{padding-left:1px}
.figures dt{font-size:13px;color:var(--soft)}
.figures dd{margin:1px 0 0;font-size:27px;line-height:1.25;font-weight:600;letter-spacing:-.02em}
.figures dd small{font-size:15px;font-weight:450;color:var(--soft);letter-spacing:0;margin-left:.18em}
.figures p{margin:1px 0 0;font-size:12.5px;line-height:1.4;color:var(--faint)}
.notes{margin:18px 0 0;padding:0;list-style:none;color:var(--soft);font-size:14px;max-width:82ch}
.notes li{padding:2px 0 2px 16px;position:relative;overflow-wrap:anywhere}
.notes li::before{content:"";position:absolute;left:0;top:.78em;width:6px;height:1px;background:var(--faint)}
h2{font-size:19px;font-weight:620;letter-spacing:-.012em;margin:0;padding:34px 0 3px}
h2+.lead{margin:0;padding:0 max(0px,100% - 92ch) 12px 0;color:var(--soft);font-size:14px}
.lead i.k{display:inline-block;vertical-align:-1px;margin:0 .3em 0 .1em}
.timeline{position:relative;margin-top:10px;touch-action:pan-y}
.timeline>h2,.timeline>.lead,.timeline>.panelhead,.timeline>.group{position:relative;z-index:4;background:var(--page)}
.group{padding:14px 0 6px;font-size:12.5px;color:var(--faint)}.lead+.group{padding-top:2px}
.axis{position:sticky;top:0;z-index:6;background:var(--page);height:30px;border-bottom:1px solid var(--line);
display:grid;grid-template-columns:var(--key) 1fr;font-size:12px;color:var(--faint);font-variant-numeric:tabular-nums}
.axis:focus-visible{outline:2px solid var(--soft);outline-offset:2px;border-radius:3px}
.axis .t{position:relative}
.axis .t span{position:absolute;bottom:5px;transform:translateX(-50%);white-space:nowrap}
.axis .t span:first-child{transform:none}
.axis .t span.last{transform:translateX(-100%)}
.axis>b{font-weight:500;align-self:end;padding-bottom:5px}
.axis .flag{position:absolute;bottom:3px;left:calc(var(--f,0)*100%);transform:translateX(-50%);display:none;
background:var(--ink);color:var(--page);border-radius:4px;padding:1px 7px;font-weight:550;white-space:nowrap}
.grid{position:absolute;z-index:0;top:30px;bottom:0;left:var(--key);right:0;pointer-events:none}
.grid i{position:absolute;top:0;bottom:0;width:1px;background:var(--grid)}
.cursor{position:absolute;z-index:3;top:30px;bottom:0;width:1px;background:var(--ink);opacity:.75;display:none;
pointer-events:none;left:calc(var(--key) + (100% - var(--key))*var(--f,0))}
.on .cursor,.on .axis .flag{display:block}
.row{position:relative;z-index:1;display:grid;grid-template-columns:var(--key) minmax(0,1fr)}
.keys{padding-right:14px;min-width:0}
.keys>div{height:var(--row);line-height:var(--row);font-size:12.5px;display:flex;gap:8px;
justify-content:space-between;
color:var(--soft);white-space:nowrap}
.keys bdi{overflow:hidden;text-overflow:ellipsis;min-width:0}
.keys output{font-variant-numeric:tabular-nums;color:var(--ink);font-size:12px;flex:none}
.plot{position:relative;min-width:0}
.plot svg{display:block;width:100%;overflow:visible}
.panelhead{display:flex;align-items:baseline;gap:12px;padding:14px 0 5px;font-size:14px}
.panelhead h3{font-size:14px;font-weight:600;margin:0;display:flex;align-items:center;gap:8px}
h3::before{content:"";width:9px;height:9px;border-radius:2.5px;background:var(--c,var(--faint));flex:none}
.panelhead .about{color:var(--faint);font-size:12.5px}
.scale{display:inline-flex;align-items:center;gap:6px;font-size:12px;color:var(--faint);
font-variant-numeric:tabular-nums;white-space:nowrap}
.scale i{width:64px;height:7px;border-radius:2px;flex:none;background:linear-gradient(90deg,
color-mix(in srgb,var(--c) 4%,var(--page)),var(--c))}
.keys .scale{height:auto;display:flex;justify-content:flex-start;line-height:1.3;padding-top:5px}
.keys .scale i{width:44px}
.heat path{fill:var(--c)}
.shade0{fill-opacity:.2}.shade1{fill-opacity:.09}.shade2{fill-opacity:.18}.shade3{fill-opacity:.28}
.shade4{fill-opacity:.4}
.shade5{fill-opacity:.54}.shade6{fill-opacity:.7}.shade7{fill-opacity:.86}.shade8{fill-opacity:1}
.curves path{fill:none;stroke:var(--c);stroke-width:1.3;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.curves .all{stroke:var(--ink);stroke-width:2}
.curves .onset,.curves .offset{stroke:var(--faint);stroke-width:1;stroke-dasharray:6 4}
.curves .offset{stroke-dasharray:1.5 3}
.scores .keys>div.wide{height:44px;font-size:12px;color:var(--faint);align-items:flex-start}
.scores .keys>div>span:first-child::before{content:"";display:inline-block;width:7px;height:7px;border-radius:2px;
background:var(--c);margin-right:6px}
.scores .keys small{font-size:11px;color:var(--faint)}
.lane{padding:9px 0 8px;border-top:1px solid var(--line)}
.lane .keys>div.head{height:20px;line-height:20px;font-size:14px;color:var(--ink);font-weight:550}
.lane .keys>div.head small{font-weight:400;font-size:12px;color:var(--faint)}
.lane .keys>div.sub{height:11px;line-height:11px;font-size:11px;color:var(--faint);padding-left:10px}
.bars{position:relative;height:20px}
.bars>div{position:absolute;top:2px;height:16px;min-width:3px;border-radius:3px;background:var(--bar);
color:var(--onbar);
container-type:inline-size;overflow:hidden}
.bars>div span{display:none;font-size:11px;line-height:16px;padding-left:5px;
font-variant-numeric:tabular-nums;font-weight:550}
@container (min-width:31px){.bars>div span{display:block}}
.bar{fill:var(--bar)}
.bars>.open{border-top-right-radius:0;border-bottom-right-radius:0}
.truth{position:relative;height:11px}
.truth>div{position:absolute;top:2px;height:7px;min-width:4px;border:1.5px solid var(--soft);border-radius:2px}
.truth>.missed{border-style:dashed;border-color:var(--miss)}
.bars>.false{background:repeating-linear-gradient(135deg,var(--bar) 0 4px,var(--hatch) 4px 7px)}
.bars>.false span{display:none}
.seen{position:relative;height:44px;overflow:hidden}.lane .keys>div.seen{height:44px}
.seen img{position:absolute;top:2px;width:54px;height:40px;object-fit:cover;border-radius:3px;
box-shadow:inset 0 0 0 1px var(--line);border-left:2px solid var(--c)}
.nothing{font-size:12.5px;color:var(--faint);line-height:20px;padding-left:6px}
.film{position:relative;height:66px;overflow:hidden;border-radius:4px}
.film img{position:absolute;top:0;height:100%;left:var(--x);object-fit:cover;display:none;
border-right:1px solid var(--page)}
.film img.a{display:block;width:var(--a)}
.strip{margin-bottom:6px}
.strip h3{font-size:14px;font-weight:600;margin:0;display:flex;align-items:center;gap:8px;padding-top:3px}
.strip .keys{position:relative}
.strip .keys>div.wide{height:auto;line-height:1.4;font-size:12px;color:var(--faint)}
.strip .keys>div.pitch{position:absolute;right:14px;height:12px;line-height:12px;font-size:10.5px;color:var(--faint);
transform:translateY(-50%)}
.spectrum{height:96px;background:var(--c);-webkit-mask:var(--i) 0 0/100% 100% no-repeat;
mask:var(--i) 0 0/100% 100% no-repeat}
.frame{background:var(--panel);border-radius:4px}
.wave path{fill:var(--c)}
.trace{border-bottom:1px solid var(--line)}
table{min-width:660px;border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{font-weight:500;font-size:12.5px;color:var(--soft);text-align:left;vertical-align:bottom}
th[scope=row],td{vertical-align:baseline}th,td{padding:7px 14px 7px 0;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right}
td,th{white-space:nowrap}td.w{white-space:normal;min-width:28ch;overflow-wrap:anywhere}
th[scope=row]{font-weight:550;font-size:14px;color:var(--ink);white-space:nowrap}
th[scope=row]::before{content:"";display:inline-block;width:9px;height:9px;border-radius:2.5px;
background:var(--c,var(--faint));
margin-right:8px}
.scroll{overflow-x:auto}
.meter{display:inline-block;width:72px;height:6px;border-radius:2px;background:var(--line);margin-left:10px;
vertical-align:1px;overflow:hidden}
.meter i{display:block;height:100%;background:var(--c,var(--soft))}
details{margin-top:26px;border-top:1px solid var(--line)}
summary{cursor:pointer;padding:12px 0;font-size:19px;font-weight:620;letter-spacing:-.012em}
summary small{font-size:14px;font-weight:400;color:var(--soft);letter-spacing:0;margin-left:.4em}
.tag{display:inline-flex;align-items:center;gap:5px;margin-right:12px;white-space:nowrap}
.tag::before{content:"";width:8px;height:8px;border-radius:2px;background:var(--c,var(--faint))}
footer{margin-top:40px;padding-top:14px;border-top:1px solid var(--line);font-size:12.5px;color:var(--faint);
overflow-wrap:anywhere}
#lens{position:fixed;z-index:9;left:0;display:none;background:var(--page);border:1px solid var(--line);
border-radius:8px;
padding:10px 12px 11px;box-shadow:0 6px 24px rgb(0 0 0/.16);pointer-events:none;font-size:12px;color:var(--soft)}
#lens.up{top:42px}#lens.down{bottom:16px}
#lens b{display:block;color:var(--ink);font-size:13px;font-weight:600;margin-bottom:6px;
font-variant-numeric:tabular-nums}
#lens div{display:flex;gap:8px}
#lens figure{margin:0;width:168px}
#lens img{display:block;width:168px;height:126px;object-fit:contain;background:var(--panel);border-radius:3px}
#lens figcaption{margin-top:3px;color:var(--faint)}
@media (max-width:1000px){.film img.a{display:none}.film img.b{display:block;width:var(--b)}}
@media (max-width:640px){:root{--key:106px}main{padding:20px 14px 40px}h1{font-size:26px}
.figures{grid-template-columns:1fr 1fr}.figures div{padding:10px 12px;border-bottom:1px solid var(--line);
margin-bottom:-1px}
.figures div:first-child{padding-left:12px}.figures dd{font-size:22px}
.film img.b{display:none}.film img.c{display:block;width:var(--d)}.film{height:56px}
.axis .t span.odd{display:none}.keys{padding-right:8px}.strip .keys>div.pitch{right:8px}
.keys>div{font-size:11.5px}.keys output{font-size:11px}.lane .keys>div.head{font-size:12.5px}
.lane .keys>div.head small{display:none}
.panelhead{flex-wrap:wrap;row-gap:0}.strip .keys>div.wide{font-size:11px}.keys .scale i{width:22px}
.keys .scale{gap:4px;font-size:10.5px}
#lens figure{width:96px}#lens img{width:96px;height:72px}h2+.lead{font-size:13px}}
@media print{.axis{position:static}details>*{display:block}}
@media (prefers-reduced-motion:no-preference){#lens{transition:left .06s linear}}
"""
