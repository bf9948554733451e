"""The patrol of the demo, recorded for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sensebind.simulation import scenario
from sensebind.simulation.record import Plan, Truth, record

PATROL = Path(__file__).parents[1] / "config" / "scenarios" / "patrol.yaml"
LEG = 7.5  # s in each of its rooms


def patrol_plan(seed: int = 0, duration: float | None = None) -> Plan:
    """What happens on it, or on its first `duration` seconds."""
    return scenario.read(PATROL, seed, duration=duration)


def record_patrol(path: Path, seed: int = 0, duration: float | None = None, **options: Any) -> list[Truth]:
    """Write its bag and the truth beside it. `options`: of `record`."""
    return record(patrol_plan(seed, duration), path, **options)
