"""The patrol of the demo, recorded for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensebind.simulation import scenario
from sensebind.simulation.recorder import GroundTruthEvent, SimulatedScenario, record

PATROL_FILE = Path(__file__).parents[1] / "config" / "scenarios" / "patrol.yaml"
SECONDS_PER_ROOM = 7.5  # s in each of its rooms


def patrol_scenario(seed: int = 0, duration: float | None = None) -> SimulatedScenario:
    """What happens on it, or on its first `duration` seconds."""
    return scenario.read_scenario(PATROL_FILE, seed, duration=duration)


def record_patrol(path: Path, seed: int = 0, duration: float | None = None, **options: Any) -> list[GroundTruthEvent]:
    """Write its bag and the truth beside it. `options`: of `record`."""
    return record(patrol_scenario(seed, duration), path, **options)
