"""A simulated robot's five sensors: what each sends and how often. The load that every benchmark puts on the line."""

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
MESSAGE_RATES: Mapping[str, float] = {
    VISION: 30.0,
    DEPTH: 30.0,
    THERMAL: 9.0,
    AUDIO: 10.0,
    IMU: 200.0,
}  # messages a second
# Hops in s at which each image is embedded; all are multiples of the shortest, to the nanosecond.
EVERY_FRAME_HOPS: Mapping[str, float] = dict.fromkeys((VISION, DEPTH), 0.033333333) | dict.fromkeys(
    (THERMAL, AUDIO, IMU), 0.099999999
)
IMAGE_COUNT = 7  # that a camera shows in turn: a prime, so that the images of neighbouring windows differ
ENCODINGS = {VISION: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}
DEFAULT_START = 1_700_000_000 * SECOND


def next_start_time() -> int:
    """When a run is to begin, in ns since the epoch: on a whole second, so that samples and windows meet alike in each
    run, and half a second away, for processes to hear of it."""
    return -(-(time.time_ns() + SECOND // 2) // SECOND) * SECOND


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor of one robot: `rate` messages a second of the robot's time, the first `phase` s after its start."""

    modality: str
    rate: float
    phase: float = 0.0

    def stamp(self, start: int, index: int) -> int:
        """Stamp in ns of the message number `index` of a run that began at `start`."""
        return start + round(self.phase * SECOND) + round(index / self.rate * SECOND)

    @property
    def duration(self) -> int:
        """Nanoseconds that a message lasts: a sound's stamp is that of its beginning, and it comes when it ends."""
        return round(SECOND / self.rate) if self.modality == AUDIO else 0

    def closing_time(self, start: int, time: int) -> int:
        """When the first message comes, in ns, that tells of `time` or later: what closes a window then."""
        index = max(0, math.floor((time - self.duration - self.stamp(start, 0)) * self.rate / SECOND) - 1)
        while self.stamp(start, index) + self.duration < time:
            index += 1
        return self.stamp(start, index) + self.duration

    def sample(self, index: int, stamp: int, robot: int = 0) -> Sample:
        """The message number `index` as a sample; it shares memory with others of the same content."""
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
        picture = images(self.modality)[index % IMAGE_COUNT]
        step = picture.size // HEIGHT
        return Sample(self.modality, stamp, Frame(picture, ENCODINGS[self.modality], HEIGHT, WIDTH, step), frame_id)


def sensors(
    modalities: Iterable[str] = tuple(MESSAGE_RATES), rates: Mapping[str, float] = MESSAGE_RATES
) -> list[Sensor]:
    """One of each, out of step with each other as those of a robot are."""
    return [Sensor(m, rates[m], 0.0037 * i) for i, m in enumerate(modalities)]


def sample_stream(
    own: Iterable[Sensor], seconds: float, start: int = DEFAULT_START, robot: int = 0
) -> Iterator[Sample]:
    """All samples of `seconds`, in the order in which they would arrive: a sound when it ends."""

    def one(sensor: Sensor) -> Iterator[tuple[int, str, int, Sensor]]:
        for index in range(round(seconds * sensor.rate)):
            yield sensor.stamp(start, index) + sensor.duration, sensor.modality, index, sensor

    for _, _, index, sensor in heapq.merge(*map(one, own), key=lambda item: item[:3]):
        yield sensor.sample(index, sensor.stamp(start, index), robot)


def windows(specs: Mapping[str, WindowSpec], count: int) -> dict[str, list[Window]]:
    """The first `count` whole windows of each modality, as its sensor's samples give them."""
    result = {}
    for modality, spec in specs.items():
        windower = Windower(replace(spec, min_coverage=0.9))
        found: list[Window] = []
        for sample in sample_stream(sensors([modality]), (spec.length + (count + 2) * spec.hop) / SECOND + 1):
            found += windower.accept(sample)
        result[modality] = found[:count]
    return result


def distinct_windows(specs: Mapping[str, WindowSpec], count: int) -> dict[str, list[Window]]:
    """`count` whole windows of each modality with clearly different content: images of different scale, colour and
    brightness, sounds of different pitch and loudness, motions of different frequency and amplitude.

    Used to detect vectors that belong to another window. With random weights, vectors of two windows of `windows` can
    have a cosine of 0.99996, so a swap would not be seen.
    """
    whole = {modality: found[0] for modality, found in windows(specs, 1).items()}
    return {modality: [_with_content(window, number) for number in range(count)] for modality, window in whole.items()}


def _with_content(window: Window, number: int) -> Window:
    """Replace the window's content by synthetic content, the same for each `number` in every run."""
    noise = np.random.default_rng([number, *window.modality.encode()])
    times = np.array([sample.stamp - window.start for sample in window.samples]) / SECOND
    data: list[Frame | Sound | Reading] = []
    if window.modality == AUDIO:
        heard = [sample.data for sample in window.samples if isinstance(sample.data, Sound)]
        levels = noise.standard_normal(sum(len(sound.data) for sound in heard))
        smooth = np.convolve(levels, np.full(1 + 7 * (number % 9), 1.0), "same")
        loudness = 10 ** noise.uniform(2.0, 4.0) / smooth.std()
        wave = (loudness * smooth).clip(-32767, 32767).astype(np.int16)[:, None]
        starts = np.cumsum([0, *(len(sound.data) for sound in heard)])
        data = [Sound(wave[a:b], s.sample_rate) for a, b, s in zip(starts, starts[1:], heard, strict=False)]
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
    """Levels (H, W, 3 or 1) in 0..1 → the bytes that a sensor sends: of 0.5 to 5 m, or 14 to 64 °C. `full_range`: of
    the range that ImageBind's frontends resolve, 0.25 to 20 m (logarithmic), or 0 to 60 °C."""
    if modality == VISION:
        raw: npt.NDArray[np.generic] = (255 * levels).astype(np.uint8)
    elif modality == DEPTH:  # millimetres
        raw = ((250 * 80 ** levels[..., 0]) if full_range else (500 + 4500 * levels)).astype("<u2")
    else:  # hundredths of a kelvin
        raw = ((27315 + 6000 * levels[..., 0]) if full_range else (28715 + 5000 * levels)).astype("<u2")
    return np.frombuffer(raw.tobytes(), np.uint8)


@cache
def images(modality: str) -> tuple[npt.NDArray[np.uint8], ...]:
    """`IMAGE_COUNT` images as they are sent, uint8 (bytes,): blobs of colour or distance, and noise as sensors have."""
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
    """Sound, int16 (length, 1) each."""
    noise = np.random.default_rng(7)
    return tuple(noise.normal(0, 3000, (length, 1)).clip(-32767, 32767).astype(np.int16) for _ in range(IMAGE_COUNT))


@cache
def imu_readings() -> npt.NDArray[np.float64]:
    """(997, 6): standing still, as an IMU sees it."""
    values = np.random.default_rng(11).normal(0, 0.05, (997, 6))
    values[:, 2] += 9.81
    return values


def input_digest() -> str:
    """16 hexadecimal digits that name the input, so that figures of two runs can be compared."""
    total = hashlib.sha256(repr(sorted(MESSAGE_RATES.items())).encode())
    for modality in ENCODINGS:
        for picture in images(modality):
            total.update(picture.tobytes())
    for block in audio_blocks(AUDIO_SAMPLE_RATE // 10):
        total.update(block.tobytes())
    total.update(imu_readings().tobytes())
    return total.hexdigest()[:16]
