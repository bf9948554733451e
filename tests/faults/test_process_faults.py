"""Processes that are killed or do not run, and a simulated clock that jumps: the others go on, and all is counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers.fault_runs import RECOVERY, FaultRun, fault_run
from helpers.process_faults import PROCESS_FAULTS, SIMULATED_TIME_FAULTS, ProcessFault


def run_all(run: FaultRun, faults: Mapping[str, ProcessFault]) -> None:
    problems = []
    for name, fault in faults.items():
        run.wait_until_all_are_fused()
        recovery, found = fault.check(run)
        if recovery > RECOVERY:
            found.append(f"recovery took {recovery:.1f} s")
        found += run.account()
        print(f"{name}: recovery {recovery:.2f} s; {'; '.join(found) or 'as documented'}")
        problems += [f"{name}: {text}" for text in found]
    assert not problems, "\n".join(problems)


@pytest.mark.slow  # the quick siblings: test_delivery_faults, and those of single nodes in tests/nodes
def test_each_fault_of_a_process_has_the_documented_outcome(tmp_path: Path) -> None:
    with fault_run(tmp_path, "detector", "bridge") as run:
        run_all(run, PROCESS_FAULTS)


@pytest.mark.slow  # the quick siblings: clocks in tests/stream, and test_watchdog
def test_each_fault_of_simulated_time_has_the_documented_outcome(tmp_path: Path) -> None:
    with fault_run(tmp_path, "detector", simulated=True) as run:
        run_all(run, SIMULATED_TIME_FAULTS)
