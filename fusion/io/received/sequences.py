"""Counts messages that did not arrive, from gaps in the sequence numbers of their publisher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

MAX_GAP = 10**6  # a larger one is another publisher, or a wrong number


class SequenceGaps:
    """The messages that are missing on each topic. `lost`: topic → how many, since its first message that arrived."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._last: dict[str, int] = {}

    def add(self, topic: str, sequence: int, publishers: Callable[[], int] = lambda: 1) -> None:
        """Record the number of a message. A smaller one than before: the publisher started again.

        `publishers`: how many the topic has. The numbers of several are mixed, so then nothing is counted.
        """
        missing = sequence - self._last.get(topic, sequence) - 1
        self._last[topic] = sequence
        if 0 < missing <= MAX_GAP and publishers() == 1:
            self.lost[topic] += missing
