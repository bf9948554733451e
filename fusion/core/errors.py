"""Errors that the user can correct: wrong parameters, files or data."""

from __future__ import annotations

import errno
import re
import traceback
from pathlib import Path

# Characters that a terminal obeys instead of showing them: control characters (newlines too), line and paragraph
# breaks, and marks that reverse the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, limit: int | None = None) -> str:
    """Text from outside for one line of a terminal or a log: control characters as escapes, such as \\n and \\x1b. What
    is longer than `limit` characters is cut, so that it cannot fill a log."""
    whole = str(text)
    shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), whole[:limit])
    return shown if limit is None or len(whole) <= limit else f"{shown}… ({len(whole)} characters)"


MAX_ERROR_LENGTH = 400  # characters of an unexpected error in the log


def error_text(error: BaseException) -> str:
    """An unexpected error in one line, with the place in the code."""
    places = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({place.filename.rpartition('/')[2]}:{place.lineno})" for place in places)
    return printable(f"{type(error).__name__}: {error}", MAX_ERROR_LENGTH) + where


class SensebindError(Exception):
    """Base class. The message names the topic, file or parameter and the remedy, so no traceback is needed. It may
    quote text from outside, so `str` makes it `printable`."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SensebindError, ValueError):
    """A parameter or a parameter file is wrong."""


class RecipeError(SensebindError, ValueError):
    """The preprocessing in the files of a model cannot be followed. The message names the setting."""


LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # the first bytes of the file that Git LFS has in its place


def placeholder_text(path: Path) -> str:
    """What a file without contents is, to follow its name in an error: empty, or a pointer of Git LFS. Empty for any
    other file. Raises `OSError`."""
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        return "is a Git LFS pointer, not the file itself: run `git lfs pull`"
    return "" if head else "is empty (0 bytes): copy or record it again"


def require_finite_file(path: str | Path) -> None:
    """Raises `OSError` for a pipe or a device: libraries that read files wait for a pipe, and signals do not end that;
    a device may have no end. Does nothing for a path where nothing is."""
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file: copy its content to a file")


def is_of_a_file(error: Exception) -> bool:
    """Whether an error is of a file that it names, as "[Errno 36] File name too long: 'x…'": then it is of the input,
    and needs no traceback."""
    return isinstance(error, OSError) and error.filename is not None
