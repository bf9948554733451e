"""Change points: from some moment on a sense perceives another kind of thing than it did, and goes on doing so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector
from sensebind.fusion.core.events import Evidence, Kind, Score
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, healthy_modalities
from sensebind.fusion.events.evidence import MEMORY, Level, distance_from_mean
from sensebind.fusion.events.lifecycle import LifeOptions

LABEL = "change"
FLOOR = 0.01  # cosine distance: a stream's distances are never taken to spread less
SLACK = 1.0  # deviations that are taken off each look: half of the least change that is looked for (Page's k)
MOST = 5.0  # deviations that one look counts at most
SMALL = 2.0  # excursions that reach this tell how far others will
NEAR = 0.25  # of `time_constant`, over which vectors are averaged: what drifts is never far from a mean so near
HELD = 3.0  # s for which a change stands, so that those of several senses are one
FIRST_EXCESS, FIRST_RATE, WEIGHT = 2.0, 1 / 30, 10.0  # of looks that are a little alike; worth so many excursions


@dataclass(frozen=True, slots=True)
class ChangeOptions(Options):
    """How lasting changes of the scene are detected. Raises `ConfigError`."""

    false_alarms_per_hour: float = parameter(
        1.0,
        "Accepted number of false alarms in an hour without a change, of all modalities together",
        bounds=(0.001, 1000.0),
    )
    warm_up: float = parameter(
        15.0, "Time at the start, and after each change, in which no change is detected", bounds=(1.0, 3600.0), unit="s"
    )
    time_constant: float = parameter(
        60.0,
        "Time constant of the usual distance. Slower changes count as drift and are not reported",
        bounds=MEMORY,
        unit="s",
        formerly="memory",
    )
    life: LifeOptions = LifeOptions(min_duration=0.0, hold_time=0.0, update_period=HELD)


@dataclass(frozen=True, slots=True)
class Excursions:
    """How far the sum of a stream that does not change rises: what its threshold is made of."""

    looks: float = WEIGHT / FIRST_RATE  # that were taken
    count: float = WEIGHT  # of excursions that reached `SMALL`
    excess: float = WEIGHT * FIRST_EXCESS  # by how much they did, together

    def threshold(self, looks: float) -> float:
        """What is passed once in so many looks. The peaks of a sum that drifts down have an exponential tail."""
        mean = self.excess / self.count
        return SMALL + mean * float(np.log(max(looks * self.count / self.looks, 1.0)))


@dataclass(frozen=True, slots=True)
class Regime:
    """What is remembered of one sense: what it has perceived since the last change, and what speaks for another."""

    tick: int
    anchor: Vector  # (D,) mean of the vectors, not of unit length
    age: float  # s that it stands on
    level: Level  # of the cosine distance from the anchor, (1,)
    total: float  # the sum, 0 and more
    peak: float  # of this excursion
    since: int  # ns, when the sum left 0
    fresh: Vector  # (D,) mean of the vectors since then
    span: float  # s that it stands on
    past: Excursions
    alarm: tuple[int, int, float] | None = None  # of the last change: since, tick, score


State = Mapping[str, Regime]


class ChangeDetector(Detector[ChangeOptions]):
    """Scores one label, `change`, by a CUSUM of each sense's distance from what it has perceived since the last change.

    E. S. Page's test ("Continuous inspection schemes", 1954): S ← max(0, S + z − k), a change where S passes h. The
    z are standardised by the stream's own running mean and deviation. Windows overlap, so a look is a window's length
    of the stream, not a tick. h follows from the rate of false alarms that is asked for: while nothing changes, the
    peaks of S between its zeros have an exponential tail (D. Siegmund, Sequential Analysis, 1985), whose rate and mean
    are measured on the stream itself; so neither noise that is not normal nor looks that are not independent matter.
    """

    kind = Kind.CHANGE
    default_options = ChangeOptions()

    def knows(self, label: str) -> bool:
        return label == LABEL

    def score(self, state: State, tick: int, present: Mapping[str, Embedding]) -> tuple[State, dict[str, Score]]:
        """One tick: the new windows' distances are added up; what passed its threshold of late is a change."""
        regimes = dict(state)
        arrived = healthy_modalities(present)
        senses = len(set(regimes) | set(arrived))
        for modality in arrived:
            regimes[modality] = self._look(state.get(modality), tick, present[modality], senses)
        evidence, best = [], 0.0
        for modality, regime in sorted(regimes.items()):
            if regime.alarm is not None and tick - regime.alarm[1] < HELD * SECOND:
                since, told, score = regime.alarm
                evidence.append(Evidence(modality, score, True, since, told))
                best = max(best, score)
            elif tick == regime.tick:
                evidence.append(Evidence(modality, 0.0, False, regime.since, tick))
        return regimes, {LABEL: Score(best, tuple(evidence) if best else ())}

    def _look(self, regime: Regime | None, tick: int, embedding: Embedding, senses: int) -> Regime:
        vector = embedding.vector
        if regime is None or regime.anchor.shape != vector.shape:
            return _begin(tick, vector, 0.5, Excursions())
        options = self.options
        seconds = min((tick - regime.tick) / SECOND, 1.0)
        looks = min(seconds / max((tick - embedding.start) / SECOND, 1e-3), 1.0)
        far = np.array([distance_from_mean(regime.anchor, vector)])
        total, past = 0.0, regime.past
        if regime.age >= options.warm_up:
            # A deviation known from n looks is larger than it seems.
            doubt = 1.0 + 4.0 * looks / max(float(regime.level.age[0]) / seconds, 1.0) if seconds > 0 else 1.0
            z = float((far - regime.level.mean)[0] / max(regime.level.deviation[0] * doubt, FLOOR))
            total = max(0.0, regime.total + looks * (min(z, MOST) - SLACK))
            past = replace(past, looks=past.looks + looks)
        wanted = 3600.0 / options.false_alarms_per_hour * senses / max(seconds, 1e-3) * looks
        threshold = past.threshold(wanted)
        since, fresh, span = regime.since, regime.fresh, regime.span
        if regime.total == 0.0:
            since, fresh, span = tick, vector, seconds
        else:
            span += seconds
            fresh = np.asarray(fresh + seconds / span * (vector - fresh), np.float32)
        peak = max(regime.peak, total)
        if total > threshold:
            past = replace(past, count=past.count + 1, excess=past.excess + threshold - SMALL)
            score = 1.0 - 0.4 * float(np.exp(threshold - total))
            return replace(_begin(tick, fresh, span, past), alarm=(since, tick, score))
        if total == 0.0:
            if peak >= SMALL:
                past = replace(past, count=past.count + 1, excess=past.excess + peak - SMALL)
            peak = 0.0
        share = max(seconds / (regime.age + seconds), 1.0 - float(np.exp(-seconds / (NEAR * options.time_constant))))
        return Regime(
            tick,
            np.asarray(regime.anchor + share * (vector - regime.anchor), np.float32),
            min(regime.age + seconds, 1e6),
            regime.level.follow(far, seconds, options.time_constant, FLOOR),
            total,
            peak,
            since,
            fresh,
            span,
            past,
            regime.alarm,
        )


def _begin(tick: int, anchor: Vector, age: float, past: Excursions) -> Regime:
    return Regime(tick, anchor, min(age, 1.0), Level.blank(1), 0.0, 0.0, tick, anchor, 0.0, past)
