"""The tuning loop: what a running node has as parameters is a configuration for a replay, and the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.patrols import record_patrol
from helpers.ros_processes import Peer, peer, ros_environment, running
from sensebind.cli import main
from sensebind.fusion.core.errors import ConfigError
from sensebind.replay.session import Settings

# With the names of the previous version, an empty list, and a threshold for one label.
CONFIG = """
/**:
  ros__parameters:
    space: starter
    device: cpu
    modalities: [vision, imu]
    spokes: []
    detectors: [prompt]
    prompt: {on: 0.5, off: 0.25, onset_thresholds: {person: 0.4}}
    prompts:
      person: [an astronaut, a person in a space suit]
      cup of coffee: [a cup of coffee]
      unused: []
"""


def parameters(me: Peer, node: str) -> dict[str, Any]:
    """All parameters of a node, through its parameter services."""
    from rcl_interfaces.srv import GetParameters, ListParameters
    from rclpy.parameter import parameter_value_to_python

    def call(type_: Any, name: str, request: Any) -> Any:
        client = me.node.create_client(type_, f"{node}/{name}")
        me.wait_until(client.service_is_ready, 60, name)
        answer = client.call_async(request)
        me.wait_until(answer.done, 60, name)
        return answer.result()

    names = sorted(call(ListParameters, "list_parameters", ListParameters.Request()).result.names)
    values = call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values
    found = {name: parameter_value_to_python(value) for name, value in zip(names, values, strict=True)}
    return {name: list(value) if hasattr(value, "typecode") else value for name, value in found.items()}


def dump(me: Peer, node: str) -> str:
    """The text that `ros2 param dump NODE` prints: a section with the full name, a level for each part of a name."""
    tree: dict[str, Any] = {}
    for name, value in parameters(me, node).items():
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return yaml.dump({node: {"ros__parameters": tree}}, default_flow_style=False)


def replayed_events(bag: Path, config: Path, out: Path) -> list[dict[str, Any]]:
    assert main(["replay", str(bag), "--config", str(config), "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text())["events"]


def test_a_dump_of_running_nodes_gives_the_events_of_their_own_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag, file = tmp_path / "bag", tmp_path / "robot.yaml"
    record_patrol(bag, duration=8.0)
    file.write_text(CONFIG)
    arguments = ("--ros-args", "--params-file", str(file), "-r", "__ns:=/robot1")
    environment = ros_environment("sensebind_msgs")
    with (
        peer(environment) as me,
        running("embedder", *arguments, environment=environment),
        running("detector", *arguments, environment=environment) as detector,
    ):
        dumped = dump(me, "/robot1/embedder") + dump(me, "/robot1/detector")
        assert detector.output.count("'prompt.on' is now called 'prompt.onset_threshold'") == 1
    (tmp_path / "dump.yaml").write_text(dumped)
    assert "use_sim_time" in dumped and "onset_thresholds" in dumped and " on:" not in dumped
    plain = Settings.read(file)
    assert caplog.text.count("'prompt.on' is now called") == 1
    found = Settings.read(tmp_path / "dump.yaml")
    assert found.changed_values() == plain.changed_values() and found.prompts == plain.prompts
    events = replayed_events(bag, tmp_path / "dump.yaml", tmp_path / "dumped")  # equal values give equal events
    assert [event["label"] for event in events] == ["person"]
    misspelt = dumped.replace("immediate_onset_threshold", "immediate_onset_treshold")
    (tmp_path / "wrong.yaml").write_text(misspelt)
    with pytest.raises(ConfigError, match="no parameter 'change.immediate_onset_treshold'; did you mean"):
        Settings.read(tmp_path / "wrong.yaml")


def test_an_onset_threshold_of_a_label_is_a_ros_parameter_with_bounds() -> None:
    from rcl_interfaces.srv import DescribeParameters, SetParameters
    from rclpy.parameter import Parameter

    environment = ros_environment("sensebind_msgs")
    values = {"prompts.dog": ["a dog"], "prompt.onset_thresholds.dog": 0.7}
    with peer(environment) as me, running("detector", environment=environment, values=values):

        def call(type_: Any, name: str, request: Any) -> Any:
            client = me.node.create_client(type_, f"/detector/{name}")
            me.wait_until(client.service_is_ready, 60, name)
            answer = client.call_async(request)
            me.wait_until(answer.done, 60, name)
            return answer.result()

        def change(name: str, value: float) -> Any:
            request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
            return call(SetParameters, "set_parameters", request).results[0]

        name = "prompt.onset_thresholds.dog"
        (described,) = call(
            DescribeParameters, "describe_parameters", DescribeParameters.Request(names=[name])
        ).descriptors
        assert described.floating_point_range[0].to_value == 0.99 and "Onset threshold" in described.description
        assert change(name, 0.3).successful and not change(name, 1.5).successful
        refused = change("prompt.onset_thresholds.dogg", 0.3)
        assert not refused.successful and "did you mean 'dog'" in refused.reason
        assert parameters(me, "/detector")[name] == 0.3
