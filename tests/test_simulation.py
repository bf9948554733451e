"""The simulated patrol is the same every time, and what its senses record fits together."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensebind.fusion.io.messages import nanoseconds
from sensebind.fusion.io.recordings import Recording, find_topics
from sensebind.simulation.messages import EPOCH, RATE
from sensebind.simulation.patrol import FAR, LEG, Patrol, Truth, motion, simulate, sound

SMALL: dict[str, Any] = {
    "duration": 3.0,
    "image_size": (96, 72),
    "depth_size": (64, 48),
    "thermal_size": (40, 30),
}


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, small."""
    folder = tmp_path_factory.mktemp("simulation") / "patrol"
    simulate(folder, **SMALL)
    return folder


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
        for topic, _, stamp, data in recording.raw():
            result.update(f"{topic} {stamp} ".encode() + data)
    return result.hexdigest()


def test_the_same_seed_gives_the_same_recording(bag: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", **SMALL)
    simulate(tmp_path / "other", seed=1, **SMALL)
    assert digest(tmp_path / "again") == digest(bag)
    assert digest(tmp_path / "other") != digest(bag)


def test_each_sense_is_found_and_comes_at_its_rate(bag: Path) -> None:
    with Recording(bag) as recording:
        found = {modality: each.topic for modality, each in find_topics(recording).items()}
        counts = {topic.name: topic.count for topic in recording.topics}
    assert found == {
        "vision": "/camera/image",
        "depth": "/depth/image",
        "thermal": "/thermal/image",
        "audio": "/audio",
        "imu": "/imu",
    }
    rates = {"/camera/image": 15, "/depth/image": 15, "/thermal/image": 9, "/audio": 10, "/imu": 200}
    for topic, rate in rates.items():
        assert abs(counts[topic] - 3 * rate) <= 1, topic


def test_stamps_are_of_the_measurement_and_logs_a_little_later(bag: Path) -> None:
    for topic in ("/camera/image", "/depth/image", "/thermal/image", "/imu", "/audio"):
        stamps = np.array([(nanoseconds(message.header.stamp), logged) for logged, message in read(bag, topic)])
        assert (np.diff(stamps[:, 0]) > 0).all(), topic
        assert (stamps[:, 0] >= EPOCH).all() and (stamps[:, 0] < EPOCH + 3 * 10**9).all()
        late = 102_000_000 if topic == "/audio" else 2_000_000  # a block of sound is sent when it is over
        assert (stamps[:, 1] - stamps[:, 0] == late).all(), topic


def test_acceleration_holds_gravity_while_the_robot_stays() -> None:
    times = np.arange(2.0, 4.0, 0.005)
    values = motion(Patrol(4 * LEG), times, np.random.default_rng(0))
    np.testing.assert_allclose(values.mean(0), [0, 0, 9.81, 0, 0, 0], atol=0.05)


def test_the_gyroscope_turns_by_a_quarter_between_two_walls() -> None:
    times = np.arange(0, LEG, 0.005)
    turned = motion(Patrol(4 * LEG), times, np.random.default_rng(0))[:, 5].sum() * 0.005
    assert turned == pytest.approx(np.pi / 2, abs=0.05)


def test_acceleration_adds_up_to_the_way_driven() -> None:
    times = np.arange(0, 2, 0.005)
    speed = np.cumsum(motion(Patrol(4 * LEG), times, np.random.default_rng(0))[:, 0] - 0.02) * 0.005
    x, *_ = Patrol(4 * LEG).pose(np.array([0.0, 2.0]))
    assert speed.sum() * 0.005 == pytest.approx(x[1] - x[0], abs=0.05)


def test_depth_is_the_way_to_the_wall(bag: Path) -> None:
    patrol = Patrol(3.0)
    for _, message in read(bag, "/depth/image"):
        x, _, _ = patrol.pose((nanoseconds(message.header.stamp) - EPOCH) / 1e9)
        depth = pixels(message, np.uint16)
        middle = depth[20:28, 28:36]
        assert np.median(middle[middle > 0]) / 1000 == pytest.approx(8.0 - float(x), abs=0.05)
        assert depth.max() <= 1000 * FAR + 1
        assert 0 < np.mean(depth == 0) < 0.05


def test_depth_is_invalid_beyond_reach(tmp_path: Path) -> None:
    simulate(tmp_path / "bag", **{**SMALL, "duration": LEG, "image_rate": 4.0})
    shares = [np.mean(pixels(message, np.uint16) == 0) for _, message in read(tmp_path / "bag", "/depth/image")]
    assert max(shares[-6:]) > 0.05  # corners, while it turns


def test_the_camera_faces_the_picture(bag: Path) -> None:
    image = pixels(read(bag, "/camera/image")[-1][1], np.uint8)
    assert image.shape == (72, 96, 3)
    assert image.std() > 40  # not a bare wall


def test_what_is_warm_is_where_the_picture_is(bag: Path) -> None:
    kelvin = pixels(read(bag, "/thermal/image")[-1][1], np.uint16) / 100
    assert 300 < kelvin[12:18, 16:24].mean() < 310
    assert 290 < kelvin[:, [0, -1]].mean() < 299


def test_the_camera_tells_its_focal_length(bag: Path) -> None:
    info = read(bag, "/camera/camera_info")[0][1]
    assert (info.width, info.height) == (96, 72)
    assert 2 * np.degrees(np.arctan(48 / info.k[0])) == pytest.approx(66)


def test_the_microphone_tells_its_format_first_and_once(bag: Path) -> None:
    [(logged, info)] = read(bag, "/info")
    blocks = read(bag, "/audio")
    assert logged < blocks[0][0]
    assert (info.sample_rate, info.channels, info.sample_format) == (RATE, 1, "S16LE")
    assert {len(message.audio.data) for _, message in blocks} == {2 * RATE // 10}


def test_the_motor_is_louder_while_driving_and_the_alarm_beeps_at_the_rocket() -> None:
    patrol = Patrol(4 * LEG)
    wave = sound(patrol, np.random.default_rng(0)) / 32768

    def loudness(start: float, end: float) -> float:
        return float(np.sqrt(np.mean(wave[round(start * RATE) : round(end * RATE)] ** 2)))

    cat, rocket = (next(t for t in patrol.truth() if t.label == label) for label in ("cat", "rocket"))
    staying, driving = loudness(cat.onset + 1.6, cat.onset + 3), loudness(cat.onset + 0.3, cat.onset + 1.0)
    assert driving > 1.5 * staying
    beep = wave[round((rocket.onset + 1.5) * RATE) :][: RATE // 4]
    pitch = np.abs(np.fft.rfft(beep)).argmax() * 4
    assert pitch == pytest.approx(1200, abs=8)


def test_the_truth_is_returned_and_written_beside_the_bag(tmp_path: Path) -> None:
    truth = simulate(tmp_path / "bag", **SMALL)
    assert truth == [Truth(0.2, 3.0, "person")]
    assert (tmp_path / "bag.truth.tsv").read_text() == "onset\toffset\tlabel\n0.200\t3.000\tperson\n"


def test_a_whole_patrol_passes_four_pictures() -> None:
    truth = Patrol(4 * LEG).truth()
    assert [item.label for item in truth] == ["person", "cat", "coffee", "rocket"]
    assert all(a.offset < b.onset for a, b in pairwise(truth))
