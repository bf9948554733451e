"""Recordings as robots send them: cut off, without an index, of ROS 1, with other data beside those of ROS, in parts.
What can be read is read, and what cannot is named with its count."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2 import Reader as RosbagsReader
from rosbags.typesys import Stores, get_typestore

from helpers.mcap_files import McapFileWriter
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
    RosbagsMessageFactory,
    Selection,
    typestore,
)
from sensebind.fusion.io.sensor_files import FileError, read_windows

STRING, IMAGE, IMU = "std_msgs/msg/String", "sensor_msgs/msg/Image", "sensor_msgs/msg/Imu"
START = 1_750_000_000 * SECOND
STEP = SECOND // 50
TYPES = RosbagsMessageFactory()
ROS1_TYPES = get_typestore(Stores.ROS1_NOETIC)


def text(number: int) -> str:
    """The text of message `number`: half of it cannot be compressed."""
    return f"{number} " + "-" * 60 + np.random.default_rng(number).bytes(60).hex()


def string_cdr(number: int) -> bytes:
    return bytes(typestore().serialize_cdr(TYPES.make(STRING, data=text(number)), STRING))


def definition(kind: str) -> tuple[str, str]:
    """Encoding and text of the schema of a ROS 2 type."""
    return "ros2msg", typestore().generate_msgdef(kind)[0]


def numbers(path: Path, topic: str = "/text", selection: Selection | None = None) -> list[int]:
    """The numbers of the strings that are read from a topic, in the order read."""
    with Recording(path, selection) as recording:
        return [int(message.data.split()[0]) for *_, message in recording.messages([topic])]


def losses_after_reading(path: Path) -> tuple[list[int], list[Any], list[str]]:
    """The numbers of all strings read, the losses and the notes."""
    with Recording(path, warn=False) as recording:
        found = [int(message.data.split()[0]) for *_, message in recording.messages()]
        return found, recording.losses, recording.notes


def mcap_file(path: Path, count: int, **options: Any) -> Path:
    """An MCAP file with `count` strings."""
    with McapFileWriter(path, **options) as file:
        file.channel(1, "/text", "std_msgs/msg/String", definition(STRING))
        for number in range(count):
            file.message(1, START + number * STEP, string_cdr(number))
    return path


def rosbag2(folder: Path, chosen: Sequence[int], storage: str = "mcap", mode: str = "", version: int = 9) -> Path:
    """A bag of rosbags with the strings of these numbers."""
    with_plugin = Writer(folder, version=version, storage_plugin=StoragePlugin[storage.upper()])
    if mode:
        with_plugin.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
    with with_plugin as writer:
        connection = writer.add_connection("/text", STRING, typestore=typestore())
        for number in chosen:
            writer.write(connection, START + number * STEP, string_cdr(number))
    return folder


def ros1_bag(path: Path, count: int, compression: str = "") -> Path:
    """A ROS 1 bag with `count` strings."""
    writer = Writer1(path)
    if compression:
        writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    with writer:
        connection = writer.add_connection("/text", STRING, typestore=ROS1_TYPES)
        for number in range(count):
            message = ROS1_TYPES.types[STRING](text(number))
            writer.write(connection, START + number * STEP, ROS1_TYPES.serialize_ros1(message, STRING))
    return path


def ros1_header() -> Any:
    """A header of ROS 1, with the stamp 7 s."""
    stamp = ROS1_TYPES.types["builtin_interfaces/msg/Time"](sec=7, nanosec=8)
    return ROS1_TYPES.types["std_msgs/msg/Header"](seq=3, stamp=stamp, frame_id="a")


def edit_metadata(folder: Path, **changes: Any) -> None:
    """Change values of metadata.yaml; `qos` and `count` are those of its first topic."""
    file = folder / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    information = content["rosbag2_bagfile_information"]
    first = information["topics_with_message_count"][0]
    if "qos" in changes:
        first["topic_metadata"]["offered_qos_profiles"] = changes.pop("qos")
    if "count" in changes:
        first["message_count"] = information["message_count"] = changes.pop("count")
    information |= changes
    file.write_text(yaml.safe_dump(content))


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


# Files without an end, and damaged files


def test_an_mcap_file_without_an_index_is_read_and_named(tmp_path: Path) -> None:
    found, losses, notes = losses_after_reading(mcap_file(tmp_path / "a.mcap", 50))
    assert found == list(range(50)) and not losses
    assert any("a.mcap' has no index" in note for note in notes)


@pytest.mark.parametrize("options", [{}, {"chunk_messages": 3000}, {"chunk_messages": 99, "compression": "lz4"}])
@pytest.mark.parametrize("fraction", [0.4, 0.75, 0.97])
def test_an_mcap_file_that_is_cut_off_is_read_up_to_there(
    tmp_path: Path, options: dict[str, Any], fraction: float
) -> None:
    file = mcap_file(tmp_path / "a.mcap", 2000, **options)
    size = int(fraction * file.stat().st_size)
    file.write_bytes(file.read_bytes()[:size])
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(len(found))) and len(found) > (fraction - 0.1) * 2000
    [loss] = losses
    assert loss.cause == DAMAGED and "a.mcap' is cut off" in loss.text and f"of {size}" in loss.text
    assert f"{len(found)} messages" in loss.text and f"{(len(found) - 1) / 50:.2f} s" in loss.text


@pytest.mark.parametrize("mode", ["", "storage"])
def test_a_folder_with_a_cut_file_names_how_many_messages_are_missing(tmp_path: Path, mode: str) -> None:
    folder = rosbag2(tmp_path / "bag", range(3000), "mcap", mode)
    [file] = folder.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: 2 * file.stat().st_size // 3])
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(len(found))) and len(found) > 1000
    missing = next(loss for loss in losses if loss.cause == MISSING)
    assert missing.topic == "/text" and missing.messages == 3000 - len(found)
    assert f"'/text': {len(found)} of the 3000 messages" in missing.text


def test_the_zeros_after_a_power_failure_are_named(tmp_path: Path) -> None:
    file = mcap_file(tmp_path / "a.mcap", 100, has_end=False)
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + bytes(5000))
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(100))
    assert len(losses) == 1 and f"is damaged: at byte {size}" in losses[0].text and "5000 bytes" in losses[0].text


@pytest.mark.parametrize("has_end", [True, False])
def test_a_chunk_with_a_wrong_checksum_is_skipped_and_named_with_its_place_and_count(
    tmp_path: Path, has_end: bool
) -> None:
    file = mcap_file(tmp_path / "a.mcap", 500, chunk_messages=50, has_end=has_end)
    content = bytearray(file.read_bytes())
    at = content.index(text(120).encode()[70:90])
    content[at : at + 20] = bytes(20)
    file.write_bytes(content)
    found, losses, _ = losses_after_reading(file)
    assert found == [number for number in range(500) if number // 50 != 2]
    assert losses[0].cause == DAMAGED and "damaged at byte" in losses[0].text and "checksum" in losses[0].text
    if has_end:
        assert losses[1].cause == MISSING and losses[1].messages == 50 and "2.00 s" in losses[0].text
        assert "450 of the 500 messages that the index counts" in losses[1].text


@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_a_compressed_chunk_is_read_up_to_its_damage(tmp_path: Path, kind: str) -> None:
    if kind == "mcap":
        file = mcap_file(tmp_path / "a.mcap", 3000, chunk_messages=3000, compression="lz4")
    else:
        file = ros1_bag(tmp_path / "a.bag", 3000, "lz4")
    content = bytearray(file.read_bytes())
    frame = content.index(b"\x04\x22\x4d\x18")
    block = frame + (15 if content[frame + 4] & 8 else 7)  # the first block of the chunk: its length, then its data
    for _ in range(3):
        block += 4 + int.from_bytes(content[block : block + 4], "little")
    content[block : block + 4] = b"\xff\xff\xff\x0f"
    file.write_bytes(content)
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(len(found))) and 200 < len(found) < 2900
    assert [loss.cause for loss in losses] == [DAMAGED, MISSING] and "damaged at byte" in losses[0].text
    assert f"{len(found)} of the 3000 messages that the index counts" in losses[1].text


@pytest.mark.parametrize("compression", ["", "lz4", "bz2"])
@pytest.mark.parametrize("name", ["a.bag", "a.bag.active"])
def test_a_ros_1_bag_that_is_cut_off_is_read_up_to_there(tmp_path: Path, compression: str, name: str) -> None:
    bag = ros1_bag(tmp_path / "whole.bag", 20_000, compression)
    assert numbers(bag) == list(range(20_000))
    file = tmp_path / name
    file.write_bytes(bag.read_bytes()[: 6 * bag.stat().st_size // 10])
    found, losses, _ = losses_after_reading(file)
    assert found == list(range(len(found))) and 8000 < len(found) < 14_000
    assert len(losses) == 1 and name in losses[0].text and f"{len(found)} messages" in losses[0].text


def test_a_ros_1_bag_whose_last_chunk_is_still_open_is_read(tmp_path: Path) -> None:
    content = bytearray(ros1_bag(tmp_path / "whole.bag", 500).read_bytes())
    chunk = content.index(b"op=\x05") - 8  # the recorder writes the sizes of a chunk when it ends the chunk
    head = chunk + 4 + int.from_bytes(content[chunk : chunk + 4], "little")
    size = content.index(b"size=", chunk, head) + 5
    content[size : size + 4] = content[head : head + 4] = bytes(4)
    (tmp_path / "a.bag.active").write_bytes(content[: head + 60_000])
    found, losses, _ = losses_after_reading(tmp_path / "a.bag.active")
    assert found == list(range(len(found))) and len(found) > 200
    assert len(losses) == 1 and f"{len(found)} messages" in losses[0].text


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_a_database_that_is_cut_off_is_read_up_to_there(tmp_path: Path, fraction: float) -> None:
    folder = rosbag2(tmp_path / "bag", range(3000), "sqlite3")
    [file] = folder.glob("*.db3")
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: int(fraction * size)])
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(len(found))) and 0.5 * fraction < len(found) / 3000 <= 1
    assert losses[0].cause == DAMAGED and f"{int(fraction * size)} of {size} bytes" in losses[0].text
    if len(found) < 3000:
        assert f"{len(found)} of the 3000 messages that metadata.yaml counts" in losses[1].text


def test_a_database_with_a_damaged_page_is_read_up_to_there(tmp_path: Path) -> None:
    folder = rosbag2(tmp_path / "bag", range(3000), "sqlite3")
    [file] = folder.glob("*.db3")
    content = bytearray(file.read_bytes())
    middle = len(content) // 8192 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    found, losses, _ = losses_after_reading(folder)
    assert 500 < len(found) < 3000 and found == list(range(len(found)))
    assert {loss.cause for loss in losses} == {DAMAGED, MISSING}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_compressed_file_that_is_cut_off_is_read_up_to_there(tmp_path: Path, storage: str) -> None:
    folder = rosbag2(tmp_path / "bag", range(20_000), storage, "file")
    [file] = folder.glob("*.zstd")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found, losses, _ = losses_after_reading(folder)
    assert 1000 < len(found) < 20_000 and found == list(range(len(found)))
    assert {loss.cause for loss in losses} == {DAMAGED, MISSING}


# SQLite beside its log


def killed_recorder(folder: Path) -> Path:
    """A database of which the second half of 1000 messages lies in the write-ahead log beside it."""
    whole = rosbag2(folder / "whole", range(1000), "sqlite3")
    [source] = whole.glob("*.db3")
    live = folder / "live.db3"
    shutil.copy(source, live)
    database = sqlite3.connect(live)
    database.execute("PRAGMA journal_mode = WAL")
    rows = database.execute("SELECT * FROM messages WHERE id > 500").fetchall()
    database.execute("DELETE FROM messages WHERE id > 500")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
    database.commit()
    (folder / "killed").mkdir()
    for end in ("", "-wal"):  # as they lie on the disk at this moment
        shutil.copy(f"{live}{end}", folder / "killed" / f"robot.db3{end}")
    database.close()
    return folder / "killed"


def test_messages_in_a_write_ahead_log_are_read(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    found, losses, notes = losses_after_reading(folder)
    assert found == list(range(1000)) and not losses
    assert any("robot.db3-wal" in note for note in notes)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before  # nothing is left beside them
    (folder / "robot.db3-wal").unlink()
    assert numbers(folder / "robot.db3") == list(range(500))


def test_a_write_ahead_log_is_read_where_no_file_can_be_written(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    (folder / "robot.db3-shm").mkdir()  # SQLite cannot write its file of this name
    assert numbers(folder) == list(range(1000))


def test_a_write_ahead_log_that_is_damaged_is_named(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    log = folder / "robot.db3-wal"
    log.write_bytes(bytes(64) + log.read_bytes()[64:])
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(500))
    assert [loss.cause for loss in losses] == [DAMAGED] and "'robot.db3-wal'" in losses[0].text


def test_a_write_ahead_log_without_its_database_is_named(tmp_path: Path) -> None:
    folder = killed_recorder(tmp_path)
    (folder / "robot.db3-wal").rename(folder / "other.db3-wal")
    found, losses, _ = losses_after_reading(folder)
    assert found == list(range(500))
    assert [loss.cause for loss in losses] == [FILES] and "'other.db3-wal'" in losses[0].text


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
