"""Nothing that other programs send ends a node: what cannot be used is counted, logged once for each kind, and reported."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from typing import Any

import pytest

from helpers import poison_messages as poison
from helpers.poison_messages import EMBEDDINGS, EVENTS, SPACE, SPACES, START, Change
from helpers.ros_processes import Executable, Peer, peer, ros_environment, running
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND, TEXT, VISION
from sensebind.fusion.io import messages

COUNT = 1000  # poison messages of each type
VALUES: dict[str, Any] = {
    "prompts.anything": ["a photo"],
    "prompt.calibration": "none",
    "prompt.onset_threshold": 0.01,
    "prompt.offset_threshold": 0.01,
    "prompt.min_duration": 0.0,
    "detectors": ["prompt", "novelty"],
}


def status(diagnostics: list[tuple[float, Any]], name: str) -> tuple[bytes, str, dict[str, str]]:
    """Level, message and values of the newest status of a component."""
    found = [s for _, message in diagnostics[-30:] for s in message.status if s.name == name]
    if not found:
        return b"\x03", "", {}
    return found[-1].level, found[-1].message, {pair.key: pair.value for pair in found[-1].values}


def kinds(type_name: str, changes: list[Change]) -> Counter[str]:
    """Kind → how many of `COUNT` messages have it, if the changes are used in turn."""
    return Counter(f"refused.{type_name}.{changes[number % len(changes)][1]}" for number in range(COUNT))


def send(me: Peer, publisher: Any, changes: list[Change], make_message: Any) -> None:
    """Publish `COUNT` messages with the changes in turn, a few at a time."""
    from sensebind.nodes.support.message_types import RosMessageFactory

    make = RosMessageFactory()
    for number in range(COUNT):
        message = make_message(number)
        changes[number % len(changes)][2](message, make)
        publisher.publish(message)
        if number % 10 == 9:
            me.spin(0.02)


def test_a_thousand_poison_messages_of_each_type_end_neither_detector_nor_bridge() -> None:
    from sensebind.nodes.support.message_types import RosMessageFactory, message_type
    from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS, EVENT_INPUT_QOS, LATCHED_QOS

    environment, make = ros_environment("sensebind_msgs"), RosMessageFactory()
    vector = SPACE.embed_text(["a photo"]).numpy()[0]
    answers: list[list[str]] = []  # the phrases of each request

    def embed_text(request: Any, response: Any) -> Any:
        answers.append(list(request.texts))
        if len(answers) == 1:
            response.message = "no\n[ERROR] forged"
            return response
        response.success = True
        response.embeddings = [
            messages.embedding_message(make, Embedding(TEXT, START, START, SPACE.id, 1.0, vector))
            for _ in request.texts[len(answers) == 2 :]  # the second answer has no vector
        ]
        return response

    with peer(environment) as me:
        me.node.create_service(message_type(messages.EMBED_TEXT_TYPE), "embed_text", embed_text)
        diagnostics = me.subscribe("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics", 100)
        space_publisher = me.publisher(messages.EMBEDDING_SPACE_TYPE, "embedding_space", LATCHED_QOS)
        poisoned = poison.good_space(make)
        poisoned.dimension = 0
        space_publisher.publish(poisoned)  # a node receives it again whenever it starts
        with (
            running("detector", environment=environment, values=VALUES) as detector,
            running("bridge", environment=environment, values={"address": "tcp://127.0.0.1:*"}) as bridge,
        ):
            nodes = {"detector: events": detector, "bridge: clients": bridge}
            for name in nodes:
                me.wait_until(lambda n=name: "space.number" in status(diagnostics, n)[1], 60, f"the refusal of {name}")
            space_publisher.publish(poison.good_space(make))
            # --- a failed answer, an answer without vectors, and a good one
            me.wait_until(lambda: status(diagnostics, "detector: events")[1].startswith("1 prompts"), 60, "the prompts")
            values = status(diagnostics, "detector: events")[2]
            assert (values["refused.answer.failed"], values["refused.answer.size"]) == ("1", "1")

            embedding_publisher = me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{VISION}", EMBEDDING_INPUT_QOS)
            fused_publisher = me.publisher(messages.EMBEDDING_TYPE, f"embeddings/{FUSED}", EMBEDDING_INPUT_QOS)
            event_publisher = me.publisher(messages.EVENT_TYPE, "events", EVENT_INPUT_QOS)
            me.wait_for_subscribers(embedding_publisher, 2)
            me.wait_for_subscribers(fused_publisher, 2)
            me.wait_for_subscribers(event_publisher)
            events = me.subscribe(messages.EVENT_TYPE, "events", EVENT_INPUT_QOS)

            def good(first: int, count: int, sequence: int) -> None:
                for tick in range(first, first + count):
                    at = START + tick * SECOND // 2
                    embedding_publisher.publish(poison.good_embedding(make, VISION, at, sequence + tick - first))
                    fused_publisher.publish(poison.good_embedding(make, FUSED, at, tick))
                    me.spin(0.02)

            good(0, 10, 0)
            send(me, embedding_publisher, EMBEDDINGS, lambda n: poison.good_embedding(make, sequence=10 + n))
            good(10, 10, 10 + COUNT)
            own = len(events)
            labels = {message.label for _, message in events}
            send(me, event_publisher, EVENTS, lambda n: poison.good_event(make, n))
            send(me, space_publisher, SPACES, lambda n: poison.good_space(make))

            def is_counted(name: str, wanted: Counter[str]) -> bool:
                """Whether each message was refused with its cause; those that the middleware lost are counted too."""
                values = status(diagnostics, name)[2]
                missing = sum(count - int(values.get(kind, 0)) for kind, count in wanted.items())
                return missing == int(values.get("lost", -1))

            for name in nodes:
                wanted = kinds("embedding", EMBEDDINGS)
                if name.startswith("bridge"):  # it has no order of time to keep, and forwards stamps of any time
                    turns = [EMBEDDINGS[number % len(EMBEDDINGS)][0] for number in range(COUNT)]
                    wanted["refused.embedding.time"] -= sum(map(turns.count, poison.OTHER_TIMES))
                me.wait_until(lambda n=name, w=wanted: is_counted(n, w), 20, f"the counts of {name}")
                level, message, values = status(diagnostics, name)
                assert level >= b"\x01" and "refused messages: " in message
                assert all(int(values[kind]) > 0 for kind in kinds("space", SPACES)), values
            assert {
                k: int(v) for k, v in status(diagnostics, "bridge: clients")[2].items() if "refused.event" in k
            } == (kinds("event", EVENTS))
            assert labels == {"anything"}, "a false vector would be a novelty"
            assert own < 20, "and end events, which begin again"
            for name, node in nodes.items():
                assert node.is_running
                assert_one_line_of_each_kind(node, status(diagnostics, name)[2])


def assert_one_line_of_each_kind(node: Executable, values: dict[str, str]) -> None:
    counted = [key for key in values if key.startswith("refused.")]
    lines = [line for line in node.lines if "was refused" in line or "could not be" in line]
    assert len(lines) == len(counted), (counted, lines)
    assert not any(line.startswith("[ERROR]") for line in node.lines), "a line was forged"
    assert max(map(len, node.lines)) < 1500 and "Traceback" not in node.output
