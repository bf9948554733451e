"""One file of a recording: its channels, its messages in order of log time, and what of it is damaged."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import SECOND

CDR, ROS1 = "cdr", "ros1"  # encodings of messages that are read
DEFINITION_FORMATS = {  # encodings of definitions of messages, as MCAP and rosbag2 name them
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros1msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}
# ns: log times of a topic that go back by more, in the order of the file, show a clock set back
MIN_SET_BACK = SECOND // 4
MAX_SET_BACKS = 8  # of a file; one with more was not written in the order of time
LAST_TIME = 2**63 - 1
METADATA = "metadata.yaml"  # of a folder of bag files
PART_BYTES = 2**20  # of a compressed file that are read, and of its contents that are held, at once
RUN_BYTES = 4 * 2**20  # messages outside of chunks are read in runs of this size
# Bytes of a decompressed chunk or message. An image of 100 million pixels has 286 MiB, and most chunks have a few. A
# message is copied out of its chunk, and while it is decoded there are up to three copies of it.
MAX_DECOMPRESSED_BYTES = 300 * 2**20
# Bytes of messages that are held until those of other blocks at the same time are read. A file that has its topics one
# after the other needs a chunk for each.
MAX_HELD_BYTES = 128 * 2**20
MESSAGE_BYTES = 200  # of memory that a held message takes besides its data
# Messages of one block: as many as it has bytes in the file, but never over the second number. A compressed chunk of
# 12 kB can have four million empty ones.
MIN_MOST_MESSAGES, MAX_MOST_MESSAGES = 2**16, 2**20


class RecordingError(SensebindError):
    """A bag cannot be read or written. The message names the bag and the remedy."""


class DamageError(Exception):
    """A part of a file cannot be read. The text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One topic of one file. `encoding`: of its messages, `CDR` or `ROS1`; with another one they are not read.
    `message_count`: as the file's own index, or the search for messages without an index, counts them."""

    id: int
    topic: str
    type: str
    encoding: str
    definition: MessageDefinition
    message_count: int
    latched: bool = False


# A message as stored: log time (ns), channel, data. A plain tuple, because a recording has millions of them.
RawMessage = tuple[int, Channel, bytes]


class Block(NamedTuple):
    """A part of a file that is read at once: a chunk, or a run of messages outside of chunks.

    `start`, `end`: log times (ns) of its first and last message. `offset`, `length`: its bytes in the file. `counts`:
    id of a channel → its messages. `is_chunk`: whether it is a chunk. `is_cut`: its end is missing or damaged, and this
    is described already. `part`: the places of the first of its messages that belongs to it, and of the first that does
    not; None: all belong to it.
    """

    start: int
    end: int
    offset: int
    length: int
    counts: Mapping[int, int]
    is_chunk: bool = True
    is_cut: bool = False
    part: tuple[int, int] | None = None


class SetBackSearch:
    """Finds where the clock of a recorder was set back: in the log times of a file, in the order in which it was
    written. A file that has its topics one after the other, or is in no order, has none."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # topic → its newest log time (ns)

    def is_set_back(self, topic: int, stamp: int) -> bool:
        """Whether the clock was set back before the next message, of this topic and with this log time (ns)."""
        last = self._last.get(topic, stamp)
        if stamp < last - MIN_SET_BACK:
            self._last = {topic: stamp}  # the other topics follow, by the same step
            return True
        self._last[topic] = max(last, stamp)
        return False


class BagFile(ABC):
    """An open file of a recording. `notes`: facts that the user should know; `damage`: what cannot be read, with the
    place, known so far. `start`, `end`: log times of the first and last message (ns); both 0 if there are none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: list[Channel] = []
        self.start = self.end = 0
        self.notes: list[str] = []
        self.damage: list[str] = []

    @abstractmethod
    def messages(self, channels: Sequence[Channel], start: int, stop: int) -> Iterator[RawMessage]:
        """The messages of `channels` with `start` <= log time < `stop`, in order of log time.

        What is damaged is skipped and added to `damage`.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def _add_damage(self, text: str) -> None:
        if text not in self.damage:
            self.damage.append(text)

    def _add_unknown(self, counts: Mapping[int, int], known: Container[int]) -> None:
        """Describe the messages of channels that the file does not describe. `counts`: id of a channel → messages."""
        if unknown := sum(count for number, count in counts.items() if number not in known):
            self._add_damage(
                f"'{self.path.name}' has {unknown} messages of topics that it does not describe: they cannot be read"
            )

    def _place(self, stamp: int) -> str:
        """A log time in words: seconds after the first message of this file."""
        return f"{max(stamp - self.start, 0) / SECOND:.2f} s after its first message"


class BlockFile(BagFile):
    """A file whose messages are in blocks. A subclass sets `channels`, and reads the records of its format. `blocks`:
    all blocks of the file.

    It is opened for each block, because a recording may have more parts than a process may open at once.
    """

    def __init__(self, path: Path, blocks: Sequence[Block], damage: Iterable[str]) -> None:
        super().__init__(path)
        self._blocks = sorted(blocks, key=lambda block: block.offset)
        self._segments: list[list[Block]] | None = None
        self._is_unordered = False  # it was not written in the order of time
        self.damage += damage
        # A chunk whose messages are not indexed has no counts, and an empty one has no times either.
        filled = [block for block in blocks if block.counts or block.end]
        self.start = min((block.start for block in filled), default=0)
        self.end = max((block.end for block in filled), default=0)

    def messages(self, channels: Sequence[Channel], start: int, stop: int) -> Iterator[RawMessage]:
        wanted = {channel.id: channel for channel in channels}
        for segment in self._in_segments():
            blocks = [
                block
                for block in segment
                if block.start < stop and block.end >= start and self._may_contain(block, wanted)
            ]
            load = partial(self._load_part, wanted=wanted, start=start, stop=stop)
            yield from merge_blocks(blocks, load, is_ordered=not self._is_unordered, on_overflow=self._note_overflow)

    def close(self) -> None:
        """Nothing is open."""

    def _note_overflow(self) -> None:
        text = (
            f"over {MAX_HELD_BYTES // 2**20} MiB of the messages of '{self.path.name}' are at the same time in parts "
            "of the file that are far apart: they are not read in order of time; `mcap sort` writes them in order"
        )
        if text not in self.notes:
            self.notes.append(text)

    def _in_segments(self) -> list[list[Block]]:
        """The blocks of each part of the file in which the clock of its recorder only goes forward: all blocks, if the
        clock was never set back. A block in which it was set back is in several parts.

        Reads only blocks that overlap in time with an earlier one that has the same topics. A clock that was set back
        within a block, and overlaps with no other one, is found by `merge_blocks`.
        """
        if self._segments is not None:
            return self._segments
        self._segments = [list(self._blocks)]
        overlapping = self._overlapping()
        channels = {channel.id: channel for channel in self.channels}
        damage, search, segments = list(self.damage), SetBackSearch(), [list[Block]()]
        for number, block in enumerate(self._blocks):
            if not overlapping & {number, number + 1}:
                search = SetBackSearch()
                segments[-1].append(block)
                continue
            messages = self._load(block, channels, -LAST_TIME, LAST_TIME)
            cuts = [at for at, (stamp, channel, _) in enumerate(messages) if search.is_set_back(channel.id, stamp)]
            for first, after in pairwise([0, *cuts, len(messages)]):
                if first in cuts:
                    segments.append([])
                if stamps := [stamp for stamp, _, _ in messages[first:after]]:
                    part = (first, after) if cuts else None
                    segments[-1].append(block._replace(start=min(stamps), end=max(stamps), part=part))
        self.damage = damage  # what is damaged is described when it is read
        self._is_unordered = len(segments) > MAX_SET_BACKS + 1
        if 1 < len(segments) <= MAX_SET_BACKS + 1:
            self._segments = segments
        return self._segments

    def _overlapping(self) -> set[int]:
        """The places of the blocks that begin before an earlier block with the same topics ends."""
        newest: dict[int, int] = {}  # channel → end of its newest block; -1: of a block whose channels are not known
        found = set()
        for number, block in enumerate(self._blocks):
            if not block.counts and not block.end:
                continue
            own = block.counts or {**newest, -1: 0}
            if any(block.start < newest.get(channel, block.start) - MIN_SET_BACK for channel in (*own, -1)):
                found.add(number)
            newest |= {channel: max(newest.get(channel, 0), block.end) for channel in own}
        return found

    def _load_part(self, block: Block, wanted: Mapping[int, Channel], start: int, stop: int) -> list[RawMessage]:
        """The messages of `_load` that belong to the part of a block."""
        if block.part is None:
            return self._load(block, wanted, start, stop)
        every = self._load(block, {channel.id: channel for channel in self.channels}, -LAST_TIME, LAST_TIME)
        own = every[slice(*block.part)]
        return [message for message in own if message[1].id in wanted and start <= message[0] < stop]

    @abstractmethod
    def _read_block(
        self,
        data: bytes,
        is_chunk: bool,
        wanted: Mapping[int, Channel],
        start: int,
        stop: int,
        result: list[RawMessage],
    ) -> str:
        """Append the messages of a block to `result`, up to the first damage; return the damage, empty if there is
        none. `data`: the bytes of the block. Raises `DamageError`."""

    def _may_contain(self, block: Block, wanted: Mapping[int, Channel]) -> bool:
        """Whether a block may have messages of the channels `wanted`."""
        return bool(wanted.keys() & block.counts.keys())

    def _load(self, block: Block, wanted: Mapping[int, Channel], start: int, stop: int) -> list[RawMessage]:
        result: list[RawMessage] = []
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(block.offset)
                data = file.read(block.length)
            problem = self._read_block(data, block.is_chunk, wanted, start, stop, result)
        except (DamageError, OSError) as error:
            problem = str(error)
        if problem and not block.is_cut:
            total = sum(block.counts.values())
            self._add_damage(
                f"'{self.path.name}' is damaged at byte {block.offset}: not all of the "
                f"{f'{total} messages' if total else 'messages'} from {self._place(block.start)} to "
                f"{self._place(block.end)} can be read ({problem})"
            )
        return result


def message_counts(blocks: Iterable[Block]) -> Counter[int]:
    """Id of a channel → its messages in all blocks."""
    found: Counter[int] = Counter()
    for block in blocks:
        found.update(block.counts)
    return found


def readable_text(messages: int, first: int, last: int) -> str:
    """What can be read of a damaged file. `first`, `last`: log times (ns) of the first and last of its messages."""
    return f"{messages} messages, {(last - first) / SECOND:.2f} s, are readable"


def overlap_in_file(blocks: Iterable[Block]) -> bool:
    """Whether two blocks have bytes in common: no recorder writes such an index, with which a small file has messages
    without end."""
    ordered = sorted(blocks, key=lambda block: block.offset)
    return any(after.offset < before.offset + before.length for before, after in pairwise(ordered))


def most_messages(stored: int) -> int:
    """The most messages that are read from a block of `stored` bytes in the file."""
    return min(max(stored, MIN_MOST_MESSAGES), MAX_MOST_MESSAGES)


def too_many_messages(most: int) -> DamageError:
    """The damage of a block with more than `most` messages."""
    return DamageError(f"it has more than {most:,} messages, the limit for a block of its size")


def merge_blocks(
    blocks: Iterable[Block],
    load: Callable[[Block], list[RawMessage]],
    *,
    is_ordered: bool = True,
    on_overflow: Callable[[], None] = lambda: None,
) -> Iterator[RawMessage]:
    """The messages of all blocks in order of log time. Only blocks that overlap in time are held at once, and of them
    no more than `MAX_HELD_BYTES`: then `on_overflow` is called, and what is held comes before what follows.

    `is_ordered`: the file was written in the order of time: if the log times of its topics go back within a block, the
    clock of the recorder was set back there, and the messages after it follow those before.
    """
    held: list[RawMessage] = []
    stamp = itemgetter(0)
    for block in sorted(blocks, key=lambda block: (block.start, block.offset)):
        if held and held[0][0] < block.start:
            cut = bisect_left(held, block.start, key=stamp)
            yield from held[:cut]
            del held[:cut]
        if sum(len(data) + MESSAGE_BYTES for _, _, data in held) > MAX_HELD_BYTES:
            on_overflow()
            yield from held
            held = []
        *before, last = _split_at_set_backs(load(block)) if is_ordered else [load(block)]
        if before:
            yield from held
            for run in before:
                yield from sorted(run, key=stamp)
            held = []
        held += last
        held.sort(key=stamp)
    yield from held


def _split_at_set_backs(messages: list[RawMessage]) -> list[list[RawMessage]]:
    """The messages of a block, in the order of the file, in the parts in which the clock only goes forward."""
    if not any(after[0] < before[0] - MIN_SET_BACK for before, after in pairwise(messages)):
        return [messages]
    search = SetBackSearch()
    cuts = [place for place, (stamp, channel, _) in enumerate(messages) if search.is_set_back(channel.id, stamp)]
    if len(cuts) > MAX_SET_BACKS:
        return [messages]
    return [messages[first:last] for first, last in pairwise([0, *cuts, len(messages)])]


def decompress(data: bytes, compression: str, size: int) -> tuple[bytes, str]:
    """The contents of a chunk, at most `size` bytes, up to the first damage; and the damage, empty if there is none.

    Raises `DamageError` for an unknown compression, and for a chunk that is larger than `MAX_DECOMPRESSED_BYTES`.
    """
    if compression not in ("", "none") and size > MAX_DECOMPRESSED_BYTES:
        raise DamageError(
            f"its {len(data):,} bytes claim {size:,} decompressed bytes, and the limit is {MAX_DECOMPRESSED_BYTES:,}: "
            "`mcap recompress` or `rosbag compress` write smaller chunks"
        )
    if compression in ("", "none"):
        result, problem = data, ""
    else:
        decompressor = _decompressor(compression)
        try:
            result, problem = decompressor(data, size + 1), ""
        except Exception as error:  # each library raises errors of its own
            result, problem = _before_damage(data, compression, size), str(error)
    if len(result) != size and not problem:
        problem = f"{len(result)} of {size} bytes"
    return result[:size], problem


def _before_damage(data: bytes, compression: str, size: int) -> bytes:
    """What can be decompressed before the first damage, in small steps, so that little before it is lost."""
    result, step, decompressor = bytearray(), 4096, _decompressor(compression)
    with suppress(Exception):
        for at in range(0, len(data), step):
            result += decompressor(data[at : at + step], size + 1 - len(result))
            if len(result) > size:
                break
    return bytes(result)


def _decompressor(compression: str) -> Callable[[bytes, int], bytes]:
    """A function of compressed bytes and the largest number of bytes to return."""
    if compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor().decompress
    if compression == "bz2":
        from bz2 import BZ2Decompressor

        return BZ2Decompressor().decompress
    if compression == "zstd":
        return zstd_decompressor()
    raise DamageError(f"compression '{compression}' is not supported")


def decompress_message(data: bytes, name: str) -> bytes:
    """A message that was compressed alone with zstd. `name`: of its file. Raises `RecordingError` if it is larger than
    `MAX_DECOMPRESSED_BYTES`; the errors of the library if it is damaged."""
    result = zstd_decompressor()(data, MAX_DECOMPRESSED_BYTES + 1)
    if len(result) > MAX_DECOMPRESSED_BYTES:
        raise RecordingError(
            f"'{name}': a message of {len(data):,} bytes has more than {MAX_DECOMPRESSED_BYTES:,} decompressed bytes"
        )
    return result


def zstd_parts(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Decompress a stream of zstd in parts of at most `PART_BYTES`. `read`: returns that many compressed bytes, none at
    the end. Raises the errors of the library if the stream is damaged."""
    decompress = zstd_decompressor()
    while data := read(PART_BYTES):
        part = decompress(data, PART_BYTES)
        yield part
        with suppress(EOFError):  # the stream ended with this part
            while len(part) == PART_BYTES:  # more is ready
                part = decompress(b"", PART_BYTES)
                yield part


def zstd_decompressor() -> Callable[[bytes, int], bytes]:
    """A function that decompresses a stream of zstd in parts, with the library that rosbags installs: of compressed
    bytes and the largest number of bytes to return. The rest is returned by calls without new bytes."""
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor

        return ZstdDecompressor().decompress
    try:
        from backports import zstd
    except ImportError:  # rosbags for Python 3.10
        import zstandard

        return _Zstandard(zstandard.ZstdDecompressor().decompressobj()).decompress
    return zstd.ZstdDecompressor().decompress


class _Zstandard:
    """The library of Python 3.10, whose decompressor of parts returns any number of bytes: it gets a few at a time."""

    STEP = 512  # compressed bytes, which become 16 MB at most: 4 bytes may be a block of 128 kB

    def __init__(self, part: Any) -> None:
        """`part`: its `decompressobj`."""
        self._part, self._input, self._output = part, bytearray(), bytearray()

    def decompress(self, data: bytes, size: int) -> bytes:
        """As `zstd_decompressor`."""
        self._input += data
        while self._input and len(self._output) < size:
            self._output += self._part.decompress(bytes(self._input[: self.STEP]))
            del self._input[: self.STEP]
        result = bytes(self._output[:size])
        del self._output[:size]
        return result
