"""Converts microphone messages to samples, with one adapter for each message type.

ROS has no standard message for microphones. If a message does not contain the rate, channels or sample format, these
are taken from an `AudioInfo` message on another topic, or from parameters. MP3 and Opus are decoded as streams: a
message may contain any part of them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from sensebind.fusion.core.encodings import EncodingError, decode_pcm
from sensebind.fusion.core.samples import AUDIO, SECOND, Sample, Sound
from sensebind.fusion.core.windows import MAX_CHANNELS
from sensebind.fusion.io.messages import stamp_to_ns
from sensebind.fusion.io.sensor_messages.channels import ChannelSelector
from sensebind.fusion.io.sensor_messages.codecs.mp3 import Mp3Stream, is_mp3
from sensebind.fusion.io.sensor_messages.codecs.opus import OpusStream
from sensebind.fusion.io.sensor_messages.sampling_rate import RateMonitor
from sensebind.fusion.io.sensor_messages.sound_file import require_duration, split_wave_header
from sensebind.fusion.io.sensor_options import AUDIO_RATES, MP3, OPUS, WAVE, AudioFormat
from sensebind.fusion.io.topic_names import sibling_topic

AUDIO_INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
CODING_NAMES = {  # spellings of AudioInfo.coding_format, in lower-case letters
    **dict.fromkeys(("", "wave", "wav", "raw", "pcm"), WAVE),
    **dict.fromkeys(("mp3", "mpeg", "audio/mpeg"), MP3),
    **dict.fromkeys(("opus", "audio/opus", "ogg", "ogg/opus"), OPUS),
}
AUDIO_INFO_WAIT = 3 * SECOND  # ns: sound without a format waits so long for AudioInfo before it is an error
MAX_WAITING_BYTES = 16 * 2**20  # bytes of sound that wait for AudioInfo
MAX_WAITING_MESSAGES = 1000  # of them: a clock that stands still ends no wait
MAX_STAMP_ERROR = SECOND // 4  # ns: a smaller difference of a stamp from the end of the sound before is jitter


def with_audio_info(audio_format: AudioFormat, info: Any) -> AudioFormat:
    """`audio_format`, its unknown fields set from an AudioInfo message. Raises `EncodingError` for an unknown
    coding."""
    coding = CODING_NAMES.get(info.coding_format.strip().lower())
    if coding is None and not audio_format.coding_format:
        raise EncodingError(
            f"audio coding format '{info.coding_format}' is not known: set audio_capture's format to 'wave', 'mp3' or "
            "'opus', or, if AudioInfo is wrong, set audio.coding_format"
        )
    return replace(
        audio_format,
        sample_format=audio_format.sample_format or info.sample_format,
        sample_rate=audio_format.sample_rate or float(info.sample_rate),
        channels=audio_format.channels or int(info.channels),
        coding_format=audio_format.coding_format or ("" if coding == WAVE else coding or ""),
    )


def audio_info_topics(topic: str) -> list[str]:
    """Where the AudioInfo of a topic may be. audio_capture publishes ``audio_info`` beside ``audio`` and
    ``audio_stamped``."""
    beside = (sibling_topic(topic, name) for name in ("info", "audio_info"))
    return list(dict.fromkeys([*beside, f"{topic}_info", f"{topic}/info", f"{topic.removesuffix('_stamped')}_info"]))


def recognised_coding(data: bytes) -> str:
    """The coding of compressed sound that begins with these bytes; empty if they do not show it."""
    return OPUS if data[:4] == b"OggS" else MP3 if is_mp3(data) else ""


class AudioMessageDecoder:
    """Converts the messages of one topic to samples. It computes a stamp for messages that have none.

    `info_topics`: where AudioInfo is expected, for error texts. `use_stamps`: False if the stamps in the messages are
    not used, as if there were none. Sound whose format is not known waits for AudioInfo. Raises `EncodingError` if
    `type_name` has no adapter.
    """

    def __init__(
        self,
        type_name: str,
        audio_format: AudioFormat = AudioFormat(),
        info_topics: tuple[str, ...] = (),
        *,
        use_stamps: bool = True,
    ) -> None:
        if type_name not in AUDIO_ADAPTERS:
            raise EncodingError(
                f"audio message type '{type_name}' is not known: set audio.topic to a topic of type "
                f"{', '.join(AUDIO_ADAPTERS)}"
            )
        self.format = self._given = audio_format
        self.info_topics, self._use_stamps = info_topics, use_stamps
        self.unused: Counter[str] = Counter()  # reason → messages that ended without use, besides those that raised
        self.joined = 0  # messages of compressed sound without a sample: their sound is in that of a later one
        self._needs_format = type_name in TYPES_NEEDING_AUDIO_INFO
        self._adapter = AUDIO_ADAPTERS[type_name]
        self._channels = ChannelSelector(audio_format.channel)
        self._rate = RateMonitor()
        self._next_stamp: int | None = None
        self._mp3, self._opus = Mp3Stream(), OpusStream()
        self._format_warning = ""  # the data or AudioInfo contradict the format
        self._rest: bytes | None = None  # of a WAV file in pieces: the part of a sample at the end; None: no such file
        self._is_first, self._has_info = True, False
        self._info_error = ""  # why the newest AudioInfo cannot be used; empty: no error
        self._waiting: deque[tuple[Any, int]] = deque()  # messages without a format, and their times of arrival

    @property
    def waiting(self) -> int:
        """How many messages wait for AudioInfo."""
        return len(self._waiting)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the sounds so far."""
        return [text for text in (self._format_warning, self._channels.warning, self._rate.warning) if text]

    @property
    def rate_warning(self) -> str:
        """The one of `warnings` that the sampling rate is wrong; empty if it is not wrong now."""
        return self._rate.warning if self._rate.is_wrong else ""

    def apply_audio_info(self, info: Any) -> None:
        """Set unknown fields of the format from an AudioInfo message. Raises `EncodingError` for an unknown coding."""
        self._has_info = True
        try:
            self.format, self._info_error = with_audio_info(self.format, info), ""
            newest = with_audio_info(self._given, info)
            if self.format.is_complete and newest.is_complete and newest != self.format and not self._format_warning:
                self._format_warning = (
                    f"AudioInfo has another format than before, {_words(newest)}, which is not used: if the sound has "
                    "it, set audio.sample_format, audio.sample_rate and audio.channels"
                )
        except EncodingError as error:
            self._info_error = str(error)
            raise

    def decode(self, message: Any, received_ns: int) -> list[Sample]:
        """Convert one message, and those that waited for AudioInfo, to samples.

        A sound without a stamp ends at its time of arrival, `received_ns` (ns). If its start differs by less than
        0.25 s from the end of the sound before, it begins at that end instead, and so does compressed sound. Raises
        `EncodingError` for data that cannot be read, and if the format is still unknown `AUDIO_INFO_WAIT` after the
        first message.
        """
        if self._needs_format and not self._format_known(message):
            if self._info_error:
                raise EncodingError(self._info_error)
            self._wait(message, received_ns)
            return []
        if self._waiting:  # an error of one must not cost the sound of the others
            waited, self._waiting = [*self._waiting, (message, received_ns)], deque()
            return [sample for early in waited if (sample := self._decode_early(*early)) is not None]
        sample = self._decode_one(message, received_ns)
        return [] if sample is None else [sample]

    def finish(self) -> list[Sample]:
        """End a recording. Messages that still wait for AudioInfo are counted in `unused`."""
        if self._waiting:
            self.unused[self._info_error or self._missing_format()] += len(self._waiting)
            self._waiting.clear()
        return []

    def _format_known(self, message: Any) -> bool:
        """Whether the bytes of a message can be decoded. The header of a WAV file, and the beginning of compressed
        sound, take precedence over AudioInfo."""
        if self._given.coding_format or self.format.coding_format:
            return self.format.is_complete
        data = _bytes_of(message)
        header, _ = split_wave_header(data)
        if header is not None:
            self._use_header(header)
        elif self._is_first or not self.format.is_complete:
            coding = recognised_coding(bytes(data[:4096]))
            if coding and self.format.is_complete:
                self._format_warning = (
                    f"AudioInfo says {_words(self.format)}, but the data are {coding}: they are decoded as {coding}. "
                    "If that is wrong, set audio.coding_format: wave"
                )
            self.format = replace(self.format, coding_format=coding)
        self._is_first = False
        return self.format.is_complete

    def _use_header(self, header: AudioFormat) -> None:
        """Use the format in the header of a WAV file where no parameter sets it."""
        own, before = self._given, self.format
        self.format = replace(
            before,
            sample_format=own.sample_format or header.sample_format or before.sample_format,
            sample_rate=own.sample_rate or header.sample_rate,
            channels=own.channels or header.channels,
        )
        if before.is_complete and (before.sample_rate, before.channels) != (
            self.format.sample_rate,
            self.format.channels,
        ):
            self._format_warning = (
                f"AudioInfo says {_words(before)}, but the header of the WAV data says {_words(self.format)}, which is "
                "used; parameters take precedence: audio.sample_rate, audio.channels"
            )

    def _wait(self, message: Any, received_ns: int) -> None:
        """Keep a message until its format is known. Raises `EncodingError` if one has waited too long; that one is
        dropped."""
        self._waiting.append((message, received_ns))
        size = sum(len(_bytes_of(waiting)) for waiting, _ in self._waiting)
        is_full = size > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING_MESSAGES
        if is_full or received_ns - self._waiting[0][1] >= AUDIO_INFO_WAIT:
            self._waiting.popleft()
            raise EncodingError(self._missing_format())

    def _missing_format(self) -> str:
        missing = [
            name
            for name, value in (
                ("audio.sample_format", self.format.sample_format),
                ("audio.sample_rate", self.format.sample_rate),
                ("audio.channels", self.format.channels),
            )
            if not value
        ]
        if self._has_info:
            names = ", ".join(name.removeprefix("audio.") for name in missing)
            return f"AudioInfo has no {names}: correct it, or set {', '.join(missing)}"
        where = f"on {', '.join(self.info_topics)}" if self.info_topics else "on audio.info_topic"
        return (
            f"the audio format is not known, because no AudioInfo message has arrived yet {where}: publish one there, "
            f"name its topic in audio.info_topic, or set {', '.join(missing)} (compressed sound: audio.coding_format)"
        )

    def _decode_early(self, message: Any, received_ns: int) -> Sample | None:
        """As `_decode_one`, for a message that waited. One that cannot be read is counted in `unused`."""
        try:
            return self._decode_one(message, received_ns)
        except EncodingError as error:
            self.unused[str(error)] += 1
            return None

    def _decode_one(self, message: Any, received_ns: int) -> Sample | None:
        if self._needs_format:
            stamp, decoded = _stamp_of(message), self._decode_bytes(_bytes_of(message))
            if decoded is None:
                self.joined += 1
                return None
            sound = decoded
        else:
            stamp, sound = self._adapter(message, self.format)
        _require_rate(sound.sample_rate)
        _require_channels(sound.data.shape[1])
        require_duration(sound.duration / SECOND)
        stamp = stamp if self._use_stamps else None
        compressed = self._needs_format and self.format.coding_format in (MP3, OPUS)
        if not compressed:
            size = sample_bytes(self.format.sample_format) if self._needs_format else 0
            self._rate.update(stamp or received_ns, sound, size)
        if stamp is None or (compressed and stamp):
            stamp = received_ns - sound.duration if stamp is None else stamp
            if self._next_stamp is not None and abs(stamp - self._next_stamp) < MAX_STAMP_ERROR:
                stamp = self._next_stamp
            self._next_stamp = stamp + sound.duration
        frame_id = message.header.frame_id if hasattr(message, "header") else ""
        return Sample(AUDIO, stamp, self._channels.apply(sound), frame_id, received=received_ns)

    def _decode_bytes(self, data: memoryview) -> Sound | None:
        """The sound in the bytes of a message; None if a compressed stream has no complete frame yet."""
        if self.format.coding_format == MP3:
            return self._mp3.decode(bytes(data))
        if self.format.coding_format == OPUS:
            return self._opus.decode(bytes(data), self.format.channels)
        _require_rate(self.format.sample_rate)
        _require_channels(self.format.channels)
        header, data = split_wave_header(data)
        self._rest = b"" if header is not None else self._rest
        if self._rest is None:
            return _decode_pcm(data, self.format)
        # The header moved the samples in the messages: one may begin in one message and end in the next.
        whole, frame = self._rest + bytes(data), sample_bytes(self.format.sample_format) * self.format.channels
        used = len(whole) - len(whole) % frame if frame else len(whole)
        self._rest = whole[used:]
        return _decode_pcm(memoryview(whole[:used]), self.format)


def _bytes_of(message: Any) -> memoryview:
    """The bytes of an AudioData or AudioDataStamped message."""
    return memoryview((message.audio if hasattr(message, "audio") else message).data).cast("B")


def _words(form: AudioFormat) -> str:
    return f"{form.sample_format}, {form.sample_rate:g} Hz, {form.channels} channels"


def _stamp_of(message: Any) -> int | None:
    return stamp_to_ns(message.header.stamp) if hasattr(message, "header") else None


def _require_channels(channels: int) -> None:
    """Raises `EncodingError` for more channels than a microphone has."""
    if channels > MAX_CHANNELS:
        raise EncodingError(
            f"{channels} channels are not those of a microphone, at most {MAX_CHANNELS}: correct them in AudioInfo or "
            "the audio message, or set audio.channels"
        )


def _require_rate(rate: float) -> None:
    """Raises `EncodingError` for a sampling rate that no microphone has."""
    if not AUDIO_RATES[0] <= rate <= AUDIO_RATES[1]:
        raise EncodingError(
            f"the sampling rate of {rate:.12g} Hz is not that of a microphone, {AUDIO_RATES[0]:g} to "
            f"{AUDIO_RATES[1]:g} Hz: correct it in AudioInfo or the audio message, or set audio.sample_rate"
        )


def sample_bytes(sample_format: str) -> int:
    """Bytes of one sample of a channel; 0 for an unknown format."""
    try:
        return next(size for size in range(1, 9) if _can_decode(size, sample_format))
    except StopIteration:
        return 0


@cache
def _can_decode(size: int, sample_format: str) -> bool:
    try:
        return len(decode_pcm(bytes(size), _format_name(sample_format), 1)) == 1
    except EncodingError:
        return False


def _format_name(sample_format: str) -> str:
    """The name without the prefix of FFmpeg (``pcm_s16le``) or PortAudio (``paInt16``)."""
    name = sample_format.strip().upper()
    return name.removeprefix("PCM_").removeprefix("PA")


def _decode_pcm(data: Any, form: AudioFormat) -> Sound:
    try:
        samples = decode_pcm(memoryview(data).cast("B"), _format_name(form.sample_format), form.channels)
    except EncodingError as error:
        is_known = "audio.sample_format" in str(error)
        cure = (
            ", and audio.coding_format (MP3, Opus)" if is_known else ": correct AudioInfo, or set audio.sample_format"
        )
        raise EncodingError(f"{error}{cure}") from error
    return Sound(samples, form.sample_rate)


def _audio_data_adapter(message: Any, form: AudioFormat) -> tuple[int | None, Sound]:
    return _stamp_of(message), _decode_pcm(_bytes_of(message), form)


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
    TYPES_NEEDING_AUDIO_INFO[0]: _audio_data_adapter,
    TYPES_NEEDING_AUDIO_INFO[1]: _audio_data_adapter,
    "audio_common_msgs/msg/AudioStamped": _audio_stamped_adapter,
    "foxglove_msgs/msg/RawAudio": _raw_audio_adapter,
}
