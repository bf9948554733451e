"""Whether a score of 0.8 is right eight times in ten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensebind.evaluation.spans import Array

BIN_COUNT = 15


@dataclass(frozen=True)
class Reliability:
    """Per bin of the scores, (B,): how many fell into it, their mean, and the share of them that were right."""

    counts: npt.NDArray[np.int64]
    mean_scores: Array
    accuracies: Array

    @property
    def expected_calibration_error(self) -> float | None:
        """Expected calibration error: Σ counts·|accuracies − mean_scores| / Σ counts (Naeini, Cooper and
        Hauskrecht, 2015); None where nothing was scored."""
        total = int(self.counts.sum())
        return float(np.abs(self.accuracies - self.mean_scores) @ self.counts) / total if total else None


def reliability(scores: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BIN_COUNT) -> Reliability:
    """Scores (N,) in 0..1 and whether each was right, (N,), in `bins` bins of equal width. Empty bins hold zeros.

    Raises `ValueError` for scores outside 0..1.
    """
    s, r = np.asarray(scores, np.float64).ravel(), np.asarray(correct, np.float64).ravel()
    if s.shape != r.shape or (len(s) and not (s.min() >= 0 and s.max() <= 1)):
        raise ValueError(f"{s.shape} scores in 0..1 and {r.shape} answers are wanted")
    where = np.minimum((s * bins).astype(np.int64), bins - 1)
    counts = np.bincount(where, minlength=bins)
    few = np.maximum(counts, 1)
    return Reliability(counts, np.bincount(where, s, bins) / few, np.bincount(where, r, bins) / few)
