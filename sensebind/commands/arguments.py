"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.fusion.core import atomic
from sensebind.fusion.core.errors import ConfigError

if TYPE_CHECKING:
    from sensebind.fusion.io.recordings import Selection


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config: a Path; None for the shipped file."""
    parser.add_argument(
        "--config", type=Path, metavar="F", help="ROS parameter file (default: the package's config/starter.yaml)"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device: a string that overrides the parameter file; None to use the file's."""
    parser.add_argument("--device", help="cpu, cuda or auto (default: from the parameter file)")


def add_out(parser: argparse.ArgumentParser) -> None:
    """--out: a Path, the folder to write to."""
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="output folder (default: %(default)s)"
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """--start, --duration and --topics: `selection_of` makes a `Selection` of them."""
    parser.add_argument(
        "--start", type=_seconds, default=0.0, metavar="S", help="skip the first S seconds (default: 0)"
    )
    parser.add_argument(
        "--duration", type=_seconds, metavar="S", help="read S seconds of the recording (default: to the end)"
    )
    parser.add_argument(
        "--topics", nargs="+", default=[], metavar="TOPIC", help="read only these topics (default: all)"
    )


def selection_of(args: argparse.Namespace) -> Selection:
    """The part of the recording that the arguments of `add_selection` select."""
    from sensebind.fusion.io.recordings import Selection

    return Selection(args.start, args.duration, tuple(args.topics))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds: use 0 or more")
    return value


def seed_number(text: str) -> int:
    """A random seed, of a size that all generators take. The `type` of an argument."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text[:40]} is no random seed: use 0 to 4294967295")
    return value


def add_spokes(parser: argparse.ArgumentParser) -> None:
    """--spoke, repeatable: `args.spoke` is a list of strings."""
    parser.add_argument("--spoke", action="append", default=[], metavar="F", help="spoke file; repeatable")


def require_apart(outputs: Iterable[Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Raises `ConfigError` if a command would write to what it reads: `core.atomic.require_apart` for each output.
    None: an argument that was not given."""
    given = list(inputs)
    for output in outputs:
        if output is not None:
            atomic.require_apart(output, given)


def require_writable(*folders: Path) -> None:
    """Raises `WriteError` if a folder cannot be written: before long work, not after it."""
    for folder in folders:
        atomic.require_writable(folder)


def require_file_name(path: Path | None, option: str, example: str) -> None:
    """Raises `ConfigError` if `path`, which `option` names, is a folder: before long work, not after it. `example`: a
    file name in that folder."""
    if path is not None and path.is_dir():
        raise ConfigError(f"{option} '{path}' is a folder: name a file, for example {path / example}")
