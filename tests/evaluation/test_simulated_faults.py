"""`sensebind evaluate faults`: simulated sensor faults, through the pipeline without a model."""

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
def test_a_faulty_sensor_is_reported_within_3_s_and_no_other_sensor_is(
    settings: Settings, scene: SimulatedScene, sensor: str, cause: str, onset: float
) -> None:
    (report,) = detect_faults(scene.samples(Fault(sensor, cause, onset, CASE_DURATION)), fault_pipeline(settings))
    assert (report.sensor, report.cause) == (sensor, cause) and onset - 1 <= report.reported_at <= onset + 3


def test_a_change_of_scale_midway_is_reported(settings: Settings, scene: SimulatedScene) -> None:
    (report,) = detect_faults(
        scene.samples(Fault("depth", "miscalibrated", MIDWAY_ONSET, CASE_DURATION)), fault_pipeline(settings)
    )
    assert (report.sensor, report.cause) == ("depth", "miscalibrated")


def test_healthy_sensors_cause_no_fault_report(settings: Settings, scene: SimulatedScene) -> None:
    assert detect_faults(scene.samples(), fault_pipeline(settings)) == ()


def test_the_cases_are_all_detectable_faults_of_all_sensors() -> None:
    found = cases(random_scene(0, CASE_DURATION), 0)
    kinds = {(c.fault.sensor, c.fault.canonical_kind) for c in found}
    assert len(kinds) == 29 and {s for s, _ in kinds} == set(SIMULATED_SENSORS)
    assert FaultCase(0, Fault("depth", "miscalibrated", 0.0, CASE_DURATION)) not in found, (
        "a scale that does not change"
    )


def test_the_summary_counts_detected_missed_and_false_reports() -> None:
    detected = FaultCaseResult(
        FaultCase(1, Fault("imu", "frozen", 0.0, CASE_DURATION)), FaultScore(1, 1, 1, 0, (1.5,)), ("imu:frozen at 1.5",)
    )
    missed = FaultCaseResult(
        FaultCase(2, Fault("depth", "dark", MIDWAY_ONSET, CASE_DURATION)), FaultScore(1, 0, 0, 1), ("imu:muted at 3.0",)
    )
    text, found = summarize([detected, missed], ["scene 3: audio:muted at 5.0 s"], 1800.0)
    assert "detected within 3 s: 1 of 2; with the correct cause: 1" in text and "| imu | frozen | 1 of 1 |" in text
    assert (
        "false alarms in these cases: 1" in text
        and "without a fault: 1 in 0.50 h\n  scene 3: audio:muted at 5.0 s" in text
    )
    assert (found["cases"], found["detected"], found["cause_correct"], found["hours_without_fault"]) == (2, 1, 1, 0.5)
    assert found["missed"] == [
        {"seed": 2, "sensor": "depth", "fault": "dark", "onset": MIDWAY_ONSET, "other_reports": ["imu:muted at 3.0"]}
    ]


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "faults", "--seeds", "0", "--hours", "0", "--out", str(tmp_path)]) == 0
    assert "detected within 3 s: 0 of 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "faults.json").read_text())["cases"] == 0
    assert table(recall_rows([])).count("\n") == 1 and list(run_cases([], Settings.read(device="cpu"))) == []
