"""Novelty: a sense perceives what this stream has not held before, or not for long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector, l2_normalize
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, unfused_modalities
from sensebind.fusion.events.evidence import WARM_UP_BOUNDS, EvidenceOptions, FloatArray, RunningBaseline, pool_scores
from sensebind.fusion.events.scores import timestamp_correction

NOVELTY_LABEL = "unusual"
MIN_DEVIATION = 0.03  # cosine distance: a stream's distances are never taken to spread less


@dataclass(frozen=True, slots=True)
class NoveltyOptions(EvidenceOptions):
    """How novelty is detected. Raises `ConfigError`."""

    threshold: float = parameter(
        4.0, "Distance from the past, above the usual distance, at which the score is 0.5", bounds=(0.0, 20.0), unit="σ"
    )
    habituation: float = parameter(
        4.0,
        "Time after which a new scene is no longer novel. Above `min_duration`, and at most `warm_up`",
        bounds=WARM_UP_BOUNDS,
        unit="s",
    )
    warm_up: float = parameter(
        10.0,
        "Time at the start of a modality's data without novelty. At least `habituation`",
        bounds=WARM_UP_BOUNDS,
        unit="s",
    )
    half_life: float = parameter(
        600.0, "Time after which a remembered scene that was not seen again counts half", bounds=(1.0, 1e6), unit="s"
    )
    max_prototypes: int = parameter(
        48, "Largest number of vectors that represent the past of one modality", bounds=(2, 1024)
    )

    def __post_init__(self) -> None:
        EvidenceOptions.__post_init__(self)  # super() does not work in a class with slots
        if self.habituation > self.warm_up:  # what is usual is learnt between the two
            raise ConfigError(
                f"habituation must be at most warm_up, and {self.habituation:g} s is more than {self.warm_up:g} s"
            )


def nearest_neighbour_distance(
    vector: Vector, prototypes: Vector, prototype_seconds: FloatArray, seconds: float
) -> float:
    """Cosine distance, 0..2, from `vector` (D,) within which the nearest `seconds` of the past lie.

    `prototypes` (K, D) stand for `prototype_seconds` (K,) each. The distance to the k-th nearest neighbour, with k
    counted in seconds: large where the density of the past is small (Loftsgaarden and Quesenberry, 1965; as a
    score of outliers: Ramaswamy, Rastogi and Shim, 2000). Where the past is shorter, the farthest counts.
    """
    gaps = 1.0 - (prototypes @ vector).astype(np.float64)
    order = np.argsort(gaps, kind="stable")
    enough = int(np.searchsorted(np.cumsum(prototype_seconds[order]), seconds - 1e-9))
    return float(gaps[order[min(enough, len(order) - 1)]])


def add_prototype(
    prototypes: Vector, prototype_seconds: FloatArray, vector: Vector, seconds: float, capacity: int
) -> tuple[Vector, FloatArray]:
    """The past (K, D) and its seconds (K,) with one more vector; past `capacity` the two nearest become one.

    Merging the nearest keeps what is rare apart from what is common, however long the common lasts.
    """
    prototypes = np.concatenate((prototypes, vector[None]))
    prototype_seconds = np.append(prototype_seconds, seconds)
    if len(prototype_seconds) <= capacity:
        return prototypes, prototype_seconds
    nearness = prototypes @ prototypes.T
    np.fill_diagonal(nearness, -np.inf)
    a, b = sorted(divmod(int(nearness.argmax()), len(prototype_seconds)))
    prototypes[a] = l2_normalize(
        (prototype_seconds[a] * prototypes[a] + prototype_seconds[b] * prototypes[b])
        / (prototype_seconds[a] + prototype_seconds[b])
    )
    prototype_seconds[a] += prototype_seconds[b]
    return np.delete(prototypes, b, axis=0), np.delete(prototype_seconds, b)


@dataclass(frozen=True, slots=True)
class NoveltyModalityState:
    """What is remembered of one modality: its last window and score, what it perceived, and how far that usually is."""

    start: int
    tick: int
    coverage: float
    score: float
    observed_time: float  # seconds perceived
    prototypes: Vector  # (K, D)
    prototype_seconds: FloatArray  # (K,) seconds
    distance_baseline: RunningBaseline  # of the distance, (1,)
    novel_time: float = 0.0  # seconds for which it has been unusual without a break


NoveltyState = Mapping[str, NoveltyModalityState]


class NoveltyDetector(Detector[NoveltyOptions]):
    """Scores one label, `unusual`, from each sense's distance to its own past."""

    kind = EventKind.NOVELTY
    default_options = NoveltyOptions()

    def has_label(self, label: str) -> bool:
        return label == NOVELTY_LABEL

    def migrate_state(self, old: Detector, state: NoveltyState) -> NoveltyState:
        """The past stays. Of a longer list of prototypes the heaviest are kept."""
        result = {}
        for modality, past in state.items():
            heaviest = np.sort(np.argsort(-past.prototype_seconds, kind="stable")[: self.options.max_prototypes])
            result[modality] = replace(
                past, prototypes=past.prototypes[heaviest], prototype_seconds=past.prototype_seconds[heaviest]
            )
        return result

    def score(
        self, state: NoveltyState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[NoveltyState, dict[str, Score]]:
        """One tick: the new windows' distances are scored, then remembered; all that are not stale are pooled."""
        options = self.options
        modality_states = dict(state)
        for modality in unfused_modalities(embeddings):
            if not embeddings[modality].symptoms:
                modality_states[modality] = self._update_modality(state.get(modality), tick, embeddings[modality])
            elif modality in modality_states:  # what a faulty sensor says is neither believed nor remembered
                modality_states[modality] = replace(modality_states[modality], score=options.prior, coverage=0.0)
        fresh = {
            m: p
            for m, p in sorted(modality_states.items())
            if p.coverage > 0 and tick - p.tick <= options.max_age * SECOND
        }
        weights = {m: options.reliability.get(m, 1.0) * p.coverage for m, p in fresh.items()}
        scores = np.array([p.score for p in fresh.values()]).reshape(len(fresh), 1)
        evidence = tuple(
            Evidence(m, p.score, p.score >= options.support, p.start, p.tick, weight=weights[m])
            for m, p in fresh.items()
        )
        pooled = pool_scores(scores, list(weights.values()), options.prior)
        return modality_states, {NOVELTY_LABEL: Score(float(pooled[0]), evidence, timestamp_correction(evidence))}

    def _update_modality(
        self, past: NoveltyModalityState | None, tick: int, embedding: Embedding
    ) -> NoveltyModalityState:
        options, vector = self.options, embedding.vector
        if past is None or past.prototypes.shape[1] != len(vector):
            first, mass = np.array(vector[None]), np.array([0.5])
            return NoveltyModalityState(
                embedding.start, tick, embedding.coverage, 0.0, 0.5, first, mass, RunningBaseline.empty(1)
            )
        seconds = min((tick - past.tick) / SECOND, 1.0)
        neighbour_distance = np.array(
            [nearest_neighbour_distance(vector, past.prototypes, past.prototype_seconds, options.habituation)]
        )
        level, score = past.distance_baseline, 0.0
        if past.observed_time >= options.warm_up:
            score = float(options.scores_from_deviations(level.z_scores(neighbour_distance, MIN_DEVIATION))[0])
        spell = past.novel_time + seconds if score >= options.life.offset_threshold else 0.0
        # What is new is known after one habituation; what stays far for two is a livelier stream, to be got used to.
        if past.observed_time >= options.habituation and not 0 < spell <= 2 * options.habituation:
            level = level.updated(neighbour_distance, seconds, options.time_constant, MIN_DEVIATION)
        faded = past.prototype_seconds * 0.5 ** ((tick - past.tick) / SECOND / options.half_life)
        prototypes, mass = add_prototype(past.prototypes, faded, vector, seconds, options.max_prototypes)
        age = min(past.observed_time + seconds, 1e6)
        return NoveltyModalityState(
            embedding.start, tick, embedding.coverage, score, age, prototypes, mass, level, spell
        )
