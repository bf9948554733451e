"""The status of each sensor in `/diagnostics` (REP-107), published once a second."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.core.windows import MAX_CHANNELS
from sensebind.fusion.models import registry
from sensebind.fusion.stream.accounting.identity import COUNTERS, sensor_counts
from sensebind.fusion.stream.options import StreamOptions
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.stamp_warnings import clock_text, stamp_warnings
from sensebind.fusion.stream.statistics import SAMPLE_DROPS, WINDOW_DROPS, SensorStatistics
from sensebind.nodes.subscriptions import SensorSubscriptions
from sensebind.nodes.support.diagnostic_status import diagnostic_status
from sensebind.nodes.support.guards.log_limit import LogLimit

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
SHOWN_COUNTERS = (
    *("arrived", "undecodable", "lost", "earlier", "windows", "embedded", "unfused", "unchecked", "burst", "gaps"),
    "restarts",
)
WARNING_COUNTERS = (
    *("unstamped", "invalid", "late", "outlier", "overflow", "overload", "expired", "abandoned", "coverage", "unfused"),
    *("burst", "clock"),
    *SYMPTOMS,
)
MIN_RESTARTS = 2  # in a second: the clock of a looped bag is set back once
MAX_LOSS_RATIO = 0.05  # fraction of a topic's messages; a larger loss is a warning
MAX_LOGGED_ERRORS = 1000  # kinds of errors that are remembered, so that each is logged once
MAX_ERROR_LENGTH = 1000  # characters
VARIABLE_PARTS = re.compile(r"'[^']*'|[-+]?[0-9][0-9.]*")  # of an error: what it quotes, and numbers
STEP_STATUSES = 30  # statuses that name a step of a clock


def system_time_offset() -> int:
    """The clock of the system minus the steady clock, in ns: it changes only if that of the system is set."""
    return time.time_ns() - time.monotonic_ns()


class Diagnostics:
    """Turns the pipeline's totals into one status for each sensor, with rates since the previous status.

    `node` is the fully qualified name of the node. `report_error` may be called from any thread, `statuses` from one.
    `time_offset`: see `system_time_offset`.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        pipeline: Pipeline,
        node: str = "/embedder",
        time_offset: Callable[[], int] = system_time_offset,
    ) -> None:
        self._pipeline, self._node = pipeline, node
        self._space, self._device = pipeline.engine.space.id, registry.resolve_device(str(values["device"]))
        self._previous_counts: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()  # guards the four below
        self._errors: dict[str, str] = {}  # sensor → the newest message
        self._unreported: set[str] = set()  # sensors whose newest message is in no status yet
        self._logged_errors: dict[tuple[str, str], None] = {}  # the newest (sensor, kind), in order
        self._log_limit = LogLimit()  # of each sensor
        self._fusion_timeout = float(values.get("fusion_timeout", StreamOptions().fusion_timeout))  # s
        # Sensor → stamp (ns) of the newest step of its clock, and the number of statuses since.
        self._newest_steps: dict[str, tuple[int, int]] = {}
        self._time_offset = time_offset
        self._time_offsets: deque[int] = deque([time_offset()], maxlen=STEP_STATUSES + 2)  # at the newest statuses

    def report_error(self, sensor: str, message: str) -> bool:
        """Record an error for the next status of a sensor. Returns whether to log it: it is the first of its kind, and
        not one of very many. Errors that differ only in numbers and in what they quote are of one kind."""
        kind, now = VARIABLE_PARTS.sub("", message), time.monotonic()
        with self._lock:
            self._errors[sensor] = printable(message, MAX_ERROR_LENGTH)
            self._unreported.add(sensor)
            first = (sensor, kind) not in self._logged_errors
            self._logged_errors[sensor, kind] = None
            if len(self._logged_errors) > MAX_LOGGED_ERRORS:
                del self._logged_errors[next(iter(self._logged_errors))]
            return first and self._log_limit.allows(sensor, now)

    def statuses(
        self, sensors: SensorSubscriptions, period: float = 1.0, problems: Mapping[str, str] = MappingProxyType({})
    ) -> list[DiagnosticStatus]:
        """One status for each sensor. `period` is the time in seconds since the last call. `problems`: sensor →
        what is wrong with its topic."""
        statistics = self._pipeline.statistics()
        steps = self._new_steps({sensor: own.counts for sensor, own in statistics.items()})
        return [
            self._status(sensor, own, sensors, period, problems.get(sensor, ""), steps.get(sensor, ""))
            for sensor, own in statistics.items()
        ]

    def _new_steps(self, counts: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
        """Sensor → what the newest step of its clock means, for `STEP_STATUSES` statuses. The first status after a step
        has none, because slower sensors have not shown yet whether they have it too. `counts`: sensor → counters.

        If all sensors sent nothing for a time, stamps and times of arrival make a step too. It is none if the clock of
        the system was not set by half of it at least.
        """
        found = {}
        self._time_offsets.append(self._time_offset())
        was_set = max(self._time_offsets) - min(self._time_offsets)
        newest = {sensor: step for step in self._pipeline.clock_steps() for sensor in step.sensors}
        for sensor, step in newest.items():
            stamp, number = self._newest_steps.get(sensor, (0, 0))
            number = number + 1 if stamp == step.stamp else 0
            self._newest_steps[sensor] = step.stamp, number
            if 1 <= number <= STEP_STATUSES and not (step.may_be_pause and was_set < abs(step.step) / 2):
                found[sensor] = replace(step, may_be_pause=False).text(counts)
        return found

    def _status(
        self,
        sensor: str,
        statistics: SensorStatistics,
        sensors: SensorSubscriptions,
        period: float,
        problem: str,
        step: str,
    ) -> DiagnosticStatus:
        counts = sensor_counts(statistics, sensors.message_counts(sensor))
        before = self._previous_counts.get(sensor, {})
        new = {name: count - before.get(name, 0) for name, count in counts.items()}
        self._previous_counts[sensor] = counts
        level, message = self._level_and_message(sensor, new, sensors, problem, step, statistics)
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
            "queue_depth": counts["queue_depth"],
            "space": self._space,
            "device": self._device,
        }
        for name in (*SHOWN_COUNTERS, *SAMPLE_DROPS, *WINDOW_DROPS, *SYMPTOMS, *COUNTERS):
            values[name] = counts.get(name, 0)
        return diagnostic_status(self._node, sensor, level, message, values, hardware=sensor)

    def _level_and_message(
        self,
        sensor: str,
        new: Mapping[str, int],
        sensors: SensorSubscriptions,
        problem: str,
        step: str,
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
        if new.get("invalid"):
            warnings.append(
                "invalid samples are empty or not finite, or claim more than the parameters allow: a rate above "
                f"{sensor}.max_rate, more than {MAX_CHANNELS} channels, a duration above {sensor}.max_gap"
            )
        if new.get("restarts", 0) >= MIN_RESTARTS:
            warnings.append(
                f"restarts {new['restarts']}: its stamps jump back and forth; set {sensor}.stamps: received"
            )
        counts = {**new, "clock": 0}  # its clock does not differ now
        warnings += stamp_warnings(sensor, counts, statistics.behind_others, self._fusion_timeout)
        warnings += sensors.warnings(sensor)
        warnings += [text for text in (step, problem) if text]
        return (WARN, ", ".join(warnings)) if warnings else (OK, "OK")

    def _active_error(self, sensor: str, new: Mapping[str, int]) -> str | None:
        """The error that the next status shows: a new one, or one that persists. Forgets an error that has ended."""
        with self._lock:
            persists = any(new.get(name) for name in ("encoding", "failure", "unchecked")) or not new.get("samples")
            if sensor in self._unreported or persists:
                self._unreported.discard(sensor)
                return self._errors.get(sensor)
            self._errors.pop(sensor, None)
            return None
