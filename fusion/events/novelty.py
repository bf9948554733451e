"""Novelty: a window is unusually far from the past of its sensor in this stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector, l2_normalize
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, unfused_sensors
from sensebind.fusion.events.evidence import (
    WARM_UP_BOUNDS,
    EvidenceOptions,
    FloatArray,
    RunningBaseline,
    best_of_modality,
    pool_scores,
)
from sensebind.fusion.events.scores import timestamp_correction

NOVELTY_LABEL = "unusual"
MIN_DEVIATION = 0.03  # cosine distance; lower limit of the running deviation of distances


@dataclass(frozen=True, slots=True)
class NoveltyOptions(EvidenceOptions):
    """Options of the novelty detector. Raises `ConfigError`."""

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
        "Time at the start of a sensor's data without novelty. At least `habituation`",
        bounds=WARM_UP_BOUNDS,
        unit="s",
    )
    half_life: float = parameter(
        600.0, "Time after which a remembered scene that was not seen again counts half", bounds=(1.0, 1e6), unit="s"
    )
    max_prototypes: int = parameter(
        48, "Largest number of vectors that represent the past of one sensor", bounds=(2, 1024)
    )

    def __post_init__(self) -> None:
        EvidenceOptions.__post_init__(self)  # super() does not work in a class with slots
        if self.habituation > self.warm_up:  # the baseline is learned between the two
            raise ConfigError(
                f"habituation must be at most warm_up, and {self.habituation:g} s is more than {self.warm_up:g} s"
            )


def nearest_neighbour_distance(
    vector: Vector, prototypes: Vector, prototype_seconds: FloatArray, seconds: float
) -> float:
    """Return the cosine distance, 0..2, from `vector` (D,) within which the nearest `seconds` of the past lie.

    `prototypes` (K, D) stand for `prototype_seconds` (K,) each. This is the distance to the k-th nearest neighbour,
    with k in seconds. It is large if the density of the past is small (Loftsgaarden and Quesenberry, 1965; as a score
    of outliers: Ramaswamy, Rastogi and Shim, 2000). If the past is shorter than `seconds`, it is the largest distance.
    """
    distances = 1.0 - (prototypes @ vector).astype(np.float64)
    order = np.argsort(distances, kind="stable")
    enough = int(np.searchsorted(np.cumsum(prototype_seconds[order]), seconds - 1e-9))
    return float(distances[order[min(enough, len(order) - 1)]])


def add_prototype(
    prototypes: Sequence[Vector], prototype_seconds: FloatArray, vector: Vector, seconds: float, capacity: int
) -> tuple[tuple[Vector, ...], FloatArray]:
    """Return the past, K vectors (D,), and its seconds (K,) with one more vector. Above `capacity`, the two nearest are
    merged.

    So rare vectors stay apart from common ones, however long the common ones last. The other vectors are the same
    objects as before: a state is kept for each of hundreds of ticks, and a copy of the past in each takes 200 MB.
    """
    found = [*prototypes, vector]
    prototype_seconds = np.append(prototype_seconds, seconds)
    if len(found) <= capacity:
        return tuple(found), prototype_seconds
    past = np.stack(found)
    similarities = past @ past.T
    np.fill_diagonal(similarities, -np.inf)
    a, b = sorted(divmod(int(similarities.argmax()), len(found)))
    found[a] = l2_normalize(
        (prototype_seconds[a] * past[a] + prototype_seconds[b] * past[b])
        / (prototype_seconds[a] + prototype_seconds[b])
    )
    prototype_seconds[a] += prototype_seconds[b]
    del found[b]
    return tuple(found), np.delete(prototype_seconds, b)


@dataclass(frozen=True, slots=True)
class NoveltySensorState:
    """The state of one sensor: its modality, its last window and score, its past, and the baseline of its distances."""

    modality: str
    start: int
    tick: int
    coverage: float
    score: float
    observed_time: float  # s
    prototypes: tuple[Vector, ...]  # K of (D,)
    prototype_seconds: FloatArray  # (K,) s
    distance_baseline: RunningBaseline  # of the distances, (1,)
    novel_time: float = 0.0  # s for which the score has stayed at `offset_threshold` or above


NoveltyState = Mapping[str, NoveltySensorState]


class NoveltyDetector(Detector[NoveltyOptions]):
    """Scores the label `unusual` by the distance of each sensor from its own past: in each modality that of the sensor
    with the highest score."""

    kind = EventKind.NOVELTY
    default_options = NoveltyOptions()

    def has_label(self, label: str) -> bool:
        return label == NOVELTY_LABEL

    def migrate_state(self, old: Detector, state: NoveltyState) -> NoveltyState:
        """Keep the past. If it has more than `max_prototypes`, keep those that stand for the most seconds."""
        result = {}
        for sensor, old_state in state.items():
            kept = np.sort(np.argsort(-old_state.prototype_seconds, kind="stable")[: self.options.max_prototypes])
            result[sensor] = replace(
                old_state,
                prototypes=tuple(old_state.prototypes[i] for i in kept),
                prototype_seconds=old_state.prototype_seconds[kept],
            )
        return result

    def score(
        self, state: NoveltyState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[NoveltyState, dict[str, Score]]:
        """Score the windows of one tick and add them to the past. Pool the scores that are not older than `max_age`."""
        options = self.options
        sensor_states = dict(state)
        for sensor in unfused_sensors(embeddings):
            if not embeddings[sensor].symptoms:
                sensor_states[sensor] = self._update_sensor(state.get(sensor), tick, embeddings[sensor])
            elif sensor in sensor_states:  # data of a faulty sensor are not used
                sensor_states[sensor] = replace(sensor_states[sensor], score=options.prior, coverage=0.0)
        fresh = {
            sensor: s
            for sensor, s in sorted(sensor_states.items())
            if s.coverage > 0 and tick - s.tick <= options.max_age * SECOND
        }
        scores = np.array([s.score for s in fresh.values()]).reshape(len(fresh), 1)
        counts = best_of_modality([s.modality for s in fresh.values()], scores)[:, 0]
        weights = [
            options.reliability.get(s.modality, 1.0) * s.coverage * bool(own)
            for s, own in zip(fresh.values(), counts, strict=True)
        ]
        evidence = tuple(
            Evidence(s.modality, s.score, s.score >= options.support, s.start, s.tick, weight=weight, sensor=sensor)
            for (sensor, s), weight in zip(fresh.items(), weights, strict=True)
        )
        pooled = pool_scores(scores, weights, options.prior)
        return sensor_states, {NOVELTY_LABEL: Score(float(pooled[0]), evidence, timestamp_correction(evidence))}

    def _update_sensor(self, state: NoveltySensorState | None, tick: int, embedding: Embedding) -> NoveltySensorState:
        options, vector = self.options, embedding.vector
        if state is None or len(state.prototypes[0]) != len(vector):
            return NoveltySensorState(
                embedding.modality,
                embedding.start,
                tick,
                embedding.coverage,
                0.0,
                0.5,
                (vector,),
                np.array([0.5]),
                RunningBaseline.empty(1),
            )
        seconds = min((tick - state.tick) / SECOND, 1.0)
        distance = np.array(
            [
                nearest_neighbour_distance(
                    vector, np.stack(state.prototypes), state.prototype_seconds, options.habituation
                )
            ]
        )
        baseline, score = state.distance_baseline, 0.0
        if state.observed_time >= options.warm_up:
            score = float(options.scores_from_deviations(baseline.z_scores(distance, MIN_DEVIATION))[0])
        novel_time = state.novel_time + seconds if score >= options.lifecycle.offset_threshold else 0.0
        # A new scene is part of the past after `habituation`. If scores stay high for twice that time, the stream has
        # become more variable, and the baseline adapts.
        if state.observed_time >= options.habituation and not 0 < novel_time <= 2 * options.habituation:
            baseline = baseline.updated(distance, seconds, options.time_constant, MIN_DEVIATION)
        faded = state.prototype_seconds * 0.5 ** ((tick - state.tick) / SECOND / options.half_life)
        prototypes, prototype_seconds = add_prototype(state.prototypes, faded, vector, seconds, options.max_prototypes)
        return NoveltySensorState(
            embedding.modality,
            embedding.start,
            tick,
            embedding.coverage,
            score,
            min(state.observed_time + seconds, 1e6),
            prototypes,
            prototype_seconds,
            baseline,
            novel_time,
        )
