"""The executable `bridge`: embeddings and events to programs without ROS, by ZeroMQ and msgpack."""

from __future__ import annotations

import sys
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from sensebind.fusion.config.parameters import BridgeNodeOptions
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.parameters import options_from
from sensebind.fusion.io import messages
from sensebind.fusion.io.wire import encode, topic
from sensebind.fusion.io.zmq_publisher import Outlet, is_exposed
from sensebind.nodes.support.parameters import OPTIONS, KeepsEmptyLists, declare
from sensebind.nodes.support.qos import EVENTS, LATCHED, VECTORS
from sensebind.nodes.support.run import run
from sensebind.nodes.support.status import array_of, status_of
from sensebind.nodes.support.types import message_type


class Bridge(KeepsEmptyLists, Node):
    """Passes on what is published under `embeddings/`, whoever publishes it, and `events`.

    Modalities are learnt from `embedding_space` and, for those that it does not name, from the graph.
    """

    def __init__(self) -> None:
        super().__init__("bridge", **OPTIONS)
        options = options_from(BridgeNodeOptions(), declare(self, "bridge", read_only=True))
        self._modalities: set[str] = set()
        self._outlet = Outlet(options.address, options.secret_key, options.authorized_keys, options.client_queue_size)
        try:
            if self._outlet.encrypted and is_exposed(options.secret_key):
                self.get_logger().warning(f"others can read '{options.secret_key}': chmod 600 it")
            self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
            self._subscribe(FUSED)
            self.create_subscription(message_type(messages.EVENT), "events", self._take_event, EVENTS)
            self.create_subscription(
                message_type(messages.EMBEDDING_SPACE), "embedding_space", self._take_space, LATCHED
            )
            # Steady, so that they go on while a simulated clock stands still.
            self.create_timer(0.5, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
            self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        except BaseException:
            self._outlet.close()
            raise
        how = "to clients with a key" if self._outlet.encrypted else "without encryption"
        self.get_logger().info(f"publishing on {self._outlet.endpoint} {how}")

    def finish(self) -> None:
        """Free the address."""
        self._outlet.close()

    def _subscribe(self, modality: str) -> None:
        if modality not in self._modalities:
            self._modalities.add(modality)
            self.create_subscription(
                message_type(messages.EMBEDDING), f"embeddings/{modality}", self._take_embedding, VECTORS
            )

    def _take_space(self, message: Any) -> None:
        for modality in message.modalities:
            self._subscribe(modality)

    def _take_embedding(self, message: Any) -> None:
        self._send(messages.embedding_of(message))

    def _take_event(self, message: Any) -> None:
        self._send(messages.event_of(message))

    def _send(self, item: Embedding | Event) -> None:
        self._outlet.send(*encode(item, self._outlet.counts[topic(item).decode()]))

    def _look(self) -> None:
        """For new modalities in the graph, and for clients that came or went."""
        prefix = self.resolve_topic_name("embeddings", only_expand=True) + "/"
        for name, types in self.get_topic_names_and_types():
            modality = name.removeprefix(prefix)
            if name.startswith(prefix) and messages.EMBEDDING in types and "/" not in modality:
                self._subscribe(modality)
        news = self._outlet.look()
        if news["refused"]:
            why = (
                "has no key of theirs, or they gave none" if self._outlet.encrypted else "is empty, and they used keys"
            )
            self.get_logger().warning(
                f"{news['refused']} connections were refused: 'authorized_keys' {why}", throttle_duration_sec=10.0
            )
        if news["accepted"] or news["closed"] > news["refused"]:
            self.get_logger().info(f"{self._outlet.clients} clients")

    def _diagnose(self) -> None:
        clients = self._outlet.clients
        figures = {
            "address": self._outlet.endpoint,
            "encrypted": self._outlet.encrypted,
            "clients": clients,
            **dict(sorted(self._outlet.counts.items())),
        }
        status = status_of("bridge", DiagnosticStatus.OK, f"{clients} clients", figures)
        self._diagnostics.publish(array_of(self, status))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Exit status: 0, or 1 if a parameter is wrong or a message type missing."""
    return run("bridge", Bridge, args, finish=Bridge.finish)


if __name__ == "__main__":
    sys.exit(main())
