"""Words that were taught: what a named thing looks, sounds and feels like to each sense, learnt from labelled streams.

A sense's vectors need not lie where the vectors of words do: that is the modality gap (Liang et al., "Mind the gap",
2022), and a depth camera's picture of a dog may lie nowhere near "a dog". A linear classifier on the published
vectors, one for each sense and word, bridges it, as linear probes and adapters do for image-text models (Radford et
al., CLIP, 2021; Zhang et al., "Tip-Adapter", 2022). Vectors stay as they are, and words that were not taught are told
by similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Vector
from sensebind.fusion.events.evidence import BoolArray, FloatArray

PHRASE_MATCH_FRACTION = (
    0.75  # of the way from unrelated phrases to the same phrase, from which on a phrase means a word
)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityClassifiers:
    """One sense's classifiers of K words: log likelihood ratio = weights @ vector + biases.

    `weights` float32 (K, D), `biases` float64 (K,), NaN for words that this sense was not taught. A positive ratio
    speaks for the word, a negative one against it.

    What was taught holds for what looks like the lessons. `middle` (D,) and the orthonormal `directions` (R, D) are
    what these were spread along; a vector that leaves more than `reach` of itself outside is of another world.
    """

    weights: Vector
    biases: FloatArray
    middle: Vector
    directions: Vector
    reach: float

    def residual(self, vectors: Vector) -> FloatArray:
        """(…, D) → (…): the length of what lies outside of the lessons' directions (principal component residual)."""
        off = (vectors - self.middle).astype(np.float64)
        inside = off @ self.directions.astype(np.float64).T
        return np.asarray(np.sqrt(np.maximum(np.square(off).sum(-1) - np.square(inside).sum(-1), 0.0)))


@dataclass(frozen=True, slots=True, eq=False)
class PromptClassifiers:
    """K words with P phrases that mean them, float32 unit vectors (P, D), and the senses that were taught them.

    `owners` (P,) is the word of each phrase. A phrase of the user's means the word of the phrase that it is nearest to,
    if their cosine is `near` or more. `ranks`: how much the surest sense counts, the second surest, and so on;
    `prior`: how probable a word is where no sense speaks for or against it.
    """

    names: tuple[str, ...]
    phrases: Vector
    owners: npt.NDArray[np.intp]
    near: float
    modalities: Mapping[str, ModalityClassifiers]
    ranks: tuple[float, ...]
    prior: float

    def match_labels(self, phrases: Vector, groups: npt.NDArray[np.intp]) -> BoolArray:
        """(L, K): the words that each label means. `phrases` (N, D); label l owns those from `groups[l]` on."""
        closeness = phrases @ self.phrases.T
        nearest = closeness.argmax(axis=1)
        known = closeness[np.arange(len(phrases)), nearest] >= self.near
        meant = np.zeros((len(phrases), len(self.names)), bool)
        meant[np.flatnonzero(known), self.owners[nearest[known]]] = True
        return np.asarray(np.logical_or.reduceat(meant, groups, axis=0))

    def log_likelihood_ratios(self, modality: str, vector: Vector, label_classes: BoolArray) -> FloatArray:
        """Log likelihood ratios of labels (L,) for one vector (D,), by their likeliest word.

        NaN for labels that mean none of the words, and for all where the vector is unlike anything in the lessons.
        """
        sense = self.modalities.get(modality)
        if sense is None or sense.residual(vector) > sense.reach:
            return np.full(len(label_classes), np.nan)
        told = (sense.weights @ vector).astype(np.float64) + sense.biases
        known = label_classes & ~np.isnan(told)
        best = np.where(known, told, -np.inf).max(axis=1, initial=-np.inf)
        return np.where(known.any(axis=1), best, np.nan)


def rank_weighted_sum(log_likelihood_ratios: FloatArray, rank_weights: tuple[float, ...]) -> FloatArray:
    """Log likelihood ratios (M, L) of M senses for L labels → what they add up to (L,), each weighted by its rank.

    Ordered weighted averaging (R. Yager, 1988) of evidence: a thing behind the robot is heard and not seen, one that
    keeps still is seen and not heard, so the surest sense must count in full; what more senses say is in part the same
    again. Ranks are those among as many senses as `rank_weights` has at least: one that is not there has no evidence,
    0.
    """
    missing = max(len(rank_weights) - len(log_likelihood_ratios), 0)
    ordered = -np.sort(
        -np.concatenate([log_likelihood_ratios, np.zeros((missing, log_likelihood_ratios.shape[1]))]), axis=0
    )
    weights = np.array([*rank_weights, *[rank_weights[-1]] * (len(ordered) - len(rank_weights))])
    return np.asarray(weights @ ordered, np.float64)


def phrase_match_threshold(phrases: Vector, owners: npt.NDArray[np.intp]) -> float:
    """The cosine from which a phrase means a word: `PHRASE_MATCH_FRACTION` of the way from what is usual between
    phrases of different words to identity. `phrases` (P, D) and `owners` (P,) as in `PromptClassifiers`."""
    others = owners[:, None] != owners[None]
    usual = float(np.median((phrases @ phrases.T)[others])) if others.any() else 0.0
    return usual + PHRASE_MATCH_FRACTION * (1.0 - usual)
