"""ImageBind with encoders of a few numbers, and windows for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensebind.fusion.core.samples import SECOND, Calibration, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.imagebind.network import MODALITIES

SIZES: dict[str, Any] = {
    f"{modality}_{name}": value
    for modality in MODALITIES
    for name, value in (("embed_dim", 16), ("num_blocks", 1), ("num_heads", 2))
} | {"out_embed_dim": 16}

UNKNOWN = Calibration()


def window(modality: str, *samples: Any, length: float = 2.0, calibration: Calibration = UNKNOWN) -> Window:
    start = 10 * SECOND
    stamped = tuple(Sample(modality, start + i * SECOND // 400, data, "sensor") for i, data in enumerate(samples))
    return Window(modality, start, start + round(length * SECOND), 1.0, stamped, calibration)


def image_frame(
    encoding: str = "rgb8", shape: tuple[int, ...] = (60, 80, 3), dtype: Any = np.uint8, seed: int = 0
) -> Frame:
    array = np.random.default_rng(seed).integers(500, 4000, shape).astype(dtype)
    return Frame(array.reshape(-1).view(np.uint8), encoding, shape[0], shape[1], array.strides[0])


def sound(seconds: float, rate: int = 16_000) -> Sound:
    return Sound(np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), 1)).astype(np.float32), rate)


def motion() -> list[Reading]:
    return [Reading(row) for row in np.random.default_rng(0).normal(0, 1, (2000, 6))]
