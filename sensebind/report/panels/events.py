"""The panel of events: a lane for each label, with the truth where it is known and what every sense said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sensebind.evaluation.matching import false_alarms
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.embeddings import ordered
from sensebind.fusion.core.events import Evidence, Kind, Occurrence
from sensebind.fusion.core.samples import SECOND
from sensebind.report.panels import charts
from sensebind.report.panels.canvas import Canvas, Row
from sensebind.report.panels.charts import WIDTH, clock, number
from sensebind.report.words import figure, plural, score, text

LANES = 40  # more than anybody reads
BARS = 2000  # of all lanes that have words of their own
SUB = 11  # px, of a lane's senses
PICTURE = 56  # units of the axis that a picture at an onset takes
KINDS = {
    Kind.PROMPT: "Prompts",
    Kind.NOVELTY: "Novelty",
    Kind.DISAGREEMENT: "Disagreement",
    Kind.FAULT: "Faults",
    Kind.CHANGE: "Changes",
    Kind.UNKNOWN: "Unknown",
}


def events(canvas: Canvas) -> Row:
    """The panel, as rows of the timeline."""
    lanes: dict[tuple[Kind, str], list[Occurrence]] = {}
    known = next(iter(canvas.data.similarities.values())).labels if canvas.data.similarities else ()
    truths = list(canvas.data.truth or ())
    for label in known:
        lanes.setdefault((Kind.PROMPT, label), [])
    for item in canvas.found:
        lanes.setdefault((item.kind, item.label), []).append(item)
    true = {_key(lanes, label) for _, _, label in truths}
    for key in sorted(true):
        lanes.setdefault(key, [])
    shown = [key for key in lanes if lanes[key] or key in true]
    shown.sort(key=lambda key: key[0])
    never = [key[1] for key in lanes if key not in shown]
    lead = [
        "Each bar is one event from onset to offset; the number, where it fits, is its highest score. Under it, every "
        "sense while it supported the event, pale where it was asked and did not."
    ]
    if canvas.data.truth is not None:
        lead.append(
            "Above it, hollow, is the truth; dashed where nothing of that label was told at the time. A hatched bar "
            "was told where the truth has nothing of that label."
        )
    if canvas.data.media.pictures:
        lead.append("The pictures were taken at the onsets.")
    if never:
        names = ", ".join(f"<bdi>{text(label, 40)}</bdi>" for label in never[:20])
        lead.append(f"Asked for and never told: {names}{' and others' if len(never) > 20 else ''}.")
    if not shown:
        return [
            '<h2>Events</h2><p class="lead">',
            f"Nothing was told. {lead[-1] if never else 'No detector found anything to report.'}</p>",
        ]
    most = sorted(shown, key=lambda key: -len(lanes[key]))[:LANES]
    if len(shown) > LANES:
        lead.append(f"The {LANES} labels with most events are shown, of {len(shown)}.")
    rows = ["<h2>Events</h2>", f'<p class="lead">{" ".join(lead)}</p>']
    before = None
    several = len({kind for kind, _ in most}) > 1
    for kind, label in (key for key in shown if key in most):
        if several and kind is not before:
            rows.append(f'<div class="group">{KINDS[kind]}</div>')
        before = kind
        truth = [t for t in truths if _key(lanes, t[2]) == (kind, label)]
        rows += _lane(canvas, label, lanes[kind, label], truth, len(most))
    return rows


def _key(lanes: Mapping[tuple[Kind, str], object], label: str) -> tuple[Kind, str]:
    """The lane that a label of the truth belongs to: of the kind of events that are called so, else prompts."""
    if label.startswith("fault:"):
        return Kind.FAULT, label
    return next((key for key in lanes if key[1] == label), (Kind.PROMPT, label))


def _lane(
    canvas: Canvas,
    label: str,
    items: Sequence[Occurrence],
    truth: Sequence[tuple[float, float, str]],
    lanes: int,
) -> Row:
    senses = ordered({e.modality for o in items for _, evidence in o.course for e in evidence})[:12]
    keys = [f'<div class="head"><bdi title="{text(label)}">{text(label)}</bdi></div>']
    plots = []
    false = _false(canvas, items, truth)
    if not items:
        plots.append('<div class="bars"><span class="nothing">not told</span></div>')
    else:
        few = len(items) <= max(20, BARS // lanes)
        plots.append(f'<div class="bars">{"".join(_bars(canvas, items, false) if few else _many(canvas, items))}</div>')
    if truth:
        keys.insert(0, '<div class="sub">truth</div>')
        plots.insert(0, f'<div class="truth">{"".join(_truth(canvas, items, truth))}</div>')
    if pictures := _pictures(canvas, items):
        keys.append('<div class="seen"></div>')
        plots.append(f'<div class="seen">{"".join(pictures)}</div>')
    keys += [f'<div class="sub"><bdi>{text(s, 24)}</bdi></div>' for s in senses]
    if senses:
        count = max(60, min(600, 24_000 // (lanes * len(senses))))
        paths = "".join(_evidence(canvas, items, sense, i, count) for i, sense in enumerate(senses))
        height = SUB * len(senses)
        plots.append(
            f'<svg viewBox="0 0 1000 {height}" height="{height}" preserveAspectRatio="none" '
            f'shape-rendering="crispEdges" class="heat" aria-hidden="true">{paths}</svg>'
        )
    return [
        f'<div class="row lane"><div class="keys">{"".join(keys)}</div><div class="plot">{"".join(plots)}</div></div>'
    ]


def _truth(canvas: Canvas, items: Sequence[Occurrence], truth: Sequence[tuple[float, float, str]]) -> Row:
    """What was there, hollow; dashed where nothing of that label was told while it was."""
    marks = []
    for onset, offset, _ in truth[:500]:
        start, end = (canvas.axis.start + round(t * SECOND) for t in (onset, offset))
        told = any(o.onset < end and (o.offset or canvas.axis.end) > start for o in items)
        words = f"truth, {clock(onset, canvas.axis.seconds)} to {clock(offset, canvas.axis.seconds)}"
        words += "" if told else ", not told"
        kind = "" if told else ' class="missed"'
        marks.append(f'<div{kind} {canvas.place(start, end)} role="img" aria-label="{words}" title="{words}"></div>')
    return marks


def _false(canvas: Canvas, items: Sequence[Occurrence], truth: Sequence[tuple[float, float, str]]) -> set[int]:
    """Indices of those of a label's events that no truth comes near, where anything is known of the truth.

    Only of prompts and faults: nobody writes down all that is unusual.
    """
    scored = items and (items[0].kind in (Kind.PROMPT, Kind.FAULT) or truth)
    if canvas.data.truth is None or not scored:
        return set()
    there = Spans.of((onset, max(offset, onset + 1e-3), "") for onset, offset, _ in truth)
    onsets = np.array([(o.onset - canvas.axis.start) / SECOND for o in items])
    offsets = np.array([((o.offset or canvas.axis.end) - canvas.axis.start) / SECOND for o in items])
    told = Spans(onsets, np.maximum(offsets, onsets + 1e-3), ("",) * len(items))
    return set(false_alarms(there, told))


def _pictures(canvas: Canvas, items: Sequence[Occurrence]) -> Row:
    """A picture at each onset, by the camera that supported the event most; those that would overlap are left out."""
    seen: Row = []
    edge = -np.inf
    for item in items:
        at = canvas.axis.x(item.onset)
        if canvas.pictures_left <= 0 or at < edge or not canvas.axis.start <= item.onset <= canvas.axis.end:
            continue
        near = canvas.data.media.near(item.onset)
        modality = next((m for m in (*item.senses_by_score(), *ordered(near)) if m in near), None)
        if modality is None:
            continue
        canvas.pictures_left -= 1
        at = min(at, WIDTH - PICTURE)
        edge = at + PICTURE
        when = clock((item.onset - canvas.axis.start) / SECOND, canvas.axis.seconds)
        words = f"{text(item.label)} at {when}, {text(modality, 24)}"
        seen.append(
            f'<img class="{canvas.hue(modality)}" src="{charts.thumbnail(modality, near[modality])}" alt="{words}" '
            f'title="{words}" style="left:{number(at / WIDTH * 100, 3)}%">'
        )
    return seen


def _bars(canvas: Canvas, items: Sequence[Occurrence], false: set[int]) -> Row:
    bars = []
    for i, item in enumerate(items):
        end = item.offset or canvas.axis.end
        if end < canvas.axis.start or item.onset > canvas.axis.end:
            continue
        told = _told(canvas, item) + ("; the truth has none of it" if i in false else "")
        kinds = " ".join(["open"] * (not item.offset) + ["false"] * (i in false))
        bars.append(
            f'<div class="{kinds}" {canvas.place(item.onset, end)} role="img" aria-label="{told}" title="{told}">'
            f"<span>{score(item.peak)}</span></div>"
        )
    return bars


def _many(canvas: Canvas, items: Sequence[Occurrence]) -> Row:
    """Too many events for a bar each with words of its own: one shape for all."""
    parts = []
    edge = -1.0
    for item in items:
        start, end = canvas.axis.x(item.onset), canvas.axis.x(item.offset or canvas.axis.end)
        start, end = max(start, edge), max(end, start + 0.5)  # half a thousandth of the axis can be seen
        if end > start:
            parts.append(f"M{number(start, 1)} 2h{number(end - start, 1)}v16h{number(start - end, 1)}z")
            edge = end
    told = f"{text(items[0].label)}: {plural(len(items), 'event')}, peak {score(max(o.peak for o in items))}"
    return [
        f'<svg viewBox="0 0 1000 20" height="20" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f'<title>{told}</title><path class="bar" d="{"".join(parts)}"/></svg>'
    ]


def _told(canvas: Canvas, item: Occurrence) -> str:
    """One event in words, escaped."""
    start, until = (item.onset - canvas.axis.start) / SECOND, (item.offset or canvas.axis.end) - canvas.axis.start
    senses = ", ".join(f"{text(m, 24)} {score(best)}" for m, best in item.senses.items())
    return (
        f"{text(item.label)}: {clock(start, canvas.axis.seconds)} to {clock(until / SECOND, canvas.axis.seconds)}"
        f"{'' if item.offset else ', still going on'}, peak {score(item.peak)}{'; ' + senses if senses else ''}"
    )


def _evidence(canvas: Canvas, items: Sequence[Occurrence], sense: str, row: int, count: int) -> str:
    """What a sense said while events lasted, as a strip: shade 0 is no support, 3 to 8 is support by score."""
    shades = np.full(count, -1, np.int64)
    span = canvas.axis.end - canvas.axis.start
    for item in items:
        until = item.offset or canvas.axis.end
        for i, (tick, evidence) in enumerate(item.course):
            said = next((e for e in evidence if e.modality == sense), None)
            if said is None:
                continue
            begin = item.onset if i == 0 else tick  # the first report tells of the time since the onset
            end = item.course[i + 1][0] if i + 1 < len(item.course) else until
            if min(end, until) <= max(begin, canvas.axis.start) or begin > canvas.axis.end:
                continue
            first = max((begin - canvas.axis.start) * count // span, 0)
            last = max(-(-(min(end, until) - canvas.axis.start) * count // span), first + 1)
            shades[first:last] = np.maximum(shades[first:last], _shade(said))
    edges = [canvas.axis.start + i * span // count for i in range(count + 1)]
    paths: dict[int, list[str]] = {}
    for start, end, shade in charts.runs(edges[:-1], edges[1:], shades.tolist()):
        if shade >= 0:
            x, w = canvas.axis.x(start), canvas.axis.x(end) - canvas.axis.x(start)
            paths.setdefault(shade, []).append(f"M{number(x)} {row * SUB + 2}h{number(w)}v{SUB - 4}h{number(-w)}z")
    drawn = "".join(f'<path class="shade{shade}" d="{"".join(d)}"/>' for shade, d in sorted(paths.items()))
    return f'<g class="{canvas.hue(sense)}">{drawn}</g>'


def _shade(said: Evidence) -> int:
    """0 where it does not support, else 3 to 8 by score."""
    if not said.supports:
        return 0
    return 3 + min(int(min(max(figure(said.score), 0.0), 1.0) * 6), 5)
