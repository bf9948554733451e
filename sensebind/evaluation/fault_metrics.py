"""Whether the sensor that failed was named, and how soon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sensebind.evaluation.spans import FaultSpans

MAX_DELAY = 3.0  # s after its onset within which a fault is to be named
EARLY_TOLERANCE = (
    1.0  # s by which a fault may be named before: stamps of a fault and of a window's end are not one clock
)


@dataclass(frozen=True, slots=True)
class FaultReport:
    """An event that names a faulty sensor: from `onset` to `offset`, told at `reported_at`, all in seconds."""

    onset: float
    offset: float
    reported_at: float
    sensor: str
    cause: str


@dataclass(frozen=True, slots=True)
class FaultScore:
    """Of `faults` there were, `named` were told with their sensor in time, `explained` with their cause as well;
    `false` were told of sensors that were well. `delays`: seconds from onset to telling, of all that were named."""

    faults: int = 0
    named: int = 0
    explained: int = 0
    false: int = 0
    delays: tuple[float, ...] = ()

    def __add__(self, other: FaultScore) -> FaultScore:
        return FaultScore(
            self.faults + other.faults,
            self.named + other.named,
            self.explained + other.explained,
            self.false + other.false,
            self.delays + other.delays,
        )


def parse_fault_label(label: str, onset: float, offset: float, reports: float) -> FaultReport | None:
    """The label ``fault:<sensor>:<cause>`` read; None for others."""
    parts = label.split(":")
    if len(parts) < 2 or parts[0] != "fault" or not parts[1]:
        return None
    return FaultReport(onset, offset, reports, parts[1], ":".join(parts[2:]))


def score_faults(truth: FaultSpans, reports: Sequence[FaultReport], *, max_delay: float = MAX_DELAY) -> FaultScore:
    """A fault is named where an event that names its sensor is told from `EARLY_TOLERANCE` s before its onset to its
    offset.

    It is named in time where that is `max_delay` s after its onset at most. An event is false where its sensor has no
    fault between `EARLY_TOLERANCE` s before and `max_delay` s after it.
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
