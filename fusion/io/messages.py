"""Messages to samples, and embeddings and events to messages and back.

Nothing here imports rclpy or rosbags: both libraries' message objects have the fields of the definitions, so
one function reads either. Writing takes a `Types`, which knows how to make them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, Evidence, Kind, Phase
from sensebind.fusion.core.samples import SECOND, Calibration, Frame, Reading, Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import WindowSpec

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
IMU = "sensor_msgs/msg/Imu"
EMBEDDING = "sensebind_msgs/msg/Embedding"
EMBEDDING_SPACE = "sensebind_msgs/msg/EmbeddingSpace"
EVENT = "sensebind_msgs/msg/CrossModalEvent"

Message = Any  # of rclpy's or rosbags' generated classes, which share no base


class Types(Protocol):
    """Makes messages of one library."""

    def new(self, name: str, **fields: Any) -> Message:
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


def embedding_message(types: Types, embedding: Embedding) -> Message:
    """sensebind_msgs/Embedding."""
    return types.new(
        EMBEDDING,
        header=header(types, embedding.tick, embedding.frame_id),
        modality=embedding.modality,
        window_start=time(types, embedding.start),
        space=embedding.space,
        coverage=float(embedding.coverage),
        vector=types.floats(embedding.vector),
        sources=list(embedding.sources),
        weights=types.floats(embedding.weights),
        symptoms=list(embedding.symptoms),
    )


def embedding_of(message: Message) -> Embedding:
    """The embedding in a sensebind_msgs/Embedding. Its vector is a copy."""
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
        symptoms=tuple(getattr(message, "symptoms", ())),  # recordings from before there were any
    )


def space_message(types: Types, space: Space, specs: Mapping[str, WindowSpec]) -> Message:
    """sensebind_msgs/EmbeddingSpace, with the windows as they are cut; 0 s for modalities that are not (text)."""
    cut = [specs.get(modality) for modality in space.modalities]
    return types.new(
        EMBEDDING_SPACE,
        header=header(types, 0),
        id=space.id,
        dimension=space.dimension,
        modalities=list(space.modalities),
        logit_scales=types.floats([space.logit_scales[modality] for modality in space.modalities]),
        window_lengths=types.floats([spec.length / SECOND if spec else 0.0 for spec in cut]),
        hops=types.floats([spec.hop / SECOND if spec else 0.0 for spec in cut]),
        licence=space.licence,
    )


def event_message(types: Types, event: Event) -> Message:
    """sensebind_msgs/CrossModalEvent."""
    return types.new(
        EVENT,
        header=header(types, event.tick),
        id=event.id,
        kind=int(event.kind),
        label=event.label,
        phase=int(event.phase),
        onset=time(types, event.onset),
        offset=time(types, event.offset),
        score=float(event.score),
        space=event.space,
        evidence=[
            types.new(
                "sensebind_msgs/msg/ModalityEvidence",
                modality=evidence.modality,
                score=float(evidence.score),
                supports=bool(evidence.supports),
                window_start=time(types, evidence.start),
                window_end=time(types, evidence.tick),
            )
            for evidence in event.evidence
        ],
    )


def event_of(message: Message) -> Event:
    """The event in a sensebind_msgs/CrossModalEvent."""
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
        evidence=tuple(
            Evidence(
                e.modality, float(e.score), bool(e.supports), nanoseconds(e.window_start), nanoseconds(e.window_end)
            )
            for e in message.evidence
        ),
    )
