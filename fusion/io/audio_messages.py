"""Converts microphone messages to samples, with one adapter for each message type.

ROS has no standard message for microphones. If a message does not contain the rate, channels or sample format, these
are taken from an `AudioInfo` message on another topic, or from parameters. MP3 and Opus are decoded as streams: a
message may contain any part of them.
"""

from __future__ import annotations

import io
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from sensebind.fusion.core.encodings import EncodingError, decode_pcm
from sensebind.fusion.core.samples import AUDIO, SECOND, Sample, Sound
from sensebind.fusion.core.windows import MAX_CHANNELS
from sensebind.fusion.io.channels import ChannelSelector
from sensebind.fusion.io.messages import stamp_to_ns
from sensebind.fusion.io.sensor_options import AUDIO_RATES, MP3, OPUS, WAVE, AudioFormat

AUDIO_INFO_TYPE = "audio_common_msgs/msg/AudioInfo"
CODING_NAMES = {  # spellings of AudioInfo.coding_format, in lower-case letters
    **dict.fromkeys(("", "wave", "wav", "raw", "pcm"), WAVE),
    **dict.fromkeys(("mp3", "mpeg", "audio/mpeg"), MP3),
    **dict.fromkeys(("opus", "audio/opus", "ogg", "ogg/opus"), OPUS),
}
AUDIO_INFO_WAIT = 3 * SECOND  # ns: sound without a format waits so long for AudioInfo before it is an error
MAX_UNRECOGNISED = 2**16  # bytes without a frame, after which data are not MP3
MAX_WAITING_BYTES = 16 * 2**20  # bytes of sound that wait for AudioInfo
MAX_MESSAGE_SECONDS = 60.0  # of sound in one message; of Opus, a byte may claim 60 ms
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


class Mp3Frame:
    """The header of an MPEG audio frame of layer III: its `length` in bytes, `samples`, and `sample_rate` in Hz."""

    __slots__ = ("length", "sample_rate", "samples")

    _KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    _KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)

    def __init__(self, length: int, samples: int, sample_rate: int) -> None:
        self.length, self.samples, self.sample_rate = length, samples, sample_rate

    @classmethod
    def at(cls, data: bytes | bytearray, at: int) -> Mp3Frame | None:
        """The header at position `at`; None if there is none."""
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
            return None
        version, rate, bits = data[at + 1] >> 3 & 3, data[at + 2] >> 2 & 3, data[at + 2] >> 4
        if version == 1 or rate == 3 or bits in (0, 15):
            return None
        divisor = {3: 1, 2: 2, 0: 4}[version]
        sample_rate = (44100, 48000, 32000)[rate] // divisor
        samples, kbits = (1152, cls._KBITS_1) if divisor == 1 else (576, cls._KBITS_2)
        length = samples // 8 * kbits[bits] * 1000 // sample_rate + (data[at + 2] >> 1 & 1)
        return cls(length, samples, sample_rate)


class Mp3Stream:
    """Decodes an MP3 stream from pieces that are cut anywhere."""

    CONTEXT = 12  # frames before the new ones that are decoded again: a frame uses up to 511 bytes of those before
    MIN_FRAMES = 4  # libmpg123 recognises no shorter stream

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._frames: list[tuple[bytes, Mp3Frame]] = []  # complete, and not decoded yet
        self._context: deque[bytes] = deque(maxlen=self.CONTEXT)
        self._synchronised = False
        self._unrecognised = 0  # bytes since the last frame

    def decode(self, data: bytes) -> Sound | None:
        """The sound of the frames that are complete now; None if there is none. Raises `EncodingError` for data that
        are not MP3."""
        self._buffer += data
        complete = self._complete_frames()
        self._frames += complete
        self._unrecognised = 0 if complete else self._unrecognised + len(data)
        if self._unrecognised > MAX_UNRECOGNISED:
            raise EncodingError("the data contain no MP3 frame: check audio.coding_format")
        if len(self._context) + len(self._frames) < self.MIN_FRAMES:
            return None
        if not self._frames:
            return None
        frames, samples = [frame for frame, _ in self._frames], sum(header.samples for _, header in self._frames)
        seconds = sum(header.samples / header.sample_rate for _, header in self._frames)
        self._frames.clear()
        _require_duration(seconds)
        sound = _read_sound(_mp3_file([*self._context, *frames]), "MP3")
        self._context.extend(frames)
        return Sound(sound.data[-samples:], sound.sample_rate)

    def _complete_frames(self) -> list[tuple[bytes, Mp3Frame]]:
        """Remove the complete frames from the buffer."""
        found, at, buffer = [], 0, self._buffer
        while at + 4 <= len(buffer):
            if buffer[at : at + 3] == b"ID3" and at + 10 <= len(buffer):
                at += 10 + sum((buffer[at + 6 + i] & 0x7F) << 7 * (3 - i) for i in range(4))
                continue
            header = Mp3Frame.at(buffer, at)
            if header is None:
                at, self._synchronised = at + 1, False
                continue
            end = at + header.length
            if end + (0 if self._synchronised else 4) > len(buffer):
                break  # the rest of the frame, or the header after it, is in the next message
            if not self._synchronised and Mp3Frame.at(buffer, end) is None:
                at += 1
                continue
            self._synchronised = True
            frame = bytes(buffer[at:end])
            if b"Xing" not in frame[:44] and b"Info" not in frame[:44]:  # a frame without sound
                found.append((frame, header))
            at = end
        del buffer[:at]
        return found


def _mp3_file(frames: list[bytes]) -> bytes:
    """An MP3 file of frames that may be from the middle of a stream.

    It begins with a frame that contains their number, which libmpg123 would else estimate. The data of a frame may
    begin `main_data_begin` bytes before it, in the data of the frames before. A frame whose data are missing is made
    silent: the lengths of its parts become 0. Its own data remain, for the frames after it.
    """
    result: list[bytes] = []
    available = 0  # bytes of data in the frames before
    for frame in frames:
        mpeg_1, mono = frame[1] >> 3 & 1, frame[3] >> 6 == 3
        at = 4 if frame[1] & 1 else 6  # after a checksum
        size = (17 if mono else 32) if mpeg_1 else (9 if mono else 17)
        if not result:
            count = b"Xing" + struct.pack(">II", 1, len(frames))
            header = bytes([frame[0], frame[1] | 1, *frame[2:4]])  # without a checksum
            result.append((header + bytes(size) + count).ljust(len(frame), b"\0"))
        begin = frame[at] << 1 | frame[at + 1] >> 7 if mpeg_1 else frame[at]
        if begin > available:
            reach = min(available, 511 if mpeg_1 else 255)
            side = bytes([reach >> 1, (reach & 1) << 7]) if mpeg_1 else bytes([reach])
            frame = frame[:at] + side.ljust(size, b"\0") + frame[at + size :]
        available += len(frame) - at - size
        result.append(frame)
    return b"".join(result)


def is_mp3(data: bytes) -> bool:
    """Whether data begin with an MP3 stream: an ID3 tag, or two frames one after the other."""
    first = Mp3Frame.at(data, 0)
    return data[:3] == b"ID3" or (first is not None and Mp3Frame.at(data, first.length) is not None)


class OpusStream:
    """Decodes Opus from packets, one a message, or from pieces of an Ogg stream that are cut anywhere."""

    CONTEXT_NS = SECOND // 5  # ns of packets that are decoded again: a decoder that starts needs 80 ms

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ogg = False
        self._partial = b""  # the beginning of a packet that ends in the next Ogg page
        self._context: deque[bytes] = deque()

    def decode(self, data: bytes, channels: int) -> Sound | None:
        """The sound of the packets that are complete now, at 48 kHz; None if there is none. `channels`: 0 for those of
        the packets. Raises `EncodingError` for data that are not Opus."""
        self._ogg = self._ogg or b"OggS" in data
        packets = self._ogg_packets(data) if self._ogg else [data]
        packets = [p for p in packets if p and not p.startswith((b"OpusHead", b"OpusTags"))]
        if not packets:
            return None
        samples = sum(map(_opus_samples, packets))
        _require_duration(samples / 48_000)
        stereo = channels == 2 or (channels != 1 and packets[-1][0] & 4)
        sound = _read_sound(_ogg_file([*self._context, *packets], 2 if stereo else 1), "Opus")
        self._context.extend(packets)
        while len(self._context) > 1 and sum(map(_opus_samples, self._context)) * SECOND > 48_000 * self.CONTEXT_NS:
            self._context.popleft()
        return Sound(sound.data[-samples:], sound.sample_rate)

    def _ogg_packets(self, data: bytes) -> list[bytes]:
        """Remove the complete pages from the buffer, and return the packets that end in them."""
        self._buffer += data
        found, buffer = [], self._buffer
        while (at := buffer.find(b"OggS")) >= 0:
            count = buffer[at + 26] if at + 27 <= len(buffer) else 256
            if at + 27 + count > len(buffer):
                break
            lacing = buffer[at + 27 : at + 27 + count]
            begin = at + 27 + count
            if begin + sum(lacing) > len(buffer):
                break
            skip = bool(buffer[at + 5] & 1) and not self._partial  # the beginning of this packet was never received
            if not buffer[at + 5] & 1:
                self._partial = b""
            for size in lacing:
                self._partial += bytes(buffer[begin : begin + size])
                begin += size
                if size < 255:
                    found += [] if skip else [self._partial]
                    self._partial, skip = b"", False
            del buffer[:begin]
        if len(buffer) > 2**20:
            buffer.clear()
            raise EncodingError("the data contain no Ogg page: check audio.coding_format")
        return found


def _opus_samples(packet: bytes) -> int:
    """The samples of an Opus packet at 48 kHz (RFC 6716, section 3.1)."""
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        size = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        size = (480, 960)[config & 1]
    else:
        size = 120 << (config & 3)
    return size * (1 if code == 0 else 2 if code < 3 else (packet[1] & 63 if len(packet) > 1 else 0))


@cache
def _ogg_crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return tuple(table)


def _ogg_file(packets: list[bytes], channels: int) -> bytes:
    """An Ogg file (RFC 7845) of Opus packets: one page for each."""
    head = struct.pack("<8sBBHIhB", b"OpusHead", 1, channels, 0, 48_000, 0, 0)
    tags = struct.pack("<8sII", b"OpusTags", 0, 0)
    pages, granule, table = [], 0, _ogg_crc_table()
    for number, packet in enumerate([head, tags, *packets]):
        granule += _opus_samples(packet) if number > 1 else 0
        flags = 2 if number == 0 else 4 if number == len(packets) + 1 else 0
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        if len(lacing) > 255:
            raise EncodingError(f"an Opus packet has {len(packet)} bytes, too many: check audio.coding_format")
        page = bytearray(struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, 1, number, 0, len(lacing)))
        page += lacing + packet
        crc = 0
        for byte in page:
            crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
        page[22:26] = struct.pack("<I", crc)
        pages.append(bytes(page))
    return b"".join(pages)


def _read_sound(data: bytes, name: str) -> Sound:
    """Decode a compressed file. Raises `EncodingError`."""
    import soundfile  # here: a robot with PCM does not need it

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise EncodingError(
            f"the sound cannot be decoded as {name} ({error}): check audio.coding_format, or set audio_capture's "
            "format to 'wave'"
        ) from error
    return Sound(samples, float(rate))


def without_wave_header(data: memoryview) -> memoryview:
    """The samples in data that begin with the header of a WAV file; other data unchanged."""
    if data.nbytes < 44 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WAVE":
        return data
    at = bytes(data[:4096]).find(b"data")
    return data[at + 8 :] if at >= 0 else data


class RateMonitor:
    """Compares the claimed sampling rate of sounds with that by their stamps.

    `warning` is empty until they differ. Then it is the text of the warning, and does not change again.
    """

    MIN_BLOCKS, MIN_SPAN = 10, 2 * SECOND  # sounds, and ns of stamps, that a comparison needs
    TOLERANCE = 0.1  # largest relative difference: stamps of drivers jitter

    def __init__(self) -> None:
        self.warning = ""
        self._rates: deque[float] = deque(maxlen=50)  # Hz by the stamps, of the newest sounds
        self._before: tuple[int, int] | None = None  # stamp and number of samples of the sound before
        self._span = 0  # ns of stamps so far

    def update(self, stamp: int, sound: Sound) -> None:
        """Compare one more sound with the stamp (ns) from its message."""
        if self._before is not None and 0 < (step := stamp - self._before[0]) < 10 * SECOND:
            self._rates.append(self._before[1] * SECOND / step)
            self._span += step
        self._before = stamp, len(sound.data)
        if self.warning or len(self._rates) < self.MIN_BLOCKS or self._span < self.MIN_SPAN:
            return
        found = float(np.median(self._rates))
        ratio = found / sound.sample_rate
        if abs(ratio - 1) <= self.TOLERANCE or abs(np.mean(self._rates) / found - 1) > self.TOLERANCE:
            return  # they agree, or the stamps vary too much
        found = next((known for known in COMMON_RATES if abs(known / found - 1) < 0.03), float(round(found)))
        channels = sound.data.shape[1] * round(ratio)
        other = ""
        if abs(ratio - round(ratio)) < 0.05 and 2 <= channels <= 8:
            other = f", or, if the sound has {channels} channels, audio.channels: {channels}"
        self.warning = (
            f"the sampling rate is said to be {sound.sample_rate:g} Hz, and by the stamps it is {found:g} Hz: set "
            f"audio.sample_rate: {found:g}{other}"
        )


COMMON_RATES = (8000.0, 11025.0, 16000.0, 22050.0, 24000.0, 32000.0, 44100.0, 48000.0, 88200.0, 96000.0, 192000.0)


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
        self.format = audio_format
        self.info_topics, self._use_stamps = info_topics, use_stamps
        self.unused: Counter[str] = Counter()  # reason → messages that ended without use; set by `finish`
        self._needs_format = type_name in TYPES_NEEDING_AUDIO_INFO
        self._adapter = AUDIO_ADAPTERS[type_name]
        self._channels = ChannelSelector(audio_format.channel)
        self._rate = RateMonitor()
        self._next_stamp: int | None = None
        self._mp3, self._opus = Mp3Stream(), OpusStream()
        self._info_error = ""  # why the newest AudioInfo cannot be used; empty: no error
        self._waiting: deque[tuple[Any, int]] = deque()  # messages without a format, and their times of arrival

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the sounds so far."""
        return [text for text in (self._channels.warning, self._rate.warning) if text]

    def apply_audio_info(self, info: Any) -> None:
        """Set unknown fields of the format from an AudioInfo message. Raises `EncodingError` for an unknown coding."""
        try:
            self.format, self._info_error = with_audio_info(self.format, info), ""
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
        waited, self._waiting = self._waiting, deque()
        found = [sample for early in waited if (sample := self._decode_early(*early)) is not None]
        sample = self._decode_one(message, received_ns)
        return found if sample is None else [*found, sample]

    def finish(self) -> list[Sample]:
        """End a recording. Messages that still wait for AudioInfo are counted in `unused`."""
        if self._waiting:
            self.unused[self._info_error or self._missing_format()] += len(self._waiting)
            self._waiting.clear()
        return []

    def _format_known(self, message: Any) -> bool:
        """Whether the bytes of a message can be decoded. Without any format, MP3 is recognised by its content."""
        if not self.format.is_complete and not self.format.coding_format and is_mp3(bytes(_bytes_of(message)[:4096])):
            self.format = replace(self.format, coding_format=MP3)
        return self.format.is_complete

    def _wait(self, message: Any, received_ns: int) -> None:
        """Keep a message until its format is known. Raises `EncodingError` if one has waited too long; that one is
        dropped."""
        self._waiting.append((message, received_ns))
        size = sum(len(_bytes_of(waiting)) for waiting, _ in self._waiting)
        if received_ns - self._waiting[0][1] >= AUDIO_INFO_WAIT or size > MAX_WAITING_BYTES:
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
                return None
            sound = decoded
        else:
            stamp, sound = self._adapter(message, self.format)
        _require_rate(sound.sample_rate)
        _require_channels(sound.data.shape[1])
        _require_duration(sound.duration / SECOND)
        stamp = stamp if self._use_stamps else None
        compressed = self._needs_format and self.format.coding_format in (MP3, OPUS)
        if stamp and not compressed:
            self._rate.update(stamp, sound)
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
        return _decode_pcm(without_wave_header(data), self.format)


def _bytes_of(message: Any) -> memoryview:
    """The bytes of an AudioData or AudioDataStamped message."""
    return memoryview((message.audio if hasattr(message, "audio") else message).data).cast("B")


def _stamp_of(message: Any) -> int | None:
    return stamp_to_ns(message.header.stamp) if hasattr(message, "header") else None


def _require_duration(seconds: float) -> None:
    """Raises `EncodingError` for more sound than a message may have."""
    if seconds > MAX_MESSAGE_SECONDS:
        raise EncodingError(
            f"a message claims {seconds:.0f} s of sound, more than {MAX_MESSAGE_SECONDS:g} s: it is damaged, or its "
            "rate is wrong: check audio.sample_rate and audio.coding_format, and send shorter messages"
        )


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


def _decode_pcm(data: Any, form: AudioFormat) -> Sound:
    return Sound(decode_pcm(memoryview(data).cast("B"), form.sample_format, form.channels), form.sample_rate)


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
