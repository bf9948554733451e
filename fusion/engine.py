"""Closed windows to vectors: frontend, batch, device. Any number of pipelines may share one engine."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.embeddings import Embedding
from sensebind.fusion.encodings import EncodingError
from sensebind.fusion.models.registry import Space
from sensebind.fusion.samples import Frame
from sensebind.fusion.windows import Window

LOG = logging.getLogger(__name__)
TURN = 0.1  # s that one modality may have the device while others wait
MEMORY = 256  # streams whose last images are remembered
RECOVERY = 1000  # batches without trouble after which a modality whose batch was halved tries twice as many again


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be embedded: `cause` is `encoding` (its data) or `failure` (the device)."""

    modality: str
    cause: str
    message: str


@dataclass(slots=True)
class _Pace:
    """What is known of one modality's work."""

    limit: int  # windows of a batch
    seconds: float = 0.0  # for one window, of late
    good: int = 0  # batches since the limit was changed


class Engine:
    """Embeds windows of the modalities that `space` has encoders for. Safe to call from several threads.

    `embed` takes any windows in any order and answers for each in its place. It never raises for what a
    window holds or a device does: that is a `Failure`. A batch that the device fails to do is tried again in
    halves, so one bad window spoils no other; where memory ran out, batches of that modality stay smaller, and
    the log says so. Images that are byte for byte those of the stream's window before are not embedded again.
    """

    def __init__(self, space: Space, batch_size: int = 16) -> None:
        self.space = space
        self.batch_size = batch_size
        self.reused = 0  # windows whose images had not changed
        self._paces: defaultdict[str, _Pace] = defaultdict(lambda: _Pace(batch_size))
        self._last: OrderedDict[tuple[str, str], tuple[Window, npt.NDArray[np.float32]]] = OrderedDict()
        self._device = threading.Lock()  # one batch at a time: two would only share the device's speed and memory

    def limit(self, modality: str) -> int:
        """Windows of this modality that are embedded together at most: fewer than asked for after a lack of memory."""
        return self._paces[modality].limit

    def turn(self, modality: str) -> int:
        """Windows of this modality that may be embedded before others get their turn: about `TURN` s of work."""
        pace = self._paces[modality]
        return pace.limit if not pace.seconds else max(1, min(pace.limit, int(TURN / pace.seconds)))

    def embed(self, windows: Sequence[Window]) -> list[Embedding | Failure]:
        """One result per window, in order."""
        results: dict[int, Embedding | Failure] = {}
        ready: dict[tuple[str, torch.Size], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        same: list[tuple[int, int]] = []  # a window, and the one before of this call that it equals
        newest: dict[tuple[str, str], int] = {}
        for index, window in enumerate(windows):
            stream = _stream(window)
            before = newest.get(stream)
            newest[stream] = index
            if before is not None and _unchanged(window, windows[before]):
                same.append((index, before))
                continue
            known = self._last.get(stream)
            if before is None and known is not None and _unchanged(window, known[0]):
                results[index] = self._embedding(window, known[1])
                self.reused += 1
                continue
            try:
                tensor = self.space.tensor(window)
            except (EncodingError, ValueError) as error:
                results[index] = Failure(window.modality, "encoding", str(error))
            else:
                ready[window.modality, tensor.shape].append((index, tensor))
        for (modality, _), items in ready.items():
            self._batches(modality, items, windows, results)
        for index, before in same:
            answer = results[before]
            if isinstance(answer, Embedding):
                answer = self._embedding(windows[index], answer.vector)
                self.reused += 1
            results[index] = answer
        for stream, index in newest.items():
            self._remember(stream, windows[index], results[index])
        return [results[index] for index in range(len(windows))]

    def _batches(
        self,
        modality: str,
        items: list[tuple[int, torch.Tensor]],
        windows: Sequence[Window],
        results: dict[int, Embedding | Failure],
    ) -> None:
        todo = [items]
        while todo:
            batch = todo.pop()
            limit = self.limit(modality)
            if len(batch) > limit:
                todo += [batch[limit:], batch[:limit]]
                continue
            try:
                vectors = self._vectors(modality, torch.stack([tensor for _, tensor in batch]))
            except (RuntimeError, MemoryError) as error:  # RuntimeError: PyTorch's for the device, no memory included
                self._note_failure(modality, len(batch), error)
                if len(batch) > 1:
                    half = len(batch) // 2
                    todo += [batch[half:], batch[:half]]
                else:
                    results[batch[0][0]] = Failure(modality, "failure", f"on the device: {error}")
                continue
            for (index, _), vector in zip(batch, vectors, strict=True):
                results[index] = self._embedding(windows[index], vector)

    def _vectors(self, modality: str, batch: torch.Tensor) -> npt.NDArray[np.float32]:
        with self._device:
            began = time.perf_counter()
            vectors = self.space.embed(modality, batch).numpy()
            took = (time.perf_counter() - began) / len(batch)
        pace = self._paces[modality]
        pace.seconds = took if not pace.seconds else 0.8 * pace.seconds + 0.2 * took
        pace.good += 1
        if pace.good >= RECOVERY and pace.limit < self.batch_size:
            pace.limit, pace.good = min(self.batch_size, 2 * pace.limit), 0
        return vectors

    def _note_failure(self, modality: str, count: int, error: Exception) -> None:
        if not _lacks_memory(error):
            return
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        pace = self._paces[modality]
        if count > 1 and count // 2 < pace.limit:
            pace.limit, pace.good = count // 2, 0
            LOG.warning(
                "out of memory with %d windows of %s: batches of at most %d from now on", count, modality, pace.limit
            )

    def _embedding(self, window: Window, vector: npt.NDArray[np.float32]) -> Embedding:
        return Embedding(
            modality=window.modality,
            start=window.start,
            tick=window.tick,
            space=self.space.id,
            coverage=window.coverage,
            vector=vector,
            frame_id=window.samples[-1].frame_id,
        )

    def _remember(self, stream: tuple[str, str], window: Window, result: Embedding | Failure) -> None:
        if isinstance(result, Failure) or not isinstance(window.samples[-1].data, Frame):
            return
        self._last[stream] = window, result.vector
        self._last.move_to_end(stream)
        while len(self._last) > MEMORY:
            self._last.popitem(last=False)


def _stream(window: Window) -> tuple[str, str]:
    return window.modality, window.samples[-1].frame_id


def _unchanged(window: Window, before: Window) -> bool:
    """Whether both hold the same images, so that their vectors are the same. Never of sounds and readings."""
    if window.calibration != before.calibration or len(window.samples) != len(before.samples):
        return False
    for now, then in zip(window.samples, before.samples, strict=True):
        a, b = now.data, then.data
        if not (isinstance(a, Frame) and isinstance(b, Frame)):
            return False
        layouts = ((f.encoding, f.height, f.width, f.step, f.big_endian, f.compressed) for f in (a, b))
        if len(set(layouts)) > 1 or not np.array_equal(a.data, b.data):
            return False
    return True


def _lacks_memory(error: Exception) -> bool:
    told = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in told or "can't allocate" in told
    )


def cores_at_hand() -> int:
    """Processor cores that this process may use: its affinity, and the share that its control group allows."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in (_quota_v2(), _quota_v1()):
        if quota is not None:
            count = min(count, max(1, round(quota)))
    return max(1, count)


def _quota_v2() -> float | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1() -> float | None:
    folder = Path("/sys/fs/cgroup/cpu")
    try:
        limit, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return None if limit <= 0 else limit / period
