"""The panel of events: for each label a lane with the truth (if known), the events, and the evidence by sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sensebind.evaluation.matching import false_alarm_indices
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.events import EventInterval, EventKind, Evidence
from sensebind.fusion.core.samples import SECOND
from sensebind.report.formatting import count_noun, escape_text, finite_or_zero, format_score
from sensebind.report.panels import charts
from sensebind.report.panels.charts import AXIS_WIDTH, format_number, format_time
from sensebind.report.panels.context import PageContext, Row

MAX_LANES = 40  # labels that the panel shows
MAX_BARS = 2000  # of all lanes together: bars with a description
SUBROW_HEIGHT = 11  # px, of one sensor in a lane
IMAGE_WIDTH = 56  # units of the axis, width of an image at an onset
KIND_TITLES = {
    EventKind.PROMPT: "Prompts",
    EventKind.NOVELTY: "Novelty",
    EventKind.DISAGREEMENT: "Disagreement",
    EventKind.FAULT: "Faults",
    EventKind.CHANGE: "Changes",
    EventKind.UNKNOWN: "Unknown",
}


def event_panel(context: PageContext) -> Row:
    """The panel, as rows of the timeline."""
    lanes: dict[tuple[EventKind, str], list[EventInterval]] = {}
    known = next(iter(context.data.similarities.values())).labels if context.data.similarities else ()
    truths = list(context.data.truth or ())
    for label in known:
        lanes.setdefault((EventKind.PROMPT, label), [])
    for item in context.intervals:
        lanes.setdefault((item.kind, item.label), []).append(item)
    true = {_lane_key(lanes, label) for _, _, label in truths}
    for key in sorted(true):
        lanes.setdefault(key, [])
    shown = [key for key in lanes if lanes[key] or key in true]
    shown.sort(key=lambda key: key[0])
    never = [key[1] for key in lanes if key not in shown]
    intro = [
        "Each bar is one event, from onset to offset. The number in a bar is its highest reported score. The strips "
        f"below show the score of each {context.noun}: a stronger colour is a higher score. Where a strip is pale, the "
        f"{context.noun} does not support the event."
    ]
    if context.data.truth is not None:
        intro.append(
            "The hollow bars above are the truth. A dashed bar is a miss: no event with its label was detected at that "
            "time. A hatched bar is a false alarm: the truth has no event with its label near it."
        )
    if context.data.previews.images:
        intro.append("Each image was taken near an onset.")
    if never:
        names = ", ".join(f"<bdi>{escape_text(label, 40)}</bdi>" for label in never[:20])
        intro.append(f"Prompts that were never detected: {names}{' and others' if len(never) > 20 else ''}.")
    if not shown:
        return ['<h2>Events</h2><p class="lead">', f"No event was detected.{' ' + intro[-1] if never else ''}</p>"]
    most = sorted(shown, key=lambda key: -len(lanes[key]))[:MAX_LANES]
    if len(shown) > MAX_LANES:
        intro.append(f"Only the {MAX_LANES} labels with the most events are shown, of {len(shown)}.")
    rows = ["<h2>Events</h2>", f'<p class="lead">{" ".join(intro)}</p>']
    before = None
    several = len({kind for kind, _ in most}) > 1
    for kind, label in (key for key in shown if key in most):
        if several and kind is not before:
            rows.append(f'<div class="group">{KIND_TITLES[kind]}</div>')
        before = kind
        truth = [t for t in truths if _lane_key(lanes, t[2]) == (kind, label)]
        rows += _lane(context, label, lanes[kind, label], truth, len(most))
    return rows


def _lane_key(lanes: Mapping[tuple[EventKind, str], object], label: str) -> tuple[EventKind, str]:
    """The lane of a label of the truth: that of the events with this label, else of a prompt."""
    if label.startswith("fault:"):
        return EventKind.FAULT, label
    return next((key for key in lanes if key[1] == label), (EventKind.PROMPT, label))


def _lane(
    context: PageContext,
    label: str,
    items: Sequence[EventInterval],
    truth: Sequence[tuple[float, float, str]],
    lane_count: int,
) -> Row:
    sensors = context.data.sort({sensor for item in items for sensor in item.modality_by_sensor})[:12]
    keys = [f'<div class="head"><bdi title="{escape_text(label)}">{escape_text(label)}</bdi></div>']
    plots = []
    false = _false_alarms(context, items, truth)
    if not items:
        plots.append('<div class="bars"><span class="nothing">not detected</span></div>')
    else:
        few = len(items) <= max(20, MAX_BARS // lane_count)
        plots.append(
            f'<div class="bars">{"".join(_bars(context, items, false) if few else _merged_bars(context, items))}</div>'
        )
    if truth:
        keys.insert(0, '<div class="sub">truth</div>')
        plots.insert(0, f'<div class="truth">{"".join(_truth(context, items, truth))}</div>')
    if images := _onset_images(context, items):
        keys.append('<div class="seen"></div>')
        plots.append(f'<div class="seen">{"".join(images)}</div>')
    keys += [f'<div class="sub"><bdi>{context.name(s)}</bdi></div>' for s in sensors]
    if sensors:
        count = max(60, min(600, 24_000 // (lane_count * len(sensors))))
        paths = "".join(_evidence_strip(context, items, sensor, i, count) for i, sensor in enumerate(sensors))
        height = SUBROW_HEIGHT * len(sensors)
        plots.append(
            f'<svg viewBox="0 0 1000 {height}" height="{height}" preserveAspectRatio="none" '
            f'shape-rendering="crispEdges" class="heat" aria-hidden="true">{paths}</svg>'
        )
    return [
        f'<div class="row lane"><div class="keys">{"".join(keys)}</div><div class="plot">{"".join(plots)}</div></div>'
    ]


def _truth(context: PageContext, items: Sequence[EventInterval], truth: Sequence[tuple[float, float, str]]) -> Row:
    """The truth as hollow bars; dashed if no event with this label overlaps."""
    marks = []
    for onset, offset, _ in truth[:500]:
        start, end = (context.axis.start + round(t * SECOND) for t in (onset, offset))
        detected = any(o.onset < end and (o.offset or context.axis.end) > start for o in items)
        words = f"truth, {format_time(onset, context.axis.seconds)} to {format_time(offset, context.axis.seconds)}"
        words += "" if detected else ", not detected"
        kind = "" if detected else ' class="missed"'
        marks.append(
            f'<div{kind} {context.position_style(start, end)} role="img" aria-label="{words}" title="{words}"></div>'
        )
    return marks


def _false_alarms(
    context: PageContext, items: Sequence[EventInterval], truth: Sequence[tuple[float, float, str]]
) -> set[int]:
    """Indices of the false alarms among the events of one label: events without a truth near them.

    Empty without a truth. Other kinds than prompts and faults are only scored if the truth has the label, because a
    truth does not list all that is unusual.
    """
    scored = items and (items[0].kind in (EventKind.PROMPT, EventKind.FAULT) or truth)
    if context.data.truth is None or not scored:
        return set()
    true = Spans.of((onset, max(offset, onset + 1e-3), "") for onset, offset, _ in truth)
    onsets = np.array([(o.onset - context.axis.start) / SECOND for o in items])
    offsets = np.array([((o.offset or context.axis.end) - context.axis.start) / SECOND for o in items])
    detected = Spans(onsets, np.maximum(offsets, onsets + 1e-3), ("",) * len(items))
    return set(false_alarm_indices(true, detected))


def _onset_images(context: PageContext, items: Sequence[EventInterval]) -> Row:
    """An image at each onset, of the camera that supported the event most. Images that would overlap are left out."""
    images: Row = []
    edge = -np.inf
    for item in items:
        at = context.axis.x(item.onset)
        if context.images_left <= 0 or at < edge or not context.axis.start <= item.onset <= context.axis.end:
            continue
        near = context.data.previews.images_near(item.onset)
        camera = next((s for s in (*item.sensors_by_score(), *context.data.sort(near)) if s in near), None)
        if camera is None:
            continue
        context.images_left -= 1
        at = min(at, AXIS_WIDTH - IMAGE_WIDTH)
        edge = at + IMAGE_WIDTH
        when = format_time((item.onset - context.axis.start) / SECOND, context.axis.seconds)
        words = f"{escape_text(item.label)} at {when}, {context.name(camera)}"
        source = charts.thumbnail(context.data.modality_of(camera), near[camera])
        images.append(
            f'<img class="{context.colour_class(camera)}" src="{source}" '
            f'alt="{words}" '
            f'title="{words}" style="left:{format_number(at / AXIS_WIDTH * 100, 3)}%">'
        )
    return images


def _bars(context: PageContext, items: Sequence[EventInterval], false: set[int]) -> Row:
    bars = []
    for i, item in enumerate(items):
        end = item.offset or context.axis.end
        if end < context.axis.start or item.onset > context.axis.end:
            continue
        description = _description(context, item) + ("; false alarm" if i in false else "")
        kinds = " ".join(["open"] * (not item.offset) + ["false"] * (i in false))
        bars.append(
            f'<div class="{kinds}" {context.position_style(item.onset, end)} role="img" '
            f'aria-label="{description}" title="{description}">'
            f"<span>{format_score(item.peak_score)}</span></div>"
        )
    return bars


def _merged_bars(context: PageContext, items: Sequence[EventInterval]) -> Row:
    """All events of a lane as one shape, if there are too many for a bar and a description each."""
    parts = []
    edge = -1.0
    for item in items:
        start, end = context.axis.x(item.onset), context.axis.x(item.offset or context.axis.end)
        start, end = max(start, edge), max(end, start + 0.5)  # 0.5 units of the axis are visible
        if end > start:
            parts.append(
                f"M{format_number(start, 1)} 2h{format_number(end - start, 1)}v16h{format_number(start - end, 1)}z"
            )
            edge = end
    peak_score = max(o.peak_score for o in items)
    count = count_noun(len(items), "event")
    description = f"{escape_text(items[0].label)}: {count}, highest score {format_score(peak_score)}"
    return [
        f'<svg viewBox="0 0 1000 20" height="20" preserveAspectRatio="none" role="img" aria-label="{description}">'
        f'<title>{description}</title><path class="bar" d="{"".join(parts)}"/></svg>'
    ]


def _description(context: PageContext, item: EventInterval) -> str:
    """The description of one event, escaped."""
    start, until = (item.onset - context.axis.start) / SECOND, (item.offset or context.axis.end) - context.axis.start
    sensors = ", ".join(f"{context.name(s)} {format_score(best)}" for s, best in item.score_by_sensor.items())
    return (
        f"{escape_text(item.label)}: {format_time(start, context.axis.seconds)} to "
        f"{format_time(until / SECOND, context.axis.seconds)}"
        f"{'' if item.offset else ', ongoing'}, highest score {format_score(item.peak_score)}"
        f"{'; ' + sensors if sensors else ''}"
    )


def _evidence_strip(context: PageContext, items: Sequence[EventInterval], sensor: str, row: int, count: int) -> str:
    """The evidence of one sensor during the events, as a strip: shade 0 for no support, 3 to 8 by score."""
    shades = np.full(count, -1, np.int64)
    span = context.axis.end - context.axis.start
    for item in items:
        until = item.offset or context.axis.end
        for i, (tick, evidence) in enumerate(item.evidence_by_tick):
            own_evidence = next((e for e in evidence if e.source == sensor), None)
            if own_evidence is None:
                continue
            begin = item.onset if i == 0 else tick  # the first report covers the time since the onset
            end = item.evidence_by_tick[i + 1][0] if i + 1 < len(item.evidence_by_tick) else until
            if min(end, until) <= max(begin, context.axis.start) or begin > context.axis.end:
                continue
            first = max((begin - context.axis.start) * count // span, 0)
            last = max(-(-(min(end, until) - context.axis.start) * count // span), first + 1)
            shades[first:last] = np.maximum(shades[first:last], _shade(own_evidence))
    edges = [context.axis.start + i * span // count for i in range(count + 1)]
    paths: dict[int, list[str]] = {}
    for start, end, shade in charts.merge_runs(edges[:-1], edges[1:], shades.tolist()):
        if shade >= 0:
            x, w = context.axis.x(start), context.axis.x(end) - context.axis.x(start)
            paths.setdefault(shade, []).append(
                f"M{format_number(x)} {row * SUBROW_HEIGHT + 2}h{format_number(w)}"
                f"v{SUBROW_HEIGHT - 4}h{format_number(-w)}z"
            )
    drawn = "".join(f'<path class="shade{shade}" d="{"".join(d)}"/>' for shade, d in sorted(paths.items()))
    return f'<g class="{context.colour_class(sensor)}">{drawn}</g>'


def _shade(evidence: Evidence) -> int:
    """0 if it does not support the event, else 3 to 8 by score."""
    if not evidence.supports:
        return 0
    return 3 + min(int(min(max(finite_or_zero(evidence.score), 0.0), 1.0) * 6), 5)
