"""What the names of topics say: which two are of one topic, and which topics belong to one sensor."""

from __future__ import annotations

import re

from sensebind.fusion.io.messages import VIDEO_TRANSPORTS

# Words in topics that carry one half of an IMU. The word of one half, in place of that of the other, names its topic.
GYROSCOPE_WORDS = ("gyroscope", "angular_velocity", "gyros", "gyro")
ACCELERATION_WORDS = ("accelerometer", "linear_acceleration", "accels", "accel")
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
    found = _HALF.search(topic.lower())
    return "" if found is None else "gyro" if found[1] in GYROSCOPE_WORDS else "accel"


def other_imu_half(topic: str) -> str:
    """The topic of the other half of an IMU, ``/camera/accel/sample`` for ``/camera/gyro/sample``. Empty: there is none
    because the name of this topic does not say that it is one half."""
    found = _HALF.search(topic.lower())
    if found is None:
        return ""
    words, others = GYROSCOPE_WORDS, ACCELERATION_WORDS
    if found[1] not in words:
        words, others = others, words
    return topic[: found.start()] + others[words.index(found[1])] + topic[found.end() :]
