"""Warns of sections in a node's parameter files that ROS applies to no node, without a word."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rclpy.node import Node

from sensebind.fusion.config.files import lost_sections, original_path, unknown_sections
from sensebind.fusion.core.errors import ConfigError


def parameter_files(arguments: Sequence[str]) -> list[str]:
    """The parameter files that the ROS arguments of a command line name."""
    pairs = zip(arguments, arguments[1:], strict=False)
    return [value for name, value in pairs if name == "--params-file"]


def source_files() -> list[str]:
    """The parameter files of this process, as the user named them."""
    return [original_path(file) for file in parameter_files(sys.argv)]


def warn_of_unused_sections(node: Node) -> None:
    """Log a warning for each section of the parameter files of this process that ROS would pass over silently."""
    name = node.get_name()
    for file in parameter_files(sys.argv):
        try:
            found = unknown_sections(file, {name}) + lost_sections(file, name, node.get_namespace(), as_ros=True)
        except ConfigError as error:
            found = [str(error)]
        for text in found:
            node.get_logger().warning(text)
