"""Bags in, bags out: MCAP, SQLite and ROS 1, read and written by rosbags, without a ROS installation."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
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

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, THERMAL, VISION

LOG = logging.getLogger("sensebind")

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
AUDIO_TYPES = (
    "audio_common_msgs/msg/AudioDataStamped",
    "audio_common_msgs/msg/AudioStamped",
    "foxglove_msgs/msg/RawAudio",
    "audio_common_msgs/msg/AudioData",
)
HEADER_TYPE = "std_msgs/msg/Header"
IMU_TYPES = ("sensor_msgs/msg/Imu",)
TOPIC_NAME_PATTERNS = {  # what in a topic's name, in lower case, tells what an image shows
    DEPTH: re.compile("depth|disparity"),
    THERMAL: re.compile("thermal|lwir|infra|flir|(?<![a-z])ir(?![a-z])"),
}
PREFERRED_CAMERA_NAMES = ("color", "colour", "rgb", "left", "cam0", "front", "image")  # of several cameras

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
    """A bag that cannot be read or written; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of a recording. `latched`: its publishers kept messages for late subscribers (transient local)."""

    name: str
    type: str
    message_count: int
    latched: bool = False


@dataclass(frozen=True, slots=True)
class TopicChoice:
    """A topic that was chosen for a sense, and why."""

    topic: str
    reason: str


@cache
def typestore() -> Typestore:
    """Message types of ROS 2, of this package, and of the microphones that it knows."""
    result = get_typestore(Stores.ROS2_JAZZY)
    interfaces = files("sensebind") / "interfaces"
    found: dict[str, Any] = {}
    for package in ("sensebind_msgs", "audio_common_msgs", "foxglove_msgs"):
        for file in sorted((interfaces / package / "msg").iterdir(), key=lambda f: f.name):
            if file.name.endswith(".msg"):
                name = f"{package}/msg/{file.name.removesuffix('.msg')}"
                found.update(get_types_from_msg(file.read_text(encoding="utf-8"), name))
    result.register(found)
    return result


class Recording:
    """A bag: a folder with metadata.yaml or a single file, an .mcap or .db3 file, or a ROS 1 .bag. Use it in a `with`.

    Raises `RecordingError` where it is not there, damaged or empty of messages.
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
                "or let `ros2 bag reindex` write one"
            )
        self._is_ros1 = file.suffix == ".bag"
        self._typestores: dict[int, Typestore | str] = {}  # by id of a connection; or why there is none
        try:
            self._reader = Reader1(file) if self._is_ros1 else Reader2(file)
            self._reader.open()
        except Exception as error:  # a damaged file can raise anything from struct.error to sqlite3's own
            raise RecordingError(
                f"'{path}' is no recording that can be read ({error}); mend it with `ros2 bag reindex` (db3), "
                "`mcap recover` (MCAP) or `rosbag reindex` (ROS 1)"
            ) from error
        self._connections = [c for c in self._reader.connections if c.msgcount]
        if not self._connections:
            self._reader.close()
            raise RecordingError(f"'{path}' holds no message")
        self.start, self.end = int(self._reader.start_time), int(self._reader.end_time)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def topics(self) -> list[Topic]:
        """Those that hold messages, by name."""
        counts: dict[str, Topic] = {}
        for c in self._connections:
            before = counts[c.topic].message_count if c.topic in counts else 0
            counts[c.topic] = Topic(c.topic, c.msgtype, before + c.msgcount, _is_latched(c))
        return [counts[name] for name in sorted(counts)]

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, Any]]:
        """(topic, type, log time in ns, message), in order of log time; of all topics where None.

        A message that cannot be read is passed over, counted in `unreadable_counts`, and warned of once a topic.
        """
        for connection, stamp, data in self._raw_messages(topics):
            types = self._typestore_of(connection)
            if isinstance(types, str):
                self._count_unreadable(connection, types)
                continue
            try:
                read = types.deserialize_ros1 if self._is_ros1 else types.deserialize_cdr
                message: Any = read(data, connection.msgtype)
            except Exception as error:  # whatever a definition or bytes that do not fit it bring about
                self._count_unreadable(connection, error)
                continue
            yield connection.topic, connection.msgtype, stamp, message

    def cdr_messages(self, topics: Sequence[str] | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """(topic, type, log time in ns, CDR bytes), in order of log time.

        ROS 1 messages are converted, and messages of Sensebind whose definition has changed since: new fields are 0 or
        empty.
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
            except Exception as error:  # as above
                self._count_unreadable(connection, error)
                continue
            yield connection.topic, connection.msgtype, stamp, bytes(converted)

    def _raw_messages(self, topics: Sequence[str] | None) -> Iterator[tuple[Connection, int, bytes]]:
        wanted = [c for c in self._connections if topics is None or c.topic in topics]
        if not wanted:  # rosbags would take an empty list for all
            return
        try:
            yield from self._reader.messages(connections=wanted)
        except Exception as error:  # as above: damage further in
            raise RecordingError(f"'{self.path}' is damaged ({error}); what came before it was read") from error

    def _typestore_of(self, connection: Connection) -> Typestore | str:
        """What reads its messages: the definition in the bag, else ours; or why there is none.

        Each definition is parsed by itself and when it is first needed: one that nobody can read, and there are
        some in the field, does no harm to other topics.
        """
        key = id(connection)
        if key not in self._typestores:
            try:
                self._typestores[key] = _load_typestore(connection)
            except Exception as error:  # rosbags' parsers raise many kinds
                self._typestores[key] = f"its definition is not understood ({error})"
        return self._typestores[key]

    def _count_unreadable(self, connection: Connection, error: Exception | str) -> None:
        if connection.topic not in self.unreadable_counts:
            LOG.warning("%s: messages of type '%s' cannot be read: %s", connection.topic, connection.msgtype, error)
        self.unreadable_counts[connection.topic] = self.unreadable_counts.get(connection.topic, 0) + 1


def _find_bag_file(path: Path) -> Path:
    """The one bag file in a folder that has lost its metadata.yaml; else the path itself."""
    if path.is_dir() and not (path / "metadata.yaml").exists():
        found = [file for file in path.iterdir() if file.suffix in (".mcap", ".db3", ".bag")]
        if len(found) == 1:
            return found[0]
    return path


def _load_typestore(connection: Connection) -> Typestore | str:
    kind, text = connection.msgdef.format, connection.msgdef.data
    if kind is MessageDefinitionFormat.NONE:
        known = connection.msgtype in typestore().types
        return typestore() if known else "the bag does not define it: record it as MCAP, which does"
    if kind is MessageDefinitionFormat.MSG:
        found = get_types_from_msg(text, connection.msgtype)
    else:  # several files in one, each under a heading of its own
        rule = "=" * 80 + "\n"
        parts = [part.split("\n", 1)[1] for part in text.split(rule)[1:]] if text.startswith(rule) else [text]
        found = {}
        for part in parts:
            found.update(get_types_from_idl(part))
    result = get_typestore(Stores.EMPTY)
    result.register(found)
    return result


def _to_cdr(types: Typestore, type_name: str, data: bytes) -> memoryview:
    """A ROS 1 message as ROS 2 has it: headers lose `seq`, and types that changed since get their new fields."""
    if type_name not in typestore().types:
        return _without_seq(types).ros1_to_cdr(data, type_name)
    if is_same_wireformat(types, typestore(), type_name, type_name):
        return typestore().ros1_to_cdr(data, type_name)
    return migrate_bytes(types, typestore(), type_name, type_name, {}, data, src_is2=False, dst_is2=True)


def _migrated(types: Typestore, connection: Connection, data: bytes) -> bytes | memoryview:
    """A ROS 2 message, as today's definition of its type has it."""
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


def select_sensor_topics(recording: Recording) -> dict[str, TopicChoice]:
    """The topic of each sense, by type first and name second; senses that have none are left out."""
    topics = recording.topics
    images = [t for t in topics if t.type in IMAGE_TYPES]
    kinds: dict[str, list[Topic]] = {VISION: [], DEPTH: [], THERMAL: []}
    for topic in images:
        lower = topic.name.lower()
        kind = next((m for m, name in TOPIC_NAME_PATTERNS.items() if name.search(lower)), VISION)
        kinds[kind].append(topic)
    kinds[AUDIO] = [t for t in topics if t.type in AUDIO_TYPES]
    kinds[IMU] = [t for t in topics if t.type in IMU_TYPES]
    return {modality: _select_topic(modality, found) for modality, found in kinds.items() if found}


def _select_topic(modality: str, topics: Sequence[Topic]) -> TopicChoice:
    if len(topics) == 1:
        return TopicChoice(topics[0].name, f"the only {topics[0].type} for {modality}")

    def rank(topic: Topic) -> tuple[int, int, int, str]:
        lower = topic.name.lower()
        if modality == VISION:
            order = next(
                (i for i, part in enumerate(PREFERRED_CAMERA_NAMES) if part in lower), len(PREFERRED_CAMERA_NAMES)
            )
        else:
            order = AUDIO_TYPES.index(topic.type) if modality == AUDIO else 0  # stamped ones first
        return order, int(topic.type == IMAGE_TYPES[1]), -topic.message_count, topic.name

    best = min(topics, key=rank)
    # The first thing that sets it apart from the next best.
    ours, theirs = rank(best), min(rank(t) for t in topics if t is not best)
    if ours[0] != theirs[0]:
        why = (
            f"named like the one to take ('{PREFERRED_CAMERA_NAMES[ours[0]]}')"
            if modality == VISION
            else f"a {best.type}"
        )
    else:
        why = next(
            (
                why
                for why, a, b in zip(("not compressed", "with most messages"), ours[1:3], theirs[1:3], strict=True)
                if a != b
            ),
            "first by name",
        )
    return TopicChoice(best.name, f"of {len(topics)} for {modality}, {why}; name another with {modality}.topic")


class RosbagsMessageFactory:
    """`messages.Types` for rosbags."""

    def make(self, name: str, /, **fields: Any) -> Any:
        return typestore().types[name](**fields)

    def float_array(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return np.asarray(values, np.float32)


class BagWriter:
    """Writes an MCAP bag that `ros2 bag play` and Foxglove take: a folder, definitions inside. Use it in a `with`.

    Raises `RecordingError` where the folder is there already, unless `overwrite` and it is a bag.
    """

    def __init__(self, folder: str | Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self.message_factory = RosbagsMessageFactory()
        if self.folder.exists():
            if not overwrite:
                raise RecordingError(f"'{folder}' is there already: name another, or say --overwrite")
            if not (self.folder / "metadata.yaml").is_file():
                raise RecordingError(f"'{folder}' is no bag, so it is not overwritten: name another folder")
            shutil.rmtree(self.folder)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(self.folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, topic: str, type_name: str, stamp: int, message: Any, *, latched: bool = False) -> None:
        """Append a message that `message_factory` made, logged at `stamp` (ns).

        `latched`: whoever plays the bag is to keep it for late subscribers (transient local). It is the first message
        of a topic that decides.
        """
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, typestore=typestore(), offered_qos_profiles=[LATCHED_QOS] if latched else []
            )
        self._writer.write(self._connections[topic], stamp, typestore().serialize_cdr(message, type_name))
