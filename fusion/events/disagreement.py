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
from sensebind.fusion.events.detector import Detector, healthy_modalities
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
        "Age up to which a modality's last window is compared with others",
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
class DisagreementModalityState:
    """The state of one modality: its last window, its mean vector, and the baseline of its distance from this mean."""

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
    modality_states: Mapping[str, DisagreementModalityState]
    pairs: Mapping[str, tuple[int, RunningBaseline]]  # label → tick of the last update, baseline of the cosine, (1,)


class DisagreementDetector(Detector[DisagreementOptions]):
    """Scores each pair of modalities by how far their cosine has fallen below its baseline.

    In a joint space, two modalities have similar vectors for one object. If the scene changes for both, the cosine
    stays about the same; if one changes alone, it falls. The baseline is the pair's own recent past, so the usual
    cosine may be low. In the evidence, the modality that left its own past supports the event.
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
        return DisagreementState(
            state.modality_states, {label: pair for label, pair in state.pairs.items() if self.has_label(label)}
        )

    def score(
        self, state: DisagreementState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[DisagreementState, dict[str, Score]]:
        """Score the pairs of windows not older than `max_age`. Update the baselines of pairs with a new window."""
        options = self.options
        modality_states = dict(state.modality_states)
        arrived = healthy_modalities(embeddings)
        for modality in set(modality_states) & {m for m, e in embeddings.items() if e.symptoms}:
            modality_states[modality] = replace(modality_states[modality], faulty=True)
        for modality in arrived:
            modality_states[modality] = self._update_modality(modality_states.get(modality), tick, embeddings[modality])
        oldest = tick - options.max_age * SECOND
        fresh = [
            m for m in sorted(modality_states) if modality_states[m].tick >= oldest and not modality_states[m].faulty
        ]
        pairs, scores = dict(state.pairs), {}
        for a, b in combinations(fresh, 2):
            label = pair_label(a, b)
            if not self.has_label(label) or modality_states[a].vector.shape != modality_states[b].vector.shape:
                continue
            last, baseline = pairs.get(label, (tick - SECOND // 2, RunningBaseline.empty(1)))
            similarity = np.array([float(modality_states[a].vector @ modality_states[b].vector)])
            pair_score = 0.0
            if baseline.observed_time[0] >= options.warm_up:
                pair_score = float(options.scores_from_deviations(-baseline.z_scores(similarity, MIN_DEVIATION))[0])
            weight = min(options.reliability.get(m, 1.0) * modality_states[m].coverage for m in (a, b))
            evidence = tuple(
                Evidence(m, s.score, s.score >= options.support, s.start, s.tick, weight=weight)
                for m, s in ((m, modality_states[m]) for m in (a, b))
            )
            scores[label] = Score(
                float(pool_scores([[pair_score]], [weight], options.prior)[0]), evidence, timestamp_correction(evidence)
            )
            if a in arrived or b in arrived:
                seconds = min((tick - last) / SECOND, 1.0)
                pairs[label] = tick, baseline.updated(similarity, seconds, options.time_constant, MIN_DEVIATION)
        return DisagreementState(modality_states, pairs), scores

    def _update_modality(
        self, state: DisagreementModalityState | None, tick: int, embedding: Embedding
    ) -> DisagreementModalityState:
        options, vector = self.options, embedding.vector
        if state is None or state.vector.shape != vector.shape:
            baseline = RunningBaseline.empty(1)
            return DisagreementModalityState(
                embedding.start, tick, embedding.coverage, vector, vector.copy(), baseline, 0.0
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
        return DisagreementModalityState(embedding.start, tick, embedding.coverage, vector, mean, baseline, score)
