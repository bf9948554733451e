"""Errors that the user can correct: wrong parameters, files or data."""

from pathlib import Path


class SensebindError(Exception):
    """Base class. The message names the topic, file or parameter and the remedy, so no traceback is needed."""


class ConfigError(SensebindError, ValueError):
    """A parameter or a parameter file is invalid."""


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
