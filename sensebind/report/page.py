"""The page: one HTML file that holds all it needs, to be opened years later on a machine without network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sensebind.evaluation.matching import COLLAR, Counts, match
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.embeddings import ordered
from sensebind.fusion.core.events import Kind, Occurrence
from sensebind.fusion.core.samples import SECOND
from sensebind.report.data import ReportData
from sensebind.report.panels import events as lanes
from sensebind.report.panels import sensors as strips
from sensebind.report.panels import similarity
from sensebind.report.panels.canvas import Canvas, Row
from sensebind.report.panels.charts import clock, number
from sensebind.report.script import SCRIPT
from sensebind.report.style import style
from sensebind.report.words import figure, plural, score, text

LISTED = 300  # rows of the list of events
MARK = (
    '<svg viewBox="0 0 52 28" aria-hidden="true"><g fill="none" stroke="currentColor" stroke-width="3">'
    '<circle cx="14" cy="14" r="11"/><circle cx="26" cy="14" r="11"/><circle cx="38" cy="14" r="11"/></g></svg>'
)


def write(path: str | Path, data: ReportData) -> None:
    """Write `render(data)` to `path`, UTF-8. The folder must be there."""
    Path(path).write_text(render(data), encoding="utf-8")


def render(data: ReportData) -> str:
    """The whole page. The same data give the same text; nothing in it asks the network for anything.

    Strings from a recording or a configuration are escaped, cut to 120 characters and rid of control characters;
    the content security policy lets no other script run than the page's own.
    """
    canvas = Canvas(data)
    body = _body(canvas)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    series = json.dumps(
        {"duration": canvas.axis.milliseconds(canvas.axis.end), "series": canvas.series}, separators=(",", ":")
    )
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">',
            f"<title>{text(data.title)} · Sensebind</title><style>{style()}</style></head>\n<body>",
            body,
            '\n<script type="application/json" id="data">',
            series.replace("<", "\\u003c"),
            f"</script>\n<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _body(canvas: Canvas) -> str:
    timeline = [*_axis(canvas), *lanes.events(canvas), *strips.senses(canvas), *similarity.similarity(canvas)]
    return "".join(
        [
            "<main>",
            *_header(canvas),
            f'<section class="timeline" aria-label="Timeline">{"".join(timeline)}</section>',
            *_load(canvas),
            *_list(canvas),
            "<footer>Sensebind. Times are the sensors’ own stamps, in seconds from "
            f"{canvas.axis.start} ns. Vectors compare only within one space: {text(canvas.data.space)}.</footer>",
            "</main>",
            '<div id="lens" aria-hidden="true"><b></b><div></div></div>',
        ]
    )


def _header(canvas: Canvas) -> Row:
    data = canvas.data
    name = "" if data.recording == data.title else data.recording
    facts = [name, _date(canvas), data.space and f"space {data.space}", data.licence]
    meta = "".join(f"<span><bdi>{text(fact)}</bdi></span>" for fact in facts if fact)
    notes = [*data.notes, *_remarks(canvas)]
    listed = "".join(f"<li>{text(note, 400)}</li>" for note in notes[:20])
    return [
        f'<header><p class="brand">{MARK}Sensebind report</p>',
        f'<h1><bdi>{text(data.title) or "Report"}</bdi></h1><p class="meta">{meta}</p>',
        f'<dl class="figures">{"".join(_figures(canvas))}</dl>',
        f'<ul class="notes">{listed}</ul>' if notes else "",
        "</header>",
    ]


def _date(canvas: Canvas) -> str:
    seconds = canvas.axis.start // SECOND
    if not 946_684_800 <= seconds < 4_102_444_800:  # 2000 to 2100: else a clock that started at zero
        return ""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _remarks(canvas: Canvas) -> list[str]:
    remarks = []
    if canvas.axis.start != canvas.data.start:
        remarks.append("The sensors’ stamps lie outside the recording’s own times; the time axis follows the stamps.")
    return remarks


def _figures(canvas: Canvas) -> Row:
    data = canvas.data
    seconds = canvas.axis.seconds
    if seconds >= 120:
        told = [_figure("Duration", clock(seconds, max(seconds, 120)), "h:min:s" if seconds >= 3600 else "min:s")]
    else:
        told = [_figure("Duration", number(seconds, 1), "s")]
    kinds = [(sum(o.kind is kind for o in canvas.found), kind.name.lower()) for kind in Kind]
    told.append(
        _figure(
            "Events", f"{len(canvas.found):,}", "", ", ".join(f"{n:,} {name}" for n, name in kinds if n) or "none told"
        )
    )
    if data.truth is not None:
        hits = sum(bool(_hits(canvas, *item)) for item in data.truth)
        told.append(_figure("Truth told", f"{hits}", f"of {len(data.truth)}", "same label, overlapping in time"))
        f1 = _counts(canvas).f1
        about = f"onset within {COLLAR:g} s, offset within {COLLAR:g} s or half the length"
        told.append(_figure("Event F1", "–" if f1 is None else score(f1), "", about))
    windows = sum(figure(m.get("windows")) for m in data.modalities.values())
    embedded = sum(figure(m.get("embedded")) for m in data.modalities.values())
    senses = sum(figure(m.get("embedded")) > 0 for m in data.modalities.values())
    told.append(
        _figure("Windows embedded", f"{embedded:,.0f}", f"of {windows:,.0f}", f"by {plural(senses, 'encoder')}")
    )
    slowest = max(data.modalities.items(), key=lambda m: _latency(m[1], "p99"), default=None)
    if slowest and _latency(slowest[1], "p99"):
        worst = _latency(slowest[1], "p99")
        about = f"slowest sense: {text(slowest[0], 24)}"
        told.append(_figure("Latency p99", number(worst, 0 if worst >= 100 else 1), "ms", about))
    if data.realtime_factor is not None and math.isfinite(data.realtime_factor):
        told.append(_figure("Speed", number(data.realtime_factor, 1), "× real time"))
    return told


def _counts(canvas: Canvas) -> Counts:
    """Prompts' events against the truth, and those of other kinds whose label it knows."""
    truth = list(canvas.data.truth or ())
    known, faults = {label for _, _, label in truth}, any(label.startswith("fault:") for _, _, label in truth)
    counted = [
        o for o in canvas.found if o.kind is Kind.PROMPT or o.label in known or (faults and o.kind is Kind.FAULT)
    ]
    seconds = [((o.onset - canvas.axis.start) / SECOND, o.offset or canvas.axis.end, o.label) for o in counted]
    told = [(on, max((off - canvas.axis.start) / SECOND, on + 1e-3), label) for on, off, label in seconds]
    there = [(onset, max(offset, onset + 1e-3), label) for onset, offset, label in truth]
    return match(Spans.of(there), Spans.of(told)).counts


def _hits(canvas: Canvas, onset: float, offset: float, label: str) -> list[Occurrence]:
    start, end = (canvas.axis.start + round(t * SECOND) for t in (onset, offset))
    return [o for o in canvas.found if o.label == label and o.onset < end and (o.offset or canvas.axis.end) > start]


def _axis(canvas: Canvas) -> Row:
    axis = canvas.axis
    ticks = axis.ticks()
    marks = []
    for i, tick in enumerate(ticks):
        near_end = tick > 0.97 * axis.seconds
        kind = " ".join(["odd"] * (i % 2) + ["last"] * near_end)
        marks.append(
            f"<span{f' class={chr(34)}{kind}{chr(34)}' if kind else ''} "
            f'style="left:{number(tick / axis.seconds * 100, 3)}%">{clock(tick, axis.seconds)}</span>'
        )
    lines = "".join(
        f'<i style="left:{number(tick / axis.seconds * 100, 3)}%"></i>'
        for tick in ticks
        if tick < 0.999 * axis.seconds  # the last would stand outside
    )
    return [
        '<div class="axis" tabindex="0" role="slider" aria-label="Time; arrow keys move the cursor" aria-valuemin="0" ',
        f'aria-valuemax="{number(axis.seconds, 2)}" aria-valuenow="0" aria-valuetext="start"><b>time</b>',
        f'<div class="t">{"".join(marks)}<div class="flag"></div></div></div>',
        f'<div class="grid" aria-hidden="true">{lines}</div><div class="cursor" aria-hidden="true"></div>',
    ]


def _load(canvas: Canvas) -> Row:
    names = ordered(canvas.data.modalities)
    if not names:
        return []
    rows = []
    for name in names:
        figures = canvas.data.modalities[name]
        share = min(max(figure(figures.get("coverage_mean")), 0.0), 1.0)
        covered = f"{number(share * 100, 1)} %" if figure(figures.get("windows")) else "–"
        p50, p99 = (number(_latency(figures, p), 1) if _latency(figures, p) else "–" for p in ("p50", "p99"))
        numbers = "".join(f'<td class="n">{figure(figures.get(key)):,.0f}</td>' for key in ("windows", "embedded"))
        rows.append(
            f'<tr class="{canvas.hue(name)}"><th scope="row">{text(name, 24)}</th>{numbers}'
            f'<td class="n">{covered}<span class="meter" aria-hidden="true">'
            f'<i style="width:{number(share * 100, 1)}%"></i></span></td>'
            f'<td class="n">{p50}</td><td class="n">{p99}</td><td class="w">{_losses(figures)}</td></tr>'
        )
    head = (
        '<tr><th>sense</th><th class="n">windows</th><th class="n">embedded</th><th class="n">mean coverage</th>'
        '<th class="n">p50, ms</th><th class="n">p99, ms</th><th>left out, and why</th></tr>'
    )
    return [
        '<section><h2>Load and latency</h2><p class="lead">From the moment a window closed to its vector. '
        "Coverage is the share of a window that held valid data.</p>",
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div></section>',
    ]


def _list(canvas: Canvas) -> Row:
    if not canvas.found:
        return []
    rows = []
    for item in canvas.found[:LISTED]:
        onset = clock((item.onset - canvas.axis.start) / SECOND, canvas.axis.seconds)
        lasted = f"{number((item.offset - item.onset) / SECOND, 1)} s" if item.offset else "still going on"
        senses = "".join(
            f'<span class="tag {canvas.hue(m)}">{text(m, 24)} {score(best)}</span>' for m, best in item.senses.items()
        )
        rows.append(
            f'<tr><td class="n">{onset}</td><td class="n">{lasted}</td><td>{item.kind.name.lower()}</td>'
            f'<td class="w"><bdi>{text(item.label)}</bdi></td><td class="n">{score(item.peak)}</td>'
            f"<td>{senses}</td></tr>"
        )
    more = len(canvas.found) - LISTED
    opened = " open" if len(rows) <= 15 else ""
    rest = f'<p class="lead">{more:,} more are in summary.json.</p>' if more > 0 else ""
    return [
        f"<details{opened}><summary>All events <small>{len(canvas.found):,}</small></summary>",
        '<div class="scroll"><table><thead><tr><th class="n">onset</th><th class="n">lasted</th><th>kind</th>'
        '<th>label</th><th class="n">peak</th><th>supported by</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{rest}</details>",
    ]


def _figure(name: str, value: str, unit: str = "", about: str = "") -> str:
    """All but `about`, which must be escaped already, are this page's own words."""
    small = f"<small>{unit}</small>" if unit else ""
    return f"<div><dt>{name}</dt><dd>{value}{small}</dd>{f'<p>{about}</p>' if about else ''}</div>"


def _latency(figures: Mapping[str, Any], which: str) -> float:
    told = figures.get("latency_ms")
    return figure(told.get(which)) if isinstance(told, Mapping) else 0.0


def _losses(figures: Mapping[str, Any]) -> str:
    """Causes and counts, escaped: windows first, then samples, then what looked wrong."""
    parts = []
    for key, noun in (("dropped", "window"), ("samples_dropped", "sample"), ("symptoms", "window")):
        causes = figures.get(key)
        for cause, count in causes.items() if isinstance(causes, Mapping) else ():
            parts.append(f"{text(cause, 24)}: {plural(int(figure(count)), noun)}")
    causes = figures.get("dropped")
    dropped = sum(map(figure, causes.values())) if isinstance(causes, Mapping) else 0.0
    if not figure(figures.get("windows")):
        parts.append("no window")
    elif not figure(figures.get("embedded")) and figure(figures.get("windows")) > dropped:
        parts.insert(0, "no encoder in this space")
    return ", ".join(parts) or "–"
