"""The simulated patrol is the same every time, and what its sensors record fits together."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patrols import SECONDS_PER_ROOM, patrol_scenario, record_patrol

from sensebind.fusion.io.messages import stamp_to_ns
from sensebind.fusion.io.recordings import Recording, select_sensor_topics
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.messages import AUDIO_SAMPLE_RATE, SIMULATION_START
from sensebind.simulation.recorder import GroundTruthEvent, SimulatedScenario, record, simulate_imu, synthesize_audio
from sensebind.simulation.rooms import MAX_DEPTH, MIN_DEPTH

PITCH = 0.22  # rad that the cameras look down
BIAS = np.array([0.02, 0.02, 0.02, 0.002, 0.002, 0.002])  # of the IMU


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first three seconds: it drives up to the first board."""
    folder = tmp_path_factory.mktemp("simulation") / "patrol"
    record_patrol(folder, duration=3.0)
    return folder


def poses(plan: SimulatedScenario, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(3, N): ahead and aside in m, yaw in rad."""
    return np.stack(plan.pose(times))


def read(folder: Path, topic: str) -> list[tuple[int, Any]]:
    """(log time, message) of a topic."""
    with Recording(folder) as recording:
        return [(stamp, message) for _, _, stamp, message in recording.messages([topic])]


def pixels(message: Any, dtype: type) -> np.ndarray[Any, Any]:
    """An image message's pixels."""
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, -1).squeeze()


def digest(folder: Path) -> str:
    """Of all messages and their times."""
    result = hashlib.sha256()
    with Recording(folder) as recording:
        for topic, _, stamp, data in recording.cdr_messages():
            result.update(f"{topic} {stamp} ".encode() + data)
    return result.hexdigest()


def test_the_same_seed_gives_the_same_recording(bag: Path, tmp_path: Path) -> None:
    record_patrol(tmp_path / "again", duration=3.0)
    record_patrol(tmp_path / "other", seed=1, duration=3.0)
    assert digest(tmp_path / "again") == digest(bag)
    assert digest(tmp_path / "other") != digest(bag)


def test_each_sensor_is_found_and_comes_at_its_rate(bag: Path) -> None:
    with Recording(bag) as recording:
        found = {modality: each.topic for modality, each in select_sensor_topics(recording).items()}
        counts = {topic.name: topic.message_count for topic in recording.topics}
    assert found == {
        "vision": "/camera/image",
        "depth": "/depth/image",
        "thermal": "/thermal/image",
        "audio": "/audio",
        "imu": "/imu",
    }
    rates = {"/camera/image": 10, "/depth/image": 10, "/thermal/image": 10, "/audio": 10, "/imu": 200}
    for topic, rate in rates.items():
        assert abs(counts[topic] - 3 * rate) <= 1, topic


def test_cameras_come_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    record_patrol(tmp_path / "bag", duration=1.0, frame_rate=30.0)
    stamps = np.array([stamp_to_ns(m.header.stamp) for _, m in read(tmp_path / "bag", "/depth/image")])
    assert len(stamps) == 30 and np.diff(stamps).mean() == pytest.approx(1e9 / 30, rel=1e-3)


def test_stamps_are_of_the_measurement_and_logs_a_little_later(bag: Path) -> None:
    for topic in ("/camera/image", "/depth/image", "/thermal/image", "/imu", "/audio"):
        stamps = np.array([(stamp_to_ns(message.header.stamp), logged) for logged, message in read(bag, topic)])
        assert (np.diff(stamps[:, 0]) > 0).all(), topic
        assert (stamps[:, 0] >= SIMULATION_START).all() and (stamps[:, 0] < SIMULATION_START + 3 * 10**9).all()
        late = 102_000_000 if topic == "/audio" else 2_000_000  # a block of sound is sent when it is over
        assert (stamps[:, 1] - stamps[:, 0] == late).all(), topic


def test_acceleration_holds_gravity_while_the_robot_stays() -> None:
    values = simulate_imu(patrol_scenario(), np.arange(2.0, 5.0, 0.005))
    np.testing.assert_allclose(values.mean(0), [0, 0, 9.81, 0, 0, 0], atol=0.15)  # it sways a little


def test_the_gyroscope_turns_by_as_much_as_the_robot() -> None:
    times = np.arange(0, SECONDS_PER_ROOM - 0.01, 0.005)  # in, up, back, and out of the room
    for end in (1.0, SECONDS_PER_ROOM - 0.01):
        shown = times < end
        turned = (simulate_imu(patrol_scenario(), times)[shown, 5] - BIAS[5]).sum() * 0.005
        (_, _, (first, last)) = poses(patrol_scenario(), times[shown][[0, -1]])
        assert turned == pytest.approx(last - first, abs=0.03)
    assert abs(poses(patrol_scenario(), np.array([0.0, 1.5]))[2] @ [-1, 1]) > 0.7  # it does turn


def test_acceleration_adds_up_to_the_way_driven() -> None:
    plan, times = patrol_scenario(), np.arange(1.0, 3.0, 0.005)
    x, _, _ = poses(plan, np.array([0.998, 1.0, 1.002, 3.0]))
    gained = np.cumsum(simulate_imu(plan, times)[:, 0] - BIAS[0]).sum() * 0.005**2
    assert gained + (x[2] - x[0]) / 0.004 * 2.0 == pytest.approx(x[3] - x[1], abs=0.05)
    assert x[3] - x[1] > 0.4


def test_depth_is_the_way_to_the_board(bag: Path) -> None:
    plan, board = patrol_scenario(duration=3.0), 2.45
    for _, message in read(bag, "/depth/image"):
        t = (stamp_to_ns(message.header.stamp) - SIMULATION_START) / 1e9
        if t < 0.2:  # nothing stands there yet
            continue
        x, _, yaw = poses(plan, np.array([t]))[:, 0]
        depth = pixels(message, np.uint16)
        middle = depth[56:64, 76:84]
        along = (board - 0.01 - x) / np.cos(yaw) / np.cos(PITCH)  # down the axis of a camera that looks down
        assert np.median(middle[middle > 0]) / 1000 == pytest.approx(along, abs=0.05)
        assert depth.max() <= 1000 * MAX_DEPTH + 20
        assert 0 < np.mean(depth == 0) < 0.5


def test_depth_has_no_reading_beside_edges_and_none_too_near(tmp_path: Path) -> None:
    plan = replace(patrol_scenario(duration=1.0), occluded=((0.5, 1.0),))
    record(plan, tmp_path / "bag")
    depths = [pixels(message, np.uint16) for _, message in read(tmp_path / "bag", "/depth/image")]
    assert min(depth[depth > 0].min() for depth in depths) >= 1000 * MIN_DEPTH - 20
    assert all(np.mean(depth == 0) > 0.01 for depth in depths)


def test_the_camera_faces_the_picture(bag: Path) -> None:
    image = pixels(read(bag, "/camera/image")[-1][1], np.uint8)
    assert image.shape == (240, 320, 3)
    assert image[60:180, 80:240].std() > 40  # not a bare wall


def test_what_is_warm_is_where_the_picture_is(bag: Path) -> None:
    kelvin = pixels(read(bag, "/thermal/image")[-1][1], np.uint16) / 100
    assert kelvin.shape == (120, 160)
    around = np.median(kelvin[:, [0, -1]])
    assert kelvin[50:70, 70:90].mean() == pytest.approx(around + 12, abs=3)  # a person's warmth


def test_the_camera_tells_its_focal_length(bag: Path) -> None:
    info = read(bag, "/camera/camera_info")[0][1]
    assert (info.width, info.height) == (320, 240)
    assert 2 * np.degrees(np.arctan(160 / info.k[0])) == pytest.approx(66)


def test_the_microphone_tells_its_format_first_and_once(bag: Path) -> None:
    [(logged, info)] = read(bag, "/info")
    blocks = read(bag, "/audio")
    assert logged < blocks[0][0]
    assert (info.sample_rate, info.channels, info.sample_format) == (AUDIO_SAMPLE_RATE, 1, "S16LE")
    assert {len(message.audio.data) for _, message in blocks} == {2 * AUDIO_SAMPLE_RATE // 10}


def test_the_motor_is_louder_while_driving_and_the_alarm_beeps_at_the_rocket() -> None:
    plan = patrol_scenario()
    wave = synthesize_audio(plan) / 32768

    def loudness(start: float, end: float) -> float:
        return float(np.sqrt(np.mean(wave[round(start * AUDIO_SAMPLE_RATE) : round(end * AUDIO_SAMPLE_RATE)] ** 2)))

    cat, rocket = (next(t for t in plan.truth() if t.label == label) for label in ("cat", "rocket"))
    staying, driving = loudness(cat.onset + 2.5, cat.onset + 4.5), loudness(cat.onset + 0.8, cat.onset + 1.5)
    assert driving > 1.5 * staying
    alarm = loudness(rocket.onset + 1.5, rocket.onset + 4.5)
    assert 20 * np.log10(alarm) == pytest.approx(CATALOGUE["alarm"].sound_level, abs=4) and alarm > 5 * staying


def test_the_truth_is_returned_and_written_beside_the_bag(tmp_path: Path) -> None:
    truth = record_patrol(tmp_path / "bag", duration=3.0)
    assert truth == [GroundTruthEvent(0.2, 3.0, "person")]
    assert (tmp_path / "bag.truth.tsv").read_text() == "onset\toffset\tlabel\n0.200\t3.000\tperson\n"


def test_a_whole_patrol_passes_four_pictures() -> None:
    truth = patrol_scenario().truth()
    assert [item.label for item in truth] == ["person", "cat", "coffee", "rocket"]
    assert all(a.offset < b.onset for a, b in pairwise(truth))
