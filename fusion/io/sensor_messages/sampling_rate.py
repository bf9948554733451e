"""Compares the sampling rate that audio messages claim with the rate by their stamps."""

from __future__ import annotations

from collections import deque

import numpy as np

from sensebind.fusion.core.samples import SECOND, Sound

COMMON_RATES = (8000.0, 11025.0, 16000.0, 22050.0, 24000.0, 32000.0, 44100.0, 48000.0, 88200.0, 96000.0, 192000.0)


FORMATS_OF_SIZE = {1: "U8", 2: "S16LE", 3: "S24LE", 4: "S32LE or F32LE"}  # bytes of a sample → its usual formats


class RateMonitor:
    """Compares the claimed sampling rate of sounds with that by their stamps.

    `warning` is empty until they differ. Then it is the text of the warning, and does not change again. `is_wrong`:
    whether they differ in the newest sounds.
    """

    MIN_BLOCKS, MIN_SPAN = 10, 2 * SECOND  # sounds, and ns of stamps, that a comparison needs
    TOLERANCE = 0.1  # largest relative difference: stamps of drivers jitter

    def __init__(self) -> None:
        self.warning = ""
        self.is_wrong = False
        self._steps: deque[tuple[int, int]] = deque(
            maxlen=50
        )  # samples, and ns to the next stamp, of the newest sounds
        self._before: tuple[int, int] | None = None  # stamp and number of samples of the sound before
        self._span = 0  # ns of stamps so far
        self._newest: Sound | None = None

    def update(self, stamp: int, sound: Sound, sample_bytes: int = 0) -> None:
        """Compare one more sound with the stamp (ns) of its message, or the time of its arrival. `sample_bytes`: of one
        sample of a channel in the message; 0: not known."""
        count = len(sound.data)
        if not count:
            return  # some drivers send empty sounds in silence, and they say nothing about the rate
        newest, self._newest = self._newest, sound
        if self._before is not None and stamp == self._before[0]:
            if newest is not None and np.array_equal(newest.data, sound.data):
                return  # the message arrived twice
            count += self._before[1]
        elif self._before is not None and 0 < (step := stamp - self._before[0]) < 10 * SECOND:
            self._steps.append((self._before[1], step))
            self._span += step
        self._before = stamp, count
        if len(self._steps) < self.MIN_BLOCKS or self._span < self.MIN_SPAN:
            return
        found = float(np.median([samples * SECOND / step for samples, step in self._steps]))
        overall = sum(samples for samples, _ in self._steps) * SECOND / sum(step for _, step in self._steps)
        ratio = found / sound.sample_rate
        # If they do not agree, and the stamps do not vary too much.
        self.is_wrong = abs(ratio - 1) > self.TOLERANCE and abs(overall / found - 1) <= self.TOLERANCE
        if self.warning or not self.is_wrong:
            return
        known = next((rate for rate in COMMON_RATES if abs(rate / found - 1) < 0.03), 0.0)
        cures = [f"audio.sample_rate: {known:g}"] if known else []
        channels = sound.data.shape[1] * round(ratio)
        if abs(ratio - round(ratio)) < 0.05 and 2 <= channels <= 8:
            cures.append(f"if the sound has {channels} channels, audio.channels: {channels}")
        size = round(sample_bytes * ratio)
        if size in FORMATS_OF_SIZE and abs(size / (sample_bytes * ratio) - 1) < 0.03:
            cures.append(f"if its samples have {8 * size} bits, audio.sample_format: {FORMATS_OF_SIZE[size]}")
        cures = cures or [
            "audio.coding_format, audio.sample_format, audio.channels and audio.sample_rate to what it is"
        ]
        self.warning = (
            f"the sampling rate is said to be {sound.sample_rate:g} Hz, and by the stamps it is "
            f"{known or round(found):g} Hz: set{'' if cures[0].startswith('audio') else ','} {', or, '.join(cures)}"
        )
