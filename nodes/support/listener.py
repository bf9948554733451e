"""Keeps what is published: embeddings, events, the space and the diagnostics. For the demo and for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event
from sensebind.fusion.io import messages
from sensebind.nodes.support.qos import EVENTS, LATCHED, VECTORS
from sensebind.nodes.support.types import message_type


class Listener(Node):
    """`embeddings` and `events` in order of arrival; `space` once it is told; `status` by name, the newest.

    They change while the node is spun: read them in the thread that spins it, between spins.
    """

    def __init__(self, on_event: Callable[[Event], None] = lambda event: None) -> None:
        super().__init__("listener")
        self.embeddings: list[Embedding] = []
        self.events: list[Event] = []
        self.space: Any = None
        self.status: dict[str, DiagnosticStatus] = {}
        self._on_event = on_event
        self._listening: set[str] = set()
        self._listen(FUSED)
        self.create_subscription(message_type(messages.EMBEDDING_SPACE), "embedding_space", self._take_space, LATCHED)
        self.create_subscription(message_type(messages.EVENT), "events", self._take_event, EVENTS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._take_status, 10)

    def figure(self, name: str, key: str) -> str:
        """A value of the newest status called ``sensebind: <name>``; empty where there is none."""
        status = self.status.get(f"sensebind: {name}")
        return next((pair.value for pair in status.values if pair.key == key), "") if status else ""

    def is_ready(self) -> bool:
        """Whether the embedder listens and the detector has its prompts."""
        detector = self.status.get("sensebind: detector")
        return self.space is not None and detector is not None and detector.level == DiagnosticStatus.OK

    def _listen(self, modality: str) -> None:
        if modality not in self._listening:
            self._listening.add(modality)
            self.create_subscription(message_type(messages.EMBEDDING), f"embeddings/{modality}", self._take, VECTORS)

    def _take(self, message: Any) -> None:
        self.embeddings.append(messages.embedding_of(message))

    def _take_space(self, message: Any) -> None:
        self.space = message
        for modality in message.modalities:
            if modality != "text":
                self._listen(modality)

    def _take_event(self, message: Any) -> None:
        event = messages.event_of(message)
        self.events.append(event)
        self._on_event(event)

    def _take_status(self, message: DiagnosticArray) -> None:
        self.status.update({status.name: status for status in message.status})
