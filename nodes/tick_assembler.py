"""Embeddings of several topics, put together by tick again: DDS keeps no order between topics."""

from __future__ import annotations

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND

BACK = 2 * SECOND  # ns; vectors this much older than the newest are of another time


class Ticks:
    """Holds embeddings until a tick's fused one and all of its sources are there; then gives them out, in order.

    A tick that lacks a source for `timeout` ns of the stream's time goes without, and counts as `incomplete`.
    """

    def __init__(self, timeout: int) -> None:
        self.timeout = timeout
        self.incomplete = 0
        self.restart()

    def restart(self) -> None:
        """Forget all: time starts afresh."""
        self._held: dict[int, dict[str, Embedding]] = {}
        self._done: int | None = None
        self._newest: int | None = None

    def jumped_back(self, tick: int) -> bool:
        """Whether a vector of this tick (ns) belongs to a time before the present one."""
        return self._newest is not None and tick < self._newest - BACK - self.timeout

    def is_late(self, embedding: Embedding) -> bool:
        """Whether its tick was given out already, so that `add` will not give it."""
        return self._done is not None and embedding.tick <= self._done and embedding.modality != FUSED

    def add(self, embedding: Embedding) -> list[tuple[int, dict[str, Embedding]]]:
        """Take one embedding → the ticks that are complete now, oldest first, without their fused ones."""
        if self._done is not None and embedding.tick <= self._done:
            return []
        self._held.setdefault(embedding.tick, {})[embedding.modality] = embedding
        self._newest = embedding.tick if self._newest is None else max(self._newest, embedding.tick)
        return self._give(self._newest - self.timeout)

    def rest(self) -> list[tuple[int, dict[str, Embedding]]]:
        """What is held of ticks that have a fused embedding, oldest first: nothing more will come."""
        return self._give(None)

    def _give(self, overdue: int | None) -> list[tuple[int, dict[str, Embedding]]]:
        ticks = []
        for tick in sorted(self._held):
            present = self._held[tick]
            fused = present.get(FUSED)
            if fused is None or not set(fused.sources) <= set(present):
                if overdue is not None and tick > overdue:
                    break
                self.incomplete += 1
            del self._held[tick]
            self._done = tick
            senses = {m: e for m, e in present.items() if m != FUSED}
            if senses:
                ticks.append((tick, senses))
        return ticks
