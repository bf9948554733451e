"""Errors in `/diagnostics`, reported from any thread."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed here: see `sensebind doctor`")

from diagnostic_msgs.msg import DiagnosticStatus

from sensebind.commands.doctor.live import LiveStatuses, lines_of
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.stream.accounting.identity import MESSAGE_COUNTERS, unaccounted
from sensebind.fusion.stream.clocks.steps import CommonStep
from sensebind.fusion.stream.statistics import SensorStatistics
from sensebind.nodes.diagnostics import MAX_ERROR_LENGTH, MAX_LOGGED_ERRORS, STEP_STATUSES, Diagnostics
from sensebind.nodes.support.guards.log_limit import LOG_LIMIT


class FakePipeline:
    """Stands for a pipeline and its subscriptions. Only its counts are used."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.engine = SimpleNamespace(space=SimpleNamespace(id="toy@1"))
        self.arrived, self.odd_units = 0, False
        self.behind: float | None = None  # s, of the stamps behind those of the other sensors
        self.clock_differs = False
        self.steps: list[CommonStep] = []
        self.topics = {"vision": "/camera/image"}
        self.time_offset = 10**18  # ns, of the clock of the system, which may be set, from the steady clock
        self.diagnostics = Diagnostics({"device": "cpu"}, self, time_offset=lambda: self.time_offset)  # type: ignore[arg-type]

    def statistics(self) -> dict[str, SensorStatistics]:
        found = SensorStatistics(
            self.counts.copy(), clock_offset=0.02, behind_others=self.behind, clock_differs=self.clock_differs
        )
        return {"vision": found}

    def message_counts(self, modality: str) -> dict[str, int]:
        return {**dict.fromkeys(MESSAGE_COUNTERS, 0), "arrived": self.arrived, "decoded": self.arrived}

    def clock_steps(self) -> list[CommonStep]:
        return self.steps

    def warnings(self, sensor: str) -> list[str]:
        return ["odd units"] if self.odd_units else []

    def waiting(self, modality: str) -> int:
        return 0

    def status(self, **new: int) -> tuple[Any, str]:
        """Level and message of the status after the counts have grown by `new`."""
        self.counts.update(new)
        self.arrived += new.get("samples", 0)
        (status,) = self.diagnostics.statuses(self)  # type: ignore[arg-type]
        return status.level, status.message


def test_an_error_is_in_the_next_status_and_in_all_while_it_persists() -> None:
    pipeline = FakePipeline()
    assert pipeline.status(samples=3)[0] == DiagnosticStatus.OK
    assert pipeline.diagnostics.report_error("vision", "odd")
    assert not pipeline.diagnostics.report_error("vision", "odd"), "it was reported before"
    assert pipeline.status(samples=3) == (DiagnosticStatus.ERROR, "odd"), "reported after the totals were read"
    assert pipeline.status(samples=3, failure=1) == (DiagnosticStatus.ERROR, "odd")
    assert pipeline.status() == (DiagnosticStatus.ERROR, "odd")
    assert pipeline.status(samples=3)[0] == DiagnosticStatus.OK
    assert pipeline.status(samples=3, failure=1)[0] == DiagnosticStatus.OK, "the error has ended"


def test_an_error_that_several_threads_report_is_new_once() -> None:
    diagnostics, start = FakePipeline().diagnostics, threading.Barrier(4)

    def report() -> int:
        start.wait()
        return sum(diagnostics.report_error("vision", "error" * (i % 10)) for i in range(500))

    with ThreadPoolExecutor(4) as pool:
        assert sum(thread.result() for thread in [pool.submit(report) for _ in range(4)]) == 10


def test_the_age_of_the_newest_window_is_unknown_until_a_sample_arrives_after_a_restart() -> None:
    pipeline = FakePipeline()
    restarted = SensorStatistics(newest_stamp=0, last_embedded_tick=1_700_000_000_000_000_000)
    pipeline.statistics = lambda: {"vision": restarted}  # type: ignore[method-assign]
    (status,) = pipeline.diagnostics.statuses(pipeline)  # type: ignore[arg-type]
    assert {v.key: v.value for v in status.values}["newest_window_age_s"] == "nan"


def test_claims_beyond_the_limits_jumping_stamps_and_failed_checks_are_named_with_the_remedy() -> None:
    pipeline = FakePipeline()
    pipeline.status(samples=3)
    level, message = pipeline.status(samples=3, invalid=3)
    assert level == DiagnosticStatus.WARN and "invalid 3" in message and "vision.max_gap" in message
    assert pipeline.status(samples=3, restarts=1)[0] == DiagnosticStatus.OK, "a looped bag"
    level, message = pipeline.status(samples=30, restarts=3)
    assert level == DiagnosticStatus.WARN and "vision.stamps: received" in message
    pipeline.diagnostics.report_error("vision", "its data could not be checked")
    assert pipeline.status(samples=3, unchecked=1)[0] == DiagnosticStatus.ERROR
    assert pipeline.status(samples=3, unchecked=1)[0] == DiagnosticStatus.ERROR, "it persists"
    assert pipeline.status(samples=3)[0] == DiagnosticStatus.OK


def test_errors_without_end_take_bounded_memory() -> None:
    diagnostics = FakePipeline().diagnostics
    for number in range(3 * MAX_LOGGED_ERRORS):
        diagnostics.report_error("vision", "x" * number)
    assert len(diagnostics._logged_errors) == MAX_LOGGED_ERRORS


def test_errors_that_differ_only_in_numbers_and_quotes_are_one_line_of_the_log_and_others_are_limited() -> None:
    diagnostics = FakePipeline().diagnostics
    assert [diagnostics.report_error("vision", f"{n} rows of '{n * 'x'}'") for n in range(100)].count(True) == 1
    assert [diagnostics.report_error("vision", "z" * n) for n in range(1, 100)].count(True) == LOG_LIMIT - 1
    assert diagnostics.report_error("audio", "z"), "another sensor has lines of its own"


def test_an_error_cannot_forge_a_line_or_fill_the_status() -> None:
    pipeline = FakePipeline()
    pipeline.diagnostics.report_error("vision", "encoding '\n[ERROR] forged\x1b[31m" + "x" * 10**6)
    _, message = pipeline.status(samples=3)
    assert message.isprintable() and len(message) < MAX_ERROR_LENGTH + 100


def test_the_clock_offset_is_unknown_while_no_samples_arrive() -> None:
    pipeline = FakePipeline()

    def offset() -> float:
        (status,) = pipeline.diagnostics.statuses(pipeline)  # type: ignore[arg-type]
        return float(next(pair.value for pair in status.values if pair.key == "clock_offset_s"))

    pipeline.counts["samples"] = 3
    assert offset() == 0.02
    assert offset() != offset(), "NaN: none arrived"


def test_a_clock_that_was_set_is_named_for_a_while() -> None:
    pipeline = FakePipeline()
    pipeline.steps = [CommonStep(("imu", "vision"), 10**18, -3 * SECOND, True, False)]
    assert pipeline.status(samples=3)[0] == DiagnosticStatus.OK, "other sensors may have it too"
    level, text = pipeline.status(samples=3)
    assert level == DiagnosticStatus.WARN and "the clock was set back by 3.0 s" in text and "imu, vision" in text
    for _ in range(STEP_STATUSES):
        level, _ = pipeline.status(samples=3)
    assert level == DiagnosticStatus.OK


def test_a_pause_of_all_sensors_is_a_clock_that_was_set_only_if_that_of_the_system_was() -> None:
    pipeline = FakePipeline()
    pipeline.steps = [CommonStep(("imu", "vision"), 10**18, 3 * SECOND, True, True)]
    for _ in range(5):
        assert pipeline.status(samples=3) == (DiagnosticStatus.OK, "OK")
    pipeline.time_offset += 2 * SECOND
    level, text = pipeline.status(samples=3)
    assert level == DiagnosticStatus.WARN and "the clock was set forward by 3.0 s" in text
    assert "nothing was recorded" not in text


def test_a_clock_that_differs_and_wrong_contents_are_in_the_status_with_the_remedy() -> None:
    pipeline = FakePipeline()
    pipeline.odd_units = True
    assert pipeline.status(samples=3) == (DiagnosticStatus.WARN, "odd units")
    level, message = pipeline.status(samples=3, unstamped=3)
    assert level == DiagnosticStatus.WARN and "vision.stamps: received" in message
    pipeline.behind, pipeline.clock_differs = -37.0, True
    level, message = pipeline.status(samples=3)
    assert level == DiagnosticStatus.ERROR and "vision.time_offset: -37" in message


def test_windows_that_come_too_late_for_fusion_are_a_warning_with_the_remedy() -> None:
    pipeline = FakePipeline()
    pipeline.status(samples=3)
    assert pipeline.status(samples=3, unfused=2) == (DiagnosticStatus.WARN, "unfused 2")
    pipeline.behind = 3.0
    level, message = pipeline.status(samples=3, unfused=2)
    assert level == DiagnosticStatus.WARN and "fusion_timeout: 3.5" in message and "vision.time_offset: 3" in message


def test_the_problem_of_a_topic_is_the_message_and_the_namespace_is_in_name_and_hardware_id() -> None:
    pipeline = FakePipeline()
    pipeline.diagnostics = Diagnostics({"device": "cpu"}, pipeline, "/robot1/embedder")  # type: ignore[arg-type]
    (status,) = pipeline.diagnostics.statuses(pipeline, problems={"vision": "set x"})  # type: ignore[arg-type]
    assert (status.level, status.message) == (DiagnosticStatus.STALE, "set x")
    assert (status.name, status.hardware_id) == ("robot1/embedder: vision", "robot1/vision")


def test_several_robots_in_one_process_have_lines_of_their_own_and_only_the_faulty_one_is_unaccounted() -> None:
    found, rows = LiveStatuses(), {"/robot1/embedder": 3, "/robot2/embedder": 4}
    for node, used in rows.items():
        pipeline = FakePipeline()
        pipeline.arrived = 5
        pipeline.counts.update(samples=5, used=used, invalid=2)
        statuses = Diagnostics({"device": "cpu"}, pipeline, node).statuses(pipeline)  # type: ignore[arg-type]
        found.add(SimpleNamespace(status=statuses))
    lines = {name: lines_of(counts) for name, counts in found.statuses.items()}
    assert {name: unaccounted(own) for name, own in lines.items()} == {
        "robot1/embedder: vision": [],
        "robot2/embedder: vision": ["samples 5 = used 4 + invalid 2 + UNACCOUNTED -1"],
    }
