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

from sensebind.fusion.stream.statistics import SensorStatistics
from sensebind.nodes.diagnostics import Diagnostics


class FakePipeline:
    """Stands for a pipeline and its subscriptions. Only its counts are used."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.engine = SimpleNamespace(space=SimpleNamespace(id="toy@1"))
        self.arrived = 0
        self.topics = {"vision": "/camera/image"}
        self.diagnostics = Diagnostics({"device": "cpu"}, self)  # type: ignore[arg-type]

    def statistics(self) -> dict[str, SensorStatistics]:
        return {"vision": SensorStatistics(self.counts.copy())}

    def message_counts(self, modality: str) -> dict[str, int]:
        return {"arrived": self.arrived, "lost": 0, "earlier": 0}

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
        return sum(diagnostics.report_error("vision", f"error {i}") for i in range(500))

    with ThreadPoolExecutor(4) as pool:
        assert sum(thread.result() for thread in [pool.submit(report) for _ in range(4)]) == 500


def test_the_age_of_the_newest_window_is_unknown_until_a_sample_arrives_after_a_restart() -> None:
    pipeline = FakePipeline()
    restarted = SensorStatistics(newest_stamp=0, last_embedded_tick=1_700_000_000_000_000_000)
    pipeline.statistics = lambda: {"vision": restarted}  # type: ignore[method-assign]
    (status,) = pipeline.diagnostics.statuses(pipeline)  # type: ignore[arg-type]
    assert {v.key: v.value for v in status.values}["newest_window_age_s"] == "nan"
