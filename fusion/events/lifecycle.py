"""What an event is, how the evidence of several senses adds up, and how an event begins, lasts and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import SECOND

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Kind(IntEnum):
    """The constants of `sensebind_msgs/CrossModalEvent.kind`."""

    PROMPT = 0
    NOVELTY = 1
    DISAGREEMENT = 2
    FAULT = 3
    CHANGE = 4


class Phase(IntEnum):
    """The constants of `sensebind_msgs/CrossModalEvent.phase`."""

    ONSET = 0
    UPDATE = 1
    OFFSET = 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one sense says of an event: `score` is 0..1, the window behind it `[start, tick)` in int nanoseconds."""

    modality: str
    score: float
    supports: bool
    start: int
    tick: int


@dataclass(frozen=True, slots=True)
class Event:
    """One report on something that begins, lasts and ends. Times in int nanoseconds.

    `id` is the same from onset to offset: kind, label and the onset told first, as in
    ``prompt/person/1699999999500000000``. Data that come late may still correct `onset`.
    `onset` is when it began and `offset` when it was over (0 until then): the first ticks that said so, less the
    lead of their scores (`Score.lead`). `tick` is the stamp of this report, whose `score` 0..1 and `evidence` it
    carries.
    """

    id: str
    kind: Kind
    label: str
    phase: Phase
    onset: int
    offset: int
    tick: int
    score: float
    space: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """How sure a detector is of one label at one tick, 0..1, and why; `lead` ns before the tick is what it tells of."""

    score: float
    evidence: tuple[Evidence, ...] = ()
    lead: int = 0


NOTHING = Score(0.0)
LONGEST_LEAD = SECOND  # ns


def lead(evidence: Sequence[Evidence]) -> int:
    """How long before the tick (ns) that is which the surest sense tells of: `half_window` of its window."""
    surest = max(evidence, key=lambda e: e.score, default=None)
    return 0 if surest is None else half_window(surest.start, surest.tick)


def half_window(start: int, tick: int) -> int:
    """Half of a window (ns), 1 s at most: how long before its end that is which it tells of.

    Half of a window must hold a thing before its vector is as like it as not, and again when it is over: so on the
    whole, a score is that of the window's middle.
    """
    return min((tick - start) // 2, LONGEST_LEAD)


def check(options: object, name: str, low: float, high: float) -> None:
    """Raise `ValueError` unless the field is a number from `low` to `high`."""
    value = getattr(options, name)
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, not {value!r}")


@dataclass(frozen=True, slots=True)
class LifeOptions:
    """When an event begins and ends. Scores 0..1, times in seconds.

    Raises `ValueError` for values with which an event could never begin or end.
    """

    on: float = 0.6  # 0..1: it begins where the score reaches this
    off: float = 0.35  # 0..on: it is over where the score falls below this
    min_duration: float = 1.0  # 0..3600: it is reported once it has lasted so long
    release: float = 1.0  # 0..3600: it is over once the score has stayed below `off` so long
    refractory: float = 0.0  # 0..3600: no new one of the same label begins so soon after the last one's offset
    update_period: float = 1.0  # 0..3600: from one update to the next; 0: every tick
    sure: float = 1.0  # on..1: a score that reaches this is reported at once, before `min_duration`

    def __post_init__(self) -> None:
        if not 0 < self.off <= self.on < 1:
            raise ValueError(f"off and on must be 0 < off <= on < 1, not {self.off:g} and {self.on:g}")
        check(self, "sure", self.on, 1)
        for name in ("min_duration", "release", "refractory", "update_period"):
            check(self, name, 0, 3600)


@dataclass(frozen=True, slots=True)
class WitnessOptions:
    """What the detectors that ask several senses have in common. Times in seconds.

    Raises `ValueError` for values out of range.
    """

    threshold: float = 4.0  # 0..20: deviations from the usual at which one sense's score is one half
    slope: float = 1.5  # 0.1..10: nats of score per deviation
    memory: float = 60.0  # 1..86400: over how long the usual is averaged
    staleness: float = 3.0  # 0.05..3600: how long a sense's last score stands when no new window of it ends
    prior: float = 0.02  # 0..off/2: the score where no sense says anything
    support: float = 0.3  # 0..off: a sense with this score supports the event
    reliability: Mapping[str, float] = field(default_factory=dict)  # 0..10 per modality, 1 where it says nothing
    life: LifeOptions = LifeOptions()

    def __post_init__(self) -> None:
        check(self, "threshold", 0, 20)
        check(self, "slope", 0.1, 10)
        check(self, "memory", 1, 86400)
        check(self, "staleness", 0.05, 3600)
        check(self, "prior", 1e-6, self.life.off / 2)  # else a silent stream would keep an event open
        check(self, "support", 1e-6, self.life.off)
        for modality, weight in self.reliability.items():
            if not 0 <= weight <= 10:
                raise ValueError(f"reliability of '{modality}' must be 0 to 10, not {weight:g}")


@dataclass(slots=True)
class Life:
    """The life of one label's events: two thresholds, a shortest duration, a release and a pause (`LifeOptions`).

    What a score does depends on what was before:
    - nothing is there: a score of `on` or more, past the pause, makes it pending, with that tick as its first and
      with that tick less the score's lead as its onset;
    - pending: a score below `off` forgets it, `min_duration` since the first tick makes it an event (ONSET);
    - an event: after `release` below `off` it is over (OFFSET), at the first of those ticks less the lead; a score of
      `off` or more before that takes the release back. Updates come every `update_period`.
    """

    kind: Kind
    label: str
    space: str
    options: LifeOptions
    onset: int | None = None
    first: int = 0  # tick at which it became pending
    lead: int = 0  # of its last score of `off` or more
    is_open: bool = False
    under: int | None = None  # first tick below `off` of an open event
    reported: int = 0
    ended: int | None = None
    named: int | None = None  # the onset in an open event's id: the one that was told first
    last: Score = field(default=NOTHING)

    def step(self, tick: int, score: Score) -> list[Event]:
        """One tick's score → no event or one."""
        options = self.options
        self.last = score
        if self.onset is None:
            paused = self.ended is not None and tick - self.ended < options.refractory * SECOND
            if score.score < options.on or paused:
                return []
            self.first = tick
            self.onset = tick - score.lead if self.ended is None else max(tick - score.lead, self.ended + 1)
        if score.score >= options.off:
            self.lead = score.lead
        if not self.is_open:
            if score.score < options.off:
                self.onset = None
                return []
            if tick - self.first < options.min_duration * SECOND and score.score < options.sure:
                return []
            return self._open(tick)
        if score.score >= options.off:
            self.under = None
        else:
            self.under = tick if self.under is None else self.under
            if tick - self.under >= options.release * SECOND:
                return self.close(tick, self.under)
        if tick - self.reported >= options.update_period * SECOND:
            self.reported = tick
            return [self._event(Phase.UPDATE, tick)]
        return []

    def close(self, tick: int, offset: int) -> list[Event]:
        """End it now, with `offset` as its end, or when it fell below `off`. Forgets what is pending."""
        events = []
        if self.is_open:
            assert self.onset is not None
            self.ended = offset if self.under is None else max(self.under - self.lead, self.onset)
            events.append(self._event(Phase.OFFSET, tick, self.ended))
        self.onset, self.is_open, self.under, self.named = None, False, None, None
        return events

    def amend(self, tick: int, now: Life) -> list[Event]:
        """What `now`, the same label's life as it would be with data that came late, means for the event told so far.

        An open event goes on under its id with what is known now, or ends if it turns out to be over, or (offset =
        onset) never to have been. What is closed stays as it was told: nothing that overlaps it opens.
        """
        if self.is_open:
            if now.is_open:
                assert now.onset is not None
                onset = self.onset if self.ended is not None and now.onset <= self.ended else now.onset
                changed = onset != self.onset or now.last != self.last
                self.onset, self.under, self.last, self.lead = onset, now.under, now.last, now.lead
                if not changed:
                    return []
                self.reported = tick
                return [self._event(Phase.UPDATE, tick)]
            assert self.onset is not None
            over = now.ended if now.ended is not None and now.ended >= self.onset else self.onset
            self.under, self.last = None, now.last
            events = self.close(tick, over)
            if now.onset is not None and now.onset > over:
                self.onset, self.first, self.lead = now.onset, now.first, now.lead
            return events
        if now.onset is not None and self.ended is not None and now.onset <= self.ended:
            self.onset = None
            return []
        self.onset, self.under, self.last = now.onset, now.under, now.last
        self.first, self.lead = now.first, now.lead
        return self._open(tick) if now.is_open else []

    def spent(self, tick: int) -> bool:
        """Whether nothing is open, pending or pausing, so that it can be forgotten."""
        pausing = self.ended is not None and tick - self.ended < self.options.refractory * SECOND
        return self.onset is None and not pausing

    def _open(self, tick: int) -> list[Event]:
        self.is_open, self.reported, self.named = True, tick, self.onset
        return [self._event(Phase.ONSET, tick)]

    def _event(self, phase: Phase, tick: int, offset: int = 0) -> Event:
        assert self.onset is not None
        identity = f"{self.kind.name.lower()}/{self.label}/{self.named}"
        score, evidence = self.last.score, self.last.evidence
        return Event(identity, self.kind, self.label, phase, self.onset, offset, tick, score, self.space, evidence)


class Detector(Protocol):
    """Scores labels, tick by tick. It holds options only; all that time needs is in the state it is given."""

    @property
    def kind(self) -> Kind: ...

    @property
    def life(self) -> LifeOptions: ...

    def knows(self, label: str) -> bool:
        """Whether it still scores this label: an open event of one that it does not is closed."""

    def start(self) -> Any:
        """The state before the first tick."""

    def adopt(self, old: Detector, state: Any) -> Any:
        """The state with which this detector takes over from another of its kind."""

    def score(self, state: Any, tick: int, present: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        """(state, tick in ns, the tick's embeddings) → (new state, label → score). Labels left out score 0."""


def logistic(x: npt.ArrayLike) -> Array:
    """1 / (1 + e^−x), without overflow."""
    clipped = np.clip(np.asarray(x, np.float64), -60.0, 60.0)
    return np.asarray(1.0 / (1.0 + np.exp(-clipped)))


def logit(p: npt.ArrayLike) -> Array:
    """The inverse of `logistic`; 0 and 1 count as 1e-9 from there."""
    inside = np.clip(np.asarray(p, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1.0 - inside)))


DOUBT = 1.0  # nats that one sense, noticing nothing, may take from the others
CERTAINTY = 8.0  # nats that one sense may give


def pool(scores: npt.ArrayLike, weights: npt.ArrayLike, prior: float) -> Array:
    """Scores of M senses for L labels, (M, L) in 0..1, and their weights (M,) → (L,) in 0..1: `add_up` of what each
    score says beyond the prior. With weight 1 and one sense, p is its score; weight 0 leaves it out."""
    gains = logit(scores) - float(logit(prior))
    return add_up(gains, np.asarray(weights, np.float64)[:, None], prior, DOUBT)


def add_up(gains: Array, weights: npt.ArrayLike, prior: npt.ArrayLike, doubt: npt.ArrayLike) -> Array:
    """Log likelihood ratios (M, L) of M senses for L labels → probabilities (L,). `prior` is one or (L,).

    Log-odds add up, as for independent witnesses (Genest and Zidek, "Combining probability distributions",
    1986, with the prior counted once): logit p = logit prior + Σ w·gain. A sense that notices nothing lowers the sum by
    `doubt` at most: a microphone that hears no dog hardly speaks against the dog that the camera sees. M = 0 gives the
    prior.
    """
    held = np.clip(gains, -np.asarray(doubt, np.float64), CERTAINTY)
    return logistic(logit(prior) + np.sum(np.asarray(weights, np.float64) * held, axis=0))


@dataclass(frozen=True, slots=True)
class Level:
    """What some numbers, (L,), usually are: running mean, running deviation, and the seconds that they stand on."""

    mean: Array
    deviation: Array
    age: Array

    @classmethod
    def blank(cls, size: int) -> Level:
        return cls(np.zeros(size), np.zeros(size), np.zeros(size))

    def follow(self, values: Array, seconds: float, memory: float, floor: float, held: Flags | None = None) -> Level:
        """The level after `values` (L,), which stand for `seconds`. Where `held` is true it stays as it was.

        A plain average until it is `memory` seconds old, from then on an exponentially forgetting one. A value
        further than three deviations (of `floor` at least) counts as one at three: Huber's influence function,
        so one outlier does not move it. The deviation is 1.2533 times the mean absolute one, that of a Gaussian.
        """
        share = np.maximum(seconds / (self.age + seconds), 1.0 - np.exp(-seconds / memory))
        new = self.age == 0
        reach = 3.0 * np.maximum(self.deviation, floor)
        step = np.where(new, values - self.mean, np.clip(values - self.mean, -reach, reach))
        mean = self.mean + share * step
        # A level on its first value knows no spread yet.
        spread = np.where(new, 0.0, 1.2533 * np.abs(step))
        deviation = self.deviation + share * (spread - self.deviation)
        age = np.minimum(self.age + seconds, memory)
        if held is None:
            return Level(mean, deviation, age)
        return Level(
            np.where(held, self.mean, mean),
            np.where(held, self.deviation, deviation),
            np.where(held, self.age, age),
        )
