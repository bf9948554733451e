"""The parameters of running nodes: their descriptions, checks and changes over ROS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.patrols import record_patrol
from helpers.ros_processes import Peer, peer, ros_environment, running
from sensebind.fusion.config.parameters import (
    embedder_values,
    robots_of,
)
from sensebind.fusion.core.errors import ConfigError
from sensebind.replay.session import Settings


class Services:
    """Calls the parameter and lifecycle services of nodes."""

    def __init__(self, peer_node: Peer) -> None:
        self.peer = peer_node

    def call(self, type_: Any, service: str, request: Any) -> Any:
        client = self.peer.node.create_client(type_, service)
        self.peer.wait_until(client.service_is_ready, 60, service)
        answer = client.call_async(request)
        self.peer.wait_until(answer.done, 60, service)
        return answer.result()

    def set(self, node: str, name: str, value: Any) -> Any:
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter as RosParameter

        change = RosParameter(name, value=value).to_parameter_msg()
        (result,) = self.call(
            SetParameters, f"/{node}/set_parameters", SetParameters.Request(parameters=[change])
        ).results
        return result

    def get(self, node: str, *names: str) -> list[Any]:
        """The values; None for a parameter that is not declared."""
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        answer = self.call(GetParameters, f"/{node}/get_parameters", GetParameters.Request(names=names))
        return [parameter_value_to_python(value) for value in answer.values]

    def change_state(self, node: str, *transitions: int) -> list[bool]:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        requests = [ChangeState.Request(transition=Transition(id=transition)) for transition in transitions]
        return [self.call(ChangeState, f"/{node}/change_state", request).success for request in requests]


FILE = """
/**:
  ros__parameters:
    modalities: [vision, gas]
    gas: {fields: [data], window: 1.0, topic: /gas}
    spokes: []
detector:
  ros__parameters:
    detectors: []
    prompt.background: []
    fault: {causes: [], expected: []}
    prompts: {dog: [], cat: a cat}
"""


def test_ros_parameter_descriptions_have_the_meaning_the_unit_and_the_bounds() -> None:
    from rcl_interfaces.srv import DescribeParameters

    environment = ros_environment("sensebind_msgs")
    with (
        peer(environment) as peer_node,
        running("detector", environment=environment, values={"prompts.dog": ["a dog"]}),
    ):
        names = ["novelty.habituation", "novelty.max_prototypes", "detectors", "prompts.dog"]
        request = DescribeParameters.Request(names=names)
        found = Services(peer_node).call(DescribeParameters, "/detector/describe_parameters", request)
    habituation, prototypes, which, dog = found.descriptors
    assert habituation.description.endswith("[s]") and "novel" in habituation.description
    (bounds,) = habituation.floating_point_range
    assert (bounds.from_value, bounds.to_value) == (0.1, 3600.0)
    (whole,) = prototypes.integer_range
    assert (whole.from_value, whole.to_value) == (2, 1024)
    assert which.additional_constraints == "some of prompt, novelty, disagreement, change, fault"
    assert dog.description.startswith("Phrases that mean this label")


def test_a_file_with_empty_lists_and_a_user_defined_modality_works_for_all_nodes_and_the_command_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(FILE)
    values = Settings.read(file)
    assert values.detector["detectors"] == [] and values.prompts == {"cat": ["a cat"]}
    environment = ros_environment("sensebind_msgs")
    arguments = ("--ros-args", "--params-file", str(file))
    with (
        peer(environment) as peer_node,
        running("bridge", *arguments, "-p", "address:=tcp://127.0.0.1:*", environment=environment) as bridge,
        running("detector", *arguments, environment=environment),
    ):
        services = Services(peer_node)
        assert services.set("detector", "detectors", ["novelty"]).successful
        assert services.set("detector", "detectors", []).successful
        assert services.set("detector", "prompts.cat", []).successful
        bridge.wait_for_output("publishing on")


def test_a_change_without_effect_is_refused_and_the_node_continues(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    record_patrol(bag, duration=1.0)
    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    with (
        peer(environment) as peer_node,
        running("bridge", environment=environment, values={"address": "tcp://127.0.0.1:*"}),
        running("player", str(bag), environment=environment, values={"delay": 60.0}),
    ):
        services = Services(peer_node)
        for node, name, value in (("bridge", "client_queue_size", 10), ("player", "rate", 2.0)):
            refused = services.set(node, name, value)
            assert not refused.successful and "read-only" in refused.reason
            unknown = services.set(node, f"{name}s", value)
            assert not unknown.successful
            assert unknown.reason == f"there is no parameter '{name}s'; did you mean '{name}'?"
            assert services.set(node, "use_sim_time", True).successful
            assert services.set(node, "use_sim_time", False).successful
        assert "is now called 'client_queue_size'" in services.set("bridge", "queue_size", 10).reason


def test_unused_phrases_do_not_stop_the_detector_node() -> None:
    from sensebind.fusion.io import messages
    from sensebind.nodes.support.message_types import message_type
    from sensebind.nodes.support.qos import LATCHED_QOS

    environment = ros_environment("sensebind_msgs")
    values = {"detectors": ["novelty"], "prompt.background": ["a", "b"], "prompts.dog": ["a dog"]}
    with peer(environment) as peer_node, running("detector", environment=environment, values=values) as detector:
        space = peer_node.publisher(messages.EMBEDDING_SPACE_TYPE, "embedding_space", LATCHED_QOS)
        described = {"id": "toy@1", "dimension": 8, "modalities": ["text", "vision"], "logit_scales": [1.0, 1.0]}
        space.publish(message_type(messages.EMBEDDING_SPACE_TYPE)(**described))
        peer_node.wait_until(lambda: "events from novelty" in detector.output, 60, "the detectors")
        refused = Services(peer_node).set("detector", "detectors", ["prompt"])
        assert not refused.successful and "background" in refused.reason
        assert Services(peer_node).set("detector", "novelty.onset_threshold", 0.7).successful


def test_an_embedder_can_be_configured_again_with_fewer_modalities() -> None:
    from lifecycle_msgs.msg import Transition

    environment = ros_environment("sensebind_msgs")
    values = {"modalities": ["vision", "audio", "gas"], "gas.fields": ["data"], "gas.window": 1.0, "device": "cpu"}
    with peer(environment) as peer_node, running("embedder", environment=environment, values=values) as embedder:
        embedder.wait_for_output("vision: ", 90)
        services = Services(peer_node)
        down = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
        up = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
        assert all(services.change_state("embedder", *down)), embedder.output
        assert services.set("embedder", "modalities", ["vision"]).successful
        assert all(services.change_state("embedder", *up)), embedder.output


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"vision.topic": "/front/image"}, "'/front/image' would be the topic of all robots: write 'front/image'"),
        ({"robots": ["robot1", "Robot 2"]}, "parameter 'robots' names 'Robot 2'"),
        ({"robots": ["robot1", "robot1"]}, "parameter 'robots' names 'robot1'"),
    ],
)
def test_robots_that_would_share_a_topic_or_a_name_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        robots_of(embedder_values({"robots": ["robot1", "robot2"], **values}))


def test_a_node_accepts_names_of_the_previous_version() -> None:
    environment = ros_environment("sensebind_msgs")
    values = {"detectors": ["novelty"], "novelty.on": 0.7, "patience": 2.0}
    with peer(environment) as peer_node, running("detector", environment=environment, values=values) as detector:
        services = Services(peer_node)
        names = ["novelty.onset_threshold", "tick_timeout", "novelty.on"]
        assert services.get("detector", *names) == [0.7, 2.0, None]
        assert services.set("detector", "novelty.off", 0.25).successful
        assert services.get("detector", "novelty.offset_threshold", "novelty.off") == [0.25, None]
        refused = services.set("detector", "novelty.off", 0.8)
        assert not refused.successful and "offset_threshold must be at most onset_threshold" in refused.reason
        for line in ("'novelty.on' is now called 'novelty.onset_threshold'", "'novelty.off' is now called"):
            detector.wait_for_output(line)
        for value in (0.3, 0.35, 0.4):  # a program may set it again and again
            assert services.set("detector", "novelty.off", value).successful
        assert detector.output.count("'novelty.off' is now called") == 1
