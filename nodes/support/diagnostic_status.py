"""What a node says of itself in `/diagnostics` (REP-107)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node


def diagnostic_status(name: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """One status, called ``sensebind: <name>``."""
    return DiagnosticStatus(
        level=level,
        name=f"sensebind: {name}",
        message=message,
        hardware_id="sensebind",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def diagnostic_array(node: Node, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """They, stamped with the node's clock."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = node.get_clock().now().to_msg()
    return array
