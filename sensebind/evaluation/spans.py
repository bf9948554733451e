"""What was there, or was told, and when; and the tab-separated files that hold it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.errors import SensebindError

Array = npt.NDArray[np.float64]
NAMES = {  # columns of a truth file, and what else they are called in the field
    "onset": ("onset", "event_onset", "start"),
    "offset": ("offset", "event_offset", "end"),
    "label": ("label", "event_label", "class"),
    "sensor": ("sensor", "modality"),
    "fault": ("fault", "cause"),
}


class TruthError(SensebindError):
    """A truth file that cannot be used; the message names the file, the line, and what is expected."""


@dataclass(frozen=True)
class Spans:
    """N things with a beginning, an end and a label. `onsets` and `offsets` are float64 (N,), seconds from the start
    of the recording; `labels` are N strings. Sorted by onset, then offset and label.

    Raises `ValueError` where the three are not of one length, or something does not end after it began.
    """

    onsets: Array
    offsets: Array
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.onsets.shape == self.offsets.shape == (len(self.labels),):
            raise ValueError(f"{self.onsets.shape} onsets, {self.offsets.shape} offsets, {len(self.labels)} labels")
        if not (self.offsets > self.onsets).all():
            raise ValueError("every offset must follow its onset")

    @classmethod
    def of(cls, rows: Iterable[tuple[float, float, str]]) -> Spans:
        """From (onset, offset, label), in any order."""
        ordered = sorted(rows)
        return cls(
            np.array([row[0] for row in ordered], np.float64),
            np.array([row[1] for row in ordered], np.float64),
            tuple(row[2] for row in ordered),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self) -> list[tuple[float, float, str]]:
        """As (onset, offset, label)."""
        return list(zip(self.onsets.tolist(), self.offsets.tolist(), self.labels, strict=True))

    def at(self, indices: Sequence[int]) -> Spans:
        """Those at these places."""
        return Spans.of([self.rows()[i] for i in indices])

    def only(self, *labels: str) -> Spans:
        """Those of these labels."""
        return self.at([i for i, label in enumerate(self.labels) if label in labels])


@dataclass(frozen=True)
class Faults:
    """N failures of a sensor: `spans.labels` name the sensors, `causes` how they failed, N strings."""

    spans: Spans
    causes: tuple[str, ...]


def read_truth(path: str | Path) -> Spans:
    """A truth file in DCASE's form: UTF-8, tab-separated onset and offset in seconds and a label, with or without a
    heading. With a heading the columns may come in any order and others (DCASE's `filename`) are passed over.

    Raises `TruthError`.
    """
    return Spans.of((float(r[0]), float(r[1]), r[2]) for r in _rows(Path(path), ("onset", "offset", "label")))


def read_faults(path: str | Path) -> Faults:
    """As `read_truth`, of columns onset, offset, sensor, fault. Raises `TruthError`."""
    rows = sorted(_rows(Path(path), ("onset", "offset", "sensor", "fault")), key=lambda r: (float(r[0]), float(r[1])))
    spans = Spans(
        np.array([float(r[0]) for r in rows]), np.array([float(r[1]) for r in rows]), tuple(r[2] for r in rows)
    )
    return Faults(spans, tuple(r[3] for r in rows))


def write_truth(path: str | Path, spans: Spans) -> None:
    """Write what `read_truth` reads, with a heading and milliseconds. Raises `TruthError` where it cannot."""
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(("onset", "offset", "label"))
            table.writerows((f"{onset:.3f}", f"{offset:.3f}", label) for onset, offset, label in spans.rows())
    except OSError as error:
        raise TruthError(f"truth file '{path}' cannot be written: {error.strerror or error}") from error


def _rows(path: Path, wanted: tuple[str, ...]) -> list[list[str]]:
    """The wanted columns of each line, checked: two times, the second after the first, then words."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(n, row) for n, row in enumerate(csv.reader(file, delimiter="\t"), 1) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TruthError(f"truth file '{path}' cannot be read: {error}") from error
    columns = list(range(len(wanted)))
    if lines and (heading := [cell.strip().lower() for cell in lines[0][1]]) and set(heading) & set(NAMES["onset"]):
        found = [next((heading.index(name) for name in NAMES[w] if name in heading), -1) for w in wanted]
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
        if not (np.isfinite(onset) and np.isfinite(offset) and onset < offset) or not all(row[2:]):
            raise TruthError(f"'{path}', line {number}: the offset must follow the onset, and nothing may be empty")
        rows.append(row)
    return rows
