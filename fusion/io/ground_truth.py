"""Reads and writes truth files: the labelled events and the sensor faults of a recording, as tab-separated tables.

RECORDING.truth.tsv holds onset, offset and label (the format of the DCASE challenges); RECORDING.faults.tsv holds
onset, offset, sensor and fault. Files are UTF-8. Times are seconds from the start of the recording.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from sensebind.fusion.core.atomic import staged_file
from sensebind.fusion.core.documents import DocumentError, read_text
from sensebind.fusion.core.errors import SensebindError, printable

LabelSpan = tuple[float, float, str]  # onset in s, offset in s, label
FaultSpan = tuple[float, float, str, str]  # onset in s, offset in s, sensor, fault

MAX_BYTES = 64 * 2**20  # of a file: a million rows
MAX_TIME = 1e9  # s, 30 years
MAX_LABEL = 1000  # characters
TRUTH_COLUMNS = ("onset", "offset", "label")
FAULT_COLUMNS = ("onset", "offset", "sensor", "fault")
COLUMN_ALIASES = {  # column → its names in public data sets
    "onset": ("onset", "event_onset", "start"),
    "offset": ("offset", "event_offset", "end"),
    "label": ("label", "event_label", "class"),
    "sensor": ("sensor", "modality"),
    "fault": ("fault", "cause"),
}


class TruthError(SensebindError):
    """A truth file cannot be used. The message names the file, the line and the expected content."""


def read_truth(path: str | Path, prompts: Iterable[str] = ()) -> list[LabelSpan]:
    """The rows of a truth file, in the order of the file.

    The heading is optional. With a heading the columns may come in any order, and other columns (DCASE's `filename`)
    are ignored. `prompts` are labels of prompts: a row whose label is one of them except for case, spaces and `_` gets
    the label of the prompt. Raises `TruthError` if the file cannot be read or a row is not valid.
    """
    rows = [(onset, offset, label) for onset, offset, (label,) in _read_table(Path(path), TRUTH_COLUMNS)]
    known = list(prompts)
    by_key = {_label_key(label): label for label in reversed(known)}
    return [
        (onset, offset, label if label in known else by_key.get(_label_key(label), label))
        for onset, offset, label in rows
    ]


def _label_key(label: str) -> str:
    """A label without case, spaces and `_`: 'Glass breaking' and 'glass_breaking' are equal."""
    return "".join(label.casefold().replace("_", " ").split())


def read_faults(path: str | Path) -> list[FaultSpan]:
    """The rows of a file of sensor faults, as in `read_truth`."""
    return [(onset, offset, sensor, fault) for onset, offset, (sensor, fault) in _read_table(Path(path), FAULT_COLUMNS)]


def write_truth(path: str | Path, rows: Iterable[LabelSpan]) -> None:
    """Write a truth file: a heading, then the rows in the given order, with times to the millisecond.

    Raises `TruthError` if the file cannot be written.
    """
    _write_table(Path(path), TRUTH_COLUMNS, rows)


def write_faults(path: str | Path, rows: Iterable[FaultSpan]) -> None:
    """Write a file of sensor faults, as in `write_truth`."""
    _write_table(Path(path), FAULT_COLUMNS, rows)


def find_truth_file(recording: str | Path, kind: str = "truth") -> Path | None:
    """The file RECORDING.<kind>.tsv, with or without the suffix of RECORDING (``.mcap``); None if neither exists.

    `kind` is ``truth`` or ``faults``.
    """
    path = Path(recording)
    if path.name in ("", ".."):  # a folder that is not named, as in `sensebind replay .`
        path = path.resolve()
    for stem in (path, path.with_suffix("")) if path.name else ():
        file = Path(f"{stem}.{kind}.tsv")
        if file.is_file():
            return file
    return None


def require_truth_file(recording: str | Path, given: Path | None = None) -> Path:
    """`given`, or else the truth file beside the recording. Raises `TruthError` if there is none."""
    file = given or find_truth_file(recording)
    if file is None:
        raise TruthError(f"'{recording}' has no truth file '{recording}.truth.tsv': name one with --truth")
    return file


def match_truth_files(recordings: Sequence[Path], given: Sequence[Path]) -> list[Path | None]:
    """The given truth file of each recording; None for every recording if no file is given.

    Raises `TruthError` if the numbers of files and recordings differ.
    """
    if given and len(given) != len(recordings):
        raise TruthError(
            f"--truth names {len(given)} files for {len(recordings)} recordings: give one for each, in the same order"
        )
    return list(given) or [None] * len(recordings)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[LabelSpan | FaultSpan]) -> None:
    try:
        with staged_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(columns)
            table.writerows((f"{row[0]:.3f}", f"{row[1]:.3f}", *row[2:]) for row in rows)
    except OSError as error:
        raise TruthError(f"truth file '{path}' cannot be written: {error.strerror or error}") from error


def _read_table(path: Path, wanted: Sequence[str]) -> list[tuple[float, float, list[str]]]:
    """(onset in s, offset in s, the other wanted columns) of each row. Raises `TruthError`."""
    try:
        with io.StringIO(read_text(path, MAX_BYTES), newline="") as file:
            table = csv.reader(file, delimiter="\t", strict=True)  # strict: an open quotation mark is an error
            lines = [(n, row) for n, row in enumerate(table, 1) if any(map(str.strip, row))]
    except DocumentError as error:
        raise TruthError(f"truth file {error}") from error
    except (OSError, csv.Error) as error:
        raise TruthError(f"truth file '{path}' cannot be read: {error}") from error
    columns = list(range(len(wanted)))
    heading = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if set(heading) & set(COLUMN_ALIASES["onset"]) and not _is_number(heading[0]):  # a label may be "start"
        found = [next((heading.index(name) for name in COLUMN_ALIASES[w] if name in heading), -1) for w in wanted]
        if -1 in found:
            raise TruthError(f"'{path}' has no column '{wanted[found.index(-1)]}': it needs {', '.join(wanted)}")
        columns, lines = found, lines[1:]
    rows = []
    for number, cells in lines:
        try:
            row = [cells[column].strip() for column in columns]
            onset, offset = float(row[0]), float(row[1])
        except (ValueError, IndexError) as error:
            raise TruthError(
                f"'{path}', line {number}: expected {', '.join(wanted)}, separated by tabs, times in seconds"
            ) from error
        if not (abs(onset) <= MAX_TIME and abs(offset) <= MAX_TIME):
            raise TruthError(f"'{path}', line {number}: times are seconds from the start of the recording")
        if any(printable(cell) != cell or len(cell) > MAX_LABEL for cell in row[2:]):
            raise TruthError(
                f"'{path}', line {number}: a label must have at most {MAX_LABEL} characters and no control characters"
            )
        if not onset < offset or not all(row[2:]):
            raise TruthError(f"'{path}', line {number}: the offset must be later than the onset, and no cell empty")
        rows.append((onset, offset, row[2:]))
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
