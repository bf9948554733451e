"""The status of each modality in `/diagnostics` (REP-107), published once a second."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.models import registry
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.statistics import SAMPLE_DROPS, WINDOW_DROPS, SensorStatistics
from sensebind.nodes.subscriptions import SensorSubscriptions
from sensebind.nodes.support.diagnostic_status import diagnostic_status

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
WARNING_COUNTERS = ("unstamped", "invalid", "late", "outlier", "overflow", "overload", "expired", "coverage", *SYMPTOMS)
MAX_LOSS_RATIO = 0.05  # fraction of a topic's messages; a larger loss is a warning


class Diagnostics:
    """Turns the pipeline's totals into one status for each modality, with rates since the previous status.

    `report_error` may be called from any thread, `statuses` from one.
    """

    def __init__(self, values: Mapping[str, Any], pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._space, self._device = pipeline.engine.space.id, registry.resolve_device(str(values["device"]))
        self._previous_counts: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()  # guards the three below
        self._errors: dict[str, str] = {}  # modality → the newest message
        self._unreported: set[str] = set()  # modalities whose newest message is in no status yet
        self._logged_errors: set[tuple[str, str]] = set()  # (modality, message) of all errors so far

    def report_error(self, modality: str, message: str) -> bool:
        """Record an error for the next status of a modality. Returns whether this is its first occurrence."""
        with self._lock:
            self._errors[modality] = message
            self._unreported.add(modality)
            first = (modality, message) not in self._logged_errors
            self._logged_errors.add((modality, message))
        return first

    def statuses(self, sensors: SensorSubscriptions, period: float = 1.0) -> list[DiagnosticStatus]:
        """One status for each modality. `period` is the time in seconds since the last call."""
        return [
            self._status(modality, statistics, sensors, period)
            for modality, statistics in self._pipeline.statistics().items()
        ]

    def _status(
        self, modality: str, statistics: SensorStatistics, sensors: SensorSubscriptions, period: float
    ) -> DiagnosticStatus:
        counts = dict(statistics.counts) | sensors.message_counts(modality)
        before = self._previous_counts.get(modality, {})
        new = {name: count - before.get(name, 0) for name, count in counts.items()}
        self._previous_counts[modality] = counts
        level, message = self._level_and_message(modality, new, sensors)
        # Unknown after a restart until a sample arrives.
        known = statistics.newest_stamp and statistics.last_embedded_tick
        age = (statistics.newest_stamp - statistics.last_embedded_tick) / SECOND if known else float("nan")
        latency = statistics.latency_ms()
        values: dict[str, Any] = {
            "topic": sensors.topics.get(modality, "no publisher yet"),
            "rate_in_hz": round(new.get("arrived", 0) / period, 2),
            "rate_out_hz": round(new.get("embedded", 0) / period, 2),
            "behind_newest_s": round(statistics.lag, 3),
            "newest_window_age_s": round(age, 3),
            "coverage_mean": round(statistics.coverage_mean(), 3),
            "latency_p50_ms": latency["p50"],
            "latency_p99_ms": latency["p99"],
            "queue_depth": self._pipeline.waiting(modality),
            "space": self._space,
            "device": self._device,
        }
        for name in ("arrived", "lost", "earlier", "windows", "embedded", "unfused", "gaps", "restarts"):
            values[name] = counts.get(name, 0)
        for name in (*SAMPLE_DROPS, *WINDOW_DROPS, *SYMPTOMS):
            values[name] = counts.get(name, 0)
        return diagnostic_status(modality, level, message, values)

    def _level_and_message(
        self, modality: str, new: Mapping[str, int], sensors: SensorSubscriptions
    ) -> tuple[bytes, str]:
        if (error := self._active_error(modality, new)) is not None:
            return ERROR, error
        arrived, lost = new.get("arrived", 0), new.get("lost", 0)
        if lost > MAX_LOSS_RATIO * (arrived + lost):
            return WARN, (
                f"{lost} of {arrived + lost} messages were lost: images do not fit the middleware's "
                "default buffers; see `sensebind doctor`"
            )
        if not arrived:
            return STALE, f"no messages arrive on {sensors.topics.get(modality, 'its topic')}"
        warnings = [f"{name} {new[name]}" for name in WARNING_COUNTERS if new.get(name)]
        return (WARN, ", ".join(warnings)) if warnings else (OK, "OK")

    def _active_error(self, modality: str, new: Mapping[str, int]) -> str | None:
        """The error that the next status shows: a new one, or one that persists. Forgets an error that has ended."""
        with self._lock:
            persists = new.get("encoding") or new.get("failure") or not new.get("samples")
            if modality in self._unreported or persists:
                self._unreported.discard(modality)
                return self._errors.get(modality)
            self._errors.pop(modality, None)
            return None
