"""Divides the memory that an embedder may use among its sensors, the engine and the middleware.

The limit is that of a process: `memory_limit_mb`, or the part of a worker. What the process uses once the space is
loaded is subtracted. `SENSORS` of the rest is for samples and windows, `CACHE` for the last windows of the engine,
`TRANSPORT` for messages that wait in the middleware. What is left is for what is computed: a message that is converted,
an image that is decoded, the rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMAGE_MODALITIES,
    SECOND,
    THERMAL,
    Frame,
    Reading,
    Sample,
    Sound,
)
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.stream.memory.sizes import MEGABYTE, window_bytes

# Without a limit, bytes of one sensor's samples, and, live, of its windows. A sample uses at most a third of it
# (`Windower`): an 8-bit image of 100 million pixels fits, the largest that is accepted.
DEFAULT_BYTES = 300 * MEGABYTE
SENSORS, CACHE, TRANSPORT = 0.35, 0.1, 0.15  # parts of the memory that the loaded space leaves
WORKERS = 0.875  # of it, if workers have the sensors; the rest is for the batches of the embedder
# What is left when each sensor has its least is divided by these weights.
IMAGE_WEIGHT, SOUND_WEIGHT, READING_WEIGHT = 16, 4, 1
# Windows that the least memory of a sensor holds: two turns of the scheduler that are in progress, and one that waits.
LEAST_WINDOWS = 3
# The data of a plain sensor, from which its least memory is computed.
LEAST_WIDTH, LEAST_HEIGHT, LEAST_SOUND_RATE, LEAST_READING_RATE = 640, 480, 48_000, 200
LEAST_WORKING_BYTES = 64 * MEGABYTE  # for what is computed


@dataclass(frozen=True, slots=True)
class WorkerPart:
    """The part of a worker process: a `fraction` of what `memory_limit_mb` leaves beside `resident` bytes of the
    embedder. `limit`: in bytes; 0: none."""

    limit: int
    resident: int = 0
    fraction: float = 1.0

    def whole(self, limit: int) -> int:
        """The bytes of `memory_limit_mb` with which the part is `limit` bytes."""
        return self.resident + math.ceil(limit / self.fraction)


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The bytes that the parts of one process may use.

    `limit`: of the whole process; 0: none. `shares`: sensor → bytes of its samples, and as many of its windows, which
    wait or are embedded. `cache`: see `Engine`. `transport`: of the messages of one image topic that the middleware
    holds; None: not limited. `least`, `weights`: what the shares were computed from. `part`: that of this process,
    if it is a worker.
    """

    limit: int = 0
    shares: Mapping[str, int] = field(default_factory=dict)
    cache: int = DEFAULT_BYTES
    transport: int | None = None
    resident: int = 0
    robots: int = 1
    least: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    part: WorkerPart | None = None

    def share(self, sensor: str) -> int:
        """Bytes of a sensor's samples, and as many of its windows."""
        return self.shares.get(sensor, DEFAULT_BYTES)

    def part_of(self, workers: int) -> WorkerPart:
        """The part of each of the worker processes: `WORKERS` of what the space leaves."""
        if not self.limit:
            return WorkerPart(0)
        fraction = WORKERS / workers
        return WorkerPart(max(1, int(fraction * (self.limit - self.resident))), self.resident, fraction)

    def limit_for(self, sensor: str, size: int) -> int:
        """The bytes of `memory_limit_mb` with which a sensor's samples of `size` bytes each are held."""
        more = max(0, 2 * LEAST_WINDOWS * size - self.least[sensor])
        parts = more * sum(self.weights.values()) / self.weights[sensor] + sum(self.least.values())
        limit = _limit_of(self.resident, self.robots, parts)
        return self.part.whole(limit) if self.part is not None else limit


NO_LIMIT = MemoryBudget()


def divide_memory(
    limit: int, resident: int, specs: Mapping[str, WindowSpec], *, robots: int = 1, part: WorkerPart | None = None
) -> MemoryBudget:
    """Divide `limit` bytes of a process that uses `resident` bytes without data. 0: the default of each part.

    `specs`: sensor → its windows; each of `robots` has these sensors; 0: workers have them. `part`: that of this
    process, if it is a worker. Raises `ConfigError` if the limit is too small for the sensors.
    """
    if not limit:
        return NO_LIMIT
    weights = {sensor: _weight(spec) for sensor, spec in specs.items()}
    least = {sensor: 2 * LEAST_WINDOWS * window_bytes(plain_window(spec)) for sensor, spec in specs.items()}
    needed = _limit_of(resident, robots, sum(least.values()))
    if limit < needed:
        least_mb, resident_mb = math.ceil(needed / MEGABYTE), math.ceil(resident / MEGABYTE)
        what = f"memory_limit_mb is {limit // MEGABYTE} MB, and the least is {least_mb} MB: the loaded space"
        if part is not None:
            what = f"memory_limit_mb leaves {limit // MEGABYTE} MB to a worker, and the least is {least_mb} MB: it"
            least_mb = math.ceil(part.whole(needed) / MEGABYTE)
        raise ConfigError(
            f"{what} uses {resident_mb} MB, and {'the sensors' if robots == 1 else f'the sensors of {robots} robots'} "
            f"need the rest. Set memory_limit_mb to at least {least_mb}, or to 0 for no limit"
        )
    rest = limit - resident
    count = max(1, robots)
    more = SENSORS * rest / count - sum(least.values())
    total = sum(weights.values())
    images = sum(spec.modality in IMAGE_MODALITIES for spec in specs.values())
    return MemoryBudget(
        limit=limit,
        shares={sensor: int(least[sensor] + more * weights[sensor] / total) // 2 for sensor in specs},
        cache=int(CACHE * rest),
        transport=int(TRANSPORT * rest / (count * max(1, images))),
        resident=resident,
        robots=count,
        least=least,
        weights=weights,
        part=part,
    )


def _limit_of(resident: int, robots: int, data: float) -> int:
    """The limit with which the sensors of each robot have `data` bytes."""
    rest = max(robots * data / SENSORS, LEAST_WORKING_BYTES / (1 - SENSORS - CACHE - TRANSPORT))
    return resident + math.ceil(rest)


def _weight(spec: WindowSpec) -> int:
    if spec.modality in IMAGE_MODALITIES:
        return IMAGE_WEIGHT
    return SOUND_WEIGHT if spec.modality == AUDIO else READING_WEIGHT


def plain_window(spec: WindowSpec) -> Window:
    """A window of a plain sensor: images of 640 × 480, sound with one channel at 48 kHz, six numbers at 200 Hz."""
    length = spec.length
    data: list[tuple[int, Frame | Sound | Reading]]
    if spec.modality in IMAGE_MODALITIES:
        count = max(1, spec.frames)
        data = [(length * (index + 1) // (count + 1), _plain_image(spec.modality)) for index in range(count)]
    elif spec.modality == AUDIO:
        rate = min(LEAST_SOUND_RATE, spec.max_rate or math.inf)
        data = [(0, Sound(np.zeros((max(1, round(length / SECOND * rate)), 1), np.float32), rate))]
    else:
        rate = min(LEAST_READING_RATE, spec.max_rate or math.inf)
        count = max(2, round(length / SECOND * rate))
        data = [(length * index // count, Reading(np.full(6, 9.81))) for index in range(count)]
    samples = tuple(Sample(spec.modality, SECOND + at, part, sensor=spec.sensor) for at, part in data)
    return Window(spec.modality, SECOND, SECOND + length, 1.0, samples, sensor=spec.sensor)


def _plain_image(modality: str) -> Frame:
    encoding, size = {DEPTH: ("16UC1", 2), THERMAL: ("mono16", 2)}.get(modality, ("rgb8", 3))
    step = LEAST_WIDTH * size
    return Frame(np.zeros(step * LEAST_HEIGHT, np.uint8), encoding, LEAST_HEIGHT, LEAST_WIDTH, step)
