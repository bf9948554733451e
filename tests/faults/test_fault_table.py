"""docs/faults.md has the faults that are tested, with their documented outcomes."""

from __future__ import annotations

import pytest

from helpers.paths import ROOT
from helpers.process_faults import PROCESS_FAULTS, SIMULATED_TIME_FAULTS
from sensebind.simulation.delivery_faults import DELIVERY_FAULTS

TABLES = {"Delivery": DELIVERY_FAULTS, "Processes": PROCESS_FAULTS, "Simulated time": SIMULATED_TIME_FAULTS}


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_of_the_documentation_is_that_of_the_tests(heading: str) -> None:
    section = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{name}` | {fault.description} | {fault.outcome} |" for name, fault in TABLES[heading].items()]
