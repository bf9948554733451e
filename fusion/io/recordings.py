"""Reads bags (MCAP, SQLite, ROS 1) and writes MCAP bags with rosbags, without a ROS installation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from sensebind.fusion.core.atomic import staged
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import SECOND

LOG = logging.getLogger("sensebind")

HEADER_TYPE = "std_msgs/msg/Header"
SPAN_STEP = SECOND // 2  # ns that are read message by message in search of the last message of a topic
_INFINITE_DURATION = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE
LATCHED_QOS = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=_INFINITE_DURATION,
    lifespan=_INFINITE_DURATION,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=_INFINITE_DURATION,
    avoid_ros_namespace_conventions=False,
)


class RecordingError(SensebindError):
    """A bag cannot be read or written. The message names the bag and the remedy."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a recording. `latched`: its publishers kept messages for late subscribers (transient local)."""

    name: str
    type: str
    message_count: int
    latched: bool = False


@cache
def typestore() -> Typestore:
    """The message types of ROS 2, of this package, and of the supported microphones."""
    result = get_typestore(Stores.ROS2_JAZZY)
    interfaces = files("sensebind") / "interfaces"
    found: dict[str, Any] = {}
    for package in ("sensebind_msgs", "audio_common_msgs", "foxglove_msgs", "ffmpeg_image_transport_msgs"):
        for file in sorted((interfaces / package / "msg").iterdir(), key=lambda f: f.name):
            if file.name.endswith(".msg"):
                name = f"{package}/msg/{file.name.removesuffix('.msg')}"
                found.update(get_types_from_msg(file.read_text(encoding="utf-8"), name))
    result.register(found)
    return result


class Recording:
    """A bag for reading: a folder with metadata.yaml or a single bag file, or an .mcap, .db3 or ROS 1 .bag file.

    Use it as a context manager. Raises `RecordingError` if the bag is missing, is damaged or contains no messages.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.unreadable_counts: dict[str, int] = {}  # topic → messages that could not be read
        if not self.path.exists():
            raise RecordingError(f"there is no recording '{path}'")
        file = _find_bag_file(self.path)
        if file.is_dir() and not (file / "metadata.yaml").is_file():
            raise RecordingError(
                f"the folder '{path}' has no metadata.yaml: name the .mcap, .db3 or .bag file inside, "
                "or run `ros2 bag reindex`, which writes one"
            )
        self._is_ros1 = file.suffix == ".bag"
        # id of a connection → its types, or the reason why there are none
        self._typestores: dict[int, Typestore | str] = {}
        try:
            self._reader = Reader1(file) if self._is_ros1 else Reader2(file)
            self._reader.open()
        except Exception as error:  # a damaged file can raise many kinds of error, of struct, sqlite3 and others
            raise RecordingError(
                f"'{path}' cannot be read as a recording ({error}); repair it with `ros2 bag reindex` (db3), "
                "`mcap recover` (MCAP) or `rosbag reindex` (ROS 1)"
            ) from error
        self._connections = [c for c in self._reader.connections if c.msgcount]
        if not self._connections:
            self._reader.close()
            raise RecordingError(f"'{path}' contains no messages")
        self.start, self.end = int(self._reader.start_time), int(self._reader.end_time)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def topics(self) -> list[Topic]:
        """The topics that have messages, sorted by name."""
        counts: dict[str, Topic] = {}
        for c in self._connections:
            before = counts[c.topic].message_count if c.topic in counts else 0
            counts[c.topic] = Topic(c.topic, c.msgtype, before + c.msgcount, _is_latched(c))
        return [counts[name] for name in sorted(counts)]

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, Any]]:
        """(topic, type, log time in ns, message), in order of log time. `topics` None: all topics.

        A message that cannot be read is skipped and counted in `unreadable_counts`. The first one of each topic is
        logged as a warning. Raises `RecordingError` for a damaged bag.
        """
        for connection, stamp, data in self._raw_messages(topics):
            types = self._typestore_of(connection)
            if isinstance(types, str):
                self._count_unreadable(connection, types)
                continue
            try:
                read = types.deserialize_ros1 if self._is_ros1 else types.deserialize_cdr
                message: Any = read(data, connection.msgtype)
            except Exception as error:  # rosbags raises many kinds of error for data that do not match a definition
                self._count_unreadable(connection, error)
                continue
            yield connection.topic, connection.msgtype, stamp, message

    def first_messages(self, topic: str, count: int) -> list[Any]:
        """The first `count` messages of a topic. Those that cannot be read are left out, and are not counted."""
        found: list[Any] = []
        try:
            for connection, _, data in islice(self._raw_messages([topic]), count):
                types = self._typestore_of(connection)
                if not isinstance(types, str):
                    read = types.deserialize_ros1 if self._is_ros1 else types.deserialize_cdr
                    found.append(read(data, connection.msgtype))
        except Exception as error:  # as in `messages`; a read of the whole topic reports it
            LOG.debug("%s: its first messages cannot be read: %s", topic, error)
        return found

    def time_span(self, topic: str) -> tuple[int, int]:
        """Log times in ns of the first and the last message of a topic, found with few reads; (0, 0) without any."""

        def first_after(stamp: int) -> int | None:
            return next((found for _, found, _ in self._raw_messages([topic], stamp)), None)

        first = last = 0
        try:
            first = last = first_after(self.start) or 0
            end, tail = self.end + 1, self.end + 1 - SPAN_STEP
            while first and end - last > SPAN_STEP:  # the last message is not before `last`, and before `end`
                found = first_after(tail)
                last, end = (last, tail) if found is None else (found, end)
                tail = (last + end) // 2
            last = max((found for _, found, _ in self._raw_messages([topic], last)), default=last)
        except RecordingError as error:  # a read of the whole topic reports it
            LOG.debug("%s: its last message cannot be found: %s", topic, error)
        return first, last

    def cdr_messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """(topic, type, log time in ns, CDR bytes), in order of log time. `topics` None: all topics.

        ROS 1 messages are converted. Messages of older definitions of Sensebind are converted too: new fields are 0 or
        empty. Unreadable messages and damaged bags are handled as in `messages`.
        """
        for connection, stamp, data in self._raw_messages(topics):
            if not self._is_ros1 and not connection.msgtype.startswith("sensebind_msgs/"):
                yield connection.topic, connection.msgtype, stamp, bytes(data)
                continue
            types = self._typestore_of(connection)
            if isinstance(types, str):
                self._count_unreadable(connection, types)
                continue
            try:
                converted = (
                    _to_cdr(types, connection.msgtype, data) if self._is_ros1 else _migrated(types, connection, data)
                )
            except Exception as error:  # as in `messages`
                self._count_unreadable(connection, error)
                continue
            yield connection.topic, connection.msgtype, stamp, bytes(converted)

    def _raw_messages(
        self, topics: Sequence[str] | None, start: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        wanted = [c for c in self._connections if topics is None or c.topic in topics]
        if not wanted:  # for rosbags, an empty list means all connections
            return
        try:
            yield from self._reader.messages(connections=wanted, start=start)
        except Exception as error:  # as in `__init__`, for damage further inside the file
            raise RecordingError(f"'{self.path}' is damaged ({error}); messages before the damage were read") from error

    def _typestore_of(self, connection: Connection) -> Typestore | str:
        """The types that read the messages of a connection, or the reason why there are none.

        They come from the definition in the bag, or else from `typestore`. Each definition is parsed separately, when
        it is first needed, so a wrong definition does not affect other topics.
        """
        key = id(connection)
        if key not in self._typestores:
            try:
                self._typestores[key] = _load_typestore(connection)
            except Exception as error:  # rosbags' parsers raise many kinds
                self._typestores[key] = f"their definition cannot be parsed ({error})"
        return self._typestores[key]

    def _count_unreadable(self, connection: Connection, error: Exception | str) -> None:
        if connection.topic not in self.unreadable_counts:
            LOG.warning("%s: messages of type '%s' cannot be read: %s", connection.topic, connection.msgtype, error)
        self.unreadable_counts[connection.topic] = self.unreadable_counts.get(connection.topic, 0) + 1


def _find_bag_file(path: Path) -> Path:
    """The bag file in a folder that has exactly one and no metadata.yaml; otherwise the path itself."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        found = [file for file in path.iterdir() if file.suffix in (".mcap", ".db3", ".bag")]
        if len(found) == 1:
            return found[0]
    return path


def _load_typestore(connection: Connection) -> Typestore | str:
    kind, text = connection.msgdef.format, connection.msgdef.data
    if kind is MessageDefinitionFormat.NONE:
        known = connection.msgtype in typestore().types
        return typestore() if known else "the bag has no definition of it: record it as MCAP, which stores definitions"
    if kind is MessageDefinitionFormat.MSG:
        found = get_types_from_msg(text, connection.msgtype)
    else:  # several IDL files, each after a line of 80 "=" and a line with its name
        rule = "=" * 80 + "\n"
        parts = [part.split("\n", 1)[1] for part in text.split(rule)[1:]] if text.startswith(rule) else [text]
        found = {}
        for part in parts:
            found.update(get_types_from_idl(part))
    result = get_typestore(Stores.EMPTY)
    result.register(found)
    return result


def _to_cdr(types: Typestore, type_name: str, data: bytes) -> memoryview:
    """A ROS 1 message as CDR bytes of ROS 2: headers without `seq`; fields that are new in ROS 2 are 0 or empty."""
    if type_name not in typestore().types:
        return _without_seq(types).ros1_to_cdr(data, type_name)
    if is_same_wireformat(types, typestore(), type_name, type_name):
        return typestore().ros1_to_cdr(data, type_name)
    return migrate_bytes(types, typestore(), type_name, type_name, {}, data, src_is2=False, dst_is2=True)


def _migrated(types: Typestore, connection: Connection, data: bytes) -> bytes | memoryview:
    """A ROS 2 message, converted to the current definition of its type."""
    name = connection.msgtype
    if name not in typestore().types or types is typestore() or is_same_wireformat(types, typestore(), name, name):
        return data
    return migrate_bytes(types, typestore(), name, name, {}, data, src_is2=True, dst_is2=True)


@lru_cache(maxsize=256)
def _without_seq(types: Typestore) -> Typestore:
    own = {**types.fielddefs, HEADER_TYPE: typestore().fielddefs[HEADER_TYPE]}
    result = get_typestore(Stores.EMPTY)
    result.register({name: definition for name, definition in own.items() if name not in result.fielddefs})
    return result


def _is_latched(connection: Connection) -> bool:
    if not isinstance(connection.ext, ConnectionExtRosbag2):
        return bool(connection.ext.latching)
    return any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in connection.ext.offered_qos_profiles)


class RosbagsMessageFactory:
    """Makes messages of rosbags' classes: an implementation of `messages.Types`."""

    def make(self, name: str, /, **fields: Any) -> Any:
        return typestore().types[name](**fields)

    def float_array(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return np.asarray(values, np.float32)


def duration(path: str | Path) -> float:
    """Seconds from the first message of a recording to its last. Raises `RecordingError`."""
    with Recording(path) as recording:
        return (recording.end - recording.start) / SECOND


def require_writable_bag(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raises `RecordingError` if a bag may not be written to `folder`: it exists and `overwrite` is False, or it exists
    and is not a bag."""
    if not Path(folder).exists():
        return
    if not overwrite:
        raise RecordingError(f"'{folder}' exists already: name another folder, or use --overwrite")
    if not (Path(folder) / "metadata.yaml").is_file():
        raise RecordingError(f"'{folder}' is not a bag, so it is not overwritten: name another folder")


class BagWriter:
    """Writes a bag for `ros2 bag play` and Foxglove: a folder with an MCAP file that contains the message definitions.

    Use it as a context manager. `folder` appears at its end; after an error it does not. `overwrite`: an existing bag
    in `folder` is replaced. Raises the errors of `require_writable_bag`.
    """

    def __init__(self, folder: str | Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self.message_factory = RosbagsMessageFactory()
        require_writable_bag(folder, overwrite=overwrite)
        self._stack = ExitStack()
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        with ExitStack() as stack:
            stage = stack.enter_context(staged(self.folder.parent))
            self._writer = Writer(stage / self.folder.name, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.push(lambda *_: self._writer.close())
        self._stack.__exit__(kind, error, trace)

    def write(self, topic: str, type_name: str, stamp: int, message: Any, *, latched: bool = False) -> None:
        """Append a message that `message_factory` made, with the log time `stamp` (ns).

        `latched`: a player must keep the messages of this topic for late subscribers (transient local). The value of
        the topic's first message counts.
        """
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, typestore=typestore(), offered_qos_profiles=[LATCHED_QOS] if latched else []
            )
        self._writer.write(self._connections[topic], stamp, typestore().serialize_cdr(message, type_name))
