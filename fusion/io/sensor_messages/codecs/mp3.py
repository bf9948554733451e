"""Decodes MP3 streams that are cut anywhere, as microphone drivers send them."""

from __future__ import annotations

import struct
from collections import deque

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import Sound
from sensebind.fusion.io.sensor_messages.sound_file import read_sound, require_duration, require_size

MAX_UNRECOGNISED = 2**16  # bytes without a frame, after which data are not MP3


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
        require_size(len(data), "a message")
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
        require_duration(seconds)
        sound = read_sound(_mp3_file([*self._context, *frames]), "MP3")
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
