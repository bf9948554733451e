"""How the scores of one label become an event that begins, lasts and ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Event, Kind, Phase, Score
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.scores import NOTHING

DURATION = (0.0, 3600.0)  # s


@dataclass(frozen=True, slots=True)
class LifeOptions(Options):
    """When an event begins and ends.

    Raises `ConfigError` for values that are out of bounds, or with which an event could never begin or end.
    """

    onset_threshold: float = parameter(
        0.6,
        "Onset threshold: score at which an event begins",
        bounds=(0.01, 0.99),
        formerly="on",
    )
    offset_threshold: float = parameter(
        0.35,
        "Offset threshold: score below which an event ends. At most `onset_threshold`",
        bounds=(0.01, 0.99),
        formerly="off",
    )
    min_duration: float = parameter(
        1.0,
        "Time that the score must stay at `offset_threshold` or above before the event is reported",
        bounds=DURATION,
        unit="s",
    )
    hold_time: float = parameter(
        1.0,
        "Hold time: time that the score must stay below `offset_threshold` before the end is reported",
        bounds=DURATION,
        unit="s",
        formerly="release",
    )
    refractory: float = parameter(
        0.0, "Time after an event's offset in which no event of the same label begins", bounds=DURATION, unit="s"
    )
    update_period: float = parameter(
        1.0, "Time from one UPDATE of an open event to the next. 0: every tick", bounds=DURATION, unit="s"
    )
    immediate_onset_threshold: float = parameter(
        1.0,
        "Immediate-onset threshold: score at which an event is reported without waiting for `min_duration`. At least "
        "`onset_threshold`",
        bounds=(0.01, 1.0),
        formerly="sure",
    )

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        onset, offset, immediate = self.onset_threshold, self.offset_threshold, self.immediate_onset_threshold
        if offset > onset:
            raise ConfigError(
                f"offset_threshold must be at most onset_threshold, and {offset:g} is more than {onset:g}"
            )
        if immediate < onset:
            raise ConfigError(
                f"immediate_onset_threshold must be at least onset_threshold, and {immediate:g} is less than {onset:g}"
            )


@dataclass(slots=True)
class Life:
    """The events of one label, one after the other: two thresholds and four times (`LifeOptions`).

    What a score does depends on the state:
    - idle: a score of `onset_threshold` or more, after the refractory period, makes the label pending. The onset is
      that tick minus the lead of its score.
    - pending: a score below `offset_threshold` makes it idle again. `min_duration` after the first tick, or at a score
      of `immediate_onset_threshold`, it becomes an event (ONSET).
    - event: after `hold_time` below `offset_threshold` it ends (OFFSET). The offset is the first of those ticks minus
      the lead. A higher score before that starts the hold time again. An UPDATE comes every `update_period`.
    """

    kind: Kind
    label: str
    space: str
    options: LifeOptions
    onset: int | None = None
    first: int = 0  # tick at which it became pending
    lead: int = 0  # of its last score of `offset_threshold` or more
    is_open: bool = False
    under: int | None = None  # first tick below `offset_threshold` of an open event
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
            if score.score < options.onset_threshold or paused:
                return []
            self.first = tick
            self.onset = tick - score.lead if self.ended is None else max(tick - score.lead, self.ended + 1)
        if score.score >= options.offset_threshold:
            self.lead = score.lead
        if not self.is_open:
            if score.score < options.offset_threshold:
                self.onset = None
                return []
            if tick - self.first < options.min_duration * SECOND and score.score < options.immediate_onset_threshold:
                return []
            return self._open(tick)
        if score.score >= options.offset_threshold:
            self.under = None
        else:
            self.under = tick if self.under is None else self.under
            if tick - self.under >= options.hold_time * SECOND:
                return self.close(tick, self.under)
        if tick - self.reported >= options.update_period * SECOND:
            self.reported = tick
            return [self._event(Phase.UPDATE, tick)]
        return []

    def close(self, tick: int, offset: int) -> list[Event]:
        """End it now, with `offset` as its end, or when it fell below `offset_threshold`. Forgets what is pending."""
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
