"""Writes files and folders so that they appear under their names only when they are complete.

After an error or Ctrl-C while they are written, the names have what they had before: nothing, or the earlier version.
A full disk is such an error. `require_apart` keeps a result from replacing the data that it is made from.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sensebind.fusion.core.errors import ConfigError, SensebindError, printable

STAGING_PREFIX = ".sensebind-part-"  # of the temporary folders; one remains only if the process was killed

# The device is full, over the user's quota or read-only, or a file is longer than the process may write. Only writing
# raises these errors.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class WriteError(SensebindError, OSError):
    """A file or folder cannot be written. The message names it, the reason and the remedy."""

    def __str__(self) -> str:
        if self.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free space, or name another folder"
        else:
            remedy = "correct its permissions, or name another"
        return printable(f"'{self.filename}' cannot be written: {self.strerror}; {remedy}")


@contextmanager
def staged(folder: str | Path, needed: int = 0) -> Iterator[Path]:
    """A context manager that yields a temporary folder inside `folder`. At the end of the block, its files and folders
    move to `folder` and replace those with the same names. After an error or Ctrl-C nothing moves.

    Creates `folder`, and removes it again after an error. `needed`: bytes that will be written, if that is known.
    Raises `WriteError` if the disk has less space, and if `folder` cannot be written, also in the block.
    """
    folder = Path(folder)
    require_space(folder, needed)
    created = _create(folder)
    try:
        try:
            stage = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
        except OSError as error:
            raise WriteError(error.errno, error.strerror, str(folder)) from error
        try:
            with _write_errors(stage, folder):
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
def _write_errors(stage: Path, folder: Path) -> Iterator[None]:
    """Convert errors of writing into `stage`, which name it or nothing, to errors that name the file in `folder`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        name = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
        if name and not Path(name).is_relative_to(stage):
            raise
        if name or error.errno in FULL:
            path = folder / Path(name).relative_to(stage) if name else folder
            raise WriteError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def staged_file(path: str | Path, needed: int = 0) -> Iterator[Path]:
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
    with staged(path.parent, needed) as stage:
        yield stage / path.name


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8. Raises `OSError` as `staged_file`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file. Raises `OSError` as `staged_file`."""
    with staged_file(path, len(data)) as part:
        part.write_bytes(data)


def require_writable(folder: str | Path) -> None:
    """Raises `WriteError` if no files can be written to `folder`: before long work, not after it. Leaves nothing."""
    with suppress(StopIteration), staged(folder):
        raise StopIteration  # ends the block as an error does, so that a new folder is removed


def require_space(folder: str | Path, needed: int) -> None:
    """Raises `WriteError` if the disk of `folder` has less than `needed` bytes free. It need not exist."""
    present = next((parent for parent in (Path(folder), *Path(folder).absolute().parents) if parent.is_dir()), None)
    free = shutil.disk_usage(present).free if needed and present else needed
    if free < needed:
        text = f"it needs {needed / 1e6:.0f} MB, and the disk has {free / 1e6:.0f} MB free"
        raise WriteError(errno.ENOSPC, text, str(folder))


def require_apart(output: str | Path, inputs: Iterable[str | Path | None]) -> None:
    """Raises `ConfigError` if `output`, a file or folder that will be replaced, is one of `inputs`, contains one, or is
    inside one. Links, relative paths and other spellings of a name are followed. Inputs that do not exist are ignored.
    """
    for given in inputs:
        if given is None or not os.path.exists(given):
            continue
        if _is_same(output, given):
            relation = "is"
        elif any(_is_same(output, parent) for parent in Path(os.path.realpath(given)).parents):
            relation = "contains"
        elif any(_is_same(parent, given) for parent in Path(os.path.realpath(output)).parents):
            relation = "is inside"
        else:
            continue
        raise ConfigError(f"the output '{output}' {relation} the input '{given}': name another place for the output")


def _is_same(one: str | Path, other: str | Path) -> bool:
    """Whether two paths are of one file or folder, also by hard links and on disks that ignore case."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:  # one does not exist
        return False


def _create(folder: Path) -> list[Path]:
    """Create a folder. Returns the folders that were missing, the innermost first."""
    missing = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        missing.append(parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        file = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        reason = error.strerror if file.is_dir() else f"'{file}' is a file, but must be a folder"
        raise WriteError(error.errno, reason, str(folder)) from error
    return missing


def _move_all(stage: Path, folder: Path) -> None:
    moves = [(new, folder / new.name) for new in sorted(stage.iterdir())]
    for new, old in moves:
        if old.is_dir() and not new.is_dir():
            raise _is_a_folder(old)
    for new, _ in moves:
        if new.is_file():
            _flush(new)
    replaced = Path(tempfile.mkdtemp(dir=stage))
    for new, old in moves:
        if old.is_dir():  # a folder with contents cannot be replaced in one step
            old.rename(replaced / new.name)
        new.replace(old)


def _flush(path: Path) -> None:
    """Write a file to the disk, so that a power failure after it was renamed leaves it whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


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
