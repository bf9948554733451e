"""What fails again and again, or changes with each message, cannot fill the log of a node, or its memory."""

from __future__ import annotations

import logging

import pytest
from rclpy.logging import get_logger

from helpers.ros_processes import run_ros_program
from sensebind.nodes.support.guards.log_limit import LOG_LIMIT
from sensebind.nodes.support.run import logging_to


def test_a_place_in_the_code_that_logs_with_each_message_leaves_the_log_to_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = logging.getLogger("sensebind.fusion")
    with logging_to(get_logger("node")):
        for number in range(10 * LOG_LIMIT):
            source.warning("sensor 'other%d' is not known", number)
        source.warning("the device is busy")
    lines = capfd.readouterr().err.splitlines()
    assert sum("is not known" in line for line in lines) == LOG_LIMIT
    assert sum("the device is busy" in line for line in lines) == 1


SPACES = """
import rclpy
from rclpy.logging import get_logger
from rclpy.serialization import serialize_message
from helpers import poison_messages as poison
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.stream.accounting.topics import MAX_TOPICS
from sensebind.nodes.detector import DetectorNode
from sensebind.nodes.support.message_types import RosMessageFactory
from sensebind.nodes.support.run import logging_to

rclpy.init(args=["--ros-args", "-p", "detectors:=[novelty, fault]", "-p", "fault.expected:=[no_such_sensor]",
                 "-p", "prompt.calibration:=none"])
node = DetectorNode()
node.trigger_configure()
node.trigger_activate()
assert node.is_active
make = RosMessageFactory()
[subscription] = [own for own in node.subscriptions if own.topic_name == "/embedding_space"]
with logging_to(get_logger("detector")):
    for number in range(400):
        message = poison.good_space(make)
        if number >= 200:
            message.id = f"space@{number}"
        message.sensors = message.sensors[: 1 + number % 2]
        message.sensors[0].name = f"own{number}"
        subscription.callback(serialize_message(message), {"publication_sequence_number": number + 1})
        own = poison.good_embedding(make, tick=poison.START + number * SECOND // 10)
        own.sensor, own.space = f"own{number}", message.id
        for topic in node.subscriptions:
            if topic.topic_name == f"/embeddings/own{number}":
                topic.callback(serialize_message(own), {"publication_sequence_number": 1})
assert node._received == {"own399": 1} and len(node._watchdog._windows) == 1
assert len(node._callback_guard._losses) <= MAX_TOPICS  # it has had a topic for each sensor
print(node._callback_guard.counts.of("embedding_space")["used.applied"])
"""


def test_a_publisher_of_ever_other_spaces_and_sensors_fills_neither_the_log_nor_the_memory_of_the_detector() -> None:
    run = run_ros_program(SPACES)
    assert run.returncode == 0 and run.stdout.split()[-1] == "400", run.stderr[-3000:]
    assert "event tracking starts again" in run.stderr and "'no_such_sensor'" in run.stderr
    assert len(run.stderr.splitlines()) < 3 * LOG_LIMIT, run.stderr[-3000:]
