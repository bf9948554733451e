"""The patrol of the demo, recorded for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.paths import ROOT
from sensebind.simulation import scenario
from sensebind.simulation.recorder import GroundTruthEvent, SimulatedScenario, record

PATROL_FILE = ROOT / "config" / "scenarios" / "patrol.yaml"
SECONDS_PER_ROOM = 9.0  # s
BOARD_ONSET = 3.2  # s: the first board appears


def patrol_scenario(seed: int = 0, duration: float | None = None) -> SimulatedScenario:
    """The scenario of the patrol, or its first `duration` s."""
    return scenario.read_scenario(PATROL_FILE, seed, duration=duration)


def record_patrol(path: Path, seed: int = 0, duration: float | None = None, **options: Any) -> list[GroundTruthEvent]:
    """Write the bag of the patrol and the truth beside it. `options`: arguments of `record`."""
    return record(patrol_scenario(seed, duration), path, **options)
