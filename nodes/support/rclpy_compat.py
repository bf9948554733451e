"""What rclpy has in one ROS distribution and not in another: from here on Humble, Jazzy and Kilted look alike."""

from __future__ import annotations

import inspect
from typing import Any

import rclpy.subscription
from rclpy.node import Node

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble's name for it
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError

__all__ = [
    "HAS_MESSAGE_INFO",
    "LOGGER_SERVICE_ARGUMENTS",
    "NO_EVENT_CALLBACKS",
    "SubscriptionEventCallbacks",
    "UnsupportedEventTypeError",
]

# Whether a subscription's callback may take a second argument, with its publisher's number: not in Humble.
HAS_MESSAGE_INFO = hasattr(rclpy.subscription, "MessageInfo")

# For the constructor of a node: its log level may be set by a service, where rclpy knows how; Humble's does not.
LOGGER_SERVICE_ARGUMENTS: dict[str, Any] = (
    {"enable_logger_service": True} if "enable_logger_service" in inspect.signature(Node.__init__).parameters else {}
)

# `event_callbacks` of a publisher that says nothing of subscribers whose QoS does not match: they say it themselves. So
# there are two events less, which the executor looks at whenever a message comes.
NO_EVENT_CALLBACKS = PublisherEventCallbacks(use_default_callbacks=False)
