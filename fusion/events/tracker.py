"""The event tracker: runs the detectors on the embeddings of each tick, and the event lifecycles on their scores."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.fault import FaultDetector
from sensebind.fusion.events.lifecycle import EventLifecycle
from sensebind.fusion.events.scores import ZERO_SCORE

MAX_TICK_GAP = 10 * SECOND  # ns; after a longer time without a tick, open events end
ALLOWED_LATENESS = 5 * SECOND  # ns; embeddings of older ticks change nothing
MAX_CHECKPOINTS = 250  # of ticks 20 ms apart in this time; a late embedding repeats the work of all of them


@dataclass(frozen=True, slots=True)
class TickCheckpoint:
    """A processed tick, its embeddings, and the detector states and event lifecycles before it."""

    tick: int
    embeddings: Mapping[str, Embedding]
    detector_states: Mapping[EventKind, Any]
    lifecycles: Mapping[tuple[EventKind, str], EventLifecycle]


class EventTracker:
    """Turns the embeddings of each tick into events. The same ticks give the same events, with the same ids.

    `detectors`: at most one of each kind. `space`: the id of the space in which their phrases were embedded (empty:
    that of the first embedding). `max_tick_gap`, `allowed_lateness`: ns. Its memory is bounded: detector states per
    sensor, one `EventLifecycle` per label, and checkpoints of the last `allowed_lateness`, at most `MAX_CHECKPOINTS`.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        space: str = "",
        max_tick_gap: int = MAX_TICK_GAP,
        allowed_lateness: int = ALLOWED_LATENESS,
    ) -> None:
        self.space = space
        self.max_gap = max_tick_gap
        self.allowed_lateness = allowed_lateness
        self.last_tick: int | None = None  # newest tick
        self.scores: dict[EventKind, Mapping[str, Score]] = {}  # of the newest tick, by label
        self._detectors: dict[EventKind, Detector] = _by_kind(detectors)
        self._detector_states: dict[EventKind, Any] = {kind: d.initial_state() for kind, d in self._detectors.items()}
        self._lifecycles: dict[tuple[EventKind, str], EventLifecycle] = {}
        self._next_detectors: dict[EventKind, Detector] | None = None
        # Start of an interval (ns), and the label and id of the event with this interval that ended last.
        self._last_in_interval: tuple[int, str, str] | None = None
        # Key of the embeddings → sensor and frame_id of the newest one.
        self._sensors: dict[str, tuple[str, str]] = {}
        # Of the last `allowed_lateness`, since the detectors were replaced.
        self._checkpoints: deque[TickCheckpoint] = deque()

    def replace_detectors(self, detectors: Sequence[Detector]) -> None:
        """Use other detectors from the next tick on.

        Open events whose label is still scored continue; the others end at that tick. Detector states are migrated by
        `Detector.migrate_state`.
        """
        self._next_detectors = _by_kind(detectors)

    def step(self, tick: int, embeddings: Mapping[str, Embedding]) -> list[Event]:
        """Process the embeddings of one tick (ns), by sensor. Return the events to report, by kind and label.

        Call it in the order of the ticks, also for a tick that only some sensors have. `fused` is ignored. Raises
        `ValueError` if the tick is not later than the last one (after a clock jump, call `restart` first), or if the
        space is another one.
        """
        if self.last_tick is not None and tick <= self.last_tick:
            raise ValueError(f"tick {tick} does not follow {self.last_tick}: call restart() if the clock jumped back")
        unfused = self._unfused_embeddings(embeddings)
        events: list[Event] = []
        if self.last_tick is not None and tick - self.last_tick > self.max_gap:
            events += self._close(tick, self.last_tick)
        events += self._swap_detectors(tick)
        events += self._score_tick(tick, unfused)
        self.last_tick = tick
        self._drop_checkpoints()
        return events

    def accepts_late(self, tick: int) -> bool:
        """Whether `add_late_embeddings` processes those of this tick (ns)."""
        checkpoints = self._checkpoints
        return self.last_tick is not None and bool(checkpoints) and checkpoints[0].tick <= tick <= self.last_tick

    def add_late_embeddings(self, tick: int, late: Mapping[str, Embedding]) -> list[Event]:
        """Process late embeddings of an earlier tick. Return the changes of open events, reported at the newest tick.

        The result is as if they had arrived in time, but closed events do not change, an event that begins here names
        no predecessor, and none names an event that ends here. Embeddings of ticks without a checkpoint, or before
        the detectors were replaced, are ignored.
        """
        unfused = self._unfused_embeddings(late)
        if self.last_tick is None or not self.accepts_late(tick) or not unfused:
            return []
        reported, replayed = self._lifecycles, [c for c in self._checkpoints if c.tick >= tick]
        before = [c for c in self._checkpoints if c.tick < tick]
        if replayed[0].tick == tick:
            replayed[0] = replace(replayed[0], embeddings={**replayed[0].embeddings, **unfused})
        else:
            replayed.insert(0, replace(replayed[0], tick=tick, embeddings=unfused))
        self._checkpoints = deque(before)
        self._detector_states = dict(replayed[0].detector_states)
        self._lifecycles = {key: replace(lifecycle) for key, lifecycle in replayed[0].lifecycles.items()}
        last_in_interval = self._last_in_interval
        for checkpoint in replayed:
            self._score_tick(checkpoint.tick, checkpoint.embeddings)
        self._drop_checkpoints()
        self._last_in_interval = last_in_interval  # the ids of events in the replay may differ from those reported
        revised, self._lifecycles = self._lifecycles, reported
        events = []
        for key in sorted({*revised, *reported}):
            idle = self._new_lifecycle(key)
            lifecycle = reported.setdefault(key, idle)
            events += lifecycle.revise(self.last_tick, revised.get(key, idle))
            if lifecycle.is_unused:
                del reported[key]
        return events

    def finish(self) -> list[Event]:
        """Close the open events. They end at the last tick, or when their score fell below `offset_threshold`."""
        return [] if self.last_tick is None else self._close(self.last_tick, self.last_tick)

    def restart(self) -> list[Event]:
        """Close the open events and delete all states and baselines: for example after a clock jump."""
        events = self.finish()
        self._lifecycles.clear()
        self._last_in_interval = None
        if self._next_detectors is not None:
            self._detectors, self._next_detectors = self._next_detectors, None
        self._detector_states = {kind: d.initial_state() for kind, d in self._detectors.items()}
        self._checkpoints.clear()
        self.last_tick = None
        return events

    def _unfused_embeddings(self, present: Mapping[str, Embedding]) -> dict[str, Embedding]:
        """Return the embeddings without `fused`, and without those with NaN or infinity, which would stay in baselines.
        Raises `ValueError` if one is of another space."""
        unfused = {sensor: e for sensor, e in present.items() if sensor != FUSED and _is_finite(e)}
        for sensor, embedding in unfused.items():
            self.space = self.space or embedding.space
            if embedding.space != self.space:
                raise ValueError(
                    f"{sensor} is embedded in space '{embedding.space}', but the detectors use "
                    f"'{self.space}': use one space, and create new detectors when it changes"
                )
            self._sensors[sensor] = embedding.sensor, embedding.frame_id
        return unfused

    def _with_sensors(self, score: Score) -> Score:
        """Return the score with the names and frames of the sensors in its evidence."""
        sensors = [self._sensors.get(e.source, (e.sensor, "")) for e in score.evidence]
        evidence = (
            replace(e, sensor=sensor, frame_id=frame_id)
            for e, (sensor, frame_id) in zip(score.evidence, sensors, strict=True)
        )
        return replace(score, evidence=tuple(evidence))

    def _score_tick(self, tick: int, embeddings: Mapping[str, Embedding]) -> list[Event]:
        """Store a checkpoint, score one tick and step the lifecycles."""
        lifecycles = {key: replace(lifecycle) for key, lifecycle in self._lifecycles.items()}
        self._checkpoints.append(TickCheckpoint(tick, embeddings, dict(self._detector_states), lifecycles))
        events: list[Event] = []
        self.scores = {}
        fault, usable = self._detectors.get(EventKind.FAULT), embeddings
        if isinstance(fault, FaultDetector):
            usable = fault.without_natural_repeats(self._detector_states[EventKind.FAULT], tick, embeddings)
        for kind, detector in self._detectors.items():
            seen = embeddings if detector is fault else usable
            self._detector_states[kind], found = detector.score(self._detector_states[kind], tick, seen)
            scores = {label: self._with_sensors(score) for label, score in found.items()}
            self.scores[kind] = {label: s for label, s in scores.items() if detector.kind_of(label) is kind}
            for label in sorted(scores):
                key = kind, label
                if (
                    key not in self._lifecycles
                    and scores[label].score >= detector.lifecycle_options_for(label).onset_threshold
                ):
                    self._lifecycles[key] = self._new_lifecycle(key)
            stepped = [self._lifecycles[key] for key in sorted(k for k in self._lifecycles if k[0] is kind)]
            reports = [event for each in stepped for event in each.step(tick, scores.get(each.label, ZERO_SCORE))]
            events += self._with_predecessors(tick, stepped, reports)
            for lifecycle in stepped:
                if lifecycle.is_unused:
                    del self._lifecycles[kind, lifecycle.label]
        return events

    def _new_lifecycle(self, key: tuple[EventKind, str]) -> EventLifecycle:
        detector = self._detectors[key[0]]
        return EventLifecycle(detector.kind_of(key[1]), key[1], self.space, detector.lifecycle_options_for(key[1]))

    def _with_predecessors(
        self, tick: int, lifecycles: Sequence[EventLifecycle], reports: Sequence[Event]
    ) -> list[Event]:
        """Return the reports of one detector with those of events that got another name.

        An event that begins in the interval of another one continues it, if that has ended or is no longer above its
        onset threshold: then it ends now. If that one would begin at this tick itself, it is not reported.
        """
        by_label = {lifecycle.label: lifecycle for lifecycle in lifecycles}
        new = {report.id for report in reports if report.phase is EventPhase.ONSET}
        ended: list[Event] = []
        result: list[Event] = []
        for report in reports:
            lifecycle = by_label[report.label]
            if report.phase is EventPhase.ONSET and lifecycle.is_open and lifecycle.interval is not None:
                start = lifecycle.interval[0]
                for other in lifecycles:
                    is_renamed = (
                        other is not lifecycle
                        and other.is_open
                        and other.interval is not None
                        and other.interval[0] == start
                        and other.last_score.score < other.options.onset_threshold
                    )
                    if is_renamed:
                        ended += other.close(tick, tick)
                        if other.event_id not in new:
                            self._last_in_interval = start, other.label, other.event_id
                last = self._last_in_interval
                if last is not None and last[0] == start and last[1] != report.label:
                    lifecycle.predecessor = last[2]
                    report = replace(report, predecessor=lifecycle.predecessor)
            elif report.phase is EventPhase.OFFSET and lifecycle.interval is not None:
                self._last_in_interval = lifecycle.interval[0], report.label, report.id
            result.append(report)
        over = {event.id for event in ended}
        # Without what else they have to report at this tick: an update, or their onset.
        return [e for e in ended if e.id not in new] + [report for report in result if report.id not in over]

    def _drop_checkpoints(self) -> None:
        """Drop the checkpoints that are too old or too many."""
        oldest = (self.last_tick or 0) - self.allowed_lateness
        while len(self._checkpoints) > MAX_CHECKPOINTS or (self._checkpoints and self._checkpoints[0].tick < oldest):
            self._checkpoints.popleft()

    def _close(self, tick: int, offset: int) -> list[Event]:
        self._checkpoints.clear()  # late data must not reopen events that are closed here
        return [event for key in sorted(self._lifecycles) for event in self._lifecycles[key].close(tick, offset)]

    def _swap_detectors(self, tick: int) -> list[Event]:
        if self._next_detectors is None:
            return []
        old, self._detectors, self._next_detectors = self._detectors, self._next_detectors, None
        self._checkpoints.clear()
        self._detector_states = {
            kind: d.migrate_state(old[kind], self._detector_states[kind]) if kind in old else d.initial_state()
            for kind, d in self._detectors.items()
        }
        events: list[Event] = []
        for key in sorted(self._lifecycles):
            detector = self._detectors.get(key[0])
            if detector is not None and detector.has_label(key[1]):
                self._lifecycles[key].options = detector.lifecycle_options_for(key[1])
            else:
                events += self._lifecycles.pop(key).close(tick, tick)
        return events


def _is_finite(embedding: Embedding) -> bool:
    return math.isfinite(embedding.coverage) and bool(np.isfinite(embedding.vector).all())


def _by_kind(detectors: Sequence[Detector]) -> dict[EventKind, Detector]:
    kinds = {d.kind: d for d in sorted(detectors, key=lambda d: d.kind)}
    if len(kinds) != len(detectors):
        raise ValueError("an event tracker takes one detector of each kind: give all prompts to one PromptDetector")
    return kinds
