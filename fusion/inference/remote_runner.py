"""A runner for the device of another process: rows go there through shared memory, and vectors come back.

The process of the space has the weights and the device (`stream/row_queue.py`). The processes of the robots receive,
check and prepare sensor data. Each has a `RemoteRunner`, which its engine uses in place of a device.
"""

from __future__ import annotations

import bisect
import mmap
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.core.space import REQUIRED_ATTRIBUTES, Preparation, Space, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window

ARENA_BYTES = 2 << 30  # of address space; memory is used only where rows were
ALIGNMENT = 64  # bytes: the start of each block of rows


@dataclass(frozen=True, slots=True)
class RowRequest:
    """Rows of one modality to embed: an array of `shape` (B, …) at `offset` bytes of the shared memory."""

    number: int
    modality: str
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class RowReply:
    """The results of a `RowRequest`: `vectors` (B, D), and `objects` (B, K, 5) if the encoder locates objects.

    `failure`: why no row has a result; empty if all have. `seconds_per_row`: how long the device takes for a row.
    """

    number: int
    vectors: npt.NDArray[np.float32] | None
    objects: npt.NDArray[np.float32] | None
    failure: str
    seconds_per_row: float


@dataclass(frozen=True, slots=True)
class SpaceDescription:
    """What a process without the weights of a space knows of it. `object_names` and `preparations`: by modality."""

    id: str
    dimension: int
    modalities: tuple[str, ...]
    logit_scales: Mapping[str, float]
    trained_windows: Mapping[str, TrainedWindow]
    licence: str
    object_names: Mapping[str, tuple[str, ...]]
    preparations: Mapping[str, Preparation]


def describe_space(space: Space, sensor_modalities: Sequence[str]) -> SpaceDescription:
    """The description of a space for its `sensor_modalities`. Raises `SpaceError` if only the process of the space can
    prepare their windows."""
    embedded = [m for m in sensor_modalities if m in space.modalities and m != TEXT]
    found = {modality: space.preparation(modality) for modality in embedded}
    missing = [modality for modality, preparation in found.items() if not _can_be_sent(preparation)]
    if missing:
        raise SpaceError(
            f"space {space.id} cannot prepare {' and '.join(missing)} in worker processes: set workers to 0"
        )
    return SpaceDescription(
        space.id,
        space.dimension,
        tuple(space.modalities),
        dict(space.logit_scales),
        dict(space.trained_windows),
        space.licence,
        {modality: space.object_names(modality) for modality in embedded},
        {modality: preparation for modality, preparation in found.items() if preparation is not None},
    )


def _can_be_sent(preparation: Preparation | None) -> bool:
    """Whether a preparation exists and another process can get it. A space of another package may return any
    function."""
    try:
        return preparation is not None and bool(pickle.dumps(preparation))
    except Exception:  # pickle raises errors of many kinds
        return False


def open_arena() -> int:
    """The descriptor of shared memory for rows. It has no name, so none is left behind when processes are killed."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sensebind_rows")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, ARENA_BYTES)
    return descriptor


def map_arena(descriptor: int) -> mmap.mmap:
    """The shared memory of a descriptor. Closes the descriptor."""
    try:
        return mmap.mmap(descriptor, ARENA_BYTES)
    finally:
        os.close(descriptor)


def rows_in(arena: mmap.mmap, request: RowRequest) -> Tensor:
    """The rows of a request (B, …), without a copy."""
    count = int(np.prod(request.shape))
    return torch.frombuffer(arena, dtype=request.dtype, count=count, offset=request.offset).view(request.shape)


class RowAllocator:
    """Gives blocks of the shared memory to rows: the first free place that is large enough."""

    def __init__(self, size: int = ARENA_BYTES) -> None:
        self._size = size
        self._blocks: list[tuple[int, int]] = []  # (first byte, end) of the blocks in use, in order

    def allocate(self, size: int) -> int:
        """The first byte of a free block. Raises `MemoryError` if there is none."""
        size = -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
        begin = 0
        for first, end in self._blocks:
            if first - begin >= size:
                break
            begin = end
        if begin + size > self._size:
            raise MemoryError(f"out of memory shared with the process of the space ({self._size >> 20} MiB)")
        bisect.insort(self._blocks, (begin, begin + size))
        return begin

    def free(self, offset: int) -> None:
        """Free the block that begins at `offset`."""
        del self._blocks[bisect.bisect_left(self._blocks, (offset, 0))]


class RemoteFuture(EmbeddingFuture):
    """Vectors that the process of the space computes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._arrived = threading.Event()
        self._reply: RowReply | None = None  # None after the event: the process of the space has ended

    def resolve(self, reply: RowReply | None) -> None:
        """Set the reply. None: there will be none."""
        self._reply = reply
        self._arrived.set()

    def fetch(self) -> Tensor:
        """See `EmbeddingFuture`. Raises `RuntimeError` if a row failed, or if the process of the space has ended."""
        self._arrived.wait()
        reply = self._reply
        if reply is None:
            raise RuntimeError("the process that computes the vectors has ended")
        if reply.vectors is None:
            raise RuntimeError(reply.failure)
        self.compute_seconds = reply.seconds_per_row * self._count or None
        self.objects = None if reply.objects is None else torch.from_numpy(reply.objects)
        return torch.from_numpy(reply.vectors)


class RemoteRunner:
    """Sends rows to the process of the space, in place of `inference.cuda.GpuRunner`. Safe to call from several
    threads.

    `send` sends a request; call `on_reply` with each reply, and `close` when no more can come. `size`: bytes of the
    shared memory that it may use.
    """

    on_gpu = False

    def __init__(
        self, space: Space, arena: mmap.mmap, send: Callable[[RowRequest], None], size: int = ARENA_BYTES
    ) -> None:
        self.device_input = space.tensor
        self._arena, self._send = arena, send
        self._changed = threading.Condition()  # guards the attributes below; notified when memory becomes free
        self._allocator = RowAllocator(size)
        self._pending: dict[int, tuple[RemoteFuture, int]] = {}  # number of a request → its future, its place
        self._count = 0
        self._closed = False

    def launch(self, modality: str, rows: Sequence[Tensor]) -> RemoteFuture:
        """Begin to embed `rows`: CPU tensors of one shape and dtype. Waits for shared memory that earlier rows
        use. Raises `RuntimeError` if the process of the space has ended, `MemoryError` if there is not enough."""
        shape = (len(rows), *rows[0].shape)
        future = RemoteFuture(len(rows))
        with self._changed:
            offset = self._allocate(len(rows) * rows[0].numel() * rows[0].element_size())
            self._count += 1
            request = RowRequest(self._count, modality, offset, shape, rows[0].dtype)
            self._pending[request.number] = future, offset
        try:
            torch.stack(list(rows), out=rows_in(self._arena, request))
        except Exception:  # rows that do not fit together, or have no elements: their place must not be lost
            with self._changed:
                if self._pending.pop(request.number, None):
                    self._allocator.free(offset)
                    self._changed.notify_all()
            raise
        self._send(request)
        return future

    def _allocate(self, size: int) -> int:
        """The first byte of a free block of the shared memory."""
        while True:
            if self._closed:
                raise RuntimeError("the process that computes the vectors has ended")
            try:
                return self._allocator.allocate(size)
            except MemoryError:
                if not self._pending:
                    raise
            self._changed.wait()

    def on_reply(self, reply: RowReply) -> None:
        """Pass a reply to the future of its request."""
        with self._changed:
            future, offset = self._pending.pop(reply.number)
            self._allocator.free(offset)
            self._changed.notify_all()
        future.resolve(reply)

    def close(self) -> None:
        """End all requests that have no reply."""
        with self._changed:
            self._closed = True
            pending, self._pending = list(self._pending.values()), {}
            self._changed.notify_all()
        for future, _ in pending:
            future.resolve(None)

    def free_memory(self) -> None:
        """Nothing: the process of the space frees the memory of its device."""


class RemoteSpace(Space):
    """A space whose encoders are in another process. It prepares windows; `RemoteRunner` has them embedded."""

    id: str
    dimension: int
    modalities: tuple[str, ...]
    logit_scales: Mapping[str, float]
    trained_windows: Mapping[str, TrainedWindow]
    licence: str

    def __init__(self, description: SpaceDescription) -> None:
        self._description = description
        for name in REQUIRED_ATTRIBUTES:
            setattr(self, name, getattr(description, name))

    def object_names(self, modality: str) -> tuple[str, ...]:
        """See `core.space.Space`."""
        return self._description.object_names.get(modality, ())

    def tensor(self, window: Window) -> Tensor:
        """One window → its row, as the process of the space expects it. Raises `EncodingError`, and `ValueError` for
        modalities without an encoder."""
        if window.modality not in self._description.preparations:
            raise ValueError(f"{self.id} has no encoder for '{window.modality}'")
        return self._description.preparations[window.modality](window)

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """Raises `NotImplementedError`: the weights are in the process of the space."""
        raise NotImplementedError("the encoders of this space are in another process: embed with a RemoteRunner")

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Raises `NotImplementedError`, as `embed`."""
        raise NotImplementedError("the text encoder of this space is in another process")
