"""Truth files: the labelled events and the sensor faults of a recording, as tab-separated tables.

RECORDING.truth.tsv holds onset, offset and label (the format of the DCASE challenges); RECORDING.faults.tsv holds
onset, offset, sensor and fault. Files are UTF-8. Times are seconds from the start of the recording.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sensebind.fusion.core.errors import SensebindError

LabelSpan = tuple[float, float, str]  # onset in s, offset in s, label
FaultSpan = tuple[float, float, str, str]  # onset in s, offset in s, sensor, fault

TRUTH_COLUMNS = ("onset", "offset", "label")
FAULT_COLUMNS = ("onset", "offset", "sensor", "fault")
COLUMN_ALIASES = {  # column → the names under which public data sets have it
    "onset": ("onset", "event_onset", "start"),
    "offset": ("offset", "event_offset", "end"),
    "label": ("label", "event_label", "class"),
    "sensor": ("sensor", "modality"),
    "fault": ("fault", "cause"),
}


class TruthError(SensebindError):
    """A truth file that cannot be used; the message names the file, the line, and what is expected."""


def read_truth(path: str | Path) -> list[LabelSpan]:
    """The rows of a truth file, in the order of the file.

    The heading is optional. With a heading the columns may come in any order, and other columns (DCASE's `filename`)
    are ignored. Raises `TruthError` where the file cannot be read or a row is not valid.
    """
    return [(onset, offset, label) for onset, offset, (label,) in _read_table(Path(path), TRUTH_COLUMNS)]


def read_faults(path: str | Path) -> list[FaultSpan]:
    """As `read_truth`, for a file of sensor faults."""
    return [(onset, offset, sensor, fault) for onset, offset, (sensor, fault) in _read_table(Path(path), FAULT_COLUMNS)]


def write_truth(path: str | Path, rows: Iterable[LabelSpan]) -> None:
    """Write what `read_truth` reads: a heading, then the rows in the order given, times to the millisecond.

    Raises `TruthError` where the file cannot be written.
    """
    _write_table(Path(path), TRUTH_COLUMNS, rows)


def write_faults(path: str | Path, rows: Iterable[FaultSpan]) -> None:
    """As `write_truth`, for sensor faults: write what `read_faults` reads."""
    _write_table(Path(path), FAULT_COLUMNS, rows)


def find_truth_file(recording: str | Path, kind: str = "truth") -> Path | None:
    """The file RECORDING.<kind>.tsv, or the same without the suffix of RECORDING (``.mcap``); None where neither
    exists. `kind` is ``truth`` or ``faults``."""
    for stem in (Path(recording), Path(recording).with_suffix("")):
        file = Path(f"{stem}.{kind}.tsv")
        if file.is_file():
            return file
    return None


def require_truth_file(recording: str | Path, given: Path | None = None) -> Path:
    """`given`, or the truth file beside the recording. Raises `TruthError` where there is none."""
    file = given or find_truth_file(recording)
    if file is None:
        raise TruthError(f"'{recording}' has no truth beside it ('{recording}.truth.tsv'): name one with --truth")
    return file


def match_truth_files(recordings: Sequence[Path], given: Sequence[Path]) -> list[Path | None]:
    """The given truth file of each recording; None for each where none is given.

    Raises `TruthError` where the number of files is not the number of recordings.
    """
    if given and len(given) != len(recordings):
        raise TruthError(
            f"--truth names {len(given)} files for {len(recordings)} recordings: one for each, in their order"
        )
    return list(given) or [None] * len(recordings)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[LabelSpan | FaultSpan]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(columns)
            table.writerows((f"{row[0]:.3f}", f"{row[1]:.3f}", *row[2:]) for row in rows)
    except OSError as error:
        raise TruthError(f"truth file '{path}' cannot be written: {error.strerror or error}") from error


def _read_table(path: Path, wanted: Sequence[str]) -> list[tuple[float, float, list[str]]]:
    """(onset, offset, the other wanted columns) of each row. The offset follows the onset, and no cell is empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file, delimiter="\t", strict=True)  # an open quotation mark would swallow rows
            lines = [(n, row) for n, row in enumerate(table, 1) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TruthError(f"truth file '{path}' cannot be read: {error}") from error
    columns = list(range(len(wanted)))
    heading = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if set(heading) & set(COLUMN_ALIASES["onset"]) and not _is_number(heading[0]):  # a label may be called "start"
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
                f"'{path}', line {number}: expected {', '.join(wanted)} with tabs between, times in seconds"
            ) from error
        if not (math.isfinite(onset) and math.isfinite(offset) and onset < offset) or not all(row[2:]):
            raise TruthError(f"'{path}', line {number}: the offset must follow the onset, and nothing may be empty")
        rows.append((onset, offset, row[2:]))
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
