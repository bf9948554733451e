"""A scenario of any content is simulated or refused in one line that names the file and the entry."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from sensebind.cli import main
from sensebind.simulation.scenario import ScenarioError, parse_fault, read_scenario

WRONG = {  # YAML → what the error names
    "duration: .nan": "'duration'",
    "duration: 1e300": "'duration'",
    "duration: [no]": "'duration'",
    "ground: [carpet]": "ground",
    "ground: {a: b}": "ground",
    "places: abc": "'places'",
    "places: [x]": "'places'",
    "places: [.nan]": "'places'",
    "places: [[1]]": "'places'",
    "events: {type: person}": "'events'",
    "events: [person]": "events",
    "events: [{type: [person], at: 1}]": "type",
    "events: [{type: person, at: .nan}]": "'at'",
    "events: [{type: person, at: 1, modalities: 5}]": "'modalities'",
    "events: [{type: person, at: 1, modalities: [[vision]]}]": "modalities",
    "events: [{type: person, at: 1, for: -1}]": "'for'",
    "events: [{type: person, at: 1, warmth: .inf}]": "'warmth'",
    'events: [{type: person, at: 1, label: "a\\nb"}]': "'label'",
    "events: [{type: person, at: 1, sound: [1]}]": "sound",
    "events: [{type: picture, at: 1, photograph: /dev/zero}]": "photograph",
    "events: [{type: picture, at: 1, photograph: ../../../../etc/passwd}]": "photograph",
    "{duration: 36000, events: [{type: person, rate: 60}]}": "'rate'",
    "clips: {folder: [1]}": "clips",
    "clips: 5": "clips",
    "dark: [[a, b]]": "'dark'",
    "dark: [[.nan, 1]]": "'dark'",
    "dark: [1]": "dark",
    "path: [{at: x}]": "'at'",
    "noise: {vision: .inf}": "'vision'",
    "noise: [1]": "noise",
    "thermal_camera: {size: [1000000, 1000000]}": "'size'",
    "thermal_camera: {size: 5}": "'size'",
    "thermal_camera: {size: [.nan, 3]}": "'size'",
    "thermal_camera: {noise: .nan}": "'noise'",
    "thermal_camera: {blur: -5}": "'blur'",
    "thermal_camera: {palette: [iron]}": "palette",
    "thermal_camera: x": "thermal_camera",
    "faults: [{sensor: {}, fault: dark}]": "sensor",
    "faults: [{sensor: vision, fault: dark, for: .nan}]": "'for'",
    "[1]": "must be a mapping",
    "": "must be a mapping",
    "a: &a [*a]": "an alias that contains itself",
    "duration: " + "9" * 400: "64 bits",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:50])
def test_a_wrong_entry_of_a_scenario_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as refused:
        read_scenario(path)
    message = str(refused.value)
    assert str(path) in message and WRONG[text] in message and "\n" not in message and len(message) < 1000


@pytest.mark.parametrize("fault", ["vision:dark:nan", "vision:dark:inf", "vision:dark:1e400", "a" * 10_000, ":::"])
def test_a_wrong_fault_is_refused(fault: str) -> None:
    with pytest.raises(ScenarioError):
        parse_fault(fault, 10.0)


def test_a_duration_that_is_no_number_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for duration in ("nan", "inf", "-1", "0"):
        given = ["simulate", "--scenario", "house", "--duration", duration, "-o", str(tmp_path / "bag")]
        assert main(given) == 2 and "duration" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sound_file_of_hours_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    with soundfile.SoundFile(tmp_path / "dog" / "long.flac", "w", 8000, 1) as file:
        for _ in range(11):
            file.write(np.zeros(60 * 8000))
    path = tmp_path / "scenario.yaml"
    path.write_text("duration: 60\nclips: {folder: .}")
    with pytest.raises(ScenarioError, match=r"dog/long.flac' is longer than 10 minutes"):
        read_scenario(path)


def test_many_events_at_random_times_are_refused_before_their_times_are_searched(tmp_path: Path) -> None:
    """Each of 20 such lines took longer than the ones before it: minutes together."""
    path = tmp_path / "scenario.yaml"
    path.write_text("duration: 36000\nevents:\n" + "- {type: knock, rate: 0.5, for: 0.05}\n" * 40)
    began = time.process_time()
    with pytest.raises(ScenarioError, match="more than 5000 events"):
        read_scenario(path)
    assert time.process_time() - began < 20
    path.write_text("duration: 60\nevents:\n" + "- {type: knock, rate: 10, for: 1}\n" * 2)
    spans = sorted((event.onset, event.offset) for event in read_scenario(path).events)
    assert len(spans) > 5 and all(after[0] - before[1] > 1.0 for before, after in pairwise(spans))


def test_a_photograph_is_checked_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30,000 pixels a side, in a few hundred bytes."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = (30_000).to_bytes(2, "big") * 2
    (tmp_path / "huge.jpg").write_bytes(data)
    path = tmp_path / "scenario.yaml"
    path.write_text("events: [{type: picture, at: 1, photograph: huge.jpg}]")
    for name in ("imread", "imdecode"):
        monkeypatch.setattr(cv2, name, lambda *given: pytest.fail("it reached the decoder"))
    with pytest.raises(ScenarioError, match=r"photograph 'huge.jpg'.*30000 × 30000"):
        read_scenario(path)


def test_a_survey_has_a_largest_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "5001", "1" + "0" * 23):
        assert main(["simulate", "--survey", number, "-o", str(tmp_path / "bag")]) == 2
        assert "a survey has 1 to 5000 objects" in capsys.readouterr().err
