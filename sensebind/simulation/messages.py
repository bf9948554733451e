"""ROS messages of simulated sensors, in order of log time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.messages import header_message
from sensebind.fusion.io.recordings import RosbagsMessageFactory

Floats = npt.NDArray[np.float64]

SIMULATION_START = 1_700_000_000 * SECOND  # ns: start of every simulation
FIELD_OF_VIEW = np.radians(66.0)  # horizontal field of view of all cameras
AUDIO_SAMPLE_RATE = 16_000  # Hz
AUDIO_INFO_TOPIC = "/info"  # one message with the format of the audio
MESSAGE_DELAY = SECOND // 500  # ns from a measurement to its message

LoggedMessage = tuple[int, str, str, Any]  # log time in ns, topic, type, message


def merge_by_log_time(streams: list[Iterator[LoggedMessage]]) -> Iterator[LoggedMessage]:
    """Merge streams, each sorted by log time, into one. Holds one message of each stream in memory."""
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        first = min((head[0], i) for i, head in enumerate(heads) if head is not None)[1]
        head = heads[first]
        assert head is not None
        yield head
        heads[first] = next(streams[first], None)


def image_message(
    types: RosbagsMessageFactory, stamp: int, frame_id: str, encoding: str, pixels: npt.NDArray[Any]
) -> Any:
    """Pixels (H, W) or (H, W, C) as a sensor_msgs/Image."""
    return types.make(
        "sensor_msgs/msg/Image",
        header=header_message(types, stamp, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
    )


def camera_info_message(types: RosbagsMessageFactory, stamp: int, frame_id: str, size: tuple[int, int]) -> Any:
    """CameraInfo of a camera with the field of view `FIELD_OF_VIEW`. `size` is (width, height) in pixels."""
    width, height = size
    focal = width / 2 / np.tan(FIELD_OF_VIEW / 2)
    k = np.array([focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1])
    region = types.make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return types.make(
        "sensor_msgs/msg/CameraInfo",
        header=header_message(types, stamp, frame_id),
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


def microphone_messages(types: RosbagsMessageFactory, wave: npt.NDArray[np.int16]) -> Iterator[LoggedMessage]:
    """Audio int16 (N,) at 16 kHz: its format on `AUDIO_INFO_TOPIC`, then blocks of 0.1 s on `/audio`."""
    kind, block = "audio_common_msgs/msg/AudioData", AUDIO_SAMPLE_RATE // 10
    info = types.make(
        "audio_common_msgs/msg/AudioInfo",
        channels=1,
        sample_rate=AUDIO_SAMPLE_RATE,
        sample_format="S16LE",
        bitrate=16 * AUDIO_SAMPLE_RATE,
        coding_format="wave",
    )
    yield SIMULATION_START, AUDIO_INFO_TOPIC, "audio_common_msgs/msg/AudioInfo", info
    for first in range(0, len(wave) - block + 1, block):
        stamp = SIMULATION_START + first * SECOND // AUDIO_SAMPLE_RATE
        data = types.make(kind, data=wave[first : first + block].astype("<i2").view(np.uint8))
        message = types.make(f"{kind}Stamped", header=header_message(types, stamp, "microphone"), audio=data)
        # A block is sent after its last sample was recorded.
        yield stamp + SECOND // 10 + MESSAGE_DELAY, "/audio", f"{kind}Stamped", message


def imu_messages(types: RosbagsMessageFactory, times: Floats, values: Floats) -> Iterator[LoggedMessage]:
    """IMU messages on `/imu` at `times` (N,) in s. `values` (N, 6): acceleration in m/s², angular velocity in rad/s."""
    no_orientation = np.array([-1.0] + [0.0] * 8)
    for t, row in zip(times, values, strict=True):
        stamp = SIMULATION_START + round(t * SECOND)
        message = types.make(
            "sensor_msgs/msg/Imu",
            header=header_message(types, stamp, "imu"),
            orientation=types.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            orientation_covariance=no_orientation,
            angular_velocity=types.make("geometry_msgs/msg/Vector3", x=row[3], y=row[4], z=row[5]),
            angular_velocity_covariance=np.zeros(9),
            linear_acceleration=types.make("geometry_msgs/msg/Vector3", x=row[0], y=row[1], z=row[2]),
            linear_acceleration_covariance=np.zeros(9),
        )
        yield stamp + MESSAGE_DELAY, "/imu", "sensor_msgs/msg/Imu", message
