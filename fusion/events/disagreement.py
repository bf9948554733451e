"""Disagreement: the similarity of two modalities falls below its baseline, for example if one changes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, healthy_sensors
from sensebind.fusion.events.evidence import (
    WARM_UP_BOUNDS,
    EvidenceOptions,
    RunningBaseline,
    distance_from_mean,
    pool_scores,
)
from sensebind.fusion.events.scores import timestamp_correction

MIN_DEVIATION = 0.03  # cosine; lower limit of running deviations


@dataclass(frozen=True, slots=True)
class DisagreementOptions(EvidenceOptions):
    """Options of the disagreement detector. Raises `ConfigError`.

    `pairs`: the pairs of modalities to compare, each in any order; empty: all pairs.
    """

    threshold: float = parameter(
        4.0, "Fall of a pair's similarity below its usual value at which the score is 0.5", bounds=(0.0, 20.0), unit="σ"
    )
    pairs: tuple[tuple[str, str], ...] = ()
    warm_up: float = parameter(
        10.0,
        "Time at the start of a pair's data without disagreement. At most `time_constant`",
        bounds=WARM_UP_BOUNDS,
        unit="s",
    )
    max_age: float = parameter(
        1.0,
        "Age up to which a sensor's last window is compared with others",
        bounds=(0.05, 3600.0),
        unit="s",
        formerly="staleness",
    )

    def __post_init__(self) -> None:
        EvidenceOptions.__post_init__(self)  # super() does not work in a class with slots
        if self.warm_up > self.time_constant:  # the observed time of a baseline is at most `time_constant`
            raise ConfigError(
                f"warm_up must be at most time_constant, and {self.warm_up:g} s is more than {self.time_constant:g} s"
            )
        for pair in self.pairs:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ConfigError(f"pairs must name two different modalities each, not {pair!r}")


def pair_label(a: str, b: str) -> str:
    """Return the label of a pair, the same in either order: ``audio+vision``."""
    return "+".join(sorted((a, b)))


@dataclass(frozen=True, slots=True)
class DisagreementSensorState:
    """The state of one sensor: its modality, its last window, its mean vector, and the baseline of its distance from
    this mean."""

    modality: str
    start: int
    tick: int
    coverage: float
    vector: Vector  # (D,)
    mean_vector: Vector  # (D,), not of unit length
    distance_baseline: RunningBaseline  # of the cosine distance from `mean_vector`, (1,)
    score: float  # 0..1, of the current distance
    faulty: bool = False  # a later window has a symptom


@dataclass(frozen=True, slots=True)
class DisagreementState:
    sensor_states: Mapping[str, DisagreementSensorState]
    # Two sensors → tick of the last update, baseline of their cosine, (1,).
    pairs: Mapping[tuple[str, str], tuple[int, RunningBaseline]]


class DisagreementDetector(Detector[DisagreementOptions]):
    """Scores each pair of modalities by how far their cosine has fallen below its baseline.

    In a joint space, two modalities have similar vectors for one object. If the scene changes for both, the cosine
    stays about the same; if one changes alone, it falls. The baseline is the pair's own recent past, so the usual
    cosine may be low. In the evidence, the sensor that left its own past supports the event. If a modality has several
    sensors, each is compared with those of other modalities, and the pair of sensors with the highest score counts.
    """

    kind = EventKind.DISAGREEMENT
    default_options = DisagreementOptions()

    def __init__(self, options: DisagreementOptions | None = None) -> None:
        super().__init__(options)
        self.labels = {pair_label(*pair) for pair in self.options.pairs}

    def has_label(self, label: str) -> bool:
        return not self.labels or label in self.labels

    def initial_state(self) -> DisagreementState:
        return DisagreementState({}, {})

    def migrate_state(self, old: Detector, state: DisagreementState) -> DisagreementState:
        modality = {sensor: own.modality for sensor, own in state.sensor_states.items()}
        kept = {
            (a, b): pair for (a, b), pair in state.pairs.items() if self.has_label(pair_label(modality[a], modality[b]))
        }
        return DisagreementState(state.sensor_states, kept)

    def score(
        self, state: DisagreementState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[DisagreementState, dict[str, Score]]:
        """Score the pairs of windows not older than `max_age`. Update the baselines of pairs with a new window."""
        options = self.options
        sensor_states = dict(state.sensor_states)
        arrived = healthy_sensors(embeddings)
        for sensor in set(sensor_states) & {name for name, e in embeddings.items() if e.symptoms}:
            sensor_states[sensor] = replace(sensor_states[sensor], faulty=True)
        for sensor in arrived:
            sensor_states[sensor] = self._update_sensor(sensor_states.get(sensor), tick, embeddings[sensor])
        oldest = tick - options.max_age * SECOND
        fresh = [s for s in sorted(sensor_states) if sensor_states[s].tick >= oldest and not sensor_states[s].faulty]
        pairs, scores = dict(state.pairs), dict[str, Score]()
        for a, b in combinations(fresh, 2):
            of_a, of_b = sensor_states[a], sensor_states[b]
            label = pair_label(of_a.modality, of_b.modality)
            is_compared = of_a.modality != of_b.modality and of_a.vector.shape == of_b.vector.shape
            if not is_compared or not self.has_label(label):
                continue
            last, baseline = pairs.get((a, b), (tick - SECOND // 2, RunningBaseline.empty(1)))
            similarity = np.array([float(of_a.vector @ of_b.vector)])
            pair_score = 0.0
            if baseline.observed_time[0] >= options.warm_up:
                pair_score = float(options.scores_from_deviations(-baseline.z_scores(similarity, MIN_DEVIATION))[0])
            weight = min(options.reliability.get(own.modality, 1.0) * own.coverage for own in (of_a, of_b))
            score = float(pool_scores([[pair_score]], [weight], options.prior)[0])
            if label not in scores or score > scores[label].score:
                evidence = tuple(
                    Evidence(
                        s.modality, s.score, s.score >= options.support, s.start, s.tick, weight=weight, sensor=name
                    )
                    for name, s in ((a, of_a), (b, of_b))
                )
                scores[label] = Score(score, evidence, timestamp_correction(evidence))
            if a in arrived or b in arrived:
                seconds = min((tick - last) / SECOND, 1.0)
                pairs[a, b] = tick, baseline.updated(similarity, seconds, options.time_constant, MIN_DEVIATION)
        return DisagreementState(sensor_states, pairs), scores

    def _update_sensor(
        self, state: DisagreementSensorState | None, tick: int, embedding: Embedding
    ) -> DisagreementSensorState:
        options, vector = self.options, embedding.vector
        if state is None or state.vector.shape != vector.shape:
            baseline = RunningBaseline.empty(1)
            return DisagreementSensorState(
                embedding.modality, embedding.start, tick, embedding.coverage, vector, vector.copy(), baseline, 0.0
            )
        seconds = min((tick - state.tick) / SECOND, 1.0)
        distance = np.array([distance_from_mean(state.mean_vector, vector)])
        baseline, score = state.distance_baseline, 0.0
        if baseline.observed_time[0] >= options.warm_up:
            score = float(options.scores_from_deviations(baseline.z_scores(distance, MIN_DEVIATION))[0])
        share = max(
            seconds / (float(baseline.observed_time[0]) + 2 * seconds),
            1.0 - float(np.exp(-seconds / options.time_constant)),
        )
        mean = np.asarray(state.mean_vector + share * (vector - state.mean_vector), np.float32)
        baseline = baseline.updated(distance, seconds, options.time_constant, MIN_DEVIATION)
        return DisagreementSensorState(
            embedding.modality, embedding.start, tick, embedding.coverage, vector, mean, baseline, score
        )
