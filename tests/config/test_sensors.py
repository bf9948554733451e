"""The sensors that parameters name: their parameters, their defaults, and the names that they cannot have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.toy_space import ToySpace
from sensebind.fusion.config.build import make_window_specs
from sensebind.fusion.config.detectors import make_detectors
from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.config.parameters import detector_values, embedder_values, sensor_options, sensors_of
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SECOND, SENSOR_MODALITIES
from sensebind.fusion.core.space import TrainedWindow
from sensebind.replay.session import Settings

TWO_CAMERAS = {"modalities": ["vision", "imu"], "vision.sensors": ["front", "rear"]}


def test_without_named_sensors_each_modality_has_one_with_its_name() -> None:
    assert sensors_of({}) == {modality: modality for modality in SENSOR_MODALITIES}


def test_a_sensor_has_the_values_of_its_modality_unless_it_has_its_own() -> None:
    values = embedder_values({**TWO_CAMERAS, "vision.hop": 0.5, "vision.lateness": 0.1, "rear.lateness": 0.3})
    assert sensors_of(values) == {"front": "vision", "rear": "vision", "imu": "imu"}
    assert (values["front.lateness"], values["rear.lateness"]) == (0.1, 0.3)
    specs = make_window_specs(values, {"vision": TrainedWindow(0.5, 1), "imu": TrainedWindow(5.0)})
    assert {name: (spec.modality, spec.sensor, spec.lateness) for name, spec in specs.items()} == {
        "front": ("vision", "front", SECOND // 10),
        "rear": ("vision", "rear", 3 * SECOND // 10),
        "imu": ("imu", "imu", SECOND // 20),
    }


@pytest.mark.parametrize(
    ("modality", "given", "topic"),
    [
        ("vision", {}, "front/image"),
        ("vision", {"front.topic": "/cameras/a"}, "/cameras/a"),
        ("vision", {"vision.topic": "/not/for/named/sensors"}, "front/image"),
        ("audio", {}, "front/audio"),
        ("imu", {}, "front/imu"),
    ],
)
def test_the_topic_of_a_named_sensor(modality: str, given: dict[str, Any], topic: str) -> None:
    values = embedder_values({"modalities": [modality], f"{modality}.sensors": ["front"], **given})
    assert sensor_options(values, modality, "front").topic_name == topic


def test_a_robot_has_at_most_256_sensors_so_that_other_nodes_accept_the_description_of_its_space() -> None:
    names = {m: tuple(f"{m}{number}" for number in range(200)) for m in ("vision", "audio")}
    values = {"modalities": ("vision", "audio"), "vision.sensors": names["vision"], "audio.sensors": names["audio"]}
    with pytest.raises(ConfigError, match=r"'audio.sensors': .* 400 sensors, and at most 256"):
        sensors_of(values)
    with pytest.raises(ConfigError, match=r"'vision.sensors' names 257 sensors: a robot has at most 256"):
        sensors_of({"modalities": ("vision",), "vision.sensors": tuple(f"v{number}" for number in range(257))})
    assert len(sensors_of(values | {"audio.sensors": names["audio"][:56]})) == 256


def test_a_parameter_file_names_sensors_as_the_nodes_read_it(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(
        "embedder:\n  ros__parameters:\n    modalities: [vision]\n    vision: {sensors: [front, rear], hop: 0.4}\n"
        "    rear: {topic: /back/image_raw, transport: compressed}\n"
    )
    values = embedder_values(read_parameter_file(file, "embedder"))
    assert (values["front.hop"], values["rear.topic"], values["rear.transport"]) == (
        0.4,
        "/back/image_raw",
        "compressed",
    )
    assert values["front.transport"] == "raw"


@pytest.mark.parametrize(
    "name",
    [
        "configured",
        "embeddings",
        "fused",
        "text",
        "vision",
        "imu",
        "prompts",
        "fault",
        "Front",
        "2nd",
        "a/b",
        "",
        "a" * 65,
    ],
)
def test_names_that_have_another_meaning_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"vision\.sensors"):
        embedder_values({"modalities": ["vision"], "vision.sensors": [name]})


@pytest.mark.parametrize(
    "given",
    [
        {"modalities": ["vision"], "vision.sensors": ["front", "front"]},
        {"modalities": ["vision", "imu"], "vision.sensors": ["front"], "imu.sensors": ["front"]},
        {"modalities": ["vision", "smell"], "smell.fields": ["data"], "vision.sensors": ["smell"]},
    ],
)
def test_one_name_is_for_one_sensor(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sensors"):
        embedder_values(given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"front.hopp": 0.5}, r"'front\.hopp'; did you mean 'front\.hop'"),
        ({"front.hop": -1.0}, r"'front\.hop' must be"),
    ],
)
def test_a_wrong_parameter_of_a_sensor_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        embedder_values({**TWO_CAMERAS, **wrong})


def test_the_weight_of_a_modality_is_not_a_parameter_of_its_sensors() -> None:
    with pytest.raises(ConfigError, match=r"front\.fusion_weight"):
        embedder_values({**TWO_CAMERAS, "front.fusion_weight": 2.0})


def test_the_channel_may_be_a_number_as_yaml_reads_it() -> None:
    values = embedder_values({"modalities": ["audio"], "audio.channel": 2})
    assert sensor_options(values, "audio").audio_format.channel == "2"
    with pytest.raises(ConfigError, match="channel must be a number from 0"):
        sensor_options({**values, "audio.channel": -1}, "audio")


def test_a_modality_that_is_not_used_changes_no_sensor_of_the_same_name() -> None:
    unused = {"depth.sensors": ["front"], "depth.hop": 1.0, "audio.sensors": ["rear"], "audio.hop": 2.0}
    values = embedder_values({**TWO_CAMERAS, "vision.hop": 0.25, **unused})
    assert (values["front.hop"], values["rear.hop"]) == (0.25, 0.25)


def pipeline_warnings(given: dict[str, Any], caplog: pytest.LogCaptureFixture) -> str:
    """What a replay with these values logs when it makes its pipeline."""
    caplog.clear()
    Settings.of(given).pipeline(ToySpace())
    return caplog.text


def test_a_topic_of_the_modality_beside_named_sensors_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    text = pipeline_warnings({**TWO_CAMERAS, "vision.topic": "/cam/image"}, caplog)
    assert "'vision.topic' (/cam/image) has no effect beside 'vision.sensors' (front, rear)" in text
    assert "'front.topic'" in text
    assert not pipeline_warnings({**TWO_CAMERAS, "front.topic": "/cam/image", "vision.hop": 0.5}, caplog)
    assert not pipeline_warnings({"modalities": ["vision"], "vision.topic": "/cam/image"}, caplog)


def test_two_sensors_with_the_same_data_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    same = {"front.topic": "/cam/image", "rear.topic": "/cam/image/"}
    text = pipeline_warnings({**TWO_CAMERAS, **same}, caplog)
    assert "front and rear for vision have the same topic ('cam/image')" in text and "'rear.topic'" in text
    assert not pipeline_warnings({**TWO_CAMERAS, **same, "rear.transport": "compressed"}, caplog)
    microphones = {"modalities": ["audio"], "audio.sensors": ["one", "two"], "one.topic": "array", "two.topic": "array"}
    assert "'two.channel'" in pipeline_warnings(microphones, caplog)
    assert not pipeline_warnings({**microphones, "one.channel": 0, "two.channel": 1}, caplog)


def test_a_user_defined_modality_may_have_the_fields_of_each_sensor_instead_of_its_own() -> None:
    noses = {"modalities": ["gas"], "gas.sensors": ["left", "right"], "gas.window": 1.0, "left.fields": ["data[0]"]}
    values = embedder_values({**noses, "right.fields": ["data[1]"]})
    assert sensor_options(values, "gas", "right").fields == ("data[1]",)
    with pytest.raises(ConfigError, match=r"'gas\.fields'.*'<sensor>\.fields' of each sensor in 'gas\.sensors'"):
        embedder_values(noses)


def test_sensors_without_a_value_are_not_set() -> None:
    assert sensors_of(embedder_values({"modalities": ["vision"], "vision.sensors": None})) == {"vision": "vision"}


def test_a_name_in_fault_expected_that_no_sensor_has_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    values = detector_values({"detectors": ["fault"], "fault.expected": ["front", "reer", "imu", "configured"]})
    make_detectors(values, lambda phrases: [], sensors_of(TWO_CAMERAS))
    (text,) = [record.getMessage() for record in caplog.records]
    assert "'fault.expected' names 'reer'" in text and "front, rear, imu" in text and "did you mean 'rear'?" in text
