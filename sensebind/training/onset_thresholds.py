"""Suggests an onset threshold for each prompt, from a recording with truth.

The prompt detector runs on the same embeddings with each candidate threshold. So a candidate has the events that a
replay with this threshold has. The measure is the event-based F1 of `evaluation.matching`. What a suggestion is worth
is measured by cross-validation over blocks of time: the threshold for a block is chosen on the other blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sensebind.evaluation.matching import Counts, match, sum_counts
from sensebind.evaluation.run_recordings import TrackerStep
from sensebind.evaluation.spans import Spans
from sensebind.fusion.core.events import Event, EventKind, intervals_from_events
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.tracker import EventTracker

CANDIDATES = tuple(round(0.05 * step, 2) for step in range(1, 20))  # 0.05 to 0.95
MAX_BLOCKS = 5
MIN_EVENTS = 4  # true events of a label: with fewer, a threshold that is chosen on some says little about the others


@dataclass(frozen=True, slots=True)
class ThresholdSuggestion:
    """The result for one label.

    `events`: number of true events. `current`: the configured onset threshold, with `counts` of its events.
    `best`: the candidate with the highest F1 on the whole recording; None if there are too few events.
    `cross_validated`: counts of the thresholds that were chosen without the block in which they are scored. `blocks`:
    number of blocks.
    """

    label: str
    events: int
    current: float
    counts: Counts
    best: float | None = None
    cross_validated: Counts = Counts()
    blocks: int = 0

    @property
    def suggested(self) -> float | None:
        """`best`, if it differs from `current` and its cross-validated F1 is at least that of `current`; else None."""
        if self.best is None or self.best == self.current:
            return None
        return self.best if (self.cross_validated.f1 or 0.0) >= (self.counts.f1 or 0.0) else None


def suggest_thresholds(
    detector: PromptDetector,
    steps: Sequence[TrackerStep | None],
    space: str,
    truth: Spans,
    start: int,
    progress: Callable[[Iterable[float]], Iterable[float]] = iter,
) -> list[ThresholdSuggestion]:
    """A suggestion for each label of `detector`, by name.

    `steps`: those of the tracker in the replay, in the space with this id. `truth`: in s from `start` (ns); labels
    without a prompt are ignored. `progress` wraps the candidates.
    """
    labels = sorted(detector.prompts)
    found = {
        candidate: _detections(detector, dict.fromkeys(labels, candidate), steps, space, start)
        for candidate in progress(CANDIDATES)
    }
    current = _detections(detector, detector.options.onset_thresholds, steps, space, start)
    return [
        _suggest_for_label(
            label,
            detector.lifecycle_options_for(label).onset_threshold,
            truth.with_labels(label),
            current.with_labels(label),
            {candidate: spans.with_labels(label) for candidate, spans in found.items()},
        )
        for label in labels
    ]


def _detections(
    detector: PromptDetector,
    thresholds: Mapping[str, float],
    steps: Sequence[TrackerStep | None],
    space: str,
    start: int,
) -> Spans:
    """The events of the prompts with these onset thresholds (label → threshold), in s from `start`."""
    tracker = EventTracker([detector.with_options(replace(detector.options, onset_thresholds=thresholds))], space)
    events: list[Event] = []
    for step in steps:
        if step is None:
            events += tracker.restart()
        elif step.late:
            events += tracker.add_late_embeddings(step.tick, step.embeddings)
        else:
            events += tracker.step(step.tick, step.embeddings)
    events += tracker.finish()
    rows = []
    for item in intervals_from_events(event for event in events if event.kind is EventKind.PROMPT):
        if item.offset is not None and item.evidence_by_tick:
            onset, offset = (item.onset - start) / SECOND, (item.offset - start) / SECOND
            rows.append((onset, max(offset, onset + 1e-3), item.label))
    return Spans.of(rows)


def _suggest_for_label(
    label: str, threshold: float, truth: Spans, current: Spans, candidates: dict[float, Spans]
) -> ThresholdSuggestion:
    own = candidates | {threshold: current}
    values = sorted(own)
    basic = ThresholdSuggestion(label, len(truth), threshold, match(truth, current).counts)
    if len(truth) < MIN_EVENTS:
        return basic
    blocks = min(MAX_BLOCKS, len(truth))
    borders = block_borders(truth, blocks)
    table = [_counts_by_block(truth, own[value], borders) for value in values]
    validated = []
    for held_out in range(blocks):
        chosen = best_candidate([sum_counts([*row[:held_out], *row[held_out + 1 :]]) for row in table])
        validated.append(table[chosen][held_out])
    best = values[best_candidate([sum_counts(row) for row in table])]
    return replace(basic, best=best, cross_validated=sum_counts(validated), blocks=blocks)


def block_borders(truth: Spans, blocks: int) -> np.ndarray:
    """The times (`blocks` − 1,) in s that divide a recording into blocks with about the same number of true events.

    Each is halfway between two onsets.
    """
    first = [group[0] for group in np.array_split(np.arange(len(truth)), blocks)[1:]]
    return np.array([(truth.onsets[i - 1] + truth.onsets[i]) / 2 for i in first])


def _counts_by_block(truth: Spans, detections: Spans, borders: np.ndarray) -> list[Counts]:
    """The counts of each block. A hit or a missed event belongs to the block of its true onset, a false detection to
    that of its own."""
    found = match(truth, detections)
    size = len(borders) + 1

    def count(onsets: Iterable[float]) -> np.ndarray:
        return np.bincount(np.searchsorted(borders, list(onsets), side="right"), minlength=size)

    hits = count(truth.onsets[i] for i, _ in found.pairs)
    false = count(detections.onsets[j] for j in found.false)
    missed = count(truth.onsets[i] for i in found.missed)
    return [Counts(int(h), int(f), int(m)) for h, f, m in zip(hits, false, missed, strict=True)]


def best_candidate(counts: Sequence[Counts]) -> int:
    """The index of the highest F1. Of equal ones, the middle of the longest run of neighbours: the largest margin."""
    scores = [one.f1 or 0.0 for one in counts]
    top = max(scores)
    runs: list[list[int]] = []
    for index, score in enumerate(scores):
        if score < top - 1e-12:
            continue
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    longest = max(runs, key=len)
    return longest[(len(longest) - 1) // 2]


def suggestion_table(suggestions: Sequence[ThresholdSuggestion]) -> str:
    """The suggestions as text: a line for each label, and what the columns mean."""
    rows = [("label", "events", "threshold", "event F1", "suggested", "cross-validated F1")]
    for item in suggestions:
        if item.best is None:
            advice = (f"none: fewer than {MIN_EVENTS} events", "")
        elif item.suggested is None:
            worse = "" if item.best == item.current else f" ({item.best:g} is worse)"
            advice = (f"the present one{worse}", f"{_f1(item.cross_validated)}, {item.blocks} blocks")
        else:
            advice = (f"{item.suggested:g}", f"{_f1(item.cross_validated)}, {item.blocks} blocks")
        rows.append((item.label, str(item.events), f"{item.current:g}", _f1(item.counts), *advice))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _f1(counts: Counts) -> str:
    detail = f"{counts.hits} hits, {counts.false} false, {counts.missed} missed"
    return f"– ({detail})" if counts.f1 is None else f"{counts.f1:.2f} ({detail})"


def threshold_values(suggestions: Sequence[ThresholdSuggestion]) -> dict[str, float]:
    """Label → onset threshold to write to a parameter file: the suggested one, or the present one if it is not worse.
    Labels with too few events are left out."""
    return {
        item.label: item.current if item.suggested is None else item.suggested
        for item in suggestions
        if item.best is not None
    }
