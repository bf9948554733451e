"""Differences of rclpy between ROS distributions. No other module distinguishes Humble, Jazzy and Kilted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import rclpy.subscription
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.qos import QoSProfile

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # its name in Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError

__all__ = [
    "LOGGER_SERVICE_ARGUMENTS",
    "NO_EVENT_CALLBACKS",
    "SubscriptionEventCallbacks",
    "call_after_change",
    "numbered_subscription",
]

# Whether a subscription's callback may have a second argument with the message's sequence number: not in Humble.
HAS_MESSAGE_INFO = hasattr(rclpy.subscription, "MessageInfo")
MAX_SEQUENCE_NUMBER = 2**63  # a sequence number this large means that the middleware provides none

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


def numbered_subscription(
    node: Node,
    message_class: type,
    topic: str,
    on_message: Callable[[Any, int | None, bytes | None], None],
    on_lost: Callable[[int], None],
    qos: QoSProfile,
    raw: bool = False,
) -> Any:
    """Subscribe to a topic. `on_message` is called with each message (`raw`: with its bytes), the number that the
    middleware has given to it, from 1 for each publisher, and the identity of its publisher; None if rclpy or the
    middleware gives none. `on_lost` is called with how many messages the middleware reports as lost since the last
    call; not every middleware does."""

    def on_numbered(message: Any, info: Any) -> None:
        number = info.get("publication_sequence_number")
        is_number = number is not None and 0 < number < MAX_SEQUENCE_NUMBER
        on_message(message, number if is_number else None, publisher_of(info))

    def on_unnumbered(message: Any) -> None:
        on_message(message, None, None)

    arguments = (message_class, topic, on_numbered if HAS_MESSAGE_INFO else on_unnumbered, qos)
    callbacks = SubscriptionEventCallbacks(message_lost=lambda info: on_lost(info.total_count_change))
    try:
        return node.create_subscription(*arguments, event_callbacks=callbacks, raw=raw)
    except UnsupportedEventTypeError:
        return node.create_subscription(*arguments, raw=raw)
