"""Closed windows that wait to be embedded, bounded in number, age and bytes, and those that are being embedded.

`WindowQueue` guards it with its lock.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sensebind.fusion.core.windows import Window
from sensebind.fusion.stream.memory.sizes import window_bytes


class QueuedWindow(NamedTuple):
    """A window, when it closed (`time.perf_counter`, s), and its size (`window_bytes`)."""

    window: Window
    closed_at: float
    size: int = 0


QueueItem = QueuedWindow | None  # None marks a restart: the clock jumped here


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows that left the queue to be embedded, in order. Complete every dequeued batch, in order.

    `items`: windows, and None for each restart. `fusion_watermark`: the newest tick (ns) that can be fused once
    this batch is complete; None: no tick. `embeddable_modalities`: those that the space has an encoder for. `number`:
    counts from 0.
    """

    number: int
    items: Sequence[QueueItem]
    fusion_watermark: int | None
    embeddable_modalities: frozenset[str]

    @property
    def windows(self) -> list[Window]:
        """The windows to embed, in order. `Pipeline.complete` expects one result for each."""
        return [item.window for item in self.items if item and item.window.modality in self.embeddable_modalities]


@dataclass(frozen=True, slots=True)
class QueueState:
    """The windows that wait before the next restart. `window_counts`: modality → how many. `oldest_closed_at`:
    modality → when the oldest of them closed (`time.perf_counter`, s). `restart_waiting`: whether a restart waits
    behind them."""

    window_counts: Mapping[str, int]
    oldest_closed_at: Mapping[str, float]
    restart_waiting: bool


class WaitingWindows:
    """The windows of one robot from when they close until they have a result. Use it in one thread at a time.

    `max_windows`: how many of each sensor may wait; beyond that, the oldest is dropped (None: no bound, also of bytes).
    `shares`: sensor → bytes that its windows, those that are embedded included, may have. `deadline`: seconds that a
    window may wait (None: no bound).
    """

    def __init__(self, shares: Mapping[str, int], max_windows: int | None, deadline: float | None) -> None:
        self._shares, self._max_windows, self._deadline = dict(shares), max_windows, deadline
        self._items: deque[QueueItem] = deque()
        self._bytes: Counter[str] = Counter()  # sensor → of the windows that wait or are embedded
        self._batch_count = 0  # number of batches so far
        # Number of a batch that is not complete → sensor → its windows without a result, and bytes of its windows.
        self._in_flight: dict[int, Counter[str]] = {}
        self._batch_bytes: dict[int, Counter[str]] = {}

    def __len__(self) -> int:
        """How many windows and restarts wait."""
        return len(self._items)

    def __iter__(self) -> Iterator[Window]:
        """The windows that wait, the oldest first."""
        return (item.window for item in self._items if item)

    # --- input

    def add(self, window: Window) -> int:
        """A window has closed. Returns how many windows of its sensor are dropped, the oldest first, so that it is
        within its limits. If those that are embedded use its memory, the newest one is dropped too."""
        item = QueuedWindow(window, time.perf_counter(), window_bytes(window))
        self._items.append(item)
        self._bytes[window.sensor] += item.size
        return self._drop_over_limit(window.sensor)

    def add_restart(self) -> None:
        """The clock jumped behind the windows so far."""
        self._items.append(None)

    # --- output

    def take_all(self) -> Sequence[QueueItem]:
        """Remove and return all items."""
        items, self._items = self._items, deque()
        return items

    def take(self, quota: Mapping[str, int]) -> Sequence[QueueItem]:
        """Remove and return as many windows of each modality as its quota allows (0 if it is not named), the oldest
        first, and the restarts before which no window is left."""
        left = dict(quota)
        removed: deque[QueueItem] = deque()
        remaining: deque[QueueItem] = deque()
        while self._items:
            item = self._items.popleft()
            if item is None:
                (remaining if remaining else removed).append(None)
                if remaining:
                    break  # no window overtakes a restart
                continue
            modality = item.window.modality
            allowed = left.get(modality, 0)
            left[modality] = allowed - 1
            (removed if allowed > 0 else remaining).append(item)
        remaining.extend(self._items)
        self._items = remaining
        return removed

    def expire(self, quota: Mapping[str, int]) -> Counter[str]:
        """Drop windows past the deadline. A sensor with such a window keeps only as many of its newest windows as its
        share of the quota, so that the windows that are embedded next are recent. Its newest window is always kept.
        Returns sensor → how many were dropped."""
        expired: Counter[str] = Counter()
        oldest = time.perf_counter() - self._deadline if self._deadline is not None else 0.0
        late_sensors = {item.window.sensor for item in self._items if item and item.closed_at < oldest}
        if not late_sensors:
            return expired
        sharing = Counter({window.sensor: window.modality for window in self}.values())  # modality → waiting sensors
        kept: deque[QueueItem] = deque()
        count: Counter[str] = Counter()
        while self._items:
            item = self._items.pop()
            if item and (sensor := item.window.sensor) in late_sensors:
                modality = item.window.modality
                limit = 1 if item.closed_at < oldest else max(1, quota.get(modality, 0) // sharing[modality])
                if count[sensor] >= limit:
                    expired[sensor] += 1
                    self._bytes[sensor] -= item.size
                    continue
                count[sensor] += 1
            kept.appendleft(item)
        self._items = kept
        return expired

    def make_batch(
        self, items: Sequence[QueueItem], fusion_watermark: int | None, embeddable_modalities: frozenset[str]
    ) -> WindowBatch:
        """A batch of items that were taken. Its windows are embedded from now on."""
        number, self._batch_count = self._batch_count, self._batch_count + 1
        self._in_flight[number] = Counter(item.window.sensor for item in items if item)
        sizes = self._batch_bytes[number] = Counter()
        for item in items:
            if item:
                sizes[item.window.sensor] += item.size
        return WindowBatch(number, items, fusion_watermark, embeddable_modalities)

    def end_window(self, batch: int, sensor: str) -> None:
        """A window of a batch has its result. Raises `ValueError` if the batch was abandoned."""
        if batch not in self._in_flight:
            raise ValueError(f"batch {batch} was abandoned: complete batches in order")
        self._in_flight[batch][sensor] -= 1

    def abandon(self, before: int) -> Counter[str]:
        """Expect no more results of the batches with numbers below `before`. Returns sensor → their windows that have
        no result."""
        ended = [number for number in self._in_flight if number < before]
        for number in ended:
            self._bytes -= self._batch_bytes.pop(number)
        return sum((self._in_flight.pop(number) for number in ended), Counter[str]())

    # --- state

    def bytes_of(self, sensor: str) -> int:
        """The bytes of the windows of a sensor that wait or are embedded."""
        return self._bytes[sensor]

    def in_flight(self) -> Counter[str]:
        """Sensor → its windows that are embedded and have no result."""
        return sum(self._in_flight.values(), Counter[str]())

    @property
    def has_restart(self) -> bool:
        """Whether a restart waits."""
        return None in self._items

    def state(self) -> QueueState:
        """The windows that wait, for a scheduler that decides when to dequeue them."""
        counts: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for item in self._items:
            if item is None:
                return QueueState(counts, oldest, True)
            counts[item.window.modality] += 1
            oldest.setdefault(item.window.modality, item.closed_at)
        return QueueState(counts, oldest, False)

    def _drop_over_limit(self, sensor: str) -> int:
        if self._max_windows is None:
            return 0
        waiting = [i for i, item in enumerate(self._items) if item and item.window.sensor == sensor]
        dropped = 0
        while dropped < len(waiting) and (
            len(waiting) - dropped > self._max_windows or self._bytes[sensor] > self._shares[sensor]
        ):
            item = self._items[waiting[dropped] - dropped]
            assert item is not None
            self._bytes[sensor] -= item.size
            del self._items[waiting[dropped] - dropped]
            dropped += 1
        return dropped
