"""Compares the clocks of the sensors: their stamps with the times at which their samples were received.

The offset of a sensor is the time of arrival of a sample minus the stamp of its end. It contains the latency of the
sensor, and the difference of its clock from that of the receiver. In a recording, log times are the times of arrival.
Only differences of offsets between sensors matter: all sensors may use another clock than the receiver.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median, median_high

from sensebind.fusion.core.samples import SECOND

MEMORY = SECOND  # ns of times of arrival over which an offset is the median
MIN_STEP = MEMORY // 25  # ns of times of arrival between samples that count, so that fast sensors cost no more
SAME_CLOCK = SECOND  # ns: sensors whose offsets differ by less may have the same clock
MAX_BEHIND = 10 * SECOND  # ns: a sensor that is further behind the others is not late, its clock differs
SETTLING_TIME = 2 * SECOND  # ns from the first sample, in which one sample decides about a large difference
CONFIRMATION_TIME = 2 * SECOND  # ns that an offset must last before it decides, after that
RETURN_TIME = SECOND // 2  # ns that the offset of a clock that differed must agree again before its samples are used
MAX_LEAD = 3 * SECOND  # ns of stamps by which one sensor may be ahead of the others, so that these are not late
MAX_AGE = 30 * SECOND  # ns since the newest sample, after which the offset of a sensor does not count for others


@dataclass(slots=True)
class _Clock:
    """The clock of one sensor. All times in ns."""

    offsets: deque[tuple[int, int]] = field(default_factory=deque)  # (time of arrival, offset), of the last `MEMORY`
    offset: int = 0  # median of the above
    received: int = 0  # time of arrival of the newest sample
    end: int = 0  # of the newest sample
    differs: bool = False
    contradicted_since: int | None = None  # time of arrival since which the offset says the opposite of `differs`


class SensorClocks:
    """The clocks of the sensors of one robot. `max_ahead` (ns): a sensor whose stamps are further ahead of those of the
    other sensors has another clock. Use it in one thread at a time."""

    def __init__(self, max_ahead: int) -> None:
        self._max_ahead = max(max_ahead, SAME_CLOCK)
        self._clocks: dict[str, _Clock] = {}
        self._first: int | None = None  # time of arrival of the first sample

    def restart(self) -> None:
        """Forget all offsets. Call it when a clock jumped."""
        self._clocks.clear()
        self._first = None

    def agrees(self, sensor: str, end: int, received: int | None, *, recorded: bool = False) -> bool:
        """Use the end of a sample and its time of arrival (ns; None: not known). Returns whether the sensor has the
        clock of the others. `recorded`: the time of arrival is a log time, which does not depend on the load of this
        machine, so one sample decides about small differences too. A stamp that stands still says nothing."""
        clock = self._clocks.get(sensor)
        if received is None or received <= 0 or end <= 0:
            return clock is None or not clock.differs
        if clock is not None and received < clock.received - SECOND:  # the receiver's clock was set back
            self.restart()
            clock = None
        if clock is None:
            clock = self._clocks[sensor] = _Clock()
        self._first = received if self._first is None else self._first
        stands_still, clock.received, clock.end = end == clock.end, received, end
        if stands_still:
            if not recorded:
                return not clock.differs
        elif clock.differs and self._is_plausible(received - end, received):
            while clock.offsets and not self._is_plausible(clock.offsets[-1][1], received):
                clock.offsets.pop()  # of the time in which it differed: they would delay its return
        if not clock.offsets or (received - clock.offsets[-1][0] >= MIN_STEP and not stands_still):
            clock.offsets.append((received, received - end))
            while clock.offsets[0][0] < received - MEMORY:
                clock.offsets.popleft()
            clock.offset = median_high(offset for _, offset in clock.offsets)
        elif not recorded:
            return not clock.differs
        self._decide(clock, received, recorded)
        return not clock.differs

    def is_from_future(self, end: int, received: int | None) -> bool:
        """Whether a sample would be received more than `MAX_LEAD` before its end (both ns), by the clock of the
        receiver and by that of the sensors: the stamp is wrong, also if the sensor's other stamps are right."""
        if received is None or received <= 0:
            return False
        lead = end - received
        return lead > MAX_LEAD and lead + self._reference(received - MAX_AGE) > MAX_LEAD

    def offset(self, sensor: str) -> int | None:
        """The offset of a sensor over its last second, in ns. None: not known."""
        return self._clocks[sensor].offset if sensor in self._clocks else None

    def behind_others(self, sensor: str) -> int | None:
        """How far the stamps of a sensor are behind those of the others, in ns; negative: ahead. None: not known."""
        clock = self._clocks.get(sensor)
        if clock is None:
            return None
        return clock.offset - self._reference(clock.received - MAX_AGE)

    def differs(self, sensor: str) -> bool:
        """Whether the clock of a sensor is not that of the others."""
        return sensor in self._clocks and self._clocks[sensor].differs

    @property
    def reference(self) -> int | None:
        """The offset of the clock that the sensors share, in ns. None: no time of arrival is known."""
        if not self._clocks:
            return None
        return self._reference(max(clock.received for clock in self._clocks.values()) - MAX_AGE)

    def _decide(self, clock: _Clock, received: int, recorded: bool) -> None:
        """Update `differs` by the newest offset. A change must last, so that a clock that is set, which not all sensors
        show at once, is none.

        A sensor whose stamps agree with the receiver's clock, or are late by `MAX_BEHIND` at most, never differs: under
        load, messages of some sensors are received late. They are never received early.
        """
        offset = clock.offset - self._reference(received - MAX_AGE)
        differs = not self._is_plausible(clock.offset, received)
        if differs == clock.differs:
            clock.contradicted_since = None
            return
        if clock.contradicted_since is None:
            clock.contradicted_since = received
        assert self._first is not None
        settled = received - self._first >= SETTLING_TIME or not (recorded or abs(offset) > MAX_BEHIND)
        lasts = CONFIRMATION_TIME if differs else RETURN_TIME
        confirmed = received - clock.contradicted_since >= lasts and any(
            other is not clock and other.received > clock.contradicted_since for other in self._clocks.values()
        )
        if not settled or confirmed:
            clock.differs, clock.contradicted_since = differs, None

    def _is_plausible(self, offset: int, received: int) -> bool:
        """Whether an offset is near the receiver's clock, or near that of the sensors at this time of arrival (ns)."""
        compared = offset - self._reference(received - MAX_AGE)
        return any(-self._max_ahead <= value <= MAX_BEHIND for value in (offset, compared))

    def _reference(self, oldest: int) -> int:
        """The offset of the clock of the sensors with a sample since `oldest` (ns): that of those whose stamps agree
        with the times of arrival, because a wrong clock does so only by chance. If no sensor's do, as in a recording of
        another recording, that of most sensors."""
        offsets = sorted(clock.offset for clock in self._clocks.values() if clock.received >= oldest)
        groups: list[list[int]] = []
        for offset in offsets:
            if groups and offset - groups[-1][-1] <= SAME_CLOCK:
                groups[-1].append(offset)
            else:
                groups.append([offset])
        middles = [(len(group), round(median(group))) for group in groups]
        if not middles:
            return 0
        nearest = min((middle for _, middle in middles), key=abs)
        _, largest = max(middles, key=lambda item: (item[0], -abs(item[1])))
        return nearest if abs(nearest) <= SAME_CLOCK else largest
