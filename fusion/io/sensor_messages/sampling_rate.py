"""Compares the sampling rate that audio messages claim with the rate by their stamps."""

from __future__ import annotations

from collections import deque

import numpy as np

from sensebind.fusion.core.samples import SECOND, Sound

COMMON_RATES = (8000.0, 11025.0, 16000.0, 22050.0, 24000.0, 32000.0, 44100.0, 48000.0, 88200.0, 96000.0, 192000.0)


class RateMonitor:
    """Compares the claimed sampling rate of sounds with that by their stamps.

    `warning` is empty until they differ. Then it is the text of the warning, and does not change again.
    """

    MIN_BLOCKS, MIN_SPAN = 10, 2 * SECOND  # sounds, and ns of stamps, that a comparison needs
    TOLERANCE = 0.1  # largest relative difference: stamps of drivers jitter

    def __init__(self) -> None:
        self.warning = ""
        self._rates: deque[float] = deque(maxlen=50)  # Hz by the stamps, of the newest sounds
        self._before: tuple[int, int] | None = None  # stamp and number of samples of the sound before
        self._span = 0  # ns of stamps so far

    def update(self, stamp: int, sound: Sound) -> None:
        """Compare one more sound with the stamp (ns) from its message."""
        if self._before is not None and 0 < (step := stamp - self._before[0]) < 10 * SECOND:
            self._rates.append(self._before[1] * SECOND / step)
            self._span += step
        self._before = stamp, len(sound.data)
        if self.warning or len(self._rates) < self.MIN_BLOCKS or self._span < self.MIN_SPAN:
            return
        found = float(np.median(self._rates))
        ratio = found / sound.sample_rate
        if abs(ratio - 1) <= self.TOLERANCE or abs(np.mean(self._rates) / found - 1) > self.TOLERANCE:
            return  # they agree, or the stamps vary too much
        found = next((known for known in COMMON_RATES if abs(known / found - 1) < 0.03), float(round(found)))
        channels = sound.data.shape[1] * round(ratio)
        other = ""
        if abs(ratio - round(ratio)) < 0.05 and 2 <= channels <= 8:
            other = f", or, if the sound has {channels} channels, audio.channels: {channels}"
        self.warning = (
            f"the sampling rate is said to be {sound.sample_rate:g} Hz, and by the stamps it is {found:g} Hz: set "
            f"audio.sample_rate: {found:g}{other}"
        )
