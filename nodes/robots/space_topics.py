"""What an embedder publishes to a robot about its space: the topic `embedding_space` and the service `embed_text`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import SensebindError, error_text
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.core.space import Space, limited_competences, nearest_recognisable
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.phrases import checked_phrases
from sensebind.nodes.robots.background_thread import BackgroundThread
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import LATCHED_QOS
from sensebind.nodes.support.rclpy_compat import NO_EVENT_CALLBACKS

MESSAGE_FACTORY = RosMessageFactory()
NEAREST_SLICE = 16  # phrases for which similar ones are looked up together
SLICE_TIME = 0.02  # s in which phrases are embedded, before the encoders of the sensors have the processor for as long
MAX_PAUSE = 0.1  # s; the pause after a slice that took longer, as the first, which may load the encoder
TURN_TIME = 0.005  # s after which the executor goes on if no message arrives


class ReleasedError(SensebindError):
    """The space was released while phrases were embedded."""


class NextTurn:
    """An awaitable that lets the executor run other callbacks once, and then goes on."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class SpaceTopics:
    """Publishes the space once, for late subscribers too, and embeds phrases.

    A call is served in slices in the thread `background`, so that the executor serves the sensors meanwhile, also while
    the first call loads the text encoder. The calls of one robot are served one after the other.

    `prefix`: the namespace of the robot with a slash at its end; empty: that of the node. `specs`: sensor → its
    windows.
    """

    def __init__(
        self, node: Node, prefix: str, space: Space, specs: Mapping[str, WindowSpec], background: BackgroundThread
    ) -> None:
        self._node, self._space, self._background = node, space, background
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
        texts, space = checked_phrases(request.texts), self._space
        vectors: list[Any] = []
        size = 1  # the first phrase may have to load the encoder
        while len(vectors) < len(texts):
            chosen = texts[len(vectors) : len(vectors) + size]
            found, seconds = await self._aside(partial(space.embed_text, chosen))
            vectors.extend(found.numpy())
            size = max(1, min(2 * size, int(size * SLICE_TIME / max(seconds, 1e-6))))
        competences: dict[str, Any]
        competences, _ = await self._aside(partial(limited_competences, space, texts))
        nearest: dict[str, list[Any]] = {modality: [] for modality in competences}
        for first in range(0, len(texts), NEAREST_SLICE):
            part = slice(first, first + NEAREST_SLICE)
            values = {modality: own[part] for modality, own in competences.items()}
            near, _ = await self._aside(partial(nearest_recognisable, space, texts[part], values))
            for modality, own in near.items():
                nearest[modality].extend(own)
        objects, _ = await self._aside(partial(space.named_objects, texts))
        now = self._node.get_clock().now().nanoseconds
        response.embeddings = [
            messages.embedding_message(MESSAGE_FACTORY, Embedding(TEXT, now, now, space.id, 1.0, vector))
            for vector in np.asarray(vectors, np.float32)
        ]
        response.objects = objects
        response.competences = messages.competence_messages(MESSAGE_FACTORY, competences, nearest)

    async def _aside(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """Do work of the space in the background thread, while the executor serves the sensors. Then pause for as long,
        at most `MAX_PAUSE`. Returns the result and the time of the work in seconds. Raises if the space is released."""
        began = time.monotonic()
        done = self._background.submit(work)
        while not done.done():
            await self._next_turn()
        result, seconds = done.result(), time.monotonic() - began
        end = time.monotonic() + min(seconds, MAX_PAUSE)
        await self._next_turn()
        while time.monotonic() < end:
            await self._next_turn()
        return result, seconds

    async def _next_turn(self) -> None:
        await NextTurn()
        if self._is_released:
            raise ReleasedError("the embedder was cleaned up: ask again when it is configured")
