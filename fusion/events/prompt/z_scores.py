"""Compares the similarity of a label with those of common phrases, of other labels, and of the stream so far."""

from __future__ import annotations

import numpy as np

from sensebind.fusion.core.embeddings import Vector
from sensebind.fusion.events.evidence import (
    FloatArray,
    RunningBaseline,
)

MIN_BACKGROUND_DEVIATION = 0.005  # cosine; lower limit of the deviation of the background
# Deviations; limits of the running mean of a label above and below 0.
MAX_BASELINE_INCREASE, MAX_BASELINE_DECREASE = 2.0, 1.0


def background_z_score(similarities: FloatArray, vector: Vector, background: Vector) -> FloatArray:
    """Return the background z-score of each label, (L,) float64.

    This is the cosine of the label's best phrase, `similarities` (L,) of `vector`, minus the median of the background's
    cosines, in deviations of these (1.4826 times the median absolute deviation). `vector` (D,) and `background` (M, D)
    are unit vectors. Cosines of image and text, or of sound and text, are in different, narrow bands; z-scores can be
    compared. This is the test normalization of speaker verification (Auckenthaler, Carey and Lloyd-Thomas, "Score
    normalization for text-independent speaker verification systems", 2000), with median and median absolute deviation.
    """
    cosines = background @ vector
    median = np.median(cosines)
    deviation = max(1.4826 * float(np.median(np.abs(cosines - median))), MIN_BACKGROUND_DEVIATION)
    return np.asarray((similarities - median) / deviation, np.float64)


def subtract_competition(z_scores: FloatArray, competition: float) -> FloatArray:
    """Return background z-scores (L,), each minus `competition` times the margin of the best label over it."""
    return np.asarray(z_scores - competition * np.maximum(-margins(z_scores), 0.0), np.float64)


def margins(z_scores: FloatArray) -> FloatArray:
    """Return background z-scores (L,), each minus that of the best other label: negative for all but the best.

    A single label has the margin 0.
    """
    if len(z_scores) < 2:
        return np.zeros(len(z_scores))
    order = np.sort(z_scores)
    return np.asarray(z_scores - np.where(z_scores == order[-1], order[-2], order[-1]), np.float64)


def deviation_from_baseline(
    z_scores: FloatArray, baseline: RunningBaseline, baseline_weight: float, warm_up: float
) -> FloatArray:
    """Return the deviations x (L,) of background z-scores u (L,) from their own baseline in this stream.

    x = (u − w·`baseline_weight`·mean) / max(1, w·deviation), with w = t / (t + `warm_up`) and the observed time t. At
    first w is near 0, so something that is present from the start is detected. The mean is clipped to
    −`MAX_BASELINE_DECREASE` … `MAX_BASELINE_INCREASE`.
    """
    weight = baseline.observed_time / (baseline.observed_time + warm_up)
    expected = weight * baseline_weight * np.clip(baseline.mean, -MAX_BASELINE_DECREASE, MAX_BASELINE_INCREASE)
    return np.asarray((z_scores - expected) / np.maximum(1.0, weight * baseline.deviation), np.float64)
