"""Trains prompt classifiers (linear probes) on the vectors of labelled streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, solve
from scipy.optimize import minimize

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events import prompt_classifiers
from sensebind.fusion.events.evidence import MAX_POSITIVE_EVIDENCE, BoolArray, FloatArray, logistic, logit
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers

TickEmbeddings = tuple[int, Mapping[str, Embedding]]  # tick in ns; sensor → embedding of its window that ends there
LabelSpanNs = tuple[int, int, str]  # onset and offset in ns, label
LabelledStream = tuple[Sequence[TickEmbeddings], Sequence[LabelSpanNs]]

MIN_EXAMPLES = 10  # examples with the label, and as many without it, that a fit needs
FOLDS = 5
RIDGE_PENALTY = 3e-4  # of squared weights, beside the mean squared error; the variance of unit vectors is 1 at most
LABEL_DELAY = (
    0.375  # of a window's length: its labels are those of that time before its end, or of half a hop if longer
)
COMPONENT_COUNT = 48  # principal directions of the training vectors that are kept
RESIDUAL_PERCENTILE = 99.5  # of the training vectors' residuals
RESIDUAL_MARGIN = 1.1  # the residual threshold is this times the percentile
SLOPE_PENALTY = 1e-6  # of the squared slope of a sigmoid
NEGATIVE_EVIDENCE_LIMITS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)  # nats: candidates for the maximum negative evidence


@dataclass(frozen=True, slots=True)
class ModalityExamples:
    """The N windows of one modality in all streams: those of all its sensors. Of several sensors at one tick, the one
    with the highest ratio counts, as in the detector.

    `vectors` float32 (N, D); `rows` (N,), the indices of their ticks if all streams are concatenated; `truth` (N, L)
    of L labels; `coverage` (N,).
    """

    vectors: npt.NDArray[np.float32]
    rows: npt.NDArray[np.intp]
    truth: BoolArray
    coverage: FloatArray


def train_prompt_classifiers(
    labels: Mapping[str, npt.NDArray[np.float32]],
    streams: Sequence[LabelledStream],
    competences: Mapping[str, FloatArray] | None = None,
    limited_modalities: frozenset[str] = frozenset(),
) -> tuple[PromptClassifiers | None, float]:
    """Train the classifiers of a `PromptCalibration`. `labels`: label → unit vectors of its phrases (P, D).
    `competences`: modality → its competence for each label (L,), 1 if it is missing. With 0, one of
    `limited_modalities` gets no classifier.

    A ridge regression on the vectors is fitted for each modality and label. Platt's sigmoid, fitted on held-out folds,
    turns its output into a log likelihood ratio; the slope is 0 if the modality cannot separate the label. Then the
    weights of the ratios are fitted by rank, because modalities share part of their information.

    Returns the classifiers, None if no modality has enough examples of any label, and the maximum negative evidence in
    nats.
    """
    names = list(labels)
    fold = np.concatenate(
        [_fold_numbers(number, len(ticks), len(streams)) for number, (ticks, _) in enumerate(streams)]
    )
    hop = _hop(streams)
    truth = _label_matrix(streams, names, hop / 2, hop)
    trained: dict[str, prompt_classifiers.ModalityClassifiers] = {}
    ratios: dict[str, FloatArray] = {}
    coverage: dict[str, FloatArray] = {}
    for modality in sorted({embedding.modality for _, embedding in _embeddings(streams)} - {FUSED}):
        delay = max(LABEL_DELAY * _window_length(streams, modality), hop / 2)
        examples = _examples_of(streams, modality, _label_matrix(streams, names, delay, hop))
        enough = np.minimum(examples.truth.sum(axis=0), (~examples.truth).sum(axis=0)) >= MIN_EXAMPLES
        if modality in limited_modalities:
            enough &= np.asarray((competences or {}).get(modality, 1.0)) > 0
        if not enough.any():
            continue
        held_out, weights, biases = cross_validated_ridge(examples.vectors, examples.truth, fold[examples.rows])
        ratios[modality] = np.full(truth.shape, np.nan)
        for label in np.flatnonzero(enough):
            bias, slope = platt_scaling(held_out[:, label], examples.truth[:, label])
            bias -= float(logit(examples.truth[:, label].mean()))  # the prior of the examples is not evidence
            np.fmax.at(ratios[modality][:, label], examples.rows, slope * held_out[:, label] + bias)
            weights[label], biases[label] = slope * weights[label], slope * biases[label] + bias
        weights[~enough], biases[~enough] = 0.0, np.nan
        coverage[modality] = np.zeros(len(truth))
        np.maximum.at(coverage[modality], examples.rows, examples.coverage)
        trained[modality] = prompt_classifiers.ModalityClassifiers(
            weights.astype(np.float32), biases, *_in_distribution_subspace(examples.vectors)
        )
    if not trained:
        return None, 0.0
    # If a modality has too few examples of a label that another modality can classify, its ratio is 0.
    trained_labels = np.any([~np.isnan(m.biases) for m in trained.values()], axis=0)
    for classifiers in trained.values():
        classifiers.biases[trained_labels & np.isnan(classifiers.biases)] = 0.0
    # The rank weights are fitted on ticks with windows of all modalities, or on all ticks if there are none.
    joint = np.all([c > 0 for c in coverage.values()], axis=0)
    rows = joint if joint.any() else np.ones(len(truth), bool)
    gains = np.stack([np.nan_to_num(ratios[m][rows]) * coverage[m][rows, None] for m in sorted(trained)])
    max_negative_evidence, prior, rank_weights = _fit_combination(gains.reshape(len(trained), -1), truth[rows].ravel())
    found = _prompt_classifiers(labels, trained, rank_weights, prior)
    return replace(found, limited_modalities=limited_modalities), max_negative_evidence


def _prompt_classifiers(
    labels: Mapping[str, npt.NDArray[np.float32]],
    trained: Mapping[str, prompt_classifiers.ModalityClassifiers],
    rank_weights: tuple[float, ...],
    prior: float,
) -> PromptClassifiers:
    phrases = np.concatenate(list(labels.values()))
    phrase_classes = np.repeat(np.arange(len(labels)), [len(own) for own in labels.values()])
    min_similarity = prompt_classifiers.phrase_match_threshold(phrases, phrase_classes)
    return PromptClassifiers(tuple(labels), phrases, phrase_classes, min_similarity, trained, rank_weights, prior)


def _fit_combination(gains: FloatArray, truth: BoolArray) -> tuple[float, float, tuple[float, ...]]:
    """Maximum negative evidence (nats), prior and rank weights (M,) with the smallest log loss.

    R pairs of a tick and a label. `gains` (M, R): log likelihood ratios of M modalities, multiplied by the coverage.
    `truth` (R,): whether the label is true at the tick.
    """
    fits = []
    for limit in NEGATIVE_EVIDENCE_LIMITS:
        table = -np.sort(-np.clip(gains, -limit, MAX_POSITIVE_EVIDENCE), axis=0).T
        prior, *weights = nonnegative_logistic_regression(table, truth.astype(np.float64))
        z = prior + table @ np.array(weights)
        fits.append((float(np.mean(np.logaddexp(0, z) - truth * z)), limit, prior, weights))
    _, limit, prior, weights = min(fits)
    return limit, float(np.clip(logistic(prior), 1e-4, 0.5)), tuple(float(min(weight, 10.0)) for weight in weights)


def _in_distribution_subspace(
    vectors: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Mean (D,), principal directions (K, D) and residual threshold of training vectors (N, D) of one modality."""
    mean = vectors.mean(axis=0)
    covariance = np.cov(vectors.T.astype(np.float64))
    _, columns = eigh(covariance, subset_by_index=(max(len(covariance) - COMPONENT_COUNT, 0), len(covariance) - 1))
    directions = columns.T.astype(np.float32)
    subspace = prompt_classifiers.ModalityClassifiers(vectors[:0], np.zeros(0), mean, directions, np.inf)
    threshold = RESIDUAL_MARGIN * float(np.percentile(subspace.residual(vectors), RESIDUAL_PERCENTILE))
    return mean, directions, threshold


def cross_validated_ridge(
    vectors: npt.NDArray[np.float32], truth: BoolArray, fold: npt.NDArray[np.intp], penalty: float = RIDGE_PENALTY
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Ridge regressions (A. Hoerl and R. Kennard, "Ridge regression", 1970) of L labels on N vectors.

    `vectors` (N, D), `truth` (N, L), `fold` (N,). Returns the outputs for each row when its fold was left out (N, L),
    and the weights (L, D) and biases (L,) fitted on all rows. They classified embeddings as well as logistic
    regressions did. They have a closed form: to leave out a fold, its sums are subtracted.
    """
    x = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    table = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = truth.astype(np.float64)
    folds = {int(number): fold == number for number in np.unique(fold)}
    squares = {number: table[rows].T @ table[rows] for number, rows in folds.items()}
    products = {number: table[rows].T @ y[rows] for number, rows in folds.items()}
    square, product = sum(squares.values()), sum(products.values())
    penalties = np.diag(np.append(np.full(x.shape[1], penalty), 0.0))  # the constant is not penalised

    def solve_ridge(square: FloatArray, product: FloatArray, count: int) -> FloatArray:
        return np.asarray(solve(square + count * penalties, product, assume_a="pos"), np.float64)

    held_out = np.empty_like(y)
    for number, rows in folds.items():
        rest = int(np.count_nonzero(~rows))
        solution = (
            solve_ridge(square - squares[number], product - products[number], rest) if rest else np.zeros_like(product)
        )
        held_out[rows] = table[rows] @ solution
    solution = solve_ridge(square, product, len(x))
    weights = solution[:-1].T.copy()
    return held_out, weights, np.asarray(solution[-1] - weights @ vectors.mean(axis=0, dtype=np.float64), np.float64)


def platt_scaling(scores: FloatArray, truth: BoolArray) -> tuple[float, float]:
    """Bias and slope (0 or more) of the sigmoid that turns scores (N,) into probabilities (Platt, 1999)."""
    bias, slope = nonnegative_logistic_regression(scores[:, None], truth.astype(float), penalty=SLOPE_PENALTY)
    return float(bias), float(slope)


def nonnegative_logistic_regression(inputs: FloatArray, truth: FloatArray, penalty: float = 1e-3) -> FloatArray:
    """Logistic regression of `truth` (R,), 0 or 1, on `inputs` (R, K) with weights of 0 or more.

    Returns the bias and the weights, (1 + K,). `penalty` is of the squared weights.
    """
    count, width = inputs.shape
    table = np.concatenate([np.ones((count, 1)), inputs], axis=1)

    def loss(w: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = table @ w
        residual = logistic(z) - truth
        value = float(np.mean(np.logaddexp(0, z) - truth * z)) + penalty * float(w[1:] @ w[1:])
        gradient = table.T @ residual / count
        gradient[1:] += 2 * penalty * w[1:]
        return value, gradient

    initial = np.zeros(1 + width)
    initial[0] = float(logit(truth.mean()))
    bounds = [(None, None)] + [(0.0, None)] * width
    return np.asarray(minimize(loss, initial, jac=True, method="L-BFGS-B", bounds=bounds).x, np.float64)


def _embeddings(streams: Sequence[LabelledStream]) -> Iterator[tuple[int, Embedding]]:
    """Every embedding of every sensor, with the index of its tick if all streams are concatenated."""
    for row, present in enumerate(present for ticks, _ in streams for _, present in ticks):
        for embedding in present.values():
            yield row, embedding


def _examples_of(streams: Sequence[LabelledStream], modality: str, truth: BoolArray) -> ModalityExamples:
    """The windows of a modality, without those of faulty sensors. `truth` (T, L) of all ticks."""
    vectors, rows, coverage = [], [], []
    for row, embedding in _embeddings(streams):
        if embedding.modality == modality and not embedding.symptoms:
            vectors.append(embedding.vector)
            rows.append(row)
            coverage.append(embedding.coverage)
    index = np.array(rows, np.intp)
    return ModalityExamples(np.array(vectors, np.float32), index, truth[index], np.array(coverage, np.float64))


def _label_matrix(streams: Sequence[LabelledStream], names: Sequence[str], delay: float, hop: float) -> BoolArray:
    """(T, L): whether a label covers at least half of the `hop` s around the time `delay` s before a tick."""
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
    """Median time between ticks in s; 0.5 if no stream has two ticks."""
    gaps = np.concatenate([np.diff([tick for tick, _ in ticks]) for ticks, _ in streams])
    return float(np.median(gaps)) / SECOND if len(gaps) else 0.5


def _window_length(streams: Sequence[LabelledStream], modality: str) -> float:
    """Median length of a modality's windows in s."""
    lengths = [own.tick - own.start for _, own in _embeddings(streams) if own.modality == modality]
    return float(np.median(lengths)) / SECOND


def _fold_numbers(number: int, count: int, streams: int) -> npt.NDArray[np.intp]:
    """Folds (count,) of the ticks of a stream: one, or several of equal length if there are few streams."""
    if streams >= FOLDS:
        return np.full(count, number % FOLDS)
    return np.arange(count) * FOLDS // max(count, 1)
