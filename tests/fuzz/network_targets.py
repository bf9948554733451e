"""Targets: what other nodes and programs send."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fuzz.hostile_values import INTEGERS, NAMES, TEXTS, mutated
from fuzz.target import Target, Work
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.io import messages as m
from sensebind.fusion.io import wire
from sensebind.fusion.io.recordings import RosbagsMessageFactory
from sensebind.fusion.io.recordings.message_types import typestore
from sensebind.fusion.io.zmq_publisher import is_local

EMBEDDING = Embedding("vision", 1, 2, "toy@1", 1.0, np.ones(16, np.float32) / 4)
EVENT = Event("a/1", EventKind.PROMPT, "a", EventPhase.ONSET, 1, 0, 2, 0.9, "toy@1", ())
HOSTS = ["127.0.0.1", "localhost", "*", "0.0.0.0", "[::1]", "robot", "", "999.1.1.1", "[::", "::1"]


def read_wire(data: bytes) -> Work:
    """Decode a message of the bridge: topic, zero byte, payload."""
    topic, _, payload = data.partition(b"\0")
    found = wire.decode(topic, payload)
    return {"numbers": found.vector.size if isinstance(found, Embedding) else 0}


def wire_messages() -> list[bytes]:
    """Valid messages of the bridge."""
    return [b"\0".join(wire.encode(item, 1)) for item in (EMBEDDING, EVENT)]


@cache
def ros_messages() -> dict[str, bytes]:
    """Valid messages of other nodes of Sensebind, by type."""
    factory: Any = RosbagsMessageFactory()
    found = {m.EMBEDDING_TYPE: m.embedding_message(factory, EMBEDDING), m.EVENT_TYPE: m.event_message(factory, EVENT)}
    return {kind: bytes(typestore().serialize_cdr(message, kind)) for kind, message in found.items()}


def read_address(data: bytes) -> Work:
    """Check an address of the bridge."""
    return {"local": int(is_local(data.decode("utf-8", "replace")))}


addresses = st.one_of(
    st.tuples(
        st.sampled_from(["tcp://", "ipc://", "tcp:", "udp://", "inproc://", ""]),
        st.one_of(st.sampled_from(HOSTS), st.sampled_from(NAMES)),
        st.one_of(st.just(""), INTEGERS.map(lambda port: f":{port}"), TEXTS.map(lambda text: f":{text}")),
    ).map(lambda parts: "".join(parts).encode("utf-8", "replace")),
    mutated([b"tcp://127.0.0.1:7447", b"ipc:///tmp/a"]),
)
TARGETS = [
    Target("wire_messages", mutated(wire_messages()), read_wire, {"numbers": 10_000}),
    Target("addresses", addresses, read_address),
]
