"""Runs the batches of an engine: embeds rows (windows that are prepared for the encoder), and learns how large a batch
may be and how fast it is."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.space import Preparation, Space
from sensebind.fusion.inference.cuda import GpuRunner, empty_cache, is_out_of_memory

LOG = logging.getLogger(__name__)
TIME_SLICE_S = 0.1  # s that one modality may use the device while others wait
LIMIT_RECOVERY_BATCHES = 1000  # batches after which a modality's limit, halved when memory ran out, is doubled again


class Runner(Protocol):
    """What computes in place of `Space.embed_async`: see `inference.cuda.GpuRunner`."""

    @property
    def on_gpu(self) -> bool:
        """Whether it computes while the host does other work."""

    @property
    def device_input(self) -> Preparation:
        """Prepares a window for `launch`."""

    def launch(self, modality: str, rows: Sequence[torch.Tensor]) -> EmbeddingFuture:
        """Begin to embed `rows`: CPU tensors of one shape and dtype."""

    def free_memory(self) -> None:
        """Free the memory of the device that later batches can do without."""


class RowVector(NamedTuple):
    """The result of one row: its unit vector (D,) and, if the encoder locates objects, those (K, 5) of
    `EmbeddingFuture.objects`."""

    vector: npt.NDArray[np.float32]
    objects: npt.NDArray[np.float32] | None


class RowFailure(NamedTuple):
    """Why the device could not embed one row: the text of the error."""

    message: str


@dataclass(slots=True)
class _BatchStatistics:
    """The batch limit of one modality, and how fast it is embedded."""

    batch_limit: int  # largest number of rows in a batch
    seconds_per_row: float = 0.0  # a moving average; 0: not measured yet
    batches_since_change: int = 0  # batches embedded since the limit was changed


@dataclass(slots=True)
class _BatchInFlight:
    """Rows that the device works on. Without a future: one row that failed."""

    rows: Sequence[torch.Tensor]
    future: EmbeddingFuture | None
    started_at: float
    failure: RowFailure = RowFailure("")


@dataclass(slots=True)
class LaunchedRows:
    """Rows of one modality that were launched together, as batches in their order."""

    modality: str
    batches: deque[_BatchInFlight] = field(default_factory=deque)


class BatchRunner:
    """Embeds rows of the modalities that `space` has encoders for. Safe to call from several threads.

    Device errors are results, never raised. A batch that fails is tried again in halves, so one bad row does not fail
    the others. If memory ran out, batches of that modality stay smaller for `LIMIT_RECOVERY_BATCHES` batches; the log
    says so.

    On a GPU a `GpuRunner` computes, or the `runner` that is given; elsewhere, or with `runner=None`, the space's own
    `embed_async`.
    """

    def __init__(self, space: Space, batch_size: int, runner: Runner | Literal["auto"] | None = "auto") -> None:
        self.space, self.batch_size = space, batch_size
        self.runner: Runner | None = runner if runner != "auto" else GpuRunner.for_space(space)
        self._device_lock = threading.Lock()  # one batch at a time: two would share the device's speed and memory
        self._state_lock = threading.Lock()  # guards the attributes below
        self._statistics: defaultdict[str, _BatchStatistics] = defaultdict(lambda: _BatchStatistics(batch_size))
        self._last_fetch_time = 0.0  # when the last batch was fetched (`time.perf_counter`, s)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device computes while the host does other work."""
        return self.runner is not None and self.runner.on_gpu

    def limit(self, modality: str) -> int:
        """The largest batch of this modality: `batch_size`, or fewer rows after memory ran out."""
        with self._state_lock:
            return self._statistics[modality].batch_limit

    def rows_per_time_slice(self, modality: str) -> int:
        """How many rows of this modality may be embedded before others get their turn: about `TIME_SLICE_S` s of
        work."""
        with self._state_lock:
            statistics = self._statistics[modality]
            if not statistics.seconds_per_row:
                return statistics.batch_limit
            return max(1, min(statistics.batch_limit, int(TIME_SLICE_S / statistics.seconds_per_row)))

    def seconds_per_row(self, modality: str) -> float:
        """How long the device takes for a row of a batch, in seconds; 0: not measured yet."""
        with self._state_lock:
            return self._statistics[modality].seconds_per_row

    def assume_speed(self, modality: str, seconds_per_row: float) -> None:
        """Set the time for one row, in seconds. 0: it is measured with the next batch."""
        with self._state_lock:
            self._statistics[modality].seconds_per_row = seconds_per_row

    def launch(self, modality: str, rows: Sequence[torch.Tensor]) -> LaunchedRows:
        """Begin to embed rows of one shape and dtype. With the default `Space.embed_async` the vectors are computed
        before this returns."""
        launched, todo = LaunchedRows(modality), [rows]
        while todo:
            batch = todo.pop()
            limit = self.limit(modality)
            if len(batch) > limit:
                todo += [batch[limit:], batch[:limit]]
                continue
            try:
                pending = self._start(modality, batch)
            except Exception as error:  # a space of another package may raise anything
                halves = self._halves(modality, batch, error)
                todo += reversed(halves)
                if not halves:
                    launched.batches.append(_BatchInFlight(batch, None, 0.0, _failure(error)))
                continue
            launched.batches.append(_BatchInFlight(batch, pending, time.perf_counter()))
        return launched

    def results(self, launched: LaunchedRows) -> Iterator[RowVector | RowFailure]:
        """Wait for the batches: one result for each row, in order. Yields the results of a batch as soon as it is
        ready."""
        modality, batches = launched.modality, launched.batches
        while batches:
            batch = batches.popleft()
            if batch.future is None:
                yield batch.failure
                continue
            try:
                vectors, objects = self._fetch(modality, batch)
            except Exception as error:  # a space of another package may raise anything
                halves = self._halves(modality, batch.rows, error)
                if not halves:
                    yield _failure(error)
                again = [part for half in halves for part in self.launch(modality, half).batches]
                batches.extendleft(reversed(again))
                continue
            for row, vector in enumerate(vectors):
                yield RowVector(vector, None if objects is None else objects[row])

    def _start(self, modality: str, rows: Sequence[torch.Tensor]) -> EmbeddingFuture:
        if self.runner is not None:
            return self.runner.launch(modality, rows)
        with self._device_lock:
            return self.space.embed_async(modality, torch.stack(list(rows)))

    def _fetch(
        self, modality: str, batch: _BatchInFlight
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Wait for the vectors (B, D) and, if the encoder locates them, the objects (B, K, 5)."""
        future = batch.future
        assert future is not None
        vectors = future.fetch().numpy()
        objects = None if future.objects is None else future.objects.numpy()
        names = self.space.object_names(modality)
        if objects is not None and not (objects.shape == (len(vectors), len(names), 5) and np.isfinite(objects).all()):
            raise RuntimeError(
                f"objects of {modality} must be finite numbers ({len(vectors)}, {len(names)}, 5), not of shape "
                f"{objects.shape}"
            )
        if not np.isfinite(vectors).all():
            raise RuntimeError(f"vectors of {modality} are not finite: set dtype to float32")
        if future.compute_seconds is not None:
            self._update_statistics(modality, len(batch.rows), future.compute_seconds)
            return vectors, objects
        now = time.perf_counter()
        with self._state_lock:
            before, self._last_fetch_time = self._last_fetch_time, now
        if not future.is_first_of_shape:
            # The device computes one batch after another, so this one began when the previous one was fetched.
            self._update_statistics(modality, len(batch.rows), now - max(batch.started_at, before))
        return vectors, objects

    def _update_statistics(self, modality: str, count: int, seconds: float) -> None:
        each = seconds / count
        with self._state_lock:
            statistics = self._statistics[modality]
            average = statistics.seconds_per_row
            statistics.seconds_per_row = 0.8 * average + 0.2 * each if average else each
            statistics.batches_since_change += 1
            if statistics.batches_since_change >= LIMIT_RECOVERY_BATCHES and statistics.batch_limit < self.batch_size:
                statistics.batch_limit = min(self.batch_size, 2 * statistics.batch_limit)
                statistics.batches_since_change = 0

    def _halves(self, modality: str, rows: Sequence[torch.Tensor], error: Exception) -> list[Sequence[torch.Tensor]]:
        """The batches to try after a failure: both halves; none for a single row."""
        self._handle_out_of_memory(modality, len(rows), error)
        half = len(rows) // 2
        return [rows[:half], rows[half:]] if half else []

    def _handle_out_of_memory(self, modality: str, count: int, error: Exception) -> None:
        if not is_out_of_memory(error):
            return
        if self.runner is not None:
            self.runner.free_memory()
        elif torch.cuda.is_initialized():
            empty_cache()
        half = count // 2
        with self._state_lock:
            statistics = self._statistics[modality]
            if half == 0 or half >= statistics.batch_limit:
                return
            statistics.batch_limit, statistics.batches_since_change = half, 0
        LOG.warning("out of memory with a batch of %d windows of %s: at most %d from now on", count, modality, half)


def _failure(error: Exception) -> RowFailure:
    return RowFailure(str(error))
