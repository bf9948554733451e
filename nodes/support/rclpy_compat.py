"""Differences of rclpy between ROS distributions. No other module distinguishes Humble, Jazzy and Kilted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import rclpy.subscription
from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # its name in Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError

__all__ = [
    "HAS_MESSAGE_INFO",
    "LOGGER_SERVICE_ARGUMENTS",
    "NO_EVENT_CALLBACKS",
    "RefusedTransitionsMixin",
    "SubscriptionEventCallbacks",
    "UnsupportedEventTypeError",
    "call_after_change",
    "publisher_of",
]

# Whether a subscription's callback may have a second argument with the message's sequence number: not in Humble.
HAS_MESSAGE_INFO = hasattr(rclpy.subscription, "MessageInfo")

# For the constructor of a node: a service that sets its log level, if rclpy provides one; Humble's does not.
LOGGER_SERVICE_ARGUMENTS: dict[str, Any] = (
    {"enable_logger_service": True} if "enable_logger_service" in inspect.signature(Node.__init__).parameters else {}
)

# `event_callbacks` of a publisher that does not warn of subscribers whose QoS does not match: those warn themselves. So
# the executor checks two events less for each message.
NO_EVENT_CALLBACKS = PublisherEventCallbacks(use_default_callbacks=False)


def call_after_change(node: Node, name: str, callback: Callable[[Any], None]) -> None:
    """Call `callback` with each new value of a parameter. Humble calls it before the value is set, and also if another
    parameter of the same call is refused."""

    def on_change(changes: list[Any]) -> None:
        for change in changes:
            if change.name == name:
                callback(change.value)

    def before_change(changes: list[Any]) -> SetParametersResult:
        on_change(changes)
        return SetParametersResult(successful=True)

    if hasattr(node, "add_post_set_parameters_callback"):
        node.add_post_set_parameters_callback(on_change)
    else:
        node.add_on_set_parameters_callback(before_change)


def publisher_of(info: Mapping[str, Any]) -> bytes | None:
    """The identity of a message's publisher, from its `MessageInfo`. None where rclpy does not say: in Jazzy."""
    identity = info.get("publisher_gid")
    return bytes(identity["data"]) if identity else None


class RefusedTransitionsMixin:
    """Of a lifecycle node. A request for a transition that its state does not allow is answered with `success: false`.

    In Kilted, rclpy does this. In Jazzy and Humble it raises an exception in the executor: the process would end, and
    Nav2's lifecycle manager, which waits for the answer without a limit, would wait for ever.
    """

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802, rclpy's name
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except rclpy_implementation.RCLError as error:
            reason = str(error).split(", at ")[0].strip()
            self.get_logger().error(f"a lifecycle transition was refused: {reason}")  # type: ignore[attr-defined]
            response.success = False
            return response
