"""Resamples the sounds or readings of a window to a regular series at the rate of a model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import pcm_to_float
from sensebind.fusion.core.samples import SECOND, Reading, Sound
from sensebind.fusion.core.windows import Window

Float32Array = npt.NDArray[np.float32]

MAX_STAMP_JITTER_NS = SECOND // 50  # ns: a smaller error of a sound's stamp is not a gap or an overlap
MAX_GRID_FACTOR = 4  # points of an even grid for each reading, and for each value of the result
MAX_DIRECT_PRODUCTS = 2**22  # multiplications of a filter for one column; with more, it is applied by FFT


def resample_audio(window: Window, rate: int) -> Float32Array:
    """The sounds of a window → float32 (round(length · rate),), the mean of the channels, at `rate` Hz.

    A block whose stamp is within `MAX_STAMP_JITTER_NS` of the end of the block before continues it, because the clock
    of a computer jitters more than that of a microphone. Longer gaps become silence. If blocks overlap, the earlier one
    is used. soxr (high quality) resamples each run of blocks, so frequencies above half of `rate` do not alias.
    """
    length = round((window.tick - window.start) * rate / SECOND)
    result = np.zeros(length, np.float32)
    filled = 0
    for stamp, source_rate, sound in _contiguous_runs(window):
        end = min(stamp + len(sound) / source_rate * SECOND, window.tick)
        if end <= window.start + filled * SECOND / rate:
            continue  # an earlier run covers it
        if source_rate != rate:
            import soxr  # imported only if it is needed

            sound = soxr.resample(sound, source_rate, rate, quality="HQ").astype(np.float32)
        begin = round((stamp - window.start) * rate / SECOND)
        first = max(begin, filled, 0)
        last = min(begin + len(sound), length)
        if last > first:
            result[first:last] = sound[first - begin : last - begin]
            filled = last
    return result


def _contiguous_runs(window: Window) -> list[tuple[int, float, Float32Array]]:
    """(stamp in ns, rate in Hz, mono samples) of each run of blocks without a gap."""
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
    """(samples, channels) PCM → float32 (samples,): the mean of the channels, 0 if it is not finite."""
    values = pcm_to_float(block)
    mono = values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)
    if block.dtype.kind != "f":
        return mono
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(mono, posinf=0.0, neginf=0.0)


def resample_readings(window: Window, rate: float, channels: int) -> Float32Array:
    """The readings of a window → float32 (channels, round(length · rate)), at the times start, start + 1/rate, …

    Values are interpolated linearly. Before the first and after the last reading, its value is held. Readings that are
    faster than `rate` are first interpolated at their own (median) rate and low-pass filtered at half of `rate`. The
    filter is a Hamming-windowed FIR, 16 target periods long, with over 50 dB attenuation from 0.65 · rate. If most
    readings are in a burst, their median rate says nothing about the window: `even_grid` bounds the number of points.

    Raises `ValueError` if a reading does not have `channels` numbers.
    """
    length = round((window.tick - window.start) * rate / SECOND)
    values = window.series.values
    if values is None or values.shape[1] != channels:
        sizes = sorted({s.data.values.shape for s in window.samples if isinstance(s.data, Reading)})
        raise ValueError(f"{window.modality} readings must have {channels} numbers each, not shapes {sizes}")
    times = (window.series.stamps - window.start) / SECOND
    wanted = np.arange(length) / rate
    columns = np.ascontiguousarray(values.T)
    if len(times) > 2:
        even, native = even_grid(times, rate)
        if native > 1.05 * rate:
            columns = _low_pass_filter(np.stack([np.interp(even, times, column) for column in columns]), rate, native)
            times = even
    result = np.empty((channels, length), np.float32)
    for row, column in zip(result, columns, strict=True):
        row[:] = np.interp(wanted, times, column)
    return result


def even_grid(times: npt.NDArray[np.float64], rate: float) -> tuple[npt.NDArray[np.float64], float]:
    """Evenly spaced times (M,) in s for at least three readings at the times (N,), and their rate in Hz: the median
    rate of the readings.

    M is at most `MAX_GRID_FACTOR` times the larger of N and the points that `rate` (Hz) needs. So work and memory
    follow from the number of readings and the length of the window, for any steps between the stamps.
    """
    span = float(times[-1] - times[0])
    most = MAX_GRID_FACTOR * max(len(times), span * rate)
    native = min(1.0 / float(np.median(np.diff(times))), most / span)
    return np.arange(times[0], times[-1], 1.0 / native), native


def _low_pass_filter(columns: npt.NDArray[np.float64], rate: float, native: float) -> npt.NDArray[np.float64]:
    """Readings (columns, n) at `native` Hz, without frequencies above half of `rate`. The end values are held."""
    half = int(np.ceil(8 * native / rate))
    taps = _low_pass_taps(half, rate / native)
    padded = np.pad(columns, ((0, 0), (half, half)), mode="edge")
    if columns.shape[1] * len(taps) <= MAX_DIRECT_PRODUCTS:
        return np.stack([np.convolve(column, taps, mode="valid") for column in padded])
    size = padded.shape[1]  # circular convolution: the first 2 · half values wrap around, and are not used
    spectrum = np.fft.rfft(padded, axis=1) * np.fft.rfft(taps, size)
    return np.asarray(np.fft.irfft(spectrum, size, axis=1)[:, 2 * half :])


def _low_pass_taps(half: int, share: float) -> npt.NDArray[np.float64]:
    """A windowed sinc of 2 · half + 1 taps that passes the lowest `share` of the band, with a gain of 1 at 0 Hz.

    Oppenheim and Schafer, Discrete-Time Signal Processing, ch. 7. `scipy.signal.firwin` designs the same filter, but
    its import would block a running robot for two seconds and take 65 MB.
    """
    taps = np.sinc(share * np.arange(-half, half + 1)) * np.hamming(2 * half + 1)
    return np.asarray(taps / taps.sum())
