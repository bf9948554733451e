"""Closed windows of one robot that wait to be embedded, bounded in number and in age.

Samples come in on any thread; batches of windows go out to one driver. The queue also knows through which tick all
windows that can still come have been dequeued, because it sees every sample.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sensebind.fusion.core.samples import SECOND, Calibration, Sample
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.stream.windower import BACKWARD_JUMP, Windower


class QueuedWindow(NamedTuple):
    """A window and when it closed (`time.perf_counter`, s)."""

    window: Window
    closed: float


Item = QueuedWindow | None  # None: time starts afresh here


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows that left the queue to be embedded, in order. Complete every dequeued batch, in order.

    `items`: None marks where time starts afresh. `horizon`: the tick (ns) through which all can be fused once this
    batch is complete; None: none. `embeddable`: modalities that the space has an encoder for. `number`: counts from 0.
    """

    number: int
    items: Sequence[Item]
    horizon: int | None
    embeddable: frozenset[str]

    @property
    def windows(self) -> list[Window]:
        """Those to embed, in order: `Pipeline.complete` expects one answer for each."""
        return [item.window for item in self.items if item and item.window.modality in self.embeddable]


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits up to where time starts afresh (`restarts`: it does). By modality: how many windows, and since when
    the oldest (`time.perf_counter`, s)."""

    counts: Mapping[str, int]
    since: Mapping[str, float]
    restarts: bool


@dataclass(frozen=True, slots=True)
class WindowingState:
    """One modality's windowing so far: counters by name, the sum of all windows' coverage, the end of the newest sample
    (ns; None: no sample yet)."""

    counts: Counter[str]
    coverage_sum: float
    newest: int | None


class WindowQueue:
    """Windows samples and holds the closed windows. All public methods may be called from any thread.

    `size`: windows of each modality that may wait; the oldest is dropped and counted as `overload` (None: no bound).
    `deadline`: seconds that a window may wait where a quota is given (see `dequeue`; None: no bound). `patience`: ns by
    which a modality's newest sample may be older than the newest of all and still be waited for.
    """

    def __init__(
        self,
        specs: Mapping[str, WindowSpec],
        embeddable: Iterable[str],
        *,
        patience: int = SECOND,
        calibrations: Mapping[str, Calibration] | None = None,
        size: int | None = None,
        deadline: float | None = None,
    ) -> None:
        self._embeddable = frozenset(specs) & frozenset(embeddable)
        self._patience, self._size, self._deadline = patience, size, deadline or None
        self._lock = threading.Lock()  # guards everything below
        self._windowers = {modality: Windower(spec) for modality, spec in specs.items()}
        self._calibrations = dict(calibrations or {})
        self._items: deque[Item] = deque()
        self._batches = 0  # dequeued so far
        self._began: int | None = None  # end of the first sample: until `patience` after it all modalities are awaited

    # --- in

    def accept(self, sample: Sample) -> bool:
        """Take one sample. Copies nothing and embeds nothing. Returns whether anything waits to be dequeued.

        Raises `KeyError` for a modality that is not configured.
        """
        with self._lock:
            windower = self._windowers[sample.modality]
            before, restarts = windower.newest, windower.counts["restarts"]
            self._enqueue(windower.push(sample))
            if windower.counts["restarts"] > restarts and before and windower.newest and windower.newest < before:
                self._start_afresh(windower.newest)
            if self._began is None:
                self._began = windower.newest
            return bool(self._items)

    def flush(self, modality: str | None = None) -> bool:
        """Close the windows of one modality, or of all, that end at or before its newest sample.

        For a sensor that stopped: call it when no sample is under way. Returns whether anything waits.
        """
        with self._lock:
            for windower in [self._windowers[modality]] if modality else self._windowers.values():
                self._enqueue(windower.flush())
            return bool(self._items)

    def restart(self) -> None:
        """The clock jumped: close the windows that are whole, and start afresh."""
        with self._lock:
            for windower in self._windowers.values():
                self._enqueue(windower.restart())
            self._began = None
            self._items.append(None)

    def calibrate(self, modality: str, calibration: Calibration) -> None:
        """Calibration of a sensor from now on: it goes with the windows that close later."""
        with self._lock:
            self._calibrations[modality] = calibration

    # --- out

    def dequeue(self, quota: Mapping[str, int] | None = None) -> WindowBatch:
        """Windows that are due: of each modality at most `quota`, the oldest first; None: all.

        With a quota, windows that waited longer than the deadline are dropped and counted as `expired`, and with them
        all windows of that modality but the newest that the quota allows.
        """
        with self._lock:
            if quota is None:
                items, self._items = self._items, deque()
                return self._batch(items, self._complete_through())
            self._expire(quota)
            items = self._take(dict(quota))
            horizon = self._complete_through()
            waiting = [item.window.tick for item in self._items if item and item.window.modality in self._embeddable]
            if None in self._items:  # the ticks at hand belong to a time that is over: they are fused with that marker
                horizon = None
            elif horizon is not None and waiting:
                newest = max(w.newest for w in self._windowers.values() if w.newest is not None)
                horizon = min(horizon, max(min(waiting) - 1, newest - self._patience))
            return self._batch(items, horizon)

    # --- state

    def depth(self, modality: str | None = None) -> int:
        """Windows of a modality that wait; None: of all, markers of a restart included."""
        with self._lock:
            if modality is None:
                return len(self._items)
            return sum(1 for item in self._items if item and item.window.modality == modality)

    def state(self) -> QueueState:
        """What waits, for a scheduler that decides when it is dequeued."""
        with self._lock:
            counts: Counter[str] = Counter()
            since: dict[str, float] = {}
            for item in self._items:
                if item is None:
                    return QueueState(counts, since, True)
                counts[item.window.modality] += 1
                since.setdefault(item.window.modality, item.closed)
            return QueueState(counts, since, False)

    def windowing(self) -> dict[str, WindowingState]:
        """Each modality's windowing so far, as a copy."""
        with self._lock:
            return {m: WindowingState(w.counts.copy(), w.coverage_sum, w.newest) for m, w in self._windowers.items()}

    # --- with the lock held

    def _batch(self, items: Sequence[Item], horizon: int | None) -> WindowBatch:
        self._batches += 1
        return WindowBatch(self._batches - 1, items, horizon, self._embeddable)

    def _enqueue(self, windows: Iterable[Window]) -> None:
        now = time.perf_counter()  # for deadlines and the latency that is reported
        for window in windows:
            calibration = self._calibrations.get(window.modality)
            self._items.append(QueuedWindow(replace(window, calibration=calibration) if calibration else window, now))
            self._bound(window.modality)

    def _bound(self, modality: str) -> None:
        if self._size is None:
            return
        waiting = [i for i, item in enumerate(self._items) if item and item.window.modality == modality]
        if len(waiting) > self._size:
            del self._items[waiting[0]]
            self._windowers[modality].counts["overload"] += 1

    def _start_afresh(self, newest: int) -> None:
        """One modality went back in time: restart the others, unless they are where it is now."""
        for windower in self._windowers.values():
            if windower.newest is not None and windower.newest > newest + BACKWARD_JUMP:
                self._enqueue(windower.restart())
        self._began = newest
        self._items.append(None)

    def _expire(self, quota: Mapping[str, int]) -> None:
        """Drop late windows. Of a modality with a late window only the newest that the quota allows are kept, so what
        is embedded next is new. A modality's newest window is always kept."""
        if self._deadline is None:
            return
        oldest = time.perf_counter() - self._deadline
        late = {item.window.modality for item in self._items if item and item.closed < oldest}
        if not late:
            return
        kept: deque[Item] = deque()
        count: Counter[str] = Counter()
        while self._items:
            item = self._items.pop()
            if item and (modality := item.window.modality) in late:
                room = 1 if item.closed < oldest else max(1, quota.get(modality, 0))
                if count[modality] >= room:
                    self._windowers[modality].counts["expired"] += 1
                    continue
                count[modality] += 1
            kept.appendleft(item)
        self._items = kept

    def _take(self, quota: dict[str, int]) -> deque[Item]:
        """Remove what is due now: of each modality as many windows as its quota allows, the oldest first."""
        taken: deque[Item] = deque()
        left: deque[Item] = deque()
        while self._items:
            item = self._items.popleft()
            if item is None:
                (left if left else taken).append(None)
                if left:
                    break  # nothing passes the point where time starts afresh
                continue
            modality = item.window.modality
            allowed = quota.get(modality, 0)
            quota[modality] = allowed - 1
            (taken if allowed > 0 else left).append(item)
        left.extend(self._items)
        self._items = left
        return taken

    def _complete_through(self) -> int | None:
        """The newest tick at or before which no window is still to come, by stamps alone. None: there is none.

        A modality is awaited as long as its newest sample is no older than the newest of all minus `patience`; at the
        start all are. So a sensor that stops holds a tick back for at most `patience` of the others' time.
        """
        awaited = [w for m, w in self._windowers.items() if m in self._embeddable]
        seen = [w.newest for w in awaited if w.newest is not None]
        if not seen or self._began is None:
            return None
        horizon = max(seen) - self._patience
        closed = [w.closed for w in awaited if (self._began if w.newest is None else w.newest) >= horizon]
        return None if any(c is None for c in closed) else min(c for c in closed if c is not None)
