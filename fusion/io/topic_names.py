"""What the names of topics say: which two are of one topic, and which topics belong to one sensor. And which names the
sensors of a robot may have, and how many there may be, because each is a part of a topic."""

from __future__ import annotations

import re

from sensebind.fusion.io.messages import VIDEO_TRANSPORTS

# Of sensors and modalities: they are parts of topics, which ROS limits to 247 characters.
MAX_NAME_LENGTH = 64
MAX_SENSORS = 256  # of one robot: those that its parameters may name, and those in messages about it
NAME_PATTERN = re.compile(rf"[a-z][a-z0-9_]{{0,{MAX_NAME_LENGTH - 1}}}")  # of the names that parameters give
# Of the names in messages: those that ROS allows in topics, because other programs publish embeddings too.
RECEIVED_NAME_PATTERN = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME_LENGTH - 1}}}")
# Words in topics that carry one half of an IMU. The word of one half, in place of that of the other, names its topic.
GYROSCOPE_WORDS = ("gyroscope", "angular_velocity", "angular_vel", "gyros", "gyro", "gyr", "angular_rate")
ACCELERATION_WORDS = ("accelerometer", "linear_acceleration", "linear_acc", "accels", "accel", "acc", "acceleration")
_HALF = re.compile(rf"(?<![a-z])({'|'.join(GYROSCOPE_WORDS + ACCELERATION_WORDS)})(?![a-z])")


def bare_name(topic: str) -> str:
    """The name of a topic without slashes at its ends. Compare names in this form: parameters and recordings write them
    with and without a slash."""
    return topic.strip("/")


def sibling_topic(topic: str, name: str) -> str:
    """The topic `name` in the namespace of `topic`, without image_transport's suffix.

    For ``camera_info``, both ``camera/image/compressed`` and ``camera/image`` give ``camera/camera_info``.
    """
    parts = topic.split("/")
    if (parts[-1].startswith("compressed") or parts[-1] in VIDEO_TRANSPORTS) and len(parts) > 1:
        parts.pop()
    return "/".join([*parts[:-1], name])


def imu_half(topic: str) -> str:
    """The half of an IMU that the name of a topic says: ``gyro``, ``accel``, or empty."""
    words = set(_HALF.findall(topic.lower()))
    if len(words) != 1:  # Orbbec's gyro_accel carries both
        return ""
    return "gyro" if words <= set(GYROSCOPE_WORDS) else "accel"


def other_imu_half(topic: str) -> str:
    """The topic of the other half of an IMU, ``/camera/accel/sample`` for ``/camera/gyro/sample``. Empty: there is none
    because the name of this topic does not say that it is one half."""
    found = _HALF.search(topic.lower())
    if found is None or not imu_half(topic):
        return ""
    words, others = GYROSCOPE_WORDS, ACCELERATION_WORDS
    if found[1] not in words:
        words, others = others, words
    return topic[: found.start()] + others[words.index(found[1])] + topic[found.end() :]


def other_imu_halves(topic: str) -> list[str]:
    """All names that the topic of the other half of an IMU may have, `other_imu_half` first."""
    found = _HALF.search(topic.lower())
    if found is None or not imu_half(topic):
        return []
    others = ACCELERATION_WORDS if found[1] in GYROSCOPE_WORDS else GYROSCOPE_WORDS
    return [other_imu_half(topic), *(topic[: found.start()] + word + topic[found.end() :] for word in others)]
