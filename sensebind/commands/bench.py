"""`sensebind bench`: what things cost on this machine."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

BENCHES = {
    "line": "the line without a model: per message, and for five sensors",
    "stream": "robots with five sensors in real time and as fast as it goes, beside the plain way",
    "ros": "five sensors through DDS, each a process of its own: what arrives, how late, and what it costs",
    "events": "how long after something began the robot is told, live over DDS",
    "imagebind": "ImageBind at its full size, with synthetic weights: speed, precision, memory",
}


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("bench", help="what things cost on this machine", description=__doc__)
    parser.add_argument("bench", choices=BENCHES, help="; ".join(f"{name}: {text}" for name, text in BENCHES.items()))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the bench; --help tells them")


def run(args: argparse.Namespace) -> int:
    """Run one benchmark."""
    module = import_module(f"sensebind.fusion.benchmarks.{args.bench}")
    parser = argparse.ArgumentParser(prog=f"sensebind bench {args.bench}", description=BENCHES[args.bench])
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.options)))
