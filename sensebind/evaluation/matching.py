"""Detections against the truth: event by event, and segment by segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sensebind.evaluation.spans import Array, Spans

ONSET_COLLAR = 1.0  # s that an onset may be off
OFFSET_LENGTH_RATIO = 0.5  # of an event's length that its offset may be off; `ONSET_COLLAR` at least
SEGMENT_LENGTH = 1.0  # s


@dataclass(frozen=True, slots=True)
class Counts:
    """Right, wrong and missed; what precision, recall and F1 follow from. Those of several files add up."""

    hits: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.false + other.false, self.missed + other.missed)

    @property
    def precision(self) -> float | None:
        """Share of what was told that was right; None where nothing was told."""
        told = self.hits + self.false
        return self.hits / told if told else None

    @property
    def recall(self) -> float | None:
        """Share of what was there that was told; None where nothing was there."""
        truth_active = self.hits + self.missed
        return self.hits / truth_active if truth_active else None

    @property
    def f1(self) -> float | None:
        """2·hits / (2·hits + false + missed); None where nothing was there and nothing was told."""
        total = 2 * self.hits + self.false + self.missed
        return 2 * self.hits / total if total else None


class Match(NamedTuple):
    """Pairs (index of the truth, index of the detection), and the indices that are left of either."""

    pairs: list[tuple[int, int]]
    missed: list[int]
    false: list[int]

    @property
    def counts(self) -> Counts:
        return Counts(len(self.pairs), len(self.false), len(self.missed))


def match(
    truth: Spans,
    detections: Spans,
    *,
    collar: float = ONSET_COLLAR,
    offset_ratio: float = OFFSET_LENGTH_RATIO,
    labels: bool = True,
) -> Match:
    """Event-based matching (Mesaros, Heittola and Virtanen, "Metrics for polyphonic sound event detection", 2016).

    A detection fits an event of its label if its onset is at most `collar` s off, and its offset at most
    max(`collar`, `offset_ratio` × the event's length). Each fits one: as many pairs as can be, and of those assignments
    the one whose onsets are nearest. `labels=False` lets any label fit any.
    """
    onset = np.abs(truth.onsets[:, None] - detections.onsets[None])
    offset = np.abs(truth.offsets[:, None] - detections.offsets[None])
    offset_tolerance = np.maximum(collar, offset_ratio * (truth.offsets - truth.onsets))[:, None]
    fits = (onset <= collar + 1e-9) & (offset <= offset_tolerance + 1e-9)  # times in files are rounded to ms
    if labels:
        fits &= np.array(truth.labels, object)[:, None] == np.array(detections.labels, object)[None]
    pairs = _assign(fits, onset)
    return Match(
        pairs,
        sorted(set(range(len(truth))) - {i for i, _ in pairs}),
        sorted(set(range(len(detections))) - {j for _, j in pairs}),
    )


def _assign(fits: np.ndarray, cost: Array) -> list[tuple[int, int]]:
    """As many pairs as can be where `fits` (N, M), and of those with the least `cost` in sum."""
    if not fits.any():
        return []
    worst = float(cost[fits].max()) + 1.0
    # One more pair is worth more than any difference in cost of all the others.
    worth = np.where(fits, cost / (worst * (min(fits.shape) + 1)) - 1.0, 0.0)
    rows, columns = linear_sum_assignment(worth)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if fits[i, j]]


def event_based_counts(
    truth: Spans, detections: Spans, *, collar: float = ONSET_COLLAR, offset_ratio: float = OFFSET_LENGTH_RATIO
) -> dict[str, Counts]:
    """Label → counts of `match`, for every label of either."""
    found = match(truth, detections, collar=collar, offset_ratio=offset_ratio)
    labels = sorted({*truth.labels, *detections.labels})
    return {
        label: Counts(
            sum(truth.labels[i] == label for i, _ in found.pairs),
            sum(detections.labels[j] == label for j in found.false),
            sum(truth.labels[i] == label for i in found.missed),
        )
        for label in labels
    }


def segment_based_counts(
    truth: Spans, detections: Spans, duration: float, *, segment: float = SEGMENT_LENGTH
) -> dict[str, Counts]:
    """Label → counts of segments of `segment` s in which it is there, or told, at any time (same source as `match`)."""
    counts = {}
    for label in sorted({*truth.labels, *detections.labels}):
        truth_active = active_segments(truth.with_labels(label), duration, segment)
        detected_active = active_segments(detections.with_labels(label), duration, segment)
        counts[label] = Counts(
            int((truth_active & detected_active).sum()),
            int((~truth_active & detected_active).sum()),
            int((truth_active & ~detected_active).sum()),
        )
    return counts


def active_segments(spans: Spans, duration: float, segment: float = SEGMENT_LENGTH) -> np.ndarray:
    """bool (S,): whether anything overlaps each segment of a recording of `duration` s, the last one cut or whole."""
    count = max(int(np.ceil(duration / segment - 1e-9)), 1)
    starts = np.arange(count) * segment
    inside = (spans.onsets[:, None] < starts + segment - 1e-9) & (spans.offsets[:, None] > starts + 1e-9)
    return np.asarray(inside.any(axis=0))


def false_alarm_indices(truth: Spans, detections: Spans, collar: float = ONSET_COLLAR) -> list[int]:
    """Indices of detections that nothing of their label comes within `collar` s of: what was told of nothing."""
    same = np.array(truth.labels, object)[:, None] == np.array(detections.labels, object)[None]
    near = (truth.onsets[:, None] <= detections.offsets[None] + collar) & (
        truth.offsets[:, None] >= detections.onsets[None] - collar
    )
    return np.flatnonzero(~(same & near).any(axis=0)).tolist() if len(detections) else []


def label_from_truth(truth: Spans, detections: Spans, otherwise: str) -> Spans:
    """The detections of a detector that knows no labels, each with the label that suits it best.

    First `match` without labels: as many as can be get the label of the event they fit. The others get the label of
    the event that they overlap most, or `otherwise` where they overlap none. It is the truth that labels them, so the
    scores of such a detector are an upper bound of what it could be worth.
    """
    names = [otherwise] * len(detections)
    for j in range(len(detections)):
        shared = np.minimum(truth.offsets, detections.offsets[j]) - np.maximum(truth.onsets, detections.onsets[j])
        if len(shared) and shared.max() > 0:
            names[j] = truth.labels[int(shared.argmax())]
    for i, j in match(truth, detections, labels=False).pairs:
        names[j] = truth.labels[i]
    return Spans.of(zip(detections.onsets.tolist(), detections.offsets.tolist(), names, strict=True))


def sum_counts(counts: Sequence[Counts]) -> Counts:
    """The sum of several."""
    result = Counts()
    for one in counts:
        result += one
    return result
