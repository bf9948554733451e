"""The report page: one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sensebind.evaluation.matching import ONSET_COLLAR, Counts, match
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.atomic import write_text
from sensebind.fusion.core.events import EventInterval, EventKind, Evidence
from sensebind.fusion.core.samples import SECOND
from sensebind.replay.losses import SensorLosses
from sensebind.report.formatting import count_noun, escape_text, finite_or_zero, format_score
from sensebind.report.panels import events as lanes
from sensebind.report.panels import scores, similarity
from sensebind.report.panels import sensors as strips
from sensebind.report.panels.charts import format_number, format_time
from sensebind.report.panels.context import PageContext, Row
from sensebind.report.report_data import ReportData
from sensebind.report.script import SCRIPT
from sensebind.report.style import stylesheet

MAX_NOTES = 20  # notes at the top of the page
MAX_LISTED_EVENTS = 300  # rows of the table of events
LOGO_SVG = (
    '<svg viewBox="0 0 52 28" aria-hidden="true"><g fill="none" stroke="currentColor" stroke-width="3">'
    '<circle cx="14" cy="14" r="11"/><circle cx="26" cy="14" r="11"/><circle cx="38" cy="14" r="11"/></g></svg>'
)


def write_report(path: str | Path, data: ReportData) -> None:
    """Write `render_report(data)` to `path` in UTF-8."""
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The page as HTML. The same data give the same text. The page loads nothing from the network.

    Strings from a recording or a configuration are escaped, cut to 120 characters (notes: 400) and stripped of control
    characters. The content security policy allows no script but the page's own.
    """
    context = PageContext(data)
    body = _body(context)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    series = json.dumps(
        {"duration": context.axis.milliseconds(context.axis.end), "series": context.series}, separators=(",", ":")
    )
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">',
            f"<title>{escape_text(data.title)} · Sensebind</title>",
            f"<style>{stylesheet(context.shades)}</style></head>\n<body>",
            body,
            '\n<script type="application/json" id="data">',
            series.replace("<", "\\u003c"),
            f"</script>\n<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _body(context: PageContext) -> str:
    timeline = [
        *_axis(context),
        *lanes.event_panel(context),
        *scores.score_panel(context),
        *strips.sensor_panels(context),
        *similarity.similarity_panels(context),
    ]
    return "".join(
        [
            "<main>",
            *_header(context),
            f'<section class="timeline" aria-label="Timeline">{"".join(timeline)}</section>',
            *_load_table(context),
            *_event_table(context),
            "<footer>Sensebind. Times are the stamps of the sensors, in seconds after "
            f"{context.axis.start} ns. Only vectors of one space can be compared; these are of "
            f"{escape_text(context.data.space)}.</footer>",
            "</main>",
            '<div id="lens" aria-hidden="true"><b></b><div></div></div>',
        ]
    )


def _header(context: PageContext) -> Row:
    data = context.data
    name = "" if data.recording == data.title else data.recording
    facts = [name, _date(context), data.space and f"space {data.space}", data.licence]
    meta = "".join(f"<span><bdi>{escape_text(fact)}</bdi></span>" for fact in facts if fact)
    notes = [*data.notes, *_remarks(context)]
    listed = "".join(f"<li>{escape_text(note, 400)}</li>" for note in notes[:MAX_NOTES])
    if len(notes) > MAX_NOTES:
        listed += f"<li>{len(notes) - MAX_NOTES} more notes are in summary.json</li>"
    return [
        f'<header><p class="brand">{LOGO_SVG}Sensebind report</p>',
        f'<h1><bdi>{escape_text(data.title) or "Report"}</bdi></h1><p class="meta">{meta}</p>',
        f'<dl class="figures">{"".join(_key_figures(context))}</dl>',
        f'<ul class="notes">{listed}</ul>' if notes else "",
        "</header>",
    ]


def _date(context: PageContext) -> str:
    seconds = context.axis.start // SECOND
    if not 946_684_800 <= seconds < 4_102_444_800:  # not in 2000 to 2100: the clock started at zero
        return ""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _remarks(context: PageContext) -> list[str]:
    remarks = []
    if context.axis.start != context.data.start:
        remarks.append(
            "All sensor stamps are outside the recording’s time range. The time axis shows the range of the stamps."
        )
    return remarks


def _key_figures(context: PageContext) -> Row:
    data = context.data
    seconds = context.axis.seconds
    if seconds >= 120:
        tiles = [_tile("Duration", format_time(seconds, max(seconds, 120)), "h:min:s" if seconds >= 3600 else "min:s")]
    else:
        tiles = [_tile("Duration", format_number(seconds, 1), "s")]
    kinds = [(sum(o.kind is kind for o in context.intervals), kind.name.lower()) for kind in EventKind]
    tiles.append(
        _tile(
            "Events",
            f"{len(context.intervals):,}",
            "",
            ", ".join(f"{n:,} {name}" for n, name in kinds if n) or "none",
        )
    )
    if data.truth is not None:
        hits = sum(bool(_detections_of(context, *item)) for item in data.truth)
        tiles.append(_tile("Truth detected", f"{hits}", f"of {len(data.truth)}", "same label, overlapping in time"))
        f1 = _match_truth(context).f1
        about = f"onset within {ONSET_COLLAR:g} s, offset within {ONSET_COLLAR:g} s or half the duration"
        tiles.append(_tile("Event F1", "–" if f1 is None else format_score(f1), "", about))
    windows = sum(finite_or_zero(m.get("windows")) for m in data.modalities.values())
    embedded = sum(finite_or_zero(m.get("embedded")) for m in data.modalities.values())
    sensors = [s for s, own in data.modalities.items() if finite_or_zero(own.get("embedded")) > 0]
    encoders = f"by {count_noun(len({data.modality_of(sensor) for sensor in sensors}), 'encoder')}"
    if data.has_named_sensors:
        encoders += f" from {count_noun(len(sensors), 'sensor')}"
    tiles.append(_tile("Windows embedded", f"{embedded:,.0f}", f"of {windows:,.0f}", encoders))
    slowest = max(data.modalities.items(), key=lambda m: _latency(m[1], "p99"), default=None)
    if slowest and _latency(slowest[1], "p99"):
        worst = _latency(slowest[1], "p99")
        about = f"slowest {context.noun}: {context.name(slowest[0])}"
        tiles.append(_tile("Latency p99", format_number(worst, 0 if worst >= 100 else 1), "ms", about))
    if data.realtime_factor is not None and math.isfinite(data.realtime_factor):
        tiles.append(_tile("Speed", format_number(data.realtime_factor, 1), "× real time"))
    return tiles


def _match_truth(context: PageContext) -> Counts:
    """Match against the truth: the events of prompts, those with a label of the truth, and faults if it has any."""
    truth = list(context.data.truth or ())
    known, faults = {label for _, _, label in truth}, any(label.startswith("fault:") for _, _, label in truth)
    counted = [
        o
        for o in context.intervals
        if o.kind is EventKind.PROMPT or o.label in known or (faults and o.kind is EventKind.FAULT)
    ]
    seconds = [((o.onset - context.axis.start) / SECOND, o.offset or context.axis.end, o.label) for o in counted]
    detected = [(on, max((off - context.axis.start) / SECOND, on + 1e-3), label) for on, off, label in seconds]
    true = [(onset, max(offset, onset + 1e-3), label) for onset, offset, label in truth]
    return match(Spans.of(true), Spans.of(detected)).counts


def _detections_of(context: PageContext, onset: float, offset: float, label: str) -> list[EventInterval]:
    start, end = (context.axis.start + round(t * SECOND) for t in (onset, offset))
    return [
        o for o in context.intervals if o.label == label and o.onset < end and (o.offset or context.axis.end) > start
    ]


def _axis(context: PageContext) -> Row:
    axis = context.axis
    ticks = axis.ticks()
    marks = []
    for i, tick in enumerate(ticks):
        near_end = tick > 0.97 * axis.seconds
        kind = " ".join(["odd"] * (i % 2) + ["last"] * near_end)
        marks.append(
            f"<span{f' class={chr(34)}{kind}{chr(34)}' if kind else ''} "
            f'style="left:{format_number(tick / axis.seconds * 100, 3)}%">{format_time(tick, axis.seconds)}</span>'
        )
    lines = "".join(
        f'<i style="left:{format_number(tick / axis.seconds * 100, 3)}%"></i>'
        for tick in ticks
        if tick < 0.999 * axis.seconds  # a line at the very end would be outside the plot
    )
    return [
        '<div class="axis" tabindex="0" role="slider" aria-label="Time; arrow keys move the cursor" aria-valuemin="0" ',
        f'aria-valuemax="{format_number(axis.seconds, 2)}" aria-valuenow="0" aria-valuetext="start"><b>time</b>',
        f'<div class="t">{"".join(marks)}<div class="flag"></div></div></div>',
        f'<div class="grid" aria-hidden="true">{lines}</div><div class="cursor" aria-hidden="true"></div>',
    ]


def _load_table(context: PageContext) -> Row:
    data = context.data
    names = data.sort(data.modalities)
    if not names:
        return []
    measured = any(_latency(figures, "p99") for figures in context.data.modalities.values())
    rows = []
    for name in names:
        figures = data.modalities[name]
        share = min(max(finite_or_zero(figures.get("coverage_mean")), 0.0), 1.0)
        covered = f"{format_number(share * 100, 1)} %" if finite_or_zero(figures.get("windows")) else "–"
        p50, p99 = (format_number(_latency(figures, p), 1) if _latency(figures, p) else "–" for p in ("p50", "p99"))
        latencies = f'<td class="n">{p50}</td><td class="n">{p99}</td>'
        numbers = "".join(
            f'<td class="n">{finite_or_zero(figures.get(key)):,.0f}</td>' for key in ("windows", "embedded")
        )
        modality = f"<td>{escape_text(data.modality_of(name), 24)}</td>" if data.has_named_sensors else ""
        causes = _drop_causes(figures, data.losses.sensors.get(name))
        rows.append(
            f'<tr class="{context.colour_class(name)}"><th scope="row">{context.name(name)}</th>{modality}{numbers}'
            f'<td class="n">{covered}<span class="meter" aria-hidden="true">'
            f'<i style="width:{format_number(share * 100, 1)}%"></i></span></td>'
            f'{latencies if measured else ""}<td class="w">{causes}</td></tr>'
        )
    columns = "".join(f"<th>{column}</th>" for column in dict.fromkeys([context.noun, "modality"]))
    latency = '<th class="n">latency p50, ms</th><th class="n">latency p99, ms</th>' if measured else ""
    head = (
        f'<tr>{columns}<th class="n">windows</th><th class="n">embedded</th><th class="n">mean coverage</th>'
        f"{latency}<th>data that were not used, and symptoms</th></tr>"
    )
    about = "Latency is the time from the close of a window until its vector is ready."
    if not measured:
        about = "An offline replay has no latency: it reads ahead and embeds windows in batches."
    return [
        f"<section><h2>{'Load and latency' if measured else 'Load'}</h2>"
        f'<p class="lead">{about} Coverage is the fraction of a window with valid data.</p>',
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div></section>',
    ]


def _event_table(context: PageContext) -> Row:
    if not context.intervals:
        return []
    rows = []
    for item in context.intervals[:MAX_LISTED_EVENTS]:
        onset = format_time((item.onset - context.axis.start) / SECOND, context.axis.seconds)
        duration = f"{format_number((item.offset - item.onset) / SECOND, 1)} s" if item.offset else "ongoing"
        sensors = "".join(
            f'<span class="tag {context.colour_class(s)}">{context.name(s)} {format_score(best)}</span>'
            for s, best in item.score_by_sensor.items()
        )
        places = "".join(_place_text(context, own) for own in item.place_by_sensor.values())
        rows.append(
            f'<tr><td class="n">{onset}</td><td class="n">{duration}</td><td>{item.kind.name.lower()}</td>'
            f'<td class="w"><bdi>{escape_text(item.label)}</bdi></td><td class="n">{format_score(item.peak_score)}</td>'
            f"<td>{sensors}{places}</td></tr>"
        )
    more = len(context.intervals) - MAX_LISTED_EVENTS
    opened = " open" if len(rows) <= 15 else ""
    rest = f'<p class="lead">{more:,} more events are in summary.json.</p>' if more > 0 else ""
    return [
        f"<details{opened}><summary>All events <small>{len(context.intervals):,}</small></summary>",
        '<div class="scroll"><table><thead><tr><th class="n">onset</th><th class="n">duration</th><th>kind</th>'
        '<th>label</th><th class="n">highest reported score</th><th>supported by</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{rest}</details>",
    ]


def _place_text(context: PageContext, evidence: Evidence) -> str:
    """The region of an event, and its direction if that is known, as HTML."""
    x, y, width, height = evidence.region or (0, 0, 0, 0)
    text = f"{context.name(evidence.source)} at {x}, {y}, {width} × {height} px"
    if evidence.bearing is not None and math.isfinite(evidence.bearing):
        side = "left" if evidence.bearing >= 0 else "right"
        text += f", {abs(math.degrees(evidence.bearing)):.0f}° {side}"
    return f" <small>{text}</small>"


def _tile(name: str, value: str, unit: str = "", about: str = "") -> str:
    """A key figure as HTML. `about` must be escaped already; the other arguments must not come from outside."""
    small = f"<small>{unit}</small>" if unit else ""
    return f"<div><dt>{name}</dt><dd>{value}{small}</dd>{f'<p>{about}</p>' if about else ''}</div>"


def _latency(figures: Mapping[str, Any], which: str) -> float:
    latencies = figures.get("latency_ms")
    return finite_or_zero(latencies.get(which)) if isinstance(latencies, Mapping) else 0.0


def _drop_causes(figures: Mapping[str, Any], losses: SensorLosses | None) -> str:
    """Causes and counts, escaped: windows that were not used, then samples, then messages, then symptoms."""
    parts = []
    late = {cause: figures.get(cause) for cause in ("unfused", "gaps") if finite_or_zero(figures.get(cause))}
    for noun, causes in (
        ("window", figures.get("dropped")),
        ("window", late),
        ("sample", figures.get("samples_dropped")),
        ("sample", figures.get("samples_without_window")),
        ("message", losses.messages_lost if losses else {}),
        ("window", figures.get("symptoms")),
    ):
        for cause, count in causes.items() if isinstance(causes, Mapping) else ():
            parts.append(f"{escape_text(cause, 24)}: {count_noun(int(finite_or_zero(count)), noun)}")
    causes = figures.get("dropped")
    dropped = sum(map(finite_or_zero, causes.values())) if isinstance(causes, Mapping) else 0.0
    if not finite_or_zero(figures.get("windows")):
        parts.append("no windows")
    elif not finite_or_zero(figures.get("embedded")) and finite_or_zero(figures.get("windows")) > dropped:
        parts.insert(0, "no encoder in this space")
    return ", ".join(parts) or "–"
