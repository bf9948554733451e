"""Activity of the raw data of a window: features that rise when something begins (`core.embeddings.Activity`).

Each feature is scaled so that a rise of 1 is the smallest that matters. Sounds and readings have a frame each 0.1 s, so
that onsets are more exact than windows. Images have one frame, that of the newest image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Activity
from sensebind.fusion.core.encodings import pcm_to_float
from sensebind.fusion.core.samples import DEPTH, IMU, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sound
from sensebind.fusion.core.windows import Window

Array = npt.NDArray[np.float32]

FRAME_PERIOD = SECOND // 10  # ns
MAX_FRAMES = 20  # frames of a window; older ones were in the window before
GRID = (8, 6)  # columns and rows of the cells of an image
BAND_COUNT = 16
BAND_LIMITS = (80.0, 7600.0)  # Hz; bands of equal width on a logarithmic scale
SILENCE_POWER = 1e-12  # of full scale; added to powers
# The smallest rises that matter:
SOUND_STEP_DB = 1.0
BRIGHTNESS_STEP = 6.0  # levels of 8 bits
NEARNESS_STEP = 0.2  # log2 of a distance: 15 % nearer
WARMTH_STEP_KELVIN = 0.5
RAW_WARMTH_STEP = 50.0  # counts of a thermal camera whose counts are no temperatures
MOTION_STEP_DB = 1.5
NEAR_QUANTILE = 5  # percentile of the distances of a cell: its nearest part
MIN_READINGS = 2  # of a frame of readings
# m/s², m/s², rad/s: below the noise of an IMU at rest; added to the deviations
MOTION_FLOORS = np.array([0.05, 0.05, 0.01])
NO_ROWS = np.empty((0, 3))


def window_activity(window: Window, image: npt.NDArray[Any] | None) -> Activity | None:
    """Return the activity of a window. `image`: its newest image, decoded and subsampled (H, W) or (H, W, C).

    None for data without features: an image that is not decoded, a user-defined modality, too few readings.
    """
    data = window.samples[-1].data
    if isinstance(data, Sound):
        return sound_activity(window)
    if isinstance(data, Reading):
        return motion_activity(window) if window.modality == IMU else None
    if image is None or not image.size:
        return None
    features = _image_features(window.modality, data, image, window.calibration)
    return None if features is None else Activity(features[None], 0)


def sound_activity(window: Window) -> Activity | None:
    """Return the levels of 16 bands of frequencies, in steps of `SOUND_STEP_DB`, (T, 16). First channel.

    Gaps between blocks are closed. None if the window has no whole frame.
    """
    newest = window.samples[-1].data
    assert isinstance(newest, Sound)
    rate = newest.sample_rate
    size = round(rate * FRAME_PERIOD / SECOND)
    pieces, needed = [], MAX_FRAMES * size
    surplus = max(0, round((window.samples[-1].end - window.tick) * rate / SECOND))  # the newest block may end later
    for sample in reversed(window.samples):
        if needed <= 0 or not isinstance(sample.data, Sound) or sample.data.sample_rate != rate:
            break
        block = sample.data.data[:, 0]
        if surplus:
            block, surplus = block[: max(0, len(block) - surplus)], max(0, surplus - len(block))
        block = block[max(0, len(block) - needed) :]
        needed -= len(block)
        pieces.append(block)
    wave = joined_pcm(pieces[::-1])
    count = min(len(wave) // size, (window.tick - window.start) // FRAME_PERIOD) if size else 0
    if count < 1:
        return None
    frames = wave[len(wave) - count * size :].reshape(count, size)
    if newest.data.dtype.kind == "f":
        frames = np.nan_to_num(frames, posinf=0.0, neginf=0.0)
    window_function, bands = _bands(size, rate)
    levels = 10.0 * np.log10(_squared_spectrum(frames * window_function) @ bands + SILENCE_POWER) / SOUND_STEP_DB
    return Activity(levels.astype(np.float32), FRAME_PERIOD)


def joined_pcm(blocks: Sequence[npt.NDArray[np.generic]]) -> Array:
    """Join blocks (n,) of PCM, float32 −1..1. Blocks of one dtype are converted together, which is faster."""
    if len({block.dtype for block in blocks}) == 1:
        return pcm_to_float(np.concatenate(blocks))
    return np.concatenate([pcm_to_float(block) for block in blocks]) if blocks else np.empty(0, np.float32)


def _squared_spectrum(frames: Array) -> npt.NDArray[np.float64]:
    """Return the squared parts of the Fourier transform of each frame (T, N), float64 (T, N): those of the real part at
    0, then of the real and imaginary part at each frequency, and of the real part at the highest one if N is even.

    OpenCV takes a third of NumPy's time for sizes with factors of 2, 3 and 5 only, and releases the interpreter's lock.
    """
    wide = frames.astype(np.float64)
    if cv2.getOptimalDFTSize(frames.shape[1]) == frames.shape[1]:
        return np.square(cv2.dft(wide, flags=cv2.DFT_ROWS).reshape(frames.shape))
    parts = np.fft.rfft(wide, axis=1).view(np.float64)
    return np.square(np.delete(parts, 1, axis=1)[:, : frames.shape[1]])


@lru_cache(maxsize=16)
def _bands(size: int, rate: float) -> tuple[Array, npt.NDArray[np.float64]]:
    """Return a Hann window (size,), and the weights (size, bands) that average power over each band. Their rows belong
    to the columns of `_squared_spectrum`."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    edges = np.geomspace(BAND_LIMITS[0], max(min(BAND_LIMITS[1], rate / 2), 2 * BAND_LIMITS[0]), BAND_COUNT + 1)
    inside = (frequencies[:, None] >= edges[:-1]) & (frequencies[:, None] < edges[1:])
    middles = np.sqrt(edges[:-1] * edges[1:])
    nearest = np.abs(frequencies[:, None] - middles).argmin(axis=0)
    inside[nearest, np.arange(BAND_COUNT)] = True  # a narrow band may lie between two frequencies
    weights = (inside / inside.sum(axis=0) / np.square(hann).sum()).astype(np.float32).astype(np.float64)
    return hann, weights[(np.arange(size) + 1) // 2]


def motion_activity(window: Window) -> Activity | None:
    """Return how unsteady acceleration, its changes and the turning rate are, in steps of `MOTION_STEP_DB`, (T, 3).

    Each is a root mean square over a frame: of the acceleration around its mean over the window, of the change from one
    reading to the next, and of the angular velocity. A frame with fewer than two readings is NaN.
    """
    stamps, values = window.series.first_columns(window.samples, 6)
    count = min((window.tick - window.start) // FRAME_PERIOD, MAX_FRAMES)
    if len(stamps) < MIN_READINGS or count < 1:
        return None
    begins = np.searchsorted(stamps, window.tick + FRAME_PERIOD * np.arange(-count, 1))  # of the frames' readings
    counts = np.diff(begins)
    result = np.full((count, 3), np.nan, np.float32)
    filled = counts >= MIN_READINGS
    if not filled.any():
        return Activity(result, FRAME_PERIOD)
    first, last = begins[0], begins[-1]
    recent = values[first:last]
    changes = np.diff(values[max(first - 1, 0) : last, :3], axis=0, prepend=values[:1, :3] if first == 0 else NO_ROWS)
    acceleration = recent[:, :3] - values[:, :3].mean(axis=0)
    squares = np.stack([np.einsum("ij,ij->i", rows, rows) for rows in (acceleration, changes, recent[:, 3:])], axis=1)
    held = counts > 0
    sums = np.add.reduceat(squares, begins[:-1][held] - first, axis=0)[filled[held]]
    levels = np.sqrt(sums / counts[filled, None]) + MOTION_FLOORS
    result[filled] = 20.0 * np.log10(levels) / MOTION_STEP_DB
    return Activity(result, FRAME_PERIOD)


def _image_features(modality: str, frame: Frame, image: npt.NDArray[Any], calibration: Calibration) -> Array | None:
    """Return the features of an image, (F,), of the cells of a grid. None for a modality without features.

    vision: brightness and its negative. depth: nearness. thermal: the warmest part.
    """
    if modality == VISION:
        grey = _cell_means(image) / (BRIGHTNESS_STEP * _full_scale(image) / 255.0)
        return np.concatenate([grey, -grey]).astype(np.float32)
    if modality == DEPTH and not frame.compressed and image.ndim == 2:
        unit = calibration.depth_scale(image.dtype.kind == "f")
        return (-np.log2(_near(_cells(image)) * np.float32(unit)) / NEARNESS_STEP).astype(np.float32)
    if modality == THERMAL:
        step = _warmth_step(image, calibration)
        warmest = _cells(image if image.ndim == 2 else _grey(image)).max(axis=1)
        return (warmest.astype(np.float32) / step).astype(np.float32)
    return None


def _warmth_step(image: npt.NDArray[Any], calibration: Calibration) -> float:
    """The smallest rise of a value of a thermal image that matters."""
    if image.ndim != 2 or image.dtype == np.uint8:
        return BRIGHTNESS_STEP * _full_scale(image) / 255
    is_float = image.dtype.kind == "f"
    if calibration.thermal_radiometric:
        return WARMTH_STEP_KELVIN / calibration.thermal_scale(is_float)
    return BRIGHTNESS_STEP / 255 if is_float else RAW_WARMTH_STEP


def _full_scale(image: npt.NDArray[Any]) -> float:
    return float(np.iinfo(image.dtype).max) if image.dtype.kind in "iu" else 1.0


def _grey(image: npt.NDArray[Any]) -> Array:
    """The mean of the channels of an image (H, W, C), (H, W)."""
    return _channel_sum(image) / np.float32(image.shape[2])


def _channel_sum(image: npt.NDArray[Any]) -> Array:
    """The sum of the channels, float32 (H, W). It is exact for integers. A reduction over a short axis is slow."""
    if image.ndim == 2:
        return image.astype(np.float32)
    total = image[..., 0].astype(np.float32)
    for channel in range(1, image.shape[2]):
        total += image[..., channel]
    return total


def _cell_means(image: npt.NDArray[Any]) -> Array:
    """The mean of all channels over each cell of the grid, (rows · columns,)."""
    cells = _cells(_channel_sum(image))
    return cells.sum(axis=1) / np.float32(cells.shape[1] * (image.shape[2] if image.ndim == 3 else 1))


def _cells(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The pixels of each cell of the grid over an image (H, W), (rows · columns, N). A small image has larger cells."""
    columns, rows = GRID
    small = values
    if values.shape[0] < rows or values.shape[1] < columns:
        small = cv2.resize(
            values, (max(columns, values.shape[1]), max(rows, values.shape[0])), interpolation=cv2.INTER_NEAREST
        )
    height, width = small.shape[0] // rows * rows, small.shape[1] // columns * columns
    cells = small[:height, :width].reshape(rows, height // rows, columns, width // columns).swapaxes(1, 2)
    return cells.reshape(rows * columns, -1)


def _near(cells: npt.NDArray[Any]) -> Array:
    """The `NEAR_QUANTILE` of each row's valid distances, float32 (N,); NaN for a row without one.

    Distances that are 0, negative, NaN or infinite are not valid.
    """
    if cells.dtype.kind != "u":
        cells = np.where(np.isfinite(cells) & (cells > 0), cells, 0)
    ordered = np.sort(cells, axis=1)
    counts = np.count_nonzero(cells, axis=1)
    rank = cells.shape[1] - counts + np.maximum((NEAR_QUANTILE * (counts - 1)) // 100, 0)
    nearest = ordered[np.arange(len(ordered)), np.minimum(rank, cells.shape[1] - 1)].astype(np.float32)
    nearest[counts == 0] = np.nan
    return nearest
