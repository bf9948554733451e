"""A small space of fixed random projections: fast, with different vectors for different inputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch

from sensebind.fusion.core.encodings import decode_rgb
from sensebind.fusion.core.samples import AUDIO, IMU, TEXT, VISION, Frame
from sensebind.fusion.core.space import Space, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess.resampling import resample_audio, resample_readings

SIZES = {VISION: 8 * 8 * 3, AUDIO: 400, IMU: 6 * 50, TEXT: 64}


class ToySpace(Space):
    """A space whose encoders are random projections."""

    id = "toy@0"
    dimension = 16
    licence = "Apache-2.0"
    trained_windows = {VISION: TrainedWindow(0.5, 1), AUDIO: TrainedWindow(1.0), IMU: TrainedWindow(2.0)}

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
            small = cv2.resize(decode_rgb(frame), (8, 8), interpolation=cv2.INTER_AREA)
            return torch.from_numpy(small.astype(np.float32).ravel() / 255 - 0.5)
        if window.modality == AUDIO:
            return torch.from_numpy(np.abs(resample_audio(window, 4000).reshape(400, -1)).mean(axis=1))
        return torch.from_numpy(resample_readings(window, 25, 6).ravel())

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(batch.float() @ self._projections[modality], dim=-1)

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(SIZES[TEXT]) for text in texts]
        return self.embed(TEXT, torch.from_numpy(np.array(rows)))


class CountingSpace(ToySpace):
    """Records the number of windows in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append((modality, len(batch)))
        return super().embed(modality, batch)
