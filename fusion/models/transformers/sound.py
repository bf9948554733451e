"""What encoders of sound share: a window becomes a waveform, and the device does the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from sensebind.fusion.core.space import TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.transformers.family import SensorEncoder
from sensebind.fusion.preprocess.audio import check_waveform
from sensebind.fusion.preprocess.resampling import resample_audio


class SoundEncoder(SensorEncoder):
    """An encoder of sound. `length`: its window in s. `rate`: samples per second. `max_samples`: the longest sound that
    it takes; 0: any."""

    capturable = True

    def __init__(self, length: float, rate: int, max_samples: int = 0) -> None:
        super().__init__()
        self.window = TrainedWindow(length)
        self.rate, self.max_samples = rate, max_samples

    def device_input(self, window: Window) -> Tensor:
        """One window → float32 (N,), the mean of the channels at `rate` Hz.

        Of a window that is longer than `max_samples`, the newest samples are used. Raises `ValueError` for sound that
        is not scaled to −1..1.
        """
        samples = resample_audio(window, self.rate)
        samples = samples[-self.max_samples :] if self.max_samples else samples
        check_waveform(samples)
        return torch.from_numpy(samples)
