"""Activity of the raw data of a window: features that rise when something begins (`core.embeddings.Activity`).

Each feature is scaled so that a rise of 1 is the smallest that matters. Sounds and readings have a frame each 0.1 s, so
that onsets are more exact than windows. Images have one frame, that of the newest image.
"""

from __future__ import annotations

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
MOTION_STEP_DB = 1.5
NEAR_QUANTILE = 5  # percentile of the distances of a cell: its nearest part
MIN_READINGS = 2  # of a frame of readings
ACCELERATION_FLOOR, TURN_FLOOR = 0.05, 0.01  # m/s², rad/s: below the noise of an IMU at rest; added to deviations


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
        pieces.append(pcm_to_float(block))
    wave = np.concatenate(pieces[::-1]) if pieces else np.empty(0, np.float32)
    count = min(len(wave) // size, (window.tick - window.start) // FRAME_PERIOD) if size else 0
    if count < 1:
        return None
    frames = np.nan_to_num(wave[len(wave) - count * size :].reshape(count, size), posinf=0.0, neginf=0.0)
    window_function, bands = _bands(size, rate)
    power = np.square(np.abs(np.fft.rfft(frames * window_function, axis=1))) @ bands
    levels = 10.0 * np.log10(power + SILENCE_POWER) / SOUND_STEP_DB
    return Activity(levels.astype(np.float32), FRAME_PERIOD)


@lru_cache(maxsize=16)
def _bands(size: int, rate: float) -> tuple[Array, Array]:
    """Return a Hann window (size,), and the weights (size // 2 + 1, bands) that average power over each band."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    edges = np.geomspace(BAND_LIMITS[0], max(min(BAND_LIMITS[1], rate / 2), 2 * BAND_LIMITS[0]), BAND_COUNT + 1)
    inside = (frequencies[:, None] >= edges[:-1]) & (frequencies[:, None] < edges[1:])
    middles = np.sqrt(edges[:-1] * edges[1:])
    nearest = np.abs(frequencies[:, None] - middles).argmin(axis=0)
    inside[nearest, np.arange(BAND_COUNT)] = True  # a narrow band may lie between two frequencies
    weights = inside / inside.sum(axis=0) / np.square(hann).sum()
    return hann, weights.astype(np.float32)


def motion_activity(window: Window) -> Activity | None:
    """Return how unsteady acceleration, its changes and the turning rate are, in steps of `MOTION_STEP_DB`, (T, 3).

    Each is a root mean square over a frame: of the acceleration around its mean over the window, of the change from one
    reading to the next, and of the angular velocity. A frame with fewer than two readings is NaN.
    """
    rows = [
        (s.stamp, s.data.values[:6]) for s in window.samples if isinstance(s.data, Reading) and s.data.values.size >= 6
    ]
    count = min((window.tick - window.start) // FRAME_PERIOD, MAX_FRAMES)
    if len(rows) < MIN_READINGS or count < 1:
        return None
    values = np.array([row for _, row in rows])
    frame_of = count - 1 - (window.tick - 1 - np.array([stamp for stamp, _ in rows])) // FRAME_PERIOD
    acceleration = values[:, :3] - values[:, :3].mean(axis=0)
    changes = np.diff(values[:, :3], axis=0, prepend=values[:1, :3])
    result = np.full((count, 3), np.nan, np.float32)
    for frame in range(count):
        own = frame_of == frame
        if np.count_nonzero(own) < MIN_READINGS:
            continue
        deviations = [
            _root_mean_square(acceleration[own]) + ACCELERATION_FLOOR,
            _root_mean_square(changes[own]) + ACCELERATION_FLOOR,
            _root_mean_square(values[own, 3:]) + TURN_FLOOR,
        ]
        result[frame] = 20.0 * np.log10(deviations) / MOTION_STEP_DB
    return Activity(result, FRAME_PERIOD)


def _root_mean_square(rows: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(rows).sum(axis=1).mean()))


def _image_features(modality: str, frame: Frame, image: npt.NDArray[Any], calibration: Calibration) -> Array | None:
    """Return the features of an image, (F,), of the cells of a grid. None for a modality without features.

    vision: brightness and its negative. depth: nearness. thermal: the warmest part.
    """
    if modality == VISION:
        grey = _cells(_grey(image), np.mean) / (BRIGHTNESS_STEP * _full_scale(image) / 255.0)
        return np.concatenate([grey, -grey]).astype(np.float32)
    if modality == DEPTH and not frame.compressed and image.ndim == 2:
        metres = image.astype(np.float32) * (calibration.depth_unit if image.dtype.kind == "u" else 1.0)
        metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.nan)
        return (-np.log2(_cells(metres, _near)) / NEARNESS_STEP).astype(np.float32)
    if modality == THERMAL:
        radiometric = image.ndim == 2 and image.dtype == np.uint16
        step = (
            WARMTH_STEP_KELVIN / calibration.thermal_unit if radiometric else BRIGHTNESS_STEP * _full_scale(image) / 255
        )
        return (_cells(_grey(image), np.max) / step).astype(np.float32)
    return None


def _full_scale(image: npt.NDArray[Any]) -> float:
    return float(np.iinfo(image.dtype).max) if image.dtype.kind in "iu" else 1.0


def _grey(image: npt.NDArray[Any]) -> Array:
    """The mean of the channels, (H, W)."""
    return image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)


def _cells(values: Array, reduce: Any) -> Array:
    """Reduce the cells of the grid over an image (H, W), (rows · columns,). A small image has larger cells."""
    columns, rows = GRID
    small = values
    if values.shape[0] < rows or values.shape[1] < columns:
        small = cv2.resize(
            values, (max(columns, values.shape[1]), max(rows, values.shape[0])), interpolation=cv2.INTER_NEAREST
        )
    height, width = small.shape[0] // rows * rows, small.shape[1] // columns * columns
    cells = small[:height, :width].reshape(rows, height // rows, columns, width // columns).swapaxes(1, 2)
    return np.asarray(reduce(cells.reshape(rows * columns, -1), axis=1), np.float32)


def _near(cells: Array, axis: int) -> Array:
    """The `NEAR_QUANTILE` of each row's valid distances, (N,); NaN for a row without one."""
    ordered = np.sort(cells, axis=axis)  # NaN is sorted to the end
    counts = np.count_nonzero(~np.isnan(cells), axis=axis)
    rank = np.maximum((NEAR_QUANTILE * (counts - 1)) // 100, 0)
    return np.asarray(ordered[np.arange(len(ordered)), rank], np.float32)
