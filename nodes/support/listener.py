"""A node that stores the published embeddings, events, space and diagnostics. For the demo and for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.embeddings import received_embedding
from sensebind.fusion.io.received.events import received_event
from sensebind.fusion.io.received.spaces import ReceivedSpace, received_space
from sensebind.nodes.support.guards.callbacks import CallbackGuard
from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS, LATCHED_QOS


class Listener(Node):
    """Stores `embeddings`, `events` in order of arrival; `space` once it is published; `statuses`, the newest of each
    component of the nodes in its namespace: `vision`, `audio`, … of the embedder, `events` of the detector.

    They change while the node is spun: read them in the thread that spins it, between spins. Messages that are not
    valid are refused and logged (`CallbackGuard`).
    """

    def __init__(self, on_event: Callable[[Event], None] = lambda event: None) -> None:
        super().__init__("listener")
        self.embeddings: list[Embedding] = []
        self.events: list[Event] = []
        self.space: Any = None
        self.statuses: dict[str, DiagnosticStatus] = {}
        self._on_event = on_event
        self._callback_guard = CallbackGuard(self)
        self._received_space: ReceivedSpace | None = None  # what was checked of `space`
        self._subscribed: set[str] = set()
        self._subscribe(FUSED)
        self._listen("space", messages.EMBEDDING_SPACE_TYPE, "embedding_space", self._on_space, LATCHED_QOS)
        self._listen("event", messages.EVENT_TYPE, "events", self._on_event_message, EVENT_QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def diagnostic_value(self, name: str, key: str) -> str:
        """A value of the newest status of a component; empty if there is none."""
        status = self.statuses.get(name)
        return next((pair.value for pair in status.values if pair.key == key), "") if status else ""

    def is_ready(self) -> bool:
        """Whether the embedder has published its space and the detector has the vectors of its prompts."""
        detector = self.statuses.get("events")
        return self.space is not None and detector is not None and detector.level == DiagnosticStatus.OK

    def _listen(self, kind: str, type_name: str, topic: str, use: Callable[[Any], None], qos: QoSProfile) -> None:
        self._callback_guard.subscribe(kind, type_name, topic, use, qos, end="stored")

    def _subscribe(self, sensor: str) -> None:
        if sensor not in self._subscribed:
            self._subscribed.add(sensor)
            use = partial(self._on_embedding, sensor)
            self._listen("embedding", messages.EMBEDDING_TYPE, f"embeddings/{sensor}", use, EMBEDDING_QOS)

    def _on_embedding(self, sensor: str, message: Any) -> None:
        self.embeddings.append(received_embedding(message, self._received_space, sensor, any_modality=True))

    def _on_space(self, message: Any) -> None:
        self._received_space = received_space(message)
        self.space = message
        for sensor in sorted(self._received_space.topics):
            self._subscribe(sensor)

    def _on_event_message(self, message: Any) -> None:
        event = received_event(message)
        self.events.append(event)
        self._on_event(event)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node, _, component = status.name.rpartition(": ")
            if f"/{node}".rpartition("/")[0] == self.get_namespace().rstrip("/"):
                self.statuses[component] = status
