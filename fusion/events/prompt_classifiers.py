"""Trained prompt classifiers: linear probes on the vectors of each modality, trained on labelled streams.

The vectors of a modality may be far from those of words. This is the modality gap (Liang et al., "Mind the gap", 2022):
the depth image of a dog may be dissimilar to "a dog". A linear classifier on the published vectors, one for each
modality and class, bridges the gap, as linear probes and adapters do for image-text models (Radford et al., CLIP, 2021;
Zhang et al., "Tip-Adapter", 2022). The vectors do not change. Labels without a classifier are scored by similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Vector
from sensebind.fusion.events.evidence import BoolArray, FloatArray

# Of the way from the median cosine of phrases of different classes to 1: the smallest cosine of a match.
PHRASE_MATCH_FRACTION = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class ModalityClassifiers:
    """The classifiers of one modality for K classes: log likelihood ratio = weights @ vector + biases.

    `weights` float32 (K, D). `biases` float64 (K,), NaN for classes without a classifier. A positive ratio is evidence
    for the class, a negative one against it.

    The classifiers are valid for vectors like the training vectors. `middle` (D,) is the mean of these, and the rows of
    `directions` (R, D) are their principal directions, orthonormal. A vector whose out-of-distribution residual is
    above `residual_threshold` is not classified.
    """

    weights: Vector
    biases: FloatArray
    mean: Vector
    principal_directions: Vector
    residual_threshold: float

    def trained_classes(self) -> BoolArray:
        """Return which classes (K,) have a classifier that depends on the vector. That of another class has weights of
        0: the modality had too few training examples, or cannot separate the class."""
        return np.asarray(self.weights.any(axis=1) & ~np.isnan(self.biases))

    def residual(self, vectors: Vector) -> FloatArray:
        """Return the out-of-distribution residuals (…) of vectors (…, D).

        This is the length of the part of a vector that is orthogonal to the principal directions of the training
        vectors (principal component residual).
        """
        offsets = (vectors - self.mean).astype(np.float64)
        inside = offsets @ self.principal_directions.astype(np.float64).T
        return np.asarray(np.sqrt(np.maximum(np.square(offsets).sum(-1) - np.square(inside).sum(-1), 0.0)))


@dataclass(frozen=True, slots=True, eq=False)
class PromptClassifiers:
    """The classifiers of K classes, with P phrases that describe the classes, float32 unit vectors (P, D).

    `owners` (P,) is the class of each phrase. A phrase of a prompt belongs to the class of the nearest of these
    phrases, if their cosine is at least `near`. `ranks` are the weights of the highest ratio of all modalities, of the
    second highest, and so on. `prior` is the probability of a class without evidence. A classifier of a modality gives
    it the competence 1 for its labels, unless it is in `limited_modalities` (`core.space.Space.limits_classifiers`).
    """

    class_names: tuple[str, ...]
    phrase_vectors: Vector
    phrase_classes: npt.NDArray[np.intp]
    min_similarity: float
    modalities: Mapping[str, ModalityClassifiers]
    rank_weights: tuple[float, ...]
    prior: float
    limited_modalities: frozenset[str] = frozenset()

    def match_labels(self, phrases: Vector, label_starts: npt.NDArray[np.intp]) -> BoolArray:
        """Return the classes of each label, (L, K).

        `phrases` (N, D) are the phrases of all labels: those of label l begin at `label_starts[l]`.
        """
        similarities = phrases @ self.phrase_vectors.T
        nearest = similarities.argmax(axis=1)
        known = similarities[np.arange(len(phrases)), nearest] >= self.min_similarity
        phrase_matches = np.zeros((len(phrases), len(self.class_names)), bool)
        phrase_matches[np.flatnonzero(known), self.phrase_classes[nearest[known]]] = True
        return np.asarray(np.logical_or.reduceat(phrase_matches, label_starts, axis=0))

    def log_likelihood_ratios(self, modality: str, vector: Vector, label_classes: BoolArray) -> FloatArray:
        """Return the log likelihood ratio of each label, (L,), for one vector (D,): that of its most likely class.

        `label_classes` (L, K), for L labels and K classes, is from `match_labels`. NaN for labels without a classifier,
        and for all labels if the modality has no classifiers or the vector is out of distribution.
        """
        classifiers = self.modalities.get(modality)
        if classifiers is None or classifiers.residual(vector) > classifiers.residual_threshold:
            return np.full(len(label_classes), np.nan)
        ratios = (classifiers.weights @ vector).astype(np.float64) + classifiers.biases
        known = label_classes & ~np.isnan(ratios)
        best = np.where(known, ratios, -np.inf).max(axis=1, initial=-np.inf)
        return np.where(known.any(axis=1), best, np.nan)


def rank_weighted_sum(log_likelihood_ratios: FloatArray, rank_weights: tuple[float, ...]) -> FloatArray:
    """Return the sums (L,) of log likelihood ratios (M, L) of M modalities for L labels, each weighted by its rank.

    Ordered weighted averaging (R. Yager, 1988) of evidence. An object behind the robot may be in the audio alone, and
    one that keeps still in the image alone. So the strongest evidence must count in full, whichever modality it comes
    from; that of further modalities is partly redundant. If M is less than the number of `rank_weights`, the missing
    modalities have the ratio 0. If M is more, the last weight is used for the further ranks.
    """
    missing = max(len(rank_weights) - len(log_likelihood_ratios), 0)
    ordered = -np.sort(
        -np.concatenate([log_likelihood_ratios, np.zeros((missing, log_likelihood_ratios.shape[1]))]), axis=0
    )
    weights = np.array([*rank_weights, *[rank_weights[-1]] * (len(ordered) - len(rank_weights))])
    return np.asarray(weights @ ordered, np.float64)


def phrase_match_threshold(phrases: Vector, owners: npt.NDArray[np.intp]) -> float:
    """Return the smallest cosine at which a phrase belongs to a class.

    It is `PHRASE_MATCH_FRACTION` of the way from the median cosine of phrases of different classes to 1. `phrases`
    (P, D) and `owners` (P,) as in `PromptClassifiers`.
    """
    different = owners[:, None] != owners[None]
    median = float(np.median((phrases @ phrases.T)[different])) if different.any() else 0.0
    return median + PHRASE_MATCH_FRACTION * (1.0 - median)
