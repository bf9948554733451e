"""What `/diagnostics` says of a topic's troubles, whichever thread found them."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed here: see `sensebind doctor`")

from diagnostic_msgs.msg import DiagnosticStatus

from sensebind.fusion.stream.statistics import ModalityStatistics
from sensebind.nodes.diagnostics import Diagnostics


class World:
    """A pipeline and its subscriptions, of which only the counts matter."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.engine = SimpleNamespace(space=SimpleNamespace(id="toy@1"))
        self.arrived = 0
        self.topics = {"vision": "/camera/image"}
        self.diagnostics = Diagnostics({"device": "cpu"}, self)  # type: ignore[arg-type]

    def statistics(self) -> dict[str, ModalityStatistics]:
        return {"vision": ModalityStatistics(self.counts.copy())}

    def message_counts(self, modality: str) -> dict[str, int]:
        return {"arrived": self.arrived, "lost": 0, "earlier": 0}

    def waiting(self, modality: str) -> int:
        return 0

    def status(self, **new: int) -> tuple[Any, str]:
        """Level and message after so many more of each count."""
        self.counts.update(new)
        self.arrived += new.get("samples", 0)
        (status,) = self.diagnostics.statuses(self)  # type: ignore[arg-type]
        return status.level, status.message


def test_a_trouble_is_in_the_next_status_and_in_all_while_it_lasts() -> None:
    world = World()
    assert world.status(samples=3)[0] == DiagnosticStatus.OK
    assert world.diagnostics.report_error("vision", "odd")
    assert not world.diagnostics.report_error("vision", "odd"), "it is known"
    assert world.status(samples=3) == (DiagnosticStatus.ERROR, "odd"), "found after the totals were taken"
    assert world.status(samples=3, failure=1) == (DiagnosticStatus.ERROR, "odd")
    assert world.status() == (DiagnosticStatus.ERROR, "odd")
    assert world.status(samples=3)[0] == DiagnosticStatus.OK
    assert world.status(samples=3, failure=1)[0] == DiagnosticStatus.OK, "it was forgotten"


def test_of_threads_that_find_the_same_trouble_one_is_the_first() -> None:
    diagnostics, start = World().diagnostics, threading.Barrier(4)

    def find() -> int:
        start.wait()
        return sum(diagnostics.report_error("vision", f"trouble {i}") for i in range(500))

    with ThreadPoolExecutor(4) as pool:
        assert sum(thread.result() for thread in [pool.submit(find) for _ in range(4)]) == 500


def test_the_age_of_the_newest_window_is_unknown_until_a_sample_comes_after_a_restart() -> None:
    world = World()
    after = ModalityStatistics(newest_stamp=0, last_embedded_tick=1_700_000_000_000_000_000)
    world.statistics = lambda: {"vision": after}  # type: ignore[method-assign]
    (status,) = world.diagnostics.statuses(world)  # type: ignore[arg-type]
    assert {v.key: v.value for v in status.values}["newest_window_age_s"] == "nan"
