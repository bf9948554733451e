"""The messages of the sensors of a soak in order of arrival, and what the faults make of their contents."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from sensebind.benchmarks.harness import sensor_load
from sensebind.benchmarks.soak.faults import PlannedFault
from sensebind.fusion.core.samples import SECOND, Frame, Reading, Sample, Sound
from sensebind.simulation.delivery_faults import Delivery


@dataclass(frozen=True, slots=True)
class Message:
    """Which message of which robot a delivery is."""

    robot: int
    source: sensor_load.Sensor
    index: int


def deliveries(robots: Sequence[Sequence[sensor_load.Sensor]], seconds: float, start: int) -> Iterator[Delivery]:
    """All messages of the sensors of each robot in order of arrival. The sensors of robot 2 are `vision@2`, …; those of
    the only robot have no number."""

    def one(robot: int, sensor: sensor_load.Sensor) -> Iterator[Delivery]:
        own = start + robot * SECOND // 97
        name = sensor_name(sensor.modality, robot, len(robots))
        for index in range(round(seconds * sensor.rate)):
            stamp = sensor.stamp(own, index)
            yield Delivery(stamp + sensor.duration, name, stamp, Message(robot, sensor, index))

    streams = [one(robot, sensor) for robot, own in enumerate(robots) for sensor in own]
    return heapq.merge(*streams, key=lambda delivery: delivery.arrival)


def sensor_name(modality: str, robot: int, robots: int) -> str:
    """The name of a sensor among those of all robots."""
    return f"{modality}@{robot}" if robots > 1 else modality


def sample_of(delivery: Delivery, now: int, poison: PlannedFault | None) -> Sample:
    """The sample of a delivery that arrives at `now` (ns). `poison`: the fault that replaces its content."""
    message: Message = delivery.item
    sample = message.source.sample(message.index, delivery.stamp, message.robot)
    data = sample.data
    if poison is not None and poison.sensor == delivery.sensor:
        data = poisoned(data, message.index)
    elif isinstance(data, Frame) and delivery.scale < 1:
        data = halved(sample.modality, message.index % sensor_load.IMAGE_COUNT)
    frame_id = sample.frame_id + ("/second" if delivery.device else "")
    return replace(sample, data=data, frame_id=frame_id, received=now)


@cache
def halved(modality: str, number: int) -> Frame:
    """An image of half the width and height."""
    data = sensor_load.images(modality)[number]
    rows = data.reshape(sensor_load.HEIGHT, sensor_load.WIDTH, -1)[::2, ::2]
    height, width, size = rows.shape
    return Frame(np.ascontiguousarray(rows).ravel(), sensor_load.ENCODINGS[modality], height, width, width * size)


JUNK = np.random.default_rng(5).integers(0, 256, 2000, np.uint8)


def poisoned(data: Frame | Sound | Reading, number: int) -> Frame | Sound | Reading:
    """Content that no sensor may send, of several kinds in turn."""
    if isinstance(data, Frame):
        return (
            replace(data, data=data.data[:100]),  # fewer bytes than its size says
            replace(data, encoding="nonsense"),
            replace(data, height=100_000, width=100_000, step=0),
            replace(data, height=0, width=0),
            Frame(JUNK, "jpeg", compressed=True),
            Frame(np.concatenate([np.frombuffer(b"\xff\xd8\xff", np.uint8), JUNK]), "jpeg", compressed=True),
        )[number % 6]
    if isinstance(data, Sound):
        return (
            Sound(data.data[:0], data.sample_rate),
            Sound(np.full(data.data.shape, np.nan, np.float32), data.sample_rate),
            Sound(data.data, 1.0),  # it claims to last half an hour
            Sound(np.repeat(data.data, 40, axis=1), data.sample_rate),
        )[number % 4]
    return (
        Reading(np.full(6, np.nan)),
        Reading(np.array([0.0, 0.0, np.inf, 0.0, 0.0, 0.0])),
        Reading(np.full(6, 1e300)),
        Reading(np.ones(3)),
    )[number % 4]
