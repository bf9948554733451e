"""Votes on whether the clock that the sensors share was set back, or one sensor alone has another time."""

from __future__ import annotations

from collections.abc import Mapping

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.stream.windower import MIN_BACKWARD_JUMP, Windower

VOTE_AGE = 2 * SECOND  # ns of stamps: a sensor whose newest sample is older has stopped


class BackwardJumps:
    """The sensors of one robot whose stamps jumped back and that restarted alone. Use it in one thread at a time."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}  # sensor → its newest stamp before the jump (ns)

    def restart(self) -> None:
        """Forget all jumps."""
        self._before.clear()

    def add(self, sensor: str, before: int) -> None:
        """The stamps of a sensor jumped back. `before`: its newest stamp before that (ns)."""
        self._before[sensor] = before

    def common(self, windowers: Mapping[str, Windower]) -> int | None:
        """The time (ns) to which the clock of all sensors was set back. None: it was not.

        It was if the stamps of most sensors jumped back, or are about to. If those of one sensor among several did, it
        has another clock, or sends old data. A sensor without a sample in the last `VOTE_AGE` of stamps does not vote.
        """
        for sensor, before in list(self._before.items()):
            newest = windowers[sensor].newest_stamp
            if newest is None or newest >= before - MIN_BACKWARD_JUMP:  # it is back at its time before
                del self._before[sensor]
        if not self._before:
            return None
        others = {s: w for s, w in windowers.items() if s not in self._before and w.newest_stamp is not None}
        newest = max([*self._before.values(), *(w.newest_stamp or 0 for w in others.values())])
        back = len(self._before) + sum(w.is_confirming_jump_back for w in others.values())
        ahead = sum(
            not w.is_confirming_jump_back and (w.newest_stamp or 0) >= newest - VOTE_AGE for w in others.values()
        )
        if back <= ahead:
            return None
        return max(windowers[s].newest_stamp or 0 for s in self._before)
