"""Reads the SQLite files of rosbag2 (.db3): also with a write-ahead log beside them, and cut off.

rosbags reads them as they were when the database was last closed in order: without what lies in a write-ahead log.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from sensebind.fusion.io.recordings.bag_file import (
    DEFINITION_FORMATS,
    BagFile,
    Channel,
    RawMessage,
    RecordingError,
    readable_text,
)
from sensebind.fusion.io.recordings.qos import is_latched

MAGIC = b"SQLite format 3\0"
LOG_END = "-wal"  # of the name of a write-ahead log
LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)


class SqliteFile(BagFile):
    """An SQLite file of rosbag2. Raises `RecordingError` if nothing of it can be read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._log = path.with_name(path.name + LOG_END)
        self._has_log = self._log.is_file() and self._log.stat().st_size > 0
        self._shared_memory = path.with_name(path.name + "-shm")
        self._had_shared_memory = self._shared_memory.exists()
        self._rows: list[tuple[int, int, int]] | None = None  # (stamp, id, topic) of the readable rows, if it is cut
        self._connection = self._open()
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def messages(self, channels: Sequence[Channel], start: int, stop: int) -> Iterator[RawMessage]:
        wanted = {channel.id: channel for channel in channels}
        stamp, number = start - 1, 2**63 - 1  # of the newest message that was read
        if self._rows is None:
            try:
                for row in self._select(list(wanted), start, stop):
                    number, topic, stamp, data = row
                    yield stamp, wanted[topic], data
                return
            except _DATABASE_ERRORS as error:
                self._find_rows(error)
        last, lost = (stamp, number), 0
        for stamp, number, topic in self._rows or ():
            if topic not in wanted or (stamp, number) <= last or stamp >= stop:
                continue
            try:
                found = self._connection.execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone()
            except _DATABASE_ERRORS:
                found = None
            if found is None:
                lost += 1
            else:
                yield stamp, wanted[topic], found[0]
        if lost:
            self._add_damage(f"'{self.path.name}': the data of {lost} messages before the damage cannot be read")

    def close(self) -> None:
        self._connection.close()
        if self._has_log and not self._had_shared_memory:  # reading the log made it
            with suppress(OSError):
                self._shared_memory.unlink()

    def _open(self) -> sqlite3.Connection:
        """Open the database for reading: with its log if there is one, else without any other file."""
        journal = self.path.with_name(self.path.name + "-journal")
        if journal.is_file() and journal.stat().st_size:
            self.notes.append(
                f"'{journal.name}' lies beside '{self.path.name}': its recorder was killed while it wrote, and the "
                f"last messages may be damaged; `sqlite3 {self.path.name} .tables` repairs a copy of both files"
            )
        uri = f"{self.path.resolve().as_uri()}?{'mode=ro' if self._has_log else 'immutable=1'}"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            if self._missing_bytes():  # SQLite refuses a file that is too short unless the schema may be repaired
                connection.execute("PRAGMA writable_schema = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except _DATABASE_ERRORS as error:
            connection.close()
            if self._has_log:
                raise RecordingError(
                    f"'{self._log.name}' lies beside '{self.path.name}' and holds its newest messages, but cannot be "
                    f"read ({error}): copy both files to a folder that you may write to, and open the copy"
                ) from error
            raise RecordingError(f"'{self.path.name}' cannot be read as a database ({error})") from error
        if self._has_log:
            self._describe_log()
        return connection

    def _describe_log(self) -> None:
        """Describe the log, whose valid part SQLite reads: a log with another head is ignored without an error."""
        with self._log.open("rb") as file:
            magic = file.read(4)
        if magic not in LOG_MAGIC:
            self._add_damage(f"'{self._log.name}' beside '{self.path.name}' is damaged: its messages are not read")
            return
        self.notes.append(
            f"the newest messages of '{self.path.name}' were read from '{self._log.name}' beside it: its recorder was "
            "killed; copy both files together"
        )

    def _describe(self) -> None:
        """Find the topics, the counts of their messages and the time range. Raises `RecordingError`."""
        try:
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if not {"messages", "topics"} <= tables:
                raise RecordingError(f"'{self.path.name}' is a database, but not of rosbag2: it lacks its tables")
            columns = [row[1] for row in self._connection.execute("PRAGMA table_info(topics)")]
            qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
            select = f"SELECT id, name, type, serialization_format, {qos} FROM topics"
            topics = self._connection.execute(select).fetchall()
            definitions = self._definitions() if "message_definitions" in tables else {}
        except _DATABASE_ERRORS as error:
            raise RecordingError(f"the list of topics of '{self.path.name}' is damaged ({error})") from error
        counts: Mapping[int, int] = {}
        try:
            if self._missing_bytes():
                raise sqlite3.DatabaseError("the file is shorter than the database")
            found = self._connection.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id").fetchall()
            first, last = self._connection.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
            counts, self.start, self.end = dict(found), first or 0, last or 0
        except _DATABASE_ERRORS as error:
            counts = self._find_rows(error)
        none = MessageDefinition(MessageDefinitionFormat.NONE, "")
        self.channels = [
            Channel(
                number, topic, normalize_msgtype(kind), encoding, definitions.get(kind, none), counts.get(number, 0),
                is_latched(profiles),
            )
            for number, topic, kind, encoding, profiles in topics
        ]  # fmt: skip

    def _definitions(self) -> dict[str, MessageDefinition]:
        select = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        return {
            name: MessageDefinition(DEFINITION_FORMATS[encoding], text)
            for name, encoding, text in self._connection.execute(select)
            if encoding in DEFINITION_FORMATS and text
        }

    def _select(self, topics: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Rows (id, topic, stamp, data) in order of stamp."""
        marks = ",".join("?" * len(topics))
        return iter(
            self._connection.execute(
                f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) AND timestamp >= ? "
                "AND timestamp < ? ORDER BY timestamp, id",
                (*topics, max(start, -(2**63)), min(stop, 2**63 - 1)),
            )
        )

    def _missing_bytes(self) -> int:
        """How many bytes the file is shorter than its header says; 0 with a log, which holds the other pages."""
        with self.path.open("rb") as file:
            header = file.read(100)
        pages = int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0
        size = int.from_bytes(header[16:18], "big")
        expected = pages * (65536 if size == 1 else size)
        return 0 if self._has_log else max(0, expected - self.path.stat().st_size)

    def _find_rows(self, error: Exception) -> Mapping[int, int]:
        """Find the rows before the damage, in the order in which they were written, and describe it. Topic → count."""
        rows = []
        with suppress(*_DATABASE_ERRORS):
            for row in self._connection.execute("SELECT timestamp, id, topic_id FROM messages ORDER BY id"):
                if not all(isinstance(value, int) for value in row):  # the part of a page that is left reads as NULL
                    break
                rows.append(row)
        self._rows = sorted(rows)
        self.start, self.end = (self._rows[0][0], self._rows[-1][0]) if rows else (0, 0)
        missing = self._missing_bytes()
        size = self.path.stat().st_size
        where = f"is cut off: it has {size} of {size + missing} bytes" if missing else f"is damaged ({error})"
        self._add_damage(
            f"'{self.path.name}' {where}; {readable_text(len(rows), self.start, self.end)}; "
            f"`sqlite3 {self.path.name} .recover` may find more"
        )
        return Counter(topic for _, _, topic in rows)
