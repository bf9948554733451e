"""Prepared windows of another process that wait to be embedded: what the scheduler serves in place of a pipeline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from sensebind.fusion.inference.batch_runner import RowFailure, RowVector
from sensebind.fusion.inference.remote_runner import RowReply, RowRequest
from sensebind.fusion.inference.row_engine import Row, RowEngine
from sensebind.fusion.stream.pipeline import Output
from sensebind.fusion.stream.waiting_windows import QueueState


@dataclass(slots=True, eq=False)
class _WaitingRequest:
    """A request, its rows, when it arrived (`time.perf_counter`, s), and its results so far."""

    request: RowRequest
    rows: Tensor
    arrived_at: float
    results: list[RowVector | RowFailure] = field(default_factory=list)
    dequeued: int = 0  # rows that have left the queue


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows that left the queue. `parts`: each request, and how many of its rows, in order."""

    windows: list[Row]
    parts: list[tuple[_WaitingRequest, int]]


class RowQueue:
    """The requests of one process. Its own scheduler bounds their number: it waits for replies.

    `reply` is called with the results of each request when all are there. Input side, any thread: `put`, `clear`.
    """

    def __init__(self, engine: RowEngine, reply: Callable[[RowReply], None]) -> None:
        self.engine = engine
        self._reply = reply
        self._lock = threading.Lock()  # guards `_waiting`
        self._waiting: dict[str, deque[_WaitingRequest]] = {}  # modality → requests with rows that wait

    def put(self, request: RowRequest, rows: Tensor) -> None:
        """Add a request and its rows (B, …). They must stay unchanged until its reply."""
        with self._lock:
            queue = self._waiting.setdefault(request.modality, deque())
            queue.append(_WaitingRequest(request, rows, time.perf_counter()))

    def clear(self) -> None:
        """Forget the requests that wait: their process has ended."""
        with self._lock:
            self._waiting.clear()

    def queue_state(self) -> QueueState:
        """The rows that wait, for the scheduler."""
        with self._lock:
            waiting = {modality: list(queue) for modality, queue in self._waiting.items() if queue}
        counts = {m: sum(len(r.rows) - r.dequeued for r in queue) for m, queue in waiting.items()}
        return QueueState(counts, {m: queue[0].arrived_at for m, queue in waiting.items()}, restart_waiting=False)

    def dequeue(self, quota: Mapping[str, int] | None = None) -> RowBatch:
        """Remove rows, the oldest first: at most `quota[modality]` of each modality, or all if `quota` is None."""
        batch = RowBatch([], [])
        with self._lock:
            for modality, queue in self._waiting.items():
                left = sum(len(r.rows) for r in queue) if quota is None else quota.get(modality, 0)
                while queue and left > 0:
                    first = queue[0]
                    count = min(left, len(first.rows) - first.dequeued)
                    batch.parts.append((first, count))
                    batch.windows.extend(Row(modality, row) for row in first.rows[first.dequeued :][:count])
                    first.dequeued, left = first.dequeued + count, left - count
                    if first.dequeued == len(first.rows):
                        queue.popleft()
        return batch

    def complete(self, batch: RowBatch, results: Iterable[RowVector | RowFailure]) -> Iterator[Output]:
        """Reply to each request whose last row is among these. Yields nothing. Iterate to the end."""
        remaining = iter(results)
        for waiting, count in batch.parts:
            waiting.results.extend(next(remaining) for _ in range(count))
            if len(waiting.results) == len(waiting.rows):
                self._reply(self._make_reply(waiting))
        yield from ()

    def flush(self) -> bool:
        """As `Pipeline.flush`; no rows are held back."""
        return False

    def close(self) -> list[Output]:
        """As `Pipeline.close`: nothing is left to report."""
        return []

    def _make_reply(self, waiting: _WaitingRequest) -> RowReply:
        request = waiting.request
        seconds = self.engine.batches.seconds_per_row(request.modality)
        for result in waiting.results:
            if isinstance(result, RowFailure):  # the other process asks again for each half
                return RowReply(request.number, None, None, result.message, seconds)
        rows = [result for result in waiting.results if isinstance(result, RowVector)]
        objects = [row.objects for row in rows if row.objects is not None]
        return RowReply(
            request.number,
            np.stack([row.vector for row in rows]),
            np.stack(objects) if objects else None,
            "",
            seconds,
        )
