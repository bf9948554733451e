"""Decodes Opus: packets, one a message, or an Ogg stream that is cut anywhere."""

from __future__ import annotations

import struct
from collections import deque
from functools import cache

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import SECOND, Sound
from sensebind.fusion.io.sensor_messages.sound_file import read_sound, require_duration, require_size

MAX_PACKET = 2**16  # bytes; the largest that Opus allows has 61,200 (RFC 6716, section 3.4)
OTHER_OGG = {
    b"\x01vorbis": "Vorbis",
    b"\x7fFLAC": "FLAC",
    b"Speex   ": "Speex",
}


class OpusStream:
    """Decodes Opus from packets, one a message, or from pieces of an Ogg stream that are cut anywhere."""

    CONTEXT_NS = SECOND // 5  # ns of packets that are decoded again: a decoder that starts needs 80 ms

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ogg = False
        self._other = ""  # coding of an Ogg stream that is not Opus
        self._partial = b""  # the beginning of a packet that ends in the next Ogg page
        self._context: deque[bytes] = deque()

    def decode(self, data: bytes, channels: int) -> Sound | None:
        """The sound of the packets that are complete now, at 48 kHz; None if there is none. `channels`: 0 for those of
        the packets. Raises `EncodingError` for data that are not Opus."""
        require_size(len(data), "a message")
        self._ogg = self._ogg or b"OggS" in data
        self._other = self._other or next((name for mark, name in OTHER_OGG.items() if mark in data[:64]), "")
        if self._other:
            raise EncodingError(
                f"the data are {self._other}, not Opus: set audio_capture's format to 'wave', 'mp3' or 'opus'"
            )
        packets = self._ogg_packets(data) if self._ogg else [data]
        packets = [p for p in packets if p and not p.startswith((b"OpusHead", b"OpusTags"))]
        if not packets:
            return None
        samples = sum(map(_opus_samples, packets))
        require_duration(samples / 48_000)
        stereo = channels == 2 or (channels != 1 and packets[-1][0] & 4)
        sound = read_sound(_ogg_file([*self._context, *packets], 2 if stereo else 1), "Opus")
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
            if len(self._partial) > MAX_PACKET:
                self._partial = b""
                buffer.clear()
                raise EncodingError(f"an Opus packet has over {MAX_PACKET:,} bytes: check audio.coding_format")
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
