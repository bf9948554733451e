"""`sensebind bench recordings`: messages per second that are read from a bag of each kind, compared with rosbags alone.

A robot with an IMU and a camera with compressed images is written to a temporary folder: as MCAP, as SQLite and as a
ROS 1 bag. `Recording` and the reader of rosbags with its own conversion of messages take turns. Processor time depends
less on other processes of the machine than elapsed time does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from sensebind.benchmarks.harness import command_line
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings import Recording
from sensebind.replay.progress import track

IMU_RATE, CAMERA_RATE, IMAGE_BYTES = 200, 30, 30_000  # Hz, Hz, bytes of a compressed image
IMU_TYPE, IMAGE_TYPE = "sensor_msgs/msg/Imu", "sensor_msgs/msg/CompressedImage"
TOPICS = {IMU_TYPE: "/imu", IMAGE_TYPE: "/camera/image/compressed"}
KINDS = {"mcap": "bag_mcap", "sqlite": "bag_sqlite", "ros1": "ros1.bag"}  # kind → name of its folder or file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the recordings (default: %(default)s)")
    text = "number of rounds; the median counts (default: %(default)s)"
    parser.add_argument("--rounds", type=int, default=5, help=text)
    command_line.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report("recordings", measure, args)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """By kind of bag: messages, messages per second of processor time with Sensebind and with rosbags, and their
    ratio."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sensebind-bench-") as folder:
        write_bags(Path(folder), args.seconds)
        for kind, name in KINDS.items():
            path = Path(folder) / name
            times: dict[str, list[float]] = {"sensebind": [], "rosbags": []}
            for _ in track(range(args.rounds), kind, "rounds"):
                for reader, count in (("sensebind", _count_with_recording), ("rosbags", _count_with_rosbags)):
                    began = time.process_time()
                    messages = count(path)
                    times[reader].append(time.process_time() - began)
            own, other = (sorted(values)[args.rounds // 2] for values in times.values())
            result[kind] = {
                "messages": messages,
                "messages_per_s": round(messages / own),
                "rosbags_messages_per_s": round(messages / other),
                "times_rosbags": round(other / own, 2),
            }
    return result


def write_bags(folder: Path, seconds: float) -> None:
    """Write the same messages as MCAP, SQLite and ROS 1, under the names of `KINDS`."""
    ros2, ros1 = get_typestore(Stores.ROS2_JAZZY), get_typestore(Stores.ROS1_NOETIC)
    for kind, plugin in (("mcap", StoragePlugin.MCAP), ("sqlite", StoragePlugin.SQLITE3)):
        with Writer2(folder / KINDS[kind], version=9, storage_plugin=plugin) as writer:
            _write(writer, ros2, lambda message, name: ros2.serialize_cdr(message, name), seconds, {})
    with Writer1(folder / KINDS["ros1"]) as writer1:
        _write(writer1, ros1, lambda message, name: ros1.serialize_ros1(message, name), seconds, {"seq": 0})


def _write(
    writer: Any, types: Typestore, serialize: Callable[[Any, str], Any], seconds: float, header_fields: dict[str, int]
) -> None:
    connections = {name: writer.add_connection(topic, name, typestore=types) for name, topic in TOPICS.items()}
    for stamp, name, message in _messages(types, seconds, header_fields):
        writer.write(connections[name], stamp, serialize(message, name))


def _messages(types: Typestore, seconds: float, header_fields: dict[str, int]) -> Iterator[tuple[int, str, Any]]:
    """(log time in ns, type, message) of the IMU and the camera, in order of time."""
    make = types.types
    data = np.random.default_rng(0).integers(0, 256, IMAGE_BYTES, np.uint8)
    vector, none = make["geometry_msgs/msg/Vector3"](0.0, 0.0, 9.81), np.zeros(9)
    turn = make["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    stamps = [(i * SECOND // IMU_RATE, IMU_TYPE) for i in range(round(seconds * IMU_RATE))]
    stamps += [(i * SECOND // CAMERA_RATE, IMAGE_TYPE) for i in range(round(seconds * CAMERA_RATE))]
    for offset, name in sorted(stamps):
        stamp = 1_700_000_000 * SECOND + offset
        time_of = make["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)
        header = make["std_msgs/msg/Header"](stamp=time_of, frame_id="robot", **header_fields)
        if name == IMAGE_TYPE:
            yield stamp, name, make[name](header, "jpeg", data)
        else:
            yield stamp, name, make[name](header, turn, none, vector, none, vector, none)


def _count_with_recording(path: Path) -> int:
    with Recording(path) as recording:
        return sum(1 for _ in recording.messages())


def _count_with_rosbags(path: Path) -> int:
    """The messages that rosbags reads and converts with its own types."""
    is_ros1 = path.suffix == ".bag"
    types = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_JAZZY)
    convert = types.deserialize_ros1 if is_ros1 else types.deserialize_cdr
    count = 0
    with (Reader1 if is_ros1 else Reader2)(path) as reader:
        for connection, _, data in reader.messages():
            convert(data, connection.msgtype)
            count += 1
    return count
