"""Checks of sensebind_msgs/Embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensebind.fusion.core.embeddings import FUSED, MAX_ACTIVITY_SHAPE, Embedding
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.io.messages import embedding_from_message
from sensebind.fusion.io.received.spaces import ReceivedSpace
from sensebind.fusion.io.received.values import (
    RefusedMessage,
    checked_bearing,
    checked_count,
    checked_name,
    checked_number,
    checked_share,
    checked_text,
    checked_vector,
    checked_window,
)
from sensebind.fusion.io.topic_names import MAX_SENSORS

MAX_OBJECTS = 1000  # in one image
MAX_SYMPTOMS = 32


def received_embedding(
    message: Any, space: ReceivedSpace | None = None, source: str = "", *, any_modality: bool = False
) -> Embedding:
    """The embedding in a sensebind_msgs/Embedding of this version or an older one. Raises `RefusedMessage`.

    `space`: the space that the embedder published; the vectors of another space are checked only for themselves.
    `source`: the sensor, `fused` or `text` that is expected, such as that of the topic; empty: any. `any_modality`:
    whether vectors of `space` may be of a modality that the embedder has no encoder for, as those of other publishers.
    """
    modality = checked_name(message.modality, "modality")
    sensor = getattr(message, "sensor", "")
    name = checked_name(sensor, "sensor") if sensor else modality
    if source and name != source:
        raise RefusedMessage("name", f"the sensor is '{name}', but the topic is that of '{source}'")
    own = space if space is not None and message.space == checked_text(message.space, "space") == space.id else None
    checked_text(message.space, "space")
    if own is not None and not any_modality and modality not in (*own.modalities, FUSED):
        raise RefusedMessage("modality", f"modality '{modality}' is not one of the space {own.id}")
    if own is not None and own.sensors.get(name, modality) != modality:
        raise RefusedMessage("modality", f"modality of sensor '{name}' is '{modality}', not '{own.sensors[name]}'")
    if (modality in (FUSED, TEXT)) != (name in (FUSED, TEXT)):
        raise RefusedMessage("modality", f"sensor '{name}' has modality '{modality}'")
    checked_text(message.header.frame_id, "frame_id", empty=True)
    checked_window(message.window_start, message.header.stamp, "the window")
    checked_share(message.coverage, "coverage")
    checked_vector(message.vector, own.dimension if own is not None else None)
    _check_sources(message)
    for symptom in checked_count(getattr(message, "symptoms", ()), "symptoms", MAX_SYMPTOMS):
        checked_name(symptom, "a symptom")
    for found in checked_count(getattr(message, "objects", ()), "objects", MAX_OBJECTS):
        checked_text(found.name, "the name of an object")
        checked_share(found.score, "the score of an object")
        checked_bearing(found.bearing, "the bearing of an object")
    _check_activity_size(message)
    embedding = embedding_from_message(message)
    _check_activity(message, embedding)
    return embedding


def _check_sources(message: Any) -> None:
    sources = checked_count(message.sources, "sources", MAX_SENSORS)
    if len(message.weights) != len(sources) or len(set(sources)) != len(sources):
        raise RefusedMessage("sources", f"{len(sources)} sources have {len(message.weights)} weights, or one is twice")
    for source in sources:
        checked_name(source, "a source", cause="sources")
    for weight in message.weights:
        checked_number(weight, "a weight", 0.0, 1.001)


def _check_activity_size(message: Any) -> None:
    count, limit = len(getattr(message, "activity", ())), MAX_ACTIVITY_SHAPE[0] * MAX_ACTIVITY_SHAPE[1]
    if count > limit:
        raise RefusedMessage("activity", f"activity has {count} numbers, more than {limit}")


def _check_activity(message: Any, embedding: Embedding) -> None:
    """NaN is no reading; an infinite value would stand out from every background."""
    sent = len(getattr(message, "activity", ()))
    if sent and embedding.activity is None:
        raise RefusedMessage(
            "activity",
            f"activity of {sent} numbers does not fit {message.activity_features} features and a period of "
            f"{message.activity_period:g} s",
        )
    if embedding.activity is not None and np.isinf(embedding.activity.values).any():
        raise RefusedMessage("activity", "activity has infinite numbers")
