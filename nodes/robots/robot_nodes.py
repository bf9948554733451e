"""The node of each robot of an embedder that serves several: it has the robot's topics in its namespace."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node
from rclpy.parameter import Parameter

from sensebind.fusion.core.errors import ConfigError

ROS_ARGUMENTS, END_OF_ROS_ARGUMENTS = "--ros-args", "--"


def remapping_rules(arguments: Sequence[str], node_name: str) -> list[str]:
    """The remapping rules of a command line for a node, as ROS arguments, without those that name it or its namespace.

    Raises `ConfigError` for a rule that would give the robots one topic.
    """
    found, within = [], False
    for before, argument in zip(["", *arguments], arguments, strict=False):
        within = argument == ROS_ARGUMENTS or (within and argument != END_OF_ROS_ARGUMENTS)
        if not within or before not in ("-r", "--remap"):
            continue
        old, _, new = argument.partition(":=")
        node, _, old = old.rpartition(":")
        if node and node.rpartition("/")[2] != node_name:
            continue  # a rule for another node
        if new.startswith("/") and not old.startswith(("/", "__")):
            raise ConfigError(
                f"the remapping of '{old}' to '{new}' would give all robots one topic: remap it to '{new.lstrip('/')}'"
            )
        if old not in ("__node", "__name", "__ns"):
            found += ["-r", f"{old}:={new}"]
    return [ROS_ARGUMENTS, *found] if found else []


def without_parameter_files(arguments: Sequence[str]) -> list[str]:
    """A command line without its parameter files. A worker gets its values from the embedder, and may be started again
    when a file is no longer there or is being edited."""
    pairs = zip(arguments, ["", *arguments], strict=False)
    return [now for now, before in pairs if "--params-file" not in (now, before)]


def make_robot_node(name: str, namespace: str, arguments: Sequence[str], use_sim_time: bool) -> Node:
    """A node for one robot. `arguments`: from `remapping_rules`. It has no parameters: the embedder has them."""
    return Node(
        name,
        namespace=namespace,
        cli_args=list(arguments),
        use_global_arguments=False,  # they may name the embedder's node and namespace
        start_parameter_services=False,
        parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
    )


def set_clock(node: Node, use_sim_time: bool) -> None:
    """Let the node of a robot use the time of `/clock`, or that of the system."""
    node.set_parameters([Parameter("use_sim_time", value=use_sim_time)])
