"""Reads a file into memory, if it is not larger than a limit."""

from __future__ import annotations

import codecs
from pathlib import Path

from sensebind.fusion.core.errors import SensebindError

# Of a text file. A parameter file has some KB; metadata.yaml of a recording has about 250 bytes for each of its files.
# PyYAML takes up to 2.5 s for a MB.
MAX_BYTES = 2 * 2**20


class DocumentError(SensebindError, ValueError):
    """A file that cannot be read or is not what it should be. The message names the file, the line and the remedy."""


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """The contents of a file, also of a pipe. Raises `DocumentError` if it is longer than `limit` bytes or cannot be
    read. A missing file is a `FileNotFoundError`, for a hint where it was looked for."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise DocumentError(f"'{path}' cannot be read: {reason}") from error
    if len(data) > limit:
        raise DocumentError(f"'{path}' is larger than {limit / 2**20:g} MB, the limit for such a file: is it another?")
    return data


def read_text(path: str | Path, limit: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises the errors of `read_bytes`."""
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DocumentError(f"'{path}' is UTF-16: save it as UTF-8") from error
        raise DocumentError(f"'{path}' is not text in UTF-8 ({error}): save it as UTF-8") from error
