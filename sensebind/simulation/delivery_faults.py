"""Faults of delivery: what drivers, networks and clocks do to the messages of a sensor.

`disturbed` applies them to a stream of deliveries, with or without ROS: what is delivered may be a message, a sample,
or its number. It delays messages, and never delivers one early. `DELIVERY_FAULTS` is the table of the faults, each with
its documented outcome (docs/faults.md). Faults of the data themselves are in `sensor_faults`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SECOND

ALL_SENSORS = ""  # `ScheduledFault.sensor` of a fault that all sensors have at the same time
MAX_DELAY = 3 * SECOND // 10  # ns of `out_of_order`
LEAD = 3 * SECOND // 2  # ns of `ahead`
CLOCK_STEP = 60 * SECOND  # ns of a clock that is set, and of one that differs
STAMP_JITTER = 2 * SECOND  # ns of `jitter`
FAST = 10  # factor of `fast`
LOST_SHARE = 0.5  # fraction of `loss`
SMALLER = 0.5  # factor of width and height of `resolution`


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message: when it arrives (ns), of which sensor, with which stamp (ns), and what: `item`, which this module
    does not read. `scale`: factor of the width and height of its image. `device`: 1 for a second publisher."""

    arrival: int
    sensor: str
    stamp: int
    item: Any = None
    scale: float = 1.0
    device: int = 0


@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """The fault `name` of `sensor` (`ALL_SENSORS`: of all) for messages that would arrive in `[begin, end)` (ns)."""

    name: str
    sensor: str
    begin: int
    end: int

    def concerns(self, delivery: Delivery) -> bool:
        """Whether it changes this delivery."""
        return self.sensor in (ALL_SENSORS, delivery.sensor) and self.begin <= delivery.arrival < self.end


@dataclass(frozen=True, slots=True)
class _Context:
    """What a change may use: its fault, random numbers, the usual time (ns) to the next message of the sensor (0: not
    known), and what it remembers of the sensor until the end of the fault."""

    fault: ScheduledFault
    random: np.random.Generator
    period: int
    memory: dict[str, Any]


Change = Callable[[Delivery, _Context], Iterable[Delivery]]


@dataclass(frozen=True, slots=True)
class DeliveryFault:
    """A kind of fault. `change` turns one delivery into those that take its place, none of them earlier.

    `description`: what happens to the messages. `outcome`: what Sensebind does, as documented. `sensors`: `one` sensor
    has it, `all` have it at the same time, or one that sends `images`.
    """

    change: Change
    description: str
    outcome: str
    sensors: str = "one"


def _stop(delivery: Delivery, context: _Context) -> list[Delivery]:
    return []


def _pause(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [replace(delivery, arrival=context.fault.end)]


def _out_of_order(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [replace(delivery, arrival=delivery.arrival + int(context.random.integers(0, MAX_DELAY)))]


def _duplicates(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [delivery, delivery]


def _loss(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [] if context.random.random() < LOST_SHARE else [delivery]


def _unstamped(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [replace(delivery, stamp=0)]


def _stuck(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [replace(delivery, stamp=context.memory.setdefault("stamp", delivery.stamp))]


def _jitter(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [replace(delivery, stamp=delivery.stamp + int(context.random.integers(-STAMP_JITTER, STAMP_JITTER)))]


def _moved(shift: int) -> Change:
    return lambda delivery, context: [replace(delivery, stamp=max(1, delivery.stamp + shift))]


def _fast(delivery: Delivery, context: _Context) -> list[Delivery]:
    step = context.period // FAST
    return [
        replace(delivery, arrival=delivery.arrival + number * step, stamp=delivery.stamp + number * step)
        for number in range(FAST if step else 1)
    ]


def _resolution(delivery: Delivery, context: _Context) -> list[Delivery]:
    return [replace(delivery, scale=SMALLER * delivery.scale)]


def _two_publishers(delivery: Delivery, context: _Context) -> list[Delivery]:
    half = context.period // 2
    second = replace(delivery, arrival=delivery.arrival + half, stamp=delivery.stamp + half, device=1)
    return [delivery, second]


DELIVERY_FAULTS: Mapping[str, DeliveryFault] = {
    "stop": DeliveryFault(
        _stop,
        "the sensor sends nothing",
        "its status is STALE; the other sensors are embedded and fused without it",
    ),
    "pause": DeliveryFault(
        _pause,
        "its messages are held, and all arrive at the end",
        "STALE meanwhile; then those whose windows are open are used, and each of the others is counted",
    ),
    "out_of_order": DeliveryFault(
        _out_of_order,
        f"each message is up to {MAX_DELAY / SECOND:g} s late, so that messages overtake each other",
        "WARN and `late` counts; its windows are embedded from the messages that arrived in time",
    ),
    "duplicates": DeliveryFault(
        _duplicates,
        "each message arrives twice",
        "the second is not used and counted as `duplicate`; the windows are the same",
    ),
    "loss": DeliveryFault(
        _loss,
        "half of the messages never arrive",
        "its windows are embedded from the rest; the gaps of a best-effort topic are counted as `lost`",
    ),
    "unstamped": DeliveryFault(
        _unstamped,
        "its driver leaves the stamps at zero",
        "WARN, names the parameter to set; each message is counted as `unstamped`",
    ),
    "stuck": DeliveryFault(
        _stuck,
        "the stamp stays the same",
        "each message is counted as `duplicate` (of an IMU: `burst`); no windows until the stamps go on",
    ),
    "jitter": DeliveryFault(
        _jitter,
        f"stamps are wrong by up to {STAMP_JITTER / SECOND:g} s, each by another amount",
        "WARN; `late`, `outlier` or `restarts` count; the windows of the other sensors do not start again",
    ),
    "ahead": DeliveryFault(
        _moved(LEAD),
        f"its stamps are {LEAD / SECOND:g} s ahead",
        "the other sensors are fused without waiting for it; after 2 s ERROR `its clock differs`",
    ),
    "clock_differs": DeliveryFault(
        _moved(CLOCK_STEP),
        f"its stamps are {CLOCK_STEP / SECOND:g} s ahead",
        "its samples are not used and counted as `clock`, the others are fused; after 2 s ERROR `its clock differs`, "
        "names the parameter to set",
    ),
    "clock_forward": DeliveryFault(
        _moved(CLOCK_STEP),
        f"the clock of all sensors is set forward by {CLOCK_STEP / SECOND:g} s, and back at the end",
        "WARN, names the step; windowing starts again (`restarts`)",
        "all",
    ),
    "clock_back": DeliveryFault(
        _moved(-CLOCK_STEP),
        f"the clock of all sensors is set back by {CLOCK_STEP / SECOND:g} s, and forward at the end",
        "WARN, names the step; windowing starts again (`restarts`)",
        "all",
    ),
    "fast": DeliveryFault(
        _fast,
        f"{FAST} times as many messages",
        "its windows are embedded; WARN until 15 s after it, if the rate of a sound is not what its messages say",
    ),
    "resolution": DeliveryFault(
        _resolution,
        "its images are half as wide and high",
        "WARN `swapped` and a fault event, as of another camera on the topic; its windows are embedded",
        "images",
    ),
    "two_publishers": DeliveryFault(
        _two_publishers,
        "a second device publishes on the same topic",
        "WARN, names the two devices, until 10 s after it; the messages of both are used",
    ),
}


def disturbed(deliveries: Iterable[Delivery], faults: Sequence[ScheduledFault], seed: int = 0) -> Iterator[Delivery]:
    """Apply faults to `deliveries`, which are in order of arrival; yields them in order of arrival, as soon as no
    earlier one can follow. The same `seed` gives the same deliveries. Faults of one sensor at the same time are applied
    in the order of `faults`.

    Raises `ConfigError` for an unknown fault, at the first step.
    """
    for fault in faults:
        if fault.name not in DELIVERY_FAULTS:
            raise ConfigError(f"no fault of delivery has the name '{fault.name}': use {', '.join(DELIVERY_FAULTS)}")
    random = np.random.default_rng(seed)
    waiting: list[tuple[int, int, Delivery]] = []  # (arrival, order, delivery)
    newest: dict[str, int] = {}  # sensor → arrival of its newest delivery
    periods: dict[str, int] = {}
    memories: dict[tuple[ScheduledFault, str], dict[str, Any]] = {}
    order = 0
    for delivery in deliveries:
        while waiting and waiting[0][0] <= delivery.arrival:
            yield heapq.heappop(waiting)[2]
        sensor = delivery.sensor
        periods[sensor] = delivery.arrival - newest.get(sensor, delivery.arrival)
        newest[sensor] = delivery.arrival
        found = [delivery]
        for fault in faults:
            if fault.concerns(delivery):
                context = _Context(fault, random, periods[sensor], memories.setdefault((fault, sensor), {}))
                found = [new for old in found for new in DELIVERY_FAULTS[fault.name].change(old, context)]
        for new in found:
            heapq.heappush(waiting, (new.arrival, order, new))
            order += 1
    while waiting:
        yield heapq.heappop(waiting)[2]


def random_faults(
    sensors: Sequence[str], duration: int, every: int, length: int, seed: int = 0, start: int = 0
) -> list[ScheduledFault]:
    """One random fault of a random sensor in each `every` ns of `duration`, for `length` ns, from `start` on (ns).

    Each sensor is named as its modality, or begins with `camera`: only these and vision, depth, thermal can have faults
    of images. Raises `ValueError` if `length` is longer than `every`.
    """
    if length > every:
        raise ValueError(f"faults of {length} ns in each {every} ns would overlap")
    random = np.random.default_rng(seed)
    cameras = [s for s in sensors if s.startswith(("vision", "depth", "thermal", "camera"))]
    result = []
    for number in range(duration // every):
        name = str(random.choice(list(DELIVERY_FAULTS)))
        kind = DELIVERY_FAULTS[name].sensors
        choices = cameras if kind == "images" and cameras else list(sensors)
        sensor = ALL_SENSORS if kind == "all" else str(random.choice(choices))
        begin = start + number * every
        result.append(ScheduledFault(name, sensor, begin, begin + length))
    return result
