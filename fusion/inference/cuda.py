"""Encoders on a GPU, without the host waiting for them: fixed buffers, graphs, and streams that overlap.

A batch is padded to a bucket, a power of two, so that a few shapes recur. What recurs is kept in a `_Station`: pinned
memory that rows are gathered in, its image on the device, and the encoder's work as a CUDA graph, captured when the
shape first comes. Rows go as they were sent (bytes of images, 16-bit sound); the encoder's preparation is part of the
graph. Each modality has a stream to copy and one to compute, so that the copy of one batch, the preparation and trunk
of another and those of other modalities go on at the same time. The host waits once for each batch: for its vectors.

On a CPU the same code runs without graphs, pinned memory and streams, which is how it is tested where no GPU is.
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
SLOTS = 2  # batches of one shape that may be under way: one is copied while another is computed
STATIONS = 40  # shapes that are kept: past that, those used longest ago are given up with their memory
WARM_UPS = 2  # runs before a capture, in which libraries choose kernels and constants are made

class Pending(EmbeddingFuture):
    """A batch under way. `first`: its shape came for the first time, so that much was made that later ones find."""

    def __init__(self, count: int, result: Tensor, done: torch.cuda.Event | None) -> None:
        self.first = False
        self._count, self._done = count, done
        self._result: Tensor | None = result
        self._vectors: Tensor | None = None
        self._lock = threading.Lock()  # guards `_result` and `_vectors`

    def fetch(self) -> Tensor:
        """float32 (B, D) on the CPU; waits for the device. Raises `RuntimeError` for what it failed to do."""
        with self._lock:
            if self._vectors is None:
                assert self._result is not None
                if self._done is not None:
                    self._done.synchronize()
                self._vectors, self._result = self._result[: self._count].clone(), None
            return self._vectors


class Runner:
    """Drives the encoders of one space. `launch` may be called from several threads.

    `graphs`: capture CUDA graphs of the encoders that are `capturable` (None: yes on CUDA). After one failed capture no
    more are tried, because PyTorch before 2.12 rejects every later one; existing graphs stay in use.
    """

    def __init__(self, space: Space, *, graphs: bool | None = None) -> None:
        self.device = space.device
        self.on_gpu = self.device.type == "cuda"
        self._space = space
        self.raw = space.raw
        self._lock = threading.Lock()  # guards what follows: one batch is launched, one graph captured at a time
        self._graphs = _Graphs(self.on_gpu and graphs is not False)
        self._lanes: dict[str, _Lane] = {}
        self._stations: OrderedDict[tuple[str, torch.Size, torch.dtype, int], _Station] = OrderedDict()

    @classmethod
    def of(cls, space: Space) -> Runner | None:
        """One for a space on a GPU; None for other devices, which have nothing to overlap."""
        return cls(space) if space.device.type == "cuda" else None

    @torch.no_grad()
    def launch(self, modality: str, rows: Sequence[Tensor]) -> Pending:
        """Begin to embed `rows` of one shape and dtype, on the CPU each. Raises `RuntimeError` as the device does."""
        first = rows[0]
        bucket = bucket_of(len(rows))
        with self._lock:
            key = (modality, first.shape, first.dtype, bucket)
            station = self._stations.get(key)
            first_time = station is None
            if station is None:
                self._make_room()
                station = self._stations[key] = _Station(self._lane(modality), first, bucket)
            self._stations.move_to_end(key)
            try:
                pending = station.launch(rows)
            except BaseException:
                self._stations.pop(key, None)  # it is in a state that nobody knows
                raise
            pending.first = first_time
            return pending

    def release(self) -> None:
        """Give back the memory of all shapes: what comes next makes its own again."""
        with self._lock:
            self._wait()
            self._stations.clear()
            if self.on_gpu:  # under the lock, so that no other thread captures a graph now
                empty_cache()

    def shapes(self) -> int:
        """How many shapes are kept."""
        with self._lock:
            return len(self._stations)

    def captured(self) -> int:
        """How many of them are graphs."""
        with self._lock:
            return sum(station.graph is not None for station in self._stations.values())

    def capture_error(self) -> str:
        """Why no more graphs are captured; empty as long as none has failed."""
        return self._graphs.error

    def _lane(self, modality: str) -> _Lane:
        if modality not in self._lanes:
            graphs = self._graphs if self._space.capturable(modality) else _Graphs(False)
            self._lanes[modality] = _Lane(modality, self._space.encoder(modality), self.device, graphs)
        return self._lanes[modality]

    def _make_room(self) -> None:
        if len(self._stations) >= STATIONS:
            self._wait()
        while len(self._stations) >= STATIONS:
            self._stations.popitem(last=False)

    def _wait(self) -> None:
        for station in self._stations.values():
            station.settle()


class _Graphs:
    """Whether CUDA graphs may be captured. All modalities share one flag; a failed capture clears it."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        self.error = ""  # of the capture that failed


class _Lane:
    """One modality's streams and the memory that its graphs share. They run one after another, so they can."""

    def __init__(self, modality: str, encode: Encoder, device: torch.device, graphs: _Graphs) -> None:
        self.modality, self.encode, self.device, self.graphs = modality, encode, device, graphs
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.computing = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.pool = torch.cuda.graph_pool_handle() if graphs.allowed else None

    def on(self, stream: torch.cuda.Stream | None) -> AbstractContextManager[Any]:
        return nullcontext() if stream is None else torch.cuda.stream(stream)


class _Slot:
    """Where one batch is gathered, where it arrives, and where its vectors land."""

    def __init__(self, row: Tensor, bucket: int, dimension: int, lane: _Lane) -> None:
        gpu = lane.computing is not None
        self.rows = torch.zeros(bucket, *row.shape, dtype=row.dtype, pin_memory=gpu)
        self.arriving = torch.zeros_like(self.rows, device=lane.device) if gpu else self.rows
        self.vectors = torch.zeros(bucket, dimension, pin_memory=gpu)
        self.arrived = torch.cuda.Event() if gpu else None
        self.done = torch.cuda.Event(blocking=True) if gpu else None  # `fetch` sleeps instead of spinning
        self.pending: Pending | None = None


class _Station:
    """One modality's work on batches of one shape, up to `bucket` rows."""

    def __init__(self, lane: _Lane, row: Tensor, bucket: int) -> None:
        self.lane, self.bucket = lane, bucket
        self.graph: torch.cuda.CUDAGraph | None = None
        self.turn = 0
        self.input = torch.zeros(bucket, *row.shape, dtype=row.dtype, device=lane.device)
        with lane.on(lane.computing):
            self._settled_memory()
            vectors = lane.encode(self.input)
            self.output = torch.zeros(bucket, vectors.shape[1], device=lane.device)
            if lane.graphs.allowed:
                self._capture()
        self.slots = [_Slot(row, bucket, self.output.shape[1], lane) for _ in range(SLOTS)]
        self._settled_memory()

    def launch(self, rows: Sequence[Tensor]) -> Pending:
        count, lane = len(rows), self.lane
        slot = self.slots[self.turn]
        self.turn = (self.turn + 1) % SLOTS
        if slot.pending is not None:
            slot.pending.fetch()  # its memory is needed now; who asked for the vectors still gets them
        torch.stack(list(rows), out=slot.rows[:count])  # rows past `count` are of earlier batches: nobody reads them
        with lane.on(lane.copying):
            if slot.arriving is not slot.rows:
                slot.arriving[:count].copy_(slot.rows[:count], non_blocking=True)
            if slot.arrived is not None:
                slot.arrived.record()
        with lane.on(lane.computing):
            if slot.arrived is not None:
                slot.arrived.wait()
            self.input[:count].copy_(slot.arriving[:count])
            self._encode()
            slot.vectors[:count].copy_(self.output[:count], non_blocking=True)
            if slot.done is not None:
                slot.done.record()
        slot.pending = Pending(count, slot.vectors, slot.done)
        return slot.pending

    def settle(self) -> None:
        """Wait for what is under way; whose batch failed hears of it when it fetches."""
        for slot in self.slots:
            if slot.pending is not None:
                with suppress(RuntimeError):
                    slot.pending.fetch()
        with suppress(RuntimeError):
            self._settled_memory()

    def _settled_memory(self) -> None:
        """Wait until what other streams still do with memory that is used or given back here is done."""
        if self.lane.computing is not None:
            torch.cuda.synchronize(self.lane.device)

    def _encode(self) -> None:
        if self.graph is not None:
            self.graph.replay()
        else:
            self.output.copy_(self.lane.encode(self.input))

    def _capture(self) -> None:
        """Input and output lie outside of the graphs' common memory: no other graph of the lane writes over them."""
        for _ in range(WARM_UPS):
            self._encode()
        torch.cuda.synchronize(self.lane.device)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the device meanwhile, so only what this one does is held to a capture's rules.
            with torch.cuda.graph(
                graph, pool=self.lane.pool, stream=self.lane.computing, capture_error_mode="thread_local"
            ):
                self._encode()
        except RuntimeError as error:
            self.lane.graphs.allowed, self.lane.graphs.error = False, f"{self.lane.modality}: {error}"
            LOG.warning("%s: no CUDA graph could be captured, and no more are tried: %s", self.lane.modality, error)
            if lacks_memory(error):
                raise
            torch.cuda.synchronize(self.lane.device)
            return
        self.graph = graph


def bucket_of(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def empty_cache() -> None:
    """Return PyTorch's unused cached memory to the device. Logs a warning if PyTorch refuses, as versions before 2.12
    do after a failed graph capture."""
    try:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        LOG.warning("unused GPU memory could not be released: %s", error)


def lacks_memory(error: BaseException | None) -> bool:
    """Whether this, or what it came from, is a lack of memory."""
    while error is not None:
        told = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in told:
            return True
        if "can't allocate" in told:
            return True
        error = error.__cause__ or error.__context__
    return False
