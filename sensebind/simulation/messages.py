"""Simulated measurements as ROS messages, in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.messages import header
from sensebind.fusion.io.recordings import BagTypes

Floats = npt.NDArray[np.float64]

EPOCH = 1_700_000_000 * SECOND  # ns: when every simulation begins
VIEW = np.radians(66.0)  # horizontal field of view of all cameras
RATE = 16_000  # Hz of the microphone
INFO = "/info"  # what the microphone tells of its format, once
DELAY = SECOND // 500  # ns from a measurement to its message

Logged = tuple[int, str, str, Any]  # log time in ns, topic, type, message


def merged(streams: list[Iterator[Logged]]) -> Iterator[Logged]:
    """All streams in order of log time, holding one message of each."""
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        first = min((head[0], i) for i, head in enumerate(heads) if head is not None)[1]
        head = heads[first]
        assert head is not None
        yield head
        heads[first] = next(streams[first], None)


def image(types: BagTypes, stamp: int, frame_id: str, encoding: str, pixels: npt.NDArray[Any]) -> Any:
    """Pixels (H, W) or (H, W, C) as a sensor_msgs/Image."""
    return types.new(
        "sensor_msgs/msg/Image",
        header=header(types, stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
    )


def camera_info(types: BagTypes, stamp: int, frame_id: str, size: tuple[int, int]) -> Any:
    """What a camera with the field of view `VIEW` tells of itself. `size` is (width, height)."""
    width, height = size
    focal = width / 2 / np.tan(VIEW / 2)
    k = np.array([focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1])
    region = types.new("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return types.new(
        "sensor_msgs/msg/CameraInfo",
        header=header(types, stamp, frame_id),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).reshape(-1),
        p=np.insert(k.reshape(3, 3), 3, 0, axis=1).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def sound_messages(types: BagTypes, wave: npt.NDArray[np.int16]) -> Iterator[Logged]:
    """Samples int16 (N,) at 16 kHz in blocks of 0.1 s on `/audio`, after their format on `INFO`."""
    kind, block = "audio_common_msgs/msg/AudioData", RATE // 10
    told = types.new(
        "audio_common_msgs/msg/AudioInfo",
        channels=1,
        sample_rate=RATE,
        sample_format="S16LE",
        bitrate=16 * RATE,
        coding_format="wave",
    )
    yield EPOCH, INFO, "audio_common_msgs/msg/AudioInfo", told
    for first in range(0, len(wave) - block + 1, block):
        stamp = EPOCH + first * SECOND // RATE
        data = types.new(kind, data=wave[first : first + block].astype("<i2").view(np.uint8))
        message = types.new(f"{kind}Stamped", header=header(types, stamp, "microphone"), audio=data)
        # A block is sent when its last sample was heard.
        yield stamp + SECOND // 10 + DELAY, "/audio", f"{kind}Stamped", message


def motion_messages(types: BagTypes, times: Floats, values: Floats) -> Iterator[Logged]:
    """Readings (N, 6), acceleration in m/s² and angular velocity in rad/s, at `times` (s) on `/imu`."""
    unknown = np.array([-1.0] + [0.0] * 8)
    for t, row in zip(times, values, strict=True):
        stamp = EPOCH + round(t * SECOND)
        message = types.new(
            "sensor_msgs/msg/Imu",
            header=header(types, stamp, "imu"),
            orientation=types.new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            orientation_covariance=unknown,
            angular_velocity=types.new("geometry_msgs/msg/Vector3", x=row[3], y=row[4], z=row[5]),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=types.new("geometry_msgs/msg/Vector3", x=row[0], y=row[1], z=row[2]),
            linear_acceleration_covariance=np.zeros(9),
        )
        yield stamp + DELAY, "/imu", "sensor_msgs/msg/Imu", message
