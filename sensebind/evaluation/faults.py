"""Whether the sensor that failed was named, and how soon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sensebind.evaluation.spans import Faults

IN_TIME = 3.0  # s after its onset within which a fault is to be named
EARLY = 1.0  # s by which a fault may be named before: stamps of a fault and of a window's end are not one clock


@dataclass(frozen=True, slots=True)
class Naming:
    """An event that names a faulty sensor: from `onset` to `offset`, told at `told`, all in seconds."""

    onset: float
    offset: float
    told: float
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


def naming(label: str, onset: float, offset: float, told: float) -> Naming | None:
    """The label ``fault:<sensor>:<cause>`` read; None for others."""
    parts = label.split(":")
    if len(parts) < 2 or parts[0] != "fault" or not parts[1]:
        return None
    return Naming(onset, offset, told, parts[1], ":".join(parts[2:]))


def score_faults(truth: Faults, told: Sequence[Naming], *, in_time: float = IN_TIME) -> FaultScore:
    """A fault is named where an event that names its sensor is told from `EARLY` s before its onset to its offset.

    It is named in time where that is `in_time` s after its onset at most. An event is false where its sensor has no
    fault between `EARLY` s before and `in_time` s after it.
    """
    named = explained = 0
    delays = []
    for (onset, offset, sensor), cause in zip(truth.spans.rows(), truth.causes, strict=True):
        own = [n for n in told if n.sensor == sensor and onset - EARLY <= n.told <= max(offset, onset + in_time)]
        if not own:
            continue
        delays.append(max(min(n.told for n in own) - onset, 0.0))
        soon = [n for n in own if n.told <= onset + in_time + 1e-9]
        named += bool(soon)
        explained += any(n.cause == cause for n in soon)
    false = sum(
        not any(
            sensor == n.sensor and onset - EARLY <= n.offset and n.onset <= offset + in_time
            for onset, offset, sensor in truth.spans.rows()
        )
        for n in told
    )
    return FaultScore(len(truth.causes), named, explained, false, tuple(delays))
