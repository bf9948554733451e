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

from sensebind.fusion.core.embeddings import DetectedObject, Embedding
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.samples import Frame
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner, empty_cache, is_out_of_memory
from sensebind.fusion.inference.objects import detected_objects
from sensebind.fusion.inference.options import EngineOptions

LOG = logging.getLogger(__name__)
MAX_PREPROCESSING_THREADS = 4  # threads that prepare windows for a GPU
TIME_SLICE_S = 0.1  # s that one modality may use the device while others wait
MAX_CACHED_STREAMS = 256  # streams whose last images and vectors are cached
COMPARED_PREFIX_BYTES = 4096  # bytes of an image that are compared before the rest
DEFAULTS = EngineOptions()
LIMIT_RECOVERY_BATCHES = 1000  # batches after which a modality's limit, halved when memory ran out, is doubled again


@dataclass(frozen=True, slots=True)
class Failure:
    """A message or window that could not be embedded. `cause`: `encoding` (its data) or `failure` (space or device).
    `sensor`: name of the sensor; empty: that of the modality."""

    modality: str
    cause: str
    message: str
    sensor: str = ""

    def __post_init__(self) -> None:
        if not self.sensor:
            object.__setattr__(self, "sensor", self.modality)


@dataclass(slots=True)
class _BatchStatistics:
    """The batch limit of one modality, and how fast it is embedded."""

    batch_limit: int  # largest number of windows in a batch
    seconds_per_window: float = 0.0  # for one window, a moving average; 0: not measured yet
    batches_since_change: int = 0  # batches embedded since the limit was changed


@dataclass(slots=True)
class _BatchInFlight:
    """Windows that the device works on. `items`: their indices in the job, and their tensors."""

    modality: str
    items: list[tuple[int, torch.Tensor]]
    future: EmbeddingFuture
    started_at: float


@dataclass(slots=True)
class EmbeddingJob:
    """Windows that were submitted together. `last_index_by_stream`: stream (sensor, frame_id) → index of its last
    window."""

    windows: list[Window]
    results: dict[int, Embedding | Failure] = field(default_factory=dict)
    in_flight: deque[_BatchInFlight] = field(default_factory=deque)
    duplicates: list[tuple[int, int]] = field(default_factory=list)  # indices: a window, and an earlier equal one
    last_index_by_stream: dict[tuple[str, str], int] = field(default_factory=dict)


class Engine:
    """Embeds windows of the modalities that `space` has encoders for. Safe to call from several threads.

    `embed` returns one result for each window, in the order given. Bad data and device errors are returned as a
    `Failure`, never raised. A batch that fails is tried again in halves, so one bad window does not fail the others. If
    memory ran out, batches of that modality stay smaller for `LIMIT_RECOVERY_BATCHES` batches; the log says so. A
    window whose images equal those of its stream's previous window, byte for byte, reuses the vector and the objects.

    On a GPU a `GpuRunner` computes; elsewhere, or with `runner=None`, the space's own `embed_async`.
    """

    def __init__(
        self,
        space: Space,
        batch_size: int = DEFAULTS.batch_size,
        runner: GpuRunner | Literal["auto"] | None = "auto",
    ) -> None:
        self.space = space
        self.runner = GpuRunner.for_space(space) if runner == "auto" else runner
        self._preprocess = space.tensor if self.runner is None else self.runner.device_input
        # On a CPU the encoders need the cores.
        threads = min(MAX_PREPROCESSING_THREADS, available_cores() - 1) if self.is_asynchronous else 0
        self._preprocessing_pool = ThreadPoolExecutor(threads, "prepare") if threads > 1 else None
        self.batch_size = batch_size
        self._device_lock = threading.Lock()  # one batch at a time: two would share the device's speed and memory
        self._state_lock = threading.Lock()  # guards the attributes below
        self.reused_count = 0  # windows that reused a vector
        self._batch_statistics: defaultdict[str, _BatchStatistics] = defaultdict(lambda: _BatchStatistics(batch_size))
        self._embedding_cache: OrderedDict[tuple[str, str], tuple[Window, Embedding]] = OrderedDict()
        self._last_fetch_time = 0.0  # when the last batch was fetched (`time.perf_counter`, s)

    def limit(self, modality: str) -> int:
        """The largest batch of this modality: `batch_size`, or fewer windows after memory ran out."""
        with self._state_lock:
            return self._batch_statistics[modality].batch_limit

    def windows_per_time_slice(self, modality: str) -> int:
        """How many windows of this modality may be embedded before others get their turn: about `TIME_SLICE_S` s of
        work."""
        with self._state_lock:
            statistics = self._batch_statistics[modality]
            if not statistics.seconds_per_window:
                return statistics.batch_limit
            return max(1, min(statistics.batch_limit, int(TIME_SLICE_S / statistics.seconds_per_window)))

    def embed(self, windows: Sequence[Window]) -> list[Embedding | Failure]:
        """One result per window, in order."""
        return self.collect(self.submit(windows))

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device computes while the host does other work."""
        return self.runner is not None and self.runner.on_gpu

    def warm_up(self, windows: Sequence[Window]) -> None:
        """Embed each window once, and on a GPU also in batches of 2, 4, 8, … copies, so that CUDA graphs, memory and
        the choice of kernels are ready before real data come. The results are discarded.

        Raises `EncodingError` for a window that cannot be understood.
        """
        for window in windows:
            tensor, size = self._preprocess(window), 1
            while size <= (self.limit(window.modality) if self.is_asynchronous else 1):
                job = EmbeddingJob([window] * size)
                self._launch(job, window.modality, [(i, tensor) for i in range(size)])
                self.collect(job)
                size *= 2
            with self._state_lock:  # the time of a first run does not predict the next one
                self._batch_statistics[window.modality].seconds_per_window = 0.0

    def submit(self, windows: Sequence[Window]) -> EmbeddingJob:
        """Prepare windows and begin to embed them; `collect` the job later. With the default `Space.embed_async` the
        vectors are computed before this returns."""
        job = EmbeddingJob(list(windows))
        by_modality: dict[str, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            by_modality[window.modality].append(index)
        for indices in by_modality.values():  # the device computes one modality while the next is prepared
            self._submit_modality(job, indices)
        return job

    def _submit_modality(self, job: EmbeddingJob, indices: Sequence[int]) -> None:
        """Prepare and launch the windows of one modality."""
        windows, fresh = job.windows, list[int]()
        ready: dict[tuple[torch.Size, torch.dtype], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for index in indices:
            window = windows[index]
            stream = _stream_key(window)
            before = job.last_index_by_stream.get(stream)
            job.last_index_by_stream[stream] = index
            if before is not None and _same_images(window, windows[before]):
                job.duplicates.append((index, before))
                continue
            with self._state_lock:
                known = self._embedding_cache.get(stream)
            if before is None and known is not None and _same_images(window, known[0]):
                job.results[index] = self._make_embedding(window, known[1].vector, known[1].objects)
                self._count_reuse()
                continue
            fresh.append(index)
        several = self._preprocessing_pool.map if self._preprocessing_pool and len(fresh) > 1 else map
        for index, tensor in zip(fresh, several(self._preprocess_safely, [windows[i] for i in fresh]), strict=True):
            if isinstance(tensor, Failure):
                job.results[index] = tensor
            else:
                ready[tensor.shape, tensor.dtype].append((index, tensor))
        for items in ready.values():
            self._launch(job, windows[indices[0]].modality, items)

    def _preprocess_safely(self, window: Window) -> torch.Tensor | Failure:
        try:
            return self._preprocess(window)
        except (EncodingError, ValueError) as error:
            return Failure(window.modality, "encoding", str(error), window.sensor)
        except Exception as error:  # a space of another package may raise anything; other windows must not fail
            LOG.exception("a window of %s could not be prepared", window.sensor)
            return Failure(window.modality, "failure", f"{type(error).__name__}: {error}", window.sensor)

    def collect(self, job: EmbeddingJob) -> list[Embedding | Failure]:
        """One result per window of a job, in order. Collect jobs in the order in which they were submitted."""
        return list(self.iter_results(job))

    def iter_results(self, job: EmbeddingJob) -> Iterator[Embedding | Failure]:
        """As `collect`, but yields each result as soon as it and those before it are ready. Read it to its end."""
        windows, results, same = job.windows, job.results, dict(job.duplicates)
        for index, window in enumerate(windows):
            if index in same:
                result = results[same[index]]
                if isinstance(result, Embedding):
                    result = self._make_embedding(window, result.vector, result.objects)
                    self._count_reuse()
                results[index] = result
            while index not in results:
                self._complete_oldest_batch(job)
            yield results[index]
        for stream, index in job.last_index_by_stream.items():
            self._cache_embedding(stream, windows[index], results[index])

    def _complete_oldest_batch(self, job: EmbeddingJob) -> None:
        """Wait for the batch that was launched first."""
        batch = job.in_flight.popleft()
        try:
            vectors, objects = self._fetch_vectors(batch)
        except Exception as error:  # a space of another package may raise anything
            for part in self._split_failed_batch(job, batch.modality, batch.items, error):
                self._launch(job, batch.modality, part)
            return
        names = self.space.object_names(batch.modality)
        for row, (index, _) in enumerate(batch.items):
            window = job.windows[index]
            own = () if objects is None else detected_objects(names, objects[row], window)
            job.results[index] = self._make_embedding(window, vectors[row], own)

    def _launch(self, job: EmbeddingJob, modality: str, items: list[tuple[int, torch.Tensor]]) -> None:
        todo = [items]
        while todo:
            batch = todo.pop()
            limit = self.limit(modality)
            if len(batch) > limit:
                todo += [batch[limit:], batch[:limit]]
                continue
            try:
                pending = self._start_batch(modality, [tensor for _, tensor in batch])
            except Exception as error:  # a space of another package may raise anything
                todo += reversed(self._split_failed_batch(job, modality, batch, error))
                continue
            job.in_flight.append(_BatchInFlight(modality, batch, pending, time.perf_counter()))

    def _start_batch(self, modality: str, tensors: list[torch.Tensor]) -> EmbeddingFuture:
        if self.runner is not None:
            return self.runner.launch(modality, tensors)
        with self._device_lock:
            return self.space.embed_async(modality, torch.stack(tensors))

    def _fetch_vectors(self, batch: _BatchInFlight) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Wait for the vectors (B, D) and, if the encoder locates them, the objects (B, K, 5)."""
        vectors = batch.future.fetch().numpy()
        objects = None if batch.future.objects is None else batch.future.objects.numpy()
        names = self.space.object_names(batch.modality)
        if objects is not None and not (objects.shape == (len(vectors), len(names), 5) and np.isfinite(objects).all()):
            raise RuntimeError(
                f"objects of {batch.modality} must be finite numbers ({len(vectors)}, {len(names)}, 5), not of shape "
                f"{objects.shape}"
            )
        if not np.isfinite(vectors).all():
            raise RuntimeError(f"vectors of {batch.modality} are not finite: set dtype to float32")
        if batch.future.compute_seconds is not None:
            self._update_batch_statistics(batch.modality, len(batch.items), batch.future.compute_seconds)
            return vectors, objects
        now = time.perf_counter()
        with self._state_lock:
            before, self._last_fetch_time = self._last_fetch_time, now
        if not batch.future.is_first_of_shape:
            # The device computes one batch after another, so this one began when the previous one was fetched.
            self._update_batch_statistics(batch.modality, len(batch.items), now - max(batch.started_at, before))
        return vectors, objects

    def _count_reuse(self) -> None:
        with self._state_lock:
            self.reused_count += 1

    def _update_batch_statistics(self, modality: str, count: int, seconds: float) -> None:
        each = seconds / count
        with self._state_lock:
            statistics = self._batch_statistics[modality]
            average = statistics.seconds_per_window
            statistics.seconds_per_window = 0.8 * average + 0.2 * each if average else each
            statistics.batches_since_change += 1
            if statistics.batches_since_change >= LIMIT_RECOVERY_BATCHES and statistics.batch_limit < self.batch_size:
                statistics.batch_limit = min(self.batch_size, 2 * statistics.batch_limit)
                statistics.batches_since_change = 0

    def _split_failed_batch(
        self, job: EmbeddingJob, modality: str, items: list[tuple[int, torch.Tensor]], error: Exception
    ) -> list[list[tuple[int, torch.Tensor]]]:
        """The batches to try after a failure: both halves; none for a single window, whose `Failure` is stored."""
        self._handle_out_of_memory(modality, len(items), error)
        if len(items) == 1:
            sensor = job.windows[items[0][0]].sensor
            job.results[items[0][0]] = Failure(modality, "failure", f"on the device: {error}", sensor)
            return []
        half = len(items) // 2
        return [items[:half], items[half:]]

    def _handle_out_of_memory(self, modality: str, count: int, error: Exception) -> None:
        if not is_out_of_memory(error):
            return
        if self.runner is not None:
            self.runner.free_memory()
        elif torch.cuda.is_initialized():
            empty_cache()
        half = count // 2
        with self._state_lock:
            statistics = self._batch_statistics[modality]
            if half == 0 or half >= statistics.batch_limit:
                return
            statistics.batch_limit, statistics.batches_since_change = half, 0
        LOG.warning("out of memory with a batch of %d windows of %s: at most %d from now on", count, modality, half)

    def _make_embedding(
        self, window: Window, vector: npt.NDArray[np.float32], objects: tuple[DetectedObject, ...] = ()
    ) -> Embedding:
        return Embedding(
            modality=window.modality,
            start=window.start,
            tick=window.tick,
            space=self.space.id,
            coverage=window.coverage,
            vector=vector,
            frame_id=window.samples[-1].frame_id,
            sensor=window.sensor,
            objects=objects,
        )

    def _cache_embedding(self, stream: tuple[str, str], window: Window, result: Embedding | Failure) -> None:
        if isinstance(result, Failure) or not isinstance(window.samples[-1].data, Frame):
            return
        with self._state_lock:
            self._embedding_cache[stream] = window, result
            self._embedding_cache.move_to_end(stream)
            while len(self._embedding_cache) > MAX_CACHED_STREAMS:
                self._embedding_cache.popitem(last=False)


def _stream_key(window: Window) -> tuple[str, str]:
    return window.sensor, window.samples[-1].frame_id


def _same_images(window: Window, before: Window) -> bool:
    """Whether both hold the same images, so that their vectors are equal. Always False for sounds and readings."""
    if window.calibration != before.calibration or len(window.samples) != len(before.samples):
        return False
    for now, then in zip(window.samples, before.samples, strict=True):
        a, b = now.data, then.data
        if not (isinstance(a, Frame) and isinstance(b, Frame)):
            return False
        layouts = ((f.encoding, f.height, f.width, f.step, f.big_endian, f.compressed) for f in (a, b))
        if len(set(layouts)) > 1 or not _same_bytes(a.data, b.data):
            return False
    return True


def _same_bytes(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Whether two images (N,) are the same bytes. With sensor noise the first `COMPARED_PREFIX_BYTES` bytes differ
    already."""
    if a is b:
        return True
    return (
        a.shape == b.shape
        and np.array_equal(a[:COMPARED_PREFIX_BYTES], b[:COMPARED_PREFIX_BYTES])
        and np.array_equal(a, b)
    )
