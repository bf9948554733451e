"""The sensors of running nodes change: the embedder is configured again with others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from helpers.ros_processes import Executable, Peer, peer, ros_environment, running
from helpers.ros_services import NodeServices
from sensebind.fusion.io import messages

MESSAGES = ("sensebind_msgs", "lifecycle_msgs", "diagnostic_msgs")
VALUES = {"modalities": ["vision"], "vision.sensors": ["front", "rear"], "vision.hop": 0.5}
FAULTS = {"detectors": ["fault"], "fault.expected": ["configured"], "fault.timeout": 1.0}


class Cameras:
    """Publishes noise as the images of two cameras, at 10 Hz, while it waits."""

    def __init__(self, me: Peer) -> None:
        self._me = me
        self._publishers = [me.publisher(messages.IMAGE_TYPE, f"{name}/image") for name in ("front", "rear")]
        self._random = np.random.default_rng(0)

    def publish_until(self, condition: object, seconds: float = 60.0) -> bool:
        """Publish until `condition()` holds. Returns whether it did within `seconds`."""
        from sensor_msgs.msg import Image

        for _ in range(int(seconds * 10)):
            for publisher in self._publishers:
                pixels = self._random.integers(0, 255, (48, 64, 3), dtype=np.uint8)
                image = Image(height=48, width=64, encoding="rgb8", step=192, data=pixels.tobytes())
                image.header.stamp = self._me.node.get_clock().now().to_msg()
                publisher.publish(image)
            if condition():  # type: ignore[operator]
                return True
            self._me.spin(0.1)
        return False


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Peer, Executable, Cameras]]:
    environment = ros_environment(*MESSAGES)
    with (
        peer(environment) as me,
        running("embedder", environment=environment, values=VALUES) as embedder,
        running("detector", environment=environment, values=FAULTS) as detector,
    ):
        detector.wait_for_output("events from fault", 60)
        yield me, embedder, Cameras(me)


def test_a_sensor_that_is_removed_is_no_fault_and_a_new_one_is_expected(
    nodes: tuple[Peer, Executable, Cameras],
) -> None:
    from sensebind.nodes.support.qos import EVENT_QOS

    me, embedder, cameras = nodes
    services = NodeServices(me, "/embedder")
    embeddings = {name: me.subscribe(messages.EMBEDDING_TYPE, f"embeddings/{name}") for name in ("front", "rear")}
    events = me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS)
    assert cameras.publish_until(lambda: all(len(found) > 4 for found in embeddings.values()))
    assert services.change_state("deactivate") and services.change_state("cleanup")
    assert services.set("vision.sensors", ["front", "left"]) == ""
    assert services.set("vision.hop", 0.25) == ""
    assert services.change_state("configure") and services.change_state("activate")
    assert services.get("front.hop", "left.hop") == [0.25, 0.25]  # neither was set: both have that of the modality
    assert cameras.publish_until(lambda: any("left:unplugged" in message.label for _, message in events))
    assert embedder.is_running
    onset = next(message for _, message in events if "left:unplugged" in message.label)
    assert [(own.sensor, own.modality) for own in onset.evidence] == [("left", "vision")]
    assert not [message.label for _, message in events if "rear" in message.label]


@pytest.mark.parametrize("topic", ["bad topic", "/2nd_camera/image", "front//image"])
def test_a_name_that_no_topic_can_have_is_refused_by_parameter_when_the_node_is_configured(
    nodes: tuple[Peer, Executable, Cameras], topic: str
) -> None:
    me, embedder, _ = nodes
    services = NodeServices(me, "/embedder")
    for state, transition in (("active", "deactivate"), ("inactive", "cleanup")):
        if services.state() == state:
            assert services.change_state(transition)
    assert services.set("front.topic", topic) == ""
    assert not services.change_state("configure") and services.state() == "unconfigured"
    embedder.wait_for_output(f"not configured: parameter 'front.topic': '{topic}' cannot be the name of a topic")
    assert services.set("front.topic", "front/image") == ""
    assert services.change_state("configure")


def test_a_warning_about_the_messages_of_a_sensor_is_in_the_log_of_the_node(
    nodes: tuple[Peer, Executable, Cameras],
) -> None:
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    me, embedder, cameras = nodes
    services = NodeServices(me, "/embedder")
    logged = me.subscribe("rcl_interfaces/msg/Log", "/rosout", QoSProfile(depth=1000))
    for state, transition in (("unconfigured", "configure"), ("inactive", "activate")):
        if services.state() == state:
            assert services.change_state(transition), embedder.output
    publisher = me.publisher(messages.IMAGE_TYPE, "front/image")

    def has_warning() -> bool:
        image = Image(height=48, width=64, encoding="rgb8", step=192, data=bytes(48 * 192))
        image.header.frame_id, image.header.stamp = "other_camera", me.node.get_clock().now().to_msg()
        publisher.publish(image)
        return any("other_camera" in message.msg and message.name == "embedder" for _, message in logged)

    assert cameras.publish_until(has_warning), embedder.output
