"""Writes MCAP files that rosbags does not write: without chunks or an index, of ROS 1, with channels that are not of
ROS, with checksums, and without an end."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from types import TracebackType
from zlib import crc32

import lz4.frame

MAGIC = b"\x89MCAP0\r\n"


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


class McapFileWriter:
    """Writes one file. Use it as a context manager.

    `chunk_messages`: messages in a chunk; 0: no chunks. `has_end`: whether the file has a footer; with chunks, also an
    index. `compression` of the chunks: empty or lz4. `message_index`: whether the messages of each chunk are indexed.
    `index_copies`: how often the index names each chunk, and counts its messages.
    """

    def __init__(
        self,
        path: Path,
        *,
        profile: str = "ros2",
        chunk_messages: int = 0,
        has_end: bool = True,
        compression: str = "",
        message_index: bool = True,
        index_copies: int = 1,
    ) -> None:
        self._index_copies = index_copies
        self._message_index = message_index
        self._path, self._chunk_messages, self._has_end, self._compression = path, chunk_messages, has_end, compression
        self._file = bytearray()
        self._file += MAGIC + _record(1, _text(profile) + _text("tests"))
        self._descriptions = b""
        self._chunk: list[tuple[int, int, bytes]] = []  # channel, stamp, record
        self._indexes = b""
        self._counts: Counter[int] = Counter()
        self._stamps: list[int] = []
        self._chunk_count = 0

    def __enter__(self) -> McapFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_chunk()
        if self._has_end:
            self._file += _record(15, struct.pack("<I", 0))
            summary = len(self._file) if self._chunk_messages else 0
            if summary:
                indexes = self._indexes * self._index_copies
                self._file += self._descriptions + indexes + _record(11, self._statistics())
            self._file += _record(2, struct.pack("<QQI", summary, 0, 0)) + MAGIC
        self._path.write_bytes(self._file)

    def channel(self, number: int, topic: str, kind: str, schema: tuple[str, str], encoding: str = "cdr") -> None:
        """Describe a channel. `schema`: its encoding and its text."""
        described = _record(3, struct.pack("<H", number) + _text(kind) + _text(schema[0]) + _text(schema[1]))
        described += _record(4, struct.pack("<HH", number, number) + _text(topic) + _text(encoding) + _text(b""))
        self._descriptions += described
        self._file += described

    def message(self, channel: int, stamp: int, data: bytes) -> None:
        """Write a message with the log time `stamp` (ns)."""
        record = _record(5, struct.pack("<HIQQ", channel, 0, stamp, stamp) + bytes(data))
        self._counts[channel] += 1
        self._stamps.append(stamp)
        if not self._chunk_messages:
            self._file += record
            return
        self._chunk.append((channel, stamp, record))
        if len(self._chunk) == self._chunk_messages:
            self._end_chunk()

    def _end_chunk(self) -> None:
        if not self._chunk:
            return
        records = b"".join(record for _, _, record in self._chunk)
        stamps = [stamp for _, stamp, _ in self._chunk]
        packed = lz4.frame.compress(records) if self._compression else records
        head = struct.pack("<QQQI", min(stamps), max(stamps), len(records), crc32(records)) + _text(self._compression)
        start = len(self._file)
        self._file += _record(6, head + struct.pack("<Q", len(packed)) + packed)
        end = len(self._file)
        offsets = b""
        for number in sorted({channel for channel, _, _ in self._chunk} if self._message_index else ()):
            offsets += struct.pack("<HQ", number, len(self._file))
            own = [struct.pack("<QQ", stamp, 0) for channel, stamp, _ in self._chunk if channel == number]
            self._file += _record(7, struct.pack("<HI", number, 16 * len(own)) + b"".join(own))
        index = struct.pack("<QQQQ", min(stamps), max(stamps), start, end - start) + _text(offsets)
        index += struct.pack("<Q", len(self._file) - end) + _text(self._compression)
        self._indexes += _record(8, index + struct.pack("<QQ", len(packed), len(records)))
        self._chunk, self._chunk_count = [], self._chunk_count + 1

    def _statistics(self) -> bytes:
        copies, channels = self._index_copies, len(self._counts)
        counts = b"".join(struct.pack("<HQ", number, copies * count) for number, count in self._counts.items())
        messages, chunks = copies * len(self._stamps), copies * self._chunk_count
        times = min(self._stamps), max(self._stamps)
        return struct.pack("<QHIIIIQQ", messages, channels, channels, 0, 0, chunks, *times) + _text(counts)
