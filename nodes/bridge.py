"""The executable `bridge`: publishes embeddings and events over ZeroMQ, as msgpack, for programs without ROS."""

from __future__ import annotations

import sys

from sensebind.nodes.support.startup import exit_on_signal

exit_on_signal("bridge", __name__)  # before the imports below, which take seconds

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from rclpy.timer import Timer

from sensebind.fusion.config.parameters import BridgeNodeOptions
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.parameters import options_with_values
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.embeddings import received_embedding
from sensebind.fusion.io.received.events import received_event
from sensebind.fusion.io.received.newest import put_newest
from sensebind.fusion.io.received.spaces import KnownSpaces, received_space
from sensebind.fusion.io.topic_names import MAX_SENSORS, RECEIVED_NAME_PATTERN
from sensebind.fusion.io.wire import encode, topic_for
from sensebind.fusion.io.zmq_publisher import ZmqPublisher, is_readable_by_others
from sensebind.fusion.stream.accounting.topics import MAX_TOPICS
from sensebind.nodes.support.diagnostic_status import diagnostic_array, diagnostic_status
from sensebind.nodes.support.guards.callbacks import CallbackGuard
from sensebind.nodes.support.guards.log_limit import LogLimit
from sensebind.nodes.support.managed_node import ManagedNode, serve
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS, EVENT_INPUT_QOS, LATCHED_QOS
from sensebind.nodes.support.run import run_node

MORE_PORTS = 15  # that are tried after the default one: for sixteen robots on one computer


class BridgeNode(ManagedNode):
    """Forwards the messages on `embeddings/<sensor>` and `events`, from any publisher, while it is active.

    It finds the sensors in `embedding_space`, and topics of other publishers in the ROS graph. Messages that are not
    valid are refused (`CallbackGuard`). Its address is bound from `configure` to `release`, so that clients stay
    connected while it is inactive.
    """

    def __init__(self) -> None:
        super().__init__("bridge")
        self._publisher: ZmqPublisher | None = None
        self._diagnostics: Publisher | None = None
        self._active_entities: list[Any] = []  # subscriptions and timers
        self._embedding_subscriptions: dict[str, Any] = {}  # sensor, or `fused` → its subscription

    def configure(self, values: dict[str, Any]) -> None:
        options = options_with_values(BridgeNodeOptions(), values)
        self._log_limit = LogLimit()
        self._spaces = KnownSpaces()  # one whose vectors arrive may not be the newest
        self._callback_guard = CallbackGuard(self)
        # Topic of ZeroMQ → messages so far, which is the sequence number of the next one; the newest topic last.
        self._sent: dict[bytes, int] = {}
        for name in (messages.EVENT_TYPE, messages.EMBEDDING_TYPE, messages.EMBEDDING_SPACE_TYPE):
            message_type(name)  # fails here if it is not installed
        self._robot = self.get_namespace().strip("/")
        is_default = options.address == BridgeNodeOptions().address  # then clients expect no certain robot there
        self._publisher = ZmqPublisher(
            options.address, options.secret_key, options.authorized_keys, options.client_queue_size,
            MORE_PORTS if is_default else 0,
        )  # fmt: skip
        if is_default and self._publisher.endpoint != options.address:
            self.get_logger().warning(
                f"'{options.address}' is in use, perhaps by the bridge of another robot: this one publishes on "
                f"{self._publisher.endpoint}. Set 'address' to choose one"
            )
        if self._publisher.encrypted and is_readable_by_others(options.secret_key):
            self.get_logger().warning(f"other users can read '{options.secret_key}': run chmod 600 on it")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        how = "to clients with a key" if self._publisher.encrypted else "without encryption"
        self.get_logger().info(f"publishing on {self._publisher.endpoint} {how}")

    def activate(self) -> None:
        self._subscribe(FUSED)
        subscribe = self._callback_guard.subscribe
        # The steady clock runs even while a simulated clock stands still.
        self._active_entities += [
            subscribe("event", messages.EVENT_TYPE, "events", self._on_event, EVENT_INPUT_QOS),
            subscribe(
                "space", messages.EMBEDDING_SPACE_TYPE, "embedding_space", self._on_space, LATCHED_QOS, end="applied"
            ),
            self.create_timer(0.5, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME)),
            self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)),
        ]

    def deactivate(self) -> list[Publisher]:
        for entity in [*self._active_entities, *self._embedding_subscriptions.values()]:
            if isinstance(entity, Timer):
                self.destroy_timer(entity)
            else:
                self.destroy_subscription(entity)
        self._active_entities, self._embedding_subscriptions = [], {}
        return []

    def release(self) -> None:
        """Close the socket, which frees the address."""
        if self._publisher is not None:
            self._publisher.close()
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        self._publisher = self._diagnostics = None

    def finish(self) -> Iterable[Publisher]:
        found = super().finish()
        self.release()
        return found

    def _subscribe(self, sensor: str) -> None:
        if sensor in self._embedding_subscriptions:
            return
        topic = self.resolve_topic_name(f"embeddings/{sensor}")
        if len(self._embedding_subscriptions.keys() - {FUSED}) >= MAX_SENSORS:
            self._callback_guard.refuse(
                "sensor.size", f"{topic} is not forwarded: there are {MAX_SENSORS} other sensors"
            )
            return
        self._embedding_subscriptions[sensor] = self._callback_guard.subscribe(
            "embedding",
            messages.EMBEDDING_TYPE,
            f"embeddings/{sensor}",
            partial(self._on_embedding, sensor),
            EMBEDDING_INPUT_QOS,
        )

    def _on_space(self, message: Any) -> None:
        space = received_space(message)
        self._spaces.add(space)
        found = self._topics_in_graph()
        for sensor in self._embedding_subscriptions.keys() - space.topics - found:  # of an earlier space
            self.destroy_subscription(self._embedding_subscriptions.pop(sensor))
        for sensor in sorted(space.topics):
            self._subscribe(sensor)

    def _on_embedding(self, sensor: str, message: Any) -> None:
        space = self._spaces.get(message.space)
        embedding = received_embedding(message, space, sensor, any_modality=True)  # also of other publishers
        self._spaces.of_vector(embedding.space, embedding.vector.size)
        encoder = space.encoders.get(embedding.modality, "") if space is not None else ""
        self._send(f"embeddings/{sensor}", embedding, encoder)

    def _on_event(self, message: Any) -> None:
        self._send("events", received_event(message))

    def _send(self, topic: str, item: Embedding | Event, encoder: str = "") -> None:
        """Send a message of a topic, and count its end. `queue_full`: not every client gets it."""
        end = "dropped.inactive"  # cleaned up since this message arrived
        if self._publisher is not None:
            wire_topic = topic_for(item)
            sequence = self._sent.get(wire_topic, 0)
            is_queued = self._publisher.send(*encode(item, sequence, encoder, self._robot))
            put_newest(self._sent, wire_topic, sequence + 1, MAX_TOPICS)
            end = "used.forwarded" if is_queued else "dropped.queue_full"
        self._callback_guard.counts.of(topic)[end] += 1

    def _topics_in_graph(self) -> set[str]:
        """The sensors of all topics of embeddings that have a publisher."""
        prefix = self.resolve_topic_name("embeddings", only_expand=True) + "/"
        return {
            name.removeprefix(prefix)
            for name, types in self.get_topic_names_and_types()
            if name.startswith(prefix)
            and messages.EMBEDDING_TYPE in types
            and RECEIVED_NAME_PATTERN.fullmatch(name.removeprefix(prefix))
            and self.count_publishers(name)
        }

    def _poll(self) -> None:
        """Subscribe to new sensors in the graph, and log clients that connected, disconnected or were refused."""
        if self._publisher is None:
            return  # cleaned up since this timer fired
        for sensor in sorted(self._topics_in_graph()):
            self._subscribe(sensor)
        changes = self._publisher.poll_connection_events()
        if changes["refused"]:
            why = (
                "has no key of these clients, or they sent none"
                if self._publisher.encrypted
                else "is empty, and these clients used keys"
            )
            self.get_logger().warning(
                f"connections refused: {changes['refused']}; 'authorized_keys' {why}", throttle_duration_sec=10.0
            )
        has_changed = changes["accepted"] or changes["closed"] > changes["refused"]
        if has_changed and self._log_limit.allows("clients", time.monotonic()):  # one may connect again and again
            self.get_logger().info(f"clients connected: {self._publisher.client_count}")

    def _publish_diagnostics(self) -> None:
        if self._publisher is None or self._diagnostics is None:
            return  # cleaned up since this timer fired
        clients = self._publisher.client_count
        values = {
            "address": self._publisher.endpoint,
            "encrypted": self._publisher.encrypted,
            "clients": clients,
            **self._callback_guard.values(),
            **dict(sorted(self._publisher.counts.items())),
        }
        level, message = DiagnosticStatus.OK, f"{clients} clients"
        if warnings := [text for text in (self._publisher.drop_warning, self._callback_guard.warning) if text]:
            level, message = DiagnosticStatus.WARN, "; ".join([message, *warnings])
        status = diagnostic_status(self.get_fully_qualified_name(), "clients", level, message, values)
        self._diagnostics.publish(diagnostic_array(self, status))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status: 0; 1 if a parameter is wrong or a message type is missing."""
    return run_node("bridge", BridgeNode, args, serve=serve, finish=BridgeNode.finish)


if __name__ == "__main__":
    sys.exit(main())
