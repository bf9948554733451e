"""How sensors fail: what they send instead of what they measure, and which failures make sense for which sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[Any]

CAMERA_MODALITIES = ("vision", "depth", "thermal")
SIMULATED_SENSORS = (*CAMERA_MODALITIES, "audio", "imu")
FAULTS = ("frozen", "dark", "blinded", "muted", "saturated", "unplugged", "miscalibrated", "swapped")
# What one sensor calls dark or blinded is muted or saturated for another; a microphone has no other to be swapped with.
FAULT_SYNONYMS = {
    **{(sensor, "muted"): "dark" for sensor in CAMERA_MODALITIES},
    **{(sensor, "saturated"): "blinded" for sensor in CAMERA_MODALITIES},
    **{(sensor, "dark"): "muted" for sensor in SIMULATED_SENSORS if sensor not in CAMERA_MODALITIES},
    **{(sensor, "blinded"): "saturated" for sensor in SIMULATED_SENSORS if sensor not in CAMERA_MODALITIES},
    ("audio", "swapped"): "miscalibrated",
}
SWAPPED_CAMERA = {
    "vision": "thermal",
    "depth": "vision",
    "thermal": "depth",
}  # a swapped camera's topic carries this one
# Failures that show only against the sensor's own past, so that nobody can tell them where they are there from the
# start: a scale, a gain or a balance of colours that was never another.
FAULTS_RELATIVE_TO_PAST = (("vision", "miscalibrated"), ("depth", "miscalibrated"), ("audio", "miscalibrated"))


@dataclass(frozen=True, slots=True)
class Fault:
    """A sensor that fails from `onset` to `offset` (s) in one of the ways `FAULTS`, of which `FAULT_SYNONYMS` are the
    same."""

    sensor: str
    fault: str
    onset: float
    offset: float

    @property
    def canonical_kind(self) -> str:
        """The fault by its sensor's own name: a muted camera is dark."""
        return FAULT_SYNONYMS.get((self.sensor, self.fault), self.fault)

    def is_active(self, t: float) -> bool:
        return self.onset <= t < self.offset


def image_with_fault(
    cause: str, sensor: str, images: dict[str, Pixels], frozen_images: dict[str, Pixels]
) -> tuple[str, Pixels] | None:
    """What a camera sends: (which camera's picture it is, its pixels); None where it sends nothing.

    `images` is what all cameras see, `frozen_images` remembers what a frozen one saw when it froze.
    """
    pixels = images[sensor]
    if cause == "frozen":
        return sensor, frozen_images.setdefault(sensor, pixels)
    frozen_images.pop(sensor, None)
    if cause == "unplugged":
        return None
    if cause == "dark":
        return sensor, np.zeros_like(pixels)
    if cause == "blinded":
        return sensor, np.full_like(pixels, np.iinfo(pixels.dtype).max)
    if cause == "miscalibrated":  # a colour camera loses its balance, the others their scale
        scale = np.array([1.4, 1.0, 0.6]) if sensor == "vision" else 1.5
        return sensor, np.asarray(np.clip(pixels * scale, 0, np.iinfo(pixels.dtype).max), pixels.dtype)
    if cause == "swapped":
        return SWAPPED_CAMERA[sensor], images[SWAPPED_CAMERA[sensor]]
    return sensor, pixels


def apply_audio_fault(cause: str, wave: npt.NDArray[np.int16], first: int, last: int, block: int) -> None:
    """Let samples `first` to `last` of a recording, int16 (N,), be what a microphone sends that fails. In place."""
    part = wave[first:last]
    if cause == "muted":
        part[:] = 0
    elif cause == "frozen":  # the last block, or the first of all, again and again
        part[:] = np.resize(wave[max(0, first - block) : max(first, block)].copy(), len(part))
    elif cause == "saturated":
        part[:] = np.clip(part.astype(np.int64) * 400, -32768, 32767)
    elif cause == "miscalibrated":
        part[:] = part // 64


def apply_imu_fault(cause: str, values: Floats, part: npt.NDArray[np.bool_]) -> None:
    """Let the readings (N, 6) that `part` (N,) marks be what an IMU sends that fails. In place."""
    if not part.any():
        return
    if cause == "frozen":
        values[part] = values[max(0, int(part.argmax()) - 1)]
    elif cause == "muted":
        values[part] = 0
    elif cause == "saturated":
        values[part] = np.array([156.9, 156.9, 156.9, 34.9, 34.9, 34.9])  # 16 g and 2000 °/s
    elif cause == "miscalibrated":
        values[part] = values[part] * 0.6 + np.array([3.0, -2.0, 4.0, 0.2, 0.2, -0.2])
    elif cause == "swapped":
        values[part] = values[part][:, [3, 4, 5, 0, 1, 2]]


def image_encoding(sensor: str, pixels: Pixels) -> str:
    """The name of what a camera's pixels are, as in sensor_msgs/image_encodings.hpp."""
    if sensor == "depth":
        return "16UC1"
    return "rgb8" if pixels.ndim == 3 else "mono8" if pixels.dtype == np.uint8 else "mono16"
