"""Parameter files of nodes in a namespace, with and without the launch file."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.ros_processes import peer, ros_environment, running
from helpers.ros_services import NodeServices
from sensebind.fusion.config.files import original_path, read_parameter_file, section_names, shipped_parameter_file
from sensebind.fusion.core.errors import ConfigError

NAMESPACE = ("-r", "__ns:=/robot1")


def test_a_shipped_file_applies_in_any_namespace_as_it_is() -> None:
    for file in (ROOT / "config").glob("*.yaml"):
        if file.name != "diagnostic_aggregator.yaml":  # of a node of another package
            assert section_names(file) == {"**"}, file
    environment = ros_environment("sensebind_msgs")
    file = shipped_parameter_file("starter.yaml")
    expected = {n: v for n, v in read_parameter_file(file, "detector").items() if n.startswith(("prompt", "detectors"))}
    arguments = ("--ros-args", "--params-file", str(file), *NAMESPACE, "-p", "autostart:=false")
    with peer(environment) as me, running("detector", *arguments, environment=environment) as detector:
        assert NodeServices(me, "/robot1/detector").get(*expected) == list(expected.values())
        assert "[WARN]" not in detector.output


def test_a_node_warns_of_sections_that_ros_would_drop_in_silence_and_of_missing_prompts(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(
        "detector: {ros__parameters: {prompts: {person: [a person]}}}\nembeder: {ros__parameters: {device: cpu}}\n"
    )
    environment = ros_environment("sensebind_msgs")
    arguments = ("--ros-args", "--params-file", str(file), *NAMESPACE)
    with peer(environment) as me, running("detector", *arguments, environment=environment) as detector:
        assert NodeServices(me, "/robot1/detector").get("prompts.person") == [None]
        detector.wait_for_output("no label has a phrase")
        for text in (
            f"'{file}': the section 'detector' does not apply to '/robot1/detector' and is not used: rename it",
            f"'{file}': the section 'embeder' is of no node of Sensebind and is not used. Did you mean 'embedder'?",
            f"set 'prompts.<label>' in the section '/**' of '{file}'",
        ):
            assert detector.output.count(text) == 1, (text, detector.output)


def test_the_launch_file_makes_a_file_for_each_node_from_the_sections_that_apply(tmp_path: Path) -> None:
    ros_environment()
    from sensebind.nodes.support.parameter_files import make_node_files

    file = tmp_path / "robot.yaml"
    file.write_text(
        "/**: {ros__parameters: {space: starter, prompts: {'a.b': ['on', '1e3', 'y'], unset: null}}}\n"
        "detector: {ros__parameters: {prompt.background: [], tick_timeout: 2.0}}\n"
        "/robot1/detector: {ros__parameters: {tick_timeout: 3.0}}\nembeder: {ros__parameters: {device: cpu}}\n"
    )
    warnings: list[str] = []
    found = make_node_files(file, {"embedder": {"device": "cpu"}, "detector": {}}, "/robot1", warnings.append)
    common = {"space": "starter", "prompts.a.b": ["on", "1e3", "y"]}
    assert read_parameter_file(found["embedder"], "embedder") == {**common, "device": "cpu"}
    detector = read_parameter_file(found["detector"], "detector")
    assert detector == {**common, "prompt.background": [], "tick_timeout": 3.0}
    assert original_path(found["detector"]) == str(file) and original_path(file) == str(file)
    assert len(warnings) == 1 and "'embeder'" in warnings[0]


def test_a_parameter_file_that_cannot_be_read_is_a_message_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    arguments = ("--ros-args", "--params-file", str(file))
    with running("bridge", *arguments, environment=ros_environment(), status=1) as bridge:
        bridge.wait()
        assert f"parameter file '{file}' does not exist: correct the path" in bridge.output
        assert "Traceback" not in bridge.output


def test_remapping_rules_for_the_robots_are_those_of_their_node() -> None:
    from sensebind.nodes.robots.robot_nodes import remapping_rules

    given = ["--ros-args", "-r", "__ns:=/fleet", "-r", "camera/image:=front/image", "-r", "detector:a:=/b"]
    rules = [*given, "--remap", "embedder:imu:=imu/data", "-r", "/tf:=/other", "--", "-r", "x:=y"]
    expected = ["--ros-args", "-r", "camera/image:=front/image", "-r", "imu:=imu/data", "-r", "/tf:=/other"]
    assert remapping_rules(rules, "embedder") == expected
    assert remapping_rules(["-r", "x:=y"], "embedder") == []
    with pytest.raises(ConfigError, match="remapping of 'imu' to '/imu' would give all robots one topic"):
        remapping_rules(["--ros-args", "-r", "imu:=/imu"], "embedder")
