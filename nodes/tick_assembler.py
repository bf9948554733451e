"""Groups the embeddings of several topics by tick: DDS keeps no order between topics. Sorts out wrong stamps."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND

MIN_JUMP_BACK = 2 * SECOND  # ns; a topic that goes back by more than this and the timeout means that time jumped back

MAX_STEP = 3600 * SECOND  # ns from one embedding to the next; more is a wrong stamp, or a jump of the clock
MAX_HELD_TICKS = 1000  # more than a timeout of usual hops has; the stamps of others may be any number of ns apart
CONFIRMATION = 2.0  # s in which no embedding has a stamp near the earlier ones after such a jump
MAX_APART = 12 * SECOND  # ns; a sensor may be later than another one by 10 s
# s without an embedding near the earlier ones, after which a jump of less than an hour is one. Longer if these many
# longest hops are: a robot has an embedding in each. At most the last number of s.
JUMP_TIME, JUMP_HOPS, MAX_JUMP_TIME = 1.0, 1.25, 5.0
MAX_HELD_JUMPS = 500  # embeddings that wait for it


class StampGate:
    """Refuses embeddings whose stamps are more than an hour from the others: one of them would seem to be a jump of the
    clock, and all events would end.

    If the clock has really jumped so far, no embedding has an earlier stamp any more: after `CONFIRMATION` the new time
    is accepted. After a pause, stamps may be later by the time that has passed. It reads no clock.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, float] | None = None  # tick in ns, and steady time in s, of the last one accepted
        self._odd: tuple[int, float] | None = None  # the same, of the first one after it that is far from it

    def accept(self, tick: int, now: float) -> bool:
        """Whether an embedding with this tick (ns) can be used. `now`: steady time in s."""
        if self._newest is not None:
            step, elapsed = tick - self._newest[0], round((now - self._newest[1]) * SECOND)
            if abs(step) > MAX_STEP and abs(step - elapsed) > MAX_STEP:
                if self._odd is None or abs(tick - self._odd[0]) > MAX_STEP:
                    self._odd = tick, now
                if now - max(self._odd[1], self._newest[1]) < CONFIRMATION:
                    return False
        self._newest, self._odd = (tick, now), None
        return True


class TimeJumps:
    """Holds embeddings whose stamps jump, until it is known whether time has jumped, or only their stamps are wrong.

    A stamp jumps if it is further from the newest of all than `MAX_APART`, or goes back on its own topic by more than
    `max_back` (ns). One that jumps would make all others late, or end all events. If time has jumped, no embedding has
    a stamp as before any more: then all are released, in order of arrival. Otherwise they are dropped (`dropped.time`).
    `sequence` is passed on as it is. `longest_hop` in s. It reads no clock: `now` is steady time in s.
    """

    def __init__(self, max_back: int, on_end: Callable[[Embedding, str], None] = lambda embedding, end: None) -> None:
        self.max_back, self.longest_hop = max_back, 0.0
        self._on_end = on_end
        self._held: deque[tuple[float, Embedding, int]] = deque()  # with the time at which each arrived
        self._newest: dict[str, int] = {}  # source → its newest tick (ns) that was not held
        self._newest_of_all = 0
        self._last_usual: float | None = None  # when the newest embedding arrived that was not held

    @property
    def waiting(self) -> Counter[str]:
        """Source → how many of its embeddings are held."""
        return Counter(embedding.source for _, embedding, _ in self._held)

    @property
    def _jump_time(self) -> float:
        return min(max(JUMP_TIME, JUMP_HOPS * self.longest_hop), MAX_JUMP_TIME)

    def hold(self, now: float, embedding: Embedding, sequence: int) -> bool:
        """Hold an embedding if its stamp jumps. Returns whether it is held: call `release` then, and regularly."""
        tick, newest = embedding.tick, self._newest.get(embedding.source, embedding.tick)
        is_jump = abs(tick - self._newest_of_all) > MAX_APART or tick < newest - self.max_back
        if self._last_usual is not None and is_jump:
            self._held.append((now, embedding, sequence))
            if len(self._held) > MAX_HELD_JUMPS:
                self._on_end(self._held.popleft()[1], "dropped.time")
            return True
        self._newest[embedding.source] = tick
        self._newest_of_all = max(self._newest_of_all, tick)
        self._last_usual = now
        while self._held and now - self._held[0][0] > self._jump_time:  # time goes on as before
            self._on_end(self._held.popleft()[1], "dropped.time")
        return False

    def release(self, now: float) -> tuple[list[tuple[Embedding, int]], bool]:
        """The held embeddings with their sequence numbers, if time has jumped; and whether it has jumped back."""
        if not self._held or self._last_usual is None or now - self._last_usual < self._jump_time:
            return [], False
        found = [(embedding, sequence) for _, embedding, sequence in self._held]
        before = self._newest_of_all
        self._held.clear()
        self._newest = {embedding.source: embedding.tick for embedding, _ in found}
        self._newest_of_all, self._last_usual = max(embedding.tick for embedding, _ in found), now
        return found, self._newest_of_all < before - self.max_back

    def restart(self) -> None:
        """Drop the held embeddings, and accept any stamp."""
        for _, embedding, _ in self._held:
            self._on_end(embedding, "dropped.time")
        self._held.clear()
        self._newest, self._newest_of_all, self._last_usual = {}, 0, None


class TickAssembler:
    """Holds embeddings until the fused one of a tick and all its sources have arrived. Returns ticks in order.

    If some are missing when the newest tick is `timeout` ns later, or more than `MAX_HELD_TICKS` are held, the oldest
    tick is returned without them and counted in `incomplete_ticks`.

    `on_end` is called with each embedding that is not returned, and what became of it: `used.in_tick`, a fused one that
    named the sources of a tick which is returned; `dropped.late`, its tick was already returned; `dropped.replaced`,
    another one of its source and tick came after it; `dropped.alone`, a fused one whose sources did not arrive;
    `dropped.restart`. `waiting` are those that are held.
    """

    def __init__(self, timeout: int, on_end: Callable[[Embedding, str], None] = lambda embedding, end: None) -> None:
        self.timeout, self._on_end = timeout, on_end
        self.incomplete_ticks = 0
        self._pending: dict[int, dict[str, Embedding]] = {}
        self.restart()

    @property
    def waiting(self) -> Counter[str]:
        """Source → how many of its embeddings are held."""
        return Counter(source for present in self._pending.values() for source in present)

    def restart(self) -> None:
        """Drop all embeddings and accept any tick again."""
        for present in self._pending.values():
            for embedding in present.values():
                self._on_end(embedding, "dropped.restart")
        self._pending = {}
        self._last_emitted: int | None = None
        self._newest_tick: int | None = None
        self._newest_by_topic: dict[str, int] = {}  # source → its newest tick

    def jumped_back(self, embedding: Embedding) -> bool:
        """Whether this embedding means that time jumped back. Call it with every embedding.

        It is compared with those of its own topic only, which arrive in order. Others may be ahead of it: after a stall
        of this process, the topics are received one after the other.
        """
        topic = embedding.source
        newest = self._newest_by_topic.get(topic, embedding.tick)
        self._newest_by_topic[topic] = max(newest, embedding.tick)
        return embedding.tick < newest - MIN_JUMP_BACK - self.timeout

    def is_late(self, embedding: Embedding) -> bool:
        """Whether the tick of this embedding was already returned, so that `add` drops it. False for a fused one."""
        return self._last_emitted is not None and embedding.tick <= self._last_emitted and embedding.modality != FUSED

    def add(self, embedding: Embedding) -> list[tuple[int, dict[str, Embedding]]]:
        """Add one embedding. Returns the ticks (ns) that are complete now, oldest first, with embeddings by sensor,
        without the fused ones."""
        if self._last_emitted is not None and embedding.tick <= self._last_emitted:
            self._on_end(embedding, "dropped.late")
            return []
        present = self._pending.setdefault(embedding.tick, {})
        if embedding.source in present:
            self._on_end(present[embedding.source], "dropped.replaced")
        present[embedding.source] = embedding
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
                if deadline is not None and tick > deadline and len(self._pending) <= MAX_HELD_TICKS:
                    break
                self.incomplete_ticks += 1
            del self._pending[tick]
            self._last_emitted = tick
            embeddings = {m: e for m, e in present.items() if m != FUSED}
            if fused is not None:
                self._on_end(fused, "used.in_tick" if embeddings else "dropped.alone")
            if embeddings:
                ticks.append((tick, embeddings))
        return ticks
