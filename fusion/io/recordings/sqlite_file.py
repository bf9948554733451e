"""Reads the SQLite files of rosbag2 (.db3): also with a write-ahead log beside them, and cut off.

rosbags reads them as they were when the database was last closed in order: without what lies in a write-ahead log.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys.msg import normalize_msgtype

from sensebind.fusion.io.recordings.bag_file import (
    CDR,
    DEFINITION_FORMATS,
    MAX_DECOMPRESSED_BYTES,
    MAX_SET_BACKS,
    MIN_SET_BACK,
    BagFile,
    Channel,
    RawMessage,
    RecordingError,
    SetBackSearch,
    readable_text,
)
from sensebind.fusion.io.recordings.qos import is_latched

MAGIC = b"SQLite format 3\0"
LOG_END = "-wal"  # of the name of a write-ahead log
LIMIT_LENGTH = 0  # SQLite's number of the limit for the bytes of a value
LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
# A damaged database can have the same page in many places, and rows without end. A row takes some ten operations, and
# has over five bytes.
OPERATIONS_PER_BYTE, MIN_OPERATIONS, CHECKED_OPERATIONS = 100, 10**7, 10**6


class SqliteFile(BagFile):
    """An SQLite file of rosbag2. Raises `RecordingError` if nothing of it can be read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._log = path.with_name(path.name + LOG_END)
        self._has_log = self._log.is_file() and self._log.stat().st_size > 0
        self._shared_memory = path.with_name(path.name + "-shm")
        self._had_shared_memory = self._shared_memory.exists()
        self._cuts: list[int] | None = None  # ids before which the clock of the recorder was set back; None: not known
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
                for first, after in pairwise([-(2**63), *self._set_backs(), 2**63 - 1]):
                    for row in self._select(list(wanted), start, stop, first, after):
                        number, topic, stamp, data = row
                        if isinstance(stamp, int) and isinstance(data, bytes):  # else the row is damaged
                            yield stamp, wanted[topic], data
                return
            except _DATABASE_ERRORS as error:
                self._find_rows(error)
        last, lost = (stamp, number), 0
        for stamp, number, topic in self._rows or ():
            if topic not in wanted or (stamp, number) <= last or stamp >= stop:
                continue
            try:
                found = self._execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone()
            except _DATABASE_ERRORS:
                found = None
            if found is None or not isinstance(found[0], bytes):
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
        if hasattr(connection, "setlimit"):  # Python 3.11
            connection.setlimit(LIMIT_LENGTH, MAX_DECOMPRESSED_BYTES)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
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

    def _execute(self, statement: str, values: Sequence[int] = ()) -> sqlite3.Cursor:
        """A statement that ends with an `sqlite3.Error` if it takes more operations than a database of this size has
        work for."""
        log = self._log.stat().st_size if self._has_log else 0
        most = MIN_OPERATIONS + OPERATIONS_PER_BYTE * (self.path.stat().st_size + log)
        left = iter(range(most // CHECKED_OPERATIONS))
        self._connection.set_progress_handler(lambda: next(left, None) is None, CHECKED_OPERATIONS)
        return self._connection.execute(statement, values)

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
            tables = {name for (name,) in self._execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if not {"messages", "topics"} <= tables:
                raise RecordingError(f"'{self.path.name}' is a database, but not of rosbag2: it lacks its tables")
            if any(row[-1] for name in ("messages", "topics") for row in self._execute(f"PRAGMA table_xinfo({name})")):
                raise RecordingError(f"'{self.path.name}' calculates its messages or topics: no recorder writes that")
            columns = [row[1] for row in self._execute("PRAGMA table_info(topics)")]
            qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
            select = f"SELECT id, name, type, serialization_format, {qos} FROM topics"
            rows = self._execute(select).fetchall()
            definitions = self._definitions() if "message_definitions" in tables else {}
        except _DATABASE_ERRORS as error:
            raise RecordingError(f"the list of topics of '{self.path.name}' is damaged ({error})") from error
        topics = [row for row in rows if all(isinstance(value, str) for value in row[1:4])]
        if len(topics) < len(rows):
            self._add_damage(f"'{self.path.name}': {len(rows) - len(topics)} entries of its list of topics are no text")
        counts: Mapping[int, int] = {}
        try:
            if self._missing_bytes():
                raise sqlite3.DatabaseError("the file is shorter than the database")
            found = self._execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id").fetchall()
            span = "SELECT min(timestamp), max(timestamp) FROM messages"
            first, last = self._execute(span).fetchone()
            if not (isinstance(first, int) and isinstance(last, int)):  # a damaged row has the first or the last time
                first, last = self._execute(f"{span} WHERE typeof(timestamp) = 'integer'").fetchone()
            counts, self.start, self.end = dict(found), first or 0, last or 0
        except _DATABASE_ERRORS as error:
            counts = self._find_rows(error)
        self._add_unknown(counts, {number for number, *_ in topics})
        none = MessageDefinition(MessageDefinitionFormat.NONE, "")
        self.channels = [
            Channel(
                number, topic, normalize_msgtype(kind), encoding.lower() or CDR, definitions.get(kind, none),
                counts.get(number, 0), is_latched(profiles),
            )
            for number, topic, kind, encoding, profiles in topics
        ]  # fmt: skip

    def _definitions(self) -> dict[str, MessageDefinition]:
        select = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        return {
            name: MessageDefinition(DEFINITION_FORMATS[encoding], text)
            for name, encoding, text in self._execute(select)
            if encoding in DEFINITION_FORMATS and text and isinstance(text, str)
        }

    def _set_backs(self) -> list[int]:
        """The ids of the first rows after the clock of the recorder was set back. Raises `sqlite3.Error`."""
        if self._cuts is None:
            self._cuts, search = [], SetBackSearch()
            select = "SELECT id, topic_id, timestamp FROM messages WHERE typeof(timestamp) = 'integer' ORDER BY id"
            smallest = (
                "SELECT min(step) FROM (SELECT timestamp - lag(timestamp) OVER (ORDER BY id) AS step FROM messages)"
            )
            if (self._execute(smallest).fetchone()[0] or 0) < -MIN_SET_BACK:
                rows = self._execute(select)
                cuts = [number for number, topic, stamp in rows if search.is_set_back(topic, stamp)]
                self._cuts = cuts if len(cuts) <= MAX_SET_BACKS else []
        return self._cuts

    def _select(
        self, topics: Sequence[int], start: int, stop: int, first: int, after: int
    ) -> Iterator[tuple[int, int, int, bytes]]:
        """Rows (id, topic, stamp, data) in order of stamp, of those with `first` <= id < `after`."""
        marks, is_part = ",".join("?" * len(topics)), bool(self._cuts)
        return iter(
            self._execute(
                f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) AND timestamp >= ? "
                f"AND timestamp < ? {'AND id >= ? AND id < ? ' if is_part else ''}ORDER BY timestamp, id",
                (*topics, max(start, -(2**63)), min(stop, 2**63 - 1), *((first, after) if is_part else ())),
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
            for row in self._execute("SELECT timestamp, id, topic_id FROM messages ORDER BY id"):
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
