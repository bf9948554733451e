"""The statuses in `/diagnostics` that a test has received.

diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics", 100)
me.wait_until(lambda: newest(diagnostics, "embedder: vision").level == WARN, 10, "the warning")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
OK, WARN, ERROR, STALE = b"\x00", b"\x01", b"\x02", b"\x03"


@dataclass(frozen=True, slots=True)
class Status:
    """One status, and `time.monotonic()` of its arrival."""

    arrived_at: float
    level: bytes
    message: str
    values: Mapping[str, str]

    def count(self, name: str) -> int:
        """A counter; 0 if it is not there."""
        return int(self.values.get(name, "0"))


def statuses(received: Sequence[tuple[float, Any]], name: str, since: float = 0.0) -> list[Status]:
    """The statuses of a component, such as `embedder: vision`, since `time.monotonic()`, the oldest first. `received`:
    what `Peer.subscribe` returned."""
    return [
        Status(at, status.level, status.message, {pair.key: pair.value for pair in status.values})
        for at, message in received
        if at >= since
        for status in message.status
        if status.name == name
    ]


def newest(received: Sequence[tuple[float, Any]], name: str, since: float = 0.0) -> Status:
    """The newest of `statuses`; if there is none, one that is STALE and empty."""
    found = statuses(received, name, since)
    return found[-1] if found else Status(0.0, STALE, "", {})
