"""How many lines one source may write to the log of a node, so that it cannot fill it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable

LOG_LIMIT, LOG_PERIOD = 20, 60.0  # lines of one source that are logged in so many seconds


class LogLimit:
    """Remembers when each source wrote its newest lines. Use it in one thread at a time. It reads no clock."""

    def __init__(self) -> None:
        self._times: defaultdict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=LOG_LIMIT))

    def allows(self, source: Hashable, now: float) -> bool:
        """Whether a source may write a line at `now` (steady time in s). If so, the line counts as written."""
        times = self._times[source]
        if len(times) == LOG_LIMIT and now - times[0] < LOG_PERIOD:
            return False
        times.append(now)
        return True
