"""Simulated sensor faults: the faults that each sensor can have, and the data that a faulty sensor sends."""

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
# (sensor, fault) → the canonical name of a fault with the same effect. There is no second microphone to swap with.
FAULT_SYNONYMS = {
    **{(sensor, "muted"): "dark" for sensor in CAMERA_MODALITIES},
    **{(sensor, "saturated"): "blinded" for sensor in CAMERA_MODALITIES},
    **{(sensor, "dark"): "muted" for sensor in SIMULATED_SENSORS if sensor not in CAMERA_MODALITIES},
    **{(sensor, "blinded"): "saturated" for sensor in SIMULATED_SENSORS if sensor not in CAMERA_MODALITIES},
    ("audio", "swapped"): "miscalibrated",
}
# A swapped camera → the camera whose images its topic carries.
SWAPPED_CAMERA = {"vision": "thermal", "depth": "vision", "thermal": "depth"}
# These faults show only as a change of colour balance, scale or gain. If they are present from the start, they cannot
# be detected.
FAULTS_RELATIVE_TO_PAST = (("vision", "miscalibrated"), ("depth", "miscalibrated"), ("audio", "miscalibrated"))


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a sensor from `onset` to `offset` (s). `fault` is one of `FAULTS`."""

    sensor: str
    fault: str
    onset: float
    offset: float

    @property
    def canonical_kind(self) -> str:
        """The canonical name of the fault (`FAULT_SYNONYMS`): `dark` for a muted camera."""
        return FAULT_SYNONYMS.get((self.sensor, self.fault), self.fault)

    def is_active(self, t: float) -> bool:
        return self.onset <= t < self.offset


def image_with_fault(
    cause: str, sensor: str, images: dict[str, Pixels], frozen_images: dict[str, Pixels]
) -> tuple[str, Pixels] | None:
    """The image that a camera with the fault `cause` sends: (camera that took it, pixels). None if it sends nothing.

    `images`: camera → image without faults. `frozen_images`: camera → the image at which it froze; updated in place.
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
    if cause == "miscalibrated":  # wrong colour balance of the colour camera, wrong scale of the others
        scale = np.array([1.4, 1.0, 0.6]) if sensor == "vision" else 1.5
        return sensor, np.asarray(np.clip(pixels * scale, 0, np.iinfo(pixels.dtype).max), pixels.dtype)
    if cause == "swapped":
        return SWAPPED_CAMERA[sensor], images[SWAPPED_CAMERA[sensor]]
    return sensor, pixels


def apply_audio_fault(cause: str, wave: npt.NDArray[np.int16], first: int, last: int, block: int) -> None:
    """Replace samples `first` to `last` of audio int16 (N,) with those of a faulty microphone, in place. `block`:
    samples of a message."""
    part = wave[first:last]
    if cause == "muted":
        part[:] = 0
    elif cause == "frozen":  # repeats the last block before the fault, or the first block of the recording
        part[:] = np.resize(wave[max(0, first - block) : max(first, block)].copy(), len(part))
    elif cause == "saturated":
        part[:] = np.clip(part.astype(np.int64) * 400, -32768, 32767)
    elif cause == "miscalibrated":
        part[:] = part // 64


def apply_imu_fault(cause: str, values: Floats, part: npt.NDArray[np.bool_]) -> None:
    """Replace the readings (N, 6) that `part` (N,) marks with those of a faulty IMU, in place."""
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
    """The encoding of a camera's pixels, as in sensor_msgs/image_encodings.hpp."""
    if sensor == "depth":
        return "16UC1"
    return "rgb8" if pixels.ndim == 3 else "mono8" if pixels.dtype == np.uint8 else "mono16"
