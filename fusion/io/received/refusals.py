"""The messages that a node refused: how many of each kind, and which of them are logged."""

from __future__ import annotations

from collections import Counter

LOG_PERIOD = 60.0  # s from one line of the log on a kind of refusal to the next one
WARNING_PERIOD = 60.0  # s after a refusal in which the diagnostics warn of its kind


class Refusals:
    """Counts refused messages by kind, such as ``embedding.not_finite``. It reads no clock: the caller passes the time.

    A kind is logged when it is first refused, and again at most every `LOG_PERIOD`. So what a node logs is bounded by
    the number of kinds, for any input.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged: dict[str, tuple[float, int]] = {}  # kind → time and count of its last line
        self._last: dict[str, float] = {}  # kind → time of its last refusal

    def add(self, kind: str, text: str, now: float) -> str:
        """Count a refusal. Returns what to log; empty if nothing. `now`: steady time in s."""
        self.counts[kind] += 1
        self._last[kind] = now
        at, logged = self._logged.get(kind, (0.0, 0))
        if logged and now - at < LOG_PERIOD:
            return ""
        self._logged[kind] = now, self.counts[kind]
        more = f"; {self.counts[kind] - logged} of this kind since {now - at:.0f} s" if logged else ""
        return f"{text}{more}"

    def warning(self, now: float) -> str:
        """What was refused in the last `WARNING_PERIOD`, for the diagnostics; empty if nothing."""
        recent = [kind for kind, at in sorted(self._last.items()) if now - at < WARNING_PERIOD]
        return f"refused messages: {', '.join(f'{kind} {self.counts[kind]}' for kind in recent)}" if recent else ""

    def values(self) -> dict[str, int]:
        """The counts for the diagnostics: `refused_messages` of all kinds, and that of each kind."""
        kinds = {f"refused.{kind}": count for kind, count in sorted(self.counts.items())}
        return {"refused_messages": sum(self.counts.values()), **kinds}
