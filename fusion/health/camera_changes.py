"""What changes of a camera at once and all over, and no scene can do: its kind, its scale, its balance of colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

MIN_HISTORY_WINDOWS = 10  # windows after which the usual is believed
ADAPTATION_WINDOWS = 120  # windows after which what has changed is the usual
MIN_LOG_RATIO = 0.2  # log of a factor from which on it counts
MAX_RELATIVE_SPREAD = 0.3  # share of a jump by which half of the pixels may differ from it
MIN_DEPTH_RATIO = 1.3  # ratio of the far to the near that an image of distances must hold: see `depth_scale_change`
MIN_COMPARABLE_FRACTION = 0.2  # share of the pixels that must be comparable
COARSE_STRIDE = 7  # every so many pixels are looked at first: most pictures show there that nothing jumped
COARSE_TOLERANCE = 2.0  # by which the bounds are wider there, so that what few pixels miss is not decided by them
LOG_TABLE: Float64Array = np.log(np.maximum(np.arange(256), 1.0))


class ImageFormatMonitor:
    """Whether a topic's pictures are still those of the camera that they were of: by their size and type."""

    def __init__(self) -> None:
        self._reference_format: tuple[Any, ...] | None = None
        self._candidate_format: tuple[Any, ...] | None = None
        self._reference_count = self._candidate_count = 0

    def update(self, image: Pixels) -> bool:
        """Take the next picture, (H, W) or (H, W, C), and tell. What has lasted for `ADAPTATION_WINDOWS` pictures is
        the usual."""
        kind = (*image.shape, image.dtype)
        if kind == self._reference_format:
            self._reference_count, self._candidate_count = self._reference_count + 1, 0
            return False
        self._candidate_count = self._candidate_count + 1 if kind == self._candidate_format else 1
        self._candidate_format = kind
        if self._reference_count >= MIN_HISTORY_WINDOWS and self._candidate_count < ADAPTATION_WINDOWS:
            return True
        self._reference_format, self._reference_count = kind, 1
        return False


class ScaleChangeMonitor:
    """Adds up the jumps (K,) of a camera's scales, so that one that jumps back is well again."""

    def __init__(self) -> None:
        self._accumulated_change: Float64Array | None = None
        self._windows_since_change = 0

    def update(self, log_ratio: Float64Array | None) -> bool:
        """Take the jump since the last picture (None: no jump) and tell whether the scale is another than it was."""
        if log_ratio is not None:
            before = (
                np.zeros_like(log_ratio)
                if self._accumulated_change is None or self._accumulated_change.shape != log_ratio.shape
                else self._accumulated_change
            )
            self._accumulated_change, self._windows_since_change = before + log_ratio, 0
        if self._accumulated_change is None:
            return False
        self._windows_since_change += 1
        if self._windows_since_change > ADAPTATION_WINDOWS or np.abs(self._accumulated_change).max() < MIN_LOG_RATIO:
            self._accumulated_change = None
        return self._accumulated_change is not None


def depth_scale_change(before: Pixels, now: Pixels) -> Float64Array | None:
    """The log of the factor, (1,), by which all distances (H, W) have changed since the picture before; else None.

    No motion does that: a robot that drives adds the same to what is near and to what is far. So the factor must be
    the same, within `MAX_RELATIVE_SPREAD`, for the nearer and for the farther half, which must be `MIN_DEPTH_RATIO`.
    """
    if before.shape != now.shape or before.dtype != now.dtype:
        return None
    a, b = before.reshape(-1), now.reshape(-1)
    return (
        None
        if _depth_scale_change(a[::COARSE_STRIDE], b[::COARSE_STRIDE], COARSE_TOLERANCE) is None
        else _depth_scale_change(a, b)
    )


def _depth_scale_change(before: Pixels, now: Pixels, tolerance: float = 1.0) -> Float64Array | None:
    both = _valid_pixels(before) & _valid_pixels(now)
    a, b = (x[both].astype(np.float64) for x in (before, now))
    if a.size < MIN_COMPARABLE_FRACTION / tolerance * before.size or not a.size:
        return None
    ratio = np.log(b / a)
    log_ratio = float(np.median(ratio))
    if abs(log_ratio) < MIN_LOG_RATIO / tolerance or _interquartile_range(
        ratio
    ) > tolerance * MAX_RELATIVE_SPREAD * abs(log_ratio):
        return None
    if tolerance > 1.0:
        return np.array([log_ratio])
    low, middle, high = np.percentile(a, (10, 50, 90))
    if high < MIN_DEPTH_RATIO * low:
        return None
    near, far = (float(np.median(ratio[part])) for part in (a <= middle, a > middle))
    return np.array([log_ratio]) if abs(near - far) <= MAX_RELATIVE_SPREAD * abs(log_ratio) / 2 else None


def colour_balance_change(before: Pixels, now: Pixels) -> Float64Array | None:
    """The logs of the factors (3,) by which the colours, uint8 (H, W, 3), have changed against each other since the
    picture before, where that is the same all over; else None. A lamp changes what it lights, and its brightness more.
    """
    if before.shape != now.shape or before.dtype != np.uint8 or now.dtype != np.uint8 or now.ndim != 3:
        return None
    a, b = (x[..., :3].reshape(-1, 3) for x in (before, now))
    return (
        None
        if _colour_balance_change(a[::COARSE_STRIDE], b[::COARSE_STRIDE], COARSE_TOLERANCE) is None
        else _colour_balance_change(a, b)
    )


def _colour_balance_change(before: Pixels, now: Pixels, tolerance: float = 1.0) -> Float64Array | None:
    # (3, N): a reduction over so short a last axis is slow, and so is all else over colours that lie apart.
    a, b = np.ascontiguousarray(before.T), np.ascontiguousarray(now.T)
    clear = ((a > 20) & (a < 235) & (b > 20) & (b < 235)).all(axis=0)
    if np.count_nonzero(clear) < max(1.0, MIN_COMPARABLE_FRACTION / tolerance * a.shape[1]):
        return None
    ratio = LOG_TABLE[b[:, clear]] - LOG_TABLE[a[:, clear]]
    ratio -= ratio.mean(axis=0)
    log_ratio = np.median(ratio, axis=1)
    size = float(np.abs(log_ratio).max())
    if size < MIN_LOG_RATIO / tolerance or any(
        _interquartile_range(channel) > tolerance * MAX_RELATIVE_SPREAD * size for channel in ratio
    ):
        return None
    return np.asarray(log_ratio)


def _valid_pixels(image: Pixels) -> npt.NDArray[np.bool_]:
    if image.dtype.kind == "f":
        return np.asarray(np.isfinite(image) & (image > 0))
    return np.asarray((image > 0) & (image < np.iinfo(image.dtype).max))


def _interquartile_range(values: Float64Array) -> float:
    low, high = np.percentile(values, (25, 75))
    return float(high - low)
