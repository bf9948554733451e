"""What an embedder publishes to a robot about its space: the topic `embedding_space` and the service `embed_text`."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.core.space import Space, limited_competences, nearest_recognisable
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.phrases import checked_phrases
from sensebind.nodes.callback_guard import error_text
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import LATCHED_QOS
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS

MESSAGE_FACTORY = RosMessageFactory()
NEAREST_SLICE = 16  # phrases for which similar ones are looked up together
SLICE_TIME = 0.02  # s in which phrases are embedded, before the executor serves the sensors for as long
TURN_TIME = 0.005  # s after which the executor goes on if no message arrives


class ReleasedError(SensebindError):
    """The space was released while phrases were embedded."""


class NextTurn:
    """An awaitable that lets the executor run other callbacks once, and then goes on."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SpaceTopics:
    """Publishes the space once, for late subscribers too, and embeds phrases.

    A call is served in slices, so that the sensors of this executor are served meanwhile. The calls of one robot are
    served one after the other.

    `prefix`: the namespace of the robot with a slash at its end; empty: that of the node. `specs`: sensor → its
    windows.
    """

    def __init__(self, node: Node, prefix: str, space: Space, specs: Mapping[str, WindowSpec]) -> None:
        self._node, self._space = node, space
        self._is_released = self._is_embedding = False
        self._publisher = node.create_publisher(
            message_type(messages.EMBEDDING_SPACE_TYPE),
            f"{prefix}embedding_space",
            LATCHED_QOS,
            event_callbacks=NO_EVENT_CALLBACKS,
        )
        now = node.get_clock().now().nanoseconds
        self._publisher.publish(messages.space_message(MESSAGE_FACTORY, space, specs, now))
        # A group of its own: the callbacks of the node's group wait for each other.
        self._service = node.create_service(
            message_type(messages.EMBED_TEXT_TYPE),
            f"{prefix}embed_text",
            self._embed_text,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    def release(self) -> None:
        """Destroy the publisher and the service. A call that is being served is answered first, with a failure."""
        self._is_released = True
        self._node.destroy_publisher(self._publisher)
        if not self._is_embedding:
            self._node.destroy_service(self._service)

    async def _embed_text(self, request: Any, response: Any) -> Any:
        self._is_embedding = True
        # Without it, an executor without messages would wait before it goes on.
        clock, group = Clock(clock_type=ClockType.STEADY_TIME), MutuallyExclusiveCallbackGroup()
        timer = self._node.create_timer(TURN_TIME, lambda: None, callback_group=group, clock=clock)
        try:
            await self._embed(request, response)
            response.success = True
        except (SensebindError, ValueError, RuntimeError) as error:
            response.message = f"embed_text: {error}"
        except Exception as error:  # of a model; the sensors need this node
            response.message = f"embed_text: {error_text(error)}"
        self._node.destroy_timer(timer)
        self._is_embedding = False
        if self._is_released and self._node.executor is not None:  # the response is sent before this task runs
            self._node.executor.create_task(self._node.destroy_service, self._service)
        return response

    async def _embed(self, request: Any, response: Any) -> None:
        texts = checked_phrases(request.texts)
        vectors: list[Any] = []
        size = 1
        while len(vectors) < len(texts):
            began = time.monotonic()
            vectors.extend(self._space.embed_text(texts[len(vectors) : len(vectors) + size]).numpy())
            seconds = time.monotonic() - began
            size = max(1, min(2 * size, int(size * SLICE_TIME / max(seconds, 1e-6))))
            await self._serve_others(seconds)
        competences: dict[str, Any] = limited_competences(self._space, texts)
        nearest: dict[str, list[Any]] = {modality: [] for modality in competences}
        for first in range(0, len(texts), NEAREST_SLICE):
            began = time.monotonic()
            part = slice(first, first + NEAREST_SLICE)
            found = nearest_recognisable(self._space, texts[part], {m: v[part] for m, v in competences.items()})
            for modality, own in found.items():
                nearest[modality].extend(own)
            await self._serve_others(time.monotonic() - began)
        now = self._node.get_clock().now().nanoseconds
        response.embeddings = [
            messages.embedding_message(MESSAGE_FACTORY, Embedding(TEXT, now, now, self._space.id, 1.0, vector))
            for vector in np.asarray(vectors, np.float32)
        ]
        response.objects = self._space.named_objects(texts)
        response.competences = messages.competence_messages(MESSAGE_FACTORY, competences, nearest)

    async def _serve_others(self, seconds: float) -> None:
        """Let the executor run other callbacks for `seconds`, at least one round. Raises if the space was released."""
        end = time.monotonic() + seconds
        while True:
            await NextTurn()
            if self._is_released:
                raise ReleasedError("the embedder was cleaned up: ask again when it is configured")
            if time.monotonic() >= end:
                return
