"""Faults of delivery change only the sensor and the time that they name, and repeat with their seed."""

from __future__ import annotations

from collections import Counter

import pytest

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SECOND
from sensebind.simulation.delivery_faults import (
    ALL_SENSORS,
    CLOCK_STEP,
    DELIVERY_FAULTS,
    FAST,
    LEAD,
    MAX_DELAY,
    Delivery,
    ScheduledFault,
    disturbed,
    random_faults,
)

PERIOD = SECOND // 10
START = 1_700_000_000 * SECOND
BEGIN, END = START + 2 * SECOND, START + 4 * SECOND


def stream() -> list[Delivery]:
    """Six seconds of two sensors, ten messages a second each."""
    return [Delivery(START + n * PERIOD, s, START + n * PERIOD, n) for n in range(60) for s in ("vision", "imu")]


def of(name: str, sensor: str = "vision", seed: int = 0) -> list[Delivery]:
    return list(disturbed(stream(), [ScheduledFault(name, sensor, BEGIN, END)], seed))


def within(deliveries: list[Delivery], sensor: str = "vision") -> list[Delivery]:
    """Those of a sensor whose items are of the time of the fault."""
    return [d for d in deliveries if d.sensor == sensor and 20 <= d.item < 40]


@pytest.mark.parametrize("name", DELIVERY_FAULTS)
def test_a_fault_changes_only_its_sensor_and_its_time_in_order_of_arrival_and_repeats_with_its_seed(name: str) -> None:
    changed = of(name)
    assert changed != stream() and changed == of(name)
    arrivals = [delivery.arrival for delivery in changed]
    assert arrivals == sorted(arrivals)
    inside = within(changed)
    untouched = [d for d in stream() if d not in within(stream())]
    assert [d for d in changed if d not in inside] == untouched
    assert all(d.arrival >= START + d.item * PERIOD for d in inside), "no message arrives before it was sent"


def test_without_faults_the_stream_is_unchanged_and_is_passed_on_as_it_comes() -> None:
    assert list(disturbed(stream(), [])) == stream()
    read: list[int] = []

    def source():  # type: ignore[no-untyped-def]
        for delivery in stream():
            read.append(delivery.item)
            yield delivery

    first = next(disturbed(source(), []))
    assert first.item == 0 and len(read) <= 3


def test_each_fault_does_what_its_description_says() -> None:
    assert not within(of("stop"))
    assert {d.arrival for d in within(of("pause"))} == {END}
    late = within(of("out_of_order"))
    assert sorted(late, key=lambda d: d.item) != late and len(late) == 20
    assert all(0 <= d.arrival - d.stamp < MAX_DELAY for d in late)
    assert set(Counter(d.item for d in within(of("duplicates"))).values()) == {2}
    assert 2 <= len(within(of("loss"))) <= 18
    assert {d.stamp for d in within(of("unstamped"))} == {0}
    assert {d.stamp for d in within(of("stuck"))} == {BEGIN}
    assert {d.stamp - d.arrival for d in within(of("ahead"))} == {LEAD}
    assert len({d.stamp for d in within(of("fast"))}) == 20 * FAST
    assert {d.scale for d in within(of("resolution"))} == {0.5}
    assert Counter(d.device for d in within(of("two_publishers"))) == {0: 20, 1: 20}
    for sensor in ("vision", "imu"):
        assert {d.stamp - d.arrival for d in within(of("clock_back", ALL_SENSORS), sensor)} == {-CLOCK_STEP}


def test_random_faults_follow_each_other_and_use_every_kind() -> None:
    faults = random_faults(["vision", "imu"], 600 * SECOND, 2 * SECOND, SECOND, seed=3)
    assert len(faults) == 300 and {fault.name for fault in faults} == set(DELIVERY_FAULTS)
    assert all(a.end <= b.begin for a, b in zip(faults, faults[1:], strict=False))
    assert {fault.sensor for fault in faults if fault.name == "resolution"} == {"vision"}
    assert {fault.sensor for fault in faults if fault.name.startswith("clock_b")} == {ALL_SENSORS}
    assert faults == random_faults(["vision", "imu"], 600 * SECOND, 2 * SECOND, SECOND, seed=3)


def test_an_unknown_fault_is_refused_with_the_names_of_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'flood'.*duplicates"):
        next(disturbed(stream(), [ScheduledFault("flood", "vision", BEGIN, END)]))
