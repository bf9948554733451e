"""Messages for `/diagnostics` (REP-107)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node


def status_name(node: str, component: str) -> str:
    """The name of a status: ``robot1/embedder: vision``. `node`: the node's fully qualified name."""
    return f"{node.strip('/')}: {component}"


def diagnostic_status(
    node: str, component: str, level: bytes, message: str, values: Mapping[str, Any], hardware: str = "sensebind"
) -> DiagnosticStatus:
    """The status of a component of a node, such as a sensor of the embedder. See `status_name`.

    The namespace of the node, which usually names the robot, is part of the name and of the `hardware_id`.
    """
    namespace = node.strip("/").rpartition("/")[0]
    return DiagnosticStatus(
        level=level,
        name=status_name(node, component),
        message=message,
        hardware_id=f"{namespace}/{hardware}" if namespace else hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def diagnostic_array(node: Node, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """The statuses as one message, stamped with the node's clock."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = node.get_clock().now().to_msg()
    return array
