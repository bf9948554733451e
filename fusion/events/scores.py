"""The timestamp correction of a score: how far before its tick the time is that it describes."""

from __future__ import annotations

from collections.abc import Sequence

from sensebind.fusion.core.events import Evidence, Score
from sensebind.fusion.core.samples import SECOND

ZERO_SCORE = Score(0.0)
MAX_TIMESTAMP_CORRECTION = SECOND  # ns


def timestamp_correction(evidence: Sequence[Evidence]) -> int:
    """Return the timestamp correction in ns: `half_window` of the `strongest_evidence`; 0 without one."""
    strongest = strongest_evidence(evidence)
    return 0 if strongest is None else half_window(strongest.start, strongest.tick)


def strongest_evidence(evidence: Sequence[Evidence]) -> Evidence | None:
    """Return the evidence with the highest score, among the modalities that can recognise the label."""
    return max((e for e in evidence if e.competence > 0), key=lambda e: e.score, default=None)


def half_window(start: int, tick: int) -> int:
    """Return half of a window in ns, at most 1 s.

    When an object appears or disappears, its score changes after about half of the window has changed. So a score
    describes the middle of the window.
    """
    return min((tick - start) // 2, MAX_TIMESTAMP_CORRECTION)
