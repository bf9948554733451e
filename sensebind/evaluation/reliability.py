"""Reliability of scores: whether scores of 0.8 are correct in 80 % of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensebind.evaluation.spans import Array

BIN_COUNT = 15


@dataclass(frozen=True)
class Reliability:
    """For each of B bins of scores, (B,): their number, their mean, and the fraction of them that were correct."""

    counts: npt.NDArray[np.int64]
    mean_scores: Array
    accuracies: Array

    @property
    def expected_calibration_error(self) -> float | None:
        """Expected calibration error: Σ counts·|accuracies − mean_scores| / Σ counts (Naeini, Cooper and
        Hauskrecht, 2015); None without scores."""
        total = int(self.counts.sum())
        return float(np.abs(self.accuracies - self.mean_scores) @ self.counts) / total if total else None


def reliability(scores: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BIN_COUNT) -> Reliability:
    """Sort scores (N,) in 0..1 into `bins` bins of equal width. `correct` (N,): 1 for a correct one. Empty bins hold 0.

    Raises `ValueError` for scores outside 0..1 or different shapes.
    """
    s, r = np.asarray(scores, np.float64).ravel(), np.asarray(correct, np.float64).ravel()
    if s.shape != r.shape or (len(s) and not (s.min() >= 0 and s.max() <= 1)):
        raise ValueError(f"scores {s.shape} must be in 0..1 and have the shape of `correct` {r.shape}")
    index = np.minimum((s * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    few = np.maximum(counts, 1)
    return Reliability(counts, np.bincount(index, s, bins) / few, np.bincount(index, r, bins) / few)
