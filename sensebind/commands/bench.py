"""`sensebind bench`: what things cost on this machine."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

BENCHMARKS = {
    "line": "the line without a model: per message, and for five sensors",
    "model": "each encoder by batch size, beside the plain way and the device's own speed",
    "stream": "robots with five sensors in real time: latency, jitter, the most that the device carries",
    "windows": "what a window of each sense costs on a CPU, piece by piece, in processor time",
    "ros": "five sensors through DDS, each a process of its own: what arrives, how late, and what it costs",
    "start": "time and memory of a new process until its first vector",
    "overload": "several times what the device carries: latency stays bounded, drops are counted",
    "soak": "one robot for a long time: memory, threads and open files, and by how much they grow",
    "events": "how long after something began the robot is told, live over DDS",
    "imagebind": "ImageBind at its full size, with synthetic weights: speed, precision, memory",
    "gpu": "check and measure a GPU in seven minutes: correct vectors, speed, latency, number of robots",
    "all": "all benchmarks, the most useful first, within a budget of time, into one file",
}


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("bench", help="what things cost on this machine", description=__doc__)
    parser.add_argument(
        "bench", choices=BENCHMARKS, help="; ".join(f"{name}: {text}" for name, text in BENCHMARKS.items())
    )
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the benchmark; --help lists them")


def run(args: argparse.Namespace) -> int:
    """Run one benchmark."""
    module = import_module(f"sensebind.benchmarks.{args.bench}")
    parser = argparse.ArgumentParser(prog=f"sensebind bench {args.bench}", description=BENCHMARKS[args.bench])
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.options)))
