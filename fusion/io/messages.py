"""The types of messages, and embeddings and events as messages. `sensor_messages` turns messages into samples.

This module imports neither rclpy nor rosbags. The message objects of both have the fields of the definitions, so one
function reads both. Functions that make messages take a `MessageFactory`, which makes the objects of one library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Activity, DetectedObject, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space, encoder_ids
from sensebind.fusion.core.windows import WindowSpec

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
COMPRESSED_VIDEO_TYPE = "foxglove_msgs/msg/CompressedVideo"
FFMPEG_PACKET_TYPE = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
IMU_TYPE = "sensor_msgs/msg/Imu"
REGION = "sensor_msgs/msg/RegionOfInterest"
DETECTED_OBJECT = "sensebind_msgs/msg/DetectedObject"
EMBEDDING_TYPE = "sensebind_msgs/msg/Embedding"
EMBEDDING_SPACE_TYPE = "sensebind_msgs/msg/EmbeddingSpace"
EMBED_TEXT_TYPE = "sensebind_msgs/srv/EmbedText"
EVENT_TYPE = "sensebind_msgs/msg/CrossModalEvent"
EVIDENCE = "sensebind_msgs/msg/ModalityEvidence"
SENSOR_INFO = "sensebind_msgs/msg/SensorInfo"
PROMPT_SCORES = "sensebind_msgs/msg/PromptScores"
PROMPT_SCORE = "sensebind_msgs/msg/PromptScore"
MODALITY_SCORE = "sensebind_msgs/msg/ModalityScore"
MODALITY_COMPETENCE = "sensebind_msgs/msg/ModalityCompetence"

VIDEO_TYPES = (COMPRESSED_VIDEO_TYPE, FFMPEG_PACKET_TYPE)
VIDEO_TRANSPORTS = {"ffmpeg": FFMPEG_PACKET_TYPE, "foxglove": COMPRESSED_VIDEO_TYPE}  # image_transport's plugins

Region = tuple[int, int, int, int]  # x, y, width, height in pixels
Message = Any  # an object of a class that rclpy or rosbags generates; the classes have no common base


class MessageFactory(Protocol):
    """Makes the message objects of one library."""

    def make(self, name: str, /, **fields: Any) -> Message:
        """An object of type `name`, for example ``std_msgs/msg/Header``. `fields` must contain all its fields."""

    def float_array(self, values: npt.ArrayLike) -> Any:
        """`values` as the library accepts them for a float32[] field."""


def stamp_to_ns(time: Message) -> int:
    """builtin_interfaces/Time → int nanoseconds."""
    return int(time.sec) * SECOND + int(time.nanosec)


def stamp_message(message_factory: MessageFactory, stamp: int) -> Message:
    """Int nanoseconds → builtin_interfaces/Time."""
    return message_factory.make("builtin_interfaces/msg/Time", sec=stamp // SECOND, nanosec=stamp % SECOND)


def header_message(message_factory: MessageFactory, stamp: int, frame_id: str = "") -> Message:
    """std_msgs/Header."""
    return message_factory.make("std_msgs/msg/Header", stamp=stamp_message(message_factory, stamp), frame_id=frame_id)


def embedding_message(message_factory: MessageFactory, embedding: Embedding, sequence: int = 0) -> Message:
    """sensebind_msgs/Embedding. `sequence` counts the messages of its publisher, from 0."""
    activity = embedding.activity
    return message_factory.make(
        EMBEDDING_TYPE,
        header=header_message(message_factory, embedding.tick, embedding.frame_id),
        sequence=sequence,
        modality=embedding.modality,
        sensor=embedding.sensor,
        window_start=stamp_message(message_factory, embedding.start),
        space=embedding.space,
        coverage=float(embedding.coverage),
        vector=message_factory.float_array(embedding.vector),
        sources=list(embedding.sources),
        weights=message_factory.float_array(embedding.weights),
        symptoms=list(embedding.symptoms),
        objects=[
            message_factory.make(
                DETECTED_OBJECT,
                name=found.name,
                score=float(found.score),
                region=_region_message(message_factory, found.region),
                bearing=_bearing_field(found.bearing),
            )
            for found in embedding.objects
        ],
        activity=message_factory.float_array([] if activity is None else activity.values.reshape(-1)),
        activity_features=0 if activity is None else activity.values.shape[1],
        activity_period=0.0 if activity is None else activity.period / SECOND,
    )


def embedding_from_message(message: Message) -> Embedding:
    """The embedding in a sensebind_msgs/Embedding of this version or an older one. The vector is a copy."""
    return Embedding(
        modality=message.modality,
        start=stamp_to_ns(message.window_start),
        tick=stamp_to_ns(message.header.stamp),
        space=message.space,
        coverage=float(message.coverage),
        vector=np.array(message.vector, np.float32),
        frame_id=message.header.frame_id,
        sources=tuple(message.sources),
        weights=tuple(float(w) for w in message.weights),
        symptoms=tuple(getattr(message, "symptoms", ())),
        sensor=getattr(message, "sensor", ""),
        objects=tuple(
            DetectedObject(
                found.name, float(found.score), _region_of(found.region) or (0, 0, 0, 0), _bearing_of(found.bearing)
            )
            for found in getattr(message, "objects", ())
        ),
        activity=_activity_of(message),
    )


def _activity_of(message: Message) -> Activity | None:
    """The activity in a sensebind_msgs/Embedding, None if it has none or its sizes do not fit. A copy."""
    values = np.array(getattr(message, "activity", ()), np.float32)
    if not values.size:
        return None
    try:
        return Activity.of_message(values, int(message.activity_features), float(message.activity_period))
    except ValueError:
        return None


def space_message(
    message_factory: MessageFactory, space: Space, specs: Mapping[str, WindowSpec], stamp: int = 0
) -> Message:
    """sensebind_msgs/EmbeddingSpace, with the sensors in `specs` (sensor → its windows)."""
    return message_factory.make(
        EMBEDDING_SPACE_TYPE,
        header=header_message(message_factory, stamp),
        id=space.id,
        dimension=space.dimension,
        modalities=list(space.modalities),
        encoders=list(encoder_ids(space).values()),
        logit_scales=message_factory.float_array([space.logit_scales[modality] for modality in space.modalities]),
        logit_biases=message_factory.float_array(
            [space.logit_biases.get(modality, 0.0) for modality in space.modalities]
        ),
        sensors=[
            message_factory.make(
                SENSOR_INFO,
                name=sensor,
                modality=spec.modality,
                topic=f"embeddings/{sensor}" if spec.modality in space.modalities else "",
                window_length=spec.length / SECOND,
                hop=spec.hop / SECOND,
            )
            for sensor, spec in specs.items()
        ],
        licence=space.licence,
    )


def encoders_from_message(message: Message) -> dict[str, str]:
    """Modality → id of its encoder, in a sensebind_msgs/EmbeddingSpace. In a message of version 0.1.0: the space's."""
    encoders = list(getattr(message, "encoders", ()))
    if len(encoders) != len(message.modalities):
        encoders = [message.id] * len(message.modalities)
    return dict(zip(message.modalities, encoders, strict=True))


def competence_messages(
    message_factory: MessageFactory,
    competences: Mapping[str, npt.NDArray[np.float32]],
    nearest: Mapping[str, Sequence[Sequence[str]]],
) -> list[Message]:
    """Modality → competence of each phrase (N,), and the phrases that are near to it, as a
    sensebind_msgs/ModalityCompetence for each modality."""
    return [
        message_factory.make(
            MODALITY_COMPETENCE,
            modality=modality,
            competences=message_factory.float_array(values),
            nearest=["; ".join(phrases) for phrases in nearest[modality]],
        )
        for modality, values in sorted(competences.items())
    ]


def competences_from_messages(found: Sequence[Message]) -> dict[str, npt.NDArray[np.float32]]:
    """Modality → competence of each phrase (N,), from `competence_messages`."""
    return {message.modality: np.array(message.competences, np.float32) for message in found}


def nearest_from_messages(found: Sequence[Message]) -> dict[str, list[list[str]]]:
    """Modality → for each phrase those that are near to it, from `competence_messages`."""
    return {message.modality: [text.split("; ") if text else [] for text in message.nearest] for message in found}


def event_message(message_factory: MessageFactory, event: Event, sequence: int = 0) -> Message:
    """sensebind_msgs/CrossModalEvent. `sequence` counts the messages of its publisher, from 0."""
    return message_factory.make(
        EVENT_TYPE,
        header=header_message(message_factory, event.tick),
        sequence=sequence,
        id=event.id,
        kind=int(event.kind),
        label=event.label,
        phase=int(event.phase),
        onset=stamp_message(message_factory, event.onset),
        offset=stamp_message(message_factory, event.offset),
        score=float(event.score),
        space=event.space,
        predecessor=event.predecessor,
        evidence=[_evidence_message(message_factory, evidence) for evidence in event.evidence],
    )


def scores_message(
    message_factory: MessageFactory, tick: int, space: str, scores: Mapping[str, Score], sequence: int = 0
) -> Message:
    """sensebind_msgs/PromptScores. `scores`: label → score. `sequence` counts the messages of its publisher, from 0.

    Scores without similarities, those of intervals that no label explains, are left out.
    """
    return message_factory.make(
        PROMPT_SCORES,
        header=header_message(message_factory, tick),
        sequence=sequence,
        space=space,
        prompts=[
            message_factory.make(
                PROMPT_SCORE,
                label=label,
                score=float(score.score),
                modalities=[
                    message_factory.make(
                        MODALITY_SCORE,
                        modality=evidence.modality,
                        sensor=evidence.sensor,
                        similarity=similarity,
                        score=float(evidence.score),
                        competence=float(evidence.competence),
                        weight=float(evidence.weight),
                    )
                    for evidence, similarity in zip(score.evidence, score.similarities, strict=True)
                ],
            )
            for label, score in sorted(scores.items())
            if len(score.similarities) == len(score.evidence)
        ],
    )


def _region_message(message_factory: MessageFactory, region: Region | None) -> Message:
    x, y, width, height = region or (0, 0, 0, 0)
    return message_factory.make(REGION, x_offset=x, y_offset=y, height=height, width=width, do_rectify=False)


def _region_of(message: Message) -> Region | None:
    """The region in a sensor_msgs/RegionOfInterest; None if it has no width."""
    return (message.x_offset, message.y_offset, message.width, message.height) if message.width else None


def _bearing_field(bearing: float | None) -> float:
    return math.nan if bearing is None else float(bearing)


def _bearing_of(field: float) -> float | None:
    return None if math.isnan(field) else float(field)


def _evidence_message(message_factory: MessageFactory, evidence: Evidence) -> Message:
    return message_factory.make(
        EVIDENCE,
        modality=evidence.modality,
        sensor=evidence.sensor,
        frame_id=evidence.frame_id,
        score=float(evidence.score),
        competence=float(evidence.competence),
        weight=float(evidence.weight),
        supports=bool(evidence.supports),
        coincides=bool(evidence.coincides),
        window_start=stamp_message(message_factory, evidence.start),
        window_end=stamp_message(message_factory, evidence.tick),
        region=_region_message(message_factory, evidence.region),
        bearing=_bearing_field(evidence.bearing),
    )


def event_from_message(message: Message) -> Event:
    """The event in a sensebind_msgs/CrossModalEvent of this version or an older one."""
    return Event(
        id=message.id,
        kind=EventKind(message.kind),
        label=message.label,
        phase=EventPhase(message.phase),
        onset=stamp_to_ns(message.onset),
        offset=stamp_to_ns(message.offset),
        tick=stamp_to_ns(message.header.stamp),
        score=float(message.score),
        space=message.space,
        evidence=tuple(_evidence_of(evidence) for evidence in message.evidence),
        predecessor=getattr(message, "predecessor", ""),
    )


def _evidence_of(message: Message) -> Evidence:
    start, end = stamp_to_ns(message.window_start), stamp_to_ns(message.window_end)
    basic = Evidence(message.modality, float(message.score), bool(message.supports), start, end)
    if not hasattr(message, "competence"):  # a message of Sensebind 0.1.0
        return basic
    return replace(
        basic,
        weight=float(message.weight),
        competence=float(message.competence),
        coincides=bool(message.coincides),
        sensor=message.sensor,
        frame_id=message.frame_id,
        region=_region_of(message.region),
        bearing=_bearing_of(message.bearing),
    )
