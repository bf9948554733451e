"""The parameters of one sensor's messages. Imports no OpenCV, because nodes that decode no images use them too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import USER_DEFINED, Options, parameter
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMAGE_MODALITIES,
    IMU,
    MAX_PIXELS,
    SENSOR_MODALITIES,
    THERMAL,
    VISION,
    Calibration,
)
from sensebind.fusion.io import messages

RAW_TRANSPORT, COMPRESSED_TRANSPORT = "raw", "compressed"  # values of `<modality>.transport`, besides those of videos

MEAN_CHANNEL, LOUDEST_CHANNEL = "mean", "loudest"  # values of the parameter `<modality>.channel`, besides a number
WAVE, MP3, OPUS = CODING_FORMATS = ("wave", "mp3", "opus")  # values of `audio.coding_format`
AUDIO_RATES = (1000.0, 768_000.0)  # Hz: smallest and largest sampling rate of a sound
HEADER_STAMPS, RECEIVED_STAMPS = "header", "received"  # the two values of the parameter `<sensor>.stamps`
# Values of `<sensor>.acceleration_unit` in m/s², and of `<sensor>.angular_velocity_unit` in rad/s.
ACCELERATION_UNITS = {"m/s^2": 1.0, "g": 9.80665, "mg": 9.80665e-3}
ANGULAR_VELOCITY_UNITS = {"rad/s": 1.0, "deg/s": math.pi / 180.0}
DROP_UNMEASURED, USE_UNMEASURED = "drop", "use"  # the two values of the parameter `<sensor>.unmeasured`

LOUDER_DB = 3.0  # dB by which another channel must be louder before `loudest` selects it

DEFAULT_TOPICS = {
    VISION: "camera/image",
    DEPTH: "depth/image",
    THERMAL: "thermal/image",
    AUDIO: "audio",
    IMU: "imu",
}
NAMED_SENSOR_TOPICS = {**dict.fromkeys(IMAGE_MODALITIES, "image"), AUDIO: "audio", IMU: "imu"}  # after `<sensor>/`


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of PCM bytes. 0 and empty: not known yet.

    Values from parameters take precedence over values from messages.
    """

    sample_format: str = parameter(
        "",
        "Sample format of AudioData and AudioDataStamped, such as S16LE, S32LE or F32LE. Empty: from AudioInfo",
        modalities=(AUDIO,),
    )
    sample_rate: float = parameter(
        0,
        "Sample rate. 0: from the audio message or AudioInfo",
        bounds=(0, 768_000),
        unit="Hz",
        name="sample_rate",
        modalities=(AUDIO,),
    )
    channels: int = parameter(
        0, "Number of channels. 0: from the audio message or AudioInfo", bounds=(0, 64), modalities=(AUDIO,)
    )
    channel: str = parameter(
        "",
        "Channel of a microphone array that is used: its number from 0, `mean` of all, or `loudest`, which changes to "
        f"another channel once that is {LOUDER_DB:g} dB louder. Empty: of three or more channels the first; of two, as "
        "the space does by itself (starter: their mean, ImageBind: the first)",
        modalities=(AUDIO,),
        may_be_number=True,
    )
    coding_format: str = parameter(
        "",
        "Coding of the bytes in AudioData and AudioDataStamped: wave (PCM), mp3 or opus. Empty: from AudioInfo; MP3 "
        "and Ogg are recognised by their content",
        choices=("", *CODING_FORMATS),
        modalities=(AUDIO,),
    )

    def __post_init__(self) -> None:
        if self.channel not in ("", MEAN_CHANNEL, LOUDEST_CHANNEL) and not self.channel.isdecimal():
            raise ConfigError(
                f"channel must be a number from 0, {MEAN_CHANNEL} or {LOUDEST_CHANNEL}, not {self.channel!r}"
            )

    @property
    def is_complete(self) -> bool:
        """Whether sound can be decoded: compressed sound contains its own rate and channels."""
        if self.coding_format in (MP3, OPUS):
            return True
        return bool(self.sample_format and self.sample_rate > 0 and self.channels > 0)


@dataclass(frozen=True, slots=True)
class SensorOptions(Options):
    """The topics, message types and calibration of one sensor, from parameters. Raises `ConfigError`.

    `calibration` and `audio_format` contain the values from parameters. A `SampleDecoder` sets those that are unknown
    (0 or empty) from CameraInfo and AudioInfo messages. `sensor`: its name; empty: that of the modality.
    """

    modality: str
    topic: str = parameter(
        "",
        "Topic of the sensor. Empty: the default topic (camera/image, depth/image, thermal/image, audio, imu, or the "
        "modality's own name; of a sensor with a name of its own <sensor>/image, <sensor>/audio or <sensor>/imu); in a "
        "replay, if the modality has no named sensors, those found by what the topics contain",
    )
    transport: str = parameter(
        RAW_TRANSPORT,
        "Message type: raw is Image on `topic`, compressed is CompressedImage on `topic`/compressed (depth: "
        "`topic`/compressedDepth). Video: ffmpeg is FFMPEGPacket on `topic`/ffmpeg, foxglove is CompressedVideo on "
        "`topic`/foxglove",
        choices=(RAW_TRANSPORT, COMPRESSED_TRANSPORT, *messages.VIDEO_TRANSPORTS),
        modalities=IMAGE_MODALITIES,
    )
    bits: int = parameter(
        0,
        "Number of bits that a camera uses of its 16-bit images (mono16, rgb16, bayer_*16), from the lowest, such as "
        "10 or 12. 0: all 16",
        bounds=(0, 16),
        modalities=(VISION,),
    )
    max_pixels: int = parameter(
        MAX_PIXELS,
        "Largest image, in pixels. A message that declares a larger one is an error, and is not decoded. A decoded "
        "camera image needs 3 bytes for each pixel",
        bounds=(1, MAX_PIXELS),
        unit="px",
        modalities=IMAGE_MODALITIES,
    )
    type: str = parameter(
        "",
        "Message type of the topic, such as audio_common_msgs/msg/AudioData. Empty: the type that is published",
        modalities=(AUDIO, USER_DEFINED),
    )
    camera_info_topic: str = parameter(
        "",
        "CameraInfo topic. Empty: camera_info in the namespace of the image topic",
        modalities=(VISION, DEPTH),
        formerly="camera_info",
    )
    info_topic: str = parameter(
        "",
        "AudioInfo topic of AudioData and AudioDataStamped. Empty: info or audio_info in the topic's namespace, "
        "<topic>_info, <topic>/info; in a replay else the only AudioInfo topic of the recording",
        modalities=(AUDIO,),
    )
    fields: tuple[str, ...] = parameter(
        (),
        "Field paths of the numbers in a message, such as data, wrench.force.x or ranges[0:360]. Required, "
        "for the modality or for each of its sensors",
        modalities=(USER_DEFINED,),
    )
    fill: float = parameter(
        0.0,
        "Value that replaces NaN and infinity. A message without a finite number is dropped",
        bounds=(-1e9, 1e9),
        modalities=(USER_DEFINED,),
    )
    rate: float = parameter(
        10.0,
        "Sampling rate of a new spoke for this modality. Used by `sensebind align` only",
        bounds=(0.01, 10_000.0),
        unit="Hz",
        modalities=(USER_DEFINED,),
    )
    stamps: str = parameter(
        HEADER_STAMPS,
        "Stamps of the samples: those in the headers of the messages, or the times at which the messages were received "
        "(in a recording: their log times), for a driver that sets no stamps or wrong ones",
        choices=(HEADER_STAMPS, RECEIVED_STAMPS),
    )
    time_offset: float = parameter(
        0.0,
        "Added to each stamp, for a sensor whose clock differs from those of the others",
        bounds=(-4e9, 4e9),
        unit="s",
    )
    acceleration_topic: str = parameter(
        "",
        "Topic of the acceleration, if two Imu topics carry one IMU and `topic` has the angular velocity alone. Empty: "
        "of a topic such as camera/gyro/sample, the one that is named after the acceleration (camera/accel/sample)",
        modalities=(IMU,),
    )
    acceleration_unit: str = parameter(
        "m/s^2",
        "Unit of linear_acceleration. REP-145: m/s^2. g (9.80665 m/s²) and mg are of drivers that do not keep to it",
        choices=tuple(ACCELERATION_UNITS),
        modalities=(IMU,),
    )
    angular_velocity_unit: str = parameter(
        "rad/s",
        "Unit of angular_velocity. REP-145: rad/s",
        choices=tuple(ANGULAR_VELOCITY_UNITS),
        modalities=(IMU,),
    )
    unmeasured: str = parameter(
        DROP_UNMEASURED,
        "Readings that lack the acceleration or the angular velocity, by a covariance of -1 or because it is always "
        "exactly 0: drop them, or use them as they are, for a driver that sets -1 wrongly",
        choices=(DROP_UNMEASURED, USE_UNMEASURED),
        modalities=(IMU,),
    )
    calibration: Calibration = Calibration()
    audio_format: AudioFormat = AudioFormat()
    sensor: str = ""

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        if not self.sensor:
            object.__setattr__(self, "sensor", self.modality)

    @property
    def has_explicit_topic(self) -> bool:
        """Whether the topic follows from the parameters: `topic` is set, or the sensor or modality is user-defined, so
        that its name is in the default topic. Otherwise a replay selects a topic by type and name."""
        return bool(self.topic) or self.modality not in SENSOR_MODALITIES or self.sensor != self.modality

    @property
    def topic_name(self) -> str:
        """The topic to subscribe to: the parameter's, or else the sensor's default."""
        if self.topic:
            return self.topic
        if self.sensor == self.modality:
            return DEFAULT_TOPICS.get(self.modality, self.modality)
        ending = NAMED_SENSOR_TOPICS.get(self.modality)
        return f"{self.sensor}/{ending}" if ending else self.sensor

    @property
    def message_type(self) -> str:
        """The message type that the parameters set. Empty: the published type (`select_message_type`)."""
        if self.modality in IMAGE_MODALITIES:
            types = {COMPRESSED_TRANSPORT: messages.COMPRESSED_IMAGE_TYPE, **messages.VIDEO_TRANSPORTS}
            return types.get(self.transport, messages.IMAGE_TYPE)
        return messages.IMU_TYPE if self.modality == IMU else self.type
