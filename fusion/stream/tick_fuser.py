"""Collects the embeddings of each tick and fuses them once the tick is complete."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sensebind.fusion.core.embeddings import Embedding, fuse


class FusedTick(NamedTuple):
    """A tick (ns), its embeddings by sensor, and the embedding fused from them."""

    tick: int
    embeddings: Mapping[str, Embedding]
    fused: Embedding


class TickFuser:
    """Holds embeddings until their tick is complete. Use it from one thread at a time.

    `weights`: modality → weight in the fused embedding; 1 for a modality that is not named. `fused`, `replaced` and
    `waiting`: sensor → its embeddings that were fused, that another one of the same tick replaced before, and that are
    held. Another thread reads them with `lock` held.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, lock: threading.RLock | None = None) -> None:
        self._weights, self._lock = dict(weights or {}), lock or threading.RLock()
        self.fused, self.replaced = Counter[str](), Counter[str]()
        self._pending: dict[int, dict[str, Embedding]] = {}
        self._watermark = 0  # ns, the newest tick that is closed

    def add(self, embedding: Embedding) -> bool:
        """Hold an embedding until its tick is fused. Returns False, and drops it, if its tick is already closed."""
        if embedding.tick <= self._watermark:
            return False
        with self._lock:
            present = self._pending.setdefault(embedding.tick, {})
            self.replaced[embedding.source] += embedding.source in present
            present[embedding.source] = embedding
        return True

    @property
    def waiting(self) -> Counter[str]:
        """Sensor → its embeddings that are held."""
        return Counter(source for present in self._pending.values() for source in present)

    def fuse(self, watermark: int | None) -> Iterator[FusedTick]:
        """Fuse the held ticks up to the fusion watermark (ns), oldest first, and close all ticks up to it.

        `watermark` None: fuse all held ticks and close none. This is a generator: iterate to its end.
        """
        for tick in sorted(t for t in self._pending if watermark is None or t <= watermark):
            present = self._pending[tick]
            fused = fuse(list(present.values()), self._weights)
            with self._lock:
                del self._pending[tick]
                self.fused.update(present.keys())
            yield FusedTick(tick, present, fused)
        self._watermark = max(self._watermark, watermark or 0)

    def restart(self) -> None:
        """Accept embeddings of any tick again. Call it when the clock jumped, after all ticks were fused."""
        self._watermark = 0
