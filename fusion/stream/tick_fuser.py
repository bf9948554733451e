"""The embeddings of each tick, put together and fused once the tick is complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sensebind.fusion.core.embeddings import Embedding, fuse


class FusedTick(NamedTuple):
    """A tick (ns), its embeddings by modality, and the one fused from them."""

    tick: int
    present: Mapping[str, Embedding]
    fused: Embedding


class TickFuser:
    """Holds embeddings until their tick is complete. Use it from one thread at a time.

    `weights`: a modality's weight in the fused embedding, 1 where it is not named.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._pending: dict[int, dict[str, Embedding]] = {}
        self._fused_through = 0  # ns, the newest tick that is closed

    def add(self, embedding: Embedding) -> bool:
        """Hold an embedding. Returns False, and holds nothing, where its tick is closed already."""
        if embedding.tick <= self._fused_through:
            return False
        self._pending.setdefault(embedding.tick, {})[embedding.modality] = embedding
        return True

    def fuse(self, horizon: int | None) -> Iterator[FusedTick]:
        """Fuse the ticks that are held, up to `horizon` (ns; None: all), oldest first. To be read to the end."""
        for tick in sorted(t for t in self._pending if horizon is None or t <= horizon):
            present = self._pending.pop(tick)
            yield FusedTick(tick, present, fuse(list(present.values()), self._weights))
        self._fused_through = max(self._fused_through, horizon or 0)

    def restart(self) -> None:
        """Time starts afresh: any tick may come again. Call it when all ticks were fused."""
        self._fused_through = 0
