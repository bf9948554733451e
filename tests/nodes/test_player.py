"""The player: recorded timing at any rate, `/clock`, no lost messages, and clear errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from helpers.ros_processes import parameter_arguments, peer, ros_environment, running

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
STRING = "std_msgs/msg/String"
IMAGE = "sensor_msgs/msg/Image"
CLOCK = "rosgraph_msgs/msg/Clock"
TIMES = (0.0, 0.05, 0.1, 0.5, 0.52, 0.9, 1.6)  # s; uneven, so that constant intervals fail the tests

STORE = get_typestore(Stores.LATEST)
STORE.register(get_types_from_msg("int32 value", "nowhere_msgs/msg/Value"))


@dataclass
class Content:
    """Topic → type, and the messages to record on it: (seconds since the start, fields)."""

    type: str
    messages: Sequence[tuple[float, dict[str, Any]]]
    latched: bool = field(default=False)


def record(path: Path, topics: dict[str, Content], plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Write a bag with rosbags alone."""
    queue = []
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        for topic, content in topics.items():
            qos = [_latched()] if content.latched else []
            connection = writer.add_connection(topic, content.type, typestore=STORE, offered_qos_profiles=qos)
            for seconds, fields in content.messages:
                message = STORE.types[content.type](**fields)
                queue.append((START + round(seconds * SECOND), connection, STORE.serialize_cdr(message, content.type)))
        for stamp, connection, data in sorted(queue, key=lambda entry: entry[0]):
            writer.write(connection, stamp, data)
    return path


def _latched() -> Qos:
    never = QosTime(0, 0)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL,
        deadline=never,
        lifespan=never,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )


def chatter(times: Sequence[float] = TIMES) -> Content:
    return Content(STRING, [(seconds, {"data": str(index)}) for index, seconds in enumerate(times)])


def text(received: list[tuple[float, Any]]) -> list[str]:
    return [message.data for _, message in received]


def stamps(received: list[tuple[float, Any]]) -> list[int]:
    return [message.clock.sec * SECOND + message.clock.nanosec for _, message in received]


def has_received(received: list[tuple[float, Any]], count: int) -> Callable[[], bool]:
    return lambda: len(received) >= count


@pytest.mark.parametrize("rate", [pytest.param(1.0, marks=pytest.mark.slow), 4.0])
def test_messages_keep_their_relative_timing_at_any_rate_and_the_clock_runs_forward(
    tmp_path: Path, rate: float
) -> None:
    bag = record(tmp_path / "bag", {"/chatter": chatter()})
    environment = ros_environment()
    with peer(environment) as me:
        received, clock = me.subscribe(STRING, "/chatter"), me.subscribe(CLOCK, "/clock", 1000)
        with running("player", environment=environment, values={"recording": str(bag), "rate": rate}) as player:
            me.wait_until(has_received(received, len(TIMES)), 60, "all messages")
            me.wait_until(lambda: not player.is_running, 10, "the end")
        me.spin(0.1)
    assert text(received) == [str(index) for index in range(len(TIMES))]
    lag = np.array([arrival for arrival, _ in received]) - np.array(TIMES) / rate
    assert np.sort(np.abs(lag - np.median(lag)))[-3] < 0.15  # a busy machine may delay two messages
    shown = stamps(clock)
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (START, START + round(TIMES[-1] * SECOND))
    assert len(shown) > 15 * TIMES[-1] / rate  # per second of real time; 100 on an idle machine, 5 with a message each
    # The clock runs at the rate: compare the arrival times of its messages with their stamps.
    wall = np.array([arrival for arrival, _ in clock])
    offset = wall - (np.array(shown) - START) / SECOND / rate
    assert np.quantile(np.abs(offset - np.median(offset)), 0.8) < 0.15


def test_reliable_and_best_effort_subscribers_get_every_image_unchanged(tmp_path: Path) -> None:
    count, size = 30, 640 * 480 * 3
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    header = STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
    images = [
        (
            index / 30,
            {
                "header": header,
                "height": 480,
                "width": 640,
                "encoding": "rgb8",
                "is_bigendian": 0,
                "step": 1920,
                "data": np.roll(pixels, index),
            },
        )
        for index in range(count)
    ]
    bag = record(tmp_path / "bag", {"/camera": Content(IMAGE, images)}, StoragePlugin.SQLITE3)
    environment = ros_environment()
    from rclpy.qos import qos_profile_sensor_data

    with peer(environment) as me:
        best_effort = me.subscribe(IMAGE, "/front", qos_profile_sensor_data)
        reliable = me.subscribe(IMAGE, "/front", 10)
        remap = ["--ros-args", "-r", "/camera:=/front"]
        with running("player", str(bag), *remap, environment=environment) as player:
            me.wait_until(lambda: len(best_effort) == len(reliable) == count, 60, "all images, twice")
            me.wait_until(lambda: not player.is_running, 10, "the end")
    for received in (best_effort, reliable):
        for index, (_, image) in enumerate(received):
            assert (image.header.frame_id, image.height, image.encoding) == ("camera", 480, "rgb8")
            assert np.array_equal(np.frombuffer(image.data, np.uint8), np.roll(pixels, index))


def test_message_types_that_are_not_installed_give_one_warning_and_other_topics_are_played(tmp_path: Path) -> None:
    unknown = Content("nowhere_msgs/msg/Value", [(0.05, {"value": 1}), (0.1, {"value": 2})])
    bag = record(tmp_path / "bag", {"/a": unknown, "/b": unknown, "/chatter": chatter((0.0, 0.1, 0.2))})
    environment = ros_environment()
    with peer(environment) as me:
        received = me.subscribe(STRING, "/chatter")
        with running("player", str(bag), environment=environment) as player:
            me.wait_until(has_received(received, 3), 60, "three messages")
            me.wait_until(lambda: not player.is_running, 10, "the end")
    warnings = [line for line in player.lines if "[WARN]" in line]
    assert len(warnings) == 1
    assert "/a, /b" in warnings[0]
    assert "nowhere_msgs/msg/Value" in warnings[0]
    assert "3 messages" in player.output


def test_late_subscribers_receive_latched_topics(tmp_path: Path) -> None:
    topics = {
        "/map": Content(STRING, [(0.0, {"data": "the map"})], latched=True),
        "/chatter": chatter(tuple(np.arange(0.0, 8.0, 0.1))),
    }
    bag = record(tmp_path / "bag", topics)
    environment = ros_environment()
    from sensebind.nodes.support.qos import LATCHED_QOS

    with peer(environment) as me:
        received = me.subscribe(STRING, "/chatter")
        with running("player", str(bag), "--delay", "0.5", environment=environment):
            me.wait_until(has_received(received, 3), 60, "the first messages")
            late = me.subscribe(STRING, "/map", LATCHED_QOS)
            me.wait_until(has_received(late, 1), 5, "the map")
    assert text(late) == ["the map"]


def test_nothing_is_played_before_each_topic_to_wait_for_has_a_subscriber(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", {"/chatter": chatter((0.0, 0.1)), "/other": chatter((0.0, 0.1))})
    environment = ros_environment()
    with peer(environment) as me:
        received = me.subscribe(STRING, "/other")
        arguments = (str(bag), "--delay", "0", "--wait-for", "/chatter", "/other")
        with running("player", *arguments, environment=environment) as player:
            me.wait_until(lambda: "waiting for a subscriber of /chatter" in player.output, 30, "the log")
            assert not received
            late = me.subscribe(STRING, "/chatter")
            me.wait_until(lambda: not player.is_running, 30, "the end")
        me.spin(0.1)
    assert text(late) == text(received) == ["0", "1"]


def test_a_loop_sets_the_clock_back_and_ends_with_status_0_when_interrupted(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", {"/chatter": chatter((0.0, 0.2, 0.4))})
    environment = ros_environment()
    with peer(environment) as me:
        received, clock = me.subscribe(STRING, "/chatter"), me.subscribe(CLOCK, "/clock", 1000)
        with running("player", str(bag), "--loop", environment=environment) as player:
            me.wait_until(has_received(received, 8), 60, "two and a half rounds")
            assert player.is_running
    assert text(received)[:8] == ["0", "1", "2", "0", "1", "2", "0", "1"]
    steps = np.diff(stamps(clock))
    assert (steps < 0).sum() == 2
    assert set(steps[steps < 0]) == {-round(0.4 * SECOND)}


def test_a_loop_of_a_recording_without_duration_does_not_fill_the_log(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", {"/chatter": chatter((0.0,))})
    environment = ros_environment()
    with peer(environment) as me:
        received = me.subscribe(STRING, "/chatter")
        with running("player", str(bag), "--loop", environment=environment) as player:
            me.wait_until(has_received(received, 30), 60, "thirty rounds")
            assert player.is_running and len(player.lines) < 15, player.output


def test_only_the_requested_topics_of_a_ros1_bag_are_played(tmp_path: Path) -> None:
    bag = tmp_path / "old.bag"
    old = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(bag) as writer:
        connections = [writer.add_connection(topic, STRING, typestore=old) for topic in ("/chatter", "/other")]
        for index in range(2):
            for connection in connections:
                data = old.serialize_ros1(old.types[STRING](data=str(index)), STRING)
                writer.write(connection, START + index * SECOND // 10, data)
    environment = ros_environment()
    values = {"recording": str(bag), "topics": ["/chatter"], "clock": False}
    with peer(environment) as me:
        received, other, clock = (
            me.subscribe(STRING, "/chatter"),
            me.subscribe(STRING, "/other"),
            me.subscribe(CLOCK, "/clock"),
        )
        with running("player", environment=environment, values=values) as player:
            me.wait_until(lambda: not player.is_running, 60, "the end")
        me.spin(0.1)
    assert text(received) == ["0", "1"]
    assert (len(other), len(clock)) == (0, 0)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ({}, ["'recording'"]),
        ({"recording": "/no/such/bag"}, ["/no/such/bag"]),
        ({"recording": "BAG", "topics": ["/elsewhere"]}, ["'topics'", "elsewhere", "/chatter"]),
        ({"recording": "BAG", "rate": 0.0}, ["'rate'"]),
        ({"recording": "BAG", "wait_for": ["/elsewhere"]}, ["'wait_for'", "/elsewhere", "/chatter"]),
    ],
)
def test_an_error_names_what_cannot_be_played(tmp_path: Path, values: dict[str, Any], texts: list[str]) -> None:
    bag = record(tmp_path / "bag", {"/chatter": chatter()})
    values = {name: str(bag) if value == "BAG" else value for name, value in values.items()}
    command = [sys.executable, "-m", "sensebind.nodes.player", *parameter_arguments(values)]
    done = subprocess.run(command, env=ros_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    for expected in texts:
        assert expected in done.stderr
    assert "Traceback" not in done.stderr
