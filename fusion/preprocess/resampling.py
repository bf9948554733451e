"""Stamped pieces to regular series: what a window holds, on the grid that a model was trained with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import pcm_to_float
from sensebind.fusion.core.samples import SECOND, Reading, Sound
from sensebind.fusion.core.windows import Window

Float32Array = npt.NDArray[np.float32]

MAX_STAMP_JITTER_NS = SECOND // 50  # ns by which a sound's stamp may be off without being a gap or an overlap


def resample_audio(window: Window, rate: int) -> Float32Array:
    """The sounds of a window → float32 (round(length · rate),), the mean of the channels, at `rate` Hz.

    Blocks whose stamp lies within `MAX_STAMP_JITTER_NS` of the end of the block before are one sound: clocks of
    computers jitter, those of microphones hardly. Real gaps are silence; where blocks overlap the earlier one counts.
    Each run is resampled by soxr (high quality), so nothing above half of `rate` folds down.
    """
    length = round((window.tick - window.start) * rate / SECOND)
    result = np.zeros(length, np.float32)
    reached = 0
    for stamp, source_rate, sound in _contiguous_runs(window):
        if source_rate != rate:
            import soxr  # needed for this alone

            sound = soxr.resample(sound, source_rate, rate, quality="HQ").astype(np.float32)
        begin = round((stamp - window.start) * rate / SECOND)
        first = max(begin, reached, 0)
        last = min(begin + len(sound), length)
        if last > first:
            result[first:last] = sound[first - begin : last - begin]
            reached = last
    return result


def _contiguous_runs(window: Window) -> list[tuple[int, float, Float32Array]]:
    """(stamp, rate, mono) of each stretch without a gap."""
    runs: list[tuple[int, float, list[npt.NDArray[np.generic]]]] = []
    end = 0
    for sample in window.samples:
        assert isinstance(sample.data, Sound)
        block = sample.data.data
        last = runs[-1][2][-1] if runs else block
        alike = block.dtype == last.dtype and block.shape[1] == last.shape[1]
        if runs and alike and runs[-1][1] == sample.data.sample_rate and abs(sample.stamp - end) <= MAX_STAMP_JITTER_NS:
            runs[-1][2].append(block)
            end += sample.data.duration
        else:
            runs.append((sample.stamp, sample.data.sample_rate, [block]))
            end = sample.end
    return [(stamp, rate, _to_mono(np.concatenate(blocks))) for stamp, rate, blocks in runs]


def _to_mono(block: npt.NDArray[np.generic]) -> Float32Array:
    """(samples, channels) PCM → float32 (samples,): the mean of the channels, 0 for what is not finite."""
    values = pcm_to_float(block)
    mono = values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)
    if block.dtype.kind != "f":
        return mono
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(mono, posinf=0.0, neginf=0.0)


def resample_readings(window: Window, rate: float, channels: int) -> Float32Array:
    """The readings of a window → float32 (columns, round(length · rate)), on instants start, start + 1/rate, …

    Interpolated linearly between readings; before the first and after the last their values are held. Readings
    that come faster than `rate` are first put on an even grid of their own (median) rate and low-passed at half of
    `rate` (a Hamming-windowed FIR, 16 target periods long: over 50 dB down from 0.65 · rate on).

    Raises `ValueError` where a reading has not `channels` numbers.
    """
    length = round((window.tick - window.start) * rate / SECOND)
    rows = [s.data.values for s in window.samples if isinstance(s.data, Reading)]
    sizes = {row.shape for row in rows}
    if sizes != {(channels,)}:
        raise ValueError(f"{window.modality} readings must have {channels} numbers each, not shapes {sorted(sizes)}")
    values = np.concatenate(rows).reshape(-1, channels)
    times = (np.array([s.stamp for s in window.samples], np.int64) - window.start) / SECOND
    wanted = np.arange(length) / rate
    if len(times) > 2:
        native = 1.0 / float(np.median(np.diff(times)))
        if native > 1.05 * rate:
            even = np.arange(times[0], times[-1], 1.0 / native)
            values = _low_pass_filter(_interpolate(even, times, values), rate, native)
            times = even
    return _interpolate(wanted, times, values).T.astype(np.float32)


def _interpolate(
    wanted: npt.NDArray[np.float64], times: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.stack([np.interp(wanted, times, column) for column in values.T], axis=1)


def _low_pass_filter(values: npt.NDArray[np.float64], rate: float, native: float) -> npt.NDArray[np.float64]:
    """Readings (n, columns) at `native` Hz without what lies above half of `rate`; the first and last are held."""
    half = int(np.ceil(8 * native / rate))
    taps = _low_pass_taps(half, rate / native)
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, taps, mode="valid") for column in padded.T], axis=1)


def _low_pass_taps(half: int, share: float) -> npt.NDArray[np.float64]:
    """A windowed sinc of 2 · half + 1 taps that passes the lowest `share` of the band, with a gain of 1 at 0 Hz.

    Oppenheim and Schafer, Discrete-Time Signal Processing, ch. 7. `scipy.signal.firwin` designs the same; its import
    would hold up a robot for two seconds when the first window of a fast IMU comes, and take 65 MB.
    """
    taps = np.sinc(share * np.arange(-half, half + 1)) * np.hamming(2 * half + 1)
    return np.asarray(taps / taps.sum())
