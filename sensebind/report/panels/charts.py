"""Numbers to SVG paths and images, on a time axis that is 1000 units wide."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL
from sensebind.report.report_data import Similarity
from sensebind.report.sensor_previews import (
    MAX_SOUND_BINS,
    MEL_BANDS,
    MIN_FREQUENCY,
    MIN_POWER,
    ImagePreview,
    SpectrumBins,
    TimeBins,
)

Array = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

AXIS_WIDTH = 1000  # units, width of the time axis in every SVG
SHADE_COUNT = 9  # shades of a heat map; shade 0 is not drawn
TICK_STEPS = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    7200,
    21600,
    43200,
    86400,
)
MAX_IMAGE_BYTES = 1_400_000  # of all JPEG images of a page; the quality is reduced to meet it
THUMBNAIL_SIDE = 112  # px, the longer side of an image at an onset
NO_READING_COLOUR = (112, 116, 124)  # red, green, blue of a pixel without a reading
DYNAMIC_RANGE = 70.0  # dB below the maximum, the largest range of a spectrogram
MIN_LEVEL = -80.0  # dBFS, lower end of the level chart


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps `[start, end]` in int nanoseconds to 0..1000 units."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SECOND

    def x(self, stamp: int) -> float:
        """The position of a stamp in units, clipped to the axis, rounded to 0.01."""
        return round(min(max((stamp - self.start) / (self.end - self.start), 0.0), 1.0) * AXIS_WIDTH, 2)

    def percent(self, stamp: int) -> str:
        """The position of a stamp in per cent, for CSS."""
        return f"{format_number(self.x(stamp) / AXIS_WIDTH * 100, 3)}%"

    def milliseconds(self, stamp: int) -> int:
        """Time from the start to a stamp, in ms."""
        return round((stamp - self.start) / 1e6)

    def ticks(self, count: int = 12) -> list[float]:
        """About `count` round times, in s from the start."""
        least = self.seconds / count
        step = next(
            (s for s in TICK_STEPS if s >= least), 86400 * 10 ** float(np.ceil(np.log10(max(least / 86400, 1))))
        )
        return [round(i * step, 6) for i in range(int(self.seconds / step + 1e-9) + 1)]


def format_number(value: float, digits: int = 2) -> str:
    """At most `digits` decimals, without exponent, trailing zeros or a minus before zero."""
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def format_time(seconds: float, duration: float) -> str:
    """A time on the axis of a recording of `duration` seconds: 12 s, 1:05 or 2:01:05."""
    if duration < 120:
        return f"{format_number(seconds, 2)} s"
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if duration >= 3600 else f"{minutes}:{rest:02}"


@dataclass(frozen=True, slots=True)
class SimilarityColumns:
    """A downsampled `Similarity`: N columns `[starts, ends)` in ns, and their maximum cosines, float32 (N, L)."""

    starts: Stamps
    ends: Stamps
    scores: npt.NDArray[np.float32]


def downsample(similarity: Similarity, axis: Axis, limit: int) -> SimilarityColumns:
    """At most `limit` columns. A vector represents one hop before its tick; the hop is the median distance of ticks."""
    inside = (similarity.ticks >= axis.start) & (similarity.ticks <= axis.end)
    ticks, scores = similarity.ticks[inside], similarity.scores[inside]
    steps = np.diff(similarity.ticks)
    hop = int(np.median(steps[steps > 0])) if (steps > 0).any() else SECOND // 2
    span = axis.end - axis.start
    width = max(hop, -(-span // limit))
    if width == hop or not len(ticks):
        return SimilarityColumns(np.maximum(ticks - hop, axis.start), ticks, scores)
    index = np.maximum(ticks - 1 - axis.start, 0) // width
    cells, first = np.unique(index, return_index=True)
    starts = axis.start + cells * width
    return SimilarityColumns(starts, np.minimum(starts + width, axis.end), np.maximum.reduceat(scores, first, axis=0))


def curve(columns: SimilarityColumns, values: npt.NDArray, axis: Axis, height: float, low: float, high: float) -> str:
    """An SVG path of values (N,) at the ends of the columns, from `low` at the bottom to `high` at the top, `height`.

    Gaps of more than five times the median distance of columns interrupt it. A single point is a short line.
    """
    ends = columns.ends
    if not len(ends):
        return ""
    steps = np.diff(ends)
    longest = 5 * int(np.median(steps)) if len(steps) else 0
    ys = np.clip((1 - (values - low) / (high - low)) * height, 0, height)
    parts = []
    for at in np.split(np.arange(len(ends)), np.flatnonzero(steps > longest) + 1):
        points = [f"{format_number(axis.x(int(ends[i])), 1)} {format_number(float(ys[i]), 1)}" for i in at]
        parts.append(f"M{'L'.join(points)}" if len(points) > 1 else f"M{points[0]}h1")
    return "".join(parts)


def contrast_limits(scores: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The cosines of the lightest and the strongest shade: the 35th and the 99.5th percentile."""
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [35, 99.5]))
    return low, max(high, low + 0.01)


def heat_map_paths(cells: SimilarityColumns, axis: Axis, low: float, high: float, row_height: int) -> dict[int, str]:
    """Shade (from 1) → SVG path of all its cells. A row is `row_height` units high, with a gap of one unit."""
    share = np.clip((np.nan_to_num(cells.scores, nan=low) - low) / (high - low), 0, 1)
    shades = np.minimum((share * SHADE_COUNT).astype(np.int64), SHADE_COUNT - 1)
    paths: dict[int, list[str]] = {}
    for row in range(shades.shape[1]):
        for start, end, shade in merge_runs(cells.starts, cells.ends, shades[:, row]):
            if shade:
                x, w = axis.x(start), axis.x(end) - axis.x(start)
                paths.setdefault(shade, []).append(
                    f"M{format_number(x)} {row * row_height}h{format_number(w)}v{row_height - 1}h{format_number(-w)}z"
                )
    return {shade: "".join(paths[shade]) for shade in sorted(paths)}


def merge_runs(starts: Iterable[int], ends: Iterable[int], values: Iterable[int]) -> list[tuple[int, int, int]]:
    """(start, end, value) of each run: adjacent intervals with equal values are merged."""
    found: list[tuple[int, int, int]] = []
    for start, end, value in zip(starts, ends, values, strict=True):
        if found and found[-1][2] == value and found[-1][1] >= start:
            found[-1] = (found[-1][0], max(int(end), found[-1][1]), int(value))
        else:
            found.append((int(start), int(end), int(value)))
    return found


def envelope(
    starts: Stamps, width: int, low: Array, high: Array, axis: Axis, height: float, base: float, scale: float
) -> str:
    """An SVG path of the band from `low` to `high`, (N,) each. `base` is at half height; `scale` is the full height.

    Gaps of more than five times the median distance of columns interrupt it.
    """
    if not len(starts):
        return ""
    middles = starts + width // 2
    steps = np.diff(middles)
    longest = 5 * max(int(np.median(steps)) if len(steps) else width, width)
    breaks = np.flatnonzero(steps > longest) + 1

    def y(values: Array) -> Array:
        return np.clip(height / 2 - (values - base) / scale * height, 0, height)

    parts = []
    for at in np.split(np.arange(len(starts)), breaks):
        xs = [axis.x(int(m)) for m in middles[at]]
        if len(xs) == 1:  # a single column has no area
            xs = [xs[0] - 0.5, xs[0] + 0.5]
            at = np.repeat(at, 2)
        # A constant value has no area either: draw a line of one unit.
        tops, feet = y(high[at]) - 0.5, y(low[at]) + 0.5
        there = "L".join(f"{format_number(x)} {format_number(t, 1)}" for x, t in zip(xs, tops, strict=True))
        back = "L".join(f"{format_number(x)} {format_number(f, 1)}" for x, f in zip(xs[::-1], feet[::-1], strict=True))
        parts.append(f"M{there}L{back}z")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Spectrogram:
    """`image`: PNG data URI, alpha for loudness. `level`: dBFS (N,) of the columns at `starts`, `width` ns each."""

    image: str
    starts: Stamps
    width: int
    level: Array


def spectrogram(spectra: SpectrumBins, axis: Axis) -> Spectrogram | None:
    """The spectrogram in the range of the axis; None if there is no sound. Times without sound are transparent."""
    starts, values = spectra.bins.between(axis.start, axis.end)
    if not len(starts):
        return None
    table = np.stack(values)
    width = spectra.bins.width
    span = axis.end - axis.start
    count = max(1, min(span // width, MAX_SOUND_BINS))
    at = np.clip((starts + width // 2 - axis.start) * count // span, 0, count - 1)
    sums = np.zeros((count, table.shape[1]))
    np.add.at(sums, at, table)
    has_sound = sums[:, 0] > 0
    power = sums[:, 2:] / np.maximum(sums[:, :1], 1)
    decibels = 10 * np.log10(np.maximum(power, MIN_POWER))
    loudest = float(np.percentile(decibels[has_sound], 99.8))
    # The scale starts at the median, the background noise, but 20 to 70 dB below the maximum.
    quiet = min(max(loudest - DYNAMIC_RANGE, float(np.median(decibels[has_sound]))), loudest - 20)
    share = np.clip((decibels - quiet) / (loudest - quiet), 0, 1)
    share[~has_sound] = 0
    pixels = np.zeros((MEL_BANDS, count, 4), np.uint8)
    pixels[..., 3] = np.round(share.T[::-1] * 255)
    level = 10 * np.log10(np.maximum(table[:, 1] / table[:, 0], MIN_POWER))
    return Spectrogram(data_uri(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9]), starts, width, level)


def frequency_labels(top: float) -> list[tuple[str, float]]:
    """Labels of round frequencies and their heights (0 top, 1 bottom) on a spectrogram up to `top` Hz."""

    def mel(hertz: float) -> float:
        return float(np.log1p(hertz / 700.0))

    marks = [(100.0, "100 Hz"), (500.0, "500"), (1000.0, "1 k"), (2000.0, "2 k"), (4000.0, "4 k"), (8000.0, "8 k")]
    found: list[tuple[str, float]] = []
    for hertz, name in marks:
        height = 1 - (mel(hertz) - mel(MIN_FREQUENCY)) / (mel(top) - mel(MIN_FREQUENCY))
        if 0.06 < height < 0.94 and (not found or found[-1][1] - height > 0.17):
            found.append((name, height))
    return found


@dataclass(frozen=True, slots=True)
class ImageStrip:
    """RGB images uint8 of one camera, and the time (start, end) in ns that each represents.

    `scale` is the lowest and the highest value of the colours, and their unit; None for camera images.
    """

    times: list[tuple[int, int]]
    images: list[Bytes]
    scale: tuple[float, float, str] | None = None
    gradient_css: str = ""


def image_strip(modality: str, bins: TimeBins[ImagePreview], axis: Axis) -> ImageStrip | None:
    """The images in the range of the axis; None if there are none. All depth images share one colour scale; so do all
    thermal images."""
    previews = sorted(bins.between(axis.start, axis.end)[1], key=lambda p: p.stamp)
    previews = [p for p in previews if axis.start <= p.stamp <= axis.end]
    if not previews:
        return None
    stamps = [p.stamp for p in previews]
    steps = np.diff(stamps)
    usual = int(np.median(steps)) if len(steps) else max((axis.end - axis.start) // 12, 1)
    ends = [
        min(later, stamp + 2 * usual) for stamp, later in zip(stamps, [*stamps[1:], stamps[-1] + usual], strict=True)
    ]
    times = [(stamp, min(end, axis.end)) for stamp, end in zip(stamps, ends, strict=True)]
    if modality == DEPTH:
        images, low, high = apply_colour_map([p.values for p in previews], cv2.COLORMAP_VIRIDIS, near_is_bright=True)
        return ImageStrip(times, images, (low, high, "m"), gradient(cv2.COLORMAP_VIRIDIS, reverse=True))
    if modality == THERMAL:
        kelvin = [p.radiometric for p in previews]
        radiometric = sum(kelvin) * 2 >= len(kelvin)
        # Kelvin and levels have no common scale: the less frequent kind is shown as no reading.
        values = [
            p.values if p.radiometric == radiometric else np.full(p.values.shape, np.nan, np.float32) for p in previews
        ]
        images, low, high = apply_colour_map(values, cv2.COLORMAP_INFERNO)
        scale = (low - 273.15, high - 273.15, "°C") if radiometric else (low, high, "")
        return ImageStrip(times, images, scale, gradient(cv2.COLORMAP_INFERNO))
    return ImageStrip(times, [np.asarray(p.values, np.uint8) for p in previews])


def apply_colour_map(
    images: Sequence[npt.NDArray], colours: int, near_is_bright: bool = False
) -> tuple[list[Bytes], float, float]:
    """Floats (H, W) → uint8 (H, W, 3), and the range of the colours: the 1st to the 99th percentile of all images."""
    finite = np.concatenate([i[np.isfinite(i)] for i in images])
    low, high = (float(v) for v in np.percentile(finite, [1, 99])) if finite.size else (0.0, 1.0)
    high = max(high, low + 1e-3)
    table = colour_map(colours)
    result = []
    for image in images:
        share = np.clip((np.nan_to_num(image, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)
        pixels = table[np.round((1 - share if near_is_bright else share) * 255).astype(np.uint8)]
        pixels[~np.isfinite(image)] = NO_READING_COLOUR
        result.append(pixels)
    return result, low, high


def thumbnail(modality: str, image: ImagePreview) -> str:
    """A small JPEG as a data URI; the colour scale of depth and thermal is that of this image alone."""
    small = false_colour(modality, [image.values])[0]
    scale = min(1.0, THUMBNAIL_SIDE / max(small.shape[:2]))
    size = max(1, round(small.shape[1] * scale)), max(1, round(small.shape[0] * scale))
    small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    return data_uri(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 72])


def false_colour(modality: str, images: Sequence[npt.NDArray]) -> list[Bytes]:
    """Images of one modality → uint8 (H, W, 3) RGB, in the colours of that modality, on one scale."""
    if modality == DEPTH:
        return apply_colour_map(images, cv2.COLORMAP_VIRIDIS, near_is_bright=True)[0]
    if modality == THERMAL:
        return apply_colour_map(images, cv2.COLORMAP_INFERNO)[0]
    return [np.asarray(image, np.uint8) for image in images]


def colour_map(colours: int) -> Bytes:
    """An OpenCV colour map as uint8 (256, 3) RGB."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, colours)[:, 0, ::-1])


def gradient(colours: int, reverse: bool = False) -> str:
    """A colour map as colour stops of a CSS gradient."""
    stops = colour_map(colours)[np.linspace(0, 255, 7).astype(int)]
    return ",".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (stops[::-1] if reverse else stops).tolist())


def jpeg_uris(images: Sequence[Bytes]) -> list[str]:
    """RGB images as JPEG data URIs, of the first quality at which all together take at most `MAX_IMAGE_BYTES`."""
    found: list[str] = []
    for quality in (82, 60, 40, 20):
        found = [
            data_uri(".jpg", np.ascontiguousarray(i[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]) for i in images
        ]
        if sum(map(len, found)) <= MAX_IMAGE_BYTES * 4 / 3:
            break
    return found


def data_uri(extension: str, image: Bytes, options: Sequence[int]) -> str:
    """An image as a data URI. The order of channels is OpenCV's: BGR or BGRA."""
    _, data = cv2.imencode(extension, image, list(options))
    kind = "png" if extension == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
