"""Converts microphone messages to samples, with one adapter for each message type.

ROS has no standard message for microphones. If a message does not contain the rate, channels or sample format, these
are taken from an `AudioInfo` message on another topic, or from parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sensebind.fusion.core.encodings import EncodingError, decode_pcm
from sensebind.fusion.core.samples import AUDIO, SECOND, Sample, Sound
from sensebind.fusion.io.channels import ChannelSelector
from sensebind.fusion.io.messages import stamp_to_ns
from sensebind.fusion.io.sensor_options import AudioFormat

AUDIO_INFO_TYPE = "audio_common_msgs/msg/AudioInfo"


def with_audio_info(audio_format: AudioFormat, info: Any) -> AudioFormat:
    """`audio_format`, its unknown fields set from an AudioInfo message. Raises `EncodingError` for compressed sound."""
    if info.coding_format.lower() not in ("", "wave", "wav", "raw", "pcm"):
        raise EncodingError(
            f"audio coding format '{info.coding_format}' is compressed: set audio_capture's format to 'wave'"
        )
    return replace(
        audio_format,
        sample_format=audio_format.sample_format or info.sample_format,
        sample_rate=audio_format.sample_rate or float(info.sample_rate),
        channels=audio_format.channels or int(info.channels),
    )


class AudioMessageDecoder:
    """Converts the messages of one topic to samples. It computes a stamp for messages that have none.

    Raises `EncodingError` if `type_name` has no adapter.
    """

    def __init__(self, type_name: str, audio_format: AudioFormat = AudioFormat()) -> None:
        if type_name not in AUDIO_ADAPTERS:
            raise EncodingError(
                f"audio message type '{type_name}' is not known: set audio.topic to a topic of type "
                f"{', '.join(AUDIO_ADAPTERS)}"
            )
        self.format = audio_format
        self._adapter = AUDIO_ADAPTERS[type_name]
        self._channels = ChannelSelector(audio_format.channel)
        self._next_stamp: int | None = None
        self._info_error = ""  # why the newest AudioInfo cannot be used; empty: no error

    @property
    def warning(self) -> str:
        """What is wrong with the channels of the sounds so far; empty: nothing."""
        return self._channels.warning

    def apply_audio_info(self, info: Any) -> None:
        """Set unknown fields of the format from an AudioInfo message. Raises `EncodingError` for compressed sound."""
        try:
            self.format, self._info_error = with_audio_info(self.format, info), ""
        except EncodingError as error:
            self._info_error = str(error)
            raise

    def decode(self, message: Any, received_ns: int) -> Sample:
        """Convert one message to a sample.

        A sound without a stamp ends at its time of arrival, `received_ns` (ns). If its start differs by less than
        0.25 s from the end of the sound before, it begins at that end instead. Raises `EncodingError` for data that
        cannot be read, and for an unknown format.
        """
        if self._info_error and not self.format.is_complete:
            raise EncodingError(self._info_error)
        stamp, sound = self._adapter(message, self.format)
        if stamp is None:
            stamp = received_ns - sound.duration
            if self._next_stamp is not None and abs(stamp - self._next_stamp) < SECOND // 4:
                stamp = self._next_stamp
            self._next_stamp = stamp + sound.duration
        frame_id = message.header.frame_id if hasattr(message, "header") else ""
        return Sample(AUDIO, stamp, self._channels.apply(sound), frame_id)


def _decode_pcm(data: Any, form: AudioFormat) -> Sound:
    if not form.is_complete:
        missing = [
            name
            for name, value in (
                ("audio.sample_format", form.sample_format),
                ("audio.sample_rate", form.sample_rate),
                ("audio.channels", form.channels),
            )
            if not value
        ]
        raise EncodingError(
            "the audio format is not known: publish an AudioInfo message (on this topic with '_info' or '/info' "
            f"added, or that of audio.info_topic), or set {', '.join(missing)}"
        )
    return Sound(decode_pcm(memoryview(data).cast("B"), form.sample_format, form.channels), form.sample_rate)


def _audio_data_adapter(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    return None, _decode_pcm(message.data, form)


def _audio_data_stamped_adapter(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    return stamp_to_ns(message.header.stamp), _decode_pcm(message.audio.data, form)


# PortAudio's sample format, the number in the AudioInfo of mgonzs13/audio_common → the field with the samples.
_PORTAUDIO_FIELDS = {1: "float32_data", 2: "int32_data", 8: "int16_data", 16: "int8_data", 32: "uint8_data"}


def _audio_stamped_adapter(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    info, data = message.audio.info, message.audio.audio_data
    field = _PORTAUDIO_FIELDS.get(int(info.format))
    if field is None:
        raise EncodingError(f"PortAudio sample format {info.format} is not known: use paInt16 (8) or paFloat32 (1)")
    channels, rate = form.channels or int(info.channels), form.sample_rate or float(info.rate)
    samples = np.asarray(getattr(data, field))
    if channels < 1 or rate <= 0 or samples.size % channels:
        raise EncodingError(
            f"{samples.size} audio samples of {channels} channels at {rate} Hz are not a valid sound: check "
            "audio.channels and audio.sample_rate"
        )
    if samples.dtype == np.uint8:  # zero of unsigned PCM is 128
        samples = (samples.astype(np.int16) - 128).astype(np.int8)
    return stamp_to_ns(message.header.stamp), Sound(samples.reshape(-1, channels), rate)


def _raw_audio_adapter(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    if message.format != "pcm-s16":
        raise EncodingError(f"foxglove_msgs/RawAudio format '{message.format}' is not known; known: pcm-s16")
    audio_format = replace(
        form,
        sample_format="S16LE",
        sample_rate=form.sample_rate or float(message.sample_rate),
        channels=form.channels or int(message.number_of_channels),
    )
    return stamp_to_ns(message.timestamp), _decode_pcm(message.data, audio_format)


# Messages that contain bytes only, without their format.
TYPES_NEEDING_AUDIO_INFO = ("audio_common_msgs/msg/AudioDataStamped", "audio_common_msgs/msg/AudioData")
AUDIO_ADAPTERS: dict[str, Callable[[Any, AudioFormat], tuple[int | None, Sound]]] = {
    TYPES_NEEDING_AUDIO_INFO[0]: _audio_data_stamped_adapter,
    TYPES_NEEDING_AUDIO_INFO[1]: _audio_data_adapter,
    "audio_common_msgs/msg/AudioStamped": _audio_stamped_adapter,
    "foxglove_msgs/msg/RawAudio": _raw_audio_adapter,
}
