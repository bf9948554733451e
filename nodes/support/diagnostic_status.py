"""Messages for `/diagnostics` (REP-107)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node


def diagnostic_status(name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """A status with the name ``sensebind: <name>``."""
    return DiagnosticStatus(
        level=level,
        name=f"sensebind: {name}",
        message=message,
        hardware_id="sensebind",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def diagnostic_array(node: Node, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """The statuses as one message, stamped with the node's clock."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = node.get_clock().now().to_msg()
    return array
