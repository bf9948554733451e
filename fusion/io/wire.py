"""Embeddings and events as bytes, for programs without ROS: what `bridge` sends and its clients read.

A message is two ZeroMQ frames: a topic, ``embedding/<modality>`` or ``event``, and a msgpack map. Times are int
nanoseconds; a vector is the little-endian float32 bytes themselves, so a reader needs no more than
``np.frombuffer(m["vector"], "<f4")``. The fields are described in docs/bridge.md.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.events import Event, Evidence, Kind, Phase

VERSION = 1  # of the schema: raised when a field changes its meaning or goes, not when one is added
EMBEDDING = "embedding/"  # and the modality
EVENT = "event"


class WireError(SensebindError):
    """Bytes that are not a message of this schema."""


def topic(item: Embedding | Event) -> bytes:
    """The first frame; what a SUB socket filters by."""
    return (EVENT if isinstance(item, Event) else EMBEDDING + item.modality).encode()


def encode(item: Embedding | Event) -> tuple[bytes, bytes]:
    """Embedding or event → (topic, payload)."""
    fields = _event(item) if isinstance(item, Event) else _embedding(item)
    return topic(item), bytes(msgpack.packb({"version": VERSION, **fields}))


def decode(topic: bytes, payload: bytes) -> Embedding | Event:
    """(topic, payload) → what was encoded. The vector is read-only. Raises `WireError`."""
    name = topic.decode("utf-8", "replace")
    if name != EVENT and not name.startswith(EMBEDDING):
        raise WireError(f"topic '{name}' is neither '{EVENT}' nor '{EMBEDDING}<modality>': is this Sensebind's bridge?")
    try:
        fields = msgpack.unpackb(payload)
        version = fields["version"]
        if version == VERSION:
            return _to_event(fields) if name == EVENT else _to_embedding(fields)
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"a message under '{name}' is not as docs/bridge.md says: {error!r}") from error
    raise WireError(f"a message under '{name}' is of version {version}; this reader knows version {VERSION}: update it")


def _embedding(embedding: Embedding) -> dict[str, Any]:
    return {
        "stamp": embedding.tick,
        "window_start": embedding.start,
        "frame_id": embedding.frame_id,
        "modality": embedding.modality,
        "space": embedding.space,
        "coverage": float(embedding.coverage),
        "vector": np.ascontiguousarray(embedding.vector, "<f4").tobytes(),
        "sources": list(embedding.sources),
        "weights": [float(weight) for weight in embedding.weights],
        "symptoms": list(embedding.symptoms),
    }


def _to_embedding(fields: dict[str, Any]) -> Embedding:
    return Embedding(
        modality=fields["modality"],
        start=fields["window_start"],
        tick=fields["stamp"],
        space=fields["space"],
        coverage=fields["coverage"],
        vector=np.frombuffer(fields["vector"], "<f4"),
        frame_id=fields["frame_id"],
        sources=tuple(fields["sources"]),
        weights=tuple(fields["weights"]),
        symptoms=tuple(fields.get("symptoms", ())),  # came later than version 1 did
    )


def _event(event: Event) -> dict[str, Any]:
    return {
        "stamp": event.tick,
        "id": event.id,
        "kind": event.kind.name,
        "label": event.label,
        "phase": event.phase.name,
        "onset": event.onset,
        "offset": event.offset,
        "score": float(event.score),
        "space": event.space,
        "evidence": [
            {
                "modality": evidence.modality,
                "score": float(evidence.score),
                "supports": bool(evidence.supports),
                "window_start": evidence.start,
                "window_end": evidence.tick,
            }
            for evidence in event.evidence
        ],
    }


def _to_event(fields: dict[str, Any]) -> Event:
    return Event(
        id=fields["id"],
        kind=Kind[fields["kind"]],
        label=fields["label"],
        phase=Phase[fields["phase"]],
        onset=fields["onset"],
        offset=fields["offset"],
        tick=fields["stamp"],
        score=fields["score"],
        space=fields["space"],
        evidence=tuple(
            Evidence(e["modality"], e["score"], e["supports"], e["window_start"], e["window_end"])
            for e in fields["evidence"]
        ),
    )
