"""Samples of one robot in, batches of their windows out.

Samples are accepted on any thread, and one driver dequeues batches of the windows that closed. The queue gets every
sample, so it also knows up to which tick no further window can arrive.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sensebind.fusion.core.samples import Calibration, Sample
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.stream.clocks.agreement import MAX_LEAD, SensorClocks
from sensebind.fusion.stream.clocks.steps import ClockSteps, CommonStep
from sensebind.fusion.stream.clocks.votes import BackwardJumps
from sensebind.fusion.stream.memory.budget import NO_LIMIT, MemoryBudget
from sensebind.fusion.stream.waiting_windows import QueueState, WaitingWindows, WindowBatch
from sensebind.fusion.stream.windower import MIN_BACKWARD_JUMP, Windower


@dataclass(frozen=True, slots=True)
class WindowingState:
    """One sensor's windowing so far: counters by name, the sum of all windows' coverage, the end of the newest sample
    (ns; None: no sample yet); the time of arrival minus the stamp (ns; None: not known); how far its stamps are behind
    those of the other sensors (ns; None: not known); whether its clock differs, so that its samples are dropped; and
    how many samples no window has used yet; how many windows wait in the queue; and how many have left it and have no
    result yet."""

    counts: Counter[str]
    coverage_sum: float
    newest_stamp: int | None
    clock_offset: int | None = None
    behind_others: int | None = None
    clock_differs: bool = False
    open_samples: int = 0
    waiting_windows: int = 0
    windows_in_flight: int = 0


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """Bytes that are held of one sensor: `samples`, at most `share`; `windows` that wait or are embedded, live at most
    `share`. `largest_refused`: of a sample that was dropped because of its size; 0: none."""

    samples: int
    windows: int
    share: int
    largest_refused: int


class WindowQueue:
    """Cuts samples into windows and holds the closed ones. All public methods may be called from any thread.

    `specs`: sensor → its windows. `max_windows`: how many of each sensor may wait; beyond that, the oldest is dropped
    and counted as `overload` (None: no bound). If there is such a bound, the windows of a sensor that wait or are
    embedded also have at most the bytes of its share of `memory`. `deadline`: seconds that a window may wait if
    `dequeue` gets a quota (None: no bound). `fusion_timeout` (ns): fusion does not wait for a sensor whose newest
    sample is older than the newest of all by more than this. `lock` guards the state; the caller may hold it, to read
    several values.
    """

    def __init__(
        self,
        specs: Mapping[str, WindowSpec],
        embeddable_modalities: Iterable[str],
        *,
        fusion_timeout: int,
        calibrations: Mapping[str, Calibration] | None = None,
        max_windows: int | None = None,
        deadline: float | None = None,
        memory: MemoryBudget = NO_LIMIT,
        lock: threading.RLock | None = None,
    ) -> None:
        self._embeddable_modalities = frozenset(s.modality for s in specs.values()) & frozenset(embeddable_modalities)
        self._fusion_timeout = fusion_timeout
        self._lock = lock or threading.RLock()  # guards everything below
        self._windowers = {s: Windower(spec, max_bytes=memory.share(s)) for s, spec in specs.items()}
        shares = {sensor: windower.max_bytes for sensor, windower in self._windowers.items()}
        self._waiting = WaitingWindows(shares, max_windows, deadline or None)
        self._clocks = SensorClocks(fusion_timeout)
        self._steps = ClockSteps()
        self._newest = 0  # ns, end of the newest sample of all
        # Sensor → how far the newest sample of all was ahead of its own newest one when that was accepted (ns).
        self._lags: dict[str, int] = {}
        self._next_overdue = 0  # ns: no sensor is overdue while the newest sample of all is before this
        self._calibrations = dict(calibrations or {})
        self._jumps = BackwardJumps()
        # ns, end of the first sample: fusion waits for all sensors until `fusion_timeout` after it.
        self._first_stamp: int | None = None

    # --- input

    def accept(self, sample: Sample) -> bool:
        """Accept one sample, without copying or embedding data. Returns whether anything waits to be dequeued.

        Raises `KeyError` for a sensor that is not configured.
        """
        with self._lock:
            windower = self._windowers[sample.sensor]
            if sample.stamp > 0:  # else it has no stamp, which says nothing about the clock of the sensor
                self._steps.update(sample.sensor, sample.end, sample.received)
                if not self._clocks.agrees(sample.sensor, sample.end, sample.received):
                    self._drop_for_clock(windower)
                    return bool(self._waiting)
                if self._clocks.is_from_future(sample.end, sample.received):
                    windower.drop_sample()
                    return bool(self._waiting)
            before, restarts = windower.newest_stamp, windower.counts["restarts"]
            self._enqueue(windower.accept(sample))
            now = windower.newest_stamp
            if windower.counts["restarts"] > restarts and before and now and now < before:
                self._jumps.add(sample.sensor, before)
            if (newest := self._jumps.common(self._windowers)) is not None:
                self._restart_from(newest)
            if self._first_stamp is None:
                self._first_stamp = windower.newest_stamp
            self._lags[sample.sensor] = max(0, self._newest - sample.end)
            if windower.newest_stamp is not None and windower.newest_stamp > self._newest:
                self._newest = windower.newest_stamp
                if self._newest >= self._next_overdue:
                    self._close_overdue(sample.received or 0)
            return bool(self._waiting)

    def flush(self, sensor: str | None = None) -> bool:
        """Close the windows of one sensor, or of all, that end at or before its newest sample.

        For a sensor that stopped: call it when no more samples are expected. Returns whether anything waits. Raises
        `KeyError` for a sensor that is not configured.
        """
        with self._lock:
            for windower in [self._windowers[sensor]] if sensor else self._windowers.values():
                self._enqueue(windower.flush())
            return bool(self._waiting)

    def restart(self) -> None:
        """Call it when the clock jumped. Closes the complete windows; windowing then starts again."""
        with self._lock:
            for windower in self._windowers.values():
                self._enqueue(windower.restart())
            self._first_stamp = None
            self._jumps.restart()
            self._clocks.restart()
            self._steps.restart()
            self._newest = self._next_overdue = 0
            self._waiting.add_restart()

    def set_calibration(self, sensor: str, calibration: Calibration) -> None:
        """Set a sensor's calibration. Windows that close later carry it."""
        with self._lock:
            self._calibrations[sensor] = calibration

    def check_clock(self, sensor: str, end: int, received: int | None) -> bool:
        """Whether a sample with this end, recorded at this time (both ns), has the clock of the other sensors."""
        with self._lock:
            return self._clocks.agrees(sensor, end, received, recorded=True)

    # --- output

    def dequeue(self, quota: Mapping[str, int] | None = None) -> WindowBatch:
        """Remove windows, the oldest first, and return them: at most `quota[modality]` of each modality (0 if it is
        not named), or all if `quota` is None.

        The deadline applies only with a quota. If a window of a sensor has waited longer than the deadline, the queue
        keeps only as many of that sensor's newest windows as the quota of its modality allows, shared evenly among the
        modality's sensors; a window past the deadline is kept only if it is the newest. The others are dropped and
        counted as `expired`.
        """
        with self._lock:
            if quota is None:
                items, horizon = self._waiting.take_all(), self._fusion_watermark()
            else:
                for sensor, count in self._waiting.expire(quota).items():
                    self._windowers[sensor].counts["expired"] += count
                items, horizon = self._waiting.take(quota), self._watermark_before_waiting()
            return self._waiting.make_batch(items, horizon, self._embeddable_modalities)

    def end_window(self, batch: int, sensor: str) -> None:
        """A window of a dequeued batch has its result. Raises `ValueError` if the batch was abandoned."""
        with self._lock:
            self._waiting.end_window(batch, sensor)

    def abandon(self, before: int) -> Counter[str]:
        """Expect no more results of the batches with numbers below `before`: their windows are no longer used. Returns
        sensor → their windows that have no result."""
        with self._lock:
            return self._waiting.abandon(before)

    # --- state

    def memory(self) -> dict[str, HeldMemory]:
        """Sensor → the bytes that are held."""
        with self._lock:
            return {
                name: HeldMemory(w.held_bytes, self._waiting.bytes_of(name), w.max_bytes, w.largest_refused)
                for name, w in self._windowers.items()
            }

    def depth(self, sensor: str | None = None) -> int:
        """How many windows of a sensor wait; None: of all sensors, plus the restarts that wait."""
        with self._lock:
            if sensor is None:
                return len(self._waiting)
            return sum(window.sensor == sensor for window in self._waiting)

    def state(self) -> QueueState:
        """The windows that wait, for a scheduler that decides when to dequeue them."""
        with self._lock:
            return self._waiting.state()

    def windowing_states(self) -> dict[str, WindowingState]:
        """The state of each sensor's windowing, as a copy."""
        with self._lock:
            waiting = Counter(window.sensor for window in self._waiting)
            in_flight = self._waiting.in_flight()
            return {
                name: WindowingState(
                    w.counts.copy(),
                    w.coverage_sum,
                    w.newest_stamp,
                    self._clocks.offset(name),
                    self._clocks.behind_others(name),
                    self._clocks.differs(name),
                    w.open_samples,
                    waiting[name],
                    in_flight[name],
                )
                for name, w in self._windowers.items()
            }

    def reference_offset(self) -> int | None:
        """The time of arrival minus the stamp by the clock that the sensors share, in ns; None: not known."""
        with self._lock:
            return self._clocks.reference

    def clock_steps(self) -> list[CommonStep]:
        """The steps of the stamps so far: clocks that were set while the sensors ran."""
        with self._lock:
            return self._steps.common_steps()

    def first_stamp(self) -> int | None:
        """The earliest stamp of a sensor whose clock agrees with those of the others, in ns; None: there is none."""
        with self._lock:
            found = [w.first_stamp for w in self._windowers.values() if w.first_stamp is not None]
            return min(found, default=None)

    # --- with the lock held

    def _close_overdue(self, received: int) -> None:
        """Close the windows of slow sensors at the time at which fusion stops to wait for them, so that they are fused.

        A window of such a sensor would else close with its next sample, which may come seconds later. It is complete
        if the sensor's usual interval and its lag behind the others do not let another sample of it be expected. A
        sensor that is late, rather than slow, has short intervals or a long lag: its windows stay open. `received`:
        time of arrival of the newest sample (ns; 0: not known).
        """
        horizon, fused = self._newest - self._fusion_timeout, self._fusion_watermark()
        self._next_overdue = self._newest + self._fusion_timeout
        for sensor, windower in self._windowers.items():
            if windower.newest_stamp is None:
                continue
            if windower.newest_stamp >= horizon:
                self._next_overdue = min(self._next_overdue, windower.newest_stamp + self._fusion_timeout + 1)
                continue
            self._next_overdue = 0  # look again at each new stamp: fusion does not wait for this sensor
            interval = self._steps.shortest_interval(sensor)
            expected = self._newest - self._lags.get(sensor, 0) - windower.spec.lateness
            if interval is not None:
                expected = min(expected, windower.newest_stamp + interval // 2)
            elif not windower.spec.frames or received - self._steps.received(sensor) < self._fusion_timeout:
                continue  # a window of readings needs more than the first one; or the second one is not late
            if fused is not None and (closed := windower.closed_through) is not None:
                through = min(fused, expected)
                if through >= closed + windower.spec.hop:
                    self._enqueue(windower.close_through(through))

    def _drop_for_clock(self, windower: Windower) -> None:
        """Drop a sample whose clock is not that of the others, so that it delays no other sensor."""
        newest = windower.newest_stamp
        windower.drop_for_clock()
        if newest is not None:
            others = [w.newest_stamp for w in self._windowers.values() if w.newest_stamp is not None]
            self._first_stamp = min(others, default=None)
            self._newest, self._next_overdue = max(others, default=0), 0
            if others and newest > max(others):  # it made fusion run ahead of the others
                self._waiting.add_restart()

    def _enqueue(self, windows: Iterable[Window]) -> None:
        for window in windows:
            calibration = self._calibrations.get(window.sensor, window.calibration)
            if calibration != window.calibration:  # otherwise the window keeps the arrays of its readings
                window = replace(window, calibration=calibration)
            self._windowers[window.sensor].counts["overload"] += self._waiting.add(window)

    def _restart_from(self, newest: int) -> None:
        """The clock jumped back to `newest` (ns): restart the sensors that are ahead of it."""
        self._jumps.restart()
        for windower in self._windowers.values():
            if windower.newest_stamp is not None and windower.newest_stamp > newest + MIN_BACKWARD_JUMP:
                self._enqueue(windower.restart())
        self._first_stamp = self._newest = newest
        self._next_overdue = 0
        self._waiting.add_restart()

    def _watermark_before_waiting(self) -> int | None:
        """`_fusion_watermark`, or the last tick before those of the windows that wait, if fusion waits for them."""
        horizon = self._fusion_watermark()
        if horizon is None or self._waiting.has_restart:  # the completion of a restart that waits fuses its ticks
            return None
        waiting = [window.tick for window in self._waiting if window.modality in self._embeddable_modalities]
        if not waiting:
            return horizon
        newest = max(w.newest_stamp for w in self._windowers.values() if w.newest_stamp is not None)
        return min(horizon, max(min(waiting) - 1, newest - self._fusion_timeout))

    def _fusion_watermark(self) -> int | None:
        """The newest tick (ns) up to which no further window can arrive, by stamps alone. None: there is no such tick.

        Fusion waits for a sensor while its newest sample is no older than the newest of all minus `fusion_timeout`,
        and for all sensors at the start. So a sensor that stops delays a tick by at most `fusion_timeout` of the
        others' stamps.

        One sensor of three or more that is ahead of all others by `MAX_LEAD` at most does not count as the newest of
        all: its stamps may be wrong, and the others would all be late. If it is further ahead, the others have stopped.
        """
        awaited = [w for w in self._windowers.values() if w.spec.modality in self._embeddable_modalities]
        seen = [w.newest_stamp for w in awaited if w.newest_stamp is not None]
        if not seen or self._first_stamp is None:
            return None
        second, newest = sorted(seen)[-2:] if len(seen) > 2 else (max(seen), max(seen))
        horizon = (newest if newest - second > MAX_LEAD else second) - self._fusion_timeout
        closed = [
            w.closed_through
            for w in awaited
            if (self._first_stamp if w.newest_stamp is None else w.newest_stamp) >= horizon
        ]
        return None if any(c is None for c in closed) else min(c for c in closed if c is not None)
