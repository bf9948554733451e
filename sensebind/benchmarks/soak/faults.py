"""The faults of a soak: one in each period, of a random kind, the same for the same seed.

Kinds: those of `simulation.delivery_faults`, and those below, which are no faults of delivery.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sensebind.benchmarks.soak.readers import Reader
from sensebind.fusion.core.samples import SECOND
from sensebind.simulation.delivery_faults import ALL_SENSORS, DELIVERY_FAULTS, ScheduledFault, random_faults

MAX_LENGTH = 8.0  # s of a fault
LENGTH_SHARE = 0.4  # fraction of the period that a fault takes at most: the rest is for the recovery
MAX_AHEAD = SECOND  # ns: a tick further in the future belongs to a clock that is wrong
READER_KILLED, DEVICE_FAILS, NODE_STOPS = "reader_killed", "device_fails", "node_stops"
POISON, UNPLUGGED = "poison", "unplugged"
OTHER_FAULTS: Mapping[str, str] = {
    READER_KILLED: "the slow reader is killed, and started again at the end",
    DEVICE_FAILS: "the device raises an error for each batch",
    NODE_STOPS: "the detector is stopped (SIGSTOP), and continues at the end",
    POISON: "a sensor sends what no image, sound or reading can be: wrong sizes, unknown encodings, NaN, broken files",
    UNPLUGGED: "a sensor sends nothing, then images of half the width and height, and at the end as before",
}

# What is affected by a fault that is not one of a sensor.
SLOW_READER, DETECTOR = "slow reader", "detector"
AFFECTED: Mapping[str, str] = {READER_KILLED: SLOW_READER, NODE_STOPS: DETECTOR}

ROBOT_FAULTS = (READER_KILLED, DEVICE_FAILS, POISON, UNPLUGGED)  # of a run in one process
NODE_FAULTS = (READER_KILLED, NODE_STOPS, POISON, UNPLUGGED)  # of a run of nodes
PROMPTS: Mapping[str, Sequence[str]] = {
    "person": ["a person"],
    "fire": ["fire", "flames and smoke"],
    "alarm": ["an alarm"],
}


@dataclass(slots=True)
class PlannedFault:
    """One fault: times in ns since the epoch. `recovered`: what it affects → the time at which that worked again."""

    name: str
    sensor: str
    begin: int
    end: int
    recovered: dict[str, int | None] = field(default_factory=dict)

    @property
    def recovery_s(self) -> float | None:
        """Seconds from its end until all that it affects worked; None: not yet."""
        times = [time for time in self.recovered.values() if time is not None]
        return (max(times, default=self.end) - self.end) / SECOND if len(times) == len(self.recovered) else None


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The faults of a run in order of time, and those of delivery among them as `disturbed` needs them."""

    faults: Sequence[PlannedFault]
    deliveries: Sequence[ScheduledFault]

    def active(self, now: int, name: str) -> PlannedFault | None:
        """The fault of this name that lasts at `now` (ns)."""
        at = bisect_right(self.faults, now, key=lambda fault: fault.begin) - 1
        return self.faults[at] if at >= 0 and self.faults[at].name == name and now < self.faults[at].end else None

    def note_window(self, sensor: str, tick: int, now: int) -> None:
        """A window of a sensor that ends at `tick` was embedded at `now` (ns). It shows a recovery if it ends after the
        fault and its time is not that of a wrong clock."""
        at = bisect_right(self.faults, now, key=lambda fault: fault.end) - 1
        if at < 0:
            return
        fault = self.faults[at]
        if fault.recovered.get(sensor, now) is None and fault.end <= tick <= now + MAX_AHEAD:
            fault.recovered[sensor] = now

    def note(self, what: str, now: int) -> None:
        """What is not a sensor, `SLOW_READER` or `DETECTOR`, works at `now` (ns)."""
        for fault in self.faults:
            if fault.recovered.get(what, now) is None and fault.end <= now:
                fault.recovered[what] = now

    def note_reader(self, slow: Reader) -> None:
        """Note when each start of the slow reader received its first message."""
        for moment in slow.first_messages():
            if moment is not None:
                self.note(SLOW_READER, round(moment * SECOND))

    def figures(self, start: int) -> list[dict[str, Any]]:
        """One row for each fault, `at_s` since `start` (ns)."""
        return [
            {
                "at_s": round((fault.begin - start) / SECOND, 1),
                "fault": fault.name,
                "sensor": fault.sensor or "all",
                "recovery_s": None if fault.recovery_s is None else round(fault.recovery_s, 2),
            }
            for fault in self.faults
        ]


def plan_faults(
    sensors: Sequence[str], others: Sequence[str], seconds: float, every: float, seed: int, start: int
) -> FaultPlan:
    """One fault of each period of `every` s from the second period on. `sensors`: as for `random_faults`. `others`: the
    names of `OTHER_FAULTS` that this kind of run has. 0 periods: no faults."""
    count = int(seconds / every) - 1 if every > 0 else 0
    length = min(MAX_LENGTH, LENGTH_SHARE * every)
    period = round(every * SECOND)
    found = (
        random_faults(sensors, count * period, period, round(length * SECOND), seed, start + period) if count else []
    )
    random = np.random.default_rng([seed, 1])
    planned, deliveries = [], list[ScheduledFault]()
    for fault in found:
        number = int(random.integers(len(DELIVERY_FAULTS) + len(others)))
        name = others[number] if number < len(others) else fault.name
        sensor = str(random.choice(sensors)) if name in (POISON, UNPLUGGED) else fault.sensor
        sensor = ALL_SENSORS if name == DEVICE_FAILS else AFFECTED.get(name, sensor)
        if name == UNPLUGGED:
            middle = (fault.begin + fault.end) // 2
            deliveries.append(ScheduledFault("stop", sensor, fault.begin, middle))
            deliveries.append(ScheduledFault("resolution", sensor, middle, fault.end))
        elif name not in OTHER_FAULTS:
            deliveries.append(fault)
        affected = list(sensors) if sensor == ALL_SENSORS else [sensor]
        planned.append(PlannedFault(name, sensor, fault.begin, fault.end, dict.fromkeys(affected)))
    return FaultPlan(planned, deliveries)
