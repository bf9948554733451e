"""Reads a recording as a whole: its topics, its messages in order of log time, and what of it could not be read."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from rosbags.typesys.store import Typestore

from sensebind.fusion.core.errors import printable
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.recordings.bag_file import (
    CDR,
    ROS1,
    BagFile,
    Channel,
    RawMessage,
    RecordingError,
    decompress_message,
)
from sensebind.fusion.io.recordings.folder import ZSTD_MAGIC, find_files, open_file
from sensebind.fusion.io.recordings.message_types import deserialize_cdr, load_typestore, to_current_cdr
from sensebind.fusion.io.recordings.qos import is_latched
from sensebind.fusion.io.topic_names import bare_name

LOG = logging.getLogger("sensebind")
REMEDY = "repair it with `ros2 bag reindex` (db3), `mcap recover` (MCAP) or `rosbag reindex` (ROS 1)"
END_OF_TIME = 2**63 - 1
MAX_FIRST_BYTES = 256 * 2**20  # of messages that are held together for a first look at a topic
MAX_DAMAGE_LENGTH = 1000  # characters of an error that lists what is damaged
MIN_OVERLAP = SECOND // 4  # ns; parts of a recording overlap by less, if its clock was not set back
SPAN_STEP = SECOND // 2  # ns that are read message by message in search of the last message of a topic

# Causes of losses.
MISSING, UNREADABLE, DAMAGED, FILES = "missing", "unreadable", "damaged", "files"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a recording. `latched`: its publishers kept messages for late subscribers (transient local)."""

    name: str
    type: str
    message_count: int
    latched: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a recording that is read. `start`: seconds after its first message. `duration`: seconds; None: to the
    end. `topics`: none: all."""

    start: float = 0.0
    duration: float | None = None
    topics: tuple[str, ...] = ()

    @property
    def is_limited_in_time(self) -> bool:
        """Whether it leaves out messages because of their time."""
        return self.start > 0 or self.duration is not None


@dataclass(frozen=True, slots=True)
class RecordingLoss:
    """Messages of a recording that cannot be read. `cause`: `MISSING` (fewer than the recording counts), `UNREADABLE`
    (they do not fit their definition), `DAMAGED` (a part of a file) or `FILES`. `text`: a sentence for the user.
    `topic`: empty if it is not known. `messages`: how many; None if it is not known."""

    cause: str
    text: str
    topic: str = ""
    messages: int | None = None


@dataclass(frozen=True, slots=True)
class ForeignTopic:
    """A topic whose messages are in an encoding that is not of ROS, such as json or protobuf: they are not read."""

    name: str
    type: str
    encoding: str
    message_count: int


class Recording:
    """A bag for reading: a folder, or an .mcap, .db3 or ROS 1 .bag file, also cut off, compressed or without an index.

    Use it as a context manager. `selection`: the part to read; the default is all. `start`, `end`: log times of the
    first and last message of this part, in ns. `warn`: whether what is known to be lost is logged.

    Messages that cannot be read are counted, by topic, in `losses`; `notes` are facts about the recording that are no
    loss. Raises `RecordingError` if the bag is missing or contains no messages, or if none can be read.
    """

    def __init__(self, path: str | Path, selection: Selection | None = None, *, warn: bool = True) -> None:
        self.path = Path(path)
        self.selection = selection or Selection()
        self.unreadable_counts: dict[str, int] = {}  # topic → messages that could not be read
        self._unreadable_reasons: dict[str, str] = {}  # topic → why the first of them could not be read
        self._stack = ExitStack()
        self._typestores: dict[Channel, Typestore | str] = {}  # types of a channel, or the reason why there are none
        self._read_counts: dict[str, int] = {}  # topic → messages, of topics that were read to the end
        self._damage: list[str] = []
        self._described = find_files(self.path)
        try:
            self._files = self._open_files()
            self._channels = {file: [c for c in file.channels if self._is_read(c)] for file in self._files}
            self._check_content()
        except BaseException:
            self._stack.close()
            raise
        with_data = [file for file in self._files if any(channel.message_count for channel in file.channels)]
        first, last = min(file.start for file in with_data), max(file.end for file in with_data)
        self.start = first + round(self.selection.start * SECOND)
        self.end = last
        self._stop = END_OF_TIME
        if self.selection.duration is not None:
            self._stop = self.start + round(self.selection.duration * SECOND)
            self.end = min(last, self._stop)
        self._from = self.start if self.selection.start > 0 else -END_OF_TIME
        if self.start > last:
            self._stack.close()
            raise RecordingError(
                f"'{path}' has {(last - first) / SECOND:.1f} s: nothing is left from {self.selection.start:g} s on"
            )
        if warn:
            for loss in self.losses:
                LOG.warning("%s", loss.text)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def topics(self) -> list[Topic]:
        """The topics that have messages and are selected, sorted by name. The type of a topic with messages of several
        types is that of most of them."""
        found: dict[str, Topic] = {}
        counts: Counter[tuple[str, str]] = Counter()
        for channels in self._channels.values():
            for c in channels:
                counts[c.topic, c.type] += c.message_count
                before = found.get(c.topic, Topic(c.topic, c.type, 0))
                latched = before.latched or c.latched or is_latched(self._described.qos.get(c.topic))
                main = max((before.type, c.type), key=lambda kind: counts[c.topic, kind])
                found[c.topic] = Topic(c.topic, main, before.message_count + c.message_count, latched)
        return [found[name] for name in sorted(found)]

    @property
    def foreign_topics(self) -> list[ForeignTopic]:
        """The topics with messages that are not of ROS, sorted by name."""
        return sorted(
            (
                ForeignTopic(c.topic, c.type, c.encoding or "an unknown encoding", c.message_count)
                for file in self._files
                for c in file.channels
                if c.message_count and c.encoding not in (CDR, ROS1)
            ),
            key=lambda topic: topic.name,
        )

    @property
    def losses(self) -> list[RecordingLoss]:
        """What cannot be read, by all that is known so far: it is complete after the messages were read."""
        texts = dict.fromkeys([*self._damage, *(text for file in self._files for text in file.damage)])
        found = [*self._missing_parts(), *(RecordingLoss(FILES, text) for text in self._described.losses)]
        found += [RecordingLoss(DAMAGED, text) for text in texts]
        found += [
            RecordingLoss(
                UNREADABLE,
                f"topic '{topic}': {count} messages cannot be read ({self._unreadable_reasons[topic]})",
                topic,
                count,
            )
            for topic, count in self.unreadable_counts.items()
        ]
        return found + self._missing()

    @property
    def notes(self) -> list[str]:
        """Facts about the recording that are no loss: topics that are not of ROS, a missing index, a part."""
        notes = [*self._described.notes, *(note for file in self._files for note in file.notes)]
        if foreign := self.foreign_topics:
            notes.append(f"not read, because they are not messages of ROS: {_foreign_text(foreign)}")
        if self.selection.is_limited_in_time:
            begin, length = self.selection.start, self.selection.duration
            end = "the end" if length is None else f"{begin + length:g} s"
            notes.append(f"only the part from {begin:g} s to {end} of the recording was read")
        return notes

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, Any]]:
        """(topic, type, log time in ns, message), in order of log time. `topics` None: all topics.

        A message that cannot be read is skipped and counted in `losses`. The first one of each topic is logged.
        """
        return self._decoded_messages(topics, is_counted=True)

    def peek(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, Any]]:
        """As `messages`, for a first look at messages that are read again later: counts and logs nothing."""
        return self._decoded_messages(topics, is_counted=False)

    def first_messages(self, topic: str, count: int) -> list[Any]:
        """The first `count` messages of a topic, fewer if they have more than `MAX_FIRST_BYTES`. Those that cannot be
        read are left out, and are not counted."""
        return [message for _, message in self._first(topic, count, self._from, self._stop)]

    def earliest_message(self, topic: str) -> tuple[int, Any] | None:
        """Log time in ns and content of the first message of a topic in the whole recording, also outside of the
        selected time. None if there is none, or if it cannot be read."""
        return next(iter(self._first(topic, 1, -END_OF_TIME, END_OF_TIME)), None)

    def _first(self, topic: str, count: int, start: int, stop: int) -> list[tuple[int, Any]]:
        """(log time, message) of the first `count` messages of a topic from `start` to `stop` (ns)."""
        found: list[tuple[int, Any]] = []
        size = 0
        try:
            main = next((own.type for own in self.topics if own.name == topic), "")
            channels = {f: [c for c in own if c.type == main] for f, own in self._channels_of([topic]).items()}
            for stamp, channel, data in islice(self._merged(channels, start, stop), count):
                types = self._typestore_of(channel)
                if self._is_compressed(data):
                    data = decompress_message(data, self.path.name)
                size += len(data)
                if found and size > MAX_FIRST_BYTES:
                    break
                if not isinstance(types, str):
                    found.append((stamp, _deserializer(types, channel)(data, channel.type)))
        except Exception as error:  # as in `messages`; a read of the whole topic reports it
            LOG.debug("%s: its first messages cannot be read: %s", topic, error)
        return found

    def time_span(self, topic: str) -> tuple[int, int]:
        """Log times in ns of the first and the last message of a topic, found with few reads; (0, 0) without any."""
        channels = self._channels_of([topic])

        def first_after(stamp: int) -> int | None:
            return next((found for found, _, _ in self._merged(channels, stamp, self._stop)), None)

        first = last = 0
        try:
            first = last = first_after(self._from) or 0
            end, tail = self.end + 1, self.end + 1 - SPAN_STEP
            while first and end - last > SPAN_STEP:  # the last message is not before `last`, and before `end`
                found = first_after(tail)
                last, end = (last, tail) if found is None else (found, end)
                tail = (last + end) // 2
            last = max((found for found, _, _ in self._merged(channels, last, self._stop)), default=last)
        except Exception as error:  # as in `messages`; a read of the whole topic reports it
            LOG.debug("%s: its last message cannot be found: %s", topic, error)
        return first, last

    def cdr_messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """(topic, type, log time in ns, CDR bytes), in order of log time. `topics` None: all topics.

        ROS 1 messages are converted. Messages of older definitions of Sensebind are converted too: new fields are 0 or
        empty. Unreadable messages are handled as in `messages`.
        """
        for stamp, channel, data in self._raw_messages(topics):
            if channel.encoding == CDR and not channel.type.startswith("sensebind_msgs/"):
                yield channel.topic, channel.type, stamp, bytes(data)
                continue
            types = self._typestore_of(channel)
            if isinstance(types, str):
                self._count_unreadable(channel, types)
                continue
            try:
                converted = to_current_cdr(types, channel, data)
            except Exception as error:  # as in `messages`
                self._count_unreadable(channel, error)
                continue
            yield channel.topic, channel.type, stamp, bytes(converted)

    def _decoded_messages(
        self, topics: Sequence[str] | None, *, is_counted: bool
    ) -> Iterator[tuple[str, str, int, Any]]:
        """See `messages`, and without `is_counted` `peek`."""
        on_unreadable = self._count_unreadable if is_counted else _ignore
        readers: dict[Channel, Callable[[bytes, str], Any]] = {}
        for stamp, channel, data in self._raw_messages(topics, is_counted=is_counted):
            read = readers.get(channel)
            if read is None:
                types = self._typestore_of(channel)
                if isinstance(types, str):
                    on_unreadable(channel, types)
                    continue
                read = readers[channel] = _deserializer(types, channel)
            try:
                message: Any = read(data, channel.type)
            except Exception as error:  # rosbags raises many kinds of error for data that do not match a definition
                on_unreadable(channel, error)
                continue
            yield channel.topic, channel.type, stamp, message

    def _open_files(self) -> list[BagFile]:
        """Open all files. One of several that cannot be read is a loss; the error of the only one is raised."""
        opened: list[BagFile] = []
        for path in self._described.files:
            try:
                file = open_file(path, self._stack)
            except Exception as error:  # a damaged file can raise many kinds of error
                if len(self._described.files) == 1:
                    remedy = "" if "is packed" in str(error) else f"; {REMEDY}"
                    raise RecordingError(f"'{self.path}' cannot be read as a recording ({error}){remedy}") from error
                self._damage.append(f"{error}: this part of the recording is not read")
                continue
            self._stack.callback(file.close)
            opened.append(file)
        return opened

    def _is_read(self, channel: Channel) -> bool:
        names = {bare_name(name) for name in self.selection.topics}
        return (
            channel.message_count > 0
            and channel.encoding in (CDR, ROS1)
            and (not names or bare_name(channel.topic) in names)
        )

    def _check_content(self) -> None:
        """Raises `RecordingError` if there is nothing to read."""
        topics = {bare_name(c.topic) for file in self._files for c in file.channels if c.message_count}
        unknown = [name for name in self.selection.topics if bare_name(name) not in topics]
        if unknown and topics:
            raise RecordingError(
                f"'{self.path}' has no messages on {', '.join(unknown)}, but on /{', /'.join(sorted(topics))}: "
                "correct 'topics'"
            )
        if any(self._channels.values()):
            return
        if foreign := self.foreign_topics:
            raise RecordingError(
                f"'{self.path}' contains no messages of ROS, but {_foreign_text(foreign)}: record it with "
                "`ros2 bag record`, or convert it to MCAP with the encoding cdr"
            )
        damage = [*self._damage, *(text for file in self._files for text in file.damage)]
        if damage:
            text = printable("; ".join(damage))[:MAX_DAMAGE_LENGTH]
            raise RecordingError(f"'{self.path}' contains no readable messages ({text}); {REMEDY}")
        raise RecordingError(f"'{self.path}' contains no messages")

    def _stored(self) -> Counter[str]:
        """Topic → messages that the files themselves count."""
        stored: Counter[str] = Counter()
        for file in self._files:
            for channel in file.channels:
                stored[channel.topic] += channel.message_count
        return stored

    def _missing_parts(self) -> list[RecordingLoss]:
        """One loss for all parts that the folder lacks: its text has the messages that metadata.yaml counts, and those
        that are left."""
        if not (missing := self._described.missing):
            return []
        stored, counted, parts = self._stored(), self._described.counts, len(self._described.files)
        have, total = sum(stored[topic] for topic in counted), sum(counted.values())
        topics = ", ".join(f"{topic} {stored[topic]} of {counted[topic]}" for topic in sorted(counted))
        text = (
            f"'{self.path}' lacks {', '.join(missing)}: {parts} of {parts + len(missing)} parts are read, with {have} "
            f"of the {total} messages that metadata.yaml counts ({topics}). Copy the missing files too"
        )
        return [RecordingLoss(FILES, text, messages=max(0, total - have))]

    def _missing(self) -> list[RecordingLoss]:
        """The topics of which fewer messages were read, or can be read, than metadata.yaml or the files count. What is
        in missing parts is not counted here."""
        stored, found = self._stored(), []
        counts = {} if self._described.missing else self._described.counts
        for topic in sorted({*counts, *stored}):
            counted = counts.get(topic, 0)
            source = "metadata.yaml counts" if counted >= stored[topic] else "the index counts"
            expected, have = max(counted, stored[topic]), self._read_counts.get(topic, stored[topic])
            if have < expected:
                text = f"topic '{topic}': {have} of the {expected} messages that {source} can be read"
                found.append(RecordingLoss(MISSING, text, topic, expected - have))
        return found

    def _raw_messages(self, topics: Sequence[str] | None, *, is_counted: bool = True) -> Iterator[RawMessage]:
        on_unreadable = self._count_unreadable if is_counted else _ignore
        wanted = self._channels_of(topics)
        counts: Counter[Channel] = Counter()
        try:
            for message in self._merged(wanted, self._from, self._stop):
                channel = message[1]
                if self._is_compressed(message[2]):
                    try:
                        message = message[0], channel, decompress_message(message[2], self.path.name)
                    except Exception as error:  # each library raises errors of its own
                        on_unreadable(channel, error)
                        continue
                counts[channel] += 1
                yield message
        except Exception as error:  # of damage that no reader of files expects
            raise RecordingError(f"'{self.path}' is damaged ({error}); messages before the damage were read") from error
        if is_counted and not self.selection.is_limited_in_time:
            read: Counter[str] = Counter()
            for channel in (c for channels in wanted.values() for c in channels):
                read[channel.topic] += counts[channel]
            self._read_counts |= read

    def _is_compressed(self, data: bytes) -> bool:
        """Whether a message is compressed alone. Without metadata.yaml its first bytes say so: CDR begins with 0."""
        return self._described.has_compressed_messages or data[:4] == ZSTD_MAGIC

    def _channels_of(self, topics: Sequence[str] | None) -> dict[BagFile, list[Channel]]:
        """File → its channels of these topics, for the files that have any. None: all topics."""
        found = {f: [c for c in own if topics is None or c.topic in topics] for f, own in self._channels.items()}
        return {file: own for file, own in found.items() if own}

    def _merged(self, wanted: Mapping[BagFile, Sequence[Channel]], start: int, stop: int) -> Iterator[RawMessage]:
        """The messages of all files from `start` to `stop` (ns) in order of log time. A file is opened when its first
        message is due. If one begins long before the one before it ends, the clock of the recorder was set back, and
        the parts are read one after another."""
        if any(_is_set_back(before, after) for before, after in pairwise(wanted)):
            for file, channels in wanted.items():
                yield from file.messages(channels, start, stop)
            return
        waiting = sorted(wanted, key=lambda file: file.start, reverse=True)
        heap: list[tuple[int, int, RawMessage, Iterator[RawMessage]]] = []  # stamp, order of opening, message, rest
        number = 0
        while waiting or heap:
            while waiting and (not heap or waiting[-1].start <= heap[0][0]):
                file, number = waiting.pop(), number + 1
                rest = file.messages(wanted[file], start, stop)
                if (message := next(rest, None)) is not None:
                    heapq.heappush(heap, (message[0], number, message, rest))
            if not heap:
                continue
            _, order, message, rest = heapq.heappop(heap)
            yield message
            if not heap and not waiting:
                yield from rest
            elif not heap:  # the only open file: read on until the next one begins
                for message in rest:
                    if message[0] >= waiting[-1].start:
                        heapq.heappush(heap, (message[0], order, message, rest))
                        break
                    yield message
            elif (following := next(rest, None)) is not None:
                heapq.heappush(heap, (following[0], order, following, rest))

    def _typestore_of(self, channel: Channel) -> Typestore | str:
        """The types that read the messages of a channel, or the reason why there are none.

        They come from the definition in the bag, or else from `typestore`. Each definition is parsed separately, when
        it is first needed, so a wrong definition does not affect other topics.
        """
        if channel not in self._typestores:
            try:
                self._typestores[channel] = load_typestore(channel)
            except Exception as error:  # rosbags' parsers raise many kinds
                reason = " ".join(str(error).split())[:200]
                self._typestores[channel] = f"their definition cannot be parsed ({reason})"
        return self._typestores[channel]

    def _count_unreadable(self, channel: Channel, error: Exception | str) -> None:
        if channel.topic not in self._unreadable_reasons:
            self._unreadable_reasons[channel.topic] = str(error)
            LOG.warning("%s: messages of type '%s' cannot be read: %s", channel.topic, channel.type, error)
        self.unreadable_counts[channel.topic] = self.unreadable_counts.get(channel.topic, 0) + 1


def _ignore(channel: Channel, error: Exception | str) -> None:
    """Neither count nor log a message that cannot be read."""


def _is_set_back(before: BagFile, after: BagFile) -> bool:
    """Whether the second of two parts begins long before the first one ends, and both are of one recorder: they have
    most topics in common. Two recorders may share some, such as /tf."""
    if after.start >= before.end - MIN_OVERLAP or after.end <= before.start:
        return False
    first, second = ({channel.topic for channel in file.channels} for file in (before, after))
    return 2 * len(first & second) > min(len(first), len(second))


def _deserializer(types: Typestore, channel: Channel) -> Callable[[bytes, str], Any]:
    """The function of data and type name that reads the messages of a channel."""
    return types.deserialize_ros1 if channel.encoding == ROS1 else partial(deserialize_cdr, types)


def _foreign_text(topics: Sequence[ForeignTopic]) -> str:
    return ", ".join(f"{t.name} ({t.message_count} messages of {t.type} in {t.encoding})" for t in topics)


def duration(path: str | Path) -> float:
    """Seconds from the first message of a recording to its last. Raises `RecordingError`."""
    with Recording(path, warn=False) as recording:
        return (recording.end - recording.start) / SECOND
