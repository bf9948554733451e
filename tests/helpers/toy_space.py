"""A small space of fixed random projections: fast, with different vectors for different inputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch

from sensebind.fusion.core.encodings import decode_depth, decode_rgb, decode_thermal
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION, Frame
from sensebind.fusion.core.space import Space, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess.resampling import resample_audio, resample_readings

SIZES = {VISION: 8 * 8 * 3, AUDIO: 400, IMU: 6 * 50, TEXT: 64, DEPTH: 8 * 8, THERMAL: 8 * 8}


class ToySpace(Space):
    """A space whose encoders are random projections."""

    id = "toy@0"
    dimension = 16
    licence = "Apache-2.0"
    trained_windows = {
        VISION: TrainedWindow(0.5, 1),
        **dict.fromkeys((DEPTH, THERMAL), TrainedWindow(0.25, 1)),
        AUDIO: TrainedWindow(1.0),
        IMU: TrainedWindow(2.0),
    }

    def __init__(self, modalities: Iterable[str] = (VISION, AUDIO, IMU)) -> None:
        self.modalities = (TEXT, *modalities)
        self.logit_scales = dict.fromkeys(self.modalities, 10.0)
        generator = torch.Generator().manual_seed(0)
        self._projections = {m: torch.randn(size, self.dimension, generator=generator) for m, size in SIZES.items()}

    @classmethod
    def load(cls, *, modalities=None, device="cpu", weights="", dtype="auto") -> ToySpace:
        return cls(m for m in SIZES if m != TEXT and (modalities is None or m in modalities))

    def tensor(self, window: Window) -> torch.Tensor:
        if window.modality == VISION:
            frame = window.samples[-1].data
            assert isinstance(frame, Frame)
            return _small(decode_rgb(frame) / np.float32(255) - 0.5)
        if window.modality in (DEPTH, THERMAL):
            frame = window.samples[-1].data
            assert isinstance(frame, Frame)
            if window.modality == DEPTH:
                return _small(np.log1p(decode_depth(frame, window.calibration)))
            return _small(decode_thermal(frame, window.calibration).values / np.float32(100))
        if window.modality == AUDIO:
            return torch.from_numpy(np.abs(resample_audio(window, 4000).reshape(400, -1)).mean(axis=1))
        return torch.from_numpy(resample_readings(window, 25, 6).ravel())

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(batch.float() @ self._projections[modality], dim=-1)

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(SIZES[TEXT]) for text in texts]
        return self.embed(TEXT, torch.from_numpy(np.array(rows)))


def _small(image: np.ndarray) -> torch.Tensor:
    """float32 (64 × channels,): an image of any size, made 8 × 8."""
    return torch.from_numpy(cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32).ravel())


class CountingSpace(ToySpace):
    """Records the number of windows in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append((modality, len(batch)))
        return super().embed(modality, batch)
