"""The line: samples in; embeddings, fused embeddings and events out. Knows no ROS, no files, no wall clock.

The live node and the offline replay are two thin drivers of this one object, so what a robot publishes and
what a recording of it gives are the same.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sensebind.fusion.core.embeddings import Embedding, fuse
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.samples import SECOND, Calibration, Sample
from sensebind.fusion.core.windows import BACKWARD_JUMP, Window, Windower, WindowSpec
from sensebind.fusion.events.tracker import EventLine
from sensebind.fusion.health.checks import Health
from sensebind.fusion.inference.engine import Engine, Failure, Job
from sensebind.fusion.stream.statistics import Statistics

Output = Embedding | Event | Failure
BATCH = 8  # closed windows that are worth a call of the encoders


@dataclass(frozen=True, slots=True)
class Taken:
    """Windows that left a pipeline's queue to be embedded. `ready`: with the times at which they closed, and None
    where time starts afresh; `horizon`: the tick through which all can be fused when they have been answered."""

    ready: Sequence[tuple[Window, float] | None]
    horizon: int | None
    embeds: frozenset[str]

    @property
    def windows(self) -> list[Window]:
        """Those that the space has an encoder for, in order: what `give` wants answers to."""
        return [item[0] for item in self.ready if item and item[0].modality in self.embeds]


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits in a pipeline up to where time starts afresh (`restarts`: it does): by modality how many windows,
    and since when the oldest (`time.perf_counter`)."""

    counts: Mapping[str, int]
    since: Mapping[str, float]
    restarts: bool


class Pipeline:
    """The line for one robot.

    `push` does everything at once. A driver that must not wait splits it: `accept` copies nothing, embeds
    nothing and takes microseconds; `drain`, in one other thread, embeds what has closed. Between them wait at
    most `queue_size` windows of each modality, the oldest of which are dropped and counted (None: no bound). `step`
    drops those as well that waited longer than `deadline` seconds (None or 0: no bound) and takes the newest then.
    A `scheduler.Scheduler` is that other thread for any number of pipelines, whose windows then share batches.

    A modality that the space has no encoder for is windowed and counted, and nothing is published of it.
    """

    def __init__(
        self,
        specs: Mapping[str, WindowSpec],
        engine: Engine,
        *,
        patience: int = SECOND,
        fusion_weights: Mapping[str, float] | None = None,
        calibrations: Mapping[str, Calibration] | None = None,
        queue_size: int | None = None,
        deadline: float | None = None,
        events: EventLine | None = None,
    ) -> None:
        self.engine = engine
        self.events = events
        self.statistics = {modality: Statistics() for modality in specs}
        self.specs = dict(specs)
        self._patience = patience
        self._fusion_weights = dict(fusion_weights or {})
        self._calibrations = dict(calibrations or {})
        self._queue_size = queue_size
        self._deadline = deadline or None
        self._windowers = {m: Windower(spec, self.statistics[m].counts) for m, spec in specs.items()}
        self._embeds = frozenset(specs) & frozenset(engine.space.modalities)
        self._began: int | None = None  # end of the first sample: until `patience` after it all are awaited
        self._ready: deque[tuple[Window, float] | None] = deque()  # None: time starts afresh
        self._inbox = threading.Lock()  # guards all of the above
        self._draining = threading.Lock()  # guards what follows: one thread drains at a time
        self._health = {modality: Health() for modality in specs}
        self._pending: dict[int, dict[str, Embedding]] = {}
        self._fused_through = 0

    def push(self, sample: Sample) -> list[Output]:
        """Take one sample; everything that follows from it, in order of tick."""
        self.accept(sample)
        return self.drain()

    def accept(self, sample: Sample) -> bool:
        """Take one sample; whether a window has closed, so that `drain` has work.

        Raises `KeyError` for a modality that is not configured.
        """
        with self._inbox:
            windower = self._windowers[sample.modality]
            before, restarts = windower.newest, windower.counts["restarts"]
            self._enqueue(windower.push(sample))
            if windower.counts["restarts"] > restarts and before and windower.newest and windower.newest < before:
                self._start_afresh(windower.newest)
            if self._began is None:
                self._began = windower.newest
            return bool(self._ready)

    def drain(self) -> list[Output]:
        """Embed all that has closed; then fuse the ticks that are complete and tell their events."""
        with self._draining:
            return self._do(self.take())

    def step(self) -> list[Output]:
        """As `drain`, but each modality has its turn of the device and no more: call it while windows are `waiting`.

        What does not get its turn waits, where newer windows may still take its place. So a modality that is slow
        loses windows of its own, and delays those of others by one turn at most.
        """
        with self._draining:
            return self._do(self.take({modality: self.engine.turn(modality) for modality in self.specs}))

    def _do(self, taken: Taken) -> list[Output]:
        return list(self.give(taken, self.engine.embed(taken.windows)))

    def take(self, quota: Mapping[str, int] | None = None) -> Taken:
        """Windows that are due: of each modality at most `quota`, the oldest first; None: all.

        Where there is a quota, windows that have waited longer than the deadline are dropped and counted, and with
        them all but the newest that the quota allows. Who takes gives the answers back, in the order of the takes,
        and meanwhile neither drains nor steps.
        """
        with self._inbox:
            if quota is None:
                ready, self._ready = self._ready, deque()
                return Taken(ready, self._complete(), self._embeds)
            self._expire(quota)
            ready = self._turn(dict(quota))
            horizon = self._complete()
            waiting = [item[0].tick for item in self._ready if item and item[0].modality in self._embeds]
            if None in self._ready:  # the ticks at hand belong to a time that is over: they are fused when it goes
                horizon = None
            elif horizon is not None and waiting:
                newest = max(w.newest for w in self._windowers.values() if w.newest is not None)
                horizon = min(horizon, max(min(waiting) - 1, newest - self._patience))
            return Taken(ready, horizon, self._embeds)

    def give(self, taken: Taken, answers: Iterable[Embedding | Failure]) -> Iterator[Output]:
        """What follows from the answers to `taken.windows`, in their order, each as soon as its answer is there; then
        what is fused of them and the events, in order of tick. To be read to the end."""
        rest = iter(answers)
        for windows in _split(taken.ready):
            yield from self._answered(windows, rest)
            if windows is not None:
                continue
            yield from self._fuse(None)
            yield from self.events.restart() if self.events else ()
            self._fused_through = 0
        if taken.horizon is not None:
            yield from self._fuse(taken.horizon)

    def _expire(self, quota: Mapping[str, int]) -> None:
        """The latest first: where windows of a modality have waited too long, those go, and of the others all but the
        newest that this turn can do; so what is embedded next is new. A modality's newest window always stays."""
        if self._deadline is None:
            return
        oldest = time.perf_counter() - self._deadline
        late = {item[0].modality for item in self._ready if item and item[1] < oldest}
        if not late:
            return
        kept: deque[tuple[Window, float] | None] = deque()
        count: Counter[str] = Counter()
        while self._ready:
            item = self._ready.pop()
            if item and (modality := item[0].modality) in late:
                room = 1 if item[1] < oldest else max(1, quota.get(modality, 0))
                if count[modality] >= room:
                    self.statistics[modality].counts["expired"] += 1
                    continue
                count[modality] += 1
            kept.appendleft(item)
        self._ready = kept

    def _turn(self, quota: dict[str, int]) -> deque[tuple[Window, float] | None]:
        """Take what is due now: of each modality as many windows as its turn allows, the oldest first."""
        taken: deque[tuple[Window, float] | None] = deque()
        left: deque[tuple[Window, float] | None] = deque()
        while self._ready:
            item = self._ready.popleft()
            if item is None:
                (left if left else taken).append(None)
                if left:
                    break  # nothing passes the point where time starts afresh
                continue
            modality = item[0].modality
            allowed = quota.get(modality, 0)
            quota[modality] = allowed - 1
            (taken if allowed > 0 else left).append(item)
        left.extend(self._ready)
        self._ready = left
        return taken

    def flush(self, modality: str | None = None) -> bool:
        """Close the windows of one modality, or of all, that end at or before its newest sample.

        For a sensor that fell silent: call it when no sample is under way. Whether `drain` has work.
        """
        with self._inbox:
            for windower in [self._windowers[modality]] if modality else self._windowers.values():
                self._enqueue(windower.flush())
            return bool(self._ready)

    def finish(self) -> list[Output]:
        """The end of a recording: all whole windows close, all ticks are fused, open events end."""
        self.flush()
        outputs = self.drain()
        with self._draining:
            outputs += self._fuse(None)
            return outputs + (self.events.finish() if self.events else [])

    def restart(self) -> None:
        """The clock jumped: close what is whole, and start windows, fusion and events afresh."""
        with self._inbox:
            for windower in self._windowers.values():
                self._enqueue(windower.restart())
            self._began = None
            self._ready.append(None)

    def calibrate(self, modality: str, calibration: Calibration) -> None:
        """What is known of a sensor from now on; goes with the windows that close later."""
        with self._inbox:
            self._calibrations[modality] = calibration

    def queued(self, modality: str) -> int:
        """Windows of a modality that wait for `drain`."""
        with self._inbox:
            return sum(1 for item in self._ready if item and item[0].modality == modality)

    def waiting(self) -> int:
        """Windows of all modalities that wait for `drain`."""
        return len(self._ready)

    def queue(self) -> Queue:
        """What waits, for who decides when it is taken."""
        with self._inbox:
            counts: Counter[str] = Counter()
            since: dict[str, float] = {}
            for item in self._ready:
                if item is None:
                    return Queue(counts, since, True)
                counts[item[0].modality] += 1
                since.setdefault(item[0].modality, item[1])
            return Queue(counts, since, False)

    def snapshot(self) -> dict[str, Statistics]:
        """The statistics of each modality, with times brought up to date."""
        with self._inbox:
            newest = [w.newest for w in self._windowers.values() if w.newest is not None]
            for modality, windower in self._windowers.items():
                statistics = self.statistics[modality]
                statistics.coverage_sum = windower.coverage_sum
                if windower.newest is not None:
                    statistics.newest = windower.newest
                    statistics.lag = (max(newest) - windower.newest) / SECOND
            return self.statistics

    def _enqueue(self, windows: Iterable[Window]) -> None:
        now = time.perf_counter()  # for the latency that is reported; no result depends on it
        for window in windows:
            calibration = self._calibrations.get(window.modality)
            self._ready.append((replace(window, calibration=calibration) if calibration else window, now))
            self._bound(window.modality)

    def _bound(self, modality: str) -> None:
        if self._queue_size is None:
            return
        waiting = [i for i, item in enumerate(self._ready) if item and item[0].modality == modality]
        if len(waiting) > self._queue_size:
            del self._ready[waiting[0]]
            self.statistics[modality].counts["overload"] += 1

    def _start_afresh(self, newest: int) -> None:
        """One modality went back in time: so did the others, unless they are where it is now."""
        for windower in self._windowers.values():
            if windower.newest is not None and windower.newest > newest + BACKWARD_JUMP:
                self._enqueue(windower.restart())
        self._began = newest
        self._ready.append(None)

    def _complete(self) -> int | None:
        """The newest tick at or before which nothing is still to come, told from stamps alone.

        A modality is awaited as long as its newest sample is no older than the newest of all minus
        `patience`; at the start all are. So a sensor that stops holds a tick back for at most `patience`
        of the others' time. None: nothing is complete.
        """
        embeds = [w for m, w in self._windowers.items() if m in self._embeds]
        seen = [w.newest for w in embeds if w.newest is not None]
        if not seen or self._began is None:
            return None
        horizon = max(seen) - self._patience
        closed = [w.closed for w in embeds if (self._began if w.newest is None else w.newest) >= horizon]
        return None if any(c is None for c in closed) else min(c for c in closed if c is not None)

    def _answered(
        self, windows: list[tuple[Window, float]] | None, answers: Iterator[Embedding | Failure]
    ) -> Iterator[Output]:
        if windows is None:
            self._health = {modality: Health() for modality in self._health}
        late: list[Embedding] = []
        for window, closed in windows or []:
            statistics = self.statistics[window.modality]
            symptoms = self._health[window.modality].look(window)  # while the device is at work
            statistics.counts.update(symptoms)
            if window.modality not in self._embeds:
                continue
            result = next(answers)
            if isinstance(result, Failure):
                statistics.counts[result.cause] += 1
            else:
                statistics.counts["embedded"] += 1
                statistics.latencies.append((time.perf_counter() - closed) * 1e3)
                statistics.tick = window.tick
                result = replace(result, symptoms=symptoms)
                if window.tick > self._fused_through:
                    self._pending.setdefault(window.tick, {})[window.modality] = result
                else:
                    statistics.counts["unfused"] += 1  # its sense fell behind by more than the patience
                    late.append(result)
            yield result
        for embedding in late:
            yield from self.events.amend(embedding.tick, {embedding.modality: embedding}) if self.events else ()

    def _fuse(self, horizon: int | None) -> Iterator[Output]:
        """Fuse the pending ticks up to `horizon` (None: all)."""
        for tick in sorted(t for t in self._pending if horizon is None or t <= horizon):
            present = self._pending.pop(tick)
            yield fuse(list(present.values()), self._fusion_weights)
            if self.events:
                yield from self.events.step(tick, present)
        self._fused_through = max(self._fused_through, horizon or 0)


def put_through(pipeline: Pipeline, samples: Iterable[Sample | Failure], batch: int = BATCH) -> Iterator[Output]:
    """A whole recording through a pipeline that nobody else drives, as fast as it goes: all that follows from it, as
    `drain` after `drain` would give it. What could not be read is passed on.

    Windows are embedded `batch` at a time; meanwhile the next samples are read and cut, and what follows from the
    answers before is worked out.
    """
    under_way: tuple[Taken, Job] | None = None
    for sample in samples:
        if isinstance(sample, Failure):
            yield sample
            continue
        pipeline.accept(sample)
        if pipeline.waiting() >= batch:
            taken = pipeline.take()
            begun = taken, pipeline.engine.submit(taken.windows)
            if under_way is not None:
                yield from pipeline.give(under_way[0], pipeline.engine.answers(under_way[1]))
            under_way = begun
    if under_way is not None:
        yield from pipeline.give(under_way[0], pipeline.engine.answers(under_way[1]))
    yield from pipeline.finish()


def _split(
    ready: Iterable[tuple[Window, float] | None],
) -> Iterator[list[tuple[Window, float]] | None]:
    """Runs of windows, and None between them where time starts afresh."""
    run: list[tuple[Window, float]] = []
    for item in ready:
        if item is not None:
            run.append(item)
            continue
        yield run
        yield None
        run = []
    yield run
