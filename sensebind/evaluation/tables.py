"""Reads the CSV tables that describe evaluation data, with errors that name the file, the line and the remedy."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

from sensebind.fusion.core.errors import SensebindError

MAX_BYTES = 256 * 2**20  # of a table, decompressed


class TableError(SensebindError):
    """A table cannot be read. The message names the file, the line and what is wrong."""


class Row(dict[str, str]):
    """A row of a table: column → text without spaces at its ends. `where` names the file and the line."""

    def __init__(self, cells: dict[str, str], where: str) -> None:
        super().__init__(cells)
        self.where = where

    def number(self, column: str) -> float:
        """The number in a column. Raises `TableError` if it is not a finite number."""
        try:
            value = float(self[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise TableError(f"{self.where}: column '{column}' must be a number, not '{self[column]}'")
        return value


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file (.gz: compressed) in UTF-8 whose first line names the columns. Empty lines are left out.

    Each row has all columns of the file, `columns` among them. Raises `TableError`.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as source:
            data = source.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TableError(f"'{path}' is larger than {MAX_BYTES / 2**20:g} MB: it is no table of an evaluation")
        with io.StringIO(data.decode("utf-8-sig"), newline="") as file:
            reader = csv.reader(file, strict=True)  # strict: an open quotation mark is an error
            lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except OSError as error:  # also of a damaged .gz
        raise TableError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise TableError(f"'{path}' is not a CSV table in UTF-8: {error}") from error
    heading = [cell.strip() for cell in lines[0][1]] if lines else []
    if missing := [column for column in columns if column not in heading]:
        found = f"its first line names {', '.join(heading)}" if heading else "it is empty"
        hint = "; separate columns by commas" if len(heading) == 1 and len(columns) > 1 else ""
        raise TableError(f"'{path}' has no column '{missing[0]}': {found}{hint}")
    rows = []
    for number, line in lines[1:]:
        if len(line) != len(heading):
            raise TableError(f"'{path}', line {number}: {len(line)} columns, but the first line has {len(heading)}")
        cells = {name: cell.strip() for name, cell in zip(heading, line, strict=True)}
        rows.append(Row(cells, f"'{path}', line {number}"))
    return rows
