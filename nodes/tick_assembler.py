"""Groups the embeddings of several topics by tick: DDS keeps no order between topics."""

from __future__ import annotations

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND

MIN_JUMP_BACK = 2 * SECOND  # ns; an embedding older than this and the timeout means that time jumped back


class TickAssembler:
    """Holds embeddings until the fused one of a tick and all its sources have arrived. Returns ticks in order.

    If some are missing when the newest tick is `timeout` ns later, the tick is returned without them and counted in
    `incomplete_ticks`.
    """

    def __init__(self, timeout: int) -> None:
        self.timeout = timeout
        self.incomplete_ticks = 0
        self.restart()

    def restart(self) -> None:
        """Drop all embeddings and accept any tick again."""
        self._pending: dict[int, dict[str, Embedding]] = {}
        self._last_emitted: int | None = None
        self._newest_tick: int | None = None

    def jumped_back(self, tick: int) -> bool:
        """Whether an embedding of this tick (ns) means that time jumped back."""
        return self._newest_tick is not None and tick < self._newest_tick - MIN_JUMP_BACK - self.timeout

    def is_late(self, embedding: Embedding) -> bool:
        """Whether the tick of this embedding was already returned, so that `add` drops it. False for a fused one."""
        return self._last_emitted is not None and embedding.tick <= self._last_emitted and embedding.modality != FUSED

    def add(self, embedding: Embedding) -> list[tuple[int, dict[str, Embedding]]]:
        """Add one embedding. Returns the ticks (ns) that are complete now, oldest first, with embeddings by sensor,
        without the fused ones."""
        if self._last_emitted is not None and embedding.tick <= self._last_emitted:
            return []
        self._pending.setdefault(embedding.tick, {})[embedding.source] = embedding
        self._newest_tick = embedding.tick if self._newest_tick is None else max(self._newest_tick, embedding.tick)
        return self._pop_complete(self._newest_tick - self.timeout)

    def flush(self) -> list[tuple[int, dict[str, Embedding]]]:
        """Return all held ticks as `add` does. Call it when no more embeddings are expected."""
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
