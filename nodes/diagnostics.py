"""The status of each sensor in `/diagnostics` (REP-107), published once a second."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.models import registry
from sensebind.fusion.stream.options import StreamOptions
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.stamp_warnings import clock_text, stamp_warnings
from sensebind.fusion.stream.statistics import SAMPLE_DROPS, WINDOW_DROPS, SensorStatistics
from sensebind.nodes.subscriptions import SensorSubscriptions
from sensebind.nodes.support.diagnostic_status import diagnostic_status

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
WARNING_COUNTERS = (
    *("unstamped", "invalid", "late", "outlier", "overflow", "overload", "expired", "coverage", "unfused", "burst"),
    *SYMPTOMS,
)
MAX_LOSS_RATIO = 0.05  # fraction of a topic's messages; a larger loss is a warning
MAX_LOGGED_ERRORS = 1000  # messages that are remembered, so that each is logged once; an error may name a number


class Diagnostics:
    """Turns the pipeline's totals into one status for each sensor, with rates since the previous status.

    `node` is the fully qualified name of the node. `report_error` may be called from any thread, `statuses` from one.
    """

    def __init__(self, values: Mapping[str, Any], pipeline: Pipeline, node: str = "/embedder") -> None:
        self._pipeline, self._node = pipeline, node
        self._space, self._device = pipeline.engine.space.id, registry.resolve_device(str(values["device"]))
        self._previous_counts: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()  # guards the three below
        self._errors: dict[str, str] = {}  # sensor → the newest message
        self._unreported: set[str] = set()  # sensors whose newest message is in no status yet
        self._logged_errors: dict[tuple[str, str], None] = {}  # the newest (sensor, message), in order
        self._fusion_timeout = float(values.get("fusion_timeout", StreamOptions().fusion_timeout))  # s

    def report_error(self, sensor: str, message: str) -> bool:
        """Record an error for the next status of a sensor. Returns whether this is its first occurrence."""
        with self._lock:
            self._errors[sensor] = message
            self._unreported.add(sensor)
            first = (sensor, message) not in self._logged_errors
            self._logged_errors[sensor, message] = None
            if len(self._logged_errors) > MAX_LOGGED_ERRORS:
                del self._logged_errors[next(iter(self._logged_errors))]
        return first

    def statuses(
        self, sensors: SensorSubscriptions, period: float = 1.0, problems: Mapping[str, str] = MappingProxyType({})
    ) -> list[DiagnosticStatus]:
        """One status for each sensor. `period` is the time in seconds since the last call. `problems`: sensor →
        what is wrong with its topic."""
        return [
            self._status(sensor, statistics, sensors, period, problems.get(sensor, ""))
            for sensor, statistics in self._pipeline.statistics().items()
        ]

    def _status(
        self, sensor: str, statistics: SensorStatistics, sensors: SensorSubscriptions, period: float, problem: str
    ) -> DiagnosticStatus:
        counts = dict(statistics.counts) | sensors.message_counts(sensor)
        before = self._previous_counts.get(sensor, {})
        new = {name: count - before.get(name, 0) for name, count in counts.items()}
        self._previous_counts[sensor] = counts
        level, message = self._level_and_message(sensor, new, sensors, problem, statistics)
        offset = statistics.clock_offset if new.get("samples") else None
        # Unknown after a restart until a sample arrives.
        known = statistics.newest_stamp and statistics.last_embedded_tick
        age = (statistics.newest_stamp - statistics.last_embedded_tick) / SECOND if known else float("nan")
        latency = statistics.latency_ms()
        values: dict[str, Any] = {
            "topic": sensors.topics.get(sensor, "no publisher yet"),
            "rate_in_hz": round(new.get("arrived", 0) / period, 2),
            "rate_out_hz": round(new.get("embedded", 0) / period, 2),
            "behind_newest_s": round(statistics.lag, 3),
            "newest_window_age_s": round(age, 3),
            "clock_offset_s": math.nan if offset is None else round(offset, 3),
            "coverage_mean": round(statistics.coverage_mean(), 3),
            "latency_p50_ms": latency["p50"],
            "latency_p99_ms": latency["p99"],
            "queue_depth": self._pipeline.waiting(sensor),
            "space": self._space,
            "device": self._device,
        }
        for name in ("arrived", "lost", "earlier", "windows", "embedded", "unfused", "burst", "gaps", "restarts"):
            values[name] = counts.get(name, 0)
        for name in (*SAMPLE_DROPS, *WINDOW_DROPS, *SYMPTOMS):
            values[name] = counts.get(name, 0)
        return diagnostic_status(self._node, sensor, level, message, values, hardware=sensor)

    def _level_and_message(
        self,
        sensor: str,
        new: Mapping[str, int],
        sensors: SensorSubscriptions,
        problem: str,
        statistics: SensorStatistics,
    ) -> tuple[bytes, str]:
        if (error := self._active_error(sensor, new)) is not None:
            return ERROR, error
        arrived, lost = new.get("arrived", 0), new.get("lost", 0)
        if lost > MAX_LOSS_RATIO * (arrived + lost):
            return WARN, (
                f"{lost} of {arrived + lost} messages were lost: images do not fit the middleware's "
                "default buffers; see `sensebind doctor`"
            )
        if not arrived:
            return STALE, problem or f"no messages arrive on {sensors.topics.get(sensor, 'its topic')}"
        if statistics.clock_differs:
            return ERROR, clock_text(sensor, statistics.behind_others or 0.0)
        warnings = [f"{name} {new[name]}" for name in WARNING_COUNTERS if new.get(name)]
        counts = {**new, "clock": 0}  # its clock does not differ now
        warnings += stamp_warnings(sensor, counts, statistics.behind_others, self._fusion_timeout)
        warnings += sensors.warnings(sensor)
        warnings += [problem] if problem else []
        return (WARN, ", ".join(warnings)) if warnings else (OK, "OK")

    def _active_error(self, sensor: str, new: Mapping[str, int]) -> str | None:
        """The error that the next status shows: a new one, or one that persists. Forgets an error that has ended."""
        with self._lock:
            persists = new.get("encoding") or new.get("failure") or not new.get("samples")
            if sensor in self._unreported or persists:
                self._unreported.discard(sensor)
                return self._errors.get(sensor)
            self._errors.pop(sensor, None)
            return None
