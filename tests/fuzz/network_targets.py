"""Targets: what other nodes and programs send, checked without ROS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack
import numpy as np
from hypothesis import strategies as st

from fuzz.hostile_structures import changed_message, changed_tree
from fuzz.hostile_values import INTEGERS, NAMES, TEXTS, mutated
from fuzz.target import READ, Target, Work
from helpers import poison_messages
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import VISION
from sensebind.fusion.io import messages as m
from sensebind.fusion.io import wire
from sensebind.fusion.io.received.embeddings import received_embedding
from sensebind.fusion.io.received.events import received_event
from sensebind.fusion.io.received.phrases import received_phrases
from sensebind.fusion.io.received.spaces import received_space
from sensebind.fusion.io.recordings import RosbagsMessageFactory
from sensebind.fusion.io.recordings.message_types import typestore
from sensebind.fusion.io.zmq_publisher import is_local

MAKE: Any = RosbagsMessageFactory()
EMBEDDING, FUSED_EMBEDDING = (poison_messages.good_embedding(MAKE, modality) for modality in (VISION, FUSED))
EVENT, SPACE = poison_messages.good_event(MAKE), poison_messages.good_space(MAKE)
HOSTS = ["127.0.0.1", "localhost", "*", "0.0.0.0", "[::1]", "robot", "", "999.1.1.1", "[::", "::1"]
TOPICS = [b"embedding/vision", b"event", b"robot/event", b"x", b"", b"embedding/" + b"a" * 3000, b"\xff\0"]


def received(message: Any) -> Any:
    """The embedding or event in a message."""
    return received_embedding(message) if hasattr(message, "vector") else received_event(message)


@st.composite
def wire_messages(draw: st.DrawFn) -> bytes:
    """Messages of the bridge: topic, zero byte, payload. The payload has changed fields or changed bytes."""
    topic, payload = draw(
        st.sampled_from([wire.encode(received(item), 1) for item in (EMBEDDING, FUSED_EMBEDDING, EVENT)])
    )
    if draw(st.integers(0, 3)):
        fields = draw(changed_tree([msgpack.unpackb(payload)]))
        try:
            payload = bytes(msgpack.packb(fields, default=str))
        except (OverflowError, ValueError):  # a number of more than 64 bits, or too deep for its writer
            payload = b"\x91" * 2000
    else:
        payload = draw(mutated([payload]))
    topic = topic if draw(st.integers(0, 7)) else draw(st.sampled_from(TOPICS))
    return topic.replace(b"\0", b"") + b"\0" + payload


def read_wire(data: bytes) -> Work:
    """Decode a message of the bridge."""
    topic, _, payload = data.partition(b"\0")
    found = wire.decode(topic, payload)
    return {"numbers": found.vector.size if isinstance(found, Embedding) else 0}


def message_inputs(*messages: Any) -> st.SearchStrategy[bytes]:
    """Messages with changed fields, or with changed bytes."""
    parts = [bytes(typestore().serialize_cdr(message, message.__msgtype__)) for message in messages]
    changed = st.one_of(*(changed_message(message) for message in messages))
    return st.one_of(changed, changed, mutated(parts))


def read_message(type_name: str, check: Callable[[Any], Work], data: bytes) -> Work:
    """Check a message that another node sent. `read` is 0 for bytes that are no message: the middleware drops them."""
    try:
        message = typestore().deserialize_cdr(data, type_name)
    except Exception:  # of rosbags
        return {READ: 0}
    return check(message)


def read_embedding(message: Any) -> Work:
    """An embedding, of any space and of the space that is known."""
    received_embedding(message)
    return {"numbers": received_embedding(message, received_space(SPACE), VISION).vector.size}


def phrase_answers() -> st.SearchStrategy[bytes]:
    """The embeddings of an answer, and numbers that change the rest of it."""
    text = poison_messages.good_embedding(MAKE)
    text.modality = text.sensor = "text"
    return st.tuples(st.integers(0, 255), st.integers(0, 255), message_inputs(text)).map(
        lambda parts: bytes(parts[:2]) + parts[2]
    )


class Answer:
    """A response of `embed_text`, without ROS."""

    def __init__(self, embeddings: list[Any], number: int) -> None:
        strange = [[], ["chair"], ["x\n"], ["a" * 5000], [""] * 3][number % 5]
        shares = [[0.5], [], [np.nan], [7.0], [0.1, 0.2], [1.0]][number // 5 % 6]
        self.embeddings, self.objects = embeddings, strange
        modality = ["vision", "vision\n", "", "audio"][number // 30 % 4]
        self.competences = [
            MAKE.make(
                m.MODALITY_COMPETENCE, modality=modality, competences=np.array(shares, np.float32), nearest=strange
            )
        ] * (number % 3)


def read_phrases(data: bytes) -> Work:
    """Check an answer of `embed_text`."""
    if len(data) < 3:
        return {READ: 0}

    def check(message: Any) -> Work:
        return {
            "phrases": len(received_phrases(Answer([message] * (data[0] % 3 or 1), data[1]), 1, received_space(SPACE)))
        }

    return read_message(m.EMBEDDING_TYPE, check, data[2:])


def read_address(data: bytes) -> Work:
    """Check an address of the bridge."""
    return {"local": int(is_local(data.decode("utf-8", "replace")))}


addresses = st.one_of(
    st.tuples(
        st.sampled_from(["tcp://", "tcp://", "ipc://", "tcp:", "udp://", "inproc://", ""]),
        st.one_of(st.sampled_from(HOSTS), st.sampled_from(NAMES)),
        st.one_of(
            st.sampled_from([":7447", ":*", ":1", ":65535", ""]),
            INTEGERS.map(lambda port: f":{port}"),
            TEXTS.map(lambda text: f":{text}"),
        ),
    ).map(lambda parts: "".join(parts).encode("utf-8", "replace")),
    mutated([b"tcp://127.0.0.1:7447", b"ipc:///tmp/a"]),
)
TARGETS = [
    Target("wire_messages", wire_messages(), read_wire, {"numbers": 10_000}),
    Target("addresses", addresses, read_address),
    Target(
        "embeddings",
        message_inputs(EMBEDDING, FUSED_EMBEDDING),
        partial(read_message, m.EMBEDDING_TYPE, read_embedding),
        {"numbers": 70_000},
    ),
    Target(
        "events",
        message_inputs(EVENT),
        partial(read_message, m.EVENT_TYPE, lambda message: {"evidence": len(received_event(message).evidence)}),
        {"evidence": 256},
    ),
    Target(
        "spaces",
        message_inputs(SPACE),
        partial(
            read_message, m.EMBEDDING_SPACE_TYPE, lambda message: {"sensors": len(received_space(message).sensors)}
        ),
        {"sensors": 256},
    ),
    Target("phrase_answers", phrase_answers(), read_phrases, {"phrases": 1}),
]
