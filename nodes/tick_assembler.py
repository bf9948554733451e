"""Embeddings of several topics, put together by tick again: DDS keeps no order between topics."""

from __future__ import annotations

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND

MIN_JUMP_BACK = 2 * SECOND  # ns; vectors this much older than the newest are of another time


class TickAssembler:
    """Holds embeddings until a tick's fused one and all of its sources are there; then gives them out, in order.

    A tick that lacks a source for `timeout` ns of the stream's time goes without, and counts as `incomplete_ticks`.
    """

    def __init__(self, timeout: int) -> None:
        self.timeout = timeout
        self.incomplete_ticks = 0
        self.restart()

    def restart(self) -> None:
        """Forget all: time starts afresh."""
        self._pending: dict[int, dict[str, Embedding]] = {}
        self._last_emitted: int | None = None
        self._newest_tick: int | None = None

    def jumped_back(self, tick: int) -> bool:
        """Whether a vector of this tick (ns) belongs to a time before the present one."""
        return self._newest_tick is not None and tick < self._newest_tick - MIN_JUMP_BACK - self.timeout

    def is_late(self, embedding: Embedding) -> bool:
        """Whether its tick was given out already, so that `add` will not give it."""
        return self._last_emitted is not None and embedding.tick <= self._last_emitted and embedding.modality != FUSED

    def add(self, embedding: Embedding) -> list[tuple[int, dict[str, Embedding]]]:
        """Take one embedding → the ticks that are complete now, oldest first, without their fused ones."""
        if self._last_emitted is not None and embedding.tick <= self._last_emitted:
            return []
        self._pending.setdefault(embedding.tick, {})[embedding.modality] = embedding
        self._newest_tick = embedding.tick if self._newest_tick is None else max(self._newest_tick, embedding.tick)
        return self._pop_complete(self._newest_tick - self.timeout)

    def flush(self) -> list[tuple[int, dict[str, Embedding]]]:
        """What is held of ticks that have a fused embedding, oldest first: nothing more will come."""
        return self._pop_complete(None)

    def _pop_complete(self, deadline: int | None) -> list[tuple[int, dict[str, Embedding]]]:
        ticks = []
        for tick in sorted(self._pending):
            present = self._pending[tick]
            fused = present.get(FUSED)
            if fused is None or not set(fused.sources) <= set(present):
                if deadline is not None and tick > deadline:
                    break
                self.incomplete_ticks += 1
            del self._pending[tick]
            self._last_emitted = tick
            embeddings = {m: e for m, e in present.items() if m != FUSED}
            if embeddings:
                ticks.append((tick, embeddings))
        return ticks
