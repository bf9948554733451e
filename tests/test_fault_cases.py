"""`sensebind evaluate faults`: simulated sensors that fail, through the line without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensebind.cli import main
from sensebind.evaluation.fault_metrics import FaultScore
from sensebind.evaluation.simulated_faults import (
    CASE_DURATION,
    MIDWAY_ONSET,
    FaultCase,
    FaultCaseResult,
    SimulatedScene,
    cases,
    detect_faults,
    fault_pipeline,
    random_scene,
    recall_rows,
    run_cases,
    summarize,
    table,
)
from sensebind.replay.session import Settings
from sensebind.simulation.sensor_faults import SIMULATED_SENSORS, Fault


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.read(device="cpu").with_detector({"fault.expected": ["configured"]})


@pytest.fixture(scope="module")
def scene() -> SimulatedScene:
    return SimulatedScene(random_scene(500, CASE_DURATION))


@pytest.mark.parametrize(
    ("sensor", "cause", "onset"),
    [
        ("vision", "frozen", MIDWAY_ONSET), ("vision", "swapped", MIDWAY_ONSET), ("depth", "unplugged", 0.0),
        ("thermal", "swapped", 0.0), ("audio", "saturated", MIDWAY_ONSET), ("imu", "swapped", 0.0),
    ],
)  # fmt: skip
def test_a_sensor_that_fails_is_named_within_3_seconds_and_no_other(
    settings: Settings, scene: SimulatedScene, sensor: str, cause: str, onset: float
) -> None:
    (told,) = detect_faults(scene.samples(Fault(sensor, cause, onset, CASE_DURATION)), fault_pipeline(settings))
    assert (told.sensor, told.cause) == (sensor, cause) and onset - 1 <= told.reported_at <= onset + 3


def test_a_scale_that_jumps_midway_is_named(settings: Settings, scene: SimulatedScene) -> None:
    (told,) = detect_faults(
        scene.samples(Fault("depth", "miscalibrated", MIDWAY_ONSET, CASE_DURATION)), fault_pipeline(settings)
    )
    assert (told.sensor, told.cause) == ("depth", "miscalibrated")


def test_healthy_sensors_cause_no_fault(settings: Settings, scene: SimulatedScene) -> None:
    assert detect_faults(scene.samples(), fault_pipeline(settings)) == ()


def test_every_sensor_fails_in_every_way_that_can_be_told() -> None:
    found = cases(random_scene(0, CASE_DURATION), 0)
    ways = {(c.fault.sensor, c.fault.canonical_kind) for c in found}
    assert len(ways) == 29 and {s for s, _ in ways} == set(SIMULATED_SENSORS)
    assert FaultCase(0, Fault("depth", "miscalibrated", 0.0, CASE_DURATION)) not in found, (
        "a scale that never was another"
    )


def test_the_report_counts_what_was_named_missed_and_false() -> None:
    named = FaultCaseResult(
        FaultCase(1, Fault("imu", "frozen", 0.0, CASE_DURATION)), FaultScore(1, 1, 1, 0, (1.5,)), ("imu:frozen at 1.5",)
    )
    missed = FaultCaseResult(
        FaultCase(2, Fault("depth", "dark", MIDWAY_ONSET, CASE_DURATION)), FaultScore(1, 0, 0, 1), ("imu:muted at 3.0",)
    )
    text, found = summarize([named, missed], ["scene 3: audio:muted at 5.0 s"], 1800.0)
    assert "named within 3 s: 1 of 2; with the cause: 1" in text and "| imu | frozen | 1 of 1 |" in text
    assert "1 were told" in text and "1 told in 0.50 h\n  scene 3: audio:muted at 5.0 s" in text
    assert (found["cases"], found["named"], found["explained"], found["well_hours"]) == (2, 1, 1, 0.5)
    assert found["missed"] == [
        {"seed": 2, "sensor": "depth", "fault": "dark", "onset": MIDWAY_ONSET, "told": ["imu:muted at 3.0"]}
    ]


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "faults", "--seeds", "0", "--hours", "0", "--out", str(tmp_path)]) == 0
    assert "named within 3 s: 0 of 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "faults.json").read_text())["cases"] == 0
    assert table(recall_rows([])).count("\n") == 1 and list(run_cases([], Settings.read(device="cpu"))) == []
