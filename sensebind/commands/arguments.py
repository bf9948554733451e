"""Arguments that several subcommands have."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config: a Path, or None for the file that ships."""
    parser.add_argument("--config", type=Path, metavar="F", help="ROS parameter file (default: config/starter.yaml)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device: a string that takes precedence over the parameter file's, or None."""
    parser.add_argument("--device", help="cpu, cuda or auto, whatever the file says")


def add_out(parser: argparse.ArgumentParser) -> None:
    """--out: the folder to write to, a Path."""
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="folder (default: %(default)s)")


def add_spokes(parser: argparse.ArgumentParser) -> None:
    """--spoke, which may be given again: `args.spoke` is a list of strings."""
    parser.add_argument("--spoke", action="append", default=[], metavar="F", help="file made by sensebind align")
