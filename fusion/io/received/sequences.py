"""Counts messages that did not arrive, from gaps in the sequence numbers that the middleware gives to a publisher."""

from __future__ import annotations

from collections.abc import Callable


class LossCounter:
    """Counts the messages of a topic that did not arrive, from gaps in the sequence numbers of its publishers.

    The middleware's own event counts only messages lost in transport, not those dropped from a full queue. Each
    publisher counts from 1, and a message does not say whose it is: it continues the publisher whose newest number is
    the nearest below its own. `publishers` returns how many publishers the topic has.
    """

    def __init__(self, publishers: Callable[[], int]) -> None:
        self._publishers = publishers
        self._newest: list[int] = []  # newest number of each publisher, the one that was heard last at the end

    def count_missing(self, number: int) -> tuple[int, int]:
        """How many messages of a publisher before `number` are missing: (before the first that arrived, since the
        previous one). (0, 0) if it may be the first message of one of several publishers."""
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
    """How many messages of one subscription did not arrive. If the middleware numbers messages, from the numbers
    (`LossCounter`); if not, as it reports them.

    `known` returns how many messages of the topic have arrived or are known to be missing, also with earlier
    subscriptions of this node: none of them is counted again.
    """

    def __init__(self, publishers: Callable[[], int], known: Callable[[], int]) -> None:
        self._gaps, self._known, self._is_numbered = LossCounter(publishers), known, False

    def missing_before(self, number: int | None) -> tuple[int, int]:
        """How many messages are missing before the one that arrives now: (earlier than the first that arrived, lost
        since). `number`: that of the middleware; None if it gives none."""
        if number is None:
            return 0, 0
        self._is_numbered = True
        earlier, lost = self._gaps.count_missing(number)
        return (max(0, earlier - self._known()) if earlier else 0), lost

    def missing_as_reported(self, count: int) -> int:
        """How many messages are lost, if the middleware reports `count` more."""
        return 0 if self._is_numbered else count
