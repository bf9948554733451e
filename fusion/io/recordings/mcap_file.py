"""Reads MCAP files: of ROS 2 and ROS 1, with other channels beside them, with and without an index, whole or damaged.

rosbags reads MCAP files too, but refuses those of ROS 1, those with a channel that is not of ROS, and those without an
end. The format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from sensebind.fusion.io.recordings.bag_file import (
    CDR,
    DEFINITION_FORMATS,
    ROS1,
    Block,
    BlockFile,
    Channel,
    DamageError,
    RawMessage,
    RecordingError,
    decompress,
    most_messages,
    overlap_in_file,
    too_many_messages,
)
from sensebind.fusion.io.recordings.block_search import BlockSearch
from sensebind.fusion.io.recordings.qos import is_latched

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, CHUNK_INDEX, STATISTICS, SUMMARY_OFFSET = 2, 3, 4, 5, 6, 8, 11, 14
LAST_OPCODE = 15
IS_CUT_OFF, IS_DAMAGED = "is cut off", "is damaged"  # how the search for messages ended
FOOTER_BYTES = 9 + 20 + len(MAGIC)
UNKNOWN_TYPE = "unknown"  # of a channel without a schema
_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<BQHIQQ")  # with the head of its record
_CHUNK = struct.Struct("<QQQI")


class _Schema(NamedTuple):
    name: str
    encoding: str
    text: str


@dataclass
class _Contents:
    """What a file contains. `is_indexed`: it comes from the index at the end of the file."""

    is_indexed: bool
    profile: str = ""
    schemas: dict[int, _Schema] = field(default_factory=dict)
    channels: dict[int, tuple[int, str, str, str]] = field(default_factory=dict)  # schema, topic, encoding, QoS
    blocks: list[Block] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)


class McapFile(BlockFile):
    """An MCAP file. Raises `RecordingError` if nothing of it can be read."""

    def __init__(self, path: Path) -> None:
        status = path.stat()
        with path.open("rb") as file:
            contents = _read_index(file, status.st_size)
        contents = contents or _search(path, status.st_size, status.st_mtime_ns)
        super().__init__(path, contents.blocks, contents.damage)
        if not contents.is_indexed and not contents.damage:
            self.notes.append(
                f"'{path.name}' has no index, so its messages were found by reading all of it; it is not damaged"
            )
        self._add_unknown(contents.counts, contents.channels)
        self.channels = [
            _channel(number, found, contents.schemas.get(found[0]), contents.profile, contents.counts[number])
            for number, found in contents.channels.items()
        ]

    def _may_contain(self, block: Block, wanted: Mapping[int, Channel]) -> bool:
        """See `BlockFile`. A chunk without an index of its messages has no counts."""
        return not block.counts or super()._may_contain(block, wanted)

    def _read_block(
        self,
        data: bytes,
        is_chunk: bool,
        wanted: Mapping[int, Channel],
        start: int,
        stop: int,
        result: list[RawMessage],
    ) -> str:
        problem, stored = "", len(data)
        try:
            if is_chunk:
                data, problem = _chunk_records(data)
            used = _collect(data, stored, wanted, start, stop, result)
        except struct.error as error:
            raise DamageError(str(error)) from error
        if used < len(data):
            problem = problem or f"a record in it is damaged, {len(data) - used} bytes from its end"
        return problem


def _channel(
    number: int, found: tuple[int, str, str, str], schema: _Schema | None, profile: str, count: int
) -> Channel:
    _, topic, encoding, qos = found
    encoding = encoding.lower()
    if not encoding:
        encoding = _encoding_of_definition(profile, "" if schema is None else schema.encoding)
    if schema is None:
        return Channel(number, topic, UNKNOWN_TYPE, encoding, _no_definition(), count, is_latched(qos))
    kind = DEFINITION_FORMATS.get(schema.encoding)
    definition = MessageDefinition(kind, schema.text) if kind is not None and schema.text else _no_definition()
    name = normalize_msgtype(schema.name) if encoding in (CDR, ROS1) else schema.name
    return Channel(number, topic, name, encoding, definition, count, is_latched(qos))


def _encoding_of_definition(profile: str, schema_encoding: str) -> str:
    """The encoding of messages whose channel names none; empty if nothing says it."""
    if "ros1" in (profile, schema_encoding.removesuffix("msg")):
        return ROS1
    return CDR if profile == "ros2" or schema_encoding.startswith("ros2") else ""


def _no_definition() -> MessageDefinition:
    return MessageDefinition(MessageDefinitionFormat.NONE, "")


def _collect(
    data: bytes, stored: int, wanted: Mapping[int, Channel], start: int, stop: int, result: list[RawMessage]
) -> int:
    """Append the messages of the channels `wanted` in `data` (records, which have `stored` bytes in the file); return
    the bytes of whole records. Raises `DamageError` for more messages than such a block has."""
    at, size, unpack, most = 0, len(data), _MESSAGE.unpack_from, most_messages(stored)
    head, limit = _MESSAGE.size, len(data) - _MESSAGE.size
    while at <= limit:
        opcode, length, channel, _, stamp, _ = unpack(data, at)
        end = at + 9 + length
        if end > size:
            return at
        if opcode == MESSAGE and channel in wanted and start <= stamp < stop:
            if len(result) == most:
                raise too_many_messages(most)
            result.append((stamp, wanted[channel], data[at + head : end]))
        at = end
    while at + 9 <= size:  # records that are shorter than a message can be
        end = at + 9 + _RECORD.unpack_from(data, at)[1]
        if end > size:
            break
        at = end
    return at


def _chunk_records(record: bytes) -> tuple[bytes, str]:
    """The decompressed records of a chunk, up to the first damage, and the damage: empty if there is none.

    A chunk with a wrong checksum has none, because its messages may have wrong values. Raises `DamageError` and
    `struct.error`.
    """
    if len(record) < 9 or record[0] != CHUNK:
        raise DamageError("the index points to something that is no chunk")
    _, _, size, checksum = _CHUNK.unpack_from(record, 9)
    at = 9 + _CHUNK.size
    compression, at = _string(record, at)
    (length,) = struct.unpack_from("<Q", record, at)
    at += 8
    records, problem = decompress(record[at : at + length], compression, size)
    if checksum and not problem and crc32(records) != checksum:
        return b"", "its checksum is wrong"
    return records, problem


def _string(data: bytes, at: int) -> tuple[str, int]:
    """The string at `at`, and where it ends. Raises `struct.error` if it is cut off."""
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise struct.error("a string is longer than its record")
    return data[at + 4 : end].decode("utf-8", "replace"), end


def _map(data: bytes, at: int, item: str) -> tuple[dict[int, int], int]:
    """The map of numbers at `at`, and where it ends. Raises `struct.error`."""
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length
    return dict(struct.iter_unpack(item, data[at + 4 : end])), end


def _add_description(contents: _Contents, opcode: int, data: bytes) -> None:
    """Keep a schema or a channel. `data`: the record without its head. Raises `struct.error`."""
    (number,) = struct.unpack_from("<H", data, 0)
    if opcode == SCHEMA:
        name, at = _string(data, 2)
        encoding, at = _string(data, at)
        contents.schemas.setdefault(number, _Schema(name, encoding, _string(data, at)[0]))
        return
    (schema,) = struct.unpack_from("<H", data, 2)
    topic, at = _string(data, 4)
    encoding, at = _string(data, at)
    (length,) = struct.unpack_from("<I", data, at)
    at, end, qos = at + 4, at + 4 + length, ""
    while at < end:
        key, at = _string(data, at)
        value, at = _string(data, at)
        qos = value if key == "offered_qos_profiles" else qos
    contents.channels.setdefault(number, (schema, topic, encoding, qos))


def _read_header(file: BinaryIO, path_name: str, size: int) -> tuple[str, int]:
    """The profile, and where the first record after the header begins. Raises `RecordingError`."""
    file.seek(0)
    data = file.read(min(size, 65536))
    try:
        opcode, length = _RECORD.unpack_from(data, len(MAGIC))
        if not data.startswith(MAGIC) or opcode != 1:
            raise struct.error("no header")
        return _string(data, len(MAGIC) + 9)[0], len(MAGIC) + 9 + length
    except struct.error as error:
        raise RecordingError(f"'{path_name}' is no MCAP file, or ends within its first record") from error


def _read_index(file: BinaryIO, size: int) -> _Contents | None:
    """The contents by the summary at the end of the file; None if there is none, or if it does not name all messages.

    Raises `RecordingError` for a file that is not MCAP.
    """
    profile, first = _read_header(file, str(getattr(file, "name", "")), size)
    if size < first + FOOTER_BYTES:
        return None
    file.seek(size - FOOTER_BYTES)
    tail = file.read(FOOTER_BYTES)
    opcode, length, summary = struct.unpack_from("<BQQ", tail, 0)
    if opcode != FOOTER or length != 20 or not tail.endswith(MAGIC) or not first <= summary < size - FOOTER_BYTES:
        return None
    file.seek(summary)
    data = file.read(size - FOOTER_BYTES - summary)
    contents = _Contents(True, profile)
    try:
        is_complete = _parse_summary(data, contents, size)
    except struct.error:
        return None
    used = set().union(*(block.counts for block in contents.blocks)) if contents.blocks else set()
    return contents if is_complete and used <= contents.channels.keys() else None


def _parse_summary(data: bytes, contents: _Contents, size: int) -> bool:
    """Whether the summary names all messages: every message is in a chunk, and every chunk is indexed. Raises
    `struct.error`."""
    statistics: tuple[int, int] | None = None
    for opcode, at, end in _records(data):
        if opcode in (SCHEMA, CHANNEL):
            _add_description(contents, opcode, data[at:end])
        elif opcode == CHUNK_INDEX:
            start, last, offset, length = struct.unpack_from("<QQQQ", data, at)
            indexes, following = _map(data, at + 32, "<HQ")
            (index_length,) = struct.unpack_from("<Q", data, following)
            if offset + length > size:
                return False
            counts = _indexed_counts(indexes, offset + length + index_length)
            contents.blocks.append(Block(start, last, offset, length, counts))
        elif opcode == STATISTICS:
            total, _, _, _, _, chunks, _, _ = struct.unpack_from("<QHIIIIQQ", data, at)
            statistics = total, chunks
            contents.counts.update(_map(data, at + 42, "<HQ")[0])
    if statistics is None or statistics[1] != len(contents.blocks) or sum(contents.counts.values()) != statistics[0]:
        return False
    indexed = sum(sum(block.counts.values()) for block in contents.blocks)
    is_whole = bool(contents.blocks) and (indexed == statistics[0] or not indexed)
    return is_whole and not overlap_in_file(contents.blocks)


def _indexed_counts(offsets: Mapping[int, int], end: int) -> dict[int, int]:
    """Channel → messages in a chunk, from the places of its message indexes, which have 16 bytes for each message.

    Empty: the chunk has no index of its messages, or it has no messages.
    """
    if not offsets:
        return {}
    places = sorted((offset, channel) for channel, offset in offsets.items())
    ends = [*(offset for offset, _ in places[1:]), end]
    return {channel: max(0, (stop - offset - 15) // 16) for (offset, channel), stop in zip(places, ends, strict=True)}


def _records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(opcode, start, end) of the contents of each whole record."""
    at = 0
    while at + 9 <= len(data):
        opcode, length = _RECORD.unpack_from(data, at)
        end = at + 9 + length
        if end > len(data):
            return
        yield opcode, at + 9, end
        at = end


@lru_cache(maxsize=4)
def _search(path: Path, size: int, modified: int) -> _Contents:
    """The contents by reading all records, up to the end or the first damage. `size` and `modified` (ns) are the
    file's: it is read again if they change. Raises `RecordingError`."""
    with path.open("rb", buffering=2**20) as file:
        profile, at = _read_header(file, path.name, size)
        contents = _Contents(False, profile)
        search = _Search(file, size, contents, path.name)
        search.run(at)
    return contents


class _Search:
    """Reads the records of a file from its start, and puts what it finds into `contents`."""

    def __init__(self, file: BinaryIO, size: int, contents: _Contents, name: str) -> None:
        self._file, self._size, self._contents = file, size, contents
        self._name, self._found = name, BlockSearch(name)

    def run(self, at: int) -> None:
        """Read all records from `at`, up to the end or the first damage."""
        end, problem = self._read(at)
        if problem == IS_CUT_OFF:
            problem += f": its last record, at byte {end} of {self._size}, is not whole"
        elif problem:
            problem += f": at byte {end} of {self._size}; the {self._size - end} bytes from there are not read"
        self._found.finish(end, problem)
        contents = self._contents
        contents.blocks, contents.damage, contents.counts = self._found.blocks, self._found.damage, self._found.counts()

    def _read(self, at: int) -> tuple[int, str]:
        """Read all records from `at`. Returns where it ended, and the problem there, empty if there is none."""
        while at + 9 <= self._size:
            self._file.seek(at)
            opcode, length = _RECORD.unpack(self._file.read(9))
            end = at + 9 + length
            if not 0 < opcode <= LAST_OPCODE and opcode < 0x80:
                return at, IS_DAMAGED
            if end > self._size:
                if opcode == CHUNK:
                    self._add_chunk(at, self._size, is_cut=True)
                return at, IS_CUT_OFF
            try:
                self._add(opcode, at, end)
            except struct.error:
                return at, IS_DAMAGED
            at = end
            if opcode == FOOTER:
                self._find_next_file(at)
                return at, ""
        return at, IS_CUT_OFF

    def _find_next_file(self, footer_end: int) -> None:
        """Note a file that was appended to this one: its records are not read."""
        at = footer_end + len(MAGIC)
        self._file.seek(at)
        if self._file.read(len(MAGIC)) == MAGIC:
            self._found.damage.append(
                f"'{self._name}' is followed by another MCAP file at byte {at}, of {self._size - at} bytes, which is "
                "not read: cut the files apart, and put them as parts into one folder"
            )

    def _add(self, opcode: int, at: int, end: int) -> None:
        if opcode == MESSAGE:
            channel, _, stamp, _ = struct.unpack("<HIQQ", self._file.read(22))
            self._found.add_message(channel, stamp, at, end)
        elif opcode in (SCHEMA, CHANNEL):
            _add_description(self._contents, opcode, self._file.read(end - at - 9))
        elif opcode == CHUNK:
            self._add_chunk(at, end)

    def _add_chunk(self, at: int, end: int, *, is_cut: bool = False) -> None:
        self._file.seek(at)
        record = self._file.read(end - at)
        try:
            data, problem = _chunk_records(record)
        except (DamageError, struct.error) as error:
            data, problem = b"", str(error)
        messages: list[tuple[int, int]] = []
        most = most_messages(len(record))
        for opcode, start, stop in _records(data):
            if opcode in (SCHEMA, CHANNEL):
                _add_description(self._contents, opcode, data[start:stop])
            elif opcode == MESSAGE and stop - start >= 22:
                channel, _, stamp, _ = struct.unpack_from("<HIQQ", data, start)
                if len(messages) == most:
                    problem = problem or str(too_many_messages(most))
                    break
                messages.append((channel, stamp))
        self._found.add_chunk(at, end, messages, problem, is_cut=is_cut)
