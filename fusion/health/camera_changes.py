"""What changes of a camera at once and all over, and no scene can do: its kind, its scale, its balance of colours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SURE = 10  # windows after which the usual is believed
ADOPTED = 120  # windows after which what has changed is the usual
JUMP = 0.2  # log of a factor from which on it counts
EVEN = 0.3  # share of a jump by which half of the pixels may differ from it
APART = 1.3  # ratio of the far to the near that an image of distances must hold: see `stretch`
ENOUGH = 0.2  # share of the pixels that must be comparable
SPARSE = 7  # every so many pixels are looked at first: most pictures show there that nothing jumped
LAX = 2.0  # by which the bounds are wider there, so that what few pixels miss is not decided by them
LOGS: Floats = np.log(np.maximum(np.arange(256), 1.0))


class Kind:
    """Whether a topic's pictures are still those of the camera that they were of: by their size and type."""

    def __init__(self) -> None:
        self._usual: tuple[Any, ...] | None = None
        self._other: tuple[Any, ...] | None = None
        self._seen = self._others = 0

    def is_another(self, image: Pixels) -> bool:
        """Take the next picture, (H, W) or (H, W, C), and tell. What has lasted for `ADOPTED` pictures is the usual."""
        kind = (*image.shape, image.dtype)
        if kind == self._usual:
            self._seen, self._others = self._seen + 1, 0
            return False
        self._others = self._others + 1 if kind == self._other else 1
        self._other = kind
        if self._seen >= SURE and self._others < ADOPTED:
            return True
        self._usual, self._seen = kind, 1
        return False


class Scale:
    """Adds up the jumps (K,) of a camera's scales, so that one that jumps back is well again."""

    def __init__(self) -> None:
        self._sum: Floats | None = None
        self._age = 0

    def is_off(self, jump: Floats | None) -> bool:
        """Take the jump since the last picture (None: no jump) and tell whether the scale is another than it was."""
        if jump is not None:
            before = np.zeros_like(jump) if self._sum is None or self._sum.shape != jump.shape else self._sum
            self._sum, self._age = before + jump, 0
        if self._sum is None:
            return False
        self._age += 1
        if self._age > ADOPTED or np.abs(self._sum).max() < JUMP:
            self._sum = None
        return self._sum is not None


def stretch(before: Pixels, now: Pixels) -> Floats | None:
    """The log of the factor, (1,), by which all distances (H, W) have changed since the picture before; else None.

    No motion does that: a robot that drives adds the same to what is near and to what is far. So the factor must be
    the same, within `EVEN`, for the nearer and for the farther half, which must be `APART`.
    """
    if before.shape != now.shape or before.dtype != now.dtype:
        return None
    a, b = before.reshape(-1), now.reshape(-1)
    return None if _stretch(a[::SPARSE], b[::SPARSE], LAX) is None else _stretch(a, b)


def _stretch(before: Pixels, now: Pixels, lax: float = 1.0) -> Floats | None:
    both = _read(before) & _read(now)
    a, b = (x[both].astype(np.float64) for x in (before, now))
    if a.size < ENOUGH / lax * before.size or not a.size:
        return None
    ratio = np.log(b / a)
    jump = float(np.median(ratio))
    if abs(jump) < JUMP / lax or _spread(ratio) > lax * EVEN * abs(jump):
        return None
    if lax > 1.0:
        return np.array([jump])
    low, middle, high = np.percentile(a, (10, 50, 90))
    if high < APART * low:
        return None
    near, far = (float(np.median(ratio[part])) for part in (a <= middle, a > middle))
    return np.array([jump]) if abs(near - far) <= EVEN * abs(jump) / 2 else None


def cast(before: Pixels, now: Pixels) -> Floats | None:
    """The logs of the factors (3,) by which the colours, uint8 (H, W, 3), have changed against each other since the
    picture before, where that is the same all over; else None. A lamp changes what it lights, and its brightness more.
    """
    if before.shape != now.shape or before.dtype != np.uint8 or now.dtype != np.uint8 or now.ndim != 3:
        return None
    a, b = (x[..., :3].reshape(-1, 3) for x in (before, now))
    return None if _cast(a[::SPARSE], b[::SPARSE], LAX) is None else _cast(a, b)


def _cast(before: Pixels, now: Pixels, lax: float = 1.0) -> Floats | None:
    # (3, N): a reduction over so short a last axis is slow, and so is all else over colours that lie apart.
    a, b = np.ascontiguousarray(before.T), np.ascontiguousarray(now.T)
    clear = ((a > 20) & (a < 235) & (b > 20) & (b < 235)).all(axis=0)
    if np.count_nonzero(clear) < max(1.0, ENOUGH / lax * a.shape[1]):
        return None
    ratio = LOGS[b[:, clear]] - LOGS[a[:, clear]]
    ratio -= ratio.mean(axis=0)
    jump = np.median(ratio, axis=1)
    size = float(np.abs(jump).max())
    if size < JUMP / lax or any(_spread(channel) > lax * EVEN * size for channel in ratio):
        return None
    return np.asarray(jump)


def _read(image: Pixels) -> npt.NDArray[np.bool_]:
    if image.dtype.kind == "f":
        return np.asarray(np.isfinite(image) & (image > 0))
    return np.asarray((image > 0) & (image < np.iinfo(image.dtype).max))


def _spread(values: Floats) -> float:
    low, high = np.percentile(values, (25, 75))
    return float(high - low)
