"""Encoders on a GPU, without waits of the host: fixed buffers, CUDA graphs, and streams that overlap.

A batch is padded to a bucket, a power of two, so that few shapes occur. Each shape has a `_CapturedBatch`: pinned
memory for the rows, device memory of the same shape, and the encoder's work as a CUDA graph, captured for the first
batch of the shape. Rows are raw data (bytes of images, 16-bit sound). The preprocessing on the device is part of the
graph. Each modality has a stream to copy and one to compute. So copies, preprocessing and encoders of several batches
and modalities run at the same time. The host waits once for each batch: for its vectors.

On a CPU the same code runs without graphs, pinned memory and streams. Tests without a GPU use this.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.space import Encoder, Space

LOG = logging.getLogger(__name__)
BATCHES_IN_FLIGHT = 2  # batches of one shape at a time: one is copied while another is computed
MAX_CAPTURED_BATCHES = 40  # shapes that are kept; of more, the least recently used are dropped with their memory
WARMUP_RUNS = 2  # runs before a capture, in which libraries choose kernels and create constants


class DeviceEmbeddingFuture(EmbeddingFuture):
    """A batch that the device computes. `is_first_of_shape`: it includes the setup for its shape."""

    def __init__(self, count: int, result: Tensor, done: torch.cuda.Event | None) -> None:
        self.is_first_of_shape = False
        self._count, self._done = count, done
        self._result: Tensor | None = result
        self._vectors: Tensor | None = None
        self._lock = threading.Lock()  # guards `_result` and `_vectors`

    def fetch(self) -> Tensor:
        """Wait for the vectors: float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""
        with self._lock:
            if self._vectors is None:
                assert self._result is not None
                if self._done is not None:
                    self._done.synchronize()
                self._vectors, self._result = self._result[: self._count].clone(), None
            return self._vectors


class GpuRunner:
    """Runs the encoders of one space. `launch` may be called from several threads.

    `graphs`: capture CUDA graphs of the encoders that are `graph_capturable` (None: yes on CUDA). After one failed
    capture no more are tried, because PyTorch before 2.12 rejects every later one; existing graphs stay in use.
    """

    def __init__(self, space: Space, *, graphs: bool | None = None) -> None:
        self.device = space.device
        self.on_gpu = self.device.type == "cuda"
        self._space = space
        self.device_input = space.device_input
        self._lock = threading.Lock()  # guards the attributes below: one launch or capture at a time
        self._graphs = _GraphCaptureState(self.on_gpu and graphs is not False)
        self._streams: dict[str, _ModalityStreams] = {}
        self._captured_batches: OrderedDict[tuple[str, torch.Size, torch.dtype, int], _CapturedBatch] = OrderedDict()

    @classmethod
    def for_space(cls, space: Space) -> GpuRunner | None:
        """A runner for a space on a GPU; None for other devices."""
        return cls(space) if space.device.type == "cuda" else None

    @torch.no_grad()
    def launch(self, modality: str, rows: Sequence[Tensor]) -> DeviceEmbeddingFuture:
        """Begin to embed `rows`: CPU tensors of one shape and dtype. Raises `RuntimeError` if the device fails."""
        first = rows[0]
        bucket = bucket_size(len(rows))
        with self._lock:
            key = (modality, first.shape, first.dtype, bucket)
            captured_batch = self._captured_batches.get(key)
            first_time = captured_batch is None
            if captured_batch is None:
                self._evict_shapes()
                captured_batch = self._captured_batches[key] = _CapturedBatch(self._streams_of(modality), first, bucket)
            self._captured_batches.move_to_end(key)
            try:
                pending = captured_batch.launch(rows)
            except BaseException:
                self._captured_batches.pop(key, None)  # its state is unknown
                raise
            pending.is_first_of_shape = first_time
            return pending

    def free_memory(self) -> None:
        """Free the memory of all shapes. Later batches allocate it again."""
        with self._lock:
            self._synchronize()
            self._captured_batches.clear()
            if self.on_gpu:  # under the lock, so that no other thread captures a graph now
                empty_cache()

    def shape_count(self) -> int:
        """Number of shapes that are kept."""
        with self._lock:
            return len(self._captured_batches)

    def graph_count(self) -> int:
        """Number of shapes with a CUDA graph."""
        with self._lock:
            return sum(captured_batch.graph is not None for captured_batch in self._captured_batches.values())

    def capture_error(self) -> str:
        """The error of the failed capture; empty if none has failed."""
        return self._graphs.error

    def _streams_of(self, modality: str) -> _ModalityStreams:
        if modality not in self._streams:
            graphs = self._graphs if self._space.graph_capturable(modality) else _GraphCaptureState(False)
            self._streams[modality] = _ModalityStreams(modality, self._space.encoder(modality), self.device, graphs)
        return self._streams[modality]

    def _evict_shapes(self) -> None:
        if len(self._captured_batches) >= MAX_CAPTURED_BATCHES:
            self._synchronize()
        while len(self._captured_batches) >= MAX_CAPTURED_BATCHES:
            self._captured_batches.popitem(last=False)

    def _synchronize(self) -> None:
        for captured_batch in self._captured_batches.values():
            captured_batch.synchronize()


class _GraphCaptureState:
    """Whether CUDA graphs may be captured. All modalities share one flag; a failed capture clears it."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.error = ""  # of the failed capture


class _ModalityStreams:
    """One modality's streams and the memory pool of its graphs. Graphs share it, because they run one at a time."""

    def __init__(self, modality: str, encode: Encoder, device: torch.device, graphs: _GraphCaptureState) -> None:
        self.modality, self.encode, self.device, self.graphs = modality, encode, device, graphs
        self.copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.compute_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.graph_pool = torch.cuda.graph_pool_handle() if graphs.allowed else None

    def use(self, stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
        return nullcontext() if stream is None else torch.cuda.stream(stream)


class _BatchBuffers:
    """Buffers of one batch: its rows on the host and on the device, and its vectors on the host."""

    def __init__(self, row: Tensor, bucket: int, dimension: int, streams: _ModalityStreams) -> None:
        gpu = streams.compute_stream is not None
        self.host_rows = torch.zeros(bucket, *row.shape, dtype=row.dtype, pin_memory=gpu)
        self.device_rows = torch.zeros_like(self.host_rows, device=streams.device) if gpu else self.host_rows
        self.host_vectors = torch.zeros(bucket, dimension, pin_memory=gpu)
        self.copied_event = torch.cuda.Event() if gpu else None
        self.computed_event = torch.cuda.Event(blocking=True) if gpu else None  # `fetch` sleeps instead of spinning
        self.future: DeviceEmbeddingFuture | None = None


class _CapturedBatch:
    """One modality's encoder for batches of one shape, up to `bucket` rows."""

    def __init__(self, streams: _ModalityStreams, row: Tensor, bucket: int) -> None:
        self.streams, self.bucket = streams, bucket
        self.graph: torch.cuda.CUDAGraph | None = None
        self.next_slot = 0
        self.input = torch.zeros(bucket, *row.shape, dtype=row.dtype, device=streams.device)
        with streams.use(streams.compute_stream):
            self._synchronize_device()
            vectors = streams.encode(self.input)
            self.output = torch.zeros(bucket, vectors.shape[1], device=streams.device)
            if streams.graphs.allowed:
                self._capture()
        self.slots = [_BatchBuffers(row, bucket, self.output.shape[1], streams) for _ in range(BATCHES_IN_FLIGHT)]
        self._synchronize_device()

    def launch(self, rows: Sequence[Tensor]) -> DeviceEmbeddingFuture:
        count, streams = len(rows), self.streams
        slot = self.slots[self.next_slot]
        self.next_slot = (self.next_slot + 1) % BATCHES_IN_FLIGHT
        if slot.future is not None:
            slot.future.fetch()  # its buffers are reused now; the future keeps a copy of its vectors
        # Later rows are of earlier batches; their output is ignored.
        torch.stack(list(rows), out=slot.host_rows[:count])
        with streams.use(streams.copy_stream):
            if slot.device_rows is not slot.host_rows:
                slot.device_rows[:count].copy_(slot.host_rows[:count], non_blocking=True)
            if slot.copied_event is not None:
                slot.copied_event.record()
        with streams.use(streams.compute_stream):
            if slot.copied_event is not None:
                slot.copied_event.wait()
            self.input[:count].copy_(slot.device_rows[:count])
            self._encode()
            slot.host_vectors[:count].copy_(self.output[:count], non_blocking=True)
            if slot.computed_event is not None:
                slot.computed_event.record()
        slot.future = DeviceEmbeddingFuture(count, slot.host_vectors, slot.computed_event)
        return slot.future

    def synchronize(self) -> None:
        """Wait for all batches in flight. Their errors surface in `fetch`."""
        for slot in self.slots:
            if slot.future is not None:
                with suppress(RuntimeError):
                    slot.future.fetch()
        with suppress(RuntimeError):
            self._synchronize_device()

    def _synchronize_device(self) -> None:
        """Wait for all streams: they may still use memory that is allocated or freed here."""
        if self.streams.compute_stream is not None:
            torch.cuda.synchronize(self.streams.device)

    def _encode(self) -> None:
        if self.graph is not None:
            self.graph.replay()
        else:
            self.output.copy_(self.streams.encode(self.input))

    def _capture(self) -> None:
        """Capture the graph. Input and output are outside the graphs' common memory pool, so no other graph of the
        modality overwrites them."""
        for _ in range(WARMUP_RUNS):
            self._encode()
        torch.cuda.synchronize(self.streams.device)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the device meanwhile, so the restrictions of a capture apply to this one only.
            with torch.cuda.graph(
                graph,
                pool=self.streams.graph_pool,
                stream=self.streams.compute_stream,
                capture_error_mode="thread_local",
            ):
                self._encode()
        except RuntimeError as error:
            self.streams.graphs.allowed, self.streams.graphs.error = False, f"{self.streams.modality}: {error}"
            LOG.warning(
                "%s: no CUDA graph could be captured, and no more are tried. Other batch sizes run more slowly: %s",
                self.streams.modality,
                error,
            )
            if is_out_of_memory(error):
                raise
            torch.cuda.synchronize(self.streams.device)
            return
        self.graph = graph


def bucket_size(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def empty_cache() -> None:
    """Return PyTorch's unused cached memory to the device. Logs a warning if PyTorch refuses, as versions before 2.12
    do after a failed graph capture."""
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        LOG.warning("unused GPU memory could not be released: %s", error)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one of its causes, is a lack of memory."""
    while error is not None:
        message = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in message:
            return True
        if "can't allocate" in message:
            return True
        error = error.__cause__ or error.__context__
    return False
