"""Faults: the data of a sensor show a symptom, or a sensor has no windows while others have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import Effect, Options, parameter
from sensebind.fusion.core.samples import IMAGE_MODALITIES, IMU, SECOND
from sensebind.fusion.core.symptoms import FROZEN, SYMPTOMS
from sensebind.fusion.events.detector import Detector, unfused_sensors
from sensebind.fusion.events.lifecycle import LifecycleOptions

UNPLUGGED = "unplugged"
CONFIGURED_SENSORS = "configured"  # in `expected`: all sensors of the embedder
FAULT_CAUSES = (*SYMPTOMS, UNPLUGGED)
VOTING_WINDOWS = 3  # number of windows that vote on the cause: the first, partly faulty, may show another symptom
FAULT_SCORE = 0.95  # the score of every fault
MAX_MISSED_INTERVALS = 2.5  # usual intervals without a window after which a sensor is unplugged
FIRST_IMU_WINDOW = 3.0  # s: longest wait for the first window of an IMU, before a camera that never changed is frozen
PAUSE_TIMEOUT_FACTOR = 4.0  # times `timeout` after a pause of all sensors: long windows fill again
FIRST_WINDOW_TIMEOUT_FACTOR = 24.0  # times `timeout` after the first window: the interval is not known yet
START_TIMEOUT_FACTOR = 1.6  # times `timeout` for the first window of an expected sensor, after the first tick of others


@dataclass(frozen=True, slots=True)
class FaultOptions(Options):
    """Options of the fault detector. Raises `ConfigError`."""

    effect = Effect.AT_ONCE

    causes: tuple[str, ...] = parameter(
        (),
        "Causes of faults to detect. Empty: all",
        choices=FAULT_CAUSES,
    )
    timeout: float = parameter(
        1.25,
        "Time without a window after which a sensor is unplugged, while others have windows. Longer where 2.5 of its "
        "usual intervals are longer, 1.6 times as long at the start, 24 times as long after its first window, when its "
        "interval is not known yet, and 4 times as long after a pause of all sensors",
        bounds=(0.1, 3600.0),
        unit="s",
        formerly="silence",
    )
    frozen_time: float = parameter(
        0.0,
        "Time for which the data of a sensor must repeat to the last bit before it is `frozen`, in addition to "
        "`min_duration`. Longer than the robot stands, for a camera simulated without noise beside sensors with noise. "
        "If all cameras and an IMU repeat at the same time, the robot stands in a simulation, and no sensor is frozen",
        bounds=(0.0, 86400.0),
        unit="s",
    )
    expected: tuple[str, ...] = parameter(
        (),
        "Sensors, or modalities with all their sensors, that must have windows from the start. "
        f"`{CONFIGURED_SENSORS}`: all that the embedder is configured for. "
        "Others are unplugged only after a first window",
    )
    lifecycle: LifecycleOptions = LifecycleOptions(min_duration=0.5, hold_time=1.5, update_period=5.0)

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        if self.lifecycle.onset_threshold > FAULT_SCORE:
            raise ConfigError(
                f"onset_threshold must be at most {FAULT_SCORE:g}, the score of every fault, "
                f"and it is {self.lifecycle.onset_threshold:g}"
            )

    def detects(self, cause: str) -> bool:
        """Return whether this cause is to be detected."""
        return cause in (self.causes or FAULT_CAUSES)


def fault_label(sensor: str, cause: str) -> str:
    """Return the label of a fault: ``fault:thermal:frozen``."""
    return f"fault:{sensor}:{cause}"


@dataclass(frozen=True, slots=True)
class FaultSensorState:
    """The state of one sensor: its modality, its last window, the usual interval of its windows, and its recent
    causes."""

    modality: str
    start: int
    tick: int
    window_interval: float  # s; 0: not known yet
    recent_causes: tuple[str, ...]  # of its last `VOTING_WINDOWS` windows; empty: no symptom
    frozen_since: int = 0  # ns, tick of the first of its last windows that are all frozen; 0: the last one is not
    first_tick: int = 0  # ns, of its first window
    resumed: int = 0  # ns, tick at which windows of any sensor came again, if none had any since the last one; or 0
    has_window: bool = True  # False: it is expected, and has had no window since the first tick of the others

    @property
    def cause(self) -> str:
        """The most frequent recent cause, the latest of equals. Empty if the last window has no symptom."""
        if not self.recent_causes[-1]:
            return ""
        return max(reversed(self.recent_causes), key=lambda name: self.recent_causes.count(name) if name else 0)

    def is_missing(self, tick: int, timeout: float) -> bool:
        """Return whether it has had no window for too long at this tick (ns). `timeout`: see `FaultOptions`."""
        limit = max(timeout, MAX_MISSED_INTERVALS * self.window_interval)
        factor = 1.0 if self.window_interval else FIRST_WINDOW_TIMEOUT_FACTOR
        if self.resumed:
            factor = PAUSE_TIMEOUT_FACTOR
        if not self.has_window and not self.resumed:
            factor = START_TIMEOUT_FACTOR
        return tick - max(self.tick, self.resumed) >= factor * limit * SECOND


FaultState = Mapping[str, FaultSensorState]


def stands_in_simulation(state: FaultState) -> bool:
    """Return whether an IMU and all cameras of the robot repeat their data to the last bit.

    Independent sensors do not freeze at the same time. Without noise, their data repeat while the robot stands.
    """
    images = [own for own in state.values() if own.modality in IMAGE_MODALITIES]
    motions = [own for own in state.values() if own.modality == IMU]
    return bool(images) and any(own.frozen_since for own in motions) and all(own.frozen_since for own in images)


def after_pause(state: FaultState, tick: int, timeout: float) -> FaultState:
    """Return the state in which the time before this tick does not count, if all sensors were missing in it.

    No sensor is faulty then: the robot or its software paused. Long windows need time to fill again.
    """
    if not all(own.is_missing(tick, timeout) for own in state.values()):
        return state
    last = max((own.tick for own in state.values()), default=tick)
    return {name: own if own.is_missing(last, timeout) else replace(own, resumed=tick) for name, own in state.items()}


class FaultDetector(Detector[FaultOptions]):
    """Scores a label for each sensor that shows a symptom or has no windows: one cause at a time.

    The symptoms of a window are in `Embedding.symptoms`. A sensor without windows is detected at the ticks of others.
    """

    kind = EventKind.FAULT
    default_options = FaultOptions()

    def __init__(self, options: FaultOptions | None = None, sensors: Mapping[str, str] = {}) -> None:
        """`sensors`: sensor → its modality. An expected sensor that is not in it is named as its modality."""
        super().__init__(options)
        self._modalities = dict(sensors)

    def has_label(self, label: str) -> bool:
        return self.options.detects(label.rpartition(":")[2])

    def score(
        self, state: FaultState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[FaultState, dict[str, Score]]:
        """Score the sensors that show a symptom, and those that have had no window for too long."""
        sensor_states = self._updated(state, tick, embeddings)
        scores, stands = {}, stands_in_simulation(sensor_states)
        for sensor, sensor_state in sorted(sensor_states.items()):
            cause = UNPLUGGED if sensor_state.is_missing(tick, self.options.timeout) else sensor_state.cause
            if cause == FROZEN and (stands or not self._is_frozen_for_long(sensor_states, sensor, tick)):
                continue
            if self.options.detects(cause):
                own = sensor_state
                evidence = (Evidence(own.modality, FAULT_SCORE, True, own.start, own.tick, sensor=sensor),)
                scores[fault_label(sensor, cause)] = Score(FAULT_SCORE, evidence)
        return sensor_states, scores

    def without_natural_repeats(
        self, state: FaultState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> Mapping[str, Embedding]:
        """Return the embeddings of a tick without the symptom `frozen` where it is no fault, for other detectors."""
        frozen = [sensor for sensor in unfused_sensors(embeddings) if FROZEN in embeddings[sensor].symptoms]
        if not frozen:
            return embeddings
        states = self._updated(state, tick, embeddings)
        stands = stands_in_simulation(states)
        natural = [sensor for sensor in frozen if stands or not self._is_frozen_for_long(states, sensor, tick)]
        return {
            sensor: replace(e, symptoms=tuple(s for s in e.symptoms if s != FROZEN)) if sensor in natural else e
            for sensor, e in embeddings.items()
        }

    def _updated(
        self, state: FaultState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> dict[str, FaultSensorState]:
        """Return the states of the sensors after the embeddings of this tick."""
        state = after_pause(state, tick, self.options.timeout)
        states = dict(state)
        for sensor in self.options.expected:
            # Drivers start one after another, and long windows need time to fill: the first one may take a while.
            modality = self._modalities.get(sensor, sensor)
            states.setdefault(sensor, FaultSensorState(modality, tick, tick, 0.0, ("",), has_window=False))
        for sensor in unfused_sensors(embeddings):
            states[sensor] = self._update_sensor(state.get(sensor), tick, embeddings[sensor])
        return states

    def _is_frozen_for_long(self, states: FaultState, sensor: str, tick: int) -> bool:
        """Return whether a sensor that is frozen is faulty. If no camera has ever changed, they are faulty only when
        the IMU has shown that it has noise: the windows of an IMU are longer, so the first one comes later."""
        own = states[sensor]
        frozen = tick - (own.frozen_since or tick)
        never_changed = own.frozen_since - own.first_tick <= MAX_MISSED_INTERVALS * own.window_interval * SECOND
        imus = [name for name, modality in self._modalities.items() if modality == IMU]
        has_imu_window = any(states[name].first_tick for name in imus if name in states)
        all_frozen = all(other.frozen_since for other in states.values() if other.modality in IMAGE_MODALITIES)
        if own.modality in IMAGE_MODALITIES and all_frozen and never_changed and imus and not has_imu_window:
            return frozen >= max(FIRST_IMU_WINDOW, self.options.frozen_time) * SECOND
        return frozen >= self.options.frozen_time * SECOND

    def _update_sensor(self, state: FaultSensorState | None, tick: int, embedding: Embedding) -> FaultSensorState:
        is_frozen = FROZEN in embedding.symptoms
        since = (state.frozen_since if state is not None and state.frozen_since else tick) if is_frozen else 0
        cause = next((c for c in FAULT_CAUSES if c in embedding.symptoms and self.options.detects(c)), "")
        if state is None or not state.has_window or state.tick == tick:
            first = tick if state is None or not state.has_window else state.first_tick
            return FaultSensorState(embedding.modality, embedding.start, tick, 0.0, (cause,), since, first)
        gap = (tick - state.tick) / SECOND
        # A single long gap increases the usual interval by at most 10 %.
        interval = (
            gap
            if not state.window_interval
            else state.window_interval + 0.2 * min(gap - state.window_interval, 0.5 * state.window_interval)
        )
        recent = (*state.recent_causes, cause)[-VOTING_WINDOWS:]
        return FaultSensorState(embedding.modality, embedding.start, tick, interval, recent, since, state.first_tick)
