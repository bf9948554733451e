"""Embeds closed windows: preprocessing, batches, device. Any number of pipelines may share one engine."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.samples import Frame
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.threads import cores_at_hand
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import Runner, empty_cache, lacks_memory
from sensebind.fusion.inference.options import EngineOptions

LOG = logging.getLogger(__name__)
HANDS = 4  # threads that prepare windows for a GPU
TURN = 0.1  # s that one modality may use the device while others wait
MEMORY = 256  # streams whose last images are remembered
FIRST = 4096  # bytes of an image that are compared before the rest
DEFAULTS = EngineOptions()
RECOVERY = 1000  # batches after which a modality's limit, halved when memory ran out, is doubled again


@dataclass(frozen=True, slots=True)
class Failure:
    """A message or window that could not be embedded. `cause`: `encoding` (its data) or `failure` (space or device)."""

    modality: str
    cause: str
    message: str


@dataclass(slots=True)
class _Pace:
    """The batch limit of one modality, and how fast it is embedded."""

    limit: int  # most windows in a batch
    seconds: float = 0.0  # for one window, a moving average; 0: not measured yet
    good: int = 0  # batches embedded since the limit was changed


@dataclass(slots=True)
class _Batch:
    """Windows that the device works on. `items`: their indices in the job, and their tensors."""

    modality: str
    items: list[tuple[int, torch.Tensor]]
    pending: EmbeddingFuture
    began: float


@dataclass(slots=True)
class Job:
    """Windows that were submitted together. `newest`: stream (modality, frame_id) → index of its last window."""

    windows: list[Window]
    results: dict[int, Embedding | Failure] = field(default_factory=dict)
    under_way: deque[_Batch] = field(default_factory=deque)
    same: list[tuple[int, int]] = field(default_factory=list)  # indices: a window, and an earlier equal one
    newest: dict[tuple[str, str], int] = field(default_factory=dict)


class Engine:
    """Embeds windows of the modalities that `space` has encoders for. Safe to call from several threads.

    `embed` returns one result for each window, in the order given. Bad data and device errors are returned as a
    `Failure`, never raised. A batch that fails is tried again in halves, so one bad window does not fail the others. If
    memory ran out, batches of that modality stay smaller for `RECOVERY` batches; the log says so. A window whose images
    equal those of its stream's previous window, byte for byte, reuses the vector.

    On a GPU a `Runner` computes; elsewhere, or with `runner=None`, the space's own `start`.
    """

    def __init__(
        self,
        space: Space,
        batch_size: int = DEFAULTS.batch_size,
        runner: Runner | Literal["auto"] | None = "auto",
    ) -> None:
        self.space = space
        self.runner = Runner.of(space) if runner == "auto" else runner
        self._prepare = space.slide if self.runner is None else self.runner.raw
        hands = min(HANDS, cores_at_hand() - 1) if self.overlaps else 0  # on a CPU the encoders need the cores
        self._hands = ThreadPoolExecutor(hands, "prepare") if hands > 1 else None
        self.batch_size = batch_size
        self._device = threading.Lock()  # one batch at a time: two would share the device's speed and memory
        self._state = threading.Lock()  # guards what follows
        self.reused = 0  # windows that reused a vector
        self._paces: defaultdict[str, _Pace] = defaultdict(lambda: _Pace(batch_size))
        self._last: OrderedDict[tuple[str, str], tuple[Window, npt.NDArray[np.float32]]] = OrderedDict()
        self._fetched = 0.0  # when the last batch was fetched (`time.perf_counter`, s)

    def limit(self, modality: str) -> int:
        """The largest batch of this modality: `batch_size`, or fewer windows after memory ran out."""
        with self._state:
            return self._paces[modality].limit

    def turn(self, modality: str) -> int:
        """How many windows of this modality may be embedded before others get their turn: about `TURN` s of work."""
        with self._state:
            pace = self._paces[modality]
            return pace.limit if not pace.seconds else max(1, min(pace.limit, int(TURN / pace.seconds)))

    def embed(self, windows: Sequence[Window]) -> list[Embedding | Failure]:
        """One result per window, in order."""
        return self.collect(self.submit(windows))

    @property
    def overlaps(self) -> bool:
        """Whether the device computes while the host does other work."""
        return self.runner is not None and self.runner.on_gpu

    def warm_up(self, windows: Sequence[Window]) -> None:
        """Embed each window once, and on a GPU also in batches of 2, 4, 8, … copies, so that CUDA graphs, memory and
        the choice of kernels are ready before real data come. The results are discarded.

        Raises `EncodingError` for a window that cannot be understood.
        """
        for window in windows:
            tensor, size = self._prepare(window), 1
            while size <= (self.limit(window.modality) if self.overlaps else 1):
                job = Job([window] * size)
                self._launch(job, window.modality, [(i, tensor) for i in range(size)])
                self.collect(job)
                size *= 2
            with self._state:
                self._paces[window.modality].seconds = 0.0  # the first run does not predict the next

    def submit(self, windows: Sequence[Window]) -> Job:
        """Prepare windows and begin to embed them; `collect` the job later. With the default `Space.start` the vectors
        are computed before this returns."""
        job = Job(list(windows))
        by_modality: dict[str, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            by_modality[window.modality].append(index)
        for indices in by_modality.values():  # the device works on it while the next is prepared
            self._submit(job, indices)
        return job

    def _submit(self, job: Job, indices: Sequence[int]) -> None:
        """Prepare and launch the windows of one modality."""
        windows, fresh = job.windows, list[int]()
        ready: dict[tuple[torch.Size, torch.dtype], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for index in indices:
            window = windows[index]
            stream = _stream(window)
            before = job.newest.get(stream)
            job.newest[stream] = index
            if before is not None and _unchanged(window, windows[before]):
                job.same.append((index, before))
                continue
            with self._state:
                known = self._last.get(stream)
            if before is None and known is not None and _unchanged(window, known[0]):
                job.results[index] = self._embedding(window, known[1])
                self._note_reuse()
                continue
            fresh.append(index)
        several = self._hands.map if self._hands and len(fresh) > 1 else map
        for index, tensor in zip(fresh, several(self._prepared, [windows[i] for i in fresh]), strict=True):
            if isinstance(tensor, Failure):
                job.results[index] = tensor
            else:
                ready[tensor.shape, tensor.dtype].append((index, tensor))
        for items in ready.values():
            self._launch(job, windows[indices[0]].modality, items)

    def _prepared(self, window: Window) -> torch.Tensor | Failure:
        try:
            return self._prepare(window)
        except (EncodingError, ValueError) as error:
            return Failure(window.modality, "encoding", str(error))
        except Exception as error:  # a third party's space may raise anything: other windows must not fail
            LOG.exception("a window of %s could not be prepared", window.modality)
            return Failure(window.modality, "failure", f"{type(error).__name__}: {error}")

    def collect(self, job: Job) -> list[Embedding | Failure]:
        """One result per window of a job, in order. Collect jobs in the order in which they were submitted."""
        return list(self.answers(job))

    def answers(self, job: Job) -> Iterator[Embedding | Failure]:
        """As `collect`, but yields each result as soon as it and those before it are ready. Read it to its end."""
        windows, results, same = job.windows, job.results, dict(job.same)
        for index, window in enumerate(windows):
            if index in same:
                answer = results[same[index]]
                if isinstance(answer, Embedding):
                    answer = self._embedding(window, answer.vector)
                    self._note_reuse()
                results[index] = answer
            while index not in results:
                self._fetch(job)
            yield results[index]
        for stream, index in job.newest.items():
            self._remember(stream, windows[index], results[index])

    def _fetch(self, job: Job) -> None:
        """Wait for the batch that was launched first."""
        batch = job.under_way.popleft()
        try:
            vectors = self._vectors(batch)
        except Exception as error:  # a third party's space may raise anything
            for part in self._halves(job, batch.modality, batch.items, error):
                self._launch(job, batch.modality, part)
            return
        for (index, _), vector in zip(batch.items, vectors, strict=True):
            job.results[index] = self._embedding(job.windows[index], vector)

    def _launch(self, job: Job, modality: str, items: list[tuple[int, torch.Tensor]]) -> None:
        todo = [items]
        while todo:
            batch = todo.pop()
            limit = self.limit(modality)
            if len(batch) > limit:
                todo += [batch[limit:], batch[:limit]]
                continue
            try:
                pending = self._begin(modality, [tensor for _, tensor in batch])
            except Exception as error:  # a third party's space may raise anything
                todo += reversed(self._halves(job, modality, batch, error))
                continue
            job.under_way.append(_Batch(modality, batch, pending, time.perf_counter()))

    def _begin(self, modality: str, tensors: list[torch.Tensor]) -> EmbeddingFuture:
        if self.runner is not None:
            return self.runner.launch(modality, tensors)
        with self._device:
            return self.space.start(modality, torch.stack(tensors))

    def _vectors(self, batch: _Batch) -> npt.NDArray[np.float32]:
        vectors = batch.pending.fetch().numpy()
        if not np.isfinite(vectors).all():
            raise RuntimeError(f"vectors of {batch.modality} are not finite: set dtype:=float32")
        if batch.pending.took is not None:
            self._note_pace(batch.modality, len(batch.items), batch.pending.took)
            return vectors
        now = time.perf_counter()
        with self._state:
            before, self._fetched = self._fetched, now
        if not batch.pending.first:
            # The device computes one batch after another, so this one began when the previous one was fetched.
            self._note_pace(batch.modality, len(batch.items), now - max(batch.began, before))
        return vectors

    def _note_reuse(self) -> None:
        with self._state:
            self.reused += 1

    def _note_pace(self, modality: str, count: int, took: float) -> None:
        each = took / count
        with self._state:
            pace = self._paces[modality]
            pace.seconds = each if not pace.seconds else 0.8 * pace.seconds + 0.2 * each
            pace.good += 1
            if pace.good >= RECOVERY and pace.limit < self.batch_size:
                pace.limit, pace.good = min(self.batch_size, 2 * pace.limit), 0

    def _halves(
        self, job: Job, modality: str, items: list[tuple[int, torch.Tensor]], error: Exception
    ) -> list[list[tuple[int, torch.Tensor]]]:
        """The batches to try after a failure: both halves; none for a single window, whose `Failure` is stored."""
        self._note_failure(modality, len(items), error)
        if len(items) == 1:
            job.results[items[0][0]] = Failure(modality, "failure", f"on the device: {error}")
            return []
        half = len(items) // 2
        return [items[:half], items[half:]]

    def _note_failure(self, modality: str, count: int, error: Exception) -> None:
        if not lacks_memory(error):
            return
        if self.runner is not None:
            self.runner.release()
        elif torch.cuda.is_initialized():
            empty_cache()
        half = count // 2
        with self._state:
            pace = self._paces[modality]
            if half == 0 or half >= pace.limit:
                return
            pace.limit, pace.good = half, 0
        LOG.warning("out of memory with %d windows of %s: batches of at most %d from now on", count, modality, half)

    def _embedding(self, window: Window, vector: npt.NDArray[np.float32]) -> Embedding:
        return Embedding(
            modality=window.modality,
            start=window.start,
            tick=window.tick,
            space=self.space.id,
            coverage=window.coverage,
            vector=vector,
            frame_id=window.samples[-1].frame_id,
            sensor=window.modality,
        )

    def _remember(self, stream: tuple[str, str], window: Window, result: Embedding | Failure) -> None:
        if isinstance(result, Failure) or not isinstance(window.samples[-1].data, Frame):
            return
        with self._state:
            self._last[stream] = window, result.vector
            self._last.move_to_end(stream)
            while len(self._last) > MEMORY:
                self._last.popitem(last=False)


def _stream(window: Window) -> tuple[str, str]:
    return window.modality, window.samples[-1].frame_id


def _unchanged(window: Window, before: Window) -> bool:
    """Whether both hold the same images, so that their vectors are equal. Always False for sounds and readings."""
    if window.calibration != before.calibration or len(window.samples) != len(before.samples):
        return False
    for now, then in zip(window.samples, before.samples, strict=True):
        a, b = now.data, then.data
        if not (isinstance(a, Frame) and isinstance(b, Frame)):
            return False
        layouts = ((f.encoding, f.height, f.width, f.step, f.big_endian, f.compressed) for f in (a, b))
        if len(set(layouts)) > 1 or not _equal(a.data, b.data):
            return False
    return True


def _equal(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Whether two images (N,) are the same bytes. With sensor noise the first `FIRST` bytes differ already."""
    if a is b:
        return True
    return a.shape == b.shape and np.array_equal(a[:FIRST], b[:FIRST]) and np.array_equal(a, b)
