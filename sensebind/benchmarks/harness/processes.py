"""The processes that a benchmark starts: what they inherit, and the error when one fails."""

from __future__ import annotations

import os
import sys

from sensebind.fusion.core.errors import SensebindError
from sensebind.nodes.support.transport import isolated_environment


class ProcessError(SensebindError):
    """A process that did not start, or that stopped; the message holds what it printed last."""


def subprocess_environment() -> dict[str, str]:
    """The environment in which a child imports the same modules as this process, also from a bare checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def ros_environment() -> dict[str, str]:
    """The environment of nodes that meet each other and nobody else, with one thread each unless OMP_NUM_THREADS says
    otherwise. This process joins them if it calls `rclpy.init` afterwards."""
    environment = isolated_environment(
        {**subprocess_environment(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    )
    os.environ.update({k: v for k, v in environment.items() if k.startswith(("ROS_", "FAST"))})
    return environment
