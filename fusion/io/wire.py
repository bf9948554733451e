"""Encodes embeddings and events as bytes that `bridge` sends to programs without ROS, and decodes them.

A message is two ZeroMQ frames: a topic, ``embedding/<sensor>`` or ``event``, and a msgpack map. If the robot has a
namespace, the topic begins with it: ``robot1/event``. Times are int nanoseconds. A vector is little-endian float32
bytes: ``np.frombuffer(m["vector"], "<f4")`` reads it. docs/bridge.md describes the fields.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from sensebind.fusion.core.embeddings import Activity, DetectedObject, Embedding
from sensebind.fusion.core.errors import SensebindError, printable
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.core.samples import SECOND

SCHEMA_VERSION = 2  # increases when a field is removed or changes its meaning, not when a field is added
READABLE = (1, 2)  # versions that `decode` reads
EMBEDDING_TOPIC_PREFIX = "embedding/"  # the sensor follows
EVENT_TOPIC = "event"
MAX_SHOWN_LENGTH = 200  # characters of foreign text in an error
# Fields of an evidence that version 1 does not have.
ADDED_TO_EVIDENCE = ("weight", "competence", "coincides", "sensor", "frame_id", "region", "bearing")


class WireError(SensebindError):
    """Bytes that are not a message of a version in `READABLE`."""


def topic_for(item: Embedding | Event, robot: str = "") -> bytes:
    """The first frame of the message: the topic, by which a SUB socket filters. `robot`: the namespace, without a slash
    at its start; empty if the robot has none."""
    topic = EVENT_TOPIC if isinstance(item, Event) else EMBEDDING_TOPIC_PREFIX + item.source
    return (f"{robot}/{topic}" if robot else topic).encode()


def encode(item: Embedding | Event, sequence: int = 0, encoder: str = "", robot: str = "") -> tuple[bytes, bytes]:
    """Embedding or event → (topic, payload). `sequence` counts the messages of this topic, from 0. `encoder`: the id of
    the encoder of an embedding's vector; empty if it is not known. `robot`: see `topic_for`."""
    if isinstance(item, Event):
        fields = _event_to_fields(item)
    else:
        fields = {**_embedding_to_fields(item), "encoder": encoder}
    head = {"version": SCHEMA_VERSION, "sequence": sequence, "robot": robot}
    return topic_for(item, robot), bytes(msgpack.packb({**head, **fields}))


def decode(topic: bytes, payload: bytes) -> Embedding | Event:
    """(topic, payload) → embedding or event. The vector is read-only. Raises `WireError`."""
    name = printable(topic.decode("utf-8", "replace"), MAX_SHOWN_LENGTH)
    try:
        fields = msgpack.unpackb(payload)
        version, robot = fields["version"], fields.get("robot", "")  # missing in some messages of version 2
        own = name.removeprefix(f"{robot}/") if robot else name
        if own != EVENT_TOPIC and not own.startswith(EMBEDDING_TOPIC_PREFIX):
            raise WireError(
                f"topic '{name}' is neither '{EVENT_TOPIC}' nor '{EMBEDDING_TOPIC_PREFIX}<sensor>': is this "
                "Sensebind's bridge?"
            )
        if version in READABLE:
            return _event_from_fields(fields) if own == EVENT_TOPIC else _embedding_from_fields(fields)
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        shown = printable(repr(error), MAX_SHOWN_LENGTH)
        raise WireError(f"a message on topic '{name}' does not match docs/bridge.md: {shown}") from error
    raise WireError(
        f"a message on topic '{name}' has version {version}; this reader knows up to {SCHEMA_VERSION}: update it"
    )


def _embedding_to_fields(embedding: Embedding) -> dict[str, Any]:
    return {
        "stamp": embedding.tick,
        "window_start": embedding.start,
        "frame_id": embedding.frame_id,
        "modality": embedding.modality,
        "sensor": embedding.sensor,
        "space": embedding.space,
        "coverage": float(embedding.coverage),
        "vector": np.ascontiguousarray(embedding.vector, "<f4").tobytes(),
        "sources": list(embedding.sources),
        "weights": [float(weight) for weight in embedding.weights],
        "symptoms": list(embedding.symptoms),
        "objects": [
            {
                "name": found.name,
                "score": float(found.score),
                "region": list(found.region),
                "bearing": found.bearing,
            }
            for found in embedding.objects
        ],
        "activity": _activity_to_fields(embedding.activity),
    }


def _activity_to_fields(activity: Activity | None) -> dict[str, Any] | None:
    if activity is None:
        return None
    values = np.ascontiguousarray(activity.values, "<f4")
    return {"values": values.tobytes(), "features": values.shape[1], "period": activity.period}


def _activity_from_fields(fields: dict[str, Any] | None) -> Activity | None:
    if fields is None:
        return None
    values = np.frombuffer(fields["values"], "<f4")
    return Activity.of_message(values, fields["features"], fields["period"] / SECOND)


def _embedding_from_fields(fields: dict[str, Any]) -> Embedding:
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
        symptoms=tuple(fields.get("symptoms", ())),  # missing in some messages of version 1
        sensor=fields.get("sensor", ""),  # since version 2
        objects=tuple(  # missing in some messages of version 2
            DetectedObject(found["name"], found["score"], tuple(found["region"]), found["bearing"])
            for found in fields.get("objects", ())
        ),
        activity=_activity_from_fields(fields.get("activity")),  # missing in some messages of version 2
    )


def _event_to_fields(event: Event) -> dict[str, Any]:
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
        "predecessor": event.predecessor,
        "evidence": [_evidence(evidence) for evidence in event.evidence],
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "modality": evidence.modality,
        "sensor": evidence.sensor,
        "frame_id": evidence.frame_id,
        "score": float(evidence.score),
        "competence": float(evidence.competence),
        "weight": float(evidence.weight),
        "supports": bool(evidence.supports),
        "coincides": bool(evidence.coincides),
        "window_start": evidence.start,
        "window_end": evidence.tick,
        "region": list(evidence.region) if evidence.region else None,
        "bearing": evidence.bearing,
    }


def _event_from_fields(fields: dict[str, Any]) -> Event:
    return Event(
        id=fields["id"],
        kind=EventKind[fields["kind"]],
        label=fields["label"],
        phase=EventPhase[fields["phase"]],
        onset=fields["onset"],
        offset=fields["offset"],
        tick=fields["stamp"],
        score=fields["score"],
        space=fields["space"],
        evidence=tuple(_to_evidence(evidence) for evidence in fields["evidence"]),
        predecessor=fields.get("predecessor", ""),
    )


def _to_evidence(fields: dict[str, Any]) -> Evidence:
    added = {name: fields[name] for name in ADDED_TO_EVIDENCE if name in fields}
    if added.get("region"):
        added["region"] = tuple(added["region"])
    return Evidence(
        fields["modality"], fields["score"], fields["supports"], fields["window_start"], fields["window_end"], **added
    )
