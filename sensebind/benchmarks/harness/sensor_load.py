"""The five sensors of a simulated robot, their messages and rates: the load that benchmarks put on the pipeline."""

from __future__ import annotations

import hashlib
import heapq
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.stream.windower import Windower

HEIGHT, WIDTH = 480, 640
AUDIO_SAMPLE_RATE = 16_000  # Hz of the microphone
MESSAGE_RATES: Mapping[str, float] = {VISION: 30.0, DEPTH: 30.0, THERMAL: 9.0, AUDIO: 10.0, IMU: 200.0}  # Hz
# Hops in s at which every image is embedded; all are multiples of the shortest, to the nanosecond.
EVERY_FRAME_HOPS: Mapping[str, float] = dict.fromkeys((VISION, DEPTH), 0.033333333) | dict.fromkeys(
    (THERMAL, AUDIO, IMU), 0.099999999
)
IMAGE_COUNT = 7  # images that a camera repeats; a prime number, so that those of neighbouring windows differ
ENCODINGS = {VISION: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}
DEFAULT_START = 1_700_000_000 * SECOND


def next_start_time() -> int:
    """Start time of a run in ns since the epoch: a whole second, so that stamps have the same offsets from the ends of
    windows in every run, and at least 0.5 s from now, so that other processes receive it in time."""
    return -(-(time.time_ns() + SECOND // 2) // SECOND) * SECOND


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor of one robot: `rate` messages per second of the robot's time, the first `phase` s after its start."""

    modality: str
    rate: float
    phase: float = 0.0

    def stamp(self, start: int, index: int) -> int:
        """Stamp in ns of message number `index` of a run that began at `start` (ns)."""
        return start + round(self.phase * SECOND) + round(index / self.rate * SECOND)

    @property
    def duration(self) -> int:
        """Nanoseconds from stamp to arrival: a block of audio is stamped with its start and arrives at its end."""
        return round(SECOND / self.rate) if self.modality == AUDIO else 0

    def closing_time(self, start: int, time: int) -> int:
        """Arrival time in ns of the first message that reaches `time` (ns): it closes a window that ends then."""
        index = max(0, math.floor((time - self.duration - self.stamp(start, 0)) * self.rate / SECOND) - 1)
        while self.stamp(start, index) + self.duration < time:
            index += 1
        return self.stamp(start, index) + self.duration

    def sample(self, index: int, stamp: int, robot: int = 0) -> Sample:
        """Message number `index` as a sample; samples with the same content share memory."""
        frame_id = f"robot{robot}/{self.modality}"
        if self.modality == AUDIO:
            return Sample(
                AUDIO,
                stamp,
                Sound(audio_blocks(round(AUDIO_SAMPLE_RATE / self.rate))[index % IMAGE_COUNT], AUDIO_SAMPLE_RATE),
                frame_id,
            )
        if self.modality == IMU:
            return Sample(IMU, stamp, Reading(imu_readings()[index % len(imu_readings())]), frame_id)
        image = images(self.modality)[index % IMAGE_COUNT]
        step = image.size // HEIGHT
        return Sample(self.modality, stamp, Frame(image, ENCODINGS[self.modality], HEIGHT, WIDTH, step), frame_id)


def sensors(
    modalities: Iterable[str] = tuple(MESSAGE_RATES), rates: Mapping[str, float] = MESSAGE_RATES
) -> list[Sensor]:
    """One sensor of each modality. Their phases differ, as on a robot."""
    return [Sensor(m, rates[m], 0.0037 * i) for i, m in enumerate(modalities)]


def sample_stream(
    own: Iterable[Sensor], seconds: float, start: int = DEFAULT_START, robot: int = 0
) -> Iterator[Sample]:
    """All samples of `seconds`, in order of arrival: a block of audio arrives at its end."""

    def one(sensor: Sensor) -> Iterator[tuple[int, str, int, Sensor]]:
        for index in range(round(seconds * sensor.rate)):
            yield sensor.stamp(start, index) + sensor.duration, sensor.modality, index, sensor

    for _, _, index, sensor in heapq.merge(*map(one, own), key=lambda item: item[:3]):
        yield sensor.sample(index, sensor.stamp(start, index), robot)


def windows(specs: Mapping[str, WindowSpec], count: int) -> dict[str, list[Window]]:
    """The first `count` windows of each modality with a coverage of at least 0.9, cut from its sensor's samples."""
    result = {}
    for modality, spec in specs.items():
        windower = Windower(replace(spec, min_coverage=0.9))
        found: list[Window] = []
        for sample in sample_stream(sensors([modality]), (spec.length + (count + 2) * spec.hop) / SECOND + 1):
            found += windower.accept(sample)
        result[modality] = found[:count]
    return result


def distinct_windows(specs: Mapping[str, WindowSpec], count: int) -> dict[str, list[Window]]:
    """`count` windows of each modality with clearly different content: images of different scale, colour and
    brightness, sounds of different pitch and loudness, motions of different frequency and amplitude.

    They serve to detect vectors that belong to another window. With random weights, vectors of two windows of `windows`
    can have a cosine of 0.99996, so a swap could not be detected.
    """
    whole = {modality: found[0] for modality, found in windows(specs, 1).items()}
    return {modality: [_with_content(window, number) for number in range(count)] for modality, window in whole.items()}


def _with_content(window: Window, number: int) -> Window:
    """Replace the window's content by synthetic content; the same `number` gives the same content in every run."""
    noise = np.random.default_rng([number, *window.modality.encode()])
    times = np.array([sample.stamp - window.start for sample in window.samples]) / SECOND
    data: list[Frame | Sound | Reading] = []
    if window.modality == AUDIO:
        blocks = [sample.data for sample in window.samples if isinstance(sample.data, Sound)]
        levels = noise.standard_normal(sum(len(block.data) for block in blocks))
        smooth = np.convolve(levels, np.full(1 + 7 * (number % 9), 1.0), "same")
        loudness = 10 ** noise.uniform(2.0, 4.0) / smooth.std()
        wave = (loudness * smooth).clip(-32767, 32767).astype(np.int16)[:, None]
        starts = np.cumsum([0, *(len(block.data) for block in blocks)])
        data = [Sound(wave[a:b], s.sample_rate) for a, b, s in zip(starts, starts[1:], blocks, strict=False)]
    elif window.modality == IMU:
        frequency, amplitude = 10 ** noise.uniform(-0.5, 1.5, 6), 10 ** noise.uniform(-1.0, 1.0, 6)
        phase, rest = noise.uniform(0, 2 * np.pi, 6), noise.normal(0, 5.0, 6)
        values = rest + amplitude * np.sin(2 * np.pi * frequency * times[:, None] + phase)
        data = [Reading(row) for row in values]
    else:
        for sample in window.samples:
            assert isinstance(sample.data, Frame)
            data.append(
                replace(sample.data, data=_pixels(_random_levels(noise, number), window.modality, full_range=True))
            )
    return replace(window, samples=tuple(replace(s, data=d) for s, d in zip(window.samples, data, strict=True)))


def _random_levels(noise: np.random.Generator, number: int) -> npt.NDArray[np.float64]:
    """Levels (H, W, 3) in 0..1: stripes or patches of random scale, direction, colour and brightness."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    angle, grain = noise.uniform(0, np.pi), 2.0 ** noise.uniform(1.5, 6.5)
    wave = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / grain)
    if number % 2:
        wave *= np.sin(2 * np.pi * (rows * np.cos(angle) - columns * np.sin(angle)) / grain)
    share = noise.uniform(0.1, 0.9)
    dark, bright = noise.random(3) * share, share + noise.random(3) * (1 - share)
    return np.where((wave > noise.uniform(-0.6, 0.6))[..., None], bright, dark)


def _pixels(levels: npt.NDArray[np.float64], modality: str, full_range: bool = False) -> npt.NDArray[np.uint8]:
    """Convert levels (H, W, 3 or 1) in 0..1 to the bytes that a sensor sends: 0.5 to 5 m, or 14 to 64 °C. `full_range`:
    the range that ImageBind's preprocessing resolves, 0.25 to 20 m (logarithmic), or 0 to 60 °C."""
    if modality == VISION:
        raw: npt.NDArray[np.generic] = (255 * levels).astype(np.uint8)
    elif modality == DEPTH:  # millimetres
        raw = ((250 * 80 ** levels[..., 0]) if full_range else (500 + 4500 * levels)).astype("<u2")
    else:  # hundredths of a kelvin
        raw = ((27315 + 6000 * levels[..., 0]) if full_range else (28715 + 5000 * levels)).astype("<u2")
    return np.frombuffer(raw.tobytes(), np.uint8)


@cache
def images(modality: str) -> tuple[npt.NDArray[np.uint8], ...]:
    """`IMAGE_COUNT` images as a camera sends them, uint8 (bytes,): squares of colour or distance, and sensor noise."""
    noise = np.random.default_rng(sum(modality.encode()))
    channels = 3 if modality == VISION else 1
    result = []
    for _ in range(IMAGE_COUNT):
        coarse = noise.random((HEIGHT // 32, WIDTH // 32, channels))
        smooth = np.repeat(np.repeat(coarse, 32, axis=0), 32, axis=1) + 0.02 * noise.standard_normal(
            (HEIGHT, WIDTH, channels)
        )
        result.append(_pixels(smooth.clip(0, 1), modality))
    return tuple(result)


@cache
def audio_blocks(length: int) -> tuple[npt.NDArray[np.int16], ...]:
    """`IMAGE_COUNT` blocks of noise, int16 (length, 1) each."""
    noise = np.random.default_rng(7)
    return tuple(noise.normal(0, 3000, (length, 1)).clip(-32767, 32767).astype(np.int16) for _ in range(IMAGE_COUNT))


@cache
def imu_readings() -> npt.NDArray[np.float64]:
    """Readings of an IMU at rest, (997, 6): acceleration in m/s², then angular rate in rad/s."""
    values = np.random.default_rng(11).normal(0, 0.05, (997, 6))
    values[:, 2] += 9.81
    return values


def input_digest() -> str:
    """16 hexadecimal digits that identify the input: figures of two runs are comparable if they are equal."""
    total = hashlib.sha256(repr(sorted(MESSAGE_RATES.items())).encode())
    for modality in ENCODINGS:
        for image in images(modality):
            total.update(image.tobytes())
    for block in audio_blocks(AUDIO_SAMPLE_RATE // 10):
        total.update(block.tobytes())
    total.update(imu_readings().tobytes())
    return total.hexdigest()[:16]
