"""Reads ROS 1 bags (format 2.0): whole, cut off, and those that a recorder did not end (`.bag.active`).

rosbags reads indexed bags only. The format: https://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings.bag_file import (
    MAX_DECOMPRESSED_BYTES,
    ROS1,
    Block,
    BlockFile,
    Channel,
    DamageError,
    RawMessage,
    RecordingError,
    decompress,
    message_counts,
    most_messages,
    overlap_in_file,
    too_many_messages,
)
from sensebind.fusion.io.recordings.block_search import BlockSearch

MAGIC = b"#ROSBAG V2.0\n"
_TIME = struct.Struct("<II")
MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7


class _Record(NamedTuple):
    """A record: the fields of its header, and where its data begin and end in the file or the chunk."""

    fields: Mapping[bytes, bytes]
    start: int
    end: int

    @property
    def opcode(self) -> int:
        return (self.fields.get(b"op") or b"\0")[0]

    def number(self, name: bytes, form: str = "<I") -> int:
        """A number of the header. Raises `DamageError`."""
        try:
            return int(struct.unpack(form, self.fields[name])[0])
        except (KeyError, struct.error) as error:
            raise DamageError(f"a record has no field '{name.decode()}'") from error

    @property
    def stamp(self) -> int:
        """The log time of a message, in ns. Raises `DamageError`."""
        return _stamp(self.fields.get(b"time", bytes(8)))


class _Connection(NamedTuple):
    topic: str
    type: str
    definition: str
    latched: bool


class _Contents(NamedTuple):
    """What a bag contains."""

    connections: dict[int, _Connection]
    blocks: list[Block]
    damage: list[str]


class Ros1File(BlockFile):
    """A ROS 1 bag. Raises `RecordingError` if nothing of it can be read."""

    def __init__(self, path: Path) -> None:
        status = path.stat()
        contents = _contents(path, status.st_size, status.st_mtime_ns)
        super().__init__(path, contents.blocks, contents.damage)
        counts = message_counts(contents.blocks)
        self._add_unknown(counts, contents.connections)
        self.channels = [
            Channel(number, found.topic, found.type, ROS1, _definition(found.definition), counts[number], found.latched)
            for number, found in contents.connections.items()
        ]

    def _read_block(
        self,
        data: bytes,
        is_chunk: bool,
        wanted: Mapping[int, Channel],
        start: int,
        stop: int,
        result: list[RawMessage],
    ) -> str:
        problem, most = "", most_messages(len(data))
        if is_chunk:
            data, problem = _chunk_records(data)
        for connection, stamp, first, end in _messages(data, is_cut=bool(problem)):
            if connection in wanted and start <= stamp < stop:
                if len(result) == most:
                    raise too_many_messages(most)
                result.append((stamp, wanted[connection], data[first:end]))
        return problem


def _definition(text: str) -> MessageDefinition:
    return MessageDefinition(MessageDefinitionFormat.MSG if text else MessageDefinitionFormat.NONE, text)


def _stamp(value: bytes) -> int:
    """A time in ns. Raises `DamageError`."""
    if len(value) != _TIME.size:
        raise DamageError(f"a time has {len(value)} bytes, not {_TIME.size}")
    seconds, nanoseconds = _TIME.unpack(value)
    return int(seconds * SECOND + nanoseconds)


def _fields(data: bytes) -> dict[bytes, bytes]:
    """The fields of a header: name → value. Raises `DamageError`."""
    result, at = {}, 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        name, found, value = data[at + 4 : at + 4 + size].partition(b"=")
        at += 4 + size
        if not found or at > len(data):
            raise DamageError("a header is not a list of fields")
        result[name] = value
    return result


def _records(data: bytes, at: int = 0, *, is_cut: bool = False) -> Iterator[_Record]:
    """The records in `data`. Raises `DamageError` at one that is not whole, unless `is_cut`: then it is the end."""
    while at < len(data):
        head = at + 4 + int.from_bytes(data[at : at + 4], "little")
        start = head + 4
        end = start + int.from_bytes(data[head:start], "little")
        if start > len(data) or end > len(data):
            if is_cut:
                return
            raise DamageError("a record is longer than its chunk")
        yield _Record(_fields(data[at + 4 : head]), start, end)
        at = end


def _messages(data: bytes, *, is_cut: bool) -> Iterator[tuple[int, int, int, int]]:
    """(connection, log time in ns, start, end) of the messages in `data`. Raises as `_records`.

    The headers of a recorder's messages have the same layout, so only the first one is parsed field by field.
    """
    at, size = 0, len(data)
    length, places = -1, (0, 0, 0)  # of the header, and of the values of op, conn and time in it
    while at < size:
        op, conn, when = (at + 4 + place for place in places)
        if (
            int.from_bytes(data[at : at + 4], "little") != length
            or data[op - 3 : op + 1] != b"op=\x02"
            or data[conn - 5 : conn] != b"conn="
            or data[when - 5 : when] != b"time="
        ):
            record = next(_records(data, at, is_cut=is_cut), None)
            if record is None:
                return
            if record.opcode == MESSAGE:
                yield record.number(b"conn"), record.stamp, record.start, record.end
                length, places = _header_layout(data[at : record.start])
            at = record.end
            continue
        start = at + 8 + length
        end = start + int.from_bytes(data[start - 4 : start], "little")
        if end > size:
            if is_cut:
                return
            raise DamageError("a record is longer than its chunk")
        seconds, nanoseconds = _TIME.unpack_from(data, when)
        yield int.from_bytes(data[conn : conn + 4], "little"), seconds * SECOND + nanoseconds, start, end
        at = end


def _header_layout(data: bytes) -> tuple[int, tuple[int, int, int]]:
    """The length of the header of a message, and where the values of its fields op, conn and time begin in it. The
    length is -1 if it lacks one of them in its usual size."""
    length, at, places = int.from_bytes(data[:4], "little"), 0, {}
    while at < length:
        size = int.from_bytes(data[4 + at : 8 + at], "little")
        name, _, value = data[8 + at : 8 + at + size].partition(b"=")
        places[name, len(value)] = at + 4 + len(name) + 1
        at += 4 + size
    if not places.keys() >= {(b"op", 1), (b"conn", 4), (b"time", 8)}:
        return -1, (0, 0, 0)
    return length, (places[b"op", 1], places[b"conn", 4], places[b"time", 8])


def _chunk_records(data: bytes) -> tuple[bytes, str]:
    """The decompressed records of a chunk, whose own record is `data`, up to the first damage, and the damage: empty if
    there is none. Raises `DamageError`."""
    head = 4 + int.from_bytes(data[:4], "little")
    record = _Record(_fields(data[4:head]), head + 4, len(data))
    if record.opcode != CHUNK:
        raise DamageError("the index points to something that is no chunk")
    compression = record.fields.get(b"compression", b"none").decode("ascii", "replace")
    size = record.number(b"size") or MAX_DECOMPRESSED_BYTES  # 0: the recorder did not end the chunk
    return decompress(data[head + 4 :], compression, size)


def _connection(record: _Record, data: bytes) -> _Connection:
    """A connection, described by the header and the data of its record. Raises `DamageError`."""
    own = {**record.fields, **_fields(data)}
    texts = {
        name: own.get(name, b"").decode("utf-8", "replace")
        for name in (b"topic", b"type", b"message_definition", b"latching")
    }
    topic = "/".join(part for part in texts[b"topic"].split("/") if part)
    slash = "/" if texts[b"topic"].startswith("/") else ""
    kind = normalize_msgtype(texts[b"type"])
    return _Connection(slash + topic, kind, texts[b"message_definition"], texts[b"latching"] == "1")


@lru_cache(maxsize=4)
def _contents(path: Path, size: int, modified: int) -> _Contents:
    """The contents of the bag, by its index, or else by reading it whole. `size` and `modified` (ns) are the file's: it
    is read again if they change. Raises `RecordingError`."""
    with path.open("rb", buffering=2**20) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise RecordingError(f"'{path.name}' is no ROS 1 bag of format 2.0")
        search = _Search(file, size, path.name)
        try:
            header = search.record_at(len(MAGIC))
        except DamageError as error:
            raise RecordingError(f"'{path.name}' ends within its first record") from error
        if header.fields.get(b"encryptor"):
            raise RecordingError(f"'{path.name}' is encrypted: decrypt it with `rosbag decrypt`")
        try:
            return search.by_index(header)
        except DamageError:
            return search.by_reading(header.end)


class _Search:
    """Finds the chunks and connections of a bag."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file, self._size = file, size
        self._connections: dict[int, _Connection] = {}
        self._found = BlockSearch(name)

    def record_at(self, at: int) -> _Record:
        """The record at a place in the file. Raises `DamageError` if it is not whole."""
        if at + 8 > self._size:
            raise DamageError("is cut off")
        self._file.seek(at)
        length = int.from_bytes(self._file.read(4), "little")
        if at + 8 + length > self._size:
            raise DamageError("is cut off")
        fields = _fields(self._file.read(length))
        start = at + 8 + length
        end = start + int.from_bytes(self._file.read(4), "little")
        if end > self._size and fields.get(b"op") != bytes([CHUNK]):
            raise DamageError("is cut off")
        return _Record(fields, start, end)

    def by_index(self, header: _Record) -> _Contents:
        """The contents by the index at the end of the bag. Raises `DamageError` if it is missing or damaged."""
        at = header.number(b"index_pos", "<Q")
        if not at:
            raise DamageError("the recorder did not end it")
        connections: dict[int, _Connection] = {}
        blocks: list[Block] = []
        for _ in range(header.number(b"conn_count")):
            record = self.record_at(at)
            connections[record.number(b"conn")], at = _connection(record, self._read(record)), record.end
        for _ in range(header.number(b"chunk_count")):
            record = self.record_at(at)
            counts = dict(struct.iter_unpack("<II", self._read(record)[: 8 * record.number(b"count")]))
            position, at = record.number(b"chunk_pos", "<Q"), record.end
            chunk = self.record_at(position)
            if chunk.opcode != CHUNK or chunk.end > self._size:
                raise DamageError("the index points to something that is no chunk")
            first, last = (_stamp(record.fields.get(name, bytes(8))) for name in (b"start_time", b"end_time"))
            blocks.append(Block(first, last, position, chunk.end - position, counts))
        if overlap_in_file(blocks):
            raise DamageError("the index names a chunk twice")
        return _Contents(connections, blocks, [])

    def by_reading(self, at: int) -> _Contents:
        """The contents by reading all records from `at`, up to the end or the first damage."""
        problem = ""
        while at < self._size:
            try:
                record = self.record_at(at)
                cut = record.opcode == CHUNK and (record.end > self._size or not record.number(b"size"))
                if record.opcode == CHUNK:
                    self._add_chunk(at, self._size if record.end > self._size else record.end, is_cut=cut)
                elif record.opcode == CONNECTION:
                    self._connections[record.number(b"conn")] = _connection(record, self._read(record))
                elif record.opcode == MESSAGE:
                    self._found.add_message(record.number(b"conn"), record.stamp, at, record.end)
                elif record.opcode not in (INDEX, CHUNK_INFO, BAG_HEADER):
                    raise DamageError("is damaged")
            except DamageError as error:
                problem = str(error)
                break
            if record.end > self._size:
                problem = "is cut off"
                break
            at = record.end
        where = f": its record at byte {at} of {self._size} is not whole" if problem else ""
        problem = f"{problem or 'was not ended by its recorder'}{where}"
        self._found.finish(at, problem, "; `rosbag reindex` writes an index")
        return _Contents(self._connections, self._found.blocks, self._found.damage)

    def _read(self, record: _Record) -> bytes:
        self._file.seek(record.start)
        return self._file.read(record.end - record.start)

    def _add_chunk(self, at: int, end: int, *, is_cut: bool) -> None:
        self._file.seek(at)
        data = self._file.read(end - at)
        messages: list[tuple[int, int]] = []
        problem, most = "", most_messages(len(data))
        try:
            records, problem = _chunk_records(data)
            for record in _records(records, is_cut=bool(problem)):
                if record.opcode == CONNECTION:
                    described = _connection(record, records[record.start : record.end])
                    self._connections.setdefault(record.number(b"conn"), described)
                elif record.opcode == MESSAGE:
                    if len(messages) == most:
                        raise too_many_messages(most)
                    messages.append((record.number(b"conn"), record.stamp))
        except DamageError as error:
            problem = str(error)
        self._found.add_chunk(at, end, messages, problem, is_cut=is_cut)
