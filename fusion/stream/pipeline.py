"""The pipeline of one robot: samples in; embeddings, fused embeddings and events out. It uses no ROS and no files.

There is one way to drive it: `accept` samples, `dequeue` a batch of closed windows, embed it, `complete` the batch with
the results. `drivers` does this in the calling thread; `scheduler.Scheduler` does it live for any number of pipelines.
Windows and events depend on stamps, not on the time of arrival. So a replay gives the outputs that the robot published,
if no window was dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.samples import SECOND, Calibration, Sample, to_ns
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.health.checks import Inspection, SensorHealthMonitor
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.stream.clocks.steps import CommonStep
from sensebind.fusion.stream.memory.budget import NO_LIMIT, MemoryBudget
from sensebind.fusion.stream.options import StreamOptions
from sensebind.fusion.stream.statistics import LATENCY_HISTORY, SensorStatistics
from sensebind.fusion.stream.tick_fuser import TickFuser
from sensebind.fusion.stream.waiting_windows import QueuedWindow, QueueState, WindowBatch
from sensebind.fusion.stream.window_queue import HeldMemory, WindowQueue

LOG = logging.getLogger(__name__)
Output = Embedding | Event | Failure


DEFAULTS = StreamOptions()


@dataclass(slots=True)
class _SensorTotals:
    """Totals of one sensor's completed windows."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_HISTORY))  # ms, close → vector
    tick: int = 0  # ns, end of the newest embedded window


class Pipeline:
    """The pipeline of one robot.

    Input side, any thread: `accept`, `flush`, `restart`, `set_calibration`. At most `queue_size` windows of each
    sensor wait between input and output; beyond that, the oldest is dropped and counted (None: no bound). Windows
    that wait longer than `deadline` seconds are dropped if the driver gives a quota (None or 0: no bound).

    Output side, one driver: `dequeue` in one thread; `complete` and `close` in one thread, which may be another.

    `specs`: sensor → its windows. If the space has no encoder for a modality, its windows are counted and not embedded.
    `fusion_timeout` (ns) and `memory`: see `WindowQueue`. `fusion_weights`: see `TickFuser`.
    """

    def __init__(
        self,
        specs: Mapping[str, WindowSpec],
        engine: Engine,
        *,
        fusion_timeout: int = to_ns(DEFAULTS.fusion_timeout),
        fusion_weights: Mapping[str, float] | None = None,
        calibrations: Mapping[str, Calibration] | None = None,
        queue_size: int | None = None,
        deadline: float | None = None,
        tracker: EventTracker | None = None,
        memory: MemoryBudget = NO_LIMIT,
    ) -> None:
        self.engine = engine
        self.specs = dict(specs)
        # Guards all that `statistics` reads: the queue, the fuser and `_totals`. So its counts are of one moment.
        self._lock = threading.RLock()
        self._queue = WindowQueue(
            specs,
            engine.space.modalities,
            fusion_timeout=fusion_timeout,
            calibrations=calibrations,
            max_windows=queue_size,
            deadline=deadline,
            lock=self._lock,
            memory=memory,
        )
        # Used only by the thread that completes batches:
        self._fuser = TickFuser(fusion_weights, self._lock)
        self._tracker = tracker
        self._health = {sensor: SensorHealthMonitor() for sensor in specs}
        self._completed = 0  # number of the newest completed batch, plus 1
        self._totals = {sensor: _SensorTotals() for sensor in specs}

    # --- input, from any thread

    def accept(self, sample: Sample) -> bool:
        """Accept one sample; this takes microseconds. Returns whether anything waits to be dequeued.

        Raises `KeyError` for a sensor that is not configured.
        """
        return self._queue.accept(sample)

    def flush(self, sensor: str | None = None) -> bool:
        """Close the windows of one sensor, or of all, that end at or before its newest sample.

        For a sensor that stopped: call it when no more samples are expected. Returns whether anything waits. Raises
        `KeyError` for a sensor that is not configured.
        """
        return self._queue.flush(sensor)

    def restart(self) -> None:
        """Call it when the clock jumped. Closes the complete windows; windowing, fusion and events then start again."""
        self._queue.restart()

    def set_calibration(self, sensor: str, calibration: Calibration) -> None:
        """Set a sensor's calibration. Windows that close later carry it."""
        self._queue.set_calibration(sensor, calibration)

    def check_clock(self, sensor: str, end: int, received: int | None) -> bool:
        """Whether a sample with this end, recorded at this time (both ns), has the clock of the other sensors: if not,
        `accept` drops it. Also makes the clock of a sensor known before its first sample."""
        return self._queue.check_clock(sensor, end, received)

    # --- output, by one driver

    def dequeue(self, quota: Mapping[str, int] | None = None) -> WindowBatch:
        """Remove windows from the queue, to be embedded and completed: see `WindowQueue.dequeue`."""
        return self._queue.dequeue(quota)

    def complete(self, batch: WindowBatch, results: Iterable[Embedding | Failure]) -> Iterator[Output]:
        """Turn the results of `batch.windows` (one for each window, in order) into outputs.

        Yields each embedding or failure as soon as its result arrives, then the fused embeddings and the events, in
        order of tick. Iterate to the end. A batch that could not be embedded may be skipped: its windows are lost, and
        later batches can be completed. Windows whose results are not read are counted as `abandoned`. The first step
        raises `ValueError` if this or a later batch is already complete.
        """
        if batch.number < self._completed:
            raise ValueError(f"batch {batch.number} is completed after batch {self._completed - 1}: complete in order")
        self._completed = batch.number + 1
        self._abandon(batch.number)
        try:
            yield from self._complete(batch, iter(results))
        finally:
            self._abandon(batch.number + 1)

    def close(self) -> list[Output]:
        """End a recording: fuse all ticks and end open events. Call it when all batches are complete."""
        return [*self._fuse_ticks(None), *(self._tracker.finish() if self._tracker else [])]

    # --- state, from any thread

    def queue_state(self) -> QueueState:
        """The windows that wait, for a scheduler that decides when to dequeue them."""
        return self._queue.state()

    def waiting(self, sensor: str | None = None) -> int:
        """How many windows of a sensor wait to be dequeued; None: of all sensors, plus the restarts that wait."""
        return self._queue.depth(sensor)

    def statistics(self) -> dict[str, SensorStatistics]:
        """The totals of each sensor so far, as a copy."""
        with self._lock:  # so that they are of one moment
            totals = {s: (r.counts.copy(), tuple(r.latencies), r.tick) for s, r in self._totals.items()}
            for sensor, (counts, _, _) in totals.items():
                counts |= {"fused": self._fuser.fused[sensor], "replaced": self._fuser.replaced[sensor]}
            awaiting_fusion = self._fuser.waiting
            windowing = self._queue.windowing_states()
        newest = max((state.newest_stamp for state in windowing.values() if state.newest_stamp is not None), default=0)
        return {
            sensor: SensorStatistics(
                counts=state.counts + totals[sensor][0],
                latencies=totals[sensor][1],
                coverage_sum=state.coverage_sum,
                newest_stamp=state.newest_stamp or 0,
                last_embedded_tick=totals[sensor][2],
                clock_offset=None if state.clock_offset is None else state.clock_offset / SECOND,
                behind_others=None if state.behind_others is None else state.behind_others / SECOND,
                clock_differs=state.clock_differs,
                lag=0.0 if state.newest_stamp is None else (newest - state.newest_stamp) / SECOND,
                open_samples=state.open_samples,
                waiting_windows=state.waiting_windows,
                windows_in_flight=state.windows_in_flight,
                awaiting_fusion=awaiting_fusion[sensor],
            )
            for sensor, state in windowing.items()
        }

    def memory(self) -> dict[str, HeldMemory]:
        """Sensor → the bytes that are held: of samples, and of windows that wait or are embedded."""
        return self._queue.memory()

    def reference_offset(self) -> int | None:
        """The time of arrival minus the stamp by the clock that the sensors share, in ns; None: not known."""
        return self._queue.reference_offset()

    def clock_steps(self) -> list[CommonStep]:
        """The steps of the stamps so far: clocks that were set while the sensors ran."""
        return self._queue.clock_steps()

    def first_stamp(self) -> int | None:
        """The earliest stamp of a sensor whose clock agrees with those of the others, in ns; None: there is none."""
        return self._queue.first_stamp()

    # --- in the thread that completes batches

    def _abandon(self, before: int) -> None:
        """Count the windows without a result of the batches with numbers below `before`."""
        with self._lock:
            for sensor, count in self._queue.abandon(before).items():
                self._totals[sensor].counts["abandoned"] += count

    def _complete(self, batch: WindowBatch, results: Iterator[Embedding | Failure]) -> Iterator[Output]:
        late = list[Embedding]()
        for item in batch.items:
            if item is not None:
                yield from self._complete_window(item, batch, results, late)
                continue
            yield from self._process_late(late)
            yield from self._restart()
        yield from self._process_late(late)
        if batch.fusion_watermark is not None:
            yield from self._fuse_ticks(batch.fusion_watermark)

    def _end_window(self, batch: int, sensor: str, names: Iterable[str]) -> None:
        """Count a window under `names`. Its batch expects one result less."""
        with self._lock:
            self._queue.end_window(batch, sensor)
            self._totals[sensor].counts.update(names)

    def _complete_window(
        self,
        item: QueuedWindow,
        batch: WindowBatch,
        results: Iterator[Embedding | Failure],
        late: list[Embedding],
    ) -> Iterator[Output]:
        """Check the data of one window and process its result. An embedding whose tick is closed is added to `late`."""
        window, totals = item.window, self._totals[item.window.sensor]
        try:
            symptoms, activity = self._health[window.sensor].inspect(window)  # done while the device computes
        except Exception as error:  # of any kind: data that a check cannot handle must not affect other windows
            if not totals.counts["unchecked"]:  # later ones are counted, and named by the failure
                LOG.exception("a window of %s could not be checked", window.sensor)
            symptoms, activity = Inspection((), None)
            with self._lock:
                totals.counts["unchecked"] += 1
            self._health[window.sensor] = SensorHealthMonitor()  # its history may be what it fails on
            text = f"its data could not be checked: {type(error).__name__}: {error}"
            yield Failure(window.modality, "unchecked", text, window.sensor)
        if window.modality not in batch.embeddable_modalities:
            self._end_window(batch.number, window.sensor, (*symptoms, "no_encoder"))
            return
        result = next(results)
        if isinstance(result, Failure):
            self._end_window(batch.number, window.sensor, (*symptoms, result.cause))
            yield result
            return
        result = replace(result, symptoms=symptoms, activity=activity)
        with self._lock:
            self._end_window(batch.number, window.sensor, (*symptoms, "embedded"))
            on_time = self._fuser.add(result)
            totals.counts["unfused"] += not on_time
            totals.latencies.append((time.perf_counter() - item.closed_at) * 1e3)
            totals.tick = window.tick
        if not on_time:  # the sensor is behind the others by more than `fusion_timeout`
            late.append(result)
        yield result

    def _process_late(self, late: list[Embedding]) -> Iterator[Output]:
        """Pass embeddings whose tick was already fused to the event tracker."""
        for embedding in late:
            yield from (
                self._tracker.add_late_embeddings(embedding.tick, {embedding.source: embedding})
                if self._tracker
                else ()
            )
        late.clear()

    def _restart(self) -> Iterator[Output]:
        """Fuse all ticks and end open events; fusion, events and health checks then start again."""
        yield from self._fuse_ticks(None)
        yield from self._tracker.restart() if self._tracker else ()
        self._fuser.restart()
        self._health = {sensor: SensorHealthMonitor() for sensor in self._health}

    def _fuse_ticks(self, watermark: int | None) -> Iterator[Output]:
        """Fuse the ticks up to `watermark` (ns; None: all). Yields the fused embeddings and the events."""
        for tick, present, fused in self._fuser.fuse(watermark):
            yield fused
            yield from self._tracker.step(tick, present) if self._tracker else ()
