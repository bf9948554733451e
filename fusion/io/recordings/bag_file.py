"""One file of a recording: its channels, its messages in order of log time, and what of it is damaged."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
RUN_BYTES = 4 * 2**20  # messages outside of chunks are read in runs of this size


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
    is described already.
    """

    start: int
    end: int
    offset: int
    length: int
    counts: Mapping[int, int]
    is_chunk: bool = True
    is_cut: bool = False


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

    def _place(self, stamp: int) -> str:
        """A log time in words: seconds after the first message of this file."""
        return f"{max(stamp - self.start, 0) / SECOND:.2f} s after its first message"


class BlockFile(BagFile):
    """A file whose messages are in blocks. A subclass sets `channels`, and reads the records of its format.

    `file`: the open file, which `close` closes. `blocks`: all blocks of the file.
    """

    def __init__(self, path: Path, file: BinaryIO, blocks: Sequence[Block], damage: Iterable[str]) -> None:
        super().__init__(path)
        self._file, self._blocks = file, blocks
        self.damage += damage
        # A chunk whose messages are not indexed has no counts, and an empty one has no times either.
        filled = [block for block in blocks if block.counts or block.end]
        self.start = min((block.start for block in filled), default=0)
        self.end = max((block.end for block in filled), default=0)

    def messages(self, channels: Sequence[Channel], start: int, stop: int) -> Iterator[RawMessage]:
        wanted = {channel.id: channel for channel in channels}
        blocks = [
            block
            for block in self._blocks
            if block.start < stop and block.end >= start and self._may_contain(block, wanted)
        ]
        return merge_blocks(blocks, lambda block: self._load(block, wanted, start, stop))

    def close(self) -> None:
        self._file.close()

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
            self._file.seek(block.offset)
            problem = self._read_block(self._file.read(block.length), block.is_chunk, wanted, start, stop, result)
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


def readable_text(messages: int, first: int, last: int) -> str:
    """What can be read of a damaged file. `first`, `last`: log times (ns) of the first and last of its messages."""
    return f"{messages} messages, {(last - first) / SECOND:.2f} s, are readable"


def merge_blocks(blocks: Iterable[Block], load: Callable[[Block], list[RawMessage]]) -> Iterator[RawMessage]:
    """The messages of all blocks in order of log time. Only blocks that overlap in time are held at once."""
    held: list[RawMessage] = []
    stamp = itemgetter(0)
    for block in sorted(blocks, key=lambda block: (block.start, block.offset)):
        if held and held[0][0] < block.start:
            cut = bisect_left(held, block.start, key=stamp)
            yield from held[:cut]
            del held[:cut]
        held += load(block)
        held.sort(key=stamp)
    yield from held


def decompress(data: bytes, compression: str, size: int) -> tuple[bytes, str]:
    """The contents of a chunk, at most `size` bytes, up to the first damage; and the damage, empty if there is none.

    Raises `DamageError` for an unknown compression.
    """
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


def zstd_decompressor() -> Callable[[bytes, int], bytes]:
    """A function that decompresses a stream of zstd in parts, with the library that rosbags installs: of compressed
    bytes and the largest number of bytes to return (-1: any; the library of Python 3.10 ignores it)."""
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor

        return ZstdDecompressor().decompress
    try:
        from backports import zstd
    except ImportError:  # rosbags for Python 3.10
        import zstandard

        decompressor = zstandard.ZstdDecompressor().decompressobj()
        return lambda data, size: decompressor.decompress(data)
    return zstd.ZstdDecompressor().decompress
