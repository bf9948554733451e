"""Matching of detections with the truth: event-based and segment-based."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sensebind.evaluation.spans import Array, Spans

ONSET_COLLAR = 1.0  # s: largest error of an onset
OFFSET_LENGTH_RATIO = 0.5  # largest error of an offset, as a fraction of the event's length; at least `ONSET_COLLAR`
SEGMENT_LENGTH = 1.0  # s


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of hits, false detections and missed events, with precision, recall and F1. Counts can be added."""

    hits: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hits + other.hits, self.false + other.false, self.missed + other.missed)

    @property
    def precision(self) -> float | None:
        """Hits / (hits + false). None without detections."""
        detected = self.hits + self.false
        return self.hits / detected if detected else None

    @property
    def recall(self) -> float | None:
        """Hits / (hits + missed). None without events in the truth."""
        true = self.hits + self.missed
        return self.hits / true if true else None

    @property
    def f1(self) -> float | None:
        """2·hits / (2·hits + false + missed). None without events in the truth and without detections."""
        total = 2 * self.hits + self.false + self.missed
        return 2 * self.hits / total if total else None


class Match(NamedTuple):
    """Pairs (index in the truth, index in the detections), and the indices on each side without a partner."""

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

    A detection fits an event of its label if their onsets differ by at most `collar` s and their offsets by at most
    max(`collar`, `offset_ratio` × length of the event). Each event and detection is in at most one pair. The assignment
    has the largest number of pairs and, of these, the smallest sum of onset errors. `labels=False` ignores labels.
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
    """The largest set of pairs with `fits` (N, M) true and, of that size, the smallest sum of `cost` (N, M)."""
    if not fits.any():
        return []
    worst = float(cost[fits].max()) + 1.0
    # One more pair outweighs any difference in the cost of all others.
    worth = np.where(fits, cost / (worst * (min(fits.shape) + 1)) - 1.0, 0.0)
    rows, columns = linear_sum_assignment(worth)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if fits[i, j]]


def event_based_counts(
    truth: Spans, detections: Spans, *, collar: float = ONSET_COLLAR, offset_ratio: float = OFFSET_LENGTH_RATIO
) -> dict[str, Counts]:
    """Label → counts of `match`, for each label of truth or detections."""
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
    """Label → counts of segments of `segment` s. A label is active in segments that it overlaps (source: `match`)."""
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
    """bool (S,): whether a span overlaps each segment of a recording of `duration` s. The last one may be shorter."""
    count = max(int(np.ceil(duration / segment - 1e-9)), 1)
    starts = np.arange(count) * segment
    inside = (spans.onsets[:, None] < starts + segment - 1e-9) & (spans.offsets[:, None] > starts + 1e-9)
    return np.asarray(inside.any(axis=0))


def false_alarm_indices(truth: Spans, detections: Spans, collar: float = ONSET_COLLAR) -> list[int]:
    """Indices of the detections that are more than `collar` s away from every event of their label."""
    same = np.array(truth.labels, object)[:, None] == np.array(detections.labels, object)[None]
    near = (truth.onsets[:, None] <= detections.offsets[None] + collar) & (
        truth.offsets[:, None] >= detections.onsets[None] - collar
    )
    return np.flatnonzero(~(same & near).any(axis=0)).tolist() if len(detections) else []


def label_from_truth(truth: Spans, detections: Spans, otherwise: str) -> Spans:
    """Label the detections of a detector without labels, with the best labels that the truth allows.

    A detection that `match` (without labels) pairs with an event gets its label. Each other detection gets the label of
    the event that it overlaps most, or `otherwise` if it overlaps none. The truth gives the labels, so the scores
    are an upper bound for any labelling.
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
    """The sum of several counts."""
    result = Counts()
    for one in counts:
        result += one
    return result
