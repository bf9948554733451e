"""Sounds that differ in band, envelope and loudness, as windows of audio, for small random models."""

from __future__ import annotations

import numpy as np

from helpers.small_imagebind import window
from sensebind.fusion.core.samples import Sound
from sensebind.fusion.core.windows import Window

BANDS = ((100, 400), (300, 1000), (1000, 3000), (2000, 4000), (4000, 7500), (50, 7900))  # Hz
LEVELS = (0.1, 0.05, 0.2, 0.02, 0.1, 0.3)


def sound_windows(seconds: float, rate: int, channels: int = 1, seed: int = 3) -> list[Window]:
    """One window of each of six sounds."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    t = np.arange(count) / rate
    envelopes = (
        np.ones(count), np.sin(4 * np.pi * t) > 0, np.exp(-3 * (t % 1)), t / seconds, t < seconds / 3,
        np.abs(np.sin(3 * t)),
    )  # fmt: skip
    windows = []
    for (low, high), level, envelope in zip(BANDS, LEVELS, envelopes, strict=True):
        spectrum = np.fft.rfft(random.normal(0, 1, (count, channels)), axis=0)
        frequency = np.fft.rfftfreq(count, 1 / rate)
        band = np.fft.irfft(spectrum * ((frequency > low) & (frequency < high))[:, None], count, axis=0)
        samples = (level * envelope[:, None] * band / band.std()).astype(np.float32)
        windows.append(window("audio", Sound(samples, rate), length=seconds))
    return windows
