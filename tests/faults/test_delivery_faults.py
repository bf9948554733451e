"""Faults of delivery at running nodes: each has its documented outcome, ends in 3 s, and loses nothing uncounted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.diagnostic_statuses import ERROR, OK, STALE, WARN
from helpers.fault_runs import RECOVERY, FaultRun, fault_run
from helpers.sensor_publisher import RATES
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, THERMAL, VISION
from sensebind.simulation.delivery_faults import ALL_SENSORS, DELIVERY_FAULTS

SECONDS, QUICK_SECONDS = 3.0, 2.0  # of each fault


@dataclass(frozen=True, slots=True)
class Case:
    """A fault of a sensor, and what must be seen of it: the `level` and a part of the `text` of a status, and a growth
    of each of `counters` by at least so many. `unharmed`: all its windows are embedded."""

    fault: str
    sensor: str
    level: bytes = OK
    text: str = ""
    counters: tuple[tuple[str, int], ...] = ()
    unharmed: bool = False

    def __str__(self) -> str:
        return f"{self.fault} of {self.sensor or 'all sensors'}"


QUICK = (
    Case("stop", AUDIO, STALE, "no messages arrive on /audio"),
    Case("unstamped", IMU, WARN, "set imu.stamps: received", (("unstamped", 120),)),
)
SLOW = (
    Case("stop", VISION, STALE, "no messages arrive on /camera/image"),
    Case("stop", IMU, STALE, "no messages arrive on /imu"),
    Case("stop", DEPTH, STALE, "no messages arrive on /depth/image"),
    Case("pause", VISION, STALE, "no messages", (("arrived", 25), ("unfused", 1)), unharmed=True),
    Case("pause", IMU, STALE, "no messages", (("arrived", 200), ("unfused", 1)), unharmed=True),
    Case("out_of_order", IMU, WARN, "late", (("late", 10),), unharmed=True),
    Case("out_of_order", THERMAL, unharmed=True),
    Case("duplicates", VISION, counters=(("duplicate", 20),), unharmed=True),
    Case("duplicates", AUDIO, counters=(("duplicate", 20),), unharmed=True),
    Case("duplicates", IMU, counters=(("duplicate", 200),), unharmed=True),
    Case("loss", VISION, unharmed=True),
    Case("loss", IMU, unharmed=True),
    Case("loss", THERMAL, unharmed=True),
    Case("unstamped", VISION, WARN, "set vision.stamps: received", (("unstamped", 20),)),
    Case("unstamped", AUDIO, WARN, "set audio.stamps: received", (("unstamped", 20),)),
    Case("stuck", VISION, WARN, "have the stamp of another", (("duplicate", 20),)),
    Case("stuck", DEPTH, WARN, "have the stamp of another", (("duplicate", 20),)),
    Case("stuck", IMU, WARN, "Make the driver stamp each reading", (("burst", 200),)),
    Case("jitter", VISION, WARN, "late", (("late", 1), ("outlier", 1))),
    Case("jitter", IMU, WARN, "set imu.stamps: received", (("restarts", 2), ("outlier", 10))),
    Case("ahead", VISION, ERROR, "ahead of those of the other sensors", (("clock", 5),)),
    Case("ahead", THERMAL, ERROR, "ahead of those of the other sensors", (("clock", 5),)),
    Case("ahead", IMU, ERROR, "ahead of those of the other sensors", (("clock", 50),)),
    Case("clock_differs", VISION, ERROR, "vision.time_offset: -60", (("clock", 5),)),
    Case("clock_differs", DEPTH, ERROR, "depth.time_offset: -60", (("clock", 5),)),
    Case("clock_differs", AUDIO, ERROR, "audio.time_offset: -60", (("clock", 5),)),
    Case("clock_forward", ALL_SENSORS, WARN, "the clock was set forward by 60.0 s", (("restarts", 2),)),
    Case("clock_back", ALL_SENSORS, WARN, "the clock was set back by 60.0 s", (("restarts", 2),)),
    Case("fast", VISION, counters=(("arrived", 250),), unharmed=True),
    Case("fast", DEPTH, counters=(("arrived", 250),), unharmed=True),
    Case("fast", AUDIO, WARN, "the sampling rate is said to be", (("arrived", 250),)),
    Case("fast", IMU, counters=(("arrived", 2500),), unharmed=True),
    Case("resolution", VISION, WARN, "swapped", (("swapped", 1),), unharmed=True),
    Case("resolution", DEPTH, WARN, "swapped", (("swapped", 1),), unharmed=True),
    Case("resolution", THERMAL, WARN, "swapped", (("swapped", 1),), unharmed=True),
    Case("two_publishers", VISION, WARN, "its messages have the frames", (("arrived", 50),), unharmed=True),
    Case("two_publishers", IMU, WARN, "its messages have the frames", (("arrived", 500),)),
)


def problems_of(run: FaultRun, case: Case, seconds: float) -> list[str]:
    """Cause a fault. Returns what is not as documented."""
    began = run.now()
    answer = run.cause(case.fault, case.sensor, seconds)
    recovery = run.recovered(answer)
    problems = run.account()
    until = run.now()
    if recovery > RECOVERY:
        problems.append(f"the sensors were fused again after {recovery:.1f} s")
    affected = [case.sensor] if case.sensor else list(RATES)
    for sensor in RATES:
        counted, seen = run.counted(sensor, began), run.statuses(f"embedder: {sensor}", began)
        expected = int(2 * (answer["at"] - began))  # windows: two in a second
        missing = expected - counted["embedded"]
        if (sensor not in affected or case.unharmed) and missing > 1:
            problems.append(f"{sensor}: {counted['embedded']} of {expected} windows were embedded")
        if sensor not in affected:
            if counted["restarts"] or any(s.level == ERROR for s in seen):
                problems.append(f"{sensor}: {sorted({s.message for s in seen})}")
            continue
        if not any(s.level >= case.level and case.text in s.message for s in seen):
            problems.append(f"{sensor}: no status with '{case.text}', but {sorted({s.message for s in seen})}")
        for name, least in case.counters:
            if counted.get(name, 0) < least:
                problems.append(f"{sensor}: '{name}' grew by {counted.get(name, 0)}, not by {least}")
    print(f"{case}: recovery {recovery:.2f} s, {until - began:.1f} s in all; {'; '.join(problems) or 'as documented'}")
    return [f"{case}: {problem}" for problem in problems]


def run_all(folder: Path, cases: tuple[Case, ...], seconds: float, *nodes: str) -> None:
    """Cause each fault at an embedder, beside other `nodes`."""
    problems = []
    with fault_run(folder, *nodes) as run:
        for case in cases:
            run.wait_until_all_are_fused()
            problems += problems_of(run, case, seconds)
    assert not problems, "\n".join(problems)


def test_a_sensor_that_stops_and_one_without_stamps_have_the_documented_outcome(tmp_path: Path) -> None:
    run_all(tmp_path, QUICK, QUICK_SECONDS)


@pytest.mark.slow  # the quick sibling is above
def test_each_fault_of_delivery_has_the_documented_outcome(tmp_path: Path) -> None:
    run_all(tmp_path, SLOW, SECONDS, "detector")


def test_each_fault_of_delivery_has_a_case() -> None:
    assert {case.fault for case in QUICK + SLOW} == set(DELIVERY_FAULTS)
