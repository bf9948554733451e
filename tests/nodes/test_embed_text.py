"""The service `embed_text`: a call is served beside the sensors, and neither phrases nor the model end the node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from helpers.ros_processes import PATIENCE, peer, ros_environment
from helpers.toy_space import ToySpace
from sensebind.fusion.core.samples import VISION
from sensebind.fusion.io import messages
from sensebind.fusion.io.received.phrases import MAX_PHRASES

SECONDS = 0.005  # s in which the space embeds a phrase
LOADING_TIME = 1.5  # s in which the space loads its text encoder, before the first phrase


class SlowSpace(ToySpace):
    """Needs time for the first phrase and for each, as a real one, and cannot embed one of them."""

    is_loaded = False

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        if not self.is_loaded:
            time.sleep(LOADING_TIME)
            self.is_loaded = True
        time.sleep(SECONDS * len(texts))
        if "broken" in texts:
            raise IndexError("index out of range in self")
        return super().embed_text(texts)


@pytest.fixture
def calls() -> Any:
    """A node with the service, a client and a timer of 100 Hz that stands for a sensor, in this process."""
    from sensebind.nodes.robots.background_thread import BackgroundThread
    from sensebind.nodes.robots.space_topics import SpaceTopics
    from sensebind.nodes.support.message_types import message_type

    with peer(ros_environment("sensebind_msgs")) as me:
        topics = SpaceTopics(me.node, "", SlowSpace([VISION]), {}, BackgroundThread("phrases"))
        client = me.node.create_client(message_type(messages.EMBED_TEXT_TYPE), "embed_text")
        me.wait_until(client.service_is_ready, 10, "the service")
        times: list[float] = []
        me.node.create_timer(0.01, lambda: times.append(time.monotonic()))

        def call(texts: list[str]) -> Any:
            return client.call_async(message_type(messages.EMBED_TEXT_TYPE).Request(texts=texts))

        yield me, call, times, topics
        topics.release()


def test_a_long_call_is_served_while_the_sensors_are_served(calls: Any) -> None:
    me, call, times, _ = calls
    phrases = [f"phrase {number}" for number in range(MAX_PHRASES)]
    began = time.monotonic()
    answer = call(phrases)
    me.wait_until(answer.done, 30, "the answer")
    ended = time.monotonic()
    served = [at for at in times if began < at < ended]
    assert len(served) > MAX_PHRASES * SECONDS / 0.05, "at least each 50 ms of the work"
    assert max(b - a for a, b in zip([began, *served], [*served, ended], strict=True)) < 0.2 * PATIENCE
    found = [messages.embedding_from_message(e).vector for e in answer.result().embeddings]
    assert np.allclose(found, ToySpace([VISION]).embed_text(phrases).numpy(), atol=1e-6), "in their order"


def test_the_sensors_do_not_wait_while_the_first_call_loads_the_text_encoder(calls: Any) -> None:
    me, call, times, _ = calls
    began = time.monotonic()
    answer = call(["a dog"])
    me.wait_until(answer.done, 30, "the answer")
    ended = time.monotonic()
    assert answer.result().success and ended - began >= LOADING_TIME
    served = [began, *(at for at in times if began < at < ended), ended]
    assert max(b - a for a, b in zip(served, served[1:], strict=False)) < LOADING_TIME / 2


@pytest.mark.parametrize(
    ("texts", "what"),
    [([], "no phrases"), (["x"] * 10_000, "several requests"), (["x", ""], "is empty"), (["broken"], "IndexError")],
)
def test_a_call_that_cannot_be_served_is_answered_with_the_reason(calls: Any, texts: list[str], what: str) -> None:
    me, call, *_ = calls
    answer = call(texts)
    me.wait_until(answer.done, 30, "the answer")
    assert not answer.result().success and what in answer.result().message
    answer = call(["good"])
    me.wait_until(answer.done, 30, "the answer to a good call")
    assert answer.result().success


def test_a_call_during_the_clean_up_is_answered_and_the_next_configuration_serves_again(calls: Any) -> None:
    from sensebind.nodes.robots.background_thread import BackgroundThread
    from sensebind.nodes.robots.space_topics import SpaceTopics

    me, call, _, topics = calls
    answer = call(["phrase"] * MAX_PHRASES)
    me.spin(0.2)
    topics.release()
    topics.release = lambda: None  # the fixture would call it again
    me.wait_until(answer.done, 30, "the answer")
    assert "cleaned up" in answer.result().message
    me.spin(0.2)
    SpaceTopics(me.node, "", ToySpace([VISION]), {}, BackgroundThread("phrases"))
    answer = call(["good"])
    me.wait_until(answer.done, 30, "the answer of the next configuration")
    assert answer.result().success
