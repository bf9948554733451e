"""A recorder whose clock was set back: its messages are read in the order in which it wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from helpers.mcap_files import McapFileWriter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import Recording, typestore

T0 = 1_700_000_000 * SECOND
STRING = "std_msgs/msg/String"
Row = tuple[str, int]  # topic, tenths of a second


def write(folder: Path, rows: list[Row], plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """A bag with these messages in this order. The data of each are its place."""
    types = typestore()
    with Writer(folder, version=8, storage_plugin=plugin) as bag:
        names = dict.fromkeys(topic for topic, _ in rows)
        topics = {topic: bag.add_connection(topic, STRING, typestore=types) for topic in names}
        for place, (topic, tenths) in enumerate(rows):
            message = types.types[STRING](data=str(place))
            bag.write(topics[topic], T0 + tenths * SECOND // 10, types.serialize_cdr(message, STRING))
    return folder


def read(path: Path, *topics: str) -> list[int]:
    with Recording(path) as bag:
        return [int(message.data) for _, _, _, message in bag.messages(topics or None)]


def set_back(count: int = 50, to: int = 20) -> list[Row]:
    """Two topics; after `count` tenths of a second the clock goes to `to`."""
    times = [*range(count), *range(to, to + count)]
    return [(topic, time) for time in times for topic in ("/a", "/b")]


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_messages_keep_the_order_of_the_recorder(tmp_path: Path, plugin: StoragePlugin) -> None:
    rows = set_back()
    path = write(tmp_path / "bag", rows, plugin)
    assert read(path) == list(range(len(rows)))
    assert read(path, "/b") == list(range(1, len(rows), 2))


def test_blocks_of_a_file_keep_the_order_of_the_recorder(tmp_path: Path) -> None:
    """A file with many blocks: the clock is set back within one, and between two."""
    types = typestore()
    rows = [*set_back(count=60, to=35), ("/a", 300), ("/a", 250), ("/a", 251)]
    for size in (7, 40):
        with McapFileWriter(tmp_path / f"{size}.mcap", chunk_messages=size) as file:
            for number, topic in enumerate(("/a", "/b"), 1):
                file.channel(number, topic, STRING, ("ros2msg", "string data"))
            for place, (topic, tenths) in enumerate(rows):
                data = bytes(types.serialize_cdr(types.types[STRING](data=str(place)), STRING))
                file.message(1 if topic == "/a" else 2, T0 + tenths * SECOND // 10, data)
        assert read(tmp_path / f"{size}.mcap") == list(range(len(rows))), size


def test_parts_of_a_recording_keep_the_order_of_the_recorder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for number, part in enumerate((set_back(50, 20)[:100], set_back(50, 20)[100:])):
        [file] = write(tmp_path / f"part_{number}", part).glob("*.mcap")
        file.rename(folder / f"run_{number}.mcap")
    assert read(folder, "/a") == [*range(0, 100, 2), *range(0, 100, 2)]


def test_files_that_are_in_no_order_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    by_topic = sorted(set_back()[:100], key=lambda row: row[0])  # as converters write: one topic after the other
    order = read(write(tmp_path / "by_topic", by_topic))
    times = [by_topic[place][1] for place in order]
    assert times == sorted(times)
    mixed = [("/a", (number * 37) % 100) for number in range(100)]
    order = read(write(tmp_path / "mixed", mixed))
    assert [mixed[place][1] for place in order] == list(range(100))


def test_files_of_two_recorders_at_the_same_time_are_read_in_order_of_time(tmp_path: Path) -> None:
    """They share a topic that every recorder has, such as /tf."""
    folder = tmp_path / "bag"
    folder.mkdir()
    for number, own in enumerate(("/camera", "/imu")):
        rows = [(topic, time) for time in range(number, 60, 2) for topic in (own, "/tf")]
        part = write(tmp_path / f"part{number}", rows)
        next(part.glob("*.mcap")).rename(folder / f"rec_{number}.mcap")
    with Recording(folder) as bag:
        found = [(stamp, topic) for topic, _, stamp, _ in bag.messages(["/camera", "/imu"])]
    assert found == sorted(found) and len({topic for _, topic in found}) == 2
