"""Names proposals: how well each label explains an interval, from the similarities of all its windows.

The similarities of windows are pooled over the interval. A label explains it if its pooled similarity is high and
neither another label nor a related common sound has a higher one. So an interval with another sound gets no wrong name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, Vector, l2_normalize
from sensebind.fusion.core.samples import AUDIO
from sensebind.fusion.events.evidence import BoolArray, FloatArray, logistic
from sensebind.fusion.events.proposals.intervals import ProposalState

# Common sounds. Those that are related to a label compete with it for a sound.
COMPETING_SOUNDS = (
    "speech", "a man speaking", "a woman speaking", "a child speaking", "laughter", "crying", "a baby crying",
    "shouting", "screaming", "whispering", "singing", "a choir", "humming", "snoring", "a cough", "a sneeze",
    "breathing", "clearing the throat", "sniffing", "footsteps", "running", "chewing", "applause", "cheering",
    "a crowd", "clapping", "whistling", "a dog barking", "a dog growling", "a cat meowing", "purring", "a horse",
    "a cow mooing", "a pig", "a sheep bleating", "a goat", "a chicken clucking", "a rooster crowing",
    "a duck quacking", "birds singing", "a crow", "an owl hooting", "a pigeon", "insects", "crickets", "a bee buzzing",
    "a mosquito", "a frog croaking", "a snake hissing", "a lion roaring", "music", "a guitar", "a piano", "a violin",
    "drums", "a trumpet", "a flute", "an organ", "a harmonica", "a bell", "a church bell", "a doorbell",
    "a bicycle bell", "wind chimes", "wind", "rustling leaves", "thunder", "rain", "dripping water", "a stream",
    "ocean waves", "a waterfall", "fire crackling", "a boat", "a car passing", "a car horn", "car brakes screeching",
    "a truck", "a bus", "an engine starting", "an idling engine", "a motorcycle", "a train", "a train horn",
    "an aeroplane", "a jet engine", "a helicopter", "a propeller", "a bicycle", "a siren", "an ambulance siren",
    "a police siren", "a door opening", "a door slam", "knocking", "a drawer closing", "dishes clattering", "cutlery",
    "frying food", "a microwave oven", "a blender", "a tap running", "a toilet flush", "a vacuum cleaner",
    "a hair dryer", "an electric shaver", "a washing machine", "a telephone ringing", "a busy signal",
    "an alarm clock", "a smoke alarm", "beeping", "a clock ticking", "a mechanical click", "a camera shutter",
    "typing on a keyboard", "a printer", "a sewing machine", "a fan", "air conditioning", "a cash register",
    "keys jingling", "coins", "paper rustling", "tearing paper", "scissors", "writing", "a zipper", "a hammer",
    "a saw", "a chainsaw", "a drill", "a jackhammer", "filing", "sanding", "power tools", "an explosion", "a gunshot",
    "fireworks", "glass breaking", "a crash", "a thud", "something falling", "a splash", "boiling water",
    "pouring water", "steam hissing", "squeaking", "scraping", "a hum", "white noise", "static", "silence", "echo",
    "a buzzer", "a radio", "a television",
)  # fmt: skip
COMPETING_PHRASES: Mapping[str, Sequence[str]] = {AUDIO: COMPETING_SOUNDS}
# Of the way from the median cosine of two phrases to 1: phrases that are nearer than the second mean nearly the same,
# those between are related, as "a helicopter" to "an aeroplane". An encoder that finds a related sound more similar
# distinguishes the two. One that finds an unrelated sound more similar was confused by noise: that says little.
RELATED_PHRASE_FRACTION, SIMILAR_PHRASE_FRACTION = 0.15, 0.5
PRIOR_WINDOWS = 0.15  # windows of similarity 0 that are added: an interval of a short time has less evidence
MIN_OVERLAP = 0.1  # of a window with the interval; a window with less is not pooled
MIN_ACTIVE_FRACTION = 0.1  # of the new frames; a pause in an interval counts at least this much
INTERVAL_TIME_CONSTANT = 5.0  # s after which the similarities of an interval are forgotten: its cause may change
STEADY_TIME_CONSTANT = 10.0  # s of the running mean of similarities, for what lasts and has no onset
MIN_STEADY_TIME = 2.0  # s; with less observed, nothing is steady
# Added to the log-odds of what is there all the time. It has no onset, so only its similarity distinguishes it from the
# robot's own noise and from wind, and the curve is fitted on intervals: the odds of a label are taken 25 times lower.
STEADY_LOG_ODDS = -3.2


@dataclass(frozen=True, slots=True)
class NamingCurve:
    """The probability that a label explains an interval: 1 / (1 + exp(−(`similarity_weight`·c + `margin_weight`·m +
    `bias`))).

    c is the pooled similarity of the label, m ≤ 0 how far that of the best competing phrase is above it (Platt 1999, as
    `ModalityCalibration`). `source` names the data that the curve was fitted on. `dimensions` (first, end): the part of
    the vectors that is compared. A similarity is the dot product of this part of a window's vector, and of this part of
    a phrase's vector scaled to unit length. None: whole vectors, so cosines.
    """

    similarity_weight: float
    margin_weight: float
    bias: float
    source: str
    dimensions: tuple[int, int] | None = None

    def probabilities(self, similarities: FloatArray, margins: FloatArray, log_odds: float = 0.0) -> FloatArray:
        """Convert pooled similarities (L,) and margins (L,) to probabilities (L,). `log_odds` is added."""
        bias = self.bias + log_odds
        return logistic(self.similarity_weight * similarities + self.margin_weight * np.minimum(margins, 0.0) + bias)


@dataclass(frozen=True, slots=True)
class PooledSimilarities:
    """Sums over windows, each with a weight: of the similarities of the labels (L,) and of competing phrases (C,)."""

    labels: FloatArray
    competing: FloatArray
    weight: float = 0.0

    @classmethod
    def empty(cls, labels: int, competing: int) -> PooledSimilarities:
        return cls(np.zeros(labels), np.zeros(competing))

    def added(self, labels: FloatArray, competing: FloatArray, weight: float) -> PooledSimilarities:
        """Return the sums with one more window."""
        return PooledSimilarities(
            self.labels + weight * labels, self.competing + weight * competing, self.weight + weight
        )

    def means(self, prior_windows: float) -> tuple[FloatArray, FloatArray]:
        """Return the weighted means of the labels (L,) and of the competing phrases (C,), with `prior_windows` windows
        of similarity 0. The weights must not all be 0."""
        weight = self.weight + prior_windows
        return self.labels / weight, self.competing / weight

    def decayed(self, factor: float) -> PooledSimilarities:
        """Return the sums times a factor of 0 to 1."""
        return PooledSimilarities(self.labels * factor, self.competing * factor, self.weight * factor)


@dataclass(frozen=True, slots=True)
class Competition:
    """Which phrases compete with each label: other labels (L, L), and competing phrases (L, C)."""

    between_labels: BoolArray
    with_phrases: BoolArray

    @classmethod
    def of(cls, phrases: Vector, label_starts: npt.NDArray[np.intp], competing: Vector) -> Competition:
        """From the unit vectors of the labels' phrases (N, D), those of label l from `label_starts[l]` on, and of the
        competing phrases (C, D). Phrases that mean nearly the same do not compete; of the competing phrases only those
        that are related to a label compete with it."""
        between = competing @ competing.T
        usual = float(np.median(between)) if between.size else 0.0
        related, limit = (usual + f * (1.0 - usual) for f in (RELATED_PHRASE_FRACTION, SIMILAR_PHRASE_FRACTION))
        nearest = np.maximum.reduceat(phrases @ competing.T, label_starts, axis=0)
        own = np.maximum.reduceat(phrases @ phrases.T, label_starts, axis=0)
        own = np.maximum.reduceat(own, label_starts, axis=1)
        return cls(own < limit, (nearest >= related) & (nearest < limit))

    def margins(self, labels: FloatArray, competing: FloatArray) -> FloatArray:
        """Return each label's similarity (L,) minus that of the best phrase that competes with it, (L,)."""
        best = np.where(self.with_phrases, competing, -np.inf).max(axis=1, initial=-np.inf)
        best = np.maximum(best, np.where(self.between_labels, labels, -np.inf).max(axis=1, initial=-np.inf))
        return np.asarray(np.where(np.isfinite(best), labels - best, 0.0))


@dataclass(frozen=True, slots=True)
class NamingState:
    """The pooled similarities of the newest proposal, which began at `interval_start` (ns; None: no proposal yet), and
    of the time without an open one, which are forgotten with `STEADY_TIME_CONSTANT`; `steady_time` (s) was observed."""

    interval: PooledSimilarities
    steady: PooledSimilarities
    interval_start: int | None = None
    steady_time: float = 0.0


def updated_naming(
    state: NamingState,
    proposals: ProposalState,
    window: tuple[int, int],
    labels: FloatArray,
    competing: FloatArray,
    seconds: float,
) -> NamingState:
    """Return the state after one window [start, tick) in ns with the similarities `labels` (L,) and `competing` (C,),
    which came `seconds` after the one before. `proposals`: those of the modality after this window.

    Its weight is the fraction of it that is in the interval times the fraction of its new frames that are active.
    """
    start, tick = window
    proposal = proposals.proposal
    if proposal is None or not proposal.is_open:
        steady = state.steady.decayed(float(np.exp(-seconds / STEADY_TIME_CONSTANT))).added(labels, competing, seconds)
        steady_time = min(state.steady_time + seconds, STEADY_TIME_CONSTANT)
        return NamingState(state.interval, steady, state.interval_start, steady_time)
    interval = state.interval
    if state.interval_start != proposal.start:
        interval = PooledSimilarities.empty(len(labels), len(competing))
    overlap = (min(proposal.end, tick) - max(proposal.start, start)) / max(tick - start, 1)
    if overlap > MIN_OVERLAP:
        weight = overlap * max(proposals.active_fraction, MIN_ACTIVE_FRACTION)
        interval = interval.decayed(float(np.exp(-seconds / INTERVAL_TIME_CONSTANT))).added(labels, competing, weight)
    return NamingState(interval, state.steady, proposal.start, state.steady_time)


def steady_scores(naming: NamingState, competition: Competition, curve: NamingCurve) -> FloatArray:
    """Return the probability that each label is there all the time, (L,)."""
    if naming.steady_time < MIN_STEADY_TIME:
        return np.zeros(len(naming.steady.labels))
    return naming_scores(naming.steady, competition, curve, 0.0, STEADY_LOG_ODDS)


def naming_scores(
    pooled: PooledSimilarities,
    competition: Competition,
    curve: NamingCurve,
    prior_windows: float,
    log_odds: float = 0.0,
) -> FloatArray:
    """Return the probability that each label explains what was pooled, (L,). `log_odds` is added."""
    if not pooled.weight + prior_windows:
        return np.zeros(len(pooled.labels))
    labels, competing = pooled.means(prior_windows)
    return curve.probabilities(labels, competition.margins(labels, competing), log_odds)


def best_similarities(
    vector: Vector,
    phrases: Vector,
    label_starts: npt.NDArray[np.intp],
    recognisable: BoolArray | None = None,
) -> FloatArray:
    """Return the dot product of `vector` (D,) and the best phrase of each label, (L,).

    `phrases` (N, D); those of label l begin at `label_starts[l]`. `recognisable` (N,): the phrases that count; at least
    one of each label. None: all.
    """
    products = phrases @ vector
    if recognisable is not None:
        products = np.where(recognisable, products, -np.inf)
    return np.asarray(np.maximum.reduceat(products, label_starts))


@dataclass(frozen=True, slots=True)
class IntervalNamer:
    """Names the intervals of one modality.

    `phrases` (N, D) are the unit vectors of the phrases of L labels, those of label l from `label_starts[l]` on, and
    `recognisable` (N,) those that count (None: all). `competing` (C, D) are the competing phrases, and `competition` is
    what competes with each label. `dimensions`: see `NamingCurve`.
    """

    phrases: Vector
    label_starts: npt.NDArray[np.intp]
    recognisable: BoolArray | None
    competing: Vector
    competition: Competition
    dimensions: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        phrases: Vector,
        label_starts: npt.NDArray[np.intp],
        recognisable: BoolArray | None,
        competing: Vector,
    ) -> IntervalNamer:
        """The arguments are those of the class."""
        return cls(phrases, label_starts, recognisable, competing, Competition.of(phrases, label_starts, competing))

    def within(self, dimensions: tuple[int, int]) -> IntervalNamer:
        """Return one that compares these dimensions of whole vectors. What competes stays the same: whole vectors say
        what is related."""
        part = slice(*dimensions)
        phrases, competing = (l2_normalize(vectors[:, part]) for vectors in (self.phrases, self.competing))
        return replace(self, phrases=phrases, competing=competing, dimensions=dimensions)

    def updated(
        self, state: NamingState | None, proposals: ProposalState, embedding: Embedding, seconds: float
    ) -> NamingState:
        """Return the state after a window, `seconds` after the one before. `state` None: it is the first window."""
        vector = embedding.vector if self.dimensions is None else embedding.vector[slice(*self.dimensions)]
        labels = np.asarray(best_similarities(vector, self.phrases, self.label_starts, self.recognisable), np.float64)
        competing = np.asarray(self.competing @ vector, np.float64)
        if state is None:
            empty = PooledSimilarities.empty(len(labels), len(competing))
            state = NamingState(empty, empty)
        return updated_naming(state, proposals, (embedding.start, embedding.tick), labels, competing, seconds)

    def scores(
        self, proposals: ProposalState, naming: NamingState, curve: NamingCurve, max_score_in_pause: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """Return the scores of the labels (L,), and which of them are of the open interval, (L,): the others are those
        of what is steady.

        While no new frame is active, the interval pauses, and scores are limited to `max_score_in_pause` (L,): the
        event goes on, but its cause is not present at this tick.
        """
        steady = steady_scores(naming, self.competition, curve)
        current = proposals.current
        if current is None or naming.interval_start != current.start:
            return steady, np.zeros(len(steady), bool)
        of_interval = naming_scores(naming.interval, self.competition, curve, PRIOR_WINDOWS)
        if proposals.active_fraction == 0:
            of_interval = np.minimum(of_interval, max_score_in_pause)
        return np.maximum(steady, of_interval), of_interval >= steady
