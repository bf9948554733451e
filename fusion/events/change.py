"""Change points: from some moment on a sense perceives another kind of thing than it did, and goes on doing so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, healthy_modalities
from sensebind.fusion.events.evidence import TIME_CONSTANT_BOUNDS, FloatArray, RunningBaseline, distance_from_mean
from sensebind.fusion.events.lifecycle import LifecycleOptions

CHANGE_LABEL = "change"
MIN_DEVIATION = 0.01  # cosine distance: a stream's distances are never taken to spread less
CUSUM_SLACK = 1.0  # deviations that are taken off each look: half of the least change that is looked for (Page's k)
MAX_Z_SCORE = 5.0  # deviations that one look counts at most
MIN_EXCURSION_PEAK = 2.0  # excursions that reach this tell how far others will
ANCHOR_TIME_FRACTION = (
    0.25  # of `time_constant`, over which vectors are averaged: what drifts is never far from a mean so near
)
CHANGE_HOLD_TIME = 3.0  # s for which a change stands, so that those of several senses are one
PRIOR_MEAN_EXCESS, PRIOR_EXCURSION_RATE, PRIOR_EXCURSION_COUNT = (
    2.0,
    1 / 30,
    10.0,
)  # of looks that are a little alike; worth so many excursions


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
        bounds=TIME_CONSTANT_BOUNDS,
        unit="s",
        formerly="memory",
    )
    life: LifecycleOptions = LifecycleOptions(min_duration=0.0, hold_time=0.0, update_period=CHANGE_HOLD_TIME)


@dataclass(frozen=True, slots=True)
class ExcursionStatistics:
    """How far the sum of a stream that does not change rises: what its threshold is made of."""

    effective_windows: float = PRIOR_EXCURSION_COUNT / PRIOR_EXCURSION_RATE  # that were taken
    excursion_count: float = PRIOR_EXCURSION_COUNT  # of excursions that reached `MIN_EXCURSION_PEAK`
    total_excess: float = PRIOR_EXCURSION_COUNT * PRIOR_MEAN_EXCESS  # by how much they did, together

    def threshold(self, effective_windows: float) -> float:
        """What is passed once in so many looks. The peaks of a sum that drifts down have an exponential tail."""
        mean = self.total_excess / self.excursion_count
        return MIN_EXCURSION_PEAK + mean * float(
            np.log(max(effective_windows * self.excursion_count / self.effective_windows, 1.0))
        )


@dataclass(frozen=True, slots=True)
class ChangeModalityState:
    """What is remembered of one sense: what it has perceived since the last change, and what speaks for another."""

    tick: int
    mean_vector: Vector  # (D,) mean of the vectors, not of unit length
    observed_time: float  # s that it stands on
    distance_baseline: RunningBaseline  # of the cosine distance from `mean_vector`, (1,)
    cusum: float  # the sum, 0 and more
    peak_cusum: float  # of this excursion
    excursion_start: int  # ns, when the sum left 0
    excursion_mean: Vector  # (D,) mean of the vectors since then
    excursion_time: float  # s that it stands on
    excursions: ExcursionStatistics
    last_change: tuple[int, int, float] | None = None  # of the last change: since, tick, score


ChangeState = Mapping[str, ChangeModalityState]


class ChangeDetector(Detector[ChangeOptions]):
    """Scores one label, `change`, by a CUSUM of each sense's distance from what it has perceived since the last change.

    E. S. Page's test ("Continuous inspection schemes", 1954): S ← max(0, S + z − k), a change where S passes h. The
    z are standardised by the stream's own running mean and deviation. Windows overlap, so a look is a window's length
    of the stream, not a tick. h follows from the rate of false alarms that is asked for: while nothing changes, the
    peaks of S between its zeros have an exponential tail (D. Siegmund, Sequential Analysis, 1985), whose rate and mean
    are measured on the stream itself; so neither noise that is not normal nor looks that are not independent matter.
    """

    kind = EventKind.CHANGE
    default_options = ChangeOptions()

    def has_label(self, label: str) -> bool:
        return label == CHANGE_LABEL

    def score(
        self, state: ChangeState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[ChangeState, dict[str, Score]]:
        """One tick: the new windows' distances are added up; what passed its threshold of late is a change."""
        regimes = dict(state)
        arrived = healthy_modalities(embeddings)
        modality_count = len(set(regimes) | set(arrived))
        for modality in arrived:
            regimes[modality] = self._update_modality(state.get(modality), tick, embeddings[modality], modality_count)
        evidence, best = [], 0.0
        for modality, regime in sorted(regimes.items()):
            if regime.last_change is not None and tick - regime.last_change[1] < CHANGE_HOLD_TIME * SECOND:
                since, told, score = regime.last_change
                evidence.append(Evidence(modality, score, True, since, told))
                best = max(best, score)
            elif tick == regime.tick:
                evidence.append(Evidence(modality, 0.0, False, regime.excursion_start, tick))
        return regimes, {CHANGE_LABEL: Score(best, tuple(evidence) if best else ())}

    def _update_modality(
        self, regime: ChangeModalityState | None, tick: int, embedding: Embedding, senses: int
    ) -> ChangeModalityState:
        vector = embedding.vector
        if regime is None or regime.mean_vector.shape != vector.shape:
            return _new_modality_state(tick, vector, 0.5, ExcursionStatistics())
        options = self.options
        seconds = min((tick - regime.tick) / SECOND, 1.0)
        effective_windows = min(seconds / max((tick - embedding.start) / SECOND, 1e-3), 1.0)
        distance = np.array([distance_from_mean(regime.mean_vector, vector)])
        total, past = 0.0, regime.excursions
        if regime.observed_time >= options.warm_up:
            z = _z_score(regime.distance_baseline, distance, seconds, effective_windows)
            total = max(0.0, regime.cusum + effective_windows * (min(z, MAX_Z_SCORE) - CUSUM_SLACK))
            past = replace(past, effective_windows=past.effective_windows + effective_windows)
        wanted = 3600.0 / options.false_alarms_per_hour * senses / max(seconds, 1e-3) * effective_windows
        threshold = past.threshold(wanted)
        since, fresh, span = regime.excursion_start, regime.excursion_mean, regime.excursion_time
        if regime.cusum == 0.0:
            since, fresh, span = tick, vector, seconds
        else:
            span += seconds
            fresh = np.asarray(fresh + seconds / span * (vector - fresh), np.float32)
        peak = max(regime.peak_cusum, total)
        if total > threshold:
            past = replace(
                past,
                excursion_count=past.excursion_count + 1,
                total_excess=past.total_excess + threshold - MIN_EXCURSION_PEAK,
            )
            score = 1.0 - 0.4 * float(np.exp(threshold - total))
            return replace(_new_modality_state(tick, fresh, span, past), last_change=(since, tick, score))
        if total == 0.0:
            if peak >= MIN_EXCURSION_PEAK:
                past = replace(
                    past,
                    excursion_count=past.excursion_count + 1,
                    total_excess=past.total_excess + peak - MIN_EXCURSION_PEAK,
                )
            peak = 0.0
        share = max(
            seconds / (regime.observed_time + seconds),
            1.0 - float(np.exp(-seconds / (ANCHOR_TIME_FRACTION * options.time_constant))),
        )
        return ChangeModalityState(
            tick,
            np.asarray(regime.mean_vector + share * (vector - regime.mean_vector), np.float32),
            min(regime.observed_time + seconds, 1e6),
            regime.distance_baseline.updated(distance, seconds, options.time_constant, MIN_DEVIATION),
            total,
            peak,
            since,
            fresh,
            span,
            past,
            regime.last_change,
        )


def _z_score(baseline: RunningBaseline, distance: FloatArray, seconds: float, effective_windows: float) -> float:
    """The distance (1,) above its mean, in deviations. A deviation from few windows is increased: it is uncertain."""
    windows = float(baseline.observed_time[0]) / seconds if seconds > 0 else 0.0
    factor = 1.0 + 4.0 * effective_windows / max(windows, 1.0) if seconds > 0 else 1.0
    return float((distance - baseline.mean)[0] / max(baseline.deviation[0] * factor, MIN_DEVIATION))


def _new_modality_state(tick: int, anchor: Vector, age: float, past: ExcursionStatistics) -> ChangeModalityState:
    return ChangeModalityState(tick, anchor, min(age, 1.0), RunningBaseline.empty(1), 0.0, 0.0, tick, anchor, 0.0, past)
