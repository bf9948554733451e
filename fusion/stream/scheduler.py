"""Who gets the device, and when: the windows of any number of pipelines, robots', in common batches.

One thread takes what is due from all pipelines and begins to embed it; another gives each pipeline its answers. So what
closes while a turn is under way does not wait for its end: it finds the core, or the part of a GPU, that is idle. A
modality is due when a batch of it is full or its oldest window has waited long enough. In a turn, no modality gets more
than about `engine.TURN` seconds of the device, and what it gets is shared evenly among the pipelines that wait for it.
Queues are the pipelines' own: bounded, the oldest dropped first and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.inference.engine import Engine, Failure, Job
from sensebind.fusion.stream.drivers import finish
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.window_queue import QueueState, WindowBatch

LOG = logging.getLogger(__name__)
AHEAD = 2  # turns that are under way at most: more would only be older when their answers come
WAIT = 0.003  # s that a window waits for those of other pipelines, where a batch costs little more than one window

Publish = Callable[[list[Output]], None]


@dataclass(slots=True, eq=False)
class _Member:
    pipeline: Pipeline
    publish: Publish
    gone: threading.Event = field(default_factory=threading.Event)
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    """Windows that are being embedded together, and whose they are."""

    job: Job
    batches: list[tuple[_Member, WindowBatch]]


class Scheduler:
    """Runs until `close`. `wait`: seconds that a batch that is not full waits for more windows. None: `WAIT` on a GPU
    that several pipelines share, otherwise 0, because the next window of a single pipeline comes a hop later.

    `publish` is called in one thread of the scheduler's with what follows from the answers; what it raises is logged.
    """

    def __init__(self, engine: Engine, wait: float | None = None) -> None:
        self.engine = engine
        self.turns = 0  # so far
        self._wait = wait
        self._members: list[_Member] = []
        self._lock = threading.Lock()  # guards the list
        self._work = threading.Event()
        self._closing = False
        self._room = threading.Semaphore(AHEAD)
        self._under_way: SimpleQueue[_Turn | list[_Member] | None] = SimpleQueue()  # see `_answer`
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._begin, "embedding"), (self._answer, "answering"))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, pipeline: Pipeline, publish: Publish = lambda outputs: None) -> None:
        """Serve a pipeline from now on. It must use this scheduler's engine, and nobody else may drain it."""
        if pipeline.engine is not self.engine:
            raise ValueError("a pipeline and its scheduler must share one engine")
        with self._lock:
            self._members.append(_Member(pipeline, publish))
        self._work.set()

    def notify(self) -> None:
        """A pipeline has work: `accept` or `flush` said so."""
        self._work.set()

    def remove(self, pipeline: Pipeline) -> None:
        """Embed what a pipeline has heard, publish it, and serve it no more. Returns when that is done."""
        with self._lock:
            found = [member for member in self._members if member.pipeline is pipeline]
        for member in found:
            member.leaving = True
            self._work.set()
            member.gone.wait()

    def close(self) -> None:
        """As `remove`, of all; then the threads end."""
        self._closing = True
        self._work.set()
        for thread in self._threads:
            thread.join()

    # --- in the thread that begins

    def _begin(self) -> None:
        patience: float | None = None  # s until something that waits is due
        while True:
            self._work.wait(patience)
            self._room.acquire()  # before it is known what is due, so that it is the newest
            self._work.clear()
            closing = self._closing
            with self._lock:
                members = list(self._members)
            turn, patience = self._dequeue(members)
            if turn:
                self._under_way.put(_Turn(self._submit(turn), turn))
            else:
                self._room.release()
            if leaving := [member for member in members if member.leaving or closing]:
                with self._lock:
                    self._members = [member for member in self._members if member not in leaving]
                self._under_way.put(leaving)
            if closing:
                self._under_way.put(None)
                return
            if patience == 0.0:
                self._work.set()

    def _dequeue(self, members: Sequence[_Member]) -> tuple[list[tuple[_Member, WindowBatch]], float | None]:
        """What is due, and how long until something else is (None: nothing waits)."""
        queues = [(member, member.pipeline.queue()) for member in members]
        now = time.perf_counter()
        quotas: list[dict[str, int]] = [{} for _ in queues]
        patience: float | None = None
        for modality in sorted({name for _, queue in queues for name in queue.counts}):
            waiting = [queue.counts.get(modality, 0) for _, queue in queues]
            room = self.engine.turn(modality)
            left = self._until_due(modality, [queue for _, queue in queues], room, now)
            if left > 0:
                patience = left if patience is None else min(patience, left)
                continue
            for quota, count in zip(quotas, shares(waiting, room, self.turns), strict=True):
                quota[modality] = count
            if sum(waiting) > room:
                patience = 0.0
        turn = []
        for (member, queue), quota in zip(queues, quotas, strict=True):
            if any(quota.values()) or (queue.restarts and not queue.counts):
                turn.append((member, member.pipeline.dequeue(quota)))
                patience = 0.0 if queue.restarts else patience
        return turn, patience

    def _until_due(self, modality: str, queues: Sequence[QueueState], room: int, now: float) -> float:
        """Seconds until a modality's windows are to be embedded; 0: now."""
        full = sum(queue.counts.get(modality, 0) for queue in queues) >= room
        if full or any(queue.restarts for queue in queues) or modality not in self.engine.space.modalities:
            return 0.0
        oldest = min(queue.since[modality] for queue in queues if modality in queue.since)
        default = WAIT if self.engine.overlaps and len(queues) > 1 else 0.0
        return max(0.0, oldest + (default if self._wait is None else self._wait) - now)

    def _submit(self, turn: Sequence[tuple[_Member, WindowBatch]]) -> Job:
        self.turns += 1
        windows = [window for _, batch in turn for window in batch.windows]
        try:
            return self.engine.submit(windows)
        except Exception as error:  # whatever a space raises, later windows are embedded
            LOG.exception("%d windows could not be embedded", len(windows))
            failed = {i: Failure(w.modality, "failure", str(error)) for i, w in enumerate(windows)}
            return Job(windows, dict(failed))

    # --- in the thread that answers

    def _answer(self) -> None:
        """Turns in their order; then members that leave once all that was taken of them is answered; then the end."""
        while (item := self._under_way.get()) is not None:
            if isinstance(item, _Turn):
                self._complete(item)
                self._room.release()
            else:
                self._part(item)

    def _complete(self, turn: _Turn) -> None:
        """Publish each answer when it is there: none waits for the last of its turn."""
        answers = self._answers(turn.job)
        for member, batch in turn.batches:
            own = islice(answers, len(batch.windows))
            try:
                for output in member.pipeline.complete(batch, own):
                    self._publish(member, [output])
            except Exception:  # whatever it is, the other pipelines go on
                LOG.exception("what follows from %d windows could not be worked out", len(batch.windows))
            for _ in own:  # what it did not ask for is not the next one's
                pass
        next(answers, None)  # to the end

    def _answers(self, job: Job) -> Iterator[Embedding | Failure]:
        given = 0
        try:
            for answer in self.engine.answers(job):
                given += 1
                yield answer
        except Exception as error:
            LOG.exception("%d windows could not be embedded", len(job.windows) - given)
            yield from [Failure(w.modality, "failure", str(error)) for w in job.windows[given:]]

    def _part(self, members: Sequence[_Member]) -> None:
        for member in members:
            try:
                self._publish(member, finish(member.pipeline))
            except Exception:
                LOG.exception("the last windows could not be embedded")
            member.gone.set()

    def _publish(self, member: _Member, outputs: list[Output]) -> None:
        try:
            if outputs:
                member.publish(outputs)
        except Exception:  # whatever it is, the other pipelines go on
            LOG.exception("what was embedded could not be published")


def shares(waiting: Sequence[int], room: int, first: int = 0) -> list[int]:
    """`room` places among those who wait, one at a time in turn from number `first` on: as even as can be."""
    given = [0] * len(waiting)
    order = [(first + i) % len(waiting) for i in range(len(waiting))]
    while room > 0 and (open_ones := [i for i in order if given[i] < waiting[i]]):
        for i in open_ones[:room]:
            given[i] += 1
        room -= len(open_ones[:room])
    return given
