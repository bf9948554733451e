"""Reports on events (`Event`), and the events that are assembled from their reports (`EventInterval`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from sensebind.fusion.core.embeddings import sort_modalities, sort_sensors


class EventKind(IntEnum):
    """The constants of `sensebind_msgs/CrossModalEvent.kind`."""

    PROMPT = 0
    NOVELTY = 1
    DISAGREEMENT = 2
    FAULT = 3
    CHANGE = 4
    UNKNOWN = 5


class EventPhase(IntEnum):
    """The constants of `sensebind_msgs/CrossModalEvent.phase`."""

    ONSET = 0
    UPDATE = 1
    OFFSET = 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """The contribution of one sensor to an event, from its window `[start, tick)` in int nanoseconds.

    `score`, 0..1, is that of this sensor alone. `supports`: this modality supports the event. `coincides`: it
    supports the event only because something began in it at the same time; it does not recognise the label. `weight` is
    the weight of `score` in the score of the event. `competence` is how well this modality can recognise the label,
    0..1; 1 if not known. `sensor` and `frame_id` name the sensor. `region` is the region of the image, (x, y, width,
    height) in pixels. `bearing` is the horizontal angle from the forward axis of the sensor in rad, positive to the
    left (REP 103).
    """

    modality: str
    score: float
    supports: bool
    start: int
    tick: int
    weight: float = 1.0
    competence: float = 1.0
    coincides: bool = False
    sensor: str = ""
    frame_id: str = ""
    region: tuple[int, int, int, int] | None = None
    bearing: float | None = None

    @property
    def source(self) -> str:
        """The name of the sensor; without one, that of the modality, which has only one sensor."""
        return self.sensor or self.modality


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one label at one tick, 0..1, with the evidence of each modality.

    The score describes the time `timestamp_correction` ns before the tick. `interval` is the interval [start, end) in
    ns that it describes, if one was proposed: an event then begins and ends with it. If `timestamp_correction` is above
    0 too, the score describes only the part since then: another label explained the interval before. `similarities`,
    for prompts only, has one value for each item of `evidence`: the cosine similarity of the window and the best phrase
    of the label.
    """

    score: float
    evidence: tuple[Evidence, ...] = ()
    timestamp_correction: int = 0
    similarities: tuple[float, ...] = ()
    interval: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One report on an event. Times in int nanoseconds.

    `id` is the same from onset to offset: kind, label and the onset in the first report, as in
    ``prompt/person/1699999999500000000``. Late data may still correct `onset`.
    `onset` is the time at which the event began, and `offset` the time at which it ended (0 until then): the ticks of
    the first score at the onset threshold or above, and of the first lasting score below the offset threshold, each
    minus `Score.timestamp_correction`. `tick` is the stamp of this report; `score`, 0..1, and `evidence` are those of
    this tick. `predecessor` is the id of the event that this one continues under another label; empty if there is none.
    """

    id: str
    kind: EventKind
    label: str
    phase: EventPhase
    onset: int
    offset: int
    tick: int
    score: float
    space: str
    evidence: tuple[Evidence, ...] = ()
    predecessor: str = ""

    @property
    def supporting_sensors(self) -> tuple[str, ...]:
        """The names of the sensors that support the event at this tick, in the order of `evidence`."""
        return tuple(item.source for item in self.evidence if item.supports)


@dataclass(slots=True)
class EventInterval:
    """One event from onset to offset, assembled from its reports. Times in int nanoseconds.

    `offset` is None if no end was reported. `evidence_by_tick` holds (tick, evidence) of the ONSET and UPDATE reports.
    """

    id: str
    kind: EventKind
    label: str
    onset: int
    offset: int | None = None
    peak_score: float = 0.0
    evidence_by_tick: list[tuple[int, tuple[Evidence, ...]]] = field(default_factory=list)

    @property
    def modality_by_sensor(self) -> dict[str, str]:
        """Sensor → its modality, for the sensors that had a score in any report, in order of `sort_sensors`."""
        found = {item.source: item.modality for _, evidence in self.evidence_by_tick for item in evidence}
        return {sensor: found[sensor] for sensor in sort_sensors(found)}

    @property
    def score_by_sensor(self) -> dict[str, float]:
        """Supporting sensor → its highest score while it supported the event."""
        best = self._highest_scores(lambda evidence: evidence.source)
        return {sensor: best[sensor] for sensor in self.modality_by_sensor if sensor in best}

    @property
    def score_by_modality(self) -> dict[str, float]:
        """Supporting modality → the highest score of its sensors while they supported the event."""
        best = self._highest_scores(lambda evidence: evidence.modality)
        return {modality: best[modality] for modality in sort_modalities(best)}

    @property
    def place_by_sensor(self) -> dict[str, Evidence]:
        """Supporting sensor → its first evidence with a region."""
        found = self._first_places(lambda evidence: evidence.source)
        return {sensor: found[sensor] for sensor in self.modality_by_sensor if sensor in found}

    @property
    def place_by_modality(self) -> dict[str, Evidence]:
        """Supporting modality → its first evidence with a region, of any of its sensors."""
        found = self._first_places(lambda evidence: evidence.modality)
        return {modality: found[modality] for modality in sort_modalities(found)}

    def sensors_by_score(self) -> list[str]:
        """The supporting sensors, the highest score first."""
        scores = self.score_by_sensor
        return sorted(scores, key=lambda sensor: -scores[sensor])

    def _support(self) -> Iterator[Evidence]:
        """The evidence that supports the event, in order of time."""
        return (item for _, evidence in self.evidence_by_tick for item in evidence if item.supports)

    def _highest_scores(self, name_of: Callable[[Evidence], str]) -> dict[str, float]:
        best: dict[str, float] = {}
        for item in self._support():
            best[name_of(item)] = max(best.get(name_of(item), 0.0), item.score)
        return best

    def _first_places(self, name_of: Callable[[Evidence], str]) -> dict[str, Evidence]:
        found: dict[str, Evidence] = {}
        for item in self._support():
            if item.region is not None:
                found.setdefault(name_of(item), item)
        return found


def intervals_from_events(events: Iterable[Event]) -> list[EventInterval]:
    """Assemble reports, in any order, into intervals sorted by onset. A repeated report counts once.

    If an id begins again after its offset, as in a recording that is played twice, it is another interval.
    """
    found: list[EventInterval] = []
    current: dict[str, EventInterval] = {}
    seen_reports: set[tuple[str, EventPhase, int]] = set()
    for event in events:
        if (event.id, event.phase, event.tick) in seen_reports:
            continue
        seen_reports.add((event.id, event.phase, event.tick))
        item = current.get(event.id)
        if item is None or (item.offset is not None and event.phase is EventPhase.ONSET):
            item = current[event.id] = EventInterval(event.id, event.kind, event.label, event.onset)
            found.append(item)
        item.peak_score = max(item.peak_score, event.score)
        if event.phase is EventPhase.OFFSET:
            item.offset = event.offset
        else:
            item.evidence_by_tick.append((event.tick, event.evidence))
    for item in found:
        item.evidence_by_tick.sort(key=lambda report: report[0])
    return sorted(found, key=lambda item: (item.onset, item.kind, item.label))
