"""Faults: the data of a sensor show a symptom, or a sensor has no windows while others have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import Effect, Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.events.detector import Detector, unfused_sensors
from sensebind.fusion.events.lifecycle import LifecycleOptions

UNPLUGGED = "unplugged"
CONFIGURED_SENSORS = "configured"  # in `expected`: all sensors of the embedder
FAULT_CAUSES = (*SYMPTOMS, UNPLUGGED)
VOTING_WINDOWS = 3  # number of windows that vote on the cause: the first, partly faulty, may show another symptom
FAULT_SCORE = 0.95  # the score of every fault
MAX_MISSED_INTERVALS = 2.5  # usual intervals without a window after which a sensor is unplugged
FIRST_WINDOW_TIMEOUT_FACTOR = 4.0  # times `timeout` after the first window: the interval is not known yet
START_TIMEOUT_FACTOR = 1.6  # times `timeout` for the first window of an expected sensor, after the first tick of others


@dataclass(frozen=True, slots=True)
class FaultOptions(Options):
    """Options of the fault detector. Raises `ConfigError`."""

    effect = Effect.AT_ONCE

    causes: tuple[str, ...] = parameter(
        (),
        "Causes of faults to detect. Empty: all. For sensors simulated without noise, list all causes except `frozen`",
        choices=FAULT_CAUSES,
    )
    timeout: float = parameter(
        1.25,
        "Time without a window after which a sensor is unplugged, while others have windows. Longer where 2.5 of its "
        "usual intervals are longer, 1.6 times as long at the start, and 4 times as long after its first window or a "
        "pause of all sensors",
        bounds=(0.1, 3600.0),
        unit="s",
        formerly="silence",
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
        factor = 1.0 if self.window_interval and not self.resumed else FIRST_WINDOW_TIMEOUT_FACTOR
        if not self.has_window and not self.resumed:
            factor = START_TIMEOUT_FACTOR
        return tick - max(self.tick, self.resumed) >= factor * limit * SECOND


FaultState = Mapping[str, FaultSensorState]


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
        state = after_pause(state, tick, self.options.timeout)
        sensor_states = dict(state)
        for sensor in self.options.expected:
            # Drivers start one after another, and long windows need time to fill: the first one may take a while.
            modality = self._modalities.get(sensor, sensor)
            sensor_states.setdefault(sensor, FaultSensorState(modality, tick, tick, 0.0, ("",), has_window=False))
        for sensor in unfused_sensors(embeddings):
            sensor_states[sensor] = self._update_sensor(state.get(sensor), tick, embeddings[sensor])
        scores = {}
        for sensor, sensor_state in sorted(sensor_states.items()):
            cause = UNPLUGGED if sensor_state.is_missing(tick, self.options.timeout) else sensor_state.cause
            if self.options.detects(cause):
                own = sensor_state
                evidence = (Evidence(own.modality, FAULT_SCORE, True, own.start, own.tick, sensor=sensor),)
                scores[fault_label(sensor, cause)] = Score(FAULT_SCORE, evidence)
        return sensor_states, scores

    def _update_sensor(self, state: FaultSensorState | None, tick: int, embedding: Embedding) -> FaultSensorState:
        cause = next((c for c in FAULT_CAUSES if c in embedding.symptoms and self.options.detects(c)), "")
        if state is None or not state.has_window or state.tick == tick:
            return FaultSensorState(embedding.modality, embedding.start, tick, 0.0, (cause,))
        gap = (tick - state.tick) / SECOND
        # A single long gap increases the usual interval by at most 10 %.
        interval = (
            gap
            if not state.window_interval
            else state.window_interval + 0.2 * min(gap - state.window_interval, 0.5 * state.window_interval)
        )
        recent = (*state.recent_causes, cause)[-VOTING_WINDOWS:]
        return FaultSensorState(embedding.modality, embedding.start, tick, interval, recent)
