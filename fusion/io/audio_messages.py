"""Microphone messages to samples: one adapter per message type, found by the type's name.

No message for microphones is standard, so what a message does not hold (rate, channels, sample format) comes
from an `AudioInfo` message on another topic, or from parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sensebind.fusion.core.encodings import EncodingError, pcm
from sensebind.fusion.core.samples import AUDIO, SECOND, Sample, Sound
from sensebind.fusion.io.messages import nanoseconds
from sensebind.fusion.io.sensor_options import AudioFormat

INFO = "audio_common_msgs/msg/AudioInfo"


def with_info(given: AudioFormat, info: Any) -> AudioFormat:
    """`given` completed by an AudioInfo message; what was given stays. Raises `EncodingError` for MP3 and others."""
    if info.coding_format.lower() not in ("", "wave", "wav", "raw", "pcm"):
        raise EncodingError(
            f"audio coding format '{info.coding_format}' is compressed: set audio_capture's format to 'wave'"
        )
    return AudioFormat(
        given.sample_format or info.sample_format,
        given.rate or float(info.sample_rate),
        given.channels or int(info.channels),
    )


class Microphone:
    """Turns the messages of one topic into samples. Keeps time for messages that have no stamp of their own.

    Raises `EncodingError` at construction where `type_name` has no adapter.
    """

    def __init__(self, type_name: str, given: AudioFormat = AudioFormat()) -> None:
        if type_name not in ADAPTERS:
            raise EncodingError(
                f"audio message type '{type_name}' is not known: set audio.topic to a topic of type "
                f"{', '.join(ADAPTERS)}"
            )
        self.format = given
        self._adapter = ADAPTERS[type_name]
        self._end: int | None = None
        self._refusal = ""  # why the newest AudioInfo could not be used

    def inform(self, info: Any) -> None:
        """Complete the format by an AudioInfo message. Raises `EncodingError` where it describes compressed sound."""
        try:
            self.format, self._refusal = with_info(self.format, info), ""
        except EncodingError as error:
            self._refusal = str(error)
            raise

    def sample(self, message: Any, received: int) -> Sample:
        """One message → its sound. `received` (ns) stands in for the end of a sound that has no stamp.

        Such a stream is timed by counting its samples, and set anew where that is off by over 0.25 s.
        Raises `EncodingError` for data that cannot be read, or whose format is not known.
        """
        if self._refusal and not self.format.known:
            raise EncodingError(self._refusal)
        stamp, sound = self._adapter(message, self.format)
        if stamp is None:
            stamp = received - sound.duration
            if self._end is not None and abs(stamp - self._end) < SECOND // 4:
                stamp = self._end
            self._end = stamp + sound.duration
        frame_id = message.header.frame_id if hasattr(message, "header") else ""
        return Sample(AUDIO, stamp, sound, frame_id)


def _read(data: Any, form: AudioFormat) -> Sound:
    if not form.known:
        missing = [
            name
            for name, value in (
                ("audio.sample_format", form.sample_format),
                ("audio.sample_rate", form.rate),
                ("audio.channels", form.channels),
            )
            if not value
        ]
        raise EncodingError(f"no AudioInfo has given the format: publish one, or set {', '.join(missing)}")
    return Sound(pcm(memoryview(data).cast("B"), form.sample_format, form.channels), form.rate)


def _audio_data(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    return None, _read(message.data, form)


def _audio_data_stamped(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    return nanoseconds(message.header.stamp), _read(message.audio.data, form)


# PortAudio's sample formats, which audio_common of mgonzs13 puts into its AudioInfo.
_PORTAUDIO = {1: "float32_data", 2: "int32_data", 8: "int16_data", 16: "int8_data", 32: "uint8_data"}


def _audio_stamped(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    info, data = message.audio.info, message.audio.audio_data
    field = _PORTAUDIO.get(int(info.format))
    if field is None:
        raise EncodingError(f"PortAudio sample format {info.format} is not known: use paInt16 (8) or paFloat32 (1)")
    channels, rate = form.channels or int(info.channels), form.rate or float(info.rate)
    samples = np.asarray(getattr(data, field))
    if channels < 1 or rate <= 0 or samples.size % channels:
        raise EncodingError(f"{samples.size} audio samples of {channels} channels at {rate} Hz make no sound")
    if samples.dtype == np.uint8:  # unsigned PCM has its zero in the middle
        samples = (samples.astype(np.int16) - 128).astype(np.int8)
    return nanoseconds(message.header.stamp), Sound(samples.reshape(-1, channels), rate)


def _raw_audio(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    if message.format != "pcm-s16":
        raise EncodingError(f"foxglove_msgs/RawAudio format '{message.format}' is not known; known: pcm-s16")
    told = replace(
        form,
        sample_format="S16LE",
        rate=form.rate or float(message.sample_rate),
        channels=form.channels or int(message.number_of_channels),
    )
    return nanoseconds(message.timestamp), _read(message.data, told)


NEED_INFO = ("audio_common_msgs/msg/AudioDataStamped", "audio_common_msgs/msg/AudioData")  # hold bytes alone
ADAPTERS: dict[str, Callable[[Any, AudioFormat], tuple[int | None, Sound]]] = {
    NEED_INFO[0]: _audio_data_stamped,
    NEED_INFO[1]: _audio_data,
    "audio_common_msgs/msg/AudioStamped": _audio_stamped,
    "foxglove_msgs/msg/RawAudio": _raw_audio,
}
