"""Metrics of fault detection: recall, delay and false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sensebind.evaluation.spans import FaultSpans

MAX_DELAY = 3.0  # s after its onset within which a fault must be reported
# s by which a report may come before the onset: a report has the stamp of a window, which is not exactly the fault's.
EARLY_TOLERANCE = 1.0


@dataclass(frozen=True, slots=True)
class FaultReport:
    """An event about a faulty sensor, from `onset` to `offset`, reported at `reported_at`, all in s."""

    onset: float
    offset: float
    reported_at: float
    sensor: str
    cause: str


@dataclass(frozen=True, slots=True)
class FaultScore:
    """Numbers of `faults` in the truth, of faults detected in time (`named`), of these with the correct cause
    (`explained`), and of false alarms (`false`). `delays`: s from onset to report of all faults that were reported,
    also of those reported too late."""

    faults: int = 0
    detected: int = 0
    cause_correct: int = 0
    false_alarms: int = 0
    delays: tuple[float, ...] = ()

    def __add__(self, other: FaultScore) -> FaultScore:
        return FaultScore(
            self.faults + other.faults,
            self.detected + other.detected,
            self.cause_correct + other.cause_correct,
            self.false_alarms + other.false_alarms,
            self.delays + other.delays,
        )


def parse_fault_label(label: str, onset: float, offset: float, reports: float) -> FaultReport | None:
    """Parse the label ``fault:<sensor>:<cause>``. None for other labels. `reports`: the time of the report in s."""
    parts = label.split(":")
    if len(parts) < 2 or parts[0] != "fault" or not parts[1]:
        return None
    return FaultReport(onset, offset, reports, parts[1], ":".join(parts[2:]))


def score_faults(truth: FaultSpans, reports: Sequence[FaultReport], *, max_delay: float = MAX_DELAY) -> FaultScore:
    """Score the reports on faults.

    A fault is detected if its sensor is reported from `EARLY_TOLERANCE` s before its onset to its offset, or to
    `max_delay` s after its onset if that is later. It is detected in time if the report is at most `max_delay` s after
    its onset. A report is a false alarm if it overlaps no fault of its sensor, from `EARLY_TOLERANCE` s before the
    onset to `max_delay` s after the offset.
    """
    named = explained = 0
    delays = []
    for (onset, offset, sensor), cause in zip(truth.spans.rows(), truth.causes, strict=True):
        own = [
            n
            for n in reports
            if n.sensor == sensor and onset - EARLY_TOLERANCE <= n.reported_at <= max(offset, onset + max_delay)
        ]
        if not own:
            continue
        delays.append(max(min(n.reported_at for n in own) - onset, 0.0))
        soon = [n for n in own if n.reported_at <= onset + max_delay + 1e-9]
        named += bool(soon)
        explained += any(n.cause == cause for n in soon)
    false = sum(
        not any(
            sensor == n.sensor and onset - EARLY_TOLERANCE <= n.offset and n.onset <= offset + max_delay
            for onset, offset, sensor in truth.spans.rows()
        )
        for n in reports
    )
    return FaultScore(len(truth.causes), named, explained, false, tuple(delays))
