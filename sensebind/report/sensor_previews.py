"""Previews of sensor data for the report: images, spectra, traces. Their size is bounded for any recording."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError, decode_depth, decode_rgb, decode_thermal, pcm_to_float
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, Calibration, Frame, Reading, Sample, Sound

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
T = TypeVar("T")

MAX_IMAGES = 48  # maximum per modality; when it is exceeded, at least 24 are kept
PREVIEW_SIDE = 208  # pixels, the longer side of an image
MAX_TRACE_BINS = 1000
MAX_SOUND_BINS = 800
MAX_CHANNELS = 6  # channels of a reading that are kept
MIN_BIN_WIDTH = SECOND // 128  # ns, of one column
SPECTRUM_DURATION = 0.032  # s of sound in one spectrum
MIN_SOUND_BIN_WIDTH = SECOND // 32  # ns, longer than the step between spectra, so that no column stays empty
MEL_BANDS = 64
MIN_FREQUENCY, MAX_FREQUENCY = 50.0, 16_000.0  # Hz
MIN_POWER = 1e-12  # relative to full scale 1
RECENT_SPAN = 12 * SECOND  # ns before the newest image: `keep_images` finds images in this time
RECENT_INTERVAL = 2 * SECOND // 5  # ns, minimum between these images
MAX_EVENT_IMAGES = 200  # moments that `keep_images` keeps images of
MAX_SOUND_JITTER = SECOND // 50  # ns, a larger difference between blocks of sound is a gap


class TimeBins(Generic[T]):
    """Values in columns of time: `merge` combines values of one column; above `limit` columns, the width doubles.

    Columns start at multiples of `width` ns since the epoch, so the result does not depend on the order of arrival
    (if that of `merge` does not). A wrong stamp costs one column, not the resolution of all.
    """

    def __init__(self, limit: int, merge: Callable[[T, T], T], width: int = MIN_BIN_WIDTH) -> None:
        self.limit, self.merge, self.width = limit, merge, width
        self.values: dict[int, T] = {}

    def __contains__(self, stamp: int) -> bool:
        return stamp // self.width in self.values

    def add(self, stamp: int, value: T) -> None:
        """Merge `value` into the column of `stamp` (ns)."""
        column = stamp // self.width
        self.values[column] = self.merge(self.values[column], value) if column in self.values else value
        while len(self.values) > self.limit:
            self.width *= 2
            narrow, self.values = self.values, {}
            for column in sorted(narrow):
                wide = column // 2
                value = narrow[column]
                self.values[wide] = self.merge(self.values[wide], value) if wide in self.values else value

    def between(self, start: int, end: int) -> tuple[npt.NDArray[np.int64], list[T]]:
        """Columns that overlap [start, end] in ns: their starts int64 (N,), and their values."""
        columns = [c for c in sorted(self.values) if c * self.width <= end and (c + 1) * self.width > start]
        return np.array([c * self.width for c in columns], np.int64), [self.values[c] for c in columns]


@dataclass(frozen=True, slots=True)
class ImagePreview:
    """A small copy of one frame. `values`: uint8 (H, W, 3) RGB of a camera; float32 (H, W) of depth in m, and of
    thermal in kelvin (if `radiometric`) or levels; NaN if there is no reading.
    """

    stamp: int  # ns
    values: npt.NDArray[np.uint8] | Floats
    radiometric: bool = False


@dataclass(slots=True)
class SpectrumBins:
    """Spectra of one microphone. A column holds the number of spectra, the sum of their mean squares, the sums of their
    bands."""

    max_frequency: float  # Hz, upper edge of the last band
    bins: TimeBins[Array] = field(default_factory=lambda: TimeBins(MAX_SOUND_BINS, np.add, MIN_SOUND_BIN_WIDTH))
    remainder: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    rate: float = 0.0
    end: int = 0  # ns, end of `remainder`

    def add(self, stamp: int, sound: Sound) -> None:
        """Add spectra of about 32 ms with 50 % overlap. A gap of more than `MAX_SOUND_JITTER` starts afresh."""
        block = pcm_to_float(sound.data).mean(axis=1) if sound.data.ndim == 2 else pcm_to_float(sound.data)
        block = np.clip(np.nan_to_num(block, posinf=0.0, neginf=0.0), -1.0, 1.0).astype(np.float32)
        if sound.sample_rate != self.rate or abs(stamp - self.end) > MAX_SOUND_JITTER:
            self.remainder, self.rate = np.zeros(0, np.float32), sound.sample_rate
        else:
            stamp = self.end
        self.end = stamp + sound.duration
        samples = np.concatenate([self.remainder, block])
        size = frame_size(self.rate)
        first = self.end - round(len(samples) * SECOND / self.rate)
        # A long file may be one block: one second at a time bounds the memory.
        at, step = 0, size // 2
        stride = max(int(self.rate) // step, 1) * step
        while len(samples) - at >= size:
            piece = samples[at : at + stride + step]
            frames = np.lib.stride_tricks.sliding_window_view(piece, size)[::step]
            power, squares = mel_spectra(frames, self.rate, self.max_frequency)
            for i in range(len(frames)):
                middle = first + round((at + i * step + size / 2) * SECOND / self.rate)
                self.bins.add(middle, np.concatenate([[1.0, squares[i]], power[i]]))
            at += len(frames) * step
        self.remainder = samples[at:].copy()


def frame_size(rate: float) -> int:
    """Samples in one spectrum: the power of two nearest to 32 ms, at least 16. `rate` in Hz."""
    return 2 ** max(round(np.log2(max(rate * SPECTRUM_DURATION, 16.0))), 4)


def mel_spectra(frames: Floats, rate: float, top: float) -> tuple[Array, Array]:
    """Samples (N, size) → power (N, MEL_BANDS) in bands evenly spaced in mel up to `top` Hz, and mean squares (N,).

    The power is |X|² · 2 / (Σw²·size), with a Hann window w: a full-scale sine has 0.5 in its band, its mean square.
    """
    window, bands = _mel_filter_bank(frames.shape[1], rate, top)
    spectrum = np.fft.rfft(frames * window, axis=1)
    power = np.square(np.abs(spectrum)) * (2.0 / (np.square(window).sum() * frames.shape[1]))
    return power @ bands.T, np.square(frames.astype(np.float64)).mean(axis=1)


def band_edges(top: float) -> Array:
    """Edges of the bands in Hz, (MEL_BANDS + 1,), from `MIN_FREQUENCY` to `top`."""
    mel = np.linspace(_mel(MIN_FREQUENCY), _mel(top), MEL_BANDS + 1)
    return np.asarray(700.0 * np.expm1(mel / 1127.0))


def _mel(frequency: float) -> float:
    return float(1127.0 * np.log1p(frequency / 700.0))


@lru_cache(maxsize=4)
def _mel_filter_bank(size: int, rate: float, top: float) -> tuple[Array, Array]:
    edges = band_edges(top)
    lines = np.fft.rfftfreq(size, 1.0 / rate)
    half = rate / size / 2
    # The fraction of each spectral line, which is `rate / size` wide, in each band.
    low = np.maximum(lines[None] - half, edges[:-1, None])
    high = np.minimum(lines[None] + half, edges[1:, None])
    return np.hanning(size), np.maximum(high - low, 0.0) / (2 * half)


def _earlier_image(first: ImagePreview, other: ImagePreview) -> ImagePreview:
    return first if first.stamp <= other.stamp else other


def _merge_extremes(a: Array, b: Array) -> Array:
    return np.stack([np.minimum(a[0], b[0]), np.maximum(a[1], b[1])])


class SensorPreviews:
    """Images, spectra and traces of each sensor of a recording of any length, from samples in any order.

    Data that cannot be decoded are left out; the pipeline counts and reports them.
    """

    def __init__(self) -> None:
        self.images: dict[str, TimeBins[ImagePreview]] = {}
        self.spectra: dict[str, SpectrumBins] = {}
        self.traces: dict[str, TimeBins[Array]] = {}  # (2, C): minimum and maximum of each channel
        # the images of `keep_images`: stamp in ns → sensor → image
        self.event_images: dict[int, dict[str, ImagePreview]] = {}
        self._recent: dict[str, deque[ImagePreview]] = {}

    def add(self, sample: Sample, calibration: Calibration | None = None) -> None:
        """Add a sample. An image is only decoded if none of about the same time is kept yet."""
        if sample.stamp <= 0:
            return
        if isinstance(sample.data, Frame):
            self._add_frame(sample, sample.data, calibration or Calibration())
        elif isinstance(sample.data, Sound):
            self._add_sound(sample, sample.data)
        else:
            self._add_reading(sample, sample.data)

    def keep_images(self, stamp: int) -> None:
        """Keep each camera's image nearest to `stamp` (ns), at most 1 s away, for `images_near`.

        Call it within `RECENT_SPAN` after `stamp`. Only the first `MAX_EVENT_IMAGES` moments are kept.
        """
        if stamp not in self.event_images and len(self.event_images) < MAX_EVENT_IMAGES:
            nearest = {s: min(held, key=lambda p: abs(p.stamp - stamp)) for s, held in self._recent.items() if held}
            self.event_images[stamp] = {s: p for s, p in nearest.items() if abs(p.stamp - stamp) <= SECOND}

    def images_near(self, stamp: int) -> dict[str, ImagePreview]:
        """Sensor → its image nearest to `stamp` (ns), at most 1 s away: of `keep_images`, else of all."""
        found = dict(self.event_images.get(stamp, {}))
        for sensor, bins in self.images.items():
            if sensor not in found and bins.values:
                nearest = min(bins.values.values(), key=lambda p: abs(p.stamp - stamp))
                if abs(nearest.stamp - stamp) <= SECOND:
                    found[sensor] = nearest
        return found

    def stamps(self) -> list[int]:
        """The start (ns) of each column of images, traces and spectra, in no order."""
        bins: list[TimeBins] = [
            *self.images.values(),
            *self.traces.values(),
            *(spectra.bins for spectra in self.spectra.values()),
        ]
        return [column * b.width for b in bins for column in b.values]

    def _add_frame(self, sample: Sample, frame: Frame, calibration: Calibration) -> None:
        recent = self._recent.setdefault(sample.sensor, deque(maxlen=RECENT_SPAN // RECENT_INTERVAL))
        bins = self.images.setdefault(sample.sensor, TimeBins(MAX_IMAGES, _earlier_image, SECOND // 8))
        soon = bool(recent) and abs(sample.stamp - recent[-1].stamp) < RECENT_INTERVAL
        if soon and sample.stamp in bins:
            return
        try:
            shown = image_preview(sample, frame, calibration)
        except EncodingError:
            return  # the pipeline counts and reports it, with topic and encoding
        if not soon:
            recent.append(shown)
        if sample.stamp not in bins:
            bins.add(sample.stamp, shown)

    def _add_sound(self, sample: Sample, sound: Sound) -> None:
        if not sound.data.size or not np.isfinite(sound.sample_rate) or sound.sample_rate <= 2 * MIN_FREQUENCY:
            return
        if sample.sensor not in self.spectra:
            self.spectra[sample.sensor] = SpectrumBins(min(sound.sample_rate / 2, MAX_FREQUENCY))
        self.spectra[sample.sensor].add(sample.stamp, sound)

    def _add_reading(self, sample: Sample, reading: Reading) -> None:
        values = np.asarray(reading.values, np.float64).ravel()[:MAX_CHANNELS]
        if not values.size or not np.isfinite(values).all():
            return
        bins = self.traces.setdefault(sample.sensor, TimeBins(MAX_TRACE_BINS, _merge_extremes))
        known = next(iter(bins.values.values()), None)
        if known is None or known.shape[1] == len(values):
            bins.add(sample.stamp, np.stack([values, values]))


def image_preview(sample: Sample, frame: Frame, calibration: Calibration, side: int = PREVIEW_SIDE) -> ImagePreview:
    """A copy of a frame whose longer side has at most `side` pixels. Raises `EncodingError`."""
    if sample.modality == DEPTH:
        return ImagePreview(sample.stamp, _downscale(decode_depth(frame, calibration), cv2.INTER_NEAREST, side))
    if sample.modality == THERMAL:
        image = decode_thermal(frame, calibration)
        complete = bool(np.isfinite(image.values).all())
        small = _downscale(image.values, cv2.INTER_AREA if complete else cv2.INTER_NEAREST, side)
        return ImagePreview(sample.stamp, small, image.radiometric)
    return ImagePreview(sample.stamp, _downscale(decode_rgb(frame), cv2.INTER_AREA, side))


def _downscale(image: npt.NDArray, interpolation: int, side: int) -> npt.NDArray:
    """A copy whose longer side has at most `side` pixels; it keeps no reference to the memory of the message."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation))
