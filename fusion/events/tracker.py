"""A tick's embeddings in, events out: the detectors, their states, and the lives of their labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.lifecycle import EventLifecycle
from sensebind.fusion.events.scores import ZERO_SCORE

MAX_TICK_GAP = 10 * SECOND  # ns without a tick after which nobody can say that it is still the same event
ALLOWED_LATENESS = 5 * SECOND  # ns; vectors of ticks this much older than the newest still correct what is open


@dataclass(frozen=True, slots=True)
class TickCheckpoint:
    """A tick that was stepped, its embeddings, and the states and lives before it."""

    tick: int
    embeddings: Mapping[str, Embedding]
    detector_states: Mapping[EventKind, Any]
    lifecycles: Mapping[tuple[EventKind, str], EventLifecycle]


class EventTracker:
    """The end of the line from samples to events. The same ticks give the same events, with the same ids.

    `detectors` hold one of a kind at most; `space` is the id of the space that their phrases were embedded in
    (empty: taken from the first embedding). What it remembers is bounded: per modality by the detectors'
    states, per label by one `EventLifecycle`.
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
        self.lateness = allowed_lateness
        self.last_tick: int | None = None  # newest tick
        self.scores: dict[EventKind, Mapping[str, Score]] = {}  # of the newest tick, by label
        self._detectors: dict[EventKind, Detector] = _by_kind(detectors)
        self._detector_states: dict[EventKind, Any] = {kind: d.initial_state() for kind, d in self._detectors.items()}
        self._lifecycles: dict[tuple[EventKind, str], EventLifecycle] = {}
        self._next_detectors: dict[EventKind, Detector] | None = None
        self._sensors: dict[str, tuple[str, str]] = {}  # modality → sensor and frame_id of its newest embedding
        self._checkpoints: deque[TickCheckpoint] = deque()  # of the last `allowed_lateness` and these detectors

    def replace_detectors(self, detectors: Sequence[Detector]) -> None:
        """Other detectors from the next tick on. Open events whose label is still scored go on, others end there.

        What is usual in the stream is carried over where it still has the same meaning.
        """
        self._next_detectors = _by_kind(detectors)

    def step(self, tick: int, embeddings: Mapping[str, Embedding]) -> list[Event]:
        """One tick's embeddings (`fused` is passed over) → the events to report, by kind and label.

        Call it in order of ticks, also for a tick that only some modalities have. Raises `ValueError` where the
        tick does not follow the last (a clock that jumped back: call `restart` first), or the space is another.
        """
        if self.last_tick is not None and tick <= self.last_tick:
            raise ValueError(
                f"tick {tick} does not follow {self.last_tick}: call restart() where the clock jumped back"
            )
        senses = self._sensor_embeddings(embeddings)
        events: list[Event] = []
        if self.last_tick is not None and tick - self.last_tick > self.max_gap:
            events += self._close(tick, self.last_tick)
        events += self._swap_detectors(tick)
        events += self._score_tick(tick, senses)
        self.last_tick = tick
        while self._checkpoints[0].tick < tick - self.lateness:
            self._checkpoints.popleft()
        return events

    def add_late_embeddings(self, tick: int, late: Mapping[str, Embedding]) -> list[Event]:
        """Embeddings of a tick that has passed → what they change of open events, reported at the newest tick.

        All is as if they had come in time, but for events that are closed: those stay as they were told. What came
        over `allowed_lateness` ago, or before other detectors took over, changes nothing.
        """
        senses = self._sensor_embeddings(late)
        if (
            self.last_tick is None
            or tick > self.last_tick
            or not self._checkpoints
            or tick < self._checkpoints[0].tick
            or not senses
        ):
            return []
        told, replayed = self._lifecycles, [m for m in self._checkpoints if m.tick >= tick]
        before = [m for m in self._checkpoints if m.tick < tick]
        if replayed[0].tick == tick:
            replayed[0] = replace(replayed[0], embeddings={**replayed[0].embeddings, **senses})
        else:
            replayed.insert(0, replace(replayed[0], tick=tick, embeddings=senses))
        self._checkpoints = deque(before)
        self._detector_states = dict(replayed[0].detector_states)
        self._lifecycles = {key: replace(lifecycle) for key, lifecycle in replayed[0].lifecycles.items()}
        ended: dict[tuple[EventKind, str], EventLifecycle] = {}
        for moment in replayed:
            self._score_tick(moment.tick, moment.embeddings, ended)
        found, self._lifecycles = self._lifecycles, told
        events = []
        for key in sorted({*found, *told}):
            blank = EventLifecycle(key[0], key[1], self.space, self._detectors[key[0]].lifecycle_options)
            lifecycle = told.setdefault(key, blank)
            # Of a life that was forgotten since, what matters is when it ended.
            events += lifecycle.revise(self.last_tick, found.get(key) or ended.get(key) or blank)
            if lifecycle.is_inactive(self.last_tick):
                del told[key]
        return events

    def finish(self) -> list[Event]:
        """Close the open events: they end at the last tick, or where their score had already fallen."""
        return [] if self.last_tick is None else self._close(self.last_tick, self.last_tick)

    def restart(self) -> list[Event]:
        """Time starts afresh, as after a jump of the clock: close the open events, forget the stream's past."""
        events = self.finish()
        self._lifecycles.clear()
        if self._next_detectors is not None:
            self._detectors, self._next_detectors = self._next_detectors, None
        self._detector_states = {kind: d.initial_state() for kind, d in self._detectors.items()}
        self._checkpoints.clear()
        self.last_tick = None
        return events

    def _sensor_embeddings(self, present: Mapping[str, Embedding]) -> dict[str, Embedding]:
        """The senses, without `fused`. Raises `ValueError` for those of another space."""
        senses = {m: e for m, e in present.items() if m != FUSED}
        for modality, embedding in senses.items():
            self.space = self.space or embedding.space
            if embedding.space != self.space:
                raise ValueError(
                    f"{modality} is embedded in space '{embedding.space}' and the events are told in "
                    f"'{self.space}': use one space, and start the detectors afresh when it changes"
                )
            self._sensors[modality] = embedding.sensor, embedding.frame_id
        return senses

    def _named(self, score: Score) -> Score:
        """With the sensors in its evidence."""
        sensors = [self._sensors.get(e.modality, ("", "")) for e in score.evidence]
        evidence = (
            replace(e, sensor=sensor, frame_id=frame_id)
            for e, (sensor, frame_id) in zip(score.evidence, sensors, strict=True)
        )
        return replace(score, evidence=tuple(evidence))

    def _score_tick(
        self,
        tick: int,
        senses: Mapping[str, Embedding],
        inactive: dict[tuple[EventKind, str], EventLifecycle] | None = None,
    ) -> list[Event]:
        """Score one tick and let the lives go on; remembers what was before. Lives that are spent go to `inactive`."""
        lives = {key: replace(lifecycle) for key, lifecycle in self._lifecycles.items()}
        self._checkpoints.append(TickCheckpoint(tick, senses, dict(self._detector_states), lives))
        events: list[Event] = []
        self.scores = {}
        for kind, detector in self._detectors.items():
            self._detector_states[kind], found = detector.score(self._detector_states[kind], tick, senses)
            scores = {label: self._named(score) for label, score in found.items()}
            self.scores[kind] = scores
            for label in sorted(scores):
                key = kind, label
                if key not in self._lifecycles:
                    if scores[label].score < detector.lifecycle_options.onset_threshold:
                        continue
                    self._lifecycles[key] = EventLifecycle(kind, label, self.space, detector.lifecycle_options)
            for key in sorted(k for k in self._lifecycles if k[0] is kind):
                lifecycle = self._lifecycles[key]
                events += lifecycle.step(tick, scores.get(key[1], ZERO_SCORE))
                if lifecycle.is_inactive(tick):
                    del self._lifecycles[key]
                    if inactive is not None:
                        inactive[key] = lifecycle
        return events

    def _close(self, tick: int, offset: int) -> list[Event]:
        self._checkpoints.clear()  # what is closed here, late data cannot open again
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
                self._lifecycles[key].options = detector.lifecycle_options
            else:
                events += self._lifecycles.pop(key).close(tick, tick)
        return events


def _by_kind(detectors: Sequence[Detector]) -> dict[EventKind, Detector]:
    kinds = {d.kind: d for d in sorted(detectors, key=lambda d: d.kind)}
    if len(kinds) != len(detectors):
        raise ValueError("an event line holds one detector of a kind: give all prompts to one PromptDetector")
    return kinds
