"""Checks of sensebind_msgs/EmbedText: of the phrases of a request, and of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensebind.fusion.core.embeddings import Vector
from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.io.messages import competences_from_messages, nearest_from_messages
from sensebind.fusion.io.received.embeddings import received_embedding
from sensebind.fusion.io.received.spaces import MAX_MODALITIES, ReceivedSpace
from sensebind.fusion.io.received.values import RefusedMessage, checked_count, checked_name, checked_text

MAX_PHRASES = 256  # of one call: about two seconds of the starter space on a robot's CPU
MAX_PHRASE_LENGTH = 1000  # characters; encoders use 20 to 80 words
MAX_NEAREST_LENGTH = 4096  # characters of the similar phrases of one phrase


@dataclass(frozen=True, slots=True)
class PhraseAnswer:
    """What is known of one phrase. `competences`: modality → 0 to 1; 1 for those that are missing. `nearest`: modality
    → similar phrases that it can recognise. `object`: the DetectedObject that the phrase means; empty: none."""

    vector: Vector
    space: str
    competences: dict[str, float]
    nearest: dict[str, list[str]]
    object: str


def checked_phrases(texts: Sequence[Any]) -> list[str]:
    """The phrases of a request. Raises `RefusedMessage`, which says what to do."""
    if not texts:
        raise RefusedMessage("size", "the request has no phrases: put at least one into 'texts'")
    if len(texts) > MAX_PHRASES:
        raise RefusedMessage(
            "size", f"the request has {len(texts)} phrases, more than {MAX_PHRASES}: send them in several requests"
        )
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise RefusedMessage("text", f"phrase {number} of {len(texts)} is empty: remove it")
        if len(text) > MAX_PHRASE_LENGTH:
            raise RefusedMessage(
                "size",
                f"phrase {number} of {len(texts)} has {len(text)} characters, more than {MAX_PHRASE_LENGTH}: shorten "
                f"'{printable(text, 40)}'",
            )
    return list(texts)


def received_phrases(answer: Any, count: int, space: ReceivedSpace) -> list[PhraseAnswer]:
    """The answers for `count` phrases, in a successful response of `embed_text`. Raises `RefusedMessage`."""
    if len(answer.embeddings) != count:
        raise RefusedMessage("size", f"{count} phrases have {len(answer.embeddings)} vectors")
    embeddings = [received_embedding(embedding, space, TEXT) for embedding in answer.embeddings]
    objects = list(answer.objects) or [""] * count  # an embedder that locates none may send none
    if len(objects) != count:
        raise RefusedMessage("size", f"{count} phrases have {len(objects)} objects")
    for name in objects:
        checked_text(name, "the object of a phrase", empty=True)
    for found in checked_count(answer.competences, "competences", MAX_MODALITIES):
        modality = checked_name(found.modality, "the modality of competences")
        values = np.array(found.competences, np.float32)
        if values.shape != (count,) or not ((values >= 0) & (values <= 1)).all():
            raise RefusedMessage("number", f"competences of '{modality}' are not {count} numbers of 0 to 1")
        for text in checked_count(found.nearest, "nearest", count):
            checked_text(text, "the phrases near to a phrase", empty=True, limit=MAX_NEAREST_LENGTH)
    competences, nearest = competences_from_messages(answer.competences), nearest_from_messages(answer.competences)
    return [
        PhraseAnswer(
            embedding.vector,
            embedding.space,
            {m: float(values[at]) for m, values in competences.items()},
            {m: own[at] for m, own in nearest.items() if at < len(own)},
            objects[at],
        )
        for at, embedding in enumerate(embeddings)
    ]
