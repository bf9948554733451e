"""Parameter files and requests of any content: an error of one line that names the file and the key, or a refusal."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.ros_processes import Executable, peer, ros_environment, run_ros_program, running
from helpers.ros_services import NodeServices
from sensebind.fusion.config.files import check_parameter_file, files_with
from sensebind.fusion.core.errors import ConfigError

NODES = ("detector", "bridge", "event_recorder", "player", "embedder")
HEAD = "/**:\n  ros__parameters:\n    "
BROKEN = {  # contents of a file → what the error must name
    f"{HEAD}detectors: [1, a]": "'detectors' mixes values of the types int and str",
    f"{HEAD}detectors: [[a], [b]]": "'detectors' contains a list",
    f"{HEAD}detectors: [{{a: 1}}]": "'detectors' contains a dict",
    f"{HEAD}'': 1": "without a name",
    f"{HEAD}a: 1\n    a: 2": "'a' twice",
    f"{HEAD}a: {'[' * 5000}{']' * 5000}": "levels of nesting",
    f"{HEAD}a: {'9' * 500}": "a number of 500 characters",
    f"{HEAD}a: !!python/object/apply:os.system ['true']": "which is not used here",
    "/**:\n  ros__parameters:\n": "must contain 'ros__parameters:' with names and values",
    "/**:\n  ros__parameters: [1]\n": "must contain 'ros__parameters:' with names and values",
    "/**:\n  rate: 1\n": "must contain 'ros__parameters:' with names and values",
    "- a\n": "must contain '/**:'",
    "\udcff\udcff": "not text in UTF-8",
}


@pytest.mark.parametrize("text", BROKEN, ids=[name[-30:] for name in BROKEN.values()])
def test_a_file_that_ros_cannot_read_is_refused_with_the_file_and_the_key(text: str, tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as refused:
        check_parameter_file(file)
    assert str(file) in str(refused.value) and BROKEN[text] in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_neither_a_folder_nor_a_pipe_is_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError, match="is not a file"):
            check_parameter_file(path)
    with pytest.raises(ConfigError, match="does not exist"):
        check_parameter_file(tmp_path / "missing.yaml")


def test_the_file_that_sets_a_parameter_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(f"{HEAD}imu: {{hop: 1}}\n")
    other.write_text(f"{HEAD}rate: 1\n")
    assert files_with("imu.hop", [str(one), str(other), "missing"]) == [str(one)]


def ends_with_one_line(node: str, file: Path, what: str) -> None:
    command = [sys.executable, "-m", f"sensebind.nodes.{node}", "--ros-args", "--params-file", str(file)]
    process = Executable(command, ros_environment("sensebind_msgs"))
    try:
        assert process.wait() == 1, process.output
    finally:
        process.kill()
    own = [line for line in process.lines if "[rcl]" not in line and "Invalid type for" not in line]  # ROS's own lines
    assert len(own) == 1 and what in own[0] and str(file) in own[0], process.output


@pytest.mark.slow  # the quick siblings: above
@pytest.mark.parametrize("node", NODES)
def test_a_node_ends_with_one_line_and_status_1(node: str, tmp_path: Path) -> None:
    names = {
        "detector": "tick_timeout",
        "event_recorder": "snapshot_delay",
        "bridge": "client_queue_size",
        "player": "rate",
    }
    name = names.get(node, "")
    cases = {
        f"{HEAD}x: [1, a]": "'x'",
        f"{HEAD}x: &anchor 1\n    y: *anchor": "aliasing",  # found by rcl, which names the line
        f"{HEAD}a: 1\n    a: 2": "'a' twice",
    }
    if name:  # an embedder waits for a correction instead
        cases |= {f"{HEAD}{name}: .nan": f"'{name}'", f"{HEAD}use_sim_time: maybe": "'use_sim_time'"}
    jobs = []
    for number, (text, what) in enumerate(cases.items()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text + "\n")
        jobs.append((node, file, what))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda job: ends_with_one_line(*job), jobs))


def test_a_hostile_request_to_set_a_parameter_is_refused_and_the_node_lives() -> None:
    environment = ros_environment("sensebind_msgs")
    with running("event_recorder", environment=environment) as process, peer(environment) as me:
        from rcl_interfaces.msg import Parameter, ParameterValue
        from rcl_interfaces.srv import SetParameters, SetParametersAtomically

        services = NodeServices(me, "/event_recorder")
        for value in (math.nan, math.inf, 2**63 - 1, "x" * 10**6, ["a", "b"], [math.nan] * 100):
            assert "snapshot_delay" in services.set("snapshot_delay", value)
        for name in ("", ".", "a\n[FATAL] forged", "y" * 5000, "qos_overrides./clock.subscription.depth"):
            assert services.set(name, 1)
        assert services.set("use_sim_time", "maybe")
        no_type = Parameter(name="snapshot_delay", value=ParameterValue(type=99))
        several = services.call(SetParameters, "set_parameters", SetParameters.Request(parameters=[no_type, no_type]))
        assert [result.successful for result in several.results] == [False, False] and several.results[0].reason
        request = SetParametersAtomically.Request(parameters=[no_type])
        assert not services.call(SetParametersAtomically, "set_parameters_atomically", request).result.successful
        assert process.is_running and services.state() == "active"
        assert "Traceback" not in process.output and not any(line.startswith("[FATAL] f") for line in process.lines)


LONG_NAMES = """
import rclpy
from sensebind.nodes.bridge import BridgeNode
from sensebind.nodes.embedder import EmbedderNode
from sensebind.nodes.support.run import run_node

name = "x" * 300  # longer than a file system allows
assert run_node("bridge", BridgeNode, ["--ros-args", "--params-file", name]) == 1
rclpy.init(args=["--ros-args", "-p", f"weights:={name}"])
node = EmbedderNode()
node.trigger_configure()
assert node.configuration_error is not None
"""


def test_a_file_name_that_no_file_can_have_is_an_error_in_one_line() -> None:
    run = run_ros_program(LONG_NAMES)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr[-3000:]
    assert len([line for line in run.stderr.splitlines() if "File name too long" in line]) == 2, run.stderr[-3000:]
