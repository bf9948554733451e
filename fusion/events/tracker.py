"""A tick's embeddings in, events out: the detectors, their states, and the lives of their labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, Kind, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.lifecycle import Life
from sensebind.fusion.events.scores import NOTHING

MAX_GAP = 10 * SECOND  # ns without a tick after which nobody can say that it is still the same event
LATENESS = 5 * SECOND  # ns; vectors of ticks this much older than the newest still correct what is open


@dataclass(frozen=True, slots=True)
class Moment:
    """A tick that was stepped, its embeddings, and the states and lives before it."""

    tick: int
    senses: Mapping[str, Embedding]
    states: Mapping[Kind, Any]
    lives: Mapping[tuple[Kind, str], Life]


class EventLine:
    """The end of the line from samples to events. The same ticks give the same events, with the same ids.

    `detectors` hold one of a kind at most; `space` is the id of the space that their phrases were embedded in
    (empty: taken from the first embedding). What it remembers is bounded: per modality by the detectors'
    states, per label by one `Life`.
    """

    def __init__(
        self, detectors: Sequence[Detector], space: str = "", max_gap: int = MAX_GAP, lateness: int = LATENESS
    ) -> None:
        self.space = space
        self.max_gap = max_gap
        self.lateness = lateness
        self.last: int | None = None  # newest tick
        self.scores: dict[Kind, Mapping[str, Score]] = {}  # of the newest tick, by label
        self._detectors: dict[Kind, Detector] = _by_kind(detectors)
        self._states: dict[Kind, Any] = {kind: d.start() for kind, d in self._detectors.items()}
        self._lives: dict[tuple[Kind, str], Life] = {}
        self._next: dict[Kind, Detector] | None = None
        self._sensors: dict[str, tuple[str, str]] = {}  # modality → sensor and frame_id of its newest embedding
        self._moments: deque[Moment] = deque()  # of the last `lateness`, under the present detectors

    def configure(self, detectors: Sequence[Detector]) -> None:
        """Other detectors from the next tick on. Open events whose label is still scored go on, others end there.

        What is usual in the stream is carried over where it still has the same meaning.
        """
        self._next = _by_kind(detectors)

    def step(self, tick: int, present: Mapping[str, Embedding]) -> list[Event]:
        """One tick's embeddings (`fused` is passed over) → the events to report, by kind and label.

        Call it in order of ticks, also for a tick that only some modalities have. Raises `ValueError` where the
        tick does not follow the last (a clock that jumped back: call `restart` first), or the space is another.
        """
        if self.last is not None and tick <= self.last:
            raise ValueError(f"tick {tick} does not follow {self.last}: call restart() where the clock jumped back")
        senses = self._checked(present)
        events: list[Event] = []
        if self.last is not None and tick - self.last > self.max_gap:
            events += self._close(tick, self.last)
        events += self._reconfigured(tick)
        events += self._advance(tick, senses)
        self.last = tick
        while self._moments[0].tick < tick - self.lateness:
            self._moments.popleft()
        return events

    def amend(self, tick: int, late: Mapping[str, Embedding]) -> list[Event]:
        """Embeddings of a tick that has passed → what they change of open events, reported at the newest tick.

        All is as if they had come in time, but for events that are closed: those stay as they were told. What came
        over `lateness` ago, or before other detectors took over, changes nothing.
        """
        senses = self._checked(late)
        if self.last is None or tick > self.last or not self._moments or tick < self._moments[0].tick or not senses:
            return []
        told, again = self._lives, [m for m in self._moments if m.tick >= tick]
        before = [m for m in self._moments if m.tick < tick]
        if again[0].tick == tick:
            again[0] = replace(again[0], senses={**again[0].senses, **senses})
        else:
            again.insert(0, replace(again[0], tick=tick, senses=senses))
        self._moments = deque(before)
        self._states = dict(again[0].states)
        self._lives = {key: replace(life) for key, life in again[0].lives.items()}
        ended: dict[tuple[Kind, str], Life] = {}
        for moment in again:
            self._advance(moment.tick, moment.senses, ended)
        found, self._lives = self._lives, told
        events = []
        for key in sorted({*found, *told}):
            blank = Life(key[0], key[1], self.space, self._detectors[key[0]].life)
            life = told.setdefault(key, blank)
            # Of a life that was forgotten since, what matters is when it ended.
            events += life.amend(self.last, found.get(key) or ended.get(key) or blank)
            if life.spent(self.last):
                del told[key]
        return events

    def finish(self) -> list[Event]:
        """Close the open events: they end at the last tick, or where their score had already fallen."""
        return [] if self.last is None else self._close(self.last, self.last)

    def restart(self) -> list[Event]:
        """Time starts afresh, as after a jump of the clock: close the open events, forget the stream's past."""
        events = self.finish()
        self._lives.clear()
        if self._next is not None:
            self._detectors, self._next = self._next, None
        self._states = {kind: d.start() for kind, d in self._detectors.items()}
        self._moments.clear()
        self.last = None
        return events

    def _checked(self, present: Mapping[str, Embedding]) -> dict[str, Embedding]:
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

    def _advance(
        self, tick: int, senses: Mapping[str, Embedding], forgotten: dict[tuple[Kind, str], Life] | None = None
    ) -> list[Event]:
        """Score one tick and let the lives go on; remembers what was before. Lives that are spent go to `forgotten`."""
        lives = {key: replace(life) for key, life in self._lives.items()}
        self._moments.append(Moment(tick, senses, dict(self._states), lives))
        events: list[Event] = []
        self.scores = {}
        for kind, detector in self._detectors.items():
            self._states[kind], found = detector.score(self._states[kind], tick, senses)
            scores = {label: self._named(score) for label, score in found.items()}
            self.scores[kind] = scores
            for label in sorted(scores):
                key = kind, label
                if key not in self._lives:
                    if scores[label].score < detector.life.onset_threshold:
                        continue
                    self._lives[key] = Life(kind, label, self.space, detector.life)
            for key in sorted(k for k in self._lives if k[0] is kind):
                life = self._lives[key]
                events += life.step(tick, scores.get(key[1], NOTHING))
                if life.spent(tick):
                    del self._lives[key]
                    if forgotten is not None:
                        forgotten[key] = life
        return events

    def _close(self, tick: int, offset: int) -> list[Event]:
        self._moments.clear()  # what is closed here, late data cannot open again
        return [event for key in sorted(self._lives) for event in self._lives[key].close(tick, offset)]

    def _reconfigured(self, tick: int) -> list[Event]:
        if self._next is None:
            return []
        old, self._detectors, self._next = self._detectors, self._next, None
        self._moments.clear()
        self._states = {
            kind: d.adopt(old[kind], self._states[kind]) if kind in old else d.start()
            for kind, d in self._detectors.items()
        }
        events: list[Event] = []
        for key in sorted(self._lives):
            detector = self._detectors.get(key[0])
            if detector is not None and detector.knows(key[1]):
                self._lives[key].options = detector.life
            else:
                events += self._lives.pop(key).close(tick, tick)
        return events


def _by_kind(detectors: Sequence[Detector]) -> dict[Kind, Detector]:
    kinds = {d.kind: d for d in sorted(detectors, key=lambda d: d.kind)}
    if len(kinds) != len(detectors):
        raise ValueError("an event line holds one detector of a kind: give all prompts to one PromptDetector")
    return kinds
