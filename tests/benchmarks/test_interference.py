"""The control process beside a measurement: it shows when the machine itself was slow."""

from __future__ import annotations

import time

import pytest

from sensebind.benchmarks.harness import interference as module
from sensebind.benchmarks.harness.interference import control


def test_the_control_measures_its_work_while_the_block_runs() -> None:
    with control() as found:
        assert found == {}
        time.sleep(2.0)
    times = found["control_ms"]
    assert times["count"] > 0 and 0 < times["p50"] <= times["p99"] <= times["max"]


def test_a_control_that_cannot_run_gives_the_reason_and_does_not_affect_the_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHILD_COMMAND", "raise SystemExit('no such module')")
    with control() as found:
        measured = 1
    assert measured == 1 and found == {"control_failed": "no such module"}


def test_a_control_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHILD_COMMAND", "import time; time.sleep(600)")
    monkeypatch.setattr(module, "EXIT_TIMEOUT", 0.2)
    with control() as found:
        pass
    assert found == {"control_failed": "it did not end within 0.2 s"}


def test_a_measurement_that_fails_ends_the_control_too() -> None:
    with pytest.raises(ZeroDivisionError), control() as found:
        raise ZeroDivisionError
    assert found
