"""`sensebind bench`: time and memory on this computer."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

BENCHMARKS = {
    "pipeline": "processor time of the pipeline without a model: per message, for five sensors, and of video",
    "model": "each encoder by batch size, compared with eager PyTorch and with the speed of a matrix product",
    "stream": "robots with five sensors in real time: latency, jitter, the maximum load of the device",
    "windows": "processor time of a window of each modality on a CPU, step by step",
    "recordings": "messages per second that are read from bags, compared with rosbags alone",
    "ros": "five sensors over DDS, each a separate process: received messages, latency, processor time",
    "start": "time and memory of a new process until its first vector",
    "overload": "several times the maximum load: latency stays bounded, drops are counted",
    "soak": "a long run at twice the maximum load with random faults: growth of memory, recovery, accounting",
    "events": "delay from the onset of an event to its report, live over DDS",
    "imagebind": "ImageBind at full size, by default with random weights: speed, precision, memory",
    "gpu": "check and measure a GPU in at most seven minutes: correct vectors, speed, latency, number of robots",
    "all": "all benchmarks, the most useful first, within a time budget; writes one file",
}
# Benchmark → module in `sensebind.benchmarks`, if the names differ.
MODULES = {"pipeline": "pipeline_cost", "recordings": "recordings.reading", "soak": "soak.run"}


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="measure time and memory on this computer",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    names = "\n".join(f"{name:10} {text}" for name, text in BENCHMARKS.items())
    parser.add_argument("bench", choices=BENCHMARKS, help=names)
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="options of the benchmark; `sensebind bench NAME --help` lists them"
    )


def run(args: argparse.Namespace) -> int:
    """Run one benchmark."""
    module = import_module(f"sensebind.benchmarks.{MODULES.get(args.bench, args.bench)}")
    parser = argparse.ArgumentParser(prog=f"sensebind bench {args.bench}", description=BENCHMARKS[args.bench])
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.options)))
