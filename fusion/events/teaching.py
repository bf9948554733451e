"""Words taught: classifiers of what was there, on the vectors of streams of which that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from sensebind.fusion.embeddings import FUSED, Embedding
from sensebind.fusion.events import words
from sensebind.fusion.events.event import CERTAINTY, Array, Flags, logistic, logit
from sensebind.fusion.events.words import Words
from sensebind.fusion.samples import SECOND

Tick = tuple[int, Mapping[str, Embedding]]  # ns, and the senses that have a window ending there
Span = tuple[int, int, str]  # onset and offset in ns, label
Stream = tuple[Sequence[Tick], Sequence[Span]]

FEWEST = 10  # windows with the thing, and without, that a classifier needs
FOLDS = 5
PENALTY = 3e-4  # on squared weights, beside the variance of unit vectors, which is 1 at most in all directions together
DOUBTS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)  # nats that are tried


@dataclass(frozen=True, slots=True)
class Windows:
    """What one sense perceived in all streams: `vectors` float32 (N, D), the `rows` (tick, of all streams one after the
    other) that they belong to, the truth of L labels (N, L), and coverage (N,)."""

    vectors: npt.NDArray[np.float32]
    rows: npt.NDArray[np.intp]
    truth: Flags
    coverage: Array
    delay: float  # s


def teach(
    labels: Mapping[str, npt.NDArray[np.float32]], streams: Sequence[Stream],
    delays: Mapping[str, float] | None = None, penalty: float = PENALTY,
) -> tuple[Words | None, float, float]:
    """Label → its phrases' vectors (P, D), and labelled streams → the words, the prior and the doubt of a `Calibration`.

    For each sense and label a ridge regression on vectors. What it gives on streams that it was not fitted on is made a
    likelihood ratio by Platt's sigmoid, one for each sense; and so is what the senses' ratios add up to, with a weight
    for each sense, for what they know they know in part from each other. None in place of words where no sense could be
    taught any.
    """
    names = list(labels)
    fold = np.concatenate([_folds(number, len(ticks), len(streams)) for number, (ticks, _) in enumerate(streams)])
    hop = _hop(streams)
    now = _truth(streams, names, hop / 2, hop)
    senses: dict[str, words.Sense] = {}
    told: dict[str, Array] = {}
    covered: dict[str, Array] = {}
    for modality in sorted({m for ticks, _ in streams for _, present in ticks for m in present} - {FUSED}):
        delay = (delays or {}).get(modality, hop / 2)
        seen = _windows(streams, modality, _truth(streams, names, delay, hop), delay)
        enough = (seen.truth.sum(axis=0) >= FEWEST) & ((~seen.truth).sum(axis=0) >= FEWEST)
        if not enough.any():
            continue
        outside = np.full(seen.truth.shape, np.nan)
        for part in range(FOLDS):
            out = fold[seen.rows] == part
            if out.any() and not out.all():
                weights, biases = separate(seen.vectors[~out], seen.truth[~out], penalty)
                outside[out] = seen.vectors[out] @ weights.T + biases
        usual = logit(np.clip(seen.truth.mean(axis=0), 1e-4, 0.5))
        weights, biases = separate(seen.vectors, seen.truth, penalty)
        known = enough[None] & np.isfinite(outside)
        bias, slope = platt(outside[known], seen.truth[known])
        ratios = slope * outside + bias - usual
        told[modality] = np.full(now.shape, np.nan)
        told[modality][seen.rows] = np.where(enough, ratios, np.nan)
        covered[modality] = np.zeros(len(now))
        covered[modality][seen.rows] = seen.coverage
        shifted = np.where(enough, slope * biases + bias - usual, np.nan)
        senses[modality] = words.Sense((slope * weights).astype(np.float32), shifted, delay)
    if not senses:
        return None, 0.0, 0.0
    # What senses weigh beside each other is told where all of them were there, if they ever were.
    joint = np.all([c > 0 for c in covered.values()], axis=0)
    rows = joint if joint.any() else np.ones(len(now), bool)
    prior, doubt, counts = _together({m: r[rows] for m, r in told.items()}, {m: c[rows] for m, c in covered.items()}, now[rows])
    senses = {m: words.Sense(s.weights, s.biases, s.delay, counts[m]) for m, s in senses.items()}
    phrases = np.concatenate([labels[name] for name in names])
    owners = np.repeat(np.arange(len(names)), [len(labels[name]) for name in names])
    return Words(tuple(names), phrases, owners, words.nearness(phrases, owners), senses), prior, doubt


def _together(
    told: Mapping[str, Array], covered: Mapping[str, Array], truth: Flags
) -> tuple[float, float, dict[str, float]]:
    """Prior, doubt and weights with which the senses' ratios, (T, L) each, tell the truth (T, L) best."""
    best: tuple[float, float, float, dict[str, float]] | None = None
    for doubt in DOUBTS:
        gains = [
            (np.clip(np.nan_to_num(told[m]), -doubt, CERTAINTY) * covered[m][:, None]).ravel() for m in sorted(told)
        ]
        table = np.stack(gains, axis=1)
        prior, *counts = regress(table, truth.ravel().astype(float))
        z = prior + table @ np.array(counts)
        loss = float(np.mean(np.logaddexp(0, z) - truth.ravel() * z))
        if best is None or loss < best[0]:
            best = loss, prior, doubt, dict(zip(sorted(told), (min(c, 10.0) for c in counts), strict=True))
    assert best is not None
    return float(np.clip(logistic(best[1]), 1e-4, 0.5)), best[2], best[3]


def separate(
    vectors: npt.NDArray[np.float32], truth: Flags, penalty: float = PENALTY
) -> tuple[npt.NDArray[np.float64], Array]:
    """(N, D) and (N, L) → weights (L, D) and biases (L,) of L ridge regressions of 0 or 1 on vectors.

    A. Hoerl and R. Kennard, "Ridge regression", 1970; as a classifier of embeddings it is as good as a logistic
    regression here, and has a closed form.
    """
    middle, share = vectors.mean(axis=0, dtype=np.float64), truth.mean(axis=0)
    x = vectors.astype(np.float64) - middle
    covariance = x.T @ x / len(x) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(covariance, x.T @ (truth - share) / len(x)).T
    return weights, np.asarray(share - weights @ middle, np.float64)


def platt(scores: Array, truth: Flags) -> tuple[float, float]:
    """Bias and slope of the sigmoid that makes scores (N,) probabilities (Platt, 1999)."""
    bias, slope = regress(scores[:, None], truth.astype(float), penalty=0.0)
    return float(bias), float(slope)


def regress(inputs: Array, truth: Array, penalty: float = 1e-3) -> Array:
    """Inputs (R, K) and 0 or 1 (R,) → (1 + K,): bias and weights, none of these negative, of a logistic regression."""
    count, width = inputs.shape
    table = np.concatenate([np.ones((count, 1)), inputs], axis=1)

    def loss(w: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = table @ w
        residual = logistic(z) - truth
        value = float(np.mean(np.logaddexp(0, z) - truth * z)) + penalty * float(w[1:] @ w[1:])
        slope = table.T @ residual / count
        slope[1:] += 2 * penalty * w[1:]
        return value, slope

    first = np.zeros(1 + width)
    first[0] = float(logit(truth.mean()))
    bounds = [(None, None)] + [(0.0, None)] * width
    return np.asarray(minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x, np.float64)


def _windows(
    streams: Sequence[Stream], modality: str, truth: Flags, delay: float
) -> Windows:
    vectors, rows, coverage = [], [], []
    for row, present in enumerate(present for ticks, _ in streams for _, present in ticks):
        embedding = present.get(modality)
        if embedding is not None and not embedding.symptoms:
            vectors.append(embedding.vector)
            rows.append(row)
            coverage.append(embedding.coverage)
    index = np.array(rows, np.intp)
    return Windows(np.array(vectors, np.float32), index, truth[index], np.array(coverage, np.float64), delay)


def _truth(
    streams: Sequence[Stream], names: Sequence[str], delay: float, hop: float
) -> Flags:
    """(T, L): whether each label was there for half of the time `delay` s before each tick, give or take half a hop."""
    parts = []
    for ticks, spans in streams:
        middle = np.array([tick for tick, _ in ticks], np.float64) - delay * SECOND
        covered = np.zeros((len(ticks), len(names)))
        for onset, offset, label in spans:
            if label in names:
                shared = np.minimum(middle + hop / 2 * SECOND, offset) - np.maximum(middle - hop / 2 * SECOND, onset)
                covered[:, names.index(label)] += np.clip(shared, 0, None)
        parts.append(covered >= hop / 2 * SECOND)
    return np.concatenate(parts)


def _hop(streams: Sequence[Stream]) -> float:
    """The usual time between ticks in s."""
    gaps = np.concatenate([np.diff([tick for tick, _ in ticks]) for ticks, _ in streams])
    return float(np.median(gaps)) / SECOND if len(gaps) else 0.5


def _folds(number: int, count: int, streams: int) -> npt.NDArray[np.intp]:
    """(count,): whole streams are left out together; of one stream, or of few, stretches of time."""
    if streams >= FOLDS:
        return np.full(count, number % FOLDS)
    return np.arange(count) * FOLDS // max(count, 1)
