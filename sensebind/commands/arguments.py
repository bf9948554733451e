"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from sensebind.fusion.core.errors import ConfigError


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


def add_spokes(parser: argparse.ArgumentParser) -> None:
    """--spoke, repeatable: `args.spoke` is a list of strings."""
    parser.add_argument("--spoke", action="append", default=[], metavar="F", help="spoke file; repeatable")


def require_file_name(path: Path | None, option: str, example: str) -> None:
    """Raises `ConfigError` if `path`, which `option` names, is a folder: before long work, not after it. `example`: a
    file name in that folder."""
    if path is not None and path.is_dir():
        raise ConfigError(f"{option} '{path}' is a folder: name a file, for example {path / example}")
