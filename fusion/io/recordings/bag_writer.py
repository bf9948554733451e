"""Writes MCAP bags with rosbags, without a ROS installation."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from sensebind.fusion.core.atomic import staged
from sensebind.fusion.core.documents import read_yaml
from sensebind.fusion.io.recordings.bag_file import METADATA, RecordingError
from sensebind.fusion.io.recordings.message_types import RosbagsMessageFactory, typestore

_INFINITE_DURATION = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE
# An entry of `custom_data` in metadata.yaml, by which a bag of this program is known.
WRITER_KEY, WRITER = "written_by", "sensebind"
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


def require_writable_bag(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raises `RecordingError` if a bag may not be written to `folder`: it exists and `overwrite` is False, or it exists
    and is not a bag that this program wrote, or it has files of others beside the bag."""
    folder = Path(folder)
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise RecordingError(f"'{folder}' exists already: name another folder, or use --overwrite")
    if not (folder / METADATA).is_file():
        raise RecordingError(f"'{folder}' is not a bag, so it is not overwritten: name another folder")
    own = _own_files(folder)
    if not own:
        raise RecordingError(
            f"'{folder}' is a bag that this version of Sensebind did not write, so it is not overwritten: name another "
            "folder, or delete it yourself"
        )
    if others := sorted(path.name for path in folder.iterdir() if path.name not in own):
        raise RecordingError(
            f"'{folder}' has files that are not of its bag ({', '.join(others[:3])}), so it is not overwritten: name "
            "another folder, or move them away"
        )


def _own_files(folder: Path) -> set[str]:
    """The names of the files of a bag that this program wrote. Empty: it is of another program, or damaged."""
    try:
        described = read_yaml(folder / METADATA)["rosbag2_bagfile_information"]
        if described["custom_data"][WRITER_KEY] != WRITER:
            return set()
        return {METADATA, *map(str, described["relative_file_paths"])}
    except (OSError, LookupError, TypeError, ValueError):
        return set()


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
            self._writer.set_custom_data(WRITER_KEY, WRITER)
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
