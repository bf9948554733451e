"""Reports on events (`Event`), and the events that are assembled from their reports (`EventInterval`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from sensebind.fusion.core.embeddings import sort_modalities


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
    """The contribution of one modality to an event, from its window `[start, tick)` in int nanoseconds.

    `score`, 0..1, is that of this modality alone. `supports`: this modality supports the event. `coincides`: it
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
    def score_by_modality(self) -> dict[str, float]:
        """Supporting modality → its highest score while it supported the event."""
        best: dict[str, float] = {}
        for _, evidence in self.evidence_by_tick:
            for item in evidence:
                if item.supports:
                    best[item.modality] = max(best.get(item.modality, 0.0), item.score)
        return {modality: best[modality] for modality in sort_modalities(best)}

    @property
    def place_by_modality(self) -> dict[str, Evidence]:
        """Supporting modality → its first evidence with a region."""
        found: dict[str, Evidence] = {}
        for _, evidence in self.evidence_by_tick:
            for item in evidence:
                if item.supports and item.region is not None:
                    found.setdefault(item.modality, item)
        return {modality: found[modality] for modality in sort_modalities(found)}

    def modalities_by_score(self) -> list[str]:
        """The supporting modalities, the highest score first."""
        scores = self.score_by_modality
        return sorted(scores, key=lambda m: -scores[m])


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
