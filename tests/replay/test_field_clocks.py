"""Replays of recordings as robots make them: sensors whose clocks differ, stamps of 0, an IMU on two topics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers.field_recordings import (
    BAG,
    STAMPED_SOUND,
    START,
    Logged,
    camera_rows,
    imu_message,
    imu_rows,
    pieces,
    record,
    shaking,
    sound_message,
    tone,
)
from helpers.paths import ROOT
from helpers.toy_space import ToySpace
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SECOND, Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.io.messages import IMU_TYPE
from sensebind.fusion.io.recordings import BagWriter, Recording, Selection
from sensebind.fusion.io.sensor_messages.audio import AUDIO_INFO_TYPE
from sensebind.replay.session import Settings, open_with_sensors
from sensebind.report.replay_output import write_replay

RECORDINGS = ROOT.parent / "shared" / "recordings"


@cache
def starter() -> Space:
    return Settings.of({"modalities": ["imu"]}).space()


class Result:
    """A replay: its summary, and the times in its output bag."""

    def __init__(self, path: Path, out: Path, space: Space | None = None, **values: Any) -> None:
        given = {"modalities": ["vision", "imu"], **{name.replace("__", "."): v for name, v in values.items()}}
        with open_with_sensors(path, Settings.of(given, {"detectors": ["fault"]})) as (settings, replay):
            write_replay(replay, settings, space or ToySpace(), out, overwrite=True)
        self.summary: Mapping[str, Any] = json.loads((out / "summary.json").read_text())
        self.vectors: dict[tuple[str, int], npt.NDArray[np.float32]] = {}
        with Recording(out / "outputs") as bag:
            self.start, self.end = bag.start, bag.end
            for topic, _, stamp, message in bag.messages():
                if topic.startswith("/embeddings/"):
                    self.vectors[topic.removeprefix("/embeddings/"), stamp] = np.array(message.vector)

    def notes(self, word: str) -> list[str]:
        return [note for note in self.summary["notes"] if word in note]

    def fused(self) -> list[int]:
        return [stamp for topic, stamp in self.vectors if topic == "fused"]


def clocks(camera: float, imu: float, seconds: float = 6.0) -> list[Logged]:
    return camera_rows("/camera/image", seconds, offset=camera) + imu_rows("/imu", seconds, offset=imu)


@pytest.mark.parametrize(
    ("camera", "imu", "wrong", "offset"),
    [
        (0.0, 3600.0 - START / SECOND, "imu", START / SECOND - 3600.0),  # since the start of the device
        (37.0, 0.0, "vision", -37.0),  # TAI
        (3600.0 - START / SECOND, 0.0, "vision", START / SECOND - 3600.0),
        (0.0, 2.5, "imu", -2.5),
    ],
)
def test_one_wrong_clock_is_named_with_what_mends_it(
    tmp_path: Path, camera: float, imu: float, wrong: str, offset: float
) -> None:
    path = record(tmp_path / "bag", clocks(camera, imu))
    result, other = Result(path, tmp_path / "out"), "imu" if wrong == "vision" else "vision"
    (note,) = result.notes("its clock differs")
    assert note.startswith(f"{wrong}: ") and f"{wrong}.stamps: received" in note
    assert result.summary["modalities"][wrong]["behind_others_s"] == pytest.approx(offset, abs=0.02)
    assert result.summary["modalities"][other]["embedded"] >= 10 <= len(result.fused())
    assert result.start >= START and result.end - result.start < 7 * SECOND, "no output has the time of the wrong clock"
    assert all("unplugged" not in event["label"] for event in result.summary["events"])
    for name, value in (("time_offset", offset), ("stamps", "received")):
        mended = Result(path, tmp_path / name, **{f"{wrong}__{name}": value})
        assert not mended.notes("its clock differs")
        assert all(mended.summary["modalities"][name]["embedded"] >= 9 for name in ("vision", "imu"))


def test_all_stamps_of_another_year_are_times_from_the_first_stamp(tmp_path: Path) -> None:
    old = -220_000_000.0
    result = Result(record(tmp_path / "bag", clocks(old, old)), tmp_path / "out")
    assert not result.notes("clock")
    assert result.summary["start_ns"] == START + round(old * SECOND) and result.summary["duration_s"] < 7
    assert 0 <= result.start - result.summary["start_ns"] <= result.end - result.summary["start_ns"] < 7 * SECOND


def test_stamps_from_before_the_clock_was_set_are_counted_and_in_no_output(tmp_path: Path) -> None:
    first = [row for row in clocks(-1.69e9, -1.69e9, 10.0) if row[2] < START + 4 * SECOND]
    rest = [row for row in clocks(0.0, 0.0, 10.0) if row[2] >= START + 4 * SECOND]
    result = Result(record(tmp_path / "bag", first + rest), tmp_path / "out")
    assert sorted(note.rpartition("(")[2] for note in result.notes("before the robot's clock was set")) == [
        "40 times)",
        "400 times)",
    ]
    assert result.start >= START and result.summary["duration_s"] < 11


def test_a_camera_that_comes_late_is_used_and_its_windows_are_named(tmp_path: Path) -> None:
    path = record(tmp_path / "bag", camera_rows("/camera/image", late=1.5) + imu_rows("/imu"))
    result = Result(path, tmp_path / "out")
    (note,) = result.notes("were not fused")
    assert note.startswith("vision: ") and "1.50 s" in note and "fusion_timeout: 2.0" in note
    assert result.summary["modalities"]["vision"]["embedded"] >= 10
    assert not Result(path, tmp_path / "mended", fusion_timeout=2.0).notes("were not fused")


@pytest.mark.parametrize("period", [2.0, 5.0, 8.0])
def test_a_slow_camera_is_a_sensor_like_others(tmp_path: Path, period: float) -> None:
    path = record(tmp_path / "bag", camera_rows("/camera/image", 26.0, 1 / period) + imu_rows("/imu", 26.0, 50))
    result = Result(path, tmp_path / "out")
    images = int(26.0 / period)
    assert result.summary["modalities"]["vision"]["embedded"] == images
    assert not result.summary["losses"]["sensors"]["vision"]["windows_lost"], "all are fused with their ticks"
    assert {stamp for topic, stamp in result.vectors if topic == "vision"} <= set(result.fused())
    assert not result.notes("clock") and not result.summary["events"], "it is not unplugged"


def step_of_the_clock(
    offset: float, sensors: tuple[str, ...] = ("vision", "imu"), *, recorder: bool = True
) -> list[Logged]:
    """10 s of a robot whose clock is set by `offset` s after 5 s. `recorder`: its recorder uses this clock too."""
    rows, kinds = [], {"vision": (camera_rows, "/camera/image"), "imu": (imu_rows, "/imu")}
    for name, (make, topic) in kinds.items():
        own = offset if name in sensors else 0.0
        before, after = make(topic, 10.0), make(topic, 10.0, offset=own)
        rows += [(row, row[2]) for row in before if row[2] < START + 5 * SECOND]
        rows += [(row, row[2]) for row in after if row[2] >= START + 5 * SECOND]
    rows.sort(key=lambda item: item[1])  # the order in which they were recorded
    shift = round(offset * SECOND) if recorder else 0
    return [(t, k, log + (shift if log >= START + 5 * SECOND else 0), m) for (t, k, log, m), _ in rows]


def write_in_order(path: Path, rows: list[Logged]) -> Path:
    with BagWriter(path) as bag:
        for topic, kind, logged, message in rows:
            bag.write(topic, kind, logged, message)
    return path


@pytest.mark.parametrize("recorder", [True, False])
@pytest.mark.parametrize("offset", [-3.0, 3.0, -0.5])
def test_a_clock_that_is_set_while_recording_is_named_once(tmp_path: Path, offset: float, recorder: bool) -> None:
    path = write_in_order(tmp_path / "bag", step_of_the_clock(offset, recorder=recorder))
    result = Result(path, tmp_path / "out")
    (note,) = result.notes("clock")
    assert f"set {'back' if offset < 0 else 'forward'} by {abs(offset):.1f} s at 5.0 s" in note
    assert "imu, vision" in note and "Counted: imu" in note and "NTP" in note
    if offset != -0.5:
        assert not result.notes("share") and not result.notes("readings"), "nothing else is blamed"
    lost = result.summary["losses"]["sensors"]
    assert lost["vision"]["messages"] == 100 and lost["imu"]["messages"] == 1000
    assert result.summary["modalities"]["imu"]["embedded"] >= 14 and not result.summary["events"]


def test_stamps_of_one_sensor_that_jump_name_this_sensor(tmp_path: Path) -> None:
    path = write_in_order(tmp_path / "bag", step_of_the_clock(-3.0, ("imu",), recorder=False))
    (note,) = Result(path, tmp_path / "out").notes("stamps jump")
    assert note.startswith("imu: stamps jump back by 3.0 s at 5.0 s") and "imu.stamps: received" in note


def test_a_sensor_that_pauses_has_no_step_of_a_clock(tmp_path: Path) -> None:
    rows = camera_rows("/camera/image", 10.0) + imu_rows("/imu", 10.0)
    kept = [row for row in rows if row[0] == "/imu" or not 4 <= (row[2] - START) / SECOND < 7]
    result = Result(record(tmp_path / "bag", kept), tmp_path / "out")
    assert not result.notes("clock") and not result.notes("jump")


def test_sound_before_its_audio_info_is_used(tmp_path: Path) -> None:
    data = (tone(16_000, 6.0) * 32767).astype("<i2").tobytes()
    rows = [
        (
            "/mic/audio",
            STAMPED_SOUND,
            START + number * SECOND // 10,
            sound_message(START + number * SECOND // 10, piece),
        )
        for number, piece in enumerate(pieces(data, 60))
    ]
    info = BAG.make(
        AUDIO_INFO_TYPE, channels=1, sample_rate=16_000, sample_format="S16LE", bitrate=256_000, coding_format="wave"
    )
    path = record(tmp_path / "bag", [*rows, ("/mic/info", AUDIO_INFO_TYPE, START + 4 * SECOND, info)])
    result = Result(path, tmp_path / "out", modalities=["audio"])
    lost = result.summary["losses"]["sensors"]["audio"]
    assert lost["messages"] == result.summary["modalities"]["audio"]["samples"] == 60 and not lost["messages_lost"]
    with open_with_sensors(path, Settings.of({"modalities": ["audio"]}), selection=Selection(4.5)) as (_, replay):
        assert all(isinstance(sample, Sample) for sample in replay.samples()), "also if its AudioInfo came before"


def test_a_simulation_that_starts_at_zero_loses_nothing(tmp_path: Path) -> None:
    zero = -START / SECOND
    rows = [(topic, kind, logged - START, message) for topic, kind, logged, message in clocks(zero, zero)]
    result = Result(record(tmp_path / "bag", rows), tmp_path / "out")
    assert not result.notes("stamp") and result.summary["start_ns"] == 0
    assert all(
        set(own["samples_lost"]) <= {"superseded", "incomplete"} for own in result.summary["losses"]["sensors"].values()
    )


def test_readings_without_stamps_are_counted_with_the_parameter_that_uses_them(tmp_path: Path) -> None:
    rows = [(t, k, logged, imu_message(0, m, w)) for t, k, logged, m, w in _readings()]
    path = record(tmp_path / "bag", rows)
    lost = Result(path, tmp_path / "lost", modalities=["imu"])
    (note,) = lost.notes("no stamp")
    assert "400 of 400" in note and "imu.stamps: received" in note
    used = Result(path, tmp_path / "used", modalities=["imu"], imu__stamps="received")
    assert used.summary["modalities"]["imu"]["embedded"] >= 6
    assert used.notes("the times at which its messages were received")


def _readings() -> list[Any]:
    times = np.arange(0.0, 4.0, 0.01)
    return [
        ("/imu", IMU_TYPE, START + round(time * SECOND), row[:3], row[3:])
        for time, row in zip(times, shaking(times), strict=True)
    ]


def half(topic: str, rate: int, keep: str) -> list[Logged]:
    """The readings of the IMU of a camera that stands: gravity is along −y. `keep`: which half they have, or both."""
    kept = {"acceleration": [1, 1, 1, 0, 0, 0], "rotation": [0, 0, 0, 1, 1, 1], "both": [1] * 6}[keep]
    times, rows = np.arange(0.0, 6.0, 1 / rate), list[Logged]()
    noise = shaking(times, rate + len(keep), 0.0)
    for time, values in zip(times, noise[:, [0, 2, 1, 3, 4, 5]] * [1, -1, 1, 1, 1, 1] * kept, strict=True):
        stamp = START + round(time * SECOND)
        rows.append((topic, IMU_TYPE, stamp, imu_message(stamp, values[:3], values[3:])))
    return rows


def split(gyro_rate: int, acceleration_rate: int) -> list[Logged]:
    """An IMU on two topics, each with one half."""
    rotation = half("/camera/gyro/sample", gyro_rate, "rotation")
    return rotation + half("/camera/accel/sample", acceleration_rate, "acceleration")


def likeness(first: Result, second: Result) -> float:
    common = [key for key in first.vectors if key in second.vectors and key[0] == "imu"]
    assert len(common) >= 9
    return float(np.mean([first.vectors[key] @ second.vectors[key] for key in common]))


@pytest.mark.parametrize(("gyro", "acceleration"), [(200, 63), (200, 100), (400, 250), (100, 200)])
def test_an_imu_on_two_topics_has_the_vectors_of_one_topic(tmp_path: Path, gyro: int, acceleration: int) -> None:
    halves = record(tmp_path / "split", split(gyro, acceleration))
    whole = record(tmp_path / "whole", half("/camera/imu", gyro, "both"))
    first = Result(halves, tmp_path / "a", starter(), modalities=["imu"])
    second = Result(whole, tmp_path / "b", starter(), modalities=["imu"])
    assert likeness(first, second) >= 0.98
    assert first.summary["modalities"]["imu"]["samples"] == second.summary["modalities"]["imu"]["samples"]
    assert first.notes("united with /camera/accel/sample")


def test_a_topic_with_both_halves_is_preferred_to_those_with_one(tmp_path: Path) -> None:
    rows = split(200, 63) + imu_rows("/camera/imu", rate=200)
    result = Result(record(tmp_path / "bag", rows), tmp_path / "out", modalities=["imu"])
    assert result.summary["sensors"]["imu"]["topic"] == "/camera/imu"


def test_an_acceleration_topic_that_the_recording_lacks_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "bag", split(100, 100))
    with pytest.raises(ConfigError, match=r"imu\.acceleration_topic.*'/none'"):
        Result(path, tmp_path / "out", modalities=["imu"], imu__acceleration_topic="/none")


def test_bursts_with_one_stamp_have_the_vectors_of_right_stamps_and_are_named_once(tmp_path: Path) -> None:
    times = np.arange(0.0, 6.0, 1 / 200)
    rows: dict[int, list[Logged]] = {1: [], 10: []}
    for number, values in enumerate(shaking(times)):
        for count, own in rows.items():
            stamp = START + round(times[number // count * count] * SECOND)
            own.append(("/imu", IMU_TYPE, stamp + number % count, imu_message(stamp, values[:3], values[3:])))
    paths = [record(tmp_path / str(count), own) for count, own in rows.items()]
    right, burst = (Result(path, tmp_path / f"{path.name}_out", starter(), modalities=["imu"]) for path in paths)
    assert likeness(right, burst) >= 0.98
    (note,) = burst.notes("spread evenly")
    assert "1080 of 1200" in note and burst.summary["modalities"]["imu"]["spread"] == 1080


@pytest.mark.parametrize(("name", "messages"), [("auv", 161), ("rov_imu", 1041)])
def test_recordings_of_vehicles_whose_imus_set_no_stamp_can_be_used(tmp_path: Path, name: str, messages: int) -> None:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip("the shared recordings are not here")
    lost = Result(path, tmp_path / "lost", modalities=["imu"])
    assert f"{messages} of {messages}" in lost.notes("imu.stamps: received")[0]
    used = Result(path, tmp_path / "used", modalities=["imu"], imu__stamps="received").summary
    assert set(used["losses"]["sensors"]["imu"]["samples_lost"]) <= {"incomplete"}
    assert used["modalities"]["imu"]["samples"] == messages and used["modalities"]["imu"]["embedded"] >= 25
