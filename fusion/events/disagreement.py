"""Disagreement: two senses that usually tell of the same thing part, as when one of them changes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Evidence, Kind, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, healthy_modalities
from sensebind.fusion.events.evidence import WARM_UP, Level, WitnessOptions, distance_from_mean, pool
from sensebind.fusion.events.scores import lead

FLOOR = 0.03  # cosine: agreement and change are never taken to spread less


@dataclass(frozen=True, slots=True)
class DisagreementOptions(WitnessOptions):
    """How disagreement is detected. `pairs`: modalities to compare, in any order; empty: all that are there.

    Raises `ConfigError`.
    """

    threshold: float = parameter(
        4.0, "Fall of a pair's similarity below its usual value at which the score is 0.5", bounds=(0.0, 20.0), unit="σ"
    )
    pairs: tuple[tuple[str, str], ...] = ()
    warm_up: float = parameter(
        10.0,
        "Time at the start of a pair's data without disagreement. At most `time_constant`",
        bounds=WARM_UP,
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
        WitnessOptions.__post_init__(self)  # super() does not work in a class with slots
        if self.warm_up > self.time_constant:  # a pair's age never passes `time_constant`
            raise ConfigError(
                f"warm_up must be at most time_constant, and {self.warm_up:g} s is more than {self.time_constant:g} s"
            )
        for pair in self.pairs:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ConfigError(f"pairs must name two different modalities each, not {pair!r}")


def pair_label(a: str, b: str) -> str:
    """The label of a pair, the same in either order: ``audio+vision``."""
    return "+".join(sorted((a, b)))


@dataclass(frozen=True, slots=True)
class Course:
    """What is remembered of one modality: its last window, its mean vector, and how far from that it usually is."""

    start: int
    tick: int
    coverage: float
    vector: Vector  # (D,)
    anchor: Vector  # (D,) not of unit length
    level: Level  # of the cosine distance from the anchor, (1,)
    score: float  # 0..1, how unusual that distance is now
    lies: bool = False  # a window since then showed that the sensor is faulty


@dataclass(frozen=True, slots=True)
class State:
    courses: Mapping[str, Course]
    pairs: Mapping[str, tuple[int, Level]]  # label → (tick when last compared, level of the cosine, (1,))


class DisagreementDetector(Detector[DisagreementOptions]):
    """Scores each pair of modalities by how far their cosine has fallen below what it usually is.

    In a joint space both senses of one thing point the same way. If the scene changes for both, the cosine
    stays about where it was; if one changes alone, it falls. The level of a pair, however low the space makes
    it, is taken from the pair's own recent past. The evidence names the sense that left its own past.
    """

    kind = Kind.DISAGREEMENT
    default_options = DisagreementOptions()

    def __init__(self, options: DisagreementOptions | None = None) -> None:
        super().__init__(options)
        self.labels = {pair_label(*pair) for pair in self.options.pairs}

    def knows(self, label: str) -> bool:
        return not self.labels or label in self.labels

    def start(self) -> State:
        return State({}, {})

    def adopt(self, old: Detector, state: State) -> State:
        return State(state.courses, {label: pair for label, pair in state.pairs.items() if self.knows(label)})

    def score(self, state: State, tick: int, present: Mapping[str, Embedding]) -> tuple[State, dict[str, Score]]:
        """One tick: pairs of which a window ended now and the other's is not stale are compared."""
        options = self.options
        courses = dict(state.courses)
        arrived = healthy_modalities(present)
        for modality in set(courses) & {m for m, e in present.items() if e.symptoms}:
            courses[modality] = replace(courses[modality], lies=True)
        for modality in arrived:
            courses[modality] = self._move(courses.get(modality), tick, present[modality])
        oldest = tick - options.max_age * SECOND
        fresh = [m for m in sorted(courses) if courses[m].tick >= oldest and not courses[m].lies]
        pairs, scores = dict(state.pairs), {}
        for a, b in combinations(fresh, 2):
            label = pair_label(a, b)
            if not self.knows(label) or courses[a].vector.shape != courses[b].vector.shape:
                continue
            last, level = pairs.get(label, (tick - SECOND // 2, Level.blank(1)))
            agreement = np.array([float(courses[a].vector @ courses[b].vector)])
            own = 0.0
            if level.age[0] >= options.warm_up:
                own = float(options.scores(-level.deviations(agreement, FLOOR))[0])
            weight = min(options.reliability.get(m, 1.0) * courses[m].coverage for m in (a, b))
            evidence = tuple(
                Evidence(m, c.score, c.score >= options.support, c.start, c.tick, weight=weight)
                for m, c in ((m, courses[m]) for m in (a, b))
            )
            scores[label] = Score(float(pool([[own]], [weight], options.prior)[0]), evidence, lead(evidence))
            if a in arrived or b in arrived:
                seconds = min((tick - last) / SECOND, 1.0)
                pairs[label] = tick, level.follow(agreement, seconds, options.time_constant, FLOOR)
        return State(courses, pairs), scores

    def _move(self, course: Course | None, tick: int, embedding: Embedding) -> Course:
        options, vector = self.options, embedding.vector
        if course is None or course.vector.shape != vector.shape:
            level = Level.blank(1)
            return Course(embedding.start, tick, embedding.coverage, vector, vector.copy(), level, 0.0)
        seconds = min((tick - course.tick) / SECOND, 1.0)
        gap = np.array([distance_from_mean(course.anchor, vector)])
        level, score = course.level, 0.0
        if level.age[0] >= options.warm_up:
            score = float(options.scores(level.deviations(gap, FLOOR))[0])
        share = max(
            seconds / (float(level.age[0]) + 2 * seconds), 1.0 - float(np.exp(-seconds / options.time_constant))
        )
        anchor = np.asarray(course.anchor + share * (vector - course.anchor), np.float32)
        level = level.follow(gap, seconds, options.time_constant, FLOOR)
        return Course(embedding.start, tick, embedding.coverage, vector, anchor, level, score)
