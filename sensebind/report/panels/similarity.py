"""The panels of similarity: a heat map for each sensor, with a row for each prompt."""

from __future__ import annotations

import numpy as np

from sensebind.report.formatting import count_noun, escape_text, format_score
from sensebind.report.panels import charts
from sensebind.report.panels.context import PageContext, Row

MAX_LABELS = 40  # rows of a heat map
MAX_CELLS = 24_000  # cells of one heat map
ROW_HEIGHT = 16  # px


def similarity_panels(context: PageContext) -> Row:
    """The panels, as rows of the timeline; one sentence if there are no similarities."""
    shown = {name: s for name, s in context.data.similarities.items() if len(s.ticks) and s.labels}
    if not shown:
        return ['<h2>Similarity</h2><p class="lead">There are no similarities: there are no prompts or no vectors.</p>']
    lead = (
        f"Cosine similarity between the vectors of each {context.noun} and each prompt. Each {context.noun} has its "
        "own colour scale, because cosines to text have a different range in each modality. Trained prompt classifiers "
        "score vectors directly, so the scores of their events do not follow from these similarities."
    )
    rows = [f'<h2>Similarity</h2><p class="lead">{lead}</p>']
    for sensor in context.data.sort(shown)[:12]:
        rows += _heat_map(context, sensor)
    return rows


def _heat_map(context: PageContext, sensor: str) -> Row:
    similarity = context.data.similarities[sensor]
    labels, note = similarity.labels, ""
    if len(labels) > MAX_LABELS:
        # The prompts whose maximum is highest above their median, in the given order.
        scores = np.nan_to_num(similarity.scores)
        best = np.argsort(-(scores.max(axis=0) - np.median(scores, axis=0)), kind="stable")[:MAX_LABELS]
        keep = sorted(best.tolist())
        similarity = similarity._replace(labels=tuple(labels[i] for i in keep), scores=similarity.scores[:, keep])
        note = f"{MAX_LABELS} of {len(labels)} prompts: those with the highest peaks above their median"
        labels = similarity.labels
    cells = charts.downsample(similarity, context.axis, max(40, min(600, MAX_CELLS // len(labels))))
    low, high = charts.contrast_limits(cells.scores)
    paths = charts.heat_map_paths(cells, context.axis, low, high, ROW_HEIGHT)
    at = context.add_cursor_series(cells.starts, cells.ends, list(cells.scores.T), 0.001, 3)
    drawn = "".join(f'<path class="shade{shade}" d="{d}"/>' for shade, d in paths.items())
    keys = "".join(
        f'<div><bdi title="{escape_text(label)}">{escape_text(label)}</bdi>'
        f'<output data-s="{at}" data-r="{i}"></output></div>'
        for i, label in enumerate(labels)
    )
    name = context.heading(sensor)
    height = ROW_HEIGHT * len(labels)
    return [
        f'<div class="panelhead {context.colour_class(sensor)}"><h3>{name}</h3>',
        f'<span class="scale">{format_score(low)}<i></i>{format_score(high)}</span>',
        f'<span class="about">{note}</span></div>',
        f'<div class="row {context.colour_class(sensor)}"><div class="keys">{keys}</div><div class="plot">',
        f'<svg viewBox="0 0 1000 {height}" height="{height}" preserveAspectRatio="none" shape-rendering="crispEdges" '
        f'class="heat" role="img" aria-label="{name}: cosine with {count_noun(len(labels), "prompt")} over time">',
        drawn,
        "</svg></div></div>",
    ]
