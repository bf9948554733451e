"""Collects the embeddings of each tick and fuses them once the tick is complete."""

from __future__ import annotations

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

    `weights`: modality → weight in the fused embedding; 1 for a modality that is not named.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._pending: dict[int, dict[str, Embedding]] = {}
        self._watermark = 0  # ns, the newest tick that is closed

    def add(self, embedding: Embedding) -> bool:
        """Hold an embedding until its tick is fused. Returns False, and drops it, if its tick is already closed."""
        if embedding.tick <= self._watermark:
            return False
        self._pending.setdefault(embedding.tick, {})[embedding.source] = embedding
        return True

    def fuse(self, watermark: int | None) -> Iterator[FusedTick]:
        """Fuse the held ticks up to the fusion watermark (ns), oldest first, and close all ticks up to it.

        `watermark` None: fuse all held ticks and close none. This is a generator: iterate to its end.
        """
        for tick in sorted(t for t in self._pending if watermark is None or t <= watermark):
            present = self._pending.pop(tick)
            yield FusedTick(tick, present, fuse(list(present.values()), self._weights))
        self._watermark = max(self._watermark, watermark or 0)

    def restart(self) -> None:
        """Accept embeddings of any tick again. Call it when the clock jumped, after all ticks were fused."""
        self._watermark = 0
