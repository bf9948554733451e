"""The engine of windows: prepares closed windows and embeds them. Any number of pipelines may share one engine."""

from __future__ import annotations

import logging
import threading
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
from sensebind.fusion.core.samples import Frame
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.batch_runner import BatchRunner, RowFailure, RowVector, Runner
from sensebind.fusion.inference.objects import detected_objects
from sensebind.fusion.inference.options import EngineOptions

LOG = logging.getLogger(__name__)
MAX_PREPROCESSING_THREADS = 4  # threads that prepare windows for a GPU
MAX_CACHED_STREAMS = 256  # streams whose last images and vectors are cached
DEFAULT_CACHE_BYTES = 300 * 2**20  # of these images
COMPARED_PREFIX_BYTES = 4096  # bytes of an image that are compared before the rest
DEFAULTS = EngineOptions()


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
class EmbeddingJob:
    """Windows that were submitted together. `last_index_by_stream`: stream (sensor, frame_id) → index of its last
    window."""

    windows: list[Window]
    results: dict[int, Embedding | Failure] = field(default_factory=dict)
    in_flight: deque[Iterator[tuple[int, RowVector | RowFailure]]] = field(default_factory=deque)  # index, result
    duplicates: list[tuple[int, int]] = field(default_factory=list)  # indices: a window, and an earlier equal one
    last_index_by_stream: dict[tuple[str, str], int] = field(default_factory=dict)


class Engine:
    """Embeds windows of the modalities that `space` has encoders for. Safe to call from several threads.

    `embed` returns one result for each window, in the order given. Bad data and device errors are returned as a
    `Failure`, never raised. A window whose images equal those of its stream's previous window, byte for byte, reuses
    the vector and the objects.

    At most `MAX_CACHED_STREAMS` of these windows are kept, and `limit_cache` bytes: those of the newest streams.

    `batches` embeds the prepared windows; for `batch_size` and `runner` see `BatchRunner`.
    """

    def __init__(
        self,
        space: Space,
        batch_size: int = DEFAULTS.batch_size,
        runner: Runner | Literal["auto"] | None = "auto",
    ) -> None:
        self.space = space
        self.batches = BatchRunner(space, batch_size, runner)
        self._preprocess = space.tensor if self.batches.runner is None else self.batches.runner.device_input
        # On a CPU the encoders need the cores.
        threads = min(MAX_PREPROCESSING_THREADS, available_cores() - 1) if self.is_asynchronous else 0
        self._preprocessing_pool = ThreadPoolExecutor(threads, "prepare") if threads > 1 else None
        self._state_lock = threading.Lock()  # guards the attributes below
        self.reused_count = 0  # windows that reused a vector
        self._embedding_cache: OrderedDict[tuple[str, str], tuple[Window, Embedding]] = OrderedDict()
        self._cache_limit, self.cached_bytes = DEFAULT_CACHE_BYTES, 0  # of the images in it: the most, and now

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device computes while the host does other work."""
        return self.batches.is_asynchronous

    def limit_cache(self, size: int) -> None:
        """Keep at most `size` bytes of images whose vectors may be used again."""
        with self._state_lock:
            self._cache_limit = size

    def windows_per_time_slice(self, modality: str) -> int:
        """How many windows of this modality may be embedded before others get their turn: about `TIME_SLICE_S` s of
        work."""
        return self.batches.rows_per_time_slice(modality)

    def embed(self, windows: Sequence[Window]) -> list[Embedding | Failure]:
        """One result per window, in order."""
        return self.collect(self.submit(windows))

    def warm_up(self, windows: Sequence[Window]) -> None:
        """Embed each window once, and on a GPU also in batches of 2, 4, 8, … copies, so that CUDA graphs, memory and
        the choice of kernels are ready before real data come. The results are discarded.

        Raises `EncodingError` for a window that cannot be understood.
        """
        for window in windows:
            tensor, size = self._preprocess(window), 1
            while size <= (self.batches.limit(window.modality) if self.is_asynchronous else 1):
                list(self.batches.results(self.batches.launch(window.modality, [tensor] * size)))
                size *= 2
            self.batches.assume_speed(window.modality, 0.0)  # the time of a first run does not predict the next one

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
            launched = self.batches.launch(windows[indices[0]].modality, [tensor for _, tensor in items])
            job.in_flight.append(zip([i for i, _ in items], self.batches.results(launched), strict=True))

    def _preprocess_safely(self, window: Window) -> torch.Tensor | Failure:
        try:
            return self._preprocess(window)
        except (EncodingError, ValueError) as error:
            return Failure(window.modality, "encoding", str(error), window.sensor)
        except Exception as error:  # a space of another package may raise anything; other windows must not fail
            LOG.exception("a window of %s could not be prepared", window.sensor)
            return Failure(window.modality, "failure", f"{type(error).__name__}: {error}", window.sensor)

    def failed_job(self, windows: Sequence[Window], message: str) -> EmbeddingJob:
        """A job whose results are all failures."""
        return EmbeddingJob(list(windows), {i: self.failure(w, message) for i, w in enumerate(windows)})

    def failure(self, window: Window, message: str) -> Failure:
        """The result of a window that could not be embedded."""
        return Failure(window.modality, "failure", message, window.sensor)

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
                self._take_next_result(job)
            yield results[index]
        for stream, index in job.last_index_by_stream.items():
            self._cache_embedding(stream, windows[index], results[index])

    def _take_next_result(self, job: EmbeddingJob) -> None:
        """Wait for the next result of the rows that were launched first."""
        index, result = next(job.in_flight[0], (None, None))
        if index is None or result is None:
            job.in_flight.popleft()
            return
        window = job.windows[index]
        if isinstance(result, RowFailure):
            job.results[index] = Failure(window.modality, "failure", f"on the device: {result.message}", window.sensor)
            return
        names = self.space.object_names(window.modality)
        own = () if result.objects is None else detected_objects(names, result.objects, window)
        job.results[index] = self._make_embedding(window, result.vector, own)

    def _count_reuse(self) -> None:
        with self._state_lock:
            self.reused_count += 1

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
        cache = self._embedding_cache
        with self._state_lock:
            if (before := cache.pop(stream, None)) is not None:
                self.cached_bytes -= _image_bytes(before[0])
            cache[stream] = window, result
            self.cached_bytes += _image_bytes(window)
            while len(cache) > MAX_CACHED_STREAMS or self.cached_bytes > self._cache_limit:
                self.cached_bytes -= _image_bytes(cache.popitem(last=False)[1][0])


def _stream_key(window: Window) -> tuple[str, str]:
    return window.sensor, window.samples[-1].frame_id


def _image_bytes(window: Window) -> int:
    return sum(sample.data.data.nbytes for sample in window.samples if isinstance(sample.data, Frame))


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
