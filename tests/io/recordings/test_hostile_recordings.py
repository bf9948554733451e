"""A recording whose index, definitions, tables or fields lie costs bounded work and memory, and no traceback.

The inputs are made by hand: random changes of a valid file seldom lead here.
"""

from __future__ import annotations

import logging
import resource
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rosbags.interfaces import MessageDefinitionFormat

from helpers.mcap_files import McapFileWriter
from sensebind import cli
from sensebind.fusion.io.recordings import Recording, bag_file, definitions, recording, sqlite_file
from sensebind.fusion.io.recordings.bag_file import Block, RecordingError, merge_blocks
from sensebind.fusion.io.recordings.definitions import parse_definition
from sensebind.fusion.io.topic_selection.selection import TopicSelection
from sensebind.replay.session import Settings, open_with_sensors

STRING = ("std_msgs/msg/String", ("ros2msg", "string data\n"))
TEXT = b"\0\1\0\0\2\0\0\0a\0"  # a String in CDR
START = 10**18


def texts_of(path: Path) -> tuple[int, str]:
    """How many messages of a recording can be read, and what is known to be lost."""
    with Recording(path) as opened:
        return sum(1 for _ in opened.messages()), "; ".join(loss.text for loss in opened.losses)


def indexed_file(path: Path, chunks: int = 3) -> bytes:
    """The bytes of an MCAP file with an index, of one message in each chunk."""
    with McapFileWriter(path, chunk_messages=1) as writer:
        writer.channel(1, "/text", *STRING)
        for number in range(chunks):
            writer.message(1, START + number, TEXT)
    return path.read_bytes()


def test_an_index_that_names_a_chunk_many_times_does_not_multiply_its_messages(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with McapFileWriter(path, chunk_messages=1, index_copies=50) as writer:
        writer.channel(1, "/text", *STRING)
        writer.message(1, START, TEXT)
    assert texts_of(path)[0] == 1


def test_messages_at_the_same_time_in_many_blocks_are_held_up_to_a_limit(monkeypatch) -> None:
    monkeypatch.setattr(bag_file, "MAX_HELD_BYTES", 10_000)
    blocks = [Block(0, 100, number, 1, {}) for number in range(50)]
    held, overflows = [0], []

    def load(block: Block) -> list[Any]:
        held[0] += 1
        return [(block.offset, None, bytes(1000))]

    def most_held() -> Iterator[int]:
        for _ in merge_blocks(blocks, load, on_overflow=lambda: overflows.append(1)):
            held[0] -= 1
            yield held[0]

    assert max(most_held()) < 10 and overflows


def test_a_chunk_has_no_more_messages_than_its_bytes_can_mean(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bag_file, "MIN_MOST_MESSAGES", 100)
    for has_end in (True, False):  # with the index, and by reading all
        path = tmp_path / "a.mcap"
        with McapFileWriter(path, chunk_messages=60_000, compression="lz4", has_end=has_end) as writer:
            writer.channel(1, "/text", *STRING)
            for _ in range(60_000):
                writer.message(1, START, TEXT)
        count, losses = texts_of(path)
        assert 0 < count < 60_000 and "more than" in losses


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (MessageDefinitionFormat.MSG, "string[3000000] x"),
        (MessageDefinitionFormat.MSG, "B[3000000] x\n" + "=" * 80 + "\nMSG: a/B\nuint8 x"),
        (MessageDefinitionFormat.MSG, "uint8[0] x"),
        (MessageDefinitionFormat.MSG, "uint8[-5] x\nuint8[5] y"),
        (MessageDefinitionFormat.MSG, "uint8 x\n" * (definitions.MAX_LENGTHS[MessageDefinitionFormat.MSG] // 8 + 1)),
        (MessageDefinitionFormat.MSG, "\n".join(f"uint8 x{number}" for number in range(definitions.MAX_FIELDS + 1))),
        (MessageDefinitionFormat.IDL, "module a { const long A = ((((1)))); struct B { uint8 x; }; };"),
        (MessageDefinitionFormat.IDL, "module a { const long A = 1 << 9000000000; struct B { uint8 x; }; };"),
        (MessageDefinitionFormat.IDL, "module a { const long A = 9; const long B = A * A; struct C { uint8 x; }; };"),
    ],
)
def test_a_definition_that_costs_more_than_those_of_ros_is_refused(kind: MessageDefinitionFormat, text: str) -> None:
    with pytest.raises(ValueError, match=r"^it has"):
        parse_definition(kind, text, "a/msg/A")


def test_a_definition_as_ros_writes_it_is_parsed() -> None:
    idl = """module a { module msg {
    typedef double double__9[9];
    @verbatim (language="comment", text="a (3 << 2) * \\"b\\"" "\\n")
    struct B { /* (x) * */ @unit (value="m") double__9 x; @default (value=1) sequence<uint8, 3> y; // (1 * 2)
    }; }; };"""
    assert parse_definition(MessageDefinitionFormat.IDL, idl, "a/msg/B")["a/msg/B"][1]
    assert parse_definition(MessageDefinitionFormat.MSG, "string[10] x\nfloat64[36] y", "a/msg/B")["a/msg/B"][1]


@pytest.mark.parametrize(
    "text", ["uint8 x", "uint8 header\nuint8 data\nuint8 encoding", "uint8[] header\nstring data\nfloat64 height"]
)
@pytest.mark.parametrize("kind", ["sensor_msgs/msg/Image", "sensor_msgs/msg/Imu", "audio_common_msgs/msg/AudioData"])
def test_a_known_type_with_other_fields_is_no_traceback(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / "a.mcap"
    with McapFileWriter(path) as writer:
        writer.channel(1, "/camera/image_raw", kind, ("ros2msg", text))
        for number in range(10):
            writer.message(1, START + number, b"\0\1\0\0\1\0\0\0" + bytes(40))
    with Recording(path) as opened:
        TopicSelection(opened).single_topics()
    with open_with_sensors(path, Settings.read()) as (_, replay):
        samples = list(replay.reader.samples())
        lost = sum(loss.messages or 0 for loss in replay.recording.losses)
        is_refused = any("fields" in text for text in replay.reader.missing_reasons.values())
    assert lost == 10 or len(samples) == 10 or is_refused  # all lost, failures, or the topic is not read


def database(path: Path, *rows: tuple[Any, ...], topic: tuple[Any, ...] = ("/text", STRING[0], "cdr")) -> None:
    """A recording of rosbag2 with these messages (topic, stamp, data), in pages of 512 bytes."""
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA page_size = 512")
        base.execute("CREATE TABLE topics (id INTEGER PRIMARY KEY, name, type, serialization_format)")
        base.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id, timestamp, data)")
        base.execute("INSERT INTO topics VALUES (1, ?, ?, ?)", topic)
        base.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    base.close()


@pytest.mark.parametrize("stamp", ["abc", b"abc", None, 0.5, float("inf")])
def test_a_row_whose_time_is_no_number_is_a_loss(tmp_path: Path, stamp: Any) -> None:
    path = tmp_path / "a.db3"
    database(path, (1, START, TEXT), (1, stamp, TEXT), (1, START + 1, None), (1, START + 2, "a"), (1, START + 3, TEXT))
    count, losses = texts_of(path)
    assert count == 2 and "2 of the 5 messages" in losses
    path.unlink()
    database(path, (1, stamp, TEXT))
    assert texts_of(path)[0] == 0


@pytest.mark.parametrize("topic", [(None, STRING[0], "cdr"), (b"/a", STRING[0], "cdr"), ("/a", None, 5)])
def test_a_topic_whose_name_is_no_text_is_an_error_in_words(tmp_path: Path, topic: tuple[Any, ...]) -> None:
    database(tmp_path / "a.db3", (1, START, TEXT), topic=topic)
    with pytest.raises(RecordingError, match="list of topics"):
        Recording(tmp_path / "a.db3")


def test_a_database_that_calculates_its_messages_is_refused(tmp_path: Path) -> None:
    """Each message would have 900 MB."""
    path = tmp_path / "a.db3"
    database(path, (1, START, TEXT))
    with sqlite3.connect(path) as base:
        base.execute("ALTER TABLE messages RENAME COLUMN data TO old")
        base.execute("ALTER TABLE messages ADD COLUMN data BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL")
    base.close()
    with pytest.raises(RecordingError, match="calculates"):
        Recording(path)


def test_a_database_whose_pages_are_in_many_places_ends(tmp_path: Path, monkeypatch) -> None:
    """Eight levels of pages, each with 60 times the page below: 60⁸ rows in 8 kB."""
    monkeypatch.setattr(sqlite_file, "MIN_OPERATIONS", 10**5)
    monkeypatch.setattr(sqlite_file, "CHECKED_OPERATIONS", 10**4)
    path = tmp_path / "a.db3"
    database(path, (1, START, TEXT))
    with sqlite3.connect(path) as base:
        root = base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()[0]
    base.close()
    data = bytearray(path.read_bytes())
    pages, leaf = len(data) // 512, bytes(data[(root - 1) * 512 : root * 512])
    data += leaf
    below = pages + 1
    for page in [*range(pages + 2, pages + 9), root]:
        cells = struct.pack(">IB", below, 1) * 60
        head = struct.pack(">BHHHBI", 5, 0, 60, 512 - len(cells), 0, below)
        own = head + b"".join(struct.pack(">H", 512 - 5 * (number + 1)) for number in range(60))
        own += bytes(512 - len(own) - len(cells)) + cells
        data[(page - 1) * 512 : page * 512] = own
        below = page
    struct.pack_into(">I", data, 28, len(data) // 512)
    path.write_bytes(data)
    try:
        losses = texts_of(path)[1]
    except RecordingError as error:
        losses = str(error)
    assert "interrupted" in losses


def field(name: bytes, value: bytes) -> bytes:
    """A field of the header of a record of a ROS 1 bag."""
    return struct.pack("<I", len(name) + 1 + len(value)) + name + b"=" + value


def record(head: bytes, data: bytes = b"") -> bytes:
    """A record of a ROS 1 bag."""
    return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("in_chunk", [False, True])
@pytest.mark.parametrize(("time", "op"), [(b"ab", b"\2"), (None, b"\2"), (bytes(8), b"")])
def test_a_damaged_field_of_a_ros1_message_leaves_those_before_it(
    tmp_path: Path, time: bytes | None, op: bytes, in_chunk: bool
) -> None:
    number, text = field(b"conn", bytes(4)), b"\1\0\0\0a"
    about = field(b"topic", b"/a") + field(b"type", b"std_msgs/String") + field(b"message_definition", b"string data\n")
    records = record(field(b"op", b"\7") + number + field(b"topic", b"/a"), about)
    records += record(field(b"op", b"\2") + number + field(b"time", bytes(8)), text)
    records += record(field(b"op", op) + number + (b"" if time is None else field(b"time", time)), text) * 2
    if in_chunk:
        size = field(b"size", struct.pack("<I", len(records)))
        records = record(field(b"op", b"\5") + field(b"compression", b"none") + size, records)
    head = field(b"op", b"\3") + field(b"index_pos", bytes(8)) + field(b"conn_count", bytes(4))
    path = tmp_path / "a.bag"
    path.write_bytes(b"#ROSBAG V2.0\n" + record(head + field(b"chunk_count", bytes(4))) + records)
    assert texts_of(path)[0] >= 1


@contextmanager
def few_open_files(more: int) -> Iterator[None]:
    """Let this process open no more than so many further files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, (path.name for path in Path("/proc/self/fd").iterdir())))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux shows the open files of a process there")
def test_a_recording_has_more_parts_than_a_process_may_open_files(tmp_path: Path) -> None:
    for number in range(40):
        indexed_file(tmp_path / f"a_{number}.mcap")
    with few_open_files(15):
        assert texts_of(tmp_path) == (120, "")


def test_a_part_that_metadata_names_twice_is_read_once(tmp_path: Path) -> None:
    indexed_file(tmp_path / "a.mcap")
    names = "\n".join(["  - a.mcap"] * 1000)
    (tmp_path / "metadata.yaml").write_text(
        f"rosbag2_bagfile_information:\n  topics_with_message_count: []\n  relative_file_paths:\n{names}\n"
    )
    assert texts_of(tmp_path)[0] == 3


def test_the_first_messages_of_a_topic_have_a_limit_together(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "MAX_FIRST_BYTES", 2 * len(TEXT))
    indexed_file(tmp_path / "a.mcap", 10)
    with Recording(tmp_path / "a.mcap") as opened:
        assert len(opened.first_messages("/text", 10)) == 2


def test_a_name_in_a_recording_does_not_forge_a_line_of_the_log() -> None:
    entry = logging.LogRecord("a", logging.WARNING, "", 0, "topic '%s'", ("a\nerror: b" + "x" * 10_000,), None)
    cli.main(["topics", "/no/such/recording"])
    assert logging.lastResort is not None
    line = logging.lastResort.format(entry)
    assert "\n" not in line and len(line) < 5000
