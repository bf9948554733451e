"""Environments of the processes that a benchmark starts, and the error if one fails."""

from __future__ import annotations

import os
import sys

from sensebind.fusion.core.errors import SensebindError
from sensebind.nodes.support.transport import isolated_environment


class ProcessError(SensebindError):
    """A process did not start, or it stopped early; the message holds its last output."""

    __str__ = Exception.__str__  # the output has lines


def subprocess_environment() -> dict[str, str]:
    """The environment in which a child imports the same modules as this process, also from a bare checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def ros_environment() -> dict[str, str]:
    """The environment of nodes that discover only each other, with one thread each unless OMP_NUM_THREADS is set. Sets
    its ROS variables in this process too: after `rclpy.init` it can communicate with these nodes."""
    environment = isolated_environment(
        {**subprocess_environment(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    )
    os.environ.update({k: v for k, v in environment.items() if k.startswith(("ROS_", "FAST"))})
    return environment
