"""Counts messages that did not arrive, from gaps in the sequence numbers that the middleware gives to a publisher."""

from __future__ import annotations

from collections.abc import Callable

from sensebind.fusion.io.received.newest import put_newest

MAX_PUBLISHERS = 100  # of a topic whose newest numbers are remembered


class LossCounter:
    """Counts the messages of a topic that did not arrive, from gaps in the sequence numbers of its publishers.

    The middleware's own event counts only messages lost in transport, not those dropped from a full queue. Each
    publisher counts from 1. Where the middleware does not say whose a message is, it continues the publisher whose
    newest number is the nearest below its own. `publishers` returns how many publishers the topic has.
    """

    def __init__(self, publishers: Callable[[], int]) -> None:
        self._publishers = publishers
        # Newest number of each publisher, the one that was heard last at the end: by its identity, and without one.
        self._newest_of: dict[bytes, int] = {}
        self._newest: list[int] = []
        self._paused: set[bytes] = set()  # publishers without a message since `pause`

    def pause(self) -> None:
        """Nothing was received for a time, on purpose: what each publisher sent meanwhile is no loss."""
        self._paused, self._newest = set(self._newest_of), []

    def count_missing(self, number: int, publisher: bytes | None = None) -> tuple[int, int]:
        """How many messages of a publisher before `number` are missing: (before the first that arrived, or in a pause;
        since the previous one). `publisher`: its identity; None: not known. Then the result is (0, 0) if it may be the
        first message of one of several publishers."""
        if publisher is None:
            return self._count_by_number(number)
        before = self._newest_of.get(publisher, 0)
        missing = max(0, number - before - 1)
        is_first = not before or publisher in self._paused
        self._paused.discard(publisher)
        put_newest(self._newest_of, publisher, max(number, before), MAX_PUBLISHERS)
        return (missing, 0) if is_first else (0, missing)

    def _count_by_number(self, number: int) -> tuple[int, int]:
        before = max((newest for newest in self._newest if newest < number), default=0)
        missing = number - before - 1
        if before and missing and len(self._newest) < self._publishers():
            before = missing = 0
        if before:
            self._newest.remove(before)
        self._newest.append(number)
        if missing or not before:  # rare, so a moment to forget publishers that have ended
            self._newest = self._newest[-max(1, self._publishers()) :]
        return (0, missing) if before else (missing, 0)


class TopicLosses:
    """How many messages of one topic did not arrive. If the middleware numbers messages, from the numbers
    (`LossCounter`); if not, as it reports them. `publishers` returns how many publishers the topic has."""

    def __init__(self, publishers: Callable[[], int]) -> None:
        self._gaps = LossCounter(publishers)
        self._known: Callable[[], int] = int
        self._is_numbered = False
        self._reported = 0  # messages that the middleware reported as lost before the first number

    def resume(self, known: Callable[[], int]) -> None:
        """Call it before a subscription starts, also after a pause. `known` returns how many messages of the topic have
        arrived or are known to be missing, also those of earlier subscriptions: none of them is counted again."""
        self._gaps.pause()
        self._known, self._is_numbered, self._reported = known, False, 0

    def missing_before(self, number: int | None, publisher: bytes | None = None) -> tuple[int, int]:
        """How many messages are missing before the one that arrives now: (earlier than the first that arrived, lost
        since). `number`, `publisher`: its number and the identity of its publisher; None if the middleware gives none.
        What was reported before the first number is taken back (a negative number): the report may come before messages
        that the numbers count."""
        if number is None:
            return 0, 0
        is_first, self._is_numbered = not self._is_numbered, True
        earlier, lost = self._gaps.count_missing(number, publisher)
        reported, self._reported = self._reported, 0
        if is_first and earlier and publisher is None:  # the messages of the subscription before are among them
            earlier = max(0, earlier - (self._known() - reported))
        return earlier, lost - reported

    def missing_as_reported(self, count: int) -> int:
        """How many messages are lost, if the middleware reports `count` more."""
        new = 0 if self._is_numbered else count
        self._reported += new
        return new
