"""How far before its tick a score lies in time."""

from __future__ import annotations

from collections.abc import Sequence

from sensebind.fusion.core.events import Evidence, Score
from sensebind.fusion.core.samples import SECOND

ZERO_SCORE = Score(0.0)
MAX_TIMESTAMP_CORRECTION = SECOND  # ns


def timestamp_correction(evidence: Sequence[Evidence]) -> int:
    """How long before the tick (ns) that is which the surest sense tells of: `half_window` of its window."""
    surest = max(evidence, key=lambda e: e.score, default=None)
    return 0 if surest is None else half_window(surest.start, surest.tick)


def half_window(start: int, tick: int) -> int:
    """Half of a window (ns), 1 s at most: how long before its end that is which it tells of.

    Half of a window must hold a thing before its vector is as like it as not, and again when it is over: so on the
    whole, a score is that of the window's middle.
    """
    return min((tick - start) // 2, MAX_TIMESTAMP_CORRECTION)
