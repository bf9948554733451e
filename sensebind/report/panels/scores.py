"""The panel of scores: for each prompt the curves of its scores with the thresholds, and of the raw similarities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sensebind.report.formatting import escape_text, format_score
from sensebind.report.panels import charts
from sensebind.report.panels.charts import SimilarityColumns, format_number
from sensebind.report.panels.context import PageContext, Row
from sensebind.report.report_data import Similarity
from sensebind.report.score_series import ScoreSeries

MAX_LABELS = 24  # prompts with curves
MAX_SHOWN_SENSORS = 12
MAX_POINTS = 60_000  # of all curves together
CHART_HEIGHT = 64  # px, of the scores of a prompt
ROW_HEIGHT = 16  # px, of the similarity of one sensor


@dataclass(frozen=True)
class _Curves:
    """The curves of one sensor: scores and similarities (N, L), the index of their cursor series, and the lowest and
    highest similarity."""

    score: SimilarityColumns
    similarity: SimilarityColumns
    cursor: int
    low: float
    high: float


def score_panel(context: PageContext) -> Row:
    """The panel, as rows of the timeline. Empty if there are no scores."""
    series = context.data.scores
    if series.is_empty:
        return []
    at = _labels_to_show(context, series)
    sensors = list(series.sensors)[:MAX_SHOWN_SENSORS]
    limit = max(40, min(600, MAX_POINTS // (len(at) * (1 + 2 * len(sensors)))))
    labels = tuple(series.labels[i] for i in at)
    fused = charts.downsample(Similarity(series.ticks, labels, series.scores[:, at]), context.axis, limit)
    cursor = context.add_cursor_series(fused.starts, fused.ends, list(fused.scores.T), 0.001, 3)
    curves = {sensor: _sensor_curves(context, series, sensor, at, limit) for sensor in sensors}
    lead = [
        "Scores of each prompt at each tick, also outside events. The dark line is the score of all modalities "
        "together: an event begins at the dashed line, the onset threshold, and ends below the dotted line, the offset "
        f"threshold. Coloured lines are the scores of single {context.nouns}. Below are the cosine similarities that "
        f"they come from; all prompts share one scale for each {context.noun}."
    ]
    if len(at) < len(series.labels):
        lead.append(f"Only the {len(at)} prompts with the highest scores are shown, of {len(series.labels)}.")
    rows = ["<h2>Scores</h2>", f'<p class="lead">{" ".join(lead)}</p>']
    for number, label in enumerate(labels):
        rows += _label_row(context, label, number, fused, cursor, curves)
    return rows


def _labels_to_show(context: PageContext, series: ScoreSeries) -> list[int]:
    """Indices of the labels with curves, in the order of the series: those in the truth or with events, then those with
    the highest scores."""
    named = {label for _, _, label in context.data.truth or ()} | {item.label for item in context.intervals}
    peaks = np.nan_to_num(series.scores).max(axis=0)
    order = sorted(range(len(series.labels)), key=lambda i: (series.labels[i] not in named, -float(peaks[i])))
    return sorted(order[:MAX_LABELS])


def _sensor_curves(context: PageContext, series: ScoreSeries, sensor: str, at: list[int], limit: int) -> _Curves:
    own = series.sensors[sensor]
    labels = tuple(series.labels[i] for i in at)
    score, similarity = (
        charts.downsample(Similarity(own.ticks, labels, np.nan_to_num(table[:, at])), context.axis, limit)
        for table in (own.score, own.similarity)
    )
    rows = [*score.scores.T, *similarity.scores.T]  # the scores of all labels, then their similarities
    cursor = context.add_cursor_series(score.starts, score.ends, rows, 0.001, 3)
    values = similarity.scores if similarity.scores.size else np.zeros(1)
    low, high = float(values.min()), float(values.max())
    return _Curves(score, similarity, cursor, low, max(high, low + 0.01))


def _label_row(
    context: PageContext,
    label: str,
    number: int,
    fused: SimilarityColumns,
    cursor: int,
    curves: Mapping[str, _Curves],
) -> Row:
    """The row of label `number` of those shown."""
    axis, name = context.axis, escape_text(label)
    onset, offset = context.data.scores.thresholds.get(label, (None, None))
    limits = "" if onset is None or offset is None else f"onset {format_score(onset)}, offset {format_score(offset)}"
    keys = [
        f'<div class="head"><bdi title="{name}">{name}</bdi>'
        f'<output data-s="{cursor}" data-r="{number}"></output></div>',
        f'<div class="wide">{limits}</div>',
    ]
    lines = [
        f'<path class="{kind}" d="M0 {format_number(CHART_HEIGHT * (1 - value), 1)}h{charts.AXIS_WIDTH}"/>'
        for kind, value in (("onset", onset), ("offset", offset))
        if value is not None
    ]
    rows = []
    count = fused.scores.shape[1]
    for sensor, own in curves.items():
        colour = context.colour_class(sensor)
        path = charts.curve(own.score, own.score.scores[:, number], axis, CHART_HEIGHT, 0.0, 1.0)
        lines.append(f'<path class="{colour}" d="{path}"/>')
        raw = charts.curve(own.similarity, own.similarity.scores[:, number], axis, ROW_HEIGHT - 2, own.low, own.high)
        short = context.name(sensor)
        keys.append(
            f'<div class="{colour}"><span>{short} <small>{format_score(own.low)} to {format_score(own.high)}</small>'
            f'</span><span><output data-s="{own.cursor}" data-r="{number}"></output> '
            f'<output data-s="{own.cursor}" data-r="{count + number}"></output></span></div>'
        )
        rows.append(
            f'<svg viewBox="0 0 1000 {ROW_HEIGHT}" height="{ROW_HEIGHT}" preserveAspectRatio="none" class="curves" '
            f'role="img" aria-label="{name}: cosine similarity of {short}"><path class="{colour}" d="{raw}"/></svg>'
        )
    whole = charts.curve(fused, fused.scores[:, number], axis, CHART_HEIGHT, 0.0, 1.0)
    lines.append(f'<path class="all" d="{whole}"/>')
    return [
        f'<div class="row lane scores"><div class="keys">{"".join(keys)}</div><div class="plot">',
        f'<svg viewBox="0 0 1000 {CHART_HEIGHT}" height="{CHART_HEIGHT}" preserveAspectRatio="none" class="curves" '
        f'role="img" aria-label="{name}: scores over time">{"".join(lines)}</svg>{"".join(rows)}</div></div>',
    ]
