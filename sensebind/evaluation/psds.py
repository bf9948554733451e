"""The polyphonic sound detection score (PSDS), computed exactly over all thresholds. It is not specific to sound.

Criteria and curve: C. Bilen et al., "A framework for the robust evaluation of sound event detection", 2020. Use of all
thresholds at which a count changes: J. Ebbers et al., "Threshold-independent evaluation of sound event detection
scores", 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sensebind.evaluation.spans import Array, Spans

HOUR = 3600.0  # s
TOLERANCE = 1e-6  # s: an overlap of exactly the required length is enough


@dataclass(frozen=True, slots=True)
class PsdsScenario:
    """The criteria and weights of a PSDS.

    A detection is false unless the fraction `dtc` of its length lies in events of its label. An event is found if the
    fraction `gtc` of its length lies in detections that are not false. A false detection is a cross trigger of another
    label if the fraction `cttc` of its length lies in events of that label. `alpha_ct`: weight of the rate of cross
    triggers. `alpha_st`: weight of the standard deviation between labels. `max_efpr`: false detections per hour up to
    which the curve is integrated.
    """

    dtc: float
    gtc: float
    cttc: float = 0.3
    alpha_ct: float = 0.0
    alpha_st: float = 1.0
    max_efpr: float = 100.0


# DCASE, task 4, since 2021: psds1 rewards a fast reaction, psds2 penalises confusion of labels.
PSDS_SCENARIOS = {"psds1": PsdsScenario(0.7, 0.7), "psds2": PsdsScenario(0.1, 0.1, alpha_ct=0.5)}


@dataclass(frozen=True)
class ScoreTimeline:
    """Scores of a detector over time: `scores` (T, L) of L labels between the ascending `edges` (T+1,) in s."""

    edges: Array
    labels: tuple[str, ...]
    scores: Array

    def scores_of(self, label: str) -> Array:
        """The scores (T,) of a label; zeros if it was not scored."""
        return self.scores[:, self.labels.index(label)] if label in self.labels else np.zeros(len(self.scores))


def psds(
    truths: Sequence[Spans], timelines: Sequence[ScoreTimeline], seconds: float, scenario: PsdsScenario
) -> float | None:
    """The PSDS, 0..1, of `timelines` against `truths`, one of each for every recording. `seconds`: total duration.

    Only labels of the truth are scored. None if the truth is empty.
    """
    labels = sorted({label for truth in truths for label in truth.labels})
    if not labels or seconds <= 0:
        return None
    curves = [_curve(label, labels, truths, timelines, seconds, scenario) for label in labels]
    rates = np.unique(np.concatenate([rate for rate, _ in curves]))
    table = np.stack([found[np.searchsorted(rate, rates, side="right") - 1] for rate, found in curves])
    effective = np.maximum(table.mean(axis=0) - scenario.alpha_st * table.std(axis=0), 0.0)
    return float(effective @ np.diff(np.append(rates, scenario.max_efpr)) / scenario.max_efpr)


def _curve(
    label: str,
    labels: Sequence[str],
    truths: Sequence[Spans],
    timelines: Sequence[ScoreTimeline],
    seconds: float,
    scenario: PsdsScenario,
) -> tuple[Array, Array]:
    """The curve of one label: (ascending rates of false detections per hour from 0, largest fraction of events found up
    to each)."""
    others = [name for name in labels if name != label]
    events = sum(truth.labels.count(label) for truth in truths)
    lengths = np.array(
        [sum(float((t.offsets - t.onsets).sum()) for t in [u.with_labels(o) for u in truths]) for o in others]
    )
    # The counts of a recording change only at its own scores: count there, then sum over the recordings.
    steps = [_counts(label, others, t, c, scenario) for t, c in zip(truths, timelines, strict=True)]
    thresholds = np.unique(np.concatenate([values for values, _ in steps]))[::-1]
    total = np.zeros((len(thresholds), 2 + len(others)))
    for values, counts in steps:  # `values` are descending
        at = np.searchsorted(-values, -thresholds, side="right") - 1
        total += np.where((at >= 0)[:, None], counts[np.maximum(at, 0)] if len(values) else 0.0, 0.0)
    found, false = total[:, 0] / max(events, 1), total[:, 1] / seconds
    if others and scenario.alpha_ct:
        false = false + scenario.alpha_ct * (total[:, 2:] / np.maximum(lengths, 1e-12)).mean(axis=1)
    rates, found = np.append(0.0, false * HOUR), np.append(0.0, found)
    order = np.argsort(rates, kind="stable")
    rates, found = rates[order], np.maximum.accumulate(found[order])
    last = np.append(rates[1:] > rates[:-1], True) & (rates <= scenario.max_efpr)  # the best point of each rate
    return rates[last], found[last]


def _counts(
    label: str, others: Sequence[str], truth: Spans, timeline: ScoreTimeline, scenario: PsdsScenario
) -> tuple[Array, Array]:
    """Descending scores (U,) of one recording, and the counts (U, 2 + K) with each score as threshold: events found,
    false detections, and cross triggers of each of the K other labels."""
    scores, edges = timeline.scores_of(label), timeline.edges
    values = np.unique(scores[scores > 0])[::-1]
    own = truth.with_labels(label)
    lengths = own.offsets - own.onsets
    within = _overlap(edges, own)
    elsewhere = (
        np.stack([_overlap(edges, truth.with_labels(o)).sum(axis=1) for o in others], axis=1) if others else None
    )
    counts = np.zeros((len(values), 2 + len(others)))
    for row, value in enumerate(values):
        change = np.diff(np.concatenate([[0], (scores >= value).astype(np.int8), [0]]))
        starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
        shared, durations = within[ends] - within[starts], edges[ends] - edges[starts]
        valid = shared.sum(axis=1) >= scenario.dtc * durations - TOLERANCE
        counts[row, 0] = (shared[valid].sum(axis=0) >= scenario.gtc * lengths - TOLERANCE).sum() if valid.any() else 0
        counts[row, 1] = (~valid).sum()
        if elsewhere is not None:
            crossed = elsewhere[ends] - elsewhere[starts] >= (scenario.cttc * durations - TOLERANCE)[:, None]
            counts[row, 2:] = (crossed & ~valid[:, None]).sum(axis=0)
    return values, counts


def _overlap(edges: Array, spans: Spans) -> Array:
    """Overlap in s of each of N spans with the time before each edge, (T+1, N)."""
    return np.asarray(np.clip(edges[:, None] - spans.onsets, 0.0, spans.offsets - spans.onsets))
