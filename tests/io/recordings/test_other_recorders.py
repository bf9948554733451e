"""Recordings of recorders and converters that keep to the formats less strictly than rosbag2: their messages are read,
or counted with the reason."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from helpers.mcap_files import McapFileWriter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import BagWriter, Recording, RecordingError, RosbagsMessageFactory, typestore
from sensebind.fusion.io.recordings.bag_file import zstd_decompressor

STRING = "std_msgs/msg/String"
DEFINITION = typestore().generate_msgdef(STRING)[0]
START = 1_750_000_000 * SECOND
COUNT = 12


def cdr(number: int) -> bytes:
    return bytes(typestore().serialize_cdr(RosbagsMessageFactory().make(STRING, data=str(number)), STRING))


def mcap(
    path: Path,
    schema: tuple[str, str] = ("ros2msg", DEFINITION),
    encoding: str = "cdr",
    change: Callable[[bytes], bytes] = lambda data: data,
    profile: str = "ros2",
) -> Path:
    """A file with `COUNT` strings."""
    with McapFileWriter(path / "strings.mcap", profile=profile) as file:
        file.channel(1, "/text", STRING, schema, encoding)
        for number in range(COUNT):
            file.message(1, START + number, change(cdr(number)))
    return path / "strings.mcap"


def read(path: Path) -> tuple[list[int], str]:
    """The numbers of the strings, and the losses in words."""
    with Recording(path, warn=False) as recording:
        found = [int(message.data) for *_, message in recording.messages(["/text"])]
        return found, "; ".join(loss.text for loss in recording.losses)


@pytest.mark.parametrize("padding", (b"\0", bytes(4), b"\xcd" * 17))
def test_bytes_after_the_end_of_a_message_are_ignored_as_ros_ignores_them(tmp_path: Path, padding: bytes) -> None:
    assert read(mcap(tmp_path, change=lambda data: data + padding)) == (list(range(COUNT)), "")


def test_messages_in_another_encapsulation_are_counted_with_its_name(tmp_path: Path) -> None:
    found, losses = read(mcap(tmp_path, change=lambda data: b"\0\7\0\0" + data[4:]))
    assert not found and f"{COUNT} messages cannot be read" in losses and "XCDR2" in losses


@pytest.mark.parametrize(
    "schema",
    (
        ("ros2msg", DEFINITION.replace("\n", "\r\n")),
        ("ros2msg", "module std_msgs { module msg { struct String { string data; }; }; };"),
        ("ros2msg", "other_msgs/Missing data\n"),
        ("jsonschema", "{}"),
    ),
)
def test_a_type_of_ros_is_read_though_its_definition_cannot_be_parsed(tmp_path: Path, schema: tuple[str, str]) -> None:
    assert read(mcap(tmp_path, schema)) == (list(range(COUNT)), "")


def test_an_encoding_in_capital_letters_or_only_in_the_schema_is_cdr(tmp_path: Path) -> None:
    assert read(mcap(tmp_path, encoding="CDR"))[0] == list(range(COUNT))
    assert read(mcap(tmp_path, encoding="", profile=""))[0] == list(range(COUNT))


def test_messages_of_topics_that_a_file_does_not_describe_are_counted(tmp_path: Path) -> None:
    with McapFileWriter(tmp_path / "a.mcap") as file:
        file.channel(1, "/text", STRING, ("ros2msg", DEFINITION))
        for number in range(COUNT):
            file.message(1 + number % 2, START + number, cdr(number))
    found, losses = read(tmp_path / "a.mcap")
    assert found == list(range(0, COUNT, 2)) and f"{COUNT // 2} messages of topics that it does not describe" in losses

    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as bag:
        connection = bag.add_connection("/text", STRING, typestore=typestore())
        for number in range(COUNT):
            bag.write(connection, START + number, cdr(number))
    (database,) = (tmp_path / "bag").glob("*.db3")
    with sqlite3.connect(database) as changed:
        changed.execute("UPDATE messages SET topic_id = 9 WHERE id > 4")
    found, losses = read(database)
    assert found == list(range(4)) and f"{COUNT - 4} messages of topics that it does not describe" in losses


def test_a_second_file_behind_the_end_of_the_first_is_named(tmp_path: Path) -> None:
    file = mcap(tmp_path)
    file.write_bytes(2 * file.read_bytes())
    found, losses = read(file)
    assert found == list(range(COUNT)) and "is followed by another MCAP file" in losses


def test_a_topic_with_messages_of_two_types_has_the_type_of_most(tmp_path: Path) -> None:
    with McapFileWriter(tmp_path / "a.mcap") as file:
        file.channel(1, "/text", STRING, ("ros2msg", DEFINITION))
        file.channel(2, "/text", "std_msgs/msg/Empty", ("ros2msg", ""))
        for number in range(COUNT):
            file.message(1 if number % 4 else 2, START + number, cdr(number) if number % 4 else b"\0\1\0\0\0")
    with Recording(tmp_path / "a.mcap") as recording:
        (topic,) = recording.topics
        assert (topic.type, topic.message_count) == (STRING, COUNT)
        assert [message.data for message in recording.first_messages("/text", 3)] == ["1", "2", "3"]


def test_messages_that_are_compressed_alone_are_read_without_metadata(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    packed = zstd.compress(cdr(1))
    assert zstd_decompressor()(packed, -1) == cdr(1)
    assert read(mcap(tmp_path, change=zstd.compress)) == (list(range(COUNT)), "")


def test_a_packed_file_is_named_with_the_program_that_unpacks_it(tmp_path: Path) -> None:
    for pack, program in ((gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")):
        packed = tmp_path / "strings.mcap.packed"
        packed.write_bytes(pack(mcap(tmp_path).read_bytes()))
        with pytest.raises(RecordingError, match=f"is packed: unpack it first, with `{program}") as caught:
            Recording(packed)
        assert "reindex" not in str(caught.value), "the file is not damaged"


def test_the_metadata_file_names_its_bag(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/text", STRING, START, RosbagsMessageFactory().make(STRING, data="7"))
    assert read(tmp_path / "bag" / "metadata.yaml") == ([7], "")
