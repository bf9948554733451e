"""Signs that a sensor lies: told from one window, and from the one before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensebind.fusion.samples import Frame, Reading, Sound
from sensebind.fusion.windows import Window

STRIDE = 997  # bytes between those looked at: prime, so that it falls on every colour and column


def symptoms(window: Window, before: Window | None) -> tuple[str, ...]:
    """Names of what is wrong, out of `statistics.SYMPTOMS`; empty where nothing is.

    - `frozen`: the newest frame is byte for byte the one of the window before, though its stamp is newer;
      or all readings of a window are equal, which noise never lets a working sensor say.
    - `dark`, `saturated`: 99 % of the pixels of an 8-bit image are ≤ 4, or ≥ 251; `saturated` also where
      over 1 % of a sound is at full scale.
    - `silent`: every sample of the sound is the same.
    """
    newest = window.samples[-1].data
    if isinstance(newest, Frame):
        previous = before.samples[-1] if before else None
        found = []
        if previous is not None and previous.stamp != window.samples[-1].stamp and _same(previous.data, newest):
            found.append("frozen")
        if not newest.compressed and _is_8_bit(newest.encoding):
            some = newest.data[::STRIDE]
            if np.count_nonzero(some <= 4) >= 0.99 * some.size:
                found.append("dark")
            if np.count_nonzero(some >= 251) >= 0.99 * some.size:
                found.append("saturated")
        return tuple(found)
    if isinstance(newest, Sound):
        blocks = [s.data.data for s in window.samples if isinstance(s.data, Sound)]
        if all((block == blocks[0].flat[0]).all() for block in blocks):
            return ("silent",)
        clipped = sum(np.count_nonzero(np.abs(b.astype(np.float64)) >= _full_scale(b.dtype)) for b in blocks)
        return ("saturated",) if clipped > 0.01 * sum(b.size for b in blocks) else ()
    rows = [s.data.values for s in window.samples if isinstance(s.data, Reading)]
    return ("frozen",) if len(rows) > 1 and all(np.array_equal(rows[0], row) for row in rows) else ()


def _same(a: object, b: Frame) -> bool:
    return isinstance(a, Frame) and a.data.size == b.data.size and np.array_equal(a.data, b.data)


def _is_8_bit(encoding: str) -> bool:
    return encoding in ("rgb8", "bgr8", "mono8", "8UC1", "8UC3") or (encoding.startswith("bayer_") and "8" in encoding)


def _full_scale(dtype: np.dtype[Any]) -> float:
    return 0.999 if dtype.kind == "f" else float(np.iinfo(dtype).max)
