"""The simulated patrol: the same recording for the same seed, and consistent data of all sensors."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.patrols import BOARD_ONSET, SECONDS_PER_ROOM, patrol_scenario, record_patrol
from sensebind.fusion.io.messages import stamp_to_ns
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.topic_selection import TopicSelection
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.messages import AUDIO_SAMPLE_RATE, SIMULATION_START
from sensebind.simulation.recorder import GroundTruthEvent, SimulatedScenario, record, simulate_imu, synthesize_audio
from sensebind.simulation.rooms import MAX_DEPTH, MIN_DEPTH

PITCH = 0.22  # rad: the cameras look down
SECONDS = 4.5  # of the patrol in the fixture `bag`
BIAS = np.array([0.02, 0.02, 0.02, 0.002, 0.002, 0.002])  # of the IMU


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seconds of the patrol: the robot drives forward, and the first board appears."""
    folder = tmp_path_factory.mktemp("simulation") / "patrol"
    record_patrol(folder, duration=SECONDS)
    return folder


def poses(plan: SimulatedScenario, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Poses (3, N): ahead and aside in m, yaw in rad."""
    return np.stack(plan.pose(times))


def read(folder: Path, topic: str) -> list[tuple[int, Any]]:
    """The messages of a topic: (log time, message)."""
    with Recording(folder) as recording:
        return [(stamp, message) for _, _, stamp, message in recording.messages([topic])]


def pixels(message: Any, dtype: type) -> np.ndarray[Any, Any]:
    """An image message's pixels."""
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, -1).squeeze()


def digest(folder: Path) -> str:
    """A hash of all messages and their log times."""
    result = hashlib.sha256()
    with Recording(folder) as recording:
        for topic, _, stamp, data in recording.cdr_messages():
            result.update(f"{topic} {stamp} ".encode() + data)
    return result.hexdigest()


def test_equal_seeds_give_equal_recordings(bag: Path, tmp_path: Path) -> None:
    record_patrol(tmp_path / "again", duration=SECONDS)
    record_patrol(tmp_path / "other", seed=1, duration=SECONDS)
    assert digest(tmp_path / "again") == digest(bag)
    assert digest(tmp_path / "other") != digest(bag)


def test_each_sensor_topic_is_selected_and_has_its_rate(bag: Path) -> None:
    with Recording(bag) as recording:
        found = {modality: sensor.topic for modality, sensor in TopicSelection(recording).single_topics().items()}
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
        assert abs(counts[topic] - SECONDS * rate) <= 1, topic


def test_frame_rate_sets_the_rate_of_the_cameras(tmp_path: Path) -> None:
    record_patrol(tmp_path / "bag", duration=1.0, frame_rate=30.0)
    stamps = np.array([stamp_to_ns(m.header.stamp) for _, m in read(tmp_path / "bag", "/depth/image")])
    assert len(stamps) == 30 and np.diff(stamps).mean() == pytest.approx(1e9 / 30, rel=1e-3)


def test_the_log_time_is_later_than_the_stamp_by_a_fixed_delay(bag: Path) -> None:
    for topic in ("/camera/image", "/depth/image", "/thermal/image", "/imu", "/audio"):
        stamps = np.array([(stamp_to_ns(message.header.stamp), logged) for logged, message in read(bag, topic)])
        assert (np.diff(stamps[:, 0]) > 0).all(), topic
        assert (stamps[:, 0] >= SIMULATION_START).all() and (stamps[:, 0] < SIMULATION_START + SECONDS * 10**9).all()
        delay = 102_000_000 if topic == "/audio" else 2_000_000  # a block of audio is sent after its last sample
        assert (stamps[:, 1] - stamps[:, 0] == delay).all(), topic


def test_acceleration_of_a_robot_at_rest_is_gravity() -> None:
    values = simulate_imu(patrol_scenario(), np.arange(2.2, 7.2, 0.005))
    np.testing.assert_allclose(values.mean(0), [0, 0, 9.81, 0, 0, 0], atol=0.15)  # it sways a little


def test_the_integral_of_the_yaw_rate_is_the_turn_of_the_robot() -> None:
    times = np.arange(0, SECONDS_PER_ROOM - 0.01, 0.005)  # into the room, to the board, back, and out
    for end in (1.0, SECONDS_PER_ROOM - 0.01):
        part = times < end
        turned = (simulate_imu(patrol_scenario(), times)[part, 5] - BIAS[5]).sum() * 0.005
        (_, _, (first, last)) = poses(patrol_scenario(), times[part][[0, -1]])
        assert turned == pytest.approx(last - first, abs=0.03)
    assert abs(poses(patrol_scenario(), np.array([0.0, 1.5]))[2] @ [-1, 1]) > 0.7  # the robot does turn


def test_the_double_integral_of_the_acceleration_is_the_distance() -> None:
    plan, times = patrol_scenario(), np.arange(1.0, 3.0, 0.005)
    x, _, _ = poses(plan, np.array([0.998, 1.0, 1.002, 3.0]))
    distance = np.cumsum(simulate_imu(plan, times)[:, 0] - BIAS[0]).sum() * 0.005**2
    assert distance + (x[2] - x[0]) / 0.004 * 2.0 == pytest.approx(x[3] - x[1], abs=0.05)
    assert x[3] - x[1] > 0.4


def test_depth_is_the_distance_to_the_board(bag: Path) -> None:
    plan, board = patrol_scenario(duration=SECONDS), 2.45
    for _, message in read(bag, "/depth/image"):
        t = (stamp_to_ns(message.header.stamp) - SIMULATION_START) / 1e9
        if t < BOARD_ONSET:  # before the board is there
            continue
        x, _, yaw = poses(plan, np.array([t]))[:, 0]
        depth = pixels(message, np.uint16)
        centre = depth[56:64, 76:84]
        along = (board - 0.01 - x) / np.cos(yaw) / np.cos(PITCH)  # along the axis of a camera that looks down
        assert np.median(centre[centre > 0]) / 1000 == pytest.approx(along, abs=0.05)
        assert depth.max() <= 1000 * MAX_DEPTH + 20
        assert 0 < np.mean(depth == 0) < 0.5


def test_depth_has_no_reading_beside_edges_or_below_the_minimum_range(tmp_path: Path) -> None:
    plan = replace(patrol_scenario(duration=1.0), occluded=((0.5, 1.0),))
    record(plan, tmp_path / "bag")
    depths = [pixels(message, np.uint16) for _, message in read(tmp_path / "bag", "/depth/image")]
    assert min(depth[depth > 0].min() for depth in depths) >= 1000 * MIN_DEPTH - 20
    assert all(np.mean(depth == 0) > 0.01 for depth in depths)


def test_the_photograph_is_in_the_centre_of_the_image(bag: Path) -> None:
    image = pixels(read(bag, "/camera/image")[-1][1], np.uint8)
    assert image.shape == (240, 320, 3)
    assert image[60:180, 80:240].std() > 40  # not a bare wall


def test_the_photograph_is_warmer_than_the_wall(bag: Path) -> None:
    kelvin = pixels(read(bag, "/thermal/image")[-1][1], np.uint16) / 100
    assert kelvin.shape == (120, 160)
    around = np.median(kelvin[:, [0, -1]])
    assert kelvin[50:70, 70:90].mean() == pytest.approx(around + 12, abs=3)  # `warmth` of the person in patrol.yaml


def test_camera_info_has_the_focal_length(bag: Path) -> None:
    info = read(bag, "/camera/camera_info")[0][1]
    assert (info.width, info.height) == (320, 240)
    assert 2 * np.degrees(np.arctan(160 / info.k[0])) == pytest.approx(66)


def test_the_audio_format_is_published_once_before_the_audio(bag: Path) -> None:
    [(logged, info)] = read(bag, "/info")
    blocks = read(bag, "/audio")
    assert logged < blocks[0][0]
    assert (info.sample_rate, info.channels, info.sample_format) == (AUDIO_SAMPLE_RATE, 1, "S16LE")
    assert {len(message.audio.data) for _, message in blocks} == {2 * AUDIO_SAMPLE_RATE // 10}


def test_the_motor_is_louder_while_the_robot_drives_and_the_sound_of_a_board_is_louder_than_the_motor() -> None:
    plan = patrol_scenario()
    wave = synthesize_audio(plan) / 32768

    def loudness(start: float, end: float) -> float:
        return float(np.sqrt(np.mean(wave[round(start * AUDIO_SAMPLE_RATE) : round(end * AUDIO_SAMPLE_RATE)] ** 2)))

    for board in plan.truth():
        staying = loudness(board.onset - 0.9, board.onset)
        assert loudness(board.onset - 2.1, board.onset - 1.4) > 1.5 * staying  # it drives
        sound = loudness(board.onset, board.offset)
        assert 20 * np.log10(sound) == pytest.approx(CATALOGUE["picture"].sound_level, abs=7) and sound > 5 * staying


def test_the_truth_is_returned_and_written_beside_the_bag(tmp_path: Path) -> None:
    truth = record_patrol(tmp_path / "bag", duration=4.0)
    assert truth == [GroundTruthEvent(BOARD_ONSET, 4.0, "person")]
    assert (tmp_path / "bag.truth.tsv").read_text() == "onset\toffset\tlabel\n3.200\t4.000\tperson\n"


def test_a_whole_patrol_has_four_events() -> None:
    truth = patrol_scenario().truth()
    assert [item.label for item in truth] == ["person", "cat", "coffee", "rocket"]
    assert all(a.offset < b.onset for a, b in pairwise(truth))


def test_a_board_appears_in_all_modalities_at_once(bag: Path) -> None:
    """Distance, temperature, image and sound change within one image: something begins in each at the true onset."""
    stamps = np.array([stamp_to_ns(m.header.stamp) for _, m in read(bag, "/depth/image")])
    first = int(np.searchsorted(stamps, SIMULATION_START + BOARD_ONSET * 1e9))
    for topic, dtype, least in (("/camera/image", np.uint8, 20.0), ("/depth/image", np.uint16, 500.0),
                                ("/thermal/image", np.uint16, 500.0)):  # fmt: skip
        images = [pixels(message, dtype).astype(float) for _, message in read(bag, topic)[first - 2 : first + 2]]
        steps = [float(np.median(np.abs(b - a))) for a, b in pairwise(images)]
        assert steps[1] > least and steps[1] > 5 * max(steps[0], steps[2]), topic
    wave = np.concatenate([np.frombuffer(bytes(m.audio.data), "<i2") for _, m in read(bag, "/audio")]).astype(float)
    onset = round(BOARD_ONSET * AUDIO_SAMPLE_RATE)
    assert wave[onset : onset + 4800].std() > 5 * wave[onset - 4800 : onset].std()


def test_the_floor_shakes_when_the_rocket_starts() -> None:
    plan = patrol_scenario()
    rocket = next(item for item in plan.truth() if item.label == "rocket")
    times = np.arange(rocket.onset - 1, rocket.onset + 0.3, 0.005)
    jerk = np.abs(np.diff(simulate_imu(plan, times)[:, :3], axis=0)).sum(axis=1)
    during = times[1:] >= rocket.onset
    assert np.percentile(jerk[during], 90) > 3 * np.percentile(jerk[~during], 90)
