"""Parameter files of nodes: warnings of sections that ROS ignores, and the files that a launch file makes."""

from __future__ import annotations

import atexit
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rclpy.node import Node

from sensebind.fusion.config.files import (
    MADE_FROM,
    files_with,
    lost_sections,
    original_path,
    read_parameter_file,
    unknown_sections,
    write_parameter_file,
)
from sensebind.fusion.core.errors import ConfigError, printable


def parameter_files(arguments: Sequence[str]) -> list[str]:
    """The parameter files that the ROS arguments of a command line name."""
    pairs = zip(arguments, arguments[1:], strict=False)
    return [value for name, value in pairs if name == "--params-file"]


def source_files() -> list[str]:
    """The parameter files of this process, as the user named them."""
    return [original_path(file) for file in parameter_files(sys.argv)]


def with_source_file(text: str) -> str:
    """An error of a parameter, with the parameter file of this process that sets it, if there is one."""
    found = re.search(r"parameter '([^']+)'", text)
    files = files_with(found[1], parameter_files(sys.argv)) if found else []
    places = ", ".join(f"'{original_path(file)}'" for file in files if f"'{file}'" not in text)
    return f"{text} (set in {places})" if places else text


def warn_of_unused_sections(node: Node) -> None:
    """Log a warning for each section of the parameter files of this process that ROS would ignore silently."""
    name = node.get_name()
    for file in parameter_files(sys.argv):
        try:
            found = unknown_sections(file, {name}) + lost_sections(file, name, node.get_namespace(), as_ros=True)
        except ConfigError as error:
            found = [str(error)]
        for text in found:
            node.get_logger().warning(printable(text))


def make_node_files(
    path: str | Path,
    overrides: Mapping[str, Mapping[str, Any]],
    namespace: str,
    warn: Callable[[str], None],
) -> dict[str, str]:
    """Make from one parameter file a file for each node, which applies in any namespace. Returns node → file.

    `overrides`: node → values that take precedence over those of the file. `namespace`: that of the nodes, such as
    ``/robot1``; empty or ``/``: none. `warn` is called for each section that no node uses. Raises `ConfigError` for a
    file that cannot be read. The files are deleted at the end of this process.
    """
    for text in unknown_sections(path):
        warn(text)
    found, folder = {}, _folder()
    for node, own in overrides.items():
        for text in lost_sections(path, node, namespace):
            warn(text)
        given = {**read_parameter_file(path, node, namespace), **own}
        values = {name: value for name, value in given.items() if value is not None}  # null: not set, as in a dump
        file = folder / f"{namespace.strip('/').replace('/', '_') or 'root'}_{node}.yaml"
        write_parameter_file(file, values, [MADE_FROM + str(Path(path).absolute())])
        found[node] = str(file)
    return found


@cache
def _folder() -> Path:
    """A folder for the parameter files of this process."""
    folder = tempfile.mkdtemp(prefix="sensebind_launch_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
