"""A robot with three sensors, and how tests drive a pipeline with its samples."""

from __future__ import annotations

import numpy as np

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.stream.drivers import finish, process
from sensebind.fusion.stream.pipeline import Output, Pipeline

MS = SECOND // 1000
START = 1_700_000_000 * SECOND
HOP = SECOND // 2
SPECS = {
    VISION: WindowSpec(VISION, SECOND // 2, HOP, lateness=200 * MS, frames=1),
    AUDIO: WindowSpec(AUDIO, SECOND, HOP, lateness=200 * MS),
    IMU: WindowSpec(IMU, 2 * SECOND, HOP, lateness=200 * MS),
}


def image(stamp: int, seed: int, encoding: str = "rgb8") -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 256, 16 * 12 * 3).astype(np.uint8)
    return Sample(VISION, stamp, Frame(pixels, encoding, 12, 16, 48), "camera")


def sound(stamp: int, seed: int) -> Sample:
    noise = np.random.default_rng(seed).integers(-9000, 9000, (800, 1)).astype(np.int16)
    return Sample(AUDIO, stamp, Sound(noise, 8000), "microphone")


def motion(stamp: int, seed: int) -> Sample:
    values = 0.1 * np.random.default_rng(seed).standard_normal(6) + [0, 0, 9.81, 0, 0, 0]
    return Sample(IMU, stamp, Reading(values), "imu")


def samples_of_robot(seconds: float = 6, seed: int = 0) -> list[Sample]:
    """The samples of three sensors with different rates and phases, in order of arrival."""
    samples = [image(START + 13 * MS + i * 66 * MS, seed + i) for i in range(int(seconds * 15))]
    samples += [sound(START + i * 100 * MS, seed + i) for i in range(int(seconds * 10))]
    samples += [motion(START + 7 * MS + i * 20 * MS, seed + i) for i in range(int(seconds * 50))]
    return sorted(samples, key=lambda s: s.end)


def push(pipeline: Pipeline, sample: Sample) -> list[Output]:
    """Accept one sample. Return all outputs that follow from it."""
    pipeline.accept(sample)
    return process(pipeline)


def run(pipeline: Pipeline, samples: list[Sample]) -> list[Output]:
    return [output for sample in samples for output in push(pipeline, sample)] + finish(pipeline)


def table(outputs: list[Output]) -> dict[tuple[str, int], Embedding]:
    embeddings = [output for output in outputs if isinstance(output, Embedding)]
    found = {(e.modality, e.tick): e for e in embeddings}
    assert len(found) == len(embeddings), "a window was embedded twice"
    return found
