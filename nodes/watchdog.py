"""Watches the stream of embeddings: detects that it stopped, and that this process itself did not run.

The other decisions of the detector depend on stamps only. Those of this file depend on a steady clock too, so a replay
does not have them. They read no clock: the caller passes the time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.core.samples import SECOND, to_ns
from sensebind.fusion.events.fault import FAULT_SCORE, fault_label

POLL_PERIOD = 0.2  # s from one call of `poll` to the next
MAX_POLL_GAP = 0.5  # s; more time between two polls was a stall of this process, and is not counted
MIN_SILENCE = 2.7  # s without embeddings after which they have stopped
MAX_MISSED_HOPS = 2.5  # the same, in longest hops, and in usual intervals between ticks
MIN_SIMULATED_SILENCE = 1.0  # s of `/clock` that must pass too: at a low rate, sensors are slow in wall time
FIRST_TICKS_FACTOR = 4.0  # times longer while the usual interval is not known
RECENT_GAPS = 5  # gaps between ticks from which the usual interval follows
MAX_GROWTH = 1.5  # times the usual interval; an outage counts as a gap of at most this
CLOCK_TIMEOUT = 1.0  # s without a change of `/clock` after which it stands still
STALL = 1.0  # s between two calls of `Backlog` in which this process did not run
CATCH_UP_TIME = 0.5  # s after a stall in which the middleware delivers what has waited, at least
MAX_CATCH_UP_TIME = 2.5  # the same, at most: it delivers some topics seconds after others
MAX_BEHIND = 1.0  # s of stamps: a source that is as far behind the others as before the stall, and this, has caught up
MAX_AGE = 5.0  # s of stamps: a source that was further behind the others before the stall had stopped
MAX_BACKLOG = 5000  # embeddings

EMBEDDINGS_STOPPED = fault_label("embeddings", "stopped")


class EmbeddingWatchdog:
    """Detects that no embedding of any sensor arrives, and makes the reports of this FAULT event.

    Embeddings have stopped after the longest of three times without one: `MIN_SILENCE`, `MAX_MISSED_HOPS` times
    `longest_hop` (s), and `MAX_MISSED_HOPS` times the usual interval between ticks. Only time in which this process ran
    counts; with a simulated clock, only time in which that clock ran too. Nothing is detected before the first
    embedding.

    The stamps of the reports are the last tick plus the time without embeddings, because the clock of the stamps may be
    another one than that of this computer.
    """

    def __init__(self, update_period: float = 5.0) -> None:
        self.longest_hop = 0.0
        self.update_period = update_period  # s from one UPDATE to the next
        self._windows: dict[str, Embedding] = {}  # sensor → its newest embedding
        self._tick: int | None = None  # newest tick
        self._gaps: deque[float] = deque(maxlen=RECENT_GAPS)  # s, between ticks
        self._last_poll: float | None = None
        self._last_clock: int | None = None
        self._clock_age = 0.0  # s since `/clock` changed
        self._silence = self._simulated_silence = 0.0  # s since the last embedding
        self._onset: int | None = None  # of the open event
        self._last_report = 0  # stamp of the last report of the open event

    @property
    def has_stopped(self) -> bool:
        """Whether embeddings have stopped."""
        return self._onset is not None

    @property
    def silence(self) -> float:
        """Time in seconds since the last embedding in which this process and the clock ran; 0 before the first."""
        return self._silence if self._tick is not None else 0.0

    @property
    def clock_stands_still(self) -> bool:
        """Whether the simulated clock has stopped. Nothing is detected then."""
        return self._clock_age > CLOCK_TIMEOUT

    @property
    def _interval(self) -> float:
        """The usual interval between ticks in seconds: the second longest of the recent gaps. 0: not known."""
        return sorted(self._gaps)[-2:][0] if self._gaps else 0.0

    def add(self, embedding: Embedding) -> list[Event]:
        """Record an embedding that arrived. Returns the end of the event if embeddings had stopped."""
        if self._tick is not None and embedding.tick > self._tick:
            gap, usual = (embedding.tick - self._tick) / SECOND, self._interval
            self._gaps.append(min(gap, MAX_GROWTH * usual) if usual else gap)
        self._tick = embedding.tick if self._tick is None else max(self._tick, embedding.tick)
        self._silence = self._simulated_silence = 0.0
        events = self.finish(embedding.tick)
        if embedding.modality != FUSED:
            self._windows[embedding.source] = embedding
        return events

    def keep(self, sensors: Collection[str]) -> None:
        """Forget the windows of all other sensors."""
        self._windows = {sensor: last for sensor, last in self._windows.items() if sensor in sensors}

    def jumped_back(self, tick: int) -> None:
        """Forget the windows before a jump of the clock back to `tick` (ns)."""
        self._windows.clear()
        self._tick = tick

    def restart(self) -> list[Event]:
        """Forget all embeddings. Returns the end of the open event."""
        events = self.finish()
        self._windows.clear()
        self._gaps.clear()
        self._tick = None
        self._silence = self._simulated_silence = 0.0
        return events

    def poll(self, now: float, clock: int | None) -> list[Event]:
        """Return the report that is due: the onset if embeddings have just stopped, or an update.

        Call it every `POLL_PERIOD`. `now`: steady time in seconds. `clock`: the simulated clock in ns; None if the node
        uses that of the system.
        """
        self._count_time(now, clock)
        if self._tick is None:
            return []
        silence = self._silence if clock is None else self._simulated_silence
        stamp = self._tick + to_ns(silence)
        if self._onset is None:
            if not self._is_too_long(simulated=clock is not None):
                return []
            self._onset, self._last_report = self._tick, stamp
            return [self._report(EventPhase.ONSET, stamp)]
        if stamp - self._last_report < to_ns(self.update_period):
            return []
        self._last_report = stamp
        return [self._report(EventPhase.UPDATE, stamp)]

    def finish(self, tick: int = 0) -> list[Event]:
        """End the open event at `tick` (ns), but not before its last report. Returns its last report."""
        if self._onset is None:
            return []
        report = self._report(EventPhase.OFFSET, max(tick, self._last_report))
        self._onset = None
        return [report]

    def _count_time(self, now: float, clock: int | None) -> None:
        passed = 0.0 if self._last_poll is None else max(0.0, now - self._last_poll)
        counted = min(passed, MAX_POLL_GAP)
        self._last_poll = now
        before, self._last_clock = self._last_clock, clock
        if clock is None:
            self._clock_age, self._silence = 0.0, self._silence + counted
            return
        progress = 0 if before is None else clock - before
        self._clock_age = 0.0 if progress else self._clock_age + counted
        if progress < 0:  # windows start again, and need time to fill
            self._silence = self._simulated_silence = 0.0
        elif not self.clock_stands_still:
            self._silence += counted
            self._simulated_silence += progress / SECOND * (counted / passed if passed else 1.0)

    def _is_too_long(self, *, simulated: bool) -> bool:
        factor = 1.0 if self._interval else FIRST_TICKS_FACTOR
        expected = MAX_MISSED_HOPS * max(self.longest_hop, self._interval)
        if simulated:
            return self._silence >= factor * MIN_SILENCE and self._simulated_silence >= factor * max(
                MIN_SIMULATED_SILENCE, expected
            )
        return self._silence >= factor * max(MIN_SILENCE, expected)

    def _report(self, phase: EventPhase, stamp: int) -> Event:
        assert self._onset is not None
        evidence = tuple(
            Evidence(last.modality, FAULT_SCORE, True, last.start, last.tick, sensor=sensor, frame_id=last.frame_id)
            for sensor, last in sorted(self._windows.items(), key=lambda item: (item[1].modality, item[0]))
        )
        return Event(
            id=f"{EventKind.FAULT.name.lower()}/{EMBEDDINGS_STOPPED}/{self._onset}",
            kind=EventKind.FAULT,
            label=EMBEDDINGS_STOPPED,
            phase=phase,
            onset=self._onset,
            offset=stamp if phase is EventPhase.OFFSET else 0,
            tick=stamp,
            score=FAULT_SCORE if phase is not EventPhase.OFFSET else 0.0,
            space=next((last.space for last in self._windows.values()), ""),
            evidence=evidence if phase is not EventPhase.OFFSET else (),
        )


class Backlog:
    """Holds embeddings that arrive just after this process did not run for a time, and returns them in order of tick.

    The middleware delivers the messages that have waited topic by topic, and may have lost some. Without this class, a
    sensor whose messages come first would seem to be ahead of the others, and the others would seem to be missing.

    `on_end` is called with each embedding that is dropped, and `dropped.after_stall`. `waiting` are those held now.
    """

    def __init__(self, on_end: Callable[[Embedding, str], None] = lambda embedding, end: None) -> None:
        self._on_end = on_end
        self.stalls = 0
        self.dropped = 0  # embeddings
        self.restart()

    def restart(self) -> None:
        """Forget all that arrived. Call `flush` before it. The counts stay."""
        self._last_call: float | None = None
        self._hold_until: float | None = None
        self._awaited: dict[str, int] = {}  # source → how far it was behind the others before the stall, ns
        self._ticks: dict[str, int] = {}  # source → newest tick, ns
        self._arrived: set[str] = set()  # sources of which an embedding is held
        self._held: list[Embedding] = []
        self._sequences: dict[str, int] = {}  # source → sequence number of its newest message
        self._first_after_loss = 0  # ns; the latest tick that is the first after lost messages of its sensor

    @property
    def waiting(self) -> Counter[str]:
        """Source → how many of its embeddings are held."""
        return Counter(embedding.source for embedding in self._held)

    @property
    def is_holding(self) -> bool:
        """Whether embeddings that arrive now are held."""
        return self._hold_until is not None

    def hold(self, now: float, embedding: Embedding, sequence: int) -> bool:
        """Hold an embedding if this process has just started to run again. Returns whether it is held.

        `now`: steady time in seconds. `sequence`: the number of its message.
        """
        self._notice(now)
        key = embedding.source
        is_next = sequence == self._sequences.get(key, sequence - 1) + 1
        self._sequences[key] = sequence
        self._ticks[key] = embedding.tick
        if not self.is_holding:
            return False
        self._arrived.add(key)
        if not is_next and embedding.modality != FUSED:
            self._first_after_loss = max(self._first_after_loss, embedding.tick)
        self._held.append(embedding)
        return True

    def release(self, now: float) -> list[Embedding]:
        """Return the held embeddings in order of tick once all have arrived. Call it regularly.

        If messages of a sensor were lost, embeddings of earlier ticks are dropped: then all sensors continue together.
        """
        self._notice(now)
        if self._hold_until is None:
            return []
        latest = self._hold_until - CATCH_UP_TIME + MAX_CATCH_UP_TIME
        is_due = now >= latest or (now >= self._hold_until and self._has_caught_up())
        return self.flush() if is_due or len(self._held) >= MAX_BACKLOG else []

    def flush(self) -> list[Embedding]:
        """Return the held embeddings as `release` does, without waiting for more."""
        kept = sorted((e for e in self._held if e.tick >= self._first_after_loss), key=lambda e: e.tick)
        self.dropped += len(self._held) - len(kept)
        for embedding in self._held:
            if embedding.tick < self._first_after_loss:
                self._on_end(embedding, "dropped.after_stall")
        self._hold_until, self._held, self._first_after_loss = None, [], 0
        self._awaited, self._arrived = {}, set()
        return kept

    def _has_caught_up(self) -> bool:
        """Whether embeddings of all awaited sources have arrived, up to now."""
        newest = max(self._ticks.values(), default=0)
        return all(
            source in self._arrived and self._ticks[source] >= newest - behind - to_ns(MAX_BEHIND)
            for source, behind in self._awaited.items()
        )

    def _notice(self, now: float) -> None:
        if self._last_call is not None and now - self._last_call > STALL:
            self.stalls += 1
            self._hold_until = now + CATCH_UP_TIME
            newest = max(self._ticks.values(), default=0)
            behind = {source: newest - tick for source, tick in self._ticks.items()}
            self._awaited = self._awaited or {s: ns for s, ns in behind.items() if ns <= to_ns(MAX_AGE)}
        self._last_call = now
