"""`sensebind topics` and `sensebind replay` say which topic is which sensor, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.field_recordings import camera_rows, imu_rows
from helpers.field_recordings import record as record_messages
from helpers.recorded_topics import GREY_PIXELS, Images, jpeg, record
from helpers.sensor_messages import NUMBERS, numbers
from sensebind import cli
from sensebind.fusion.io.recordings import BagWriter
from sensebind.simulation.messages import SIMULATION_START

CAMERA = Images("/front/image_raw", "rgb8", frame_id="front_optical")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str]]:
    """Exit status and lines of a command."""
    status = cli.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out.splitlines()


def test_the_topics_of_one_robot_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = camera_rows("/robot1/camera/image", 2.0) + camera_rows("/robot2/camera/image", 2.0) + imu_rows("/imu", 2.0)
    path = record_messages(tmp_path / "bag", rows)
    status, lines = run(capsys, "topics", path, "--namespace", "/robot2")
    assert status == 0 and len(lines) == 3 and "/robot2/camera/image" in lines[0] and lines[-1] == "no other topics"


def test_each_topic_is_shown_with_what_it_is_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    infrared = Images("/ir/image_raw", "mono8", frame_id="ir_optical", rate=10, start=1.0)
    shallow = jpeg("/depth/image/compressed", "16UC1", GREY_PIXELS)
    status, lines = run(capsys, "topics", record(tmp_path / "bag", [CAMERA, infrared, shallow]))
    assert status == 0 and len(lines) == 7 and lines[-1] == "no other topics"
    shown = {
        line.split()[1]: (line.split()[0], line, lines[i + 1]) for i, line in enumerate(lines[:6:2]) for i in [2 * i]
    }
    name, figures, reason = shown["/front/image_raw"]
    assert name == "vision" and "the only sensor_msgs/msg/Image for vision: colour images (rgb8)" in reason
    assert "Image rgb8 64×48; 20 messages, 5.0 Hz, 0.0 to 3.8 s; frame_id 'front_optical'" in figures
    name, figures, reason = shown["/ir/image_raw"]
    assert name == "-" and "near-infrared" in reason and "/front/image_raw is better for vision" in reason
    assert "30 messages, 10.0 Hz, 1.0 to 3.9 s; frame_id 'ir_optical'" in figures
    name, figures, reason = shown["/depth/image/compressed"]
    assert name == "-" and "8 bits" in reason and "jpeg of 16UC1 64×48" in figures


def test_the_topic_of_the_other_half_of_an_imu_is_shown_as_united(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gyro, accel = (imu_rows(f"/camera/{half}/sample", 3.0) for half in ("gyro", "accel"))
    _, lines = run(capsys, "topics", record_messages(tmp_path / "bag", [*gyro, *accel]))
    name, reason = lines[lines.index(next(line for line in lines if "/camera/accel/sample " in line)) :][:2]
    assert name.startswith("-") and reason.strip() == (
        "one half of an IMU, which is united with the other half, /camera/gyro/sample"
    )


def test_what_a_camera_is_does_not_depend_on_empty_images_at_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = camera_rows("/camera/image_raw", 2.0)
    rows[0][3].encoding, rows[0][3].data = "", rows[0][3].data[:0]
    rows[0][3].width = rows[0][3].height = rows[0][3].step = 0
    _, lines = run(capsys, "topics", record_messages(tmp_path / "bag", rows))
    assert "colour images (rgb8)" in lines[1]


def test_a_recording_without_sensors_has_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/numbers", NUMBERS, SIMULATION_START, numbers())
    status, lines = run(capsys, "topics", tmp_path / "bag")
    assert status == 1 and lines == [f"1 topic of other types: {NUMBERS}"]


def test_frames_of_two_devices_on_one_topic_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = CAMERA.but(frame_id="rear_optical", start=0.1)
    _, lines = run(capsys, "topics", record(tmp_path / "bag", [CAMERA, other]))
    assert "frame_id 'front_optical', 'rear_optical'" in lines[0] and "give each a topic of its own" in lines[1]


def test_a_replay_prints_why_a_sensor_has_no_topic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shallow = jpeg("/depth/image/compressed", "16UC1", GREY_PIXELS)
    bag = record(tmp_path / "bag", [shallow])
    config = tmp_path / "p.yaml"
    config.write_text("/**:\n  ros__parameters: {modalities: [depth, imu]}\n")
    status, lines = run(capsys, "replay", bag, "--config", config, "--out", tmp_path / "out")
    assert status == 1 and lines[0].startswith(
        "depth    no topic (/depth/image/compressed: a depth image of only 8 bits"
    )
    assert lines[1] == "imu      no topic"


def test_a_replay_prints_how_to_use_one_sensor_alone_for_found_sensors_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = record(tmp_path / "bag", [CAMERA, Images("/rear/image_raw", "rgb8")])
    config = tmp_path / "p.yaml"
    config.write_text("/**:\n  ros__parameters: {modalities: [vision], device: cpu}\n")
    _, lines = run(capsys, "replay", bag, "--config", config, "--out", tmp_path / "found")
    assert "one of 2 sensors" in lines[0] and "set vision.topic to use one alone" in lines[0]
    config.write_text(
        "/**:\n  ros__parameters:\n    modalities: [vision]\n    device: cpu\n    vision: {sensors: [front, rear]}\n"
        "    front: {topic: /front/image_raw}\n    rear: {topic: /rear/image_raw}\n"
    )
    _, lines = run(capsys, "replay", bag, "--config", config, "--out", tmp_path / "named")
    assert lines[:2] == [
        "front    /front/image_raw (named by parameter)",
        "rear     /rear/image_raw (named by parameter)",
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("auv/cougars_SO_bag_0.mcap", {"imu": "/coug2/modem_imu"}),
        ("rov_imu", {"imu": "/logic_tube/imu"}),
        ("euroc_stereo_imu", {"vision": "/cam0/image_raw/compressed", "imu": "/imu0"}),
        (
            "gopro_drone",
            {"vision": "/camera/image_raw/compressed", "audio": "/audio/audio_stamped", "imu": "/imu/data_raw"},
        ),
    ],
)
def test_the_sensors_of_real_recordings_are_shown(
    shared: Path, capsys: pytest.CaptureFixture[str], path: str, expected: dict[str, str]
) -> None:
    file = shared / "recordings" / path
    if not file.exists():
        pytest.skip(f"'{path}' is not in the folder 'shared'")
    status, lines = run(capsys, "topics", file)
    assert status == 0 and {line.split()[0]: line.split()[1] for line in lines[: 2 * len(expected) : 2]} == expected
    if path == "rov_imu":
        assert "its first stamps are 0" in lines[1]
