"""Differences of rclpy between ROS distributions. No other module distinguishes Humble, Jazzy and Kilted."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import rclpy.subscription
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # its name in Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError

__all__ = [
    "HAS_MESSAGE_INFO",
    "LOGGER_SERVICE_ARGUMENTS",
    "NO_EVENT_CALLBACKS",
    "SubscriptionEventCallbacks",
    "UnsupportedEventTypeError",
    "call_after_change",
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
