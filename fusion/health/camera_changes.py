"""Detects sudden changes of the whole image that a scene cannot cause: of image format, depth scale, colour balance."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

MIN_HISTORY_WINDOWS = 10  # windows before a baseline is used
ADAPTATION_WINDOWS = 120  # windows after which a change becomes the new baseline
MIN_LOG_RATIO = 0.2  # smallest log of a factor that counts as a change
MAX_RELATIVE_SPREAD = 0.3  # largest interquartile range of the pixels' log factors, as a fraction of the change
MIN_DEPTH_RATIO = 1.3  # smallest ratio of the 90th to the 10th percentile of depth: see `depth_scale_change`
MIN_COMPARABLE_FRACTION = 0.2  # smallest fraction of the pixels that are valid in both images
COARSE_STRIDE = 7  # step in pixels of a fast first check, which suffices for most images without a change
COARSE_TOLERANCE = 2.0  # factor by which the limits of the first check are wider, because it uses few pixels
LOG_TABLE: Float64Array = np.log(np.maximum(np.arange(256), 1.0))


class ImageFormatMonitor:
    """Detects that a topic's images come from another camera: their shape or dtype changes."""

    def __init__(self) -> None:
        self._reference_format: tuple[Any, ...] | None = None
        self._candidate_format: tuple[Any, ...] | None = None
        self._reference_count = self._candidate_count = 0

    def update(self, image: Pixels) -> bool:
        """Take the next image, (H, W) or (H, W, C). Returns whether its format differs from the baseline.

        A format that lasts for `ADAPTATION_WINDOWS` images becomes the baseline.
        """
        image_format = (*image.shape, image.dtype)
        if image_format == self._reference_format:
            self._reference_count, self._candidate_count = self._reference_count + 1, 0
            return False
        self._candidate_count = self._candidate_count + 1 if image_format == self._candidate_format else 1
        self._candidate_format = image_format
        if self._reference_count >= MIN_HISTORY_WINDOWS and self._candidate_count < ADAPTATION_WINDOWS:
            return True
        self._reference_format, self._reference_count = image_format, 1
        return False


class ScaleChangeMonitor:
    """Adds up the changes (K,) of a camera's scale, so that a change back to the first scale ends the symptom."""

    def __init__(self) -> None:
        self._accumulated_change: Float64Array | None = None
        self._windows_since_change = 0

    def update(self, log_ratio: Float64Array | None) -> bool:
        """Take the log factors (K,) since the last image (None: no change). Returns whether the scale is changed.

        After `ADAPTATION_WINDOWS` images without a further change, the current scale becomes the baseline.
        """
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
    """The log of the factor, (1,), by which all depths (H, W) changed since the image before; None: no such factor.

    A moving robot does not cause it: it changes near and far depths by the same difference, not by the same factor. So
    the factor must be the same for the nearer and the farther half of the pixels, within `MAX_RELATIVE_SPREAD`, and the
    90th percentile of depth must be at least `MIN_DEPTH_RATIO` times the 10th.
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
    both = np.flatnonzero(valid_pixels(before) & valid_pixels(now))
    a, b = (x.take(both).astype(np.float64) for x in (before, now))
    if a.size < MIN_COMPARABLE_FRACTION / tolerance * before.size or not a.size:
        return None
    ratio = np.log(b / a)
    log_ratio = float(_row_medians(ratio))
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
    """The logs of the factors (3,) by which the colour channels changed relative to each other since the image before.

    Images are uint8 (H, W, 3). None if the change is small or not the same in the whole image. A lamp does not cause
    it: a lamp changes only the area that it lights, and the brightness more than the colour.
    """
    if before.shape != now.shape or before.dtype != np.uint8 or now.dtype != np.uint8 or now.ndim != 3:
        return None
    a, b = (x[..., :3].transpose(2, 0, 1).reshape(3, -1) for x in (before, now))
    return (
        None
        if _colour_balance_change(a[:, ::COARSE_STRIDE], b[:, ::COARSE_STRIDE], COARSE_TOLERANCE) is None
        else _colour_balance_change(a, b)
    )


def _colour_balance_change(before: Pixels, now: Pixels, tolerance: float = 1.0) -> Float64Array | None:
    a, b = np.ascontiguousarray(before), np.ascontiguousarray(now)  # (3, N)
    is_clear = (a > 20) & (a < 235) & (b > 20) & (b < 235)
    clear = np.flatnonzero(is_clear[0] & is_clear[1] & is_clear[2])
    if clear.size < max(1.0, MIN_COMPARABLE_FRACTION / tolerance * a.shape[1]):
        return None
    ratio = LOG_TABLE.take(b.take(clear, axis=1)) - LOG_TABLE.take(a.take(clear, axis=1))
    ratio -= ratio.mean(axis=0)
    log_ratio = _row_medians(ratio)
    size = float(np.abs(log_ratio).max())
    if size < MIN_LOG_RATIO / tolerance or any(
        _interquartile_range(channel) > tolerance * MAX_RELATIVE_SPREAD * size for channel in ratio
    ):
        return None
    return np.asarray(log_ratio)


def valid_pixels(image: Pixels) -> npt.NDArray[np.bool_]:
    """Mask of the pixels with a reading: not 0, not at full scale, finite."""
    if image.dtype.kind == "f":
        return np.asarray(np.isfinite(image) & (image > 0))
    return np.asarray((image > 0) & (image < np.iinfo(image.dtype).max))


def _row_medians(values: Float64Array) -> Float64Array:
    """The medians over the last axis, as `np.median`, which takes twice the time for so few values."""
    size = values.shape[-1]
    middle = np.partition(values, (size // 2 - 1 + size % 2, size // 2))[..., size // 2 - 1 + size % 2 : size // 2 + 1]
    return np.asarray(middle.mean(axis=-1))


def _interquartile_range(values: Float64Array) -> float:
    low, high = np.percentile(values, (25, 75))
    return float(high - low)
