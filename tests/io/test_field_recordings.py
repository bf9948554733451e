"""Recordings as robots send them: of ROS 1, with other data beside those of ROS, with wrong metadata, in parts.
What can be read is read, and what cannot is named with its count."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import Reader as RosbagsReader
from rosbags.rosbag2 import StoragePlugin, Writer

from helpers.mcap_files import McapFileWriter
from helpers.numbered_messages import (
    IMAGE,
    IMU,
    ROS1_TYPES,
    START,
    STEP,
    STRING,
    TYPES,
    definition,
    edit_metadata,
    losses_after_reading,
    mcap_file,
    numbers,
    ros1_bag,
    ros1_header,
    rosbag2,
    string_cdr,
)
from sensebind.fusion.core.samples import AUDIO, DEPTH, SECOND, VISION
from sensebind.fusion.core.space import TrainedWindow
from sensebind.fusion.io.recordings import (
    DAMAGED,
    FILES,
    MISSING,
    UNREADABLE,
    BagWriter,
    Recording,
    RecordingError,
    Selection,
    typestore,
)
from sensebind.fusion.io.sensor_files import FileError, read_windows

# Whole recordings of all kinds


@pytest.mark.parametrize(
    ("storage", "mode"),
    [("mcap", ""), ("mcap", "storage"), ("mcap", "message"), ("mcap", "file"), ("sqlite3", ""), ("sqlite3", "message"),
     ("sqlite3", "file")],
)  # fmt: skip
def test_the_messages_are_those_that_rosbags_reads(tmp_path: Path, storage: str, mode: str) -> None:
    folder = rosbag2(tmp_path / "bag", range(300), storage, mode)
    with RosbagsReader(folder) as reader:
        expected = [(connection.topic, stamp, bytes(data)) for connection, stamp, data in reader.messages()]
    with Recording(folder) as recording:
        assert [(topic, stamp, data) for topic, _, stamp, data in recording.cdr_messages()] == expected
        assert not recording.losses and not recording.notes
        assert recording.start == START and recording.end == START + 299 * STEP


def test_messages_are_in_order_of_log_time_if_chunks_and_channels_overlap(tmp_path: Path) -> None:
    with McapFileWriter(tmp_path / "a.mcap", chunk_messages=7, compression="lz4") as file:
        for channel in (1, 2):
            file.channel(channel, f"/text{channel}", STRING.replace("/msg", ""), definition(STRING))
        for number in np.random.default_rng(3).permutation(100):
            file.message(1 + int(number) % 2, START + int(number) * STEP, string_cdr(int(number)))
    with Recording(tmp_path / "a.mcap") as recording:
        read = [(stamp, int(message.data.split()[0])) for _, _, stamp, message in recording.messages()]
        assert [number for _, number in read] == list(range(100))
        assert [topic.type for topic in recording.topics] == [STRING, STRING]
    assert numbers(tmp_path / "a.mcap", "/text2") == list(range(1, 100, 2))


@pytest.mark.parametrize("compression", ["", "lz4"])
def test_chunks_without_an_index_of_their_messages_are_read(tmp_path: Path, compression: str) -> None:
    path = mcap_file(tmp_path / "a.mcap", 200, chunk_messages=8, compression=compression, message_index=False)
    assert losses_after_reading(path) == (list(range(200)), [], [])
    assert numbers(path, selection=Selection(start=1.0, duration=1.0)) == list(range(50, 100))


def test_a_recording_of_topics_without_messages_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/text", STRING, typestore=typestore())
    with pytest.raises(RecordingError, match="contains no messages"):
        Recording(tmp_path / "bag")


def test_messages_of_ros_1_in_mcap_are_read_and_converted(tmp_path: Path) -> None:
    types = ROS1_TYPES.types
    head = ros1_header()
    image = types[IMAGE](head, 1, 2, "mono8", 0, 2, np.array([5, 6], np.uint8))
    with McapFileWriter(tmp_path / "a.mcap", profile="ros1", chunk_messages=4) as file:
        schema = "ros1msg", ROS1_TYPES.generate_msgdef(IMAGE, ros_version=1)[0]
        file.channel(1, "/camera", "sensor_msgs/Image", schema, "ros1")
        for number in range(10):
            file.message(1, START + number, ROS1_TYPES.serialize_ros1(image, IMAGE))
    with Recording(tmp_path / "a.mcap") as recording:
        assert [(t.name, t.type, t.message_count) for t in recording.topics] == [("/camera", IMAGE, 10)]
        read = [message for *_, message in recording.messages()]
        raw = [typestore().deserialize_cdr(data, IMAGE) for *_, data in recording.cdr_messages()]
        assert not recording.losses
    for message in [*read, *raw]:
        assert message.header.stamp.sec == 7 and message.encoding == "mono8" and message.data.tolist() == [5, 6]
    assert len(read) == len(raw) == 10


def test_a_realsense_bag_has_the_topics_of_its_cameras_and_its_imu(tmp_path: Path) -> None:
    types = ROS1_TYPES.types
    head = ros1_header()
    image = types[IMAGE](head, 1, 2, "mono16", 0, 4, np.array([5, 0, 6, 0], np.uint8))
    zero, none = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=9.8), np.zeros(9)
    turn = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    imu = types[IMU](head, turn, none, zero, none, zero, none)
    device = "/device_0/sensor_"
    with Writer1(tmp_path / "a.bag") as writer:  # the log times of the RealSense SDK begin near 0
        kind, own_type = "realsense_msgs/msg/StreamInfo", "string encoding\nuint32 fps"
        own = writer.add_connection(f"{device}0/Depth_0/info", kind, msgdef=own_type, md5sum="0" * 32)
        writer.write(own, 1, b"\x06\0\0\0mono16\x1e\0\0\0")
        for topic, kind, message in (
            (f"{device}0/Depth_0/image/data", IMAGE, image),
            (f"{device}2/Accel_0/imu/data", IMU, imu),
        ):
            connection = writer.add_connection(topic, kind, typestore=ROS1_TYPES)
            for number in range(5):
                writer.write(connection, 1000 + number, ROS1_TYPES.serialize_ros1(message, kind))
    with Recording(tmp_path / "a.bag") as recording:
        read = list(recording.messages())
        assert {topic.name: topic.message_count for topic in recording.topics} == {
            f"{device}0/Depth_0/image/data": 5, f"{device}0/Depth_0/info": 1, f"{device}2/Accel_0/imu/data": 5,
        }  # fmt: skip
        assert len(read) == 11 and not recording.losses
    assert read[0][3].encoding == "mono16" and read[0][3].fps == 30


# Data that are not of ROS


@pytest.mark.parametrize("chunk_messages", [0, 10])
def test_channels_that_are_not_of_ros_are_named_and_the_others_are_read(tmp_path: Path, chunk_messages: int) -> None:
    with McapFileWriter(tmp_path / "a.mcap", chunk_messages=chunk_messages) as file:
        file.channel(1, "/text", "std_msgs/msg/String", definition(STRING))
        file.channel(2, "/notes", "Note", ("jsonschema", '{"type": "object"}'), "json")
        file.channel(3, "/position", "foxglove.LocationFix", ("protobuf", "\x0a\x00"), "protobuf")
        for number in range(40):
            file.message(1, START + number * STEP, string_cdr(number))
            file.message(2 + number % 2, START + number * STEP, b"{}")
    found, losses, notes = losses_after_reading(tmp_path / "a.mcap")
    assert found == list(range(40)) and not losses
    [note] = [note for note in notes if "not messages of ROS" in note]
    assert "/notes (20 messages of Note in json)" in note
    assert "/position (20 messages of foxglove.LocationFix in protobuf)" in note


def test_a_recording_without_messages_of_ros_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with McapFileWriter(tmp_path / "a.mcap", profile="", chunk_messages=3) as file:
        file.channel(1, "/camera", "foxglove.CompressedImage", ("protobuf", ""), "protobuf")
        for number in range(9):
            file.message(1, START + number, b"\x12\x00")
    with pytest.raises(RecordingError, match=r"/camera \(9 messages of foxglove.CompressedImage in protobuf\)"):
        Recording(tmp_path / "a.mcap")


@pytest.mark.parametrize("schema", [("", ""), ("omgidl", "module a { struct B { long x; }; };")])
def test_a_channel_without_a_usable_definition_does_not_affect_the_others(
    tmp_path: Path, schema: tuple[str, str]
) -> None:
    with McapFileWriter(tmp_path / "a.mcap", chunk_messages=5) as file:
        file.channel(1, "/text", "std_msgs/msg/String", ("", ""))  # known to Sensebind
        file.channel(2, "/odd", "odd_msgs/msg/Odd", schema)
        for number in range(20):
            file.message(1 + number % 2, START + number * STEP, string_cdr(number))
    found, losses, _ = losses_after_reading(tmp_path / "a.mcap")
    assert found == list(range(0, 20, 2))
    [loss] = losses
    assert (loss.cause, loss.topic, loss.messages) == (UNREADABLE, "/odd", 10) and "/odd" in loss.text


# metadata.yaml


QOS = {"history": "keep_last", "depth": 10, "reliability": "reliable", "durability": "volatile"}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(
    "qos",
    [[QOS], QOS, "", [], None, yaml.safe_dump([{**QOS, "history": 3, "durability": 2}]),
     [{**QOS, "history": "unknown"}], [{"reliability": "best_available"}], "not: [yaml", 7],
    ids=["short", "one", "empty text", "empty list", "none", "numbers", "unknown", "best available", "no yaml", "7"],
)  # fmt: skip
def test_the_qos_in_metadata_never_hides_messages(tmp_path: Path, storage: str, qos: Any) -> None:
    folder = rosbag2(tmp_path / "bag", range(100), storage)
    edit_metadata(folder, qos=qos, version=10)
    assert losses_after_reading(folder)[:2] == (list(range(100)), [])


@pytest.mark.parametrize("durability", ["transient_local", 1])
def test_a_topic_is_latched_by_its_qos_in_metadata(tmp_path: Path, durability: Any) -> None:
    folder = rosbag2(tmp_path / "bag", range(3))
    edit_metadata(folder, qos=[{**QOS, "durability": durability}])
    with Recording(folder) as recording:
        assert [topic.latched for topic in recording.topics] == [True]


def test_fewer_messages_than_metadata_counts_are_a_warning_with_both_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = rosbag2(tmp_path / "bag", range(400))
    edit_metadata(folder, count=500)
    with caplog.at_level(logging.WARNING, "sensebind"), Recording(folder) as recording:
        [loss] = recording.losses
    assert (loss.cause, loss.topic, loss.messages) == (MISSING, "/text", 100)
    assert [record.getMessage() for record in caplog.records] == [loss.text]
    assert "topic '/text': 400 of the 500 messages that metadata.yaml counts" in loss.text


@pytest.mark.parametrize("content", ["", "rosbag2_bagfile_information: {version: 9", "a: b", "\x00"])
def test_a_damaged_metadata_file_is_named_and_the_files_are_read(tmp_path: Path, content: str) -> None:
    folder = rosbag2(tmp_path / "bag", range(20))
    (folder / "metadata.yaml").write_text(content)
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(20)) and [loss.cause for loss in losses] == [FILES]
    assert "metadata.yaml' cannot be read" in losses[0].text


def test_parts_that_the_folder_lacks_are_one_loss_with_both_counts(tmp_path: Path) -> None:
    folder = rosbag2(tmp_path / "bag", range(20, 30))
    edit_metadata(folder, relative_file_paths=["bag_0.mcap", "bag.mcap"], count=30)
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(20, 30)) and [(loss.cause, loss.messages) for loss in losses] == [(FILES, 20)]
    assert "lacks bag_0.mcap: 1 of 2 parts are read, with 10 of the 30 messages" in losses[0].text
    (folder / "bag.mcap").unlink()
    with pytest.raises(RecordingError, match=r"lacks bag_0.mcap, bag.mcap, which metadata.yaml names"):
        Recording(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "is a Git LFS pointer.*`git lfs pull`",
        ),
    ],
)
def test_a_file_without_its_contents_is_named_as_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    for name in ("run.mcap", "run.db3", "run.bag", "photo.jpg", "sound.wav"):
        (tmp_path / name).write_bytes(content)
    for name in ("run.mcap", "run.db3", "run.bag"):
        with pytest.raises(RecordingError, match=f"'{name}' {words}"):
            Recording(tmp_path / name)
    for name, modality in (("photo.jpg", VISION), ("photo.jpg", DEPTH), ("sound.wav", AUDIO)):
        with pytest.raises(FileError, match=words):
            read_windows(modality, tmp_path / name, TrainedWindow(1.0))


def test_files_that_metadata_does_not_name_are_a_loss(tmp_path: Path) -> None:
    folder = rosbag2(tmp_path / "bag", range(20))
    mcap_file(folder / "bag_1.mcap", 5)
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(20)) and [loss.cause for loss in losses] == [FILES] and "bag_1.mcap" in losses[0].text


# Parts


def parts(folder: Path, names: Sequence[str], storage: str = "mcap") -> Path:
    """A folder with parts of 100 messages each. The ten messages around a border alternate between both parts."""
    folder.mkdir()
    chosen: list[list[int]] = [[] for _ in names]
    for number in range(100 * len(names)):
        shift = (number % 100 >= 95 and number % 2) - (number % 100 < 5 and not number % 2)
        chosen[min(max(number // 100 + shift, 0), len(names) - 1)].append(number)
    for order, name in enumerate(names):
        made = rosbag2(folder.parent / f"{folder.name}_{order}", chosen[order], storage)
        shutil.copy(next(f for f in made.iterdir() if f.suffix in (".mcap", ".db3")), folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [["run_0.mcap", "run_1.mcap", "run_2.mcap"], [f"part{n}.db3" for n in (8, 9, 10)],
     ["r_2026-05-01-10-00-00_0.mcap", "r_2026-05-01-10-05-00_1.mcap", "r_2026-05-01-10-10-00_2.mcap"]],
    ids=["rosbag2", "by hand", "with dates"],
)  # fmt: skip
def test_numbered_parts_without_metadata_are_one_recording_in_order_of_time(tmp_path: Path, names: list[str]) -> None:
    folder = parts(tmp_path / "run", names, "sqlite3" if names[0].endswith(".db3") else "mcap")
    found, losses, notes = losses_after_reading(folder)
    assert found == list(range(300)) and not losses
    assert any(all(name in note for name in names) for note in notes)


def test_a_gap_in_the_numbers_of_the_parts_is_a_loss(tmp_path: Path) -> None:
    folder = parts(tmp_path / "run", ["run_0.mcap", "run_1.mcap", "run_2.mcap"])
    (folder / "run_1.mcap").unlink()
    _, losses, _ = losses_after_reading(folder)
    assert [loss.cause for loss in losses] == [FILES] and "between 'run_0.mcap' and 'run_2.mcap'" in losses[0].text


def test_a_part_that_cannot_be_read_is_a_loss_and_the_others_are_read(tmp_path: Path) -> None:
    folder = parts(tmp_path / "run", ["run_0.mcap", "run_1.mcap"])
    (folder / "run_2.mcap").touch()
    found, losses, _ = losses_after_reading(folder)
    assert len(found) > 180 and [loss.cause for loss in losses] == [DAMAGED]
    assert "'run_2.mcap' is empty" in losses[0].text


def test_several_recordings_in_one_folder_are_an_error_that_names_them(tmp_path: Path) -> None:
    mcap_file(tmp_path / "morning.mcap", 3)
    mcap_file(tmp_path / "evening.mcap", 3)
    with pytest.raises(RecordingError, match=r"several bags: evening.mcap, morning.mcap; name one"):
        Recording(tmp_path)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_compressed_file_can_be_opened_alone_and_leaves_no_copy(
    tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    folder = rosbag2(tmp_path / "bag", range(50), storage, "file")
    [file] = folder.glob("*.zstd")
    assert numbers(Path(shutil.copy(file, tmp_path))) == list(range(50))
    assert not list((tmp_path / "temporary").iterdir())


def test_a_file_is_opened_by_its_contents(tmp_path: Path) -> None:
    assert numbers(mcap_file(tmp_path / "robot.log", 5)) == list(range(5))
    assert numbers(ros1_bag(tmp_path / "a.orig", 5)) == list(range(5))


# A part of a recording


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "bag", "unindexed"])
def test_a_selection_is_read_by_its_seconds(tmp_path: Path, kind: str) -> None:
    if kind == "bag":
        path = ros1_bag(tmp_path / "a.bag", 500)
    elif kind == "unindexed":
        path = mcap_file(tmp_path / "a.mcap", 500)
    else:
        path = rosbag2(tmp_path / "bag", range(500), kind)
    assert numbers(path, selection=Selection(start=2.0, duration=3.0)) == list(range(100, 250))
    assert numbers(path, selection=Selection(start=9.5)) == list(range(475, 500))
    assert numbers(path, selection=Selection(duration=0.1)) == list(range(5))
    with Recording(path, Selection(start=2.0, duration=3.0)) as recording:
        assert recording.start == START + 2 * SECOND and recording.end == START + 5 * SECOND
        list(recording.messages())
        assert not recording.losses and any("from 2 s to 5 s" in note for note in recording.notes)


def test_a_selection_of_topics_leaves_the_others_out(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for topic in ("/a", "/b"):
            bag.write(topic, STRING, START, TYPES.make(STRING, data="1"))
    with Recording(tmp_path / "bag", Selection(topics=("a",))) as recording:
        assert [topic.name for topic in recording.topics] == ["/a"]
        assert [topic for topic, *_ in recording.messages()] == ["/a"]


def test_a_selection_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    folder = rosbag2(tmp_path / "bag", range(50))
    with pytest.raises(RecordingError, match=r"has 1.0 s: nothing is left from 5 s on"):
        Recording(folder, Selection(start=5.0))
    with pytest.raises(RecordingError, match=r"no messages on /imu, but on /text"):
        Recording(folder, Selection(topics=("/imu",)))
