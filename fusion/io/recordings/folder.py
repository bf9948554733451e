"""The files of a recording, and what metadata.yaml says about them."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from sensebind.fusion.core.documents import read_yaml
from sensebind.fusion.core.errors import placeholder_text
from sensebind.fusion.io.recordings import mcap_file, ros1_file, sqlite_file
from sensebind.fusion.io.recordings.bag_file import METADATA, BagFile, RecordingError, zstd_parts

MIN_FREE_BYTES = 2**30  # of the disk, which a decompressed copy leaves to other programs
COMPRESSED = (".zstd", ".zst")  # ends of the names of compressed files
# The name of a bag file. A part has a number at its end, perhaps after the time at which the recorder began this part.
FILE_NAME = re.compile(
    r"(?P<stem>.*?)(?:[_-]?\d{4}[-_]\d\d[-_]\d\d[-_]\d\d[-_]\d\d[-_]\d\d)?"
    r"(?:(?:[_.]|^|(?<=[A-Za-z]))(?P<number>\d+))?(?P<kind>\.mcap|\.db3|\.bag)(?:\.active)?(?:\.zstd|\.zst)?",
    re.IGNORECASE,
)
PACKED = {  # first bytes of packed files → the program that unpacks them
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x04\x22\x4d\x18": "lz4 -d",
    b"PK\x03\x04": "unzip",
}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FILE_CLASSES: Mapping[bytes, type[BagFile]] = {
    mcap_file.MAGIC: mcap_file.McapFile,
    sqlite_file.MAGIC: sqlite_file.SqliteFile,
    ros1_file.MAGIC: ros1_file.Ros1File,
}


@dataclass
class RecordingFiles:
    """The files of a recording in order, and what metadata.yaml says. `counts`: topic → its messages; empty if it is
    not known. `qos`: topic → its offered QoS, as written. `has_compressed_messages`: each message is compressed alone.
    `losses`: sentences about files that are not read; `notes`: other facts. `missing`: parts that metadata.yaml names
    and the folder lacks."""

    files: list[Path]
    counts: dict[str, int] = field(default_factory=dict)
    qos: dict[str, Any] = field(default_factory=dict)
    has_compressed_messages: bool = False
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def find_files(path: Path) -> RecordingFiles:
    """The files of the recording at `path`: a file or a folder. Raises `RecordingError`."""
    if path.name == METADATA and path.is_file():
        path = path.parent
    if not path.exists():
        raise RecordingError(f"there is no recording '{path}'")
    folder = path if path.is_dir() else path.parent
    try:
        described = _read_metadata(folder) if (folder / METADATA).is_file() else None
        losses: list[str] = []
    except (OSError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        described = None
        problem = " ".join(str(error).split()) or type(error).__name__
        losses = [f"'{folder / METADATA}' cannot be read ({problem}): `ros2 bag reindex` writes a new one"]
    if path.is_dir():
        found = _with_metadata(path, described) if described else _without_metadata(path, losses)
        found.losses += _logs_without_database(path)
        return found
    if described and path.name in {file.name for file in described.files}:
        alone = len(described.files) == 1
        return RecordingFiles(
            [path], described.counts if alone else {}, described.qos, described.has_compressed_messages
        )
    return RecordingFiles([path])


def _read_metadata(folder: Path) -> RecordingFiles:
    """What metadata.yaml says. Raises many kinds of errors if it is damaged."""
    information = read_yaml(folder / METADATA)["rosbag2_bagfile_information"]
    counts: Counter[str] = Counter()
    qos: dict[str, Any] = {}
    for entry in information["topics_with_message_count"]:
        topic = entry["topic_metadata"]
        counts[str(topic["name"])] += int(entry["message_count"])
        qos[str(topic["name"])] = topic.get("offered_qos_profiles")
    mode = str(information.get("compression_mode") or "").lower()
    return RecordingFiles(
        list(dict.fromkeys(folder / PurePath(str(name)).name for name in information["relative_file_paths"])),
        dict(counts),
        qos,
        mode == "message",
    )


def _with_metadata(folder: Path, described: RecordingFiles) -> RecordingFiles:
    described.files = [_existing(file) for file in described.files]
    if not described.files:
        raise RecordingError(f"'{folder / METADATA}' names no files: rename it to read the bag files beside it")
    named = {file.name for file in described.files}
    described.missing = [file.name for file in described.files if not file.exists()]
    if len(described.missing) == len(described.files):
        raise RecordingError(
            f"'{folder}' lacks {', '.join(described.missing)}, which {METADATA} names: copy the missing files too, or "
            f"rename {METADATA} to read other bag files beside it"
        )
    described.files = [file for file in described.files if file.exists()]
    others = [file.name for file in _bag_files(folder) if file.name not in named]
    if others:
        described.losses.append(f"{METADATA} of '{folder}' does not name {', '.join(others)} beside it: not read")
    return described


def _existing(file: Path) -> Path:
    """The file; or, if it is missing, its compressed or decompressed form: rosbag2 does not always name the first, and
    people make the second."""
    forms = [file, *(file.with_name(file.name + end) for end in COMPRESSED)]
    if file.suffix in COMPRESSED:
        forms.append(file.with_name(file.stem))
    return next((form for form in forms if form.exists()), file)


def _logs_without_database(folder: Path) -> list[str]:
    """A sentence about each write-ahead log whose database is missing."""
    logs = sorted(file for file in folder.iterdir() if file.name.endswith(f".db3{sqlite_file.LOG_END}"))
    return [
        f"'{log.name}' in '{folder}' holds messages of '{name}', which is missing: copy both files together"
        for log in logs
        if log.stat().st_size and not log.with_name(name := log.name.removesuffix(sqlite_file.LOG_END)).exists()
    ]


def _bag_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if FILE_NAME.fullmatch(file.name) and file.is_file())


def _without_metadata(folder: Path, losses: list[str]) -> RecordingFiles:
    """The only bag file of a folder, or its numbered parts. Raises `RecordingError`."""
    files = _bag_files(folder)
    if not files:
        raise RecordingError(
            f"the folder '{folder}' has no {METADATA} and no bag file (.mcap, .db3 or .bag): name the folder of a bag"
        )
    if len(files) == 1:
        return RecordingFiles(files, losses=losses)
    found = [(file, match) for file in files if (match := FILE_NAME.fullmatch(file.name)) is not None]
    parts = {int(match["number"]): file for file, match in found if match["number"]}
    names = {(match["stem"], match["kind"].lower()) for _, match in found}
    listed = ", ".join(file.name for file in files)
    if len(parts) < len(files) or len(names) > 1:
        raise RecordingError(
            f"the folder '{folder}' has no {METADATA} and several bags: {listed}; name one of them, or run "
            f"`ros2 bag reindex`, which writes {METADATA}"
        )
    numbers = sorted(parts)
    for before, after in pairwise(numbers):
        if after > before + 1:
            losses.append(f"'{folder}' lacks the parts between '{parts[before].name}' and '{parts[after].name}'")
    result = RecordingFiles([parts[number] for number in numbers], losses=losses)
    result.notes.append(f"'{folder}' has no {METADATA}: {listed} were read as the parts of one recording")
    return result


def open_file(path: Path, stack: ExitStack) -> BagFile:
    """Open one file by its contents, not by its name. `stack` deletes decompressed copies. Raises `RecordingError`."""
    # What a pipe holds can be read only once, and of a recording the end is read first.
    if path.exists() and not path.is_file():
        raise RecordingError(f"'{path.name}' is not a regular file: save the recording as a file")
    with path.open("rb") as file:
        head = file.read(16)
    damage: list[str] = []
    name = path.name
    if head.startswith(ZSTD_MAGIC):
        path, damage = _decompressed(path, stack)
        with path.open("rb") as file:
            head = file.read(16)
    log = path.with_name(path.name + sqlite_file.LOG_END)
    if not head and log.is_file() and log.stat().st_size:  # the recorder was killed before it wrote to the database
        head = sqlite_file.MAGIC
    for magic, file_class in FILE_CLASSES.items():
        if head.startswith(magic):
            opened = file_class(path)
            opened.damage[:0] = damage
            return opened
    if head.startswith(b"#ROSBAG"):
        raise RecordingError(f"'{name}' is a bag of an older format: convert it with `rosbag fix` or `rosbag reindex`")
    if cure := next((cure for magic, cure in PACKED.items() if head.startswith(magic)), ""):
        raise RecordingError(f"'{name}' is packed: unpack it first, with `{cure} {name}`")
    what = placeholder_text(path) or "does not begin as a recording: it is no MCAP, SQLite or ROS 1 bag file"
    raise RecordingError(f"'{name}' {what}")


def _decompressed(path: Path, stack: ExitStack) -> tuple[Path, list[str]]:
    """A decompressed copy in a temporary folder, up to the first damage, and the description of the damage."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="sensebind-")))
    result, damage = folder / path.stem, []
    try:
        with path.open("rb") as source, result.open("wb") as target:
            written, limit = 0, shutil.disk_usage(folder).free - MIN_FREE_BYTES
            try:
                for part in zstd_parts(source.read):
                    written += len(part)
                    if written > limit:
                        raise OSError(
                            f"its {path.stat().st_size:,} bytes have more than {max(limit, 0):,} decompressed bytes, "
                            f"which would leave less than {MIN_FREE_BYTES:,} bytes free"
                        )
                    target.write(part)
            except OSError:
                raise
            except Exception as error:  # each library raises errors of its own
                position, size = source.seek(0, os.SEEK_CUR), path.stat().st_size
                damage.append(f"'{path.name}' is damaged before byte {position} of {size} ({error})")
    except OSError as error:
        raise RecordingError(
            f"'{path.name}' cannot be decompressed to '{folder}' ({error}): set TMPDIR to a folder with more space, or "
            f"decompress it with `zstd -d`"
        ) from error
    return result, damage
