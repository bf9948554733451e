"""Writes files and folders so that they appear under their names only when they are complete.

After an error or Ctrl-C while they are written, the names have what they had before: nothing, or the earlier version.
"""

from __future__ import annotations

import errno
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STAGING_PREFIX = ".sensebind-part-"  # of the temporary folders; one remains only if the process was killed


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """A context manager that yields a temporary folder inside `folder`. At the end of the block, its files and folders
    move to `folder` and replace those with the same names. After an error or Ctrl-C nothing moves.

    Creates `folder`, and removes it again after an error. Raises `OSError`, which names `folder`, if it cannot be
    written.
    """
    folder = Path(folder)
    created = _create(folder)
    try:
        try:
            stage = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        try:
            yield stage
            with _without_interruption():
                _move_all(stage, folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except BaseException:
        for parent in created:
            with suppress(OSError):  # another program has written to it
                parent.rmdir()
        raise


@contextmanager
def staged_file(path: str | Path) -> Iterator[Path]:
    """A context manager that yields a path to write to. At the end of the block, the file there moves to `path`.

    If `path` is a link, its target is written. A device, such as /dev/null, is written directly. Raises `OSError` as
    `staged`, and `IsADirectoryError` if `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise _is_a_folder(path)
    if path.exists() and not path.is_file():
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    with staged(path.parent) as stage:
        yield stage / path.name


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8. Raises `OSError` as `staged_file`."""
    with staged_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file. Raises `OSError` as `staged_file`."""
    with staged_file(path) as part:
        part.write_bytes(data)


def _create(folder: Path) -> list[Path]:
    """Create a folder. Returns the folders that were missing, the innermost first."""
    missing = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        missing.append(parent)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _move_all(stage: Path, folder: Path) -> None:
    moves = [(new, folder / new.name) for new in sorted(stage.iterdir())]
    for new, old in moves:
        if old.is_dir() and not new.is_dir():
            raise _is_a_folder(old)
    replaced = Path(tempfile.mkdtemp(dir=stage))
    for new, old in moves:
        if old.is_dir():  # a folder with contents cannot be replaced in one step
            old.rename(replaced / new.name)
        new.replace(old)


def _is_a_folder(path: Path) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, "Is a directory, but must be a file: give another name", str(path))


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Let Ctrl-C wait until the files have moved: they belong together."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield
        return
    waiting: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if waiting:
            raise KeyboardInterrupt
