"""Messages to samples, and embeddings and events to messages and back.

Nothing here imports rclpy or rosbags: both libraries' message objects have the fields of the definitions, so
one function reads either. Writing takes a `Types`, which knows how to make them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, Evidence, Kind, Phase, Score
from sensebind.fusion.core.samples import SECOND, Calibration, Frame, Reading, Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import WindowSpec

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
IMU = "sensor_msgs/msg/Imu"
REGION = "sensor_msgs/msg/RegionOfInterest"
EMBEDDING = "sensebind_msgs/msg/Embedding"
EMBEDDING_SPACE = "sensebind_msgs/msg/EmbeddingSpace"
EVENT = "sensebind_msgs/msg/CrossModalEvent"
EVIDENCE = "sensebind_msgs/msg/ModalityEvidence"
SENSOR_INFO = "sensebind_msgs/msg/SensorInfo"
PROMPT_SCORES = "sensebind_msgs/msg/PromptScores"
PROMPT_SCORE = "sensebind_msgs/msg/PromptScore"
MODALITY_SCORE = "sensebind_msgs/msg/ModalityScore"

Message = Any  # of rclpy's or rosbags' generated classes, which share no base


class Types(Protocol):
    """Makes messages of one library."""

    def new(self, name: str, /, **fields: Any) -> Message:
        """An object of type `name`, such as ``std_msgs/msg/Header``, with all its fields given."""

    def floats(self, values: npt.ArrayLike) -> Any:
        """What the library takes for a float32[] field."""


def nanoseconds(time: Message) -> int:
    """builtin_interfaces/Time → int nanoseconds."""
    return int(time.sec) * SECOND + int(time.nanosec)


def time(types: Types, stamp: int) -> Message:
    """Int nanoseconds → builtin_interfaces/Time."""
    return types.new("builtin_interfaces/msg/Time", sec=stamp // SECOND, nanosec=stamp % SECOND)


def image_sample(modality: str, message: Message) -> Sample:
    """sensor_msgs/Image → a sample that shares the message's memory."""
    return Sample(
        modality,
        nanoseconds(message.header.stamp),
        Frame(
            np.frombuffer(message.data, np.uint8),
            message.encoding,
            message.height,
            message.width,
            message.step,
            bool(message.is_bigendian),
        ),
        message.header.frame_id,
    )


def compressed_sample(modality: str, message: Message) -> Sample:
    """sensor_msgs/CompressedImage → a sample that shares the message's memory."""
    return Sample(
        modality,
        nanoseconds(message.header.stamp),
        Frame(np.frombuffer(message.data, np.uint8), message.format, compressed=True),
        message.header.frame_id,
    )


def imu_sample(modality: str, message: Message) -> Sample:
    """sensor_msgs/Imu → acceleration x y z (m/s²), angular velocity x y z (rad/s).

    A first covariance of −1 says that the sensor has no such value (sensor_msgs/Imu): then it is NaN here,
    and the windows leave the sample out as invalid.
    """
    a, w = message.linear_acceleration, message.angular_velocity
    values = np.array([a.x, a.y, a.z, w.x, w.y, w.z], np.float64)
    if message.linear_acceleration_covariance[0] == -1:
        values[:3] = np.nan
    if message.angular_velocity_covariance[0] == -1:
        values[3:] = np.nan
    return Sample(modality, nanoseconds(message.header.stamp), Reading(values), message.header.frame_id)


def with_camera_info(calibration: Calibration, message: Message) -> Calibration:
    """`calibration` with what a sensor_msgs/CameraInfo tells; parameters that were given stay.

    The focal length is K's fx, the baseline −Tx/fx of P where P says one (sensor_msgs/CameraInfo).
    """
    # ROS 1 spells them in capitals.
    k, p = (message.k, message.p) if hasattr(message, "k") else (message.K, message.P)
    focal, tx = float(k[0]), float(p[3])
    if not calibration.focal_length and focal > 0 and message.width > 0:
        calibration = replace(calibration, focal_length=focal, width=int(message.width))
    if not calibration.baseline and tx < 0 and p[0] > 0:
        calibration = replace(calibration, baseline=-tx / float(p[0]))
    return calibration


SAMPLES = {IMAGE: image_sample, COMPRESSED_IMAGE: compressed_sample, IMU: imu_sample}


def beside(topic: str, name: str) -> str:
    """The topic called `name` in the namespace of `topic`, image_transport's suffixes aside.

    ``camera/image/compressed`` and ``camera/image`` are both beside ``camera/camera_info``.
    """
    parts = topic.split("/")
    if parts[-1].startswith("compressed") and len(parts) > 1:
        parts.pop()
    return "/".join([*parts[:-1], name])


def header(types: Types, stamp: int, frame_id: str = "") -> Message:
    """std_msgs/Header."""
    return types.new("std_msgs/msg/Header", stamp=time(types, stamp), frame_id=frame_id)


def embedding_message(types: Types, embedding: Embedding, sequence: int = 0) -> Message:
    """sensebind_msgs/Embedding, the `sequence`-th message of its publisher, counted from 0."""
    return types.new(
        EMBEDDING,
        header=header(types, embedding.tick, embedding.frame_id),
        sequence=sequence,
        modality=embedding.modality,
        sensor=embedding.sensor,
        window_start=time(types, embedding.start),
        space=embedding.space,
        coverage=float(embedding.coverage),
        vector=types.floats(embedding.vector),
        sources=list(embedding.sources),
        weights=types.floats(embedding.weights),
        symptoms=list(embedding.symptoms),
    )


def embedding_of(message: Message) -> Embedding:
    """The embedding in a sensebind_msgs/Embedding of this version or of an older recording. Its vector is a copy."""
    return Embedding(
        modality=message.modality,
        start=nanoseconds(message.window_start),
        tick=nanoseconds(message.header.stamp),
        space=message.space,
        coverage=float(message.coverage),
        vector=np.array(message.vector, np.float32),
        frame_id=message.header.frame_id,
        sources=tuple(message.sources),
        weights=tuple(float(w) for w in message.weights),
        symptoms=tuple(getattr(message, "symptoms", ())),
        sensor=getattr(message, "sensor", ""),
    )


def space_message(types: Types, space: Space, specs: Mapping[str, WindowSpec], stamp: int = 0) -> Message:
    """sensebind_msgs/EmbeddingSpace, with the sensors whose windows `specs` describe (modality → windows)."""
    return types.new(
        EMBEDDING_SPACE,
        header=header(types, stamp),
        id=space.id,
        dimension=space.dimension,
        modalities=list(space.modalities),
        logit_scales=types.floats([space.logit_scales[modality] for modality in space.modalities]),
        logit_biases=types.floats([space.logit_biases.get(modality, 0.0) for modality in space.modalities]),
        sensors=[
            types.new(
                SENSOR_INFO,
                name=modality,
                modality=modality,
                topic=f"embeddings/{modality}" if modality in space.modalities else "",
                window_length=spec.length / SECOND,
                hop=spec.hop / SECOND,
            )
            for modality, spec in specs.items()
        ],
        licence=space.licence,
    )


def event_message(types: Types, event: Event, sequence: int = 0) -> Message:
    """sensebind_msgs/CrossModalEvent, the `sequence`-th message of its publisher, counted from 0."""
    return types.new(
        EVENT,
        header=header(types, event.tick),
        sequence=sequence,
        id=event.id,
        kind=int(event.kind),
        label=event.label,
        phase=int(event.phase),
        onset=time(types, event.onset),
        offset=time(types, event.offset),
        score=float(event.score),
        space=event.space,
        predecessor=event.predecessor,
        evidence=[_evidence_message(types, evidence) for evidence in event.evidence],
    )


def scores_message(types: Types, tick: int, space: str, scores: Mapping[str, Score], sequence: int = 0) -> Message:
    """sensebind_msgs/PromptScores from label → score, the `sequence`-th message of its publisher, counted from 0."""
    return types.new(
        PROMPT_SCORES,
        header=header(types, tick),
        sequence=sequence,
        space=space,
        prompts=[
            types.new(
                PROMPT_SCORE,
                label=label,
                score=float(score.score),
                modalities=[
                    types.new(
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
        ],
    )


def _evidence_message(types: Types, evidence: Evidence) -> Message:
    x, y, width, height = evidence.region or (0, 0, 0, 0)
    return types.new(
        EVIDENCE,
        modality=evidence.modality,
        sensor=evidence.sensor,
        frame_id=evidence.frame_id,
        score=float(evidence.score),
        competence=float(evidence.competence),
        weight=float(evidence.weight),
        supports=bool(evidence.supports),
        coincides=bool(evidence.coincides),
        window_start=time(types, evidence.start),
        window_end=time(types, evidence.tick),
        region=types.new(REGION, x_offset=x, y_offset=y, height=height, width=width, do_rectify=False),
        bearing=math.nan if evidence.bearing is None else float(evidence.bearing),
    )


def event_of(message: Message) -> Event:
    """The event in a sensebind_msgs/CrossModalEvent of this version or of an older recording."""
    return Event(
        id=message.id,
        kind=Kind(message.kind),
        label=message.label,
        phase=Phase(message.phase),
        onset=nanoseconds(message.onset),
        offset=nanoseconds(message.offset),
        tick=nanoseconds(message.header.stamp),
        score=float(message.score),
        space=message.space,
        evidence=tuple(_evidence_of(evidence) for evidence in message.evidence),
        predecessor=getattr(message, "predecessor", ""),
    )


def _evidence_of(message: Message) -> Evidence:
    start, end = nanoseconds(message.window_start), nanoseconds(message.window_end)
    basic = Evidence(message.modality, float(message.score), bool(message.supports), start, end)
    if not hasattr(message, "competence"):  # a recording of Sensebind 0.1.0
        return basic
    region = message.region
    return replace(
        basic,
        weight=float(message.weight),
        competence=float(message.competence),
        coincides=bool(message.coincides),
        sensor=message.sensor,
        frame_id=message.frame_id,
        region=(region.x_offset, region.y_offset, region.width, region.height) if region.width else None,
        bearing=None if math.isnan(message.bearing) else float(message.bearing),
    )
