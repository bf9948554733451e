"""Resizing of 8-bit images with the results of Pillow, bit for bit, on any device.

Image processors of published models resize with Pillow. PyTorch's own resizing of uint8 uses coefficients of fewer
bits: it differs by one level in up to 1 % of the pixels.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# For each tap: the source places int64 (size,) and the fixed-point coefficients int32 (size,).
Taps = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

COEFFICIENT_BITS = 22  # Pillow's fixed-point coefficients: an int32 sum has 8 bits of image and 2 bits for overshoot
MAX_CACHE_BYTES = 64 * 2**20  # of taps on the CPU: those of 130 image widths of 10,000 pixels
FILTER_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def pillow_resize(images: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """uint8 (B, C, H, W) → uint8 (B, C, *size), antialiased, in two passes: along the rows and along the columns.

    The result of each pass is rounded to 8 bits. As in Pillow since 13.0, the columns are first if the height shrinks
    by more than twice as many pixels as the width. Before, the rows were always first, which differs by one level in
    some pixels. `mode` is bicubic (a = −0.5) or bilinear. Raises `ValueError` for other dtypes, shapes and modes.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape or min(size) < 1:
        raise ValueError(f"expected uint8 (B, C, H, W) with pixels, got {images.dtype} {tuple(images.shape)} → {size}")
    if mode not in FILTER_SUPPORT:
        raise ValueError(f"mode '{mode}' is not one of {', '.join(FILTER_SUPPORT)}")
    levels = images.to(torch.int32)
    height, width = images.shape[2:]
    columns_first = height - size[0] > max(0, 2 * (width - size[1]))
    for axis in (2, 3) if columns_first else (3, 2):
        if levels.shape[axis] != size[axis - 2]:
            levels = _resample(levels, axis, size[axis - 2], mode)
    return levels.to(torch.uint8)


def _resample(levels: Tensor, axis: int, size: int, mode: str) -> Tensor:
    """Resample one axis of int32 levels 0..255 to `size` levels 0..255."""
    places, coefficients = _taps(levels.shape[axis], size, mode, levels.device)
    shape = [1] * levels.ndim
    shape[axis] = size
    total = None
    for place, coefficient in zip(places, coefficients, strict=True):
        product = levels.index_select(axis, place).mul_(coefficient.view(shape))
        total = product if total is None else total.add_(product)
    assert total is not None
    return total.add_(1 << (COEFFICIENT_BITS - 1)).bitwise_right_shift_(COEFFICIENT_BITS).clamp_(0, 255)


class TapCache:
    """The taps of the newest sizes on the CPU, of at most `limit` bytes together: a recording may have images of any
    number of sizes. Safe to call from several threads."""

    def __init__(self, limit: int = MAX_CACHE_BYTES) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._entries: OrderedDict[tuple[int, int, str], Taps] = OrderedDict()
        self.bytes = 0  # of all entries

    def taps(self, length: int, size: int, mode: str) -> Taps:
        """The taps for an axis of `length` pixels that becomes `size` pixels."""
        key = length, size, mode
        with self._lock:
            if (found := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
                return found
        found = _compute_taps(length, size, mode)
        with self._lock:
            if key not in self._entries:
                self._entries[key] = found
                self.bytes += _bytes_of(found)
            while self.bytes > self._limit:
                self.bytes -= _bytes_of(self._entries.popitem(last=False)[1])
        return found


_CPU_TAPS = TapCache()


def _taps(length: int, size: int, mode: str, device: torch.device) -> Taps:
    return _CPU_TAPS.taps(length, size, mode) if device.type == "cpu" else _device_taps(length, size, mode, device)


# More than the CUDA graphs that are kept. They use the memory of the entries, so these are not limited by their bytes.
@lru_cache(maxsize=512)
def _device_taps(length: int, size: int, mode: str, device: torch.device) -> Taps:
    """Cached, because a new transfer makes the host wait for the device."""
    places, coefficients = _compute_taps(length, size, mode)
    with torch.inference_mode(False):
        return tuple(tap.to(device) for tap in places), tuple(tap.to(device) for tap in coefficients)


def _bytes_of(taps: Taps) -> int:
    return sum(tensor.nbytes for part in taps for tensor in part)


def _compute_taps(length: int, size: int, mode: str) -> Taps:
    scale = length / size
    stretch = max(scale, 1.0)  # the filter is widened for a reduction: antialiasing
    support = FILTER_SUPPORT[mode] * stretch
    centres = (np.arange(size) + 0.5) * scale
    first = np.maximum(np.trunc(centres - support + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centres + support + 0.5), length).astype(np.int64)  # exclusive
    places = first[:, None] + np.arange(2 * math.ceil(support) + 1)
    weights = np.where(places < last[:, None], _filter((places - centres[:, None] + 0.5) / stretch, mode), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.trunc(weights * (1 << COEFFICIENT_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    used = np.flatnonzero(np.any(fixed != 0, axis=0))
    places = np.minimum(places, length - 1)  # where the coefficient is 0
    with torch.inference_mode(False):
        return (
            tuple(torch.from_numpy(places[:, tap].copy()) for tap in used),
            tuple(torch.from_numpy(fixed[:, tap].copy()) for tap in used),
        )


def _filter(x: np.ndarray, mode: str) -> np.ndarray:
    """The triangle, or Keys' cubic convolution with a = −0.5 (Keys 1981, eq. 4)."""
    distance = np.abs(x)
    if mode == "bilinear":
        return np.maximum(1 - distance, 0)
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
