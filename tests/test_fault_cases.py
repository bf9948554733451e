"""`sensebind evaluate faults`: simulated sensors that fail, through the line without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensebind.cli import main
from sensebind.evaluation.fault_cases import (
    MIDWAY,
    SCENE,
    Case,
    Result,
    Scene,
    cases,
    line,
    report,
    rows_of,
    run,
    scene,
    table,
    told_of,
)
from sensebind.evaluation.faults import FaultScore
from sensebind.replay.session import Settings
from sensebind.simulation.failures import SENSORS, Fault


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.read(device="cpu").with_detector({"fault.expected": ["configured"]})


@pytest.fixture(scope="module")
def at_hand() -> Scene:
    return Scene(scene(500, SCENE))


@pytest.mark.parametrize(
    ("sensor", "cause", "onset"),
    [
        ("vision", "frozen", MIDWAY), ("vision", "swapped", MIDWAY), ("depth", "unplugged", 0.0),
        ("thermal", "swapped", 0.0), ("audio", "saturated", MIDWAY), ("imu", "swapped", 0.0),
    ],
)  # fmt: skip
def test_a_sensor_that_fails_is_named_within_3_seconds_and_no_other(
    settings: Settings, at_hand: Scene, sensor: str, cause: str, onset: float
) -> None:
    (told,) = told_of(at_hand.samples(Fault(sensor, cause, onset, SCENE)), line(settings))
    assert (told.sensor, told.cause) == (sensor, cause) and onset - 1 <= told.told <= onset + 3


def test_a_scale_that_jumps_midway_is_named(settings: Settings, at_hand: Scene) -> None:
    (told,) = told_of(at_hand.samples(Fault("depth", "miscalibrated", MIDWAY, SCENE)), line(settings))
    assert (told.sensor, told.cause) == ("depth", "miscalibrated")


def test_where_nothing_fails_nothing_is_told(settings: Settings, at_hand: Scene) -> None:
    assert told_of(at_hand.samples(), line(settings)) == ()


def test_every_sensor_fails_in_every_way_that_can_be_told() -> None:
    found = cases(scene(0, SCENE), 0)
    ways = {(c.fault.sensor, c.fault.cause) for c in found}
    assert len(ways) == 29 and {s for s, _ in ways} == set(SENSORS)
    assert Case(0, Fault("depth", "miscalibrated", 0.0, SCENE)) not in found, "a scale that never was another"


def test_the_report_counts_what_was_named_missed_and_false() -> None:
    named = Result(Case(1, Fault("imu", "frozen", 0.0, SCENE)), FaultScore(1, 1, 1, 0, (1.5,)), ("imu:frozen at 1.5",))
    missed = Result(Case(2, Fault("depth", "dark", MIDWAY, SCENE)), FaultScore(1, 0, 0, 1), ("imu:muted at 3.0",))
    text, found = report([named, missed], ["scene 3: audio:muted at 5.0 s"], 1800.0)
    assert "named within 3 s: 1 of 2; with the cause: 1" in text and "| imu | frozen | 1 of 1 |" in text
    assert "1 were told" in text and "1 told in 0.50 h\n  scene 3: audio:muted at 5.0 s" in text
    assert (found["cases"], found["named"], found["explained"], found["well_hours"]) == (2, 1, 1, 0.5)
    assert found["missed"] == [
        {"seed": 2, "sensor": "depth", "fault": "dark", "onset": MIDWAY, "told": ["imu:muted at 3.0"]}
    ]


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "faults", "--seeds", "0", "--hours", "0", "--out", str(tmp_path)]) == 0
    assert "named within 3 s: 0 of 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "faults.json").read_text())["cases"] == 0
    assert table(rows_of([])).count("\n") == 1 and list(run([], Settings.read(device="cpu"))) == []
