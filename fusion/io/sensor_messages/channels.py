"""Selects one channel of a microphone array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError, pcm_to_float
from sensebind.fusion.core.samples import Sound
from sensebind.fusion.io.sensor_options import LOUDER_DB, LOUDEST_CHANNEL, MEAN_CHANNEL

LEVEL_TIME_CONSTANT = 1.0  # s of the running level of each channel
CANCELLED_DB = 20.0  # dB: channels cancel each other if their mean is this much quieter than they are
BLOCK = 2**17  # samples of each channel whose levels are calculated at a time
MIN_LEVEL = 1e-4  # root mean square of full scale; quieter sounds show no cancellation


class ChannelSelector:
    """Reduces the sounds of one microphone array to one channel.

    `choice` is the value of `parameter`: a number from 0, `mean`, `loudest`, or empty. Empty selects the first of three
    or more channels, and does not change one or two, which the space reduces itself.

    `warning` is empty until averaged channels cancel each other: two microphones of opposite polarity have a mean near
    0. Then it is the text of the warning, and does not change again.
    """

    def __init__(self, choice: str, parameter: str = "audio.channel") -> None:
        self.warning = ""
        self._choice, self._parameter = choice, parameter
        self._selected = 0  # the channel that `loudest` selects
        self._powers: npt.NDArray[np.float64] | None = None  # running mean square of each channel, and of their mean

    def apply(self, sound: Sound) -> Sound:
        """Return the sound with the selected channel, (samples, 1), or unchanged. Raises `EncodingError` for a number
        that the array does not have."""
        channels = sound.data.shape[1]
        if channels == 1 and not self._choice.isdecimal():
            return sound
        if self._choice.isdecimal():
            if int(self._choice) >= channels:
                raise EncodingError(
                    f"parameter '{self._parameter}' is {self._choice}, but the sound has {channels} channels: "
                    f"set it to 0 to {channels - 1}"
                )
            return _single(sound, sound.data[:, int(self._choice)])
        if not self._choice and channels > 2:
            return _single(sound, sound.data[:, 0])
        self._update(sound)
        if self._choice == MEAN_CHANNEL:
            return _single(sound, pcm_to_float(sound.data).mean(axis=1, dtype=np.float32))
        return _single(sound, sound.data[:, self._selected]) if self._choice == LOUDEST_CHANNEL else sound

    def _update(self, sound: Sound) -> None:
        """Update the running levels, the loudest channel and the warning."""
        powers = _powers_of(sound.data)
        if powers is None:
            return  # it has no level, and NaN would stay in the running levels
        share = 1.0 - float(np.exp(-len(sound.data) / sound.sample_rate / LEVEL_TIME_CONSTANT))
        if self._powers is None or len(self._powers) != len(powers):
            self._powers, self._selected = powers, int(powers[:-1].argmax())
        self._powers = self._powers + share * (powers - self._powers)
        levels = self._powers[:-1]
        loudest = int(levels.argmax())
        if levels[loudest] > levels[self._selected] * 10 ** (LOUDER_DB / 10):
            self._selected = loudest
        cancelled = self._powers[-1] < levels.mean() * 10 ** (-CANCELLED_DB / 10)
        if self._choice != LOUDEST_CHANNEL and not self.warning and cancelled and levels.mean() > MIN_LEVEL**2:
            self.warning = (
                f"the {len(levels)} channels of the sound cancel each other: their mean is {CANCELLED_DB:g} dB quieter "
                f"than they are, so microphones have opposite polarity; set {self._parameter} to the number of one "
                "channel"
            )


def _powers_of(data: npt.NDArray[np.generic]) -> npt.NDArray[np.float64] | None:
    """Mean square of each channel of a sound (samples, channels), and of the mean of the channels; None if it is empty
    or not finite. A file has up to 46 minutes of sound, so it is read in blocks."""
    sums = np.zeros(data.shape[1] + 1)
    for start in range(0, len(data), BLOCK):
        waveform = pcm_to_float(data[start : start + BLOCK]).astype(np.float64)  # no square of a float32 is too large
        if not np.isfinite(waveform).all():
            return None
        sums += np.append((waveform**2).sum(axis=0), (waveform.mean(axis=1) ** 2).sum())
    return sums / len(data) if len(data) else None


def _single(sound: Sound, data: npt.NDArray[np.generic]) -> Sound:
    return Sound(np.ascontiguousarray(data.reshape(-1, 1)), sound.sample_rate)
