"""Finds steps in the stamps of sensors: a clock that was set back or forward while the sensors ran.

A step is a difference between successive stamps of one sensor that its usual interval does not explain, if the next
samples continue from there. It is a step of a clock that sensors share if all of them have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sensebind.fusion.core.samples import SECOND

MIN_STEP = SECOND // 4  # ns; smaller steps are jitter, or messages that overtook each other
MAX_MISSED = 4  # usual intervals without a sample; a longer step forward is more than lost messages
CONFIRMATIONS = 3  # samples that must follow each other after a step
USUAL_INTERVALS = 4  # newest intervals of a sensor that are kept
MAX_STEPS = 100  # newest steps that are kept
LEAST_AGE = 30 * SECOND  # ns of times of arrival over which the least latency of a sensor is kept
COUNTED = ("restarts", "incomplete", "late", "duplicate", "gaps", "coverage")  # what a step of a clock causes


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The stamps of one sensor jumped. `stamp`: the newest before (ns). `step` (ns): by how much, negative: back.
    `received_step`: by how much its times of arrival jumped (ns); of a step forward, if the sample before it had the
    least latency: after a stall, samples arrive late, but none is received early. `interval`: the usual one (ns)."""

    sensor: str
    stamp: int
    step: int
    received_step: int
    interval: int

    def is_like(self, other: ClockStep) -> bool:
        """Whether both may be one step of a common clock."""
        tolerance = SECOND // 2 + self.interval + other.interval
        return abs(self.step - other.step) <= tolerance and abs(self.stamp - other.stamp) <= tolerance

    @property
    def shows_receiver(self) -> bool:
        """Whether the receiver's clock made the same step; if forward, perhaps nothing arrived in this time, and then
        samples arrived late."""
        tolerance = max(MIN_STEP, self.interval, abs(self.step) // 4)
        if self.step > 0:
            return self.received_step >= self.step - tolerance
        return abs(self.step - self.received_step) <= tolerance


@dataclass(slots=True)
class _Stamps:
    """The stamps of one sensor (ns): the newest, its time of arrival, the usual intervals, the least latencies of the
    last two periods of `LEAST_AGE` and when the newer began, and a step that is not confirmed yet: its first stamp and
    time of arrival, the newest stamp after it, and how many samples follow it."""

    end: int
    received: int
    first: int
    intervals: deque[int] = field(default_factory=lambda: deque(maxlen=USUAL_INTERVALS))
    least: tuple[int, int] = (0, 0)
    least_since: int = 0
    candidate: tuple[int, int] | None = None
    candidate_end: int = 0
    candidate_count: int = 0

    def __post_init__(self) -> None:
        self.forget_latency(self.received - self.end, self.received)

    def forget_latency(self, latency: int, received: int) -> None:
        """The clock is another one from this latency and time of arrival on (ns)."""
        self.least, self.least_since = (latency, latency), received

    def note_latency(self, latency: int, received: int) -> None:
        """Use the latency of a sample, received at this time (ns)."""
        if not 0 <= received - self.least_since < LEAST_AGE:
            self.least, self.least_since = (latency, self.least[0]), received
        elif latency < self.least[0]:
            self.least = latency, self.least[1]

    def follows(self, end: int, before: int) -> bool:
        """Whether a stamp may be the next one after `before`, without a step of a clock."""
        if not self.intervals:
            return end - before > -MIN_STEP
        return -MIN_STEP < end - before <= max(2 * MIN_STEP, MAX_MISSED * max(self.intervals))


class ClockSteps:
    """The steps of the stamps of a robot's sensors. Use it in one thread at a time."""

    def __init__(self) -> None:
        self._stamps: dict[str, _Stamps] = {}
        self.found: deque[ClockStep] = deque(maxlen=MAX_STEPS)
        self.count = 0  # of all steps so far

    def restart(self) -> None:
        """Forget the stamps. Call it when a jump of the clock is known already."""
        self._stamps.clear()

    def update(self, sensor: str, end: int, received: int | None) -> None:
        """Use the end of the next sample of a sensor and its time of arrival (ns; None: not known)."""
        own, received = self._stamps.get(sensor), received or 0
        if own is None:
            self._stamps[sensor] = _Stamps(end, received, end)
            return
        continues = (
            own.candidate is not None and own.candidate_end < end < own.end
        )  # it nears the stamps before the step
        if own.follows(end, own.end) and not continues:
            own.candidate = None
            if end > own.end:
                own.intervals.append(end - own.end)
                own.end = end
            own.received = received
            own.note_latency(received - end, received)
            return
        if own.candidate is None or not own.follows(end, own.candidate_end):
            own.candidate, own.candidate_end, own.candidate_count = (end, received), end, 0
        own.candidate_end = max(own.candidate_end, end)
        own.candidate_count += 1
        if own.candidate_count < CONFIRMATIONS:
            return
        usual = max(own.intervals, default=0)
        step, received_step = own.candidate[0] - own.end - usual, own.candidate[1] - own.received - usual
        if step > 0:
            received_step = step + own.candidate[1] - own.candidate[0] - min(own.least)
        own.forget_latency(received - end, received)
        self.found.append(ClockStep(sensor, own.end, step, received_step, usual))
        self.count += 1
        own.end, own.received, own.candidate = own.candidate_end, received, None

    def received(self, sensor: str) -> int:
        """The time of arrival of a sensor's newest sample, in ns; 0: not known."""
        own = self._stamps.get(sensor)
        return own.received if own else 0

    def shortest_interval(self, sensor: str) -> int | None:
        """The shortest of a sensor's newest intervals, in ns. None: it has had no two samples."""
        own = self._stamps.get(sensor)
        return min(own.intervals) if own and own.intervals else None

    def common_steps(self) -> list[CommonStep]:
        """The steps so far, those of one clock together, in order. A pause of some sensors is none."""
        groups: list[list[ClockStep]] = []
        for step in self.found:
            group = next((g for g in groups if g[0].is_like(step) and step.sensor not in {s.sensor for s in g}), None)
            if group is None:
                groups.append([step])
            else:
                group.append(step)
        result = []
        for group in groups:
            first = group[0]
            sensors = tuple(sorted(step.sensor for step in group))
            others = any(
                sensor not in sensors and own.first <= first.stamp and max(own.intervals, default=0) < abs(first.step)
                for sensor, own in self._stamps.items()
            )
            paused = first.step > 0 and all(step.shows_receiver for step in group)
            if paused and (others or len(group) == 1):
                continue
            shared = not others and (len(group) > 1 or first.shows_receiver)
            result.append(CommonStep(sensors, first.stamp, first.step, shared, paused))
        return result


@dataclass(frozen=True, slots=True)
class CommonStep:
    """A step of the stamps of `sensors`, at `stamp` (ns), by `step` (ns, negative: back). `shared`: all sensors have
    it. `may_be_pause`: also nothing may have arrived in this time."""

    sensors: tuple[str, ...]
    stamp: int
    step: int
    shared: bool
    may_be_pause: bool

    def text(self, counts: Mapping[str, Mapping[str, int]], start: int | None = None) -> str:
        """What happened, when, and what mends it. `counts`: sensor → its counters. `start`: ns, from which times are
        given; None: the stamp is."""
        at = f"at {(self.stamp - start) / SECOND:.1f} s" if start is not None else f"at stamp {self.stamp / SECOND:.3f}"
        way = f"{'back' if self.step < 0 else 'forward'} by {abs(self.step) / SECOND:.1f} s {at}"
        named = ", ".join(self.sensors)
        causes = [
            f"{sensor} {', '.join(found)}"
            for sensor in self.sensors
            if (found := [f"{cause} {own[cause]}" for cause in COUNTED if (own := counts.get(sensor, {})).get(cause)])
        ]
        again = " Windows end there and start again after it." if self._restarts(counts) else ""
        counted = again + (f" Counted: {'; '.join(causes)}." if causes else "")
        if self.shared:
            pause = ", or nothing was recorded in this time" if self.may_be_pause else ""
            return (
                f"the clock was set {way} while recording (the stamps of {named} jump together){pause}.{counted} "
                "Let the clock be set (NTP, PTP) before the robot starts, and "
                "slew it after that instead of setting it"
            )
        return (
            f"{named}: stamps jump {way}, those of other sensors do not.{counted} "
            f"Synchronise its clock with the others, or set {self.sensors[0]}.stamps: received"
        )

    def _restarts(self, counts: Mapping[str, Mapping[str, int]]) -> bool:
        return any(counts.get(sensor, {}).get("restarts") for sensor in self.sensors)


def step_texts(
    steps: Sequence[CommonStep], counts: Mapping[str, Mapping[str, int]], start: int | None = None, limit: int = 5
) -> list[str]:
    """`CommonStep.text` of the first `limit` steps, and how many there are beside them."""
    texts = [step.text(counts, start) for step in steps[:limit]]
    more = len(steps) - limit
    return [*texts, f"{more} more steps of clocks like these"] if more > 0 else texts
