"""The event lifecycle: makes events with onset, updates and offset of the scores of one label."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Score
from sensebind.fusion.core.parameters import Effect, Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.scores import ZERO_SCORE

DURATION_BOUNDS = (0.0, 3600.0)  # s


@dataclass(frozen=True, slots=True)
class LifecycleOptions(Options):
    """When an event begins and ends.

    Raises `ConfigError` for values that are out of bounds, or if an event could never begin or end.
    """

    effect = Effect.AT_ONCE

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
        "Time after the onset in which the score must stay at `offset_threshold` or above before the event is "
        "reported. The onset is half a window before the first tick, or the start of a named interval",
        bounds=DURATION_BOUNDS,
        unit="s",
    )
    hold_time: float = parameter(
        1.0,
        "Hold time: time that the score must stay below `offset_threshold` before the end is reported",
        bounds=DURATION_BOUNDS,
        unit="s",
        formerly="release",
    )
    refractory: float = parameter(
        0.0, "Time after an event's offset in which no event of the same label begins", bounds=DURATION_BOUNDS, unit="s"
    )
    update_period: float = parameter(
        1.0, "Time from one UPDATE of an open event to the next. 0: every tick", bounds=DURATION_BOUNDS, unit="s"
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


@lru_cache(maxsize=1024)
def with_onset_threshold(options: LifecycleOptions, onset_threshold: float) -> LifecycleOptions:
    """Return the options with another onset threshold, and the other two thresholds moved along.

    `offset_threshold` keeps its ratio to the onset threshold, but is at least 0.01. `immediate_onset_threshold` is at
    least the onset threshold. Raises `ConfigError` for a threshold that is out of bounds.
    """
    return replace(
        options,
        onset_threshold=onset_threshold,
        offset_threshold=max(options.offset_threshold * onset_threshold / options.onset_threshold, 0.01),
        immediate_onset_threshold=max(options.immediate_onset_threshold, onset_threshold),
    )


@dataclass(slots=True)
class EventLifecycle:
    """The successive events of one label. The thresholds and times are in `LifecycleOptions`.

    The label has one of three states:
    - idle: a score of `onset_threshold` or more, after the refractory period, makes the label pending. The onset is
      that tick minus the `Score.timestamp_correction`, or the start of the `Score.interval` if no other event of the
      label was in it.
    - pending: a score below `offset_threshold` makes it idle again. `min_duration` after the onset, or at a score of
      `immediate_onset_threshold`, the event is reported (ONSET).
    - open: after `hold_time` below `offset_threshold` the event ends (OFFSET). The offset is the first of those ticks
      minus the `Score.timestamp_correction` of the last higher score, or the end of its `Score.interval`. A score of
      `offset_threshold` or more before that resets the hold time. An UPDATE is reported every `update_period`.
    """

    kind: EventKind
    label: str
    space: str
    options: LifecycleOptions
    onset: int | None = None
    pending_since: int = 0  # ns, the onset as it was when the label became pending
    timestamp_correction: int = 0  # ns, of the last score of `offset_threshold` or more
    is_open: bool = False
    below_offset_since: int | None = None  # first tick below `offset_threshold` of an open event
    last_report: int = 0
    last_offset: int | None = None
    id_onset: int | None = None  # the onset in the id of the open event: that of the first report
    last_score: Score = field(default=ZERO_SCORE)
    interval: tuple[int, int] | None = None  # ns, of the last score of `offset_threshold` or more
    predecessor: str = ""  # id of the event that the open one continues

    @property
    def event_id(self) -> str:
        """The id of the open event, or of the last one."""
        return f"{self.kind.name.lower()}/{self.label}/{self.id_onset}"

    def step(self, tick: int, score: Score) -> list[Event]:
        """Process the score of one tick. Return the event to report, if there is one."""
        options = self.options
        self.last_score = score
        if self.onset is None:
            if score.score < options.onset_threshold or self._is_refractory(tick):
                return []
            began = self.pending_since = tick - score.timestamp_correction
            whole = score.interval if score.timestamp_correction == 0 else None
            if whole is not None and (self.last_offset is None or whole[0] > self.last_offset):
                began = self.pending_since = whole[0]  # else another event of the label was in the interval
            self.onset = began if self.last_offset is None else max(began, self.last_offset + 1)
        if score.score >= options.offset_threshold:
            self.timestamp_correction = score.timestamp_correction if score.interval is None else 0
            self.interval = score.interval
        if not self.is_open:
            if score.score < options.offset_threshold:
                self.onset = None
                return []
            if (
                tick - self.pending_since < options.min_duration * SECOND
                and score.score < options.immediate_onset_threshold
            ):
                return []
            return self._open(tick)
        if score.score >= options.offset_threshold:
            self.below_offset_since = None
        else:
            if self.below_offset_since is None:
                # An interval ended before it was known that it had.
                self.below_offset_since = tick if self.interval is None else min(self.interval[1], tick)
            if tick - self.below_offset_since >= options.hold_time * SECOND:
                return self.close(tick, self.below_offset_since)
        if tick - self.last_report >= options.update_period * SECOND:
            self.last_report = tick
            return [self._event(EventPhase.UPDATE, tick)]
        return []

    def close(self, tick: int, offset: int) -> list[Event]:
        """Make the label idle. An open event ends at `offset`, or when its score fell below `offset_threshold`."""
        events = []
        if self.is_open:
            assert self.onset is not None
            self.last_offset = (
                offset
                if self.below_offset_since is None
                else max(self.below_offset_since - self.timestamp_correction, self.onset)
            )
            events.append(self._event(EventPhase.OFFSET, tick, self.last_offset))
        self.onset, self.is_open, self.below_offset_since, self.predecessor = None, False, None, ""
        return events

    def revise(self, tick: int, revised: EventLifecycle) -> list[Event]:
        """Take over `revised`, the lifecycle of the same label recomputed with late data. Return the events to report.

        If `revised` is open, an open event continues with its values under the same id. Otherwise the open event ends
        at the revised offset, or at its onset if there was no such event. A closed event is not changed, and no event
        that overlaps it is opened.
        """
        if self.is_open:
            if revised.is_open:
                assert revised.onset is not None
                onset = (
                    self.onset if self.last_offset is not None and revised.onset <= self.last_offset else revised.onset
                )
                changed = onset != self.onset or revised.last_score != self.last_score
                self.interval = revised.interval
                self.onset, self.below_offset_since, self.last_score, self.timestamp_correction = (
                    onset,
                    revised.below_offset_since,
                    revised.last_score,
                    revised.timestamp_correction,
                )
                if not changed:
                    return []
                self.last_report = tick
                return [self._event(EventPhase.UPDATE, tick)]
            assert self.onset is not None
            offset = (
                revised.last_offset
                if revised.last_offset is not None and revised.last_offset >= self.onset
                else self.onset
            )
            self.below_offset_since, self.last_score = None, revised.last_score
            events = self.close(tick, offset)
            if revised.onset is not None and revised.onset > offset:
                self.interval = revised.interval
                self.onset, self.pending_since, self.timestamp_correction = (
                    revised.onset,
                    revised.pending_since,
                    revised.timestamp_correction,
                )
            return events
        if revised.onset is not None and self.last_offset is not None and revised.onset <= self.last_offset:
            self.onset = None
            return []
        self.onset, self.below_offset_since, self.last_score = (
            revised.onset,
            revised.below_offset_since,
            revised.last_score,
        )
        self.pending_since, self.timestamp_correction = revised.pending_since, revised.timestamp_correction
        self.interval = revised.interval
        return self._open(tick) if revised.is_open else []

    @property
    def is_unused(self) -> bool:
        """Whether the label is idle and has had no event, so that this object can be deleted.

        After an event it is kept: the next one, in the same interval or by late data, must not overlap it.
        """
        return self.onset is None and self.last_offset is None

    def _is_refractory(self, tick: int) -> bool:
        return self.last_offset is not None and tick - self.last_offset < self.options.refractory * SECOND

    def _open(self, tick: int) -> list[Event]:
        self.is_open, self.last_report, self.id_onset = True, tick, self.onset
        return [self._event(EventPhase.ONSET, tick)]

    def _event(self, phase: EventPhase, tick: int, offset: int = 0) -> Event:
        assert self.onset is not None
        score, evidence = self.last_score.score, self.last_score.evidence
        return Event(
            self.event_id,
            self.kind,
            self.label,
            phase,
            self.onset,
            offset,
            tick,
            score,
            self.space,
            evidence,
            self.predecessor,
        )
