"""Messages of sensors as drivers send them, made with rosbags."""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.recordings import RosbagsMessageFactory
from sensebind.fusion.io.sensor_messages.audio import AUDIO_INFO_TYPE
from sensebind.simulation.messages import camera_info_message, image_message

AUDIO_DATA, AUDIO_STAMPED = "audio_common_msgs/msg/AudioData", "audio_common_msgs/msg/AudioStamped"
RAW_AUDIO, NUMBERS = "foxglove_msgs/msg/RawAudio", "std_msgs/msg/Float32MultiArray"
START = 1_700_000_000 * SECOND
BAG = RosbagsMessageFactory()
NOISE = np.random.default_rng(0)


def camera_info(width: int = 8, focal: float | None = None, tx: float = 0.0) -> Any:
    """CameraInfo of a camera. `focal` 0: not calibrated. `tx`: P's Tx = −focal · baseline."""
    result = camera_info_message(BAG, START, "camera", (width, 6))
    if focal is not None:
        result.k[0] = result.p[0] = focal
    result.p[3] = tx
    return result


def audio_info(rate: int = 8000, channels: int = 1, sample_format: str = "S16LE", coding: str = "wave") -> Any:
    return BAG.make(
        AUDIO_INFO_TYPE,
        channels=channels,
        sample_rate=rate,
        sample_format=sample_format,
        bitrate=0,
        coding_format=coding,
    )


def image(encoding: str, pixels: Any, stamp: int = START) -> Any:
    return image_message(BAG, stamp, "camera", encoding, pixels)


def colour(number: int = 0) -> Any:
    return image("rgb8", NOISE.integers(0, 256, (6, 8, 3), dtype=np.uint8), START + number)


def depth(number: int = 0) -> Any:
    return image("16UC1", NOISE.integers(0, 5000, (6, 8), dtype=np.uint16), START + number)


def compressed_image(name: str) -> Any:
    data = NOISE.integers(0, 256, 50, dtype=np.uint8)  # these bytes are not decoded in this test
    return BAG.make(m.COMPRESSED_IMAGE_TYPE, header=m.header_message(BAG, START, "camera"), format=name, data=data)


def motion(unknown: bool = False) -> Any:
    def vector() -> Any:
        return BAG.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", NOISE.standard_normal(3).tolist(), strict=True)))

    covariance = np.array([-1.0 if unknown else 0.0] + [0.0] * 8)
    return BAG.make(
        m.IMU_TYPE,
        header=m.header_message(BAG, START, "imu"),
        orientation=BAG.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.zeros(9),
        angular_velocity=vector(),
        angular_velocity_covariance=covariance,
        linear_acceleration=vector(),
        linear_acceleration_covariance=np.zeros(9),
    )


def wave(channels: int = 1) -> Any:
    return NOISE.integers(-9000, 9000, 800 * channels).astype("<i2").view(np.uint8)


def sound() -> Any:
    return BAG.make(AUDIO_DATA, data=wave())


def sound_with_stamp() -> Any:
    return BAG.make(f"{AUDIO_DATA}Stamped", header=m.header_message(BAG, START, "mic"), audio=sound())


def raw_audio() -> Any:
    stamp = m.stamp_message(BAG, START)
    return BAG.make(RAW_AUDIO, timestamp=stamp, data=wave(2), format="pcm-s16", sample_rate=8000, number_of_channels=2)


def numbers() -> Any:
    layout = BAG.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return BAG.make(NUMBERS, layout=layout, data=NOISE.standard_normal(3).astype(np.float32))


def other_audio_package() -> Typestore:
    """The types of mgonzs13/audio_common: the same package name, but one message with audio and format."""
    result = get_typestore(Stores.ROS2_JAZZY)
    for name, text in {
        "AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\n"
        "uint8[] uint8_data",
        "AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
        "Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
        "AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio",
    }.items():
        result.register(get_types_from_msg(text, f"audio_common_msgs/msg/{name}"))
    return result


MGONZS13_TYPES = other_audio_package()


def other_data(**fields: Any) -> Any:
    empty = {"float32_data": np.float32, "int32_data": np.int32, "int16_data": np.int16, "int8_data": np.int8}
    arrays = {name: np.zeros(0, kind) for name, kind in {**empty, "uint8_data": np.uint8}.items()}
    return MGONZS13_TYPES.types[AUDIO_DATA](**{**arrays, **fields})


def audio_stamped() -> Any:
    package = "audio_common_msgs/msg/"
    info = MGONZS13_TYPES.types[f"{package}AudioInfo"](format=8, channels=2, rate=8000, chunk=400)
    data = other_data(int16_data=NOISE.integers(-9000, 9000, 1600).astype(np.int16))
    head = MGONZS13_TYPES.types["std_msgs/msg/Header"](
        MGONZS13_TYPES.types["builtin_interfaces/msg/Time"](sec=START // SECOND, nanosec=5), "mic"
    )
    return MGONZS13_TYPES.types[AUDIO_STAMPED](
        header=head, audio=MGONZS13_TYPES.types[f"{package}Audio"](audio_data=data, info=info)
    )
