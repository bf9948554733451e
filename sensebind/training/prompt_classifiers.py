"""Words taught: classifiers of what was there, on the vectors of streams of which that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, solve
from scipy.optimize import minimize

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events import prompt_classifiers
from sensebind.fusion.events.evidence import MAX_POSITIVE_EVIDENCE, BoolArray, FloatArray, logistic, logit
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers

TickEmbeddings = tuple[int, Mapping[str, Embedding]]  # ns, and the senses that have a window ending there
LabelSpanNs = tuple[int, int, str]  # onset and offset in ns, label
LabelledStream = tuple[Sequence[TickEmbeddings], Sequence[LabelSpanNs]]

MIN_EXAMPLES = 10  # windows with the thing, and without, that a classifier needs
FOLDS = 5
RIDGE_PENALTY = (
    3e-4  # on squared weights, beside the variance of unit vectors, which is 1 at most in all directions together
)
LABEL_DELAY = 0.375  # of a window: it is asked about what was so long before its end, and half a hop at least
COMPONENT_COUNT = 48  # in which the lessons' vectors spread most
RESIDUAL_PERCENTILE, RESIDUAL_MARGIN = (
    99.5,
    1.1,
)  # percentile of the lessons' strangeness, and what is still like them over it
SLOPE_PENALTY = 1e-6  # penalty on a slope
NEGATIVE_EVIDENCE_LIMITS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)  # nats that are tried


@dataclass(frozen=True, slots=True)
class ModalityExamples:
    """What one sense perceived in all streams: `vectors` float32 (N, D), the `rows` (tick, of all streams one after the
    other) that they belong to, the truth of L labels (N, L), and coverage (N,)."""

    vectors: npt.NDArray[np.float32]
    rows: npt.NDArray[np.intp]
    truth: BoolArray
    coverage: FloatArray


def train_prompt_classifiers(
    labels: Mapping[str, npt.NDArray[np.float32]],
    streams: Sequence[LabelledStream],
) -> tuple[PromptClassifiers | None, float]:
    """Label → its phrases' vectors (P, D), and labelled streams → words and doubt of a `PromptCalibration`.

    For each sense and label a ridge regression on vectors. What it gives on streams that it was not fitted on is made a
    likelihood ratio by Platt's sigmoid, whose slope is nothing where a sense cannot tell; and so is what the senses'
    ratios add up to, by rank, for what they know they know in part from each other. None in place of words where no
    sense could be taught any.
    """
    names = list(labels)
    fold = np.concatenate(
        [_fold_numbers(number, len(ticks), len(streams)) for number, (ticks, _) in enumerate(streams)]
    )
    hop = _hop(streams)
    now = _label_matrix(streams, names, hop / 2, hop)
    senses: dict[str, prompt_classifiers.ModalityClassifiers] = {}
    told: dict[str, FloatArray] = {}
    covered: dict[str, FloatArray] = {}
    for modality in sorted({m for ticks, _ in streams for _, present in ticks for m in present} - {FUSED}):
        delay = max(LABEL_DELAY * _window_length(streams, modality), hop / 2)
        seen = _examples_of(streams, modality, _label_matrix(streams, names, delay, hop))
        enough = (seen.truth.sum(axis=0) >= MIN_EXAMPLES) & ((~seen.truth).sum(axis=0) >= MIN_EXAMPLES)
        if not enough.any():
            continue
        outside, weights, biases = cross_validated_ridge(seen.vectors, seen.truth, fold[seen.rows])
        ratios = np.full(seen.truth.shape, np.nan)
        for word in np.flatnonzero(enough):
            bias, slope = platt_scaling(outside[:, word], seen.truth[:, word])
            bias -= float(logit(seen.truth[:, word].mean()))  # what the share of such windows says is no evidence
            ratios[:, word] = slope * outside[:, word] + bias
            weights[word], biases[word] = slope * weights[word], slope * biases[word] + bias
        weights[~enough], biases[~enough] = 0.0, np.nan
        told[modality] = np.full(now.shape, np.nan)
        told[modality][seen.rows] = ratios
        covered[modality] = np.zeros(len(now))
        covered[modality][seen.rows] = seen.coverage
        senses[modality] = prompt_classifiers.ModalityClassifiers(
            weights.astype(np.float32), biases, *_in_distribution_subspace(seen.vectors)
        )
    if not senses:
        return None, 0.0
    # A sense that saw too little of a word that others were taught says nothing of it.
    taught = np.any([~np.isnan(sense.biases) for sense in senses.values()], axis=0)
    for sense in senses.values():
        sense.biases[taught & np.isnan(sense.biases)] = 0.0
    # What senses weigh beside each other is told where all of them were there, if they ever were.
    joint = np.all([c > 0 for c in covered.values()], axis=0)
    rows = joint if joint.any() else np.ones(len(now), bool)
    gains = np.stack([np.nan_to_num(told[m][rows]) * covered[m][rows, None] for m in sorted(senses)])
    doubt, prior, ranks = _fit_combination(gains.reshape(len(senses), -1), now[rows].ravel())
    phrases = np.concatenate([labels[name] for name in names])
    owners = np.repeat(np.arange(len(names)), [len(labels[name]) for name in names])
    near = prompt_classifiers.phrase_match_threshold(phrases, owners)
    return PromptClassifiers(tuple(names), phrases, owners, near, senses, ranks, prior), doubt


def _fit_combination(gains: FloatArray, truth: BoolArray) -> tuple[float, float, tuple[float, ...]]:
    """The doubt, the prior and the weights by rank with which ratios (M, R) of M senses tell the truth (R,) best."""
    tried = []
    for doubt in NEGATIVE_EVIDENCE_LIMITS:
        table = -np.sort(-np.clip(gains, -doubt, MAX_POSITIVE_EVIDENCE), axis=0).T
        prior, *ranks = nonnegative_logistic_regression(table, truth.astype(np.float64))
        z = prior + table @ np.array(ranks)
        tried.append((float(np.mean(np.logaddexp(0, z) - truth * z)), doubt, prior, ranks))
    _, doubt, prior, ranks = min(tried)
    return doubt, float(np.clip(logistic(prior), 1e-4, 0.5)), tuple(float(min(rank, 10.0)) for rank in ranks)


def _in_distribution_subspace(
    vectors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Middle, directions and reach of `ModalityClassifiers`, from what one sense perceived (N, D)."""
    middle = vectors.mean(axis=0)
    spread = np.cov(vectors.T.astype(np.float64))
    _, directions = eigh(spread, subset_by_index=(max(len(spread) - COMPONENT_COUNT, 0), len(spread) - 1))
    sense = prompt_classifiers.ModalityClassifiers(
        vectors[:0], np.zeros(0), middle, directions.T.astype(np.float32), np.inf
    )
    return (
        middle,
        sense.directions,
        RESIDUAL_MARGIN * float(np.percentile(sense.residual(vectors), RESIDUAL_PERCENTILE)),
    )


def cross_validated_ridge(
    vectors: npt.NDArray[np.float32], truth: BoolArray, fold: npt.NDArray[np.intp], penalty: float = RIDGE_PENALTY
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Ridge regressions of L truths, 0 or 1, (N, L) on vectors (N, D), whose rows are of the folds (N,).

    What they give for each row when its fold was left out (N, L), and the weights (L, D) and biases (L,) of all rows.
    A. Hoerl and R. Kennard, "Ridge regression", 1970; as classifiers of embeddings they were as good as logistic
    regressions here, and have a closed form, whose sums over a fold can be taken away again.
    """
    x = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    table = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = truth.astype(np.float64)
    parts = {int(part): fold == part for part in np.unique(fold)}
    squares = {part: table[rows].T @ table[rows] for part, rows in parts.items()}
    products = {part: table[rows].T @ y[rows] for part, rows in parts.items()}
    square, product = sum(squares.values()), sum(products.values())
    held = np.diag(np.append(np.full(x.shape[1], penalty), 0.0))  # the constant is not penalised

    def solved(square: FloatArray, product: FloatArray, count: int) -> FloatArray:
        return np.asarray(solve(square + count * held, product, assume_a="pos"), np.float64)

    outside = np.empty_like(y)
    for part, rows in parts.items():
        rest = int(np.count_nonzero(~rows))
        found = solved(square - squares[part], product - products[part], rest) if rest else np.zeros_like(product)
        outside[rows] = table[rows] @ found
    found = solved(square, product, len(x))
    weights = found[:-1].T.copy()
    return outside, weights, np.asarray(found[-1] - weights @ vectors.mean(axis=0, dtype=np.float64), np.float64)


def platt_scaling(scores: FloatArray, truth: BoolArray) -> tuple[float, float]:
    """Bias and slope, 0 or more, of the sigmoid that makes scores (N,) probabilities (Platt, 1999)."""
    bias, slope = nonnegative_logistic_regression(scores[:, None], truth.astype(float), penalty=SLOPE_PENALTY)
    return float(bias), float(slope)


def nonnegative_logistic_regression(inputs: FloatArray, truth: FloatArray, penalty: float = 1e-3) -> FloatArray:
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


def _examples_of(streams: Sequence[LabelledStream], modality: str, truth: BoolArray) -> ModalityExamples:
    vectors, rows, coverage = [], [], []
    for row, present in enumerate(present for ticks, _ in streams for _, present in ticks):
        embedding = present.get(modality)
        if embedding is not None and not embedding.symptoms:
            vectors.append(embedding.vector)
            rows.append(row)
            coverage.append(embedding.coverage)
    index = np.array(rows, np.intp)
    return ModalityExamples(np.array(vectors, np.float32), index, truth[index], np.array(coverage, np.float64))


def _label_matrix(streams: Sequence[LabelledStream], names: Sequence[str], delay: float, hop: float) -> BoolArray:
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


def _hop(streams: Sequence[LabelledStream]) -> float:
    """The usual time between ticks in s."""
    gaps = np.concatenate([np.diff([tick for tick, _ in ticks]) for ticks, _ in streams])
    return float(np.median(gaps)) / SECOND if len(gaps) else 0.5


def _window_length(streams: Sequence[LabelledStream], modality: str) -> float:
    """The length of a sense's windows in s."""
    found = [present[modality] for ticks, _ in streams for _, present in ticks if modality in present]
    return float(np.median([embedding.tick - embedding.start for embedding in found])) / SECOND


def _fold_numbers(number: int, count: int, streams: int) -> npt.NDArray[np.intp]:
    """(count,): whole streams are left out together; of one stream, or of few, stretches of time."""
    if streams >= FOLDS:
        return np.full(count, number % FOLDS)
    return np.arange(count) * FOLDS // max(count, 1)
