"""The accounting identity: everything that was counted is used, or dropped by a cause, or still waits.

    messages published = arrived + lost          samples = used + dropped by cause
    messages = decoded + dropped by cause        windows = embedded + dropped by cause
                                                 embedded = fused + unfused

Each line is an `Account`. It holds at any moment, because `SensorStatistics` are of one moment and what still waits is
counted too. Messages that were lost are an estimate, from sequence numbers and the middleware, unless the publisher
counts them as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sensebind.fusion.stream.statistics import SAMPLE_DROPS, SAMPLES_WITHOUT_WINDOW, WINDOW_DROPS, SensorStatistics

# How each of these ends: what is used, what is not used by cause, and what still waits. Names of counters.
# Messages, of a sensor's topic and of its side topics. `decoded`: samples made from them; `applied`: they describe the
# sensor, or are the accelerations of an IMU on two topics; `joined`: their sound is in the sample of a later message.
MESSAGES_USED = ("decoded", "applied", "joined")
MESSAGE_DROPS = ("undecodable", "side_undecodable", "unfinished")
MESSAGES_WAITING = ("messages_waiting",)
# `too_late`: samples that came after their windows had closed. `late` is no end: such a sample may still be used.
SAMPLE_ENDS = (*(cause for cause in SAMPLE_DROPS if cause != "late"), *SAMPLES_WITHOUT_WINDOW, "too_late")
SAMPLES_WAITING = ("open_samples",)
WINDOWS_WAITING = ("queue_depth", "in_flight")
EMBEDDED_DROPS = ("unfused", "replaced")
EMBEDDED_WAITING = ("awaiting_fusion",)
# All counters of the identity, by line. `lost`: since the first message that arrived; `earlier`: before it.
MESSAGE_COUNTERS = ("arrived", "side", "lost", "earlier", *MESSAGES_USED, *MESSAGE_DROPS, *MESSAGES_WAITING)
SAMPLE_COUNTERS = ("samples", "used", *SAMPLE_ENDS, *SAMPLES_WAITING)
WINDOW_COUNTERS = ("windows", "embedded", *WINDOW_DROPS, *WINDOWS_WAITING)
EMBEDDED_COUNTERS = ("fused", *EMBEDDED_DROPS, *EMBEDDED_WAITING)
COUNTERS = (*MESSAGE_COUNTERS, *SAMPLE_COUNTERS, *WINDOW_COUNTERS, *EMBEDDED_COUNTERS)


@dataclass(frozen=True, slots=True)
class Account:
    """A line of the identity: `total` is the sum of `used`, `dropped` (by cause), `waiting` and `unaccounted`."""

    name: str  # what is counted: published, messages, samples, windows, embedded
    total: int
    used: Mapping[str, int]
    dropped: Mapping[str, int]
    waiting: int = 0

    @property
    def unaccounted(self) -> int:
        """What is missing on the right side, or below 0 what is too much there. It must be 0."""
        return self.total - sum(self.used.values()) - sum(self.dropped.values()) - self.waiting

    def as_json(self) -> dict[str, Any]:
        """The line in `summary.json`, without the causes that dropped nothing."""
        dropped = {cause: count for cause, count in self.dropped.items() if count}
        waiting = {"waiting": self.waiting} if self.waiting else {}
        counts = {"total": self.total, "used": dict(self.used), "dropped": dropped, **waiting}
        return {**counts, "unaccounted": self.unaccounted}

    def __str__(self) -> str:
        """The line in one text: ``samples 500 = used 490 + late 3 + waiting 7``, without the counts that are 0."""
        waiting = {"waiting": self.waiting, "UNACCOUNTED": self.unaccounted}
        parts = {**self.used, **{name: n for name, n in {**self.dropped, **waiting}.items() if n}}
        return f"{self.name} {self.total} = {' + '.join(f'{name} {count}' for name, count in parts.items())}"


def sensor_counts(statistics: SensorStatistics, messages: Mapping[str, int] | None = None) -> dict[str, int]:
    """The counters of a sensor by name, for `accounts`. `messages`: its message counters, if its samples are from
    messages."""
    return {
        **dict.fromkeys((*SAMPLE_COUNTERS, *WINDOW_COUNTERS, *EMBEDDED_COUNTERS), 0),
        **statistics.counts,
        "open_samples": statistics.open_samples,
        "queue_depth": statistics.waiting_windows,
        "in_flight": statistics.windows_in_flight,
        "awaiting_fusion": statistics.awaiting_fusion,
        **({} if messages is None else {**dict.fromkeys(MESSAGE_COUNTERS, 0), **messages}),
    }


def accounts(counts: Mapping[str, int], published: int | None = None) -> list[Account]:
    """The lines of the identity from the counters of a sensor (`sensor_counts`, or those in its diagnostics). Those of
    messages only if `counts` has them.

    `published`: how many messages the publisher counts. None: not known, so that what was lost is an estimate, and the
    first line always holds.
    """

    def of(*names: str) -> dict[str, int]:
        return {name: counts.get(name, 0) for name in names}

    def waiting(names: Iterable[str]) -> int:
        return sum(counts.get(name, 0) for name in names)

    lines = []
    if "arrived" in counts:
        lost = of("lost", "earlier")
        arrived = counts["arrived"]
        total = arrived + sum(lost.values()) if published is None else published
        lines += [
            Account("published", total, {"arrived": arrived}, lost),
            Account(
                "messages",
                arrived + counts.get("side", 0),
                of(*MESSAGES_USED),
                of(*MESSAGE_DROPS),
                waiting(MESSAGES_WAITING),
            ),
        ]
    samples = counts["decoded"] if "decoded" in counts else counts.get("samples", 0)
    return [
        *lines,
        Account("samples", samples, of("used"), of(*SAMPLE_ENDS), waiting(SAMPLES_WAITING)),
        Account("windows", counts.get("windows", 0), of("embedded"), of(*WINDOW_DROPS), waiting(WINDOWS_WAITING)),
        Account("embedded", counts.get("embedded", 0), of("fused"), of(*EMBEDDED_DROPS), waiting(EMBEDDED_WAITING)),
    ]


def sensor_accounts(statistics: SensorStatistics, messages: Mapping[str, int] | None = None) -> list[Account]:
    """The lines of the identity of a sensor: `accounts` of its `sensor_counts`."""
    return accounts(sensor_counts(statistics, messages))


def final_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The counters when no more samples are expected: open samples are then `incomplete`."""
    incomplete = counts.get("incomplete", 0) + counts.get("open_samples", 0)
    return {**counts, "incomplete": incomplete, "open_samples": 0}


def added(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counters of several sensors, robots or runs added up; the identity holds for them as for each."""
    total: Counter[str] = Counter()
    for counts in several:
        total.update(counts)
    return dict(total)


def unaccounted_by_line(lines: Iterable[Account]) -> dict[str, int]:
    """Name of each line → how much is unaccounted for in all lines of this name, without regard to the sign."""
    found: Counter[str] = Counter()
    for line in lines:
        found[line.name] += abs(line.unaccounted)
    return dict(found)


def unaccounted(lines: Iterable[Account]) -> list[str]:
    """The lines that do not hold, in words; none if everything is accounted for."""
    return [str(line) for line in lines if line.unaccounted]
