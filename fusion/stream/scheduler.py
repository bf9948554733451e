"""Shares the device: embeds the windows of any number of clients in common batches. A client is the pipeline of a
robot, or the `RowQueue` of a process that works for some robots.

A turn is a set of windows that are dequeued and embedded together. One thread dequeues the due windows of all clients
and begins to embed them; another completes the turns. So a window that closes during a turn can be embedded before that
turn ends, on an idle core or part of the GPU. A modality is due when a batch of it is full or its oldest window has
waited long enough. In a turn, each modality gets at most about `batches.TIME_SLICE_S` seconds of the device, shared
evenly among the clients that wait for it. Each client has its own bounded queue: when that of a pipeline is full, its
oldest window is dropped and counted.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol

from sensebind.fusion.core.space import Space
from sensebind.fusion.stream.drivers import Client
from sensebind.fusion.stream.pipeline import Output
from sensebind.fusion.stream.waiting_windows import QueueState

LOG = logging.getLogger(__name__)
MAX_TURNS_IN_PROGRESS = 2  # more would only add latency
# s that a window on a GPU waits for windows of other clients: there a batch costs little more than one window
GPU_BATCH_WAIT = 0.003
# s without a result after which `remove` and `close` wait no longer: launch kills a node 10 s after its first signal
STOP_TIMEOUT = 7.0
FINAL_PART = 4  # windows of a client that leaves, which are embedded together

PublishCallback = Callable[[list[Output]], None]


class SharedEngine(Protocol):
    """An engine that a scheduler uses: `Engine`, or `RowEngine` with rows for windows."""

    space: Space

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device computes while the host does other work."""

    def windows_per_time_slice(self, modality: str) -> int:
        """How many windows of a modality may be embedded before others get their turn."""

    def submit(self, windows: Sequence[Any]) -> Any:
        """Begin to embed windows. Returns the job."""

    def failed_job(self, windows: Sequence[Any], message: str) -> Any:
        """A job whose results are all failures."""

    def failure(self, window: Any, message: str) -> Any:
        """The result of a window that could not be embedded."""

    def iter_results(self, job: Any) -> Iterator[Any]:
        """One result for each window of a job, in order."""

    def embed(self, windows: Sequence[Any]) -> Sequence[Any]:
        """One result for each window, in order."""


@dataclass(slots=True, eq=False)
class _Member:
    """A client that is served."""

    client: Client
    publish: PublishCallback
    removed: threading.Event = field(default_factory=threading.Event)
    removal_requested: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    """Windows that are being embedded together, and the clients that they belong to."""

    job: Any  # of the engine
    windows: list[Any]
    batches: list[tuple[_Member, Any]]


class Scheduler:
    """Embeds the windows of its clients in two threads, until `close`.

    `batch_wait`: seconds that a batch waits for more windows while it is not full. None: `GPU_BATCH_WAIT` on a GPU that
    several clients share, otherwise 0, because the next window of a single pipeline closes only one hop later.
    """

    def __init__(self, engine: SharedEngine, batch_wait: float | None = None) -> None:
        self.engine = engine
        self.turn_count = 0  # so far
        self.is_stuck = False  # whether a thread was left behind when it had to end, with windows that are lost
        self.stop_waiting_at = math.inf  # `time.monotonic()`, s, from which `remove` and `close` wait no longer
        self._step_count = 0  # of both threads so far: it shows that they work
        self._wait = batch_wait
        self._members: list[_Member] = []
        self._lock = threading.Lock()  # guards `_members`
        self._wake_event = threading.Event()
        self._closing = False
        self._turn_slots = threading.Semaphore(MAX_TURNS_IN_PROGRESS)
        self._in_progress: SimpleQueue[_Turn | list[_Member] | None] = SimpleQueue()  # see `_complete_loop`
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._dequeue_loop, "embedding"), (self._complete_loop, "completing"))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, client: Client, publish: PublishCallback = lambda outputs: None) -> None:
        """Serve a client from now on. No other driver may dequeue from it.

        `publish` is called with its outputs, always in the same thread of the scheduler. Its exceptions are logged.
        Raises `ValueError` if the client uses another engine than this scheduler.
        """
        if client.engine is not self.engine:
            raise ValueError("a client and its scheduler must share one engine")
        with self._lock:
            self._members.append(_Member(client, publish))
        self._wake_event.set()

    def notify(self) -> None:
        """Wake the scheduler: call it when windows or rows wait: `Pipeline.accept` or `flush` returned True, after
        `Pipeline.restart`, and after `RowQueue.put`."""
        self._wake_event.set()

    def remove(self, client: Client) -> None:
        """Embed and publish the remaining windows of a client (as `drivers.finish`), then stop serving it. Blocks until
        this is done; if a thread is stuck (`is_stuck`), for `STOP_TIMEOUT` seconds; at most until `stop_waiting_at`.

        Do not call it from `publish`: it would wait for its own thread.
        """
        with self._lock:
            found = [member for member in self._members if member.client is client]
        for member in found:
            member.removal_requested = True
            self._wake_event.set()
            self._wait_while_working(member.removed.wait)

    def close(self) -> None:
        """`remove` all clients, then end the threads. Do not call it from `publish`. A thread that is stuck does not
        block: it is left behind, and ends with the process."""
        self._closing = True
        self._wake_event.set()

        def join(seconds: float) -> bool:
            for thread in self._threads:
                thread.join(seconds)
            return not any(thread.is_alive() for thread in self._threads)

        self._wait_while_working(join)

    def _wait_while_working(self, wait: Callable[[float], bool]) -> None:
        """Call `wait` (seconds → whether it is done) until it is done, nothing was done for `STOP_TIMEOUT`, or
        `stop_waiting_at` has come."""
        steps, since = self._step_count, time.monotonic()
        while not wait(0.05):
            now = time.monotonic()
            if self._step_count != steps and now < self.stop_waiting_at:
                steps, since = self._step_count, now
            elif self.is_stuck or now - since >= STOP_TIMEOUT or now >= self.stop_waiting_at:
                if not self.is_stuck:
                    LOG.error(
                        "the embedding of windows %s: it is left behind, and its windows are lost (%d waited)",
                        f"gave no result for {now - since:.1f} s" if self._step_count == steps else "takes too long",
                        self._waiting_windows(),
                    )
                self.is_stuck = True
                return

    def _waiting_windows(self) -> int:
        with self._lock:
            members = list(self._members)
        return sum(sum(member.client.queue_state().window_counts.values()) for member in members)

    # --- in the thread that dequeues

    def _dequeue_loop(self) -> None:
        next_due: float | None = None  # s until waiting windows are due; None: nothing waits
        while True:
            self._wake_event.wait(next_due)
            self._turn_slots.acquire()  # before windows are chosen, so that the newest are among them
            self._wake_event.clear()
            closing = self._closing
            with self._lock:
                members = list(self._members)
            turn, next_due = self._dequeue(members)
            if turn:
                self._in_progress.put(self._submit(turn))
            else:
                self._turn_slots.release()
            if leaving := [member for member in members if member.removal_requested or closing]:
                with self._lock:
                    self._members = [member for member in self._members if member not in leaving]
                self._in_progress.put(leaving)
            if closing:
                self._in_progress.put(None)
                return
            if next_due == 0.0:
                self._wake_event.set()
            del turn  # its windows may have much memory, and the next turn may be far away

    def _dequeue(self, members: Sequence[_Member]) -> tuple[list[tuple[_Member, Any]], float | None]:
        """The due windows, and the seconds until more are due (None: nothing waits)."""
        queues = [(member, member.client.queue_state()) for member in members]
        now = time.perf_counter()
        quotas: list[dict[str, int]] = [{} for _ in queues]
        next_due: float | None = None
        for modality in sorted({name for _, queue in queues for name in queue.window_counts}):
            waiting = [queue.window_counts.get(modality, 0) for _, queue in queues]
            capacity = self.engine.windows_per_time_slice(modality)
            left = self._until_due(modality, [queue for _, queue in queues], capacity, now)
            if left > 0:
                next_due = left if next_due is None else min(next_due, left)
                continue
            for quota, count in zip(quotas, fair_shares(waiting, capacity, self.turn_count), strict=True):
                quota[modality] = count
            if sum(waiting) > capacity:
                next_due = 0.0
        turn = []
        for (member, queue), quota in zip(queues, quotas, strict=True):
            if any(quota.values()) or (queue.restart_waiting and not queue.window_counts):
                turn.append((member, member.client.dequeue(quota)))
                next_due = 0.0 if queue.restart_waiting else next_due
        return turn, next_due

    def _until_due(self, modality: str, queues: Sequence[QueueState], capacity: int, now: float) -> float:
        """Seconds until a modality's windows are due; 0: now."""
        full = sum(queue.window_counts.get(modality, 0) for queue in queues) >= capacity
        if full or any(queue.restart_waiting for queue in queues) or modality not in self.engine.space.modalities:
            return 0.0
        oldest = min(queue.oldest_closed_at[modality] for queue in queues if modality in queue.oldest_closed_at)
        default = GPU_BATCH_WAIT if self.engine.is_asynchronous and len(queues) > 1 else 0.0
        return max(0.0, oldest + (default if self._wait is None else self._wait) - now)

    def _submit(self, batches: list[tuple[_Member, Any]]) -> _Turn:
        self.turn_count += 1
        windows = [window for _, batch in batches for window in batch.windows]
        try:
            job = self.engine.submit(windows)
        except Exception as error:  # a space may raise anything: later windows are still embedded
            LOG.exception("%d windows could not be embedded", len(windows))
            job = self.engine.failed_job(windows, str(error))
        self._step_count += 1
        return _Turn(job, windows, batches)

    # --- in the thread that completes

    def _complete_loop(self) -> None:
        """Complete turns in order. Clients that leave are removed after all their turns. None ends the thread."""
        while (item := self._in_progress.get()) is not None:
            if isinstance(item, _Turn):
                self._complete(item)
                self._turn_slots.release()
            else:
                self._remove(item)
            self._step_count += 1
            del item  # as in `_dequeue_loop`

    def _complete(self, turn: _Turn) -> None:
        """Publish each result as soon as it arrives, without waiting for the rest of the turn."""
        results = self._results(turn)
        for member, batch in turn.batches:
            own = islice(results, len(batch.windows))
            try:
                for output in member.client.complete(batch, own):
                    self._publish(member, [output])
            except Exception:  # of any kind: the other clients must continue
                LOG.exception("a batch of %d windows could not be completed", len(batch.windows))
            for _ in own:  # skip results that were not read: they do not belong to the next client
                pass
        next(results, None)  # iterate to the end, as `Engine.iter_results` requires

    def _results(self, turn: _Turn) -> Iterator[Any]:
        count = 0
        try:
            for result in self.engine.iter_results(turn.job):
                count += 1
                self._step_count += 1
                yield result
        except Exception as error:
            LOG.exception("%d windows could not be embedded", len(turn.windows) - count)
            yield from [self.engine.failure(window, str(error)) for window in turn.windows[count:]]

    def _remove(self, members: Sequence[_Member]) -> None:
        for member in members:
            try:
                member.client.flush()
                batch = member.client.dequeue()
                for output in member.client.complete(batch, self._embed_in_parts(batch.windows)):
                    self._publish(member, [output])
                self._publish(member, member.client.close())
            except Exception:
                LOG.exception("the last windows could not be embedded")
            member.removed.set()

    def _embed_in_parts(self, windows: Sequence[Any]) -> Iterator[Any]:
        """One result for each window. The parts are small, so that `_step_count` shows the progress."""
        for at in range(0, len(windows), FINAL_PART):
            results = self.engine.embed(windows[at : at + FINAL_PART])
            self._step_count += 1
            yield from results

    def _publish(self, member: _Member, outputs: list[Output]) -> None:
        try:
            if outputs:
                member.publish(outputs)
        except Exception:  # of any kind: the other clients must continue
            LOG.exception("outputs could not be published")


def fair_shares(waiting: Sequence[int], capacity: int, start_index: int = 0) -> list[int]:
    """How many windows each client may dequeue: `capacity` in total, shared as evenly as possible.

    Client i gets at most `waiting[i]`. They are assigned one at a time, in turn, from client `start_index` on.
    """
    shares = [0] * len(waiting)
    order = [(start_index + i) % len(waiting) for i in range(len(waiting))]
    while capacity > 0 and (unfilled := [i for i in order if shares[i] < waiting[i]]):
        for i in unfilled[:capacity]:
            shares[i] += 1
        capacity -= len(unfilled[:capacity])
    return shares
