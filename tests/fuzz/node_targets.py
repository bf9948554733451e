"""Targets: nodes of this process, which get hostile bytes from DDS, as from any other program, and hostile requests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import rclpy
from hypothesis import strategies as st
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from fuzz.hostile_values import TEXTS, framed, unframed
from fuzz.network_targets import EMBEDDING, EVENT, FUSED_EMBEDDING, SPACE, message_inputs
from fuzz.target import READ, Target, Work
from helpers import poison_messages
from helpers.toy_space import ToySpace
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import SECOND, VISION
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.io import messages as m
from sensebind.nodes.bridge import BridgeNode
from sensebind.nodes.detector import DetectorNode
from sensebind.nodes.robots.background_thread import BackgroundThread
from sensebind.nodes.robots.space_topics import SpaceTopics
from sensebind.nodes.support.managed_node import ManagedNode
from sensebind.nodes.support.message_types import RosMessageFactory, message_type
from sensebind.nodes.support.qos import EMBEDDING_QOS, EVENT_QOS, LATCHED_QOS

DISCOVERY_TIMEOUT = 30.0  # s
SPINS = 3  # callbacks that are served for each message
TOPICS = {  # topic → type, QoS
    "embedding_space": (m.EMBEDDING_SPACE_TYPE, LATCHED_QOS),
    f"embeddings/{VISION}": (m.EMBEDDING_TYPE, EMBEDDING_QOS),
    "embeddings/fused": (m.EMBEDDING_TYPE, EMBEDDING_QOS),
    "events": (m.EVENT_TYPE, EVENT_QOS),
}


@cache
def start_ros() -> None:
    """Initialise rclpy for all nodes of this process, in a namespace of its own. They log nothing."""
    namespace = f"__ns:=/fuzz{os.getpid()}"
    rclpy.init(args=["--ros-args", "-r", namespace, "-p", "bridge:address:=tcp://127.0.0.1:*", "--log-level", "fatal"])


class Receiver:
    """An active node, and a peer that publishes what it receives. Both are in a namespace of their own."""

    def __init__(self, make: type[ManagedNode], *topics: str) -> None:
        start_ros()
        self.node = make()
        self.peer = rclpy.create_node("peer")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.node.trigger_configure()
        self.node.trigger_activate()
        assert self.node.is_active
        self.publishers = {
            topic: self.peer.create_publisher(message_type(TOPICS[topic][0]), topic, TOPICS[topic][1])
            for topic in topics
        }
        self.publishers["embedding_space"].publish(poison_messages.good_space(RosMessageFactory()))
        for publisher in self.publishers.values():
            self.spin_until(lambda publisher=publisher: publisher.get_subscription_count() > 0)

    def spin_until(self, is_done: Callable[[], bool]) -> None:
        """Serve the node until something is true."""
        end = time.monotonic() + DISCOVERY_TIMEOUT
        while not is_done():
            assert time.monotonic() < end, "the node has no subscription"
            self.executor.spin_once(0.05)

    def receive(self, data: bytes) -> Work:
        """Publish the messages of an input, and serve the node. An error that leaves a callback ends a real node."""
        topics, sent = sorted(self.publishers), 0
        for part in unframed(data)[:8]:
            if part:
                publisher = self.publishers[topics[part[0] % len(topics)]]
                if publisher.get_subscription_count():
                    publisher.publish(part[1:])
                    sent += 1
                for _ in range(SPINS):
                    self.executor.spin_once(0.002)
        assert self.node.is_active
        return {READ: sent, "messages": sent}


@cache
def detector() -> Receiver:
    return Receiver(DetectorNode, "embedding_space", f"embeddings/{VISION}", "embeddings/fused")


@cache
def bridge() -> Receiver:
    return Receiver(BridgeNode, "embedding_space", f"embeddings/{VISION}", "embeddings/fused", "events")


# Headers of CDR without fields. Fast CDR reads past the end of those that claim padding.
HEADERS = st.tuples(st.integers(0, 1), st.integers(0, 3)).map(lambda parts: bytes([0, parts[0], 0, parts[1]]))


def published(messages: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Messages of these topics with changed fields or bytes. The first byte is the number of the topic."""
    one = st.one_of(
        *(
            (message_inputs(message) | HEADERS).map(lambda part, number=number: bytes([number]) + part)
            for number, (_, message) in enumerate(sorted(messages.items()))
        )
    )
    return st.lists(one, min_size=1, max_size=4).map(framed)


EMBEDDINGS = {"embedding_space": SPACE, f"embeddings/{VISION}": EMBEDDING, "embeddings/fused": FUSED_EMBEDDING}


@cache
def embedder() -> tuple[Any, Any, SingleThreadedExecutor]:
    """A client of `embed_text`, the type of its requests, and the executor of both nodes."""
    start_ros()
    server, peer = (rclpy.create_node(name) for name in ("embedder", "phrases"))
    executor = SingleThreadedExecutor()
    executor.add_node(server)
    executor.add_node(peer)
    space = ToySpace()
    specs = {VISION: WindowSpec(VISION, SECOND, SECOND)}
    _KEPT.append(SpaceTopics(server, "", space, specs, BackgroundThread("phrases")))
    client = peer.create_client(message_type(m.EMBED_TEXT_TYPE), "embed_text")
    end = time.monotonic() + DISCOVERY_TIMEOUT
    while not client.service_is_ready():
        assert time.monotonic() < end, "embed_text is not there"
        executor.spin_once(0.05)
    return client, message_type(m.EMBED_TEXT_TYPE), executor


_KEPT: list[Any] = []


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Phrases of a request: none, many, empty, long, and of any characters."""
    phrase = st.one_of(
        TEXTS, TEXTS, st.just("a person"), st.sampled_from(["", " ", "\n", "x" * 1000, "x" * 1001, "ö" * 999])
    )
    phrases = draw(st.lists(phrase, max_size=6))
    if draw(st.integers(0, 9)) == 0:
        phrases = [text[:5] or "a" for text in phrases] * draw(st.sampled_from([43, 60, 400]))
    return framed([text.encode("utf-8", "replace") for text in phrases])


def call_embed_text(data: bytes) -> Work:
    """Call the service, and wait for its answer."""
    client, service, executor = embedder()
    texts = [part.decode("utf-8", "replace").replace("\0", "") for part in unframed(data)]
    call = client.call_async(service.Request(texts=texts))
    while not call.done():  # the hang guard of the fuzzer ends it
        executor.spin_once(0.002)
    answer = call.result()
    if not answer.success:
        assert not answer.embeddings
        raise SensebindError(answer.message)
    assert len(answer.embeddings) == len(texts)
    return {"phrases": len(texts)}


@st.composite
def parameter_changes(draw: st.DrawFn) -> bytes:
    """Names and values of parameters for `set_parameters`: indexes into lists that are the same in every run."""
    return bytes(draw(st.lists(st.integers(0, 255), min_size=4, max_size=24)))


def set_parameters(data: bytes) -> Work:
    """Set parameters of the detector while it runs. It accepts them or gives a reason."""
    node = detector().node
    names = [name for name in sorted(node._parameters) if not name.startswith(("qos_overrides", "use_sim_time"))]
    names += ["prompts.a", "prompts.a.b", "prompts.", "prompt.onset_thresholds.a", "x", "modalities", "a" * 300, "\n"]
    values = [
        True, 0, -1, 2**63 - 1, 0.5, -0.0, float("nan"), float("inf"), 1e300, "", "a", "x" * 5000, "\x1b[31m", [],
        ["a"], ["a person", "\n"], [""], [1, 2], [0.5, float("nan")], [True], [b"a"], ["a"] * 500, ["x" * 2000],
    ]  # fmt: skip
    changes = [
        Parameter(names[(a * 256 + b) % len(names)], value=values[c % len(values)])
        for a, b, c in zip(data[::3], data[1::3], data[2::3], strict=False)
    ]
    results = node.set_parameters(changes) if len(data) % 2 else [node.set_parameters_atomically(changes)]
    assert all(result.successful or (result.reason and "\n" not in result.reason) for result in results), results
    detector().executor.spin_once(0.0)
    assert node.is_active
    return {READ: len(changes), "accepted": sum(result.successful for result in results)}


TARGETS = [
    Target("detector", published(EMBEDDINGS), lambda data: detector().receive(data), {"messages": 8}),
    Target("bridge", published({**EMBEDDINGS, "events": EVENT}), lambda data: bridge().receive(data), {"messages": 8}),
    Target("embed_text", requests(), call_embed_text, {"phrases": 256}),
    Target("parameters", parameter_changes(), set_parameters, {"accepted": 24}),
]
