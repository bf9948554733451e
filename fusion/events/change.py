"""Change: a lasting change of the scene, detected in the distance of each sensor from its mean vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sensebind.fusion.core.embeddings import Embedding, Vector
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import Effect, Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, healthy_sensors
from sensebind.fusion.events.evidence import TIME_CONSTANT_BOUNDS, FloatArray, RunningBaseline, distance_from_mean
from sensebind.fusion.events.lifecycle import LifecycleOptions

CHANGE_LABEL = "change"
MIN_DEVIATION = 0.01  # cosine distance; lower limit of the running deviation of distances
CUSUM_SLACK = 1.0  # deviations subtracted from each z-score: half of the smallest change to detect (Page's k)
MAX_Z_SCORE = 5.0  # deviations; upper limit of a z-score
MIN_EXCURSION_PEAK = 2.0  # excursions with at least this peak count for the statistics
# Of `time_constant`: the time constant of the mean vector. It is short, so the distance stays small in a slow drift.
MEAN_VECTOR_TIME_FRACTION = 0.25
CHANGE_HOLD_TIME = 3.0  # s for which a change is reported, so that changes of several sensors are one event
# Prior of the statistics, for slightly correlated windows. It counts as `PRIOR_EXCURSION_COUNT` observed excursions.
PRIOR_MEAN_EXCESS, PRIOR_EXCURSION_RATE, PRIOR_EXCURSION_COUNT = 2.0, 1 / 30, 10.0


@dataclass(frozen=True, slots=True)
class ChangeOptions(Options):
    """Options of the change detector. Raises `ConfigError`."""

    effect = Effect.AT_ONCE

    false_alarms_per_hour: float = parameter(
        1.0,
        "Accepted number of false alarms in an hour without a change, of all sensors together",
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
    lifecycle: LifecycleOptions = LifecycleOptions(min_duration=0.0, hold_time=0.0, update_period=CHANGE_HOLD_TIME)


@dataclass(frozen=True, slots=True)
class ExcursionStatistics:
    """Statistics of the excursions of the sum while nothing changes. The threshold follows from them.

    `effective_windows`: number of windows, each counted by the fraction that is new. `excursion_count`: number of
    excursions with a peak of at least `MIN_EXCURSION_PEAK`. `total_excess`: sum of these peaks minus this value.
    """

    effective_windows: float = PRIOR_EXCURSION_COUNT / PRIOR_EXCURSION_RATE
    excursion_count: float = PRIOR_EXCURSION_COUNT
    total_excess: float = PRIOR_EXCURSION_COUNT * PRIOR_MEAN_EXCESS

    def with_excursion(self, peak: float) -> ExcursionStatistics:
        """Return the statistics with one more excursion."""
        total_excess = self.total_excess + peak - MIN_EXCURSION_PEAK
        return replace(self, excursion_count=self.excursion_count + 1, total_excess=total_excess)

    def threshold(self, effective_windows: float) -> float:
        """Return the value that the sum passes once in `effective_windows`: its peaks have an exponential tail."""
        mean = self.total_excess / self.excursion_count
        return MIN_EXCURSION_PEAK + mean * float(
            np.log(max(effective_windows * self.excursion_count / self.effective_windows, 1.0))
        )


@dataclass(frozen=True, slots=True)
class ChangeSensorState:
    """The state of one sensor: its modality, its mean and baseline since the last change, and the current excursion of
    the sum."""

    modality: str
    tick: int
    mean_vector: Vector  # (D,) mean of the vectors, not of unit length
    observed_time: float  # s that `mean_vector` averages
    distance_baseline: RunningBaseline  # of the cosine distance from `mean_vector`, (1,)
    cusum: float  # the sum, at least 0
    peak_cusum: float  # of the current excursion
    excursion_start: int  # ns, the tick at which the sum left 0
    excursion_mean: Vector  # (D,) mean of the vectors since `excursion_start`
    excursion_time: float  # s that `excursion_mean` averages
    excursions: ExcursionStatistics
    last_change: tuple[int, int, float] | None = None  # start of its excursion (ns), tick of its detection, score


ChangeState = Mapping[str, ChangeSensorState]


class ChangeDetector(Detector[ChangeOptions]):
    """Scores the label `change` by a CUSUM of each sensor's distance from its mean vector since the last change.

    E. S. Page's test ("Continuous inspection schemes", 1954): S ← max(0, S + z − k); there is a change if S > h. z is
    the distance in deviations from its running baseline. Windows overlap, so each window counts by the fraction of it
    that is new. h follows from `false_alarms_per_hour`: while nothing changes, the peaks of S between its zeros have an
    exponential tail (D. Siegmund, Sequential Analysis, 1985). The rate and the mean of the tail are measured on the
    stream, so the noise need not be normal and the windows need not be independent.
    """

    kind = EventKind.CHANGE
    default_options = ChangeOptions()

    def has_label(self, label: str) -> bool:
        return label == CHANGE_LABEL

    def score(
        self, state: ChangeState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[ChangeState, dict[str, Score]]:
        """Update the sums with the windows of one tick. Score changes of the last `CHANGE_HOLD_TIME` seconds."""
        sensor_states = dict(state)
        arrived = healthy_sensors(embeddings)
        sensor_count = len(set(sensor_states) | set(arrived))
        for sensor in arrived:
            sensor_states[sensor] = self._update_sensor(state.get(sensor), tick, embeddings[sensor], sensor_count)
        evidence, best = [], 0.0
        for sensor, sensor_state in sorted(sensor_states.items()):
            modality, change = sensor_state.modality, sensor_state.last_change
            if change is not None and tick - change[1] < CHANGE_HOLD_TIME * SECOND:
                start, detected, score = change
                evidence.append(Evidence(modality, score, True, start, detected, sensor=sensor))
                best = max(best, score)
            elif tick == sensor_state.tick:
                evidence.append(Evidence(modality, 0.0, False, sensor_state.excursion_start, tick, sensor=sensor))
        return sensor_states, {CHANGE_LABEL: Score(best, tuple(evidence) if best else ())}

    def _update_sensor(
        self, state: ChangeSensorState | None, tick: int, embedding: Embedding, sensor_count: int
    ) -> ChangeSensorState:
        vector, modality = embedding.vector, embedding.modality
        if state is None or state.mean_vector.shape != vector.shape:
            return _new_sensor_state(modality, tick, vector, 0.5, ExcursionStatistics())
        options = self.options
        seconds = min((tick - state.tick) / SECOND, 1.0)
        effective_windows = min(seconds / max((tick - embedding.start) / SECOND, 1e-3), 1.0)
        distance = np.array([distance_from_mean(state.mean_vector, vector)])
        cusum, statistics = 0.0, state.excursions
        if state.observed_time >= options.warm_up:
            z = _z_score(state.distance_baseline, distance, seconds, effective_windows)
            cusum = max(0.0, state.cusum + effective_windows * (min(z, MAX_Z_SCORE) - CUSUM_SLACK))
            statistics = replace(statistics, effective_windows=statistics.effective_windows + effective_windows)
        windows_between_alarms = (
            3600.0 / options.false_alarms_per_hour * sensor_count / max(seconds, 1e-3) * effective_windows
        )
        threshold = statistics.threshold(windows_between_alarms)
        start, excursion_mean, excursion_time = state.excursion_start, state.excursion_mean, state.excursion_time
        if state.cusum == 0.0:
            start, excursion_mean, excursion_time = tick, vector, seconds
        else:
            excursion_time += seconds
            step = seconds / excursion_time * (vector - excursion_mean)
            excursion_mean = np.asarray(excursion_mean + step, np.float32)
        peak = max(state.peak_cusum, cusum)
        if cusum > threshold:
            statistics = statistics.with_excursion(threshold)
            score = 1.0 - 0.4 * float(np.exp(threshold - cusum))
            renewed = _new_sensor_state(modality, tick, excursion_mean, excursion_time, statistics)
            return replace(renewed, last_change=(start, tick, score))
        if cusum == 0.0:
            if peak >= MIN_EXCURSION_PEAK:
                statistics = statistics.with_excursion(peak)
            peak = 0.0
        share = max(
            seconds / (state.observed_time + seconds),
            1.0 - float(np.exp(-seconds / (MEAN_VECTOR_TIME_FRACTION * options.time_constant))),
        )
        return ChangeSensorState(
            modality,
            tick,
            np.asarray(state.mean_vector + share * (vector - state.mean_vector), np.float32),
            min(state.observed_time + seconds, 1e6),
            state.distance_baseline.updated(distance, seconds, options.time_constant, MIN_DEVIATION),
            cusum,
            peak,
            start,
            excursion_mean,
            excursion_time,
            statistics,
            state.last_change,
        )


def _z_score(baseline: RunningBaseline, distance: FloatArray, seconds: float, effective_windows: float) -> float:
    """Return the distance (1,) minus its mean, in deviations. A deviation from few windows is increased."""
    windows = float(baseline.observed_time[0]) / seconds if seconds > 0 else 0.0
    factor = 1.0 + 4.0 * effective_windows / max(windows, 1.0) if seconds > 0 else 1.0
    return float((distance - baseline.mean)[0] / max(baseline.deviation[0] * factor, MIN_DEVIATION))


def _new_sensor_state(
    modality: str, tick: int, mean: Vector, observed_time: float, statistics: ExcursionStatistics
) -> ChangeSensorState:
    """Return the state at the start and after a change. The mean counts for at most 1 s, so it adapts quickly."""
    return ChangeSensorState(
        modality, tick, mean, min(observed_time, 1.0), RunningBaseline.empty(1), 0.0, 0.0, tick, mean, 0.0, statistics
    )
