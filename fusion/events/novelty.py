"""Novelty: a sense perceives what this stream has not held before, or not for long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector, unit
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Evidence, Kind, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, modalities
from sensebind.fusion.events.evidence import WARM_UP, Array, Level, WitnessOptions, pool
from sensebind.fusion.events.scores import lead

LABEL = "unusual"
FLOOR = 0.03  # cosine distance: a stream's distances are never taken to spread less


@dataclass(frozen=True, slots=True)
class NoveltyOptions(WitnessOptions):
    """How novelty is detected. Raises `ConfigError`."""

    threshold: float = parameter(
        4.0, "Distance from the past, above the usual distance, at which the score is 0.5", bounds=(0.0, 20.0), unit="σ"
    )
    habituation: float = parameter(
        4.0,
        "Time after which a new scene is no longer novel. Above `min_duration`, and at most `warm_up`",
        bounds=WARM_UP,
        unit="s",
    )
    warm_up: float = parameter(
        10.0, "Time at the start of a modality's data without novelty. At least `habituation`", bounds=WARM_UP, unit="s"
    )
    half_life: float = parameter(
        600.0, "Time after which a remembered scene that was not seen again counts half", bounds=(1.0, 1e6), unit="s"
    )
    max_prototypes: int = parameter(
        48, "Largest number of vectors that represent the past of one modality", bounds=(2, 1024)
    )

    def __post_init__(self) -> None:
        WitnessOptions.__post_init__(self)  # super() does not work in a class with slots
        if self.habituation > self.warm_up:  # what is usual is learnt between the two
            raise ConfigError(
                f"habituation must be at most warm_up, and {self.habituation:g} s is more than {self.warm_up:g} s"
            )


def distance(vector: Vector, prototypes: Vector, mass: Array, seconds: float) -> float:
    """Cosine distance, 0..2, from `vector` (D,) within which the nearest `seconds` of the past lie.

    `prototypes` (K, D) stand for `mass` (K,) seconds each. The distance to the k-th nearest neighbour, with k
    counted in seconds: large where the density of the past is small (Loftsgaarden and Quesenberry, 1965; as a
    score of outliers: Ramaswamy, Rastogi and Shim, 2000). Where the past is shorter, the farthest counts.
    """
    gaps = 1.0 - (prototypes @ vector).astype(np.float64)
    order = np.argsort(gaps, kind="stable")
    enough = int(np.searchsorted(np.cumsum(mass[order]), seconds - 1e-9))
    return float(gaps[order[min(enough, len(order) - 1)]])


def remember(prototypes: Vector, mass: Array, vector: Vector, seconds: float, capacity: int) -> tuple[Vector, Array]:
    """The past (K, D) and its mass (K,) with one more vector; past `capacity` the two nearest become one.

    Merging the nearest keeps what is rare apart from what is common, however long the common lasts.
    """
    prototypes = np.concatenate((prototypes, vector[None]))
    mass = np.append(mass, seconds)
    if len(mass) <= capacity:
        return prototypes, mass
    nearness = prototypes @ prototypes.T
    np.fill_diagonal(nearness, -np.inf)
    a, b = sorted(divmod(int(nearness.argmax()), len(mass)))
    prototypes[a] = unit((mass[a] * prototypes[a] + mass[b] * prototypes[b]) / (mass[a] + mass[b]))
    mass[a] += mass[b]
    return np.delete(prototypes, b, axis=0), np.delete(mass, b)


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one modality: its last window and score, what it perceived, and how far that usually is."""

    start: int
    tick: int
    coverage: float
    score: float
    age: float  # seconds perceived
    prototypes: Vector  # (K, D)
    mass: Array  # (K,) seconds
    level: Level  # of the distance, (1,)
    spell: float = 0.0  # seconds for which it has been unusual without a break


State = Mapping[str, Past]


class NoveltyDetector(Detector[NoveltyOptions]):
    """Scores one label, `unusual`, from each sense's distance to its own past."""

    kind = Kind.NOVELTY
    default_options = NoveltyOptions()

    def knows(self, label: str) -> bool:
        return label == LABEL

    def adopt(self, old: Detector, state: State) -> State:
        """The past stays. Of a longer list of prototypes the heaviest are kept."""
        result = {}
        for modality, past in state.items():
            heaviest = np.sort(np.argsort(-past.mass, kind="stable")[: self.options.max_prototypes])
            result[modality] = replace(past, prototypes=past.prototypes[heaviest], mass=past.mass[heaviest])
        return result

    def score(self, state: State, tick: int, present: Mapping[str, Embedding]) -> tuple[State, dict[str, Score]]:
        """One tick: the new windows' distances are scored, then remembered; all that are not stale are pooled."""
        options = self.options
        pasts = dict(state)
        for modality in modalities(present):
            if not present[modality].symptoms:
                pasts[modality] = self._perceive(state.get(modality), tick, present[modality])
            elif modality in pasts:  # what a faulty sensor says is neither believed nor remembered
                pasts[modality] = replace(pasts[modality], score=options.prior, coverage=0.0)
        fresh = {m: p for m, p in sorted(pasts.items()) if p.coverage > 0 and tick - p.tick <= options.max_age * SECOND}
        weights = {m: options.reliability.get(m, 1.0) * p.coverage for m, p in fresh.items()}
        scores = np.array([p.score for p in fresh.values()]).reshape(len(fresh), 1)
        evidence = tuple(
            Evidence(m, p.score, p.score >= options.support, p.start, p.tick, weight=weights[m])
            for m, p in fresh.items()
        )
        pooled = pool(scores, list(weights.values()), options.prior)
        return pasts, {LABEL: Score(float(pooled[0]), evidence, lead(evidence))}

    def _perceive(self, past: Past | None, tick: int, embedding: Embedding) -> Past:
        options, vector = self.options, embedding.vector
        if past is None or past.prototypes.shape[1] != len(vector):
            first, mass = np.array(vector[None]), np.array([0.5])
            return Past(embedding.start, tick, embedding.coverage, 0.0, 0.5, first, mass, Level.blank(1))
        seconds = min((tick - past.tick) / SECOND, 1.0)
        far = np.array([distance(vector, past.prototypes, past.mass, options.habituation)])
        level, score = past.level, 0.0
        if past.age >= options.warm_up:
            score = float(options.scores(level.deviations(far, FLOOR))[0])
        spell = past.spell + seconds if score >= options.life.offset_threshold else 0.0
        # What is new is known after one habituation; what stays far for two is a livelier stream, to be got used to.
        if past.age >= options.habituation and not 0 < spell <= 2 * options.habituation:
            level = level.follow(far, seconds, options.time_constant, FLOOR)
        faded = past.mass * 0.5 ** ((tick - past.tick) / SECOND / options.half_life)
        prototypes, mass = remember(past.prototypes, faded, vector, seconds, options.max_prototypes)
        age = min(past.age + seconds, 1e6)
        return Past(embedding.start, tick, embedding.coverage, score, age, prototypes, mass, level, spell)
