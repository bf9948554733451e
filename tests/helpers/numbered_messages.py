"""Recordings of numbered messages in all formats, and the numbers that can be read of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from helpers.mcap_files import McapFileWriter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import (
    Recording,
    RosbagsMessageFactory,
    Selection,
    typestore,
)

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
