"""What an embedder publishes to a robot about its space: the topic `embedding_space` and the service `embed_text`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.node import Node

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.core.space import Space, SpaceError, limited_competences, nearest_recognisable
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.io import messages
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import LATCHED_QOS
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS

MESSAGE_FACTORY = RosMessageFactory()


class SpaceTopics:
    """Publishes the space once, for late subscribers too, and embeds phrases.

    `prefix`: the namespace of the robot with a slash at its end; empty: that of the node. `specs`: sensor → its
    windows.
    """

    def __init__(self, node: Node, prefix: str, space: Space, specs: Mapping[str, WindowSpec]) -> None:
        self._node, self._space = node, space
        self._publisher = node.create_publisher(
            message_type(messages.EMBEDDING_SPACE_TYPE),
            f"{prefix}embedding_space",
            LATCHED_QOS,
            event_callbacks=NO_EVENT_CALLBACKS,
        )
        now = node.get_clock().now().nanoseconds
        self._publisher.publish(messages.space_message(MESSAGE_FACTORY, space, specs, now))
        self._service = node.create_service(
            message_type(messages.EMBED_TEXT_TYPE), f"{prefix}embed_text", self._embed_text
        )

    def release(self) -> None:
        """Destroy the publisher and the service."""
        self._node.destroy_publisher(self._publisher)
        self._node.destroy_service(self._service)

    def _embed_text(self, request: Any, response: Any) -> Any:
        texts = list(request.texts)
        try:
            vectors: Any = self._space.embed_text(texts).numpy() if texts else []
            competences = limited_competences(self._space, texts)
            nearest = nearest_recognisable(self._space, texts, competences)
            objects = self._space.named_objects(texts)
        except (ValueError, RuntimeError, SpaceError) as error:
            response.message = f"embed_text: {error}"
            return response
        now = self._node.get_clock().now().nanoseconds
        response.success = True
        response.embeddings = [
            messages.embedding_message(MESSAGE_FACTORY, Embedding(TEXT, now, now, self._space.id, 1.0, vector))
            for vector in vectors
        ]
        response.objects = objects
        response.competences = messages.competence_messages(MESSAGE_FACTORY, competences, nearest)
        return response
