"""`sensebind bench soak`: memory, threads and open files of a long run, and their growth."""

from __future__ import annotations

import argparse
from typing import Any

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness import command_line, sensor_load
from sensebind.benchmarks.realtime.run import realtime_summary, run_realtime
from sensebind.benchmarks.stream import RealtimeBenchmark


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="length of the run in minutes (default: %(default)s)"
    )
    parser.add_argument("--robots", type=int, default=1, help="number of robots (default: %(default)s)")
    command_line.add_hop(parser, 0.5)
    parser.set_defaults(lead_in=5.0)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report("soak", measure, args)


def measure(args: argparse.Namespace, bench: RealtimeBenchmark | None = None) -> dict[str, Any]:
    """Run robots in real time. `held`: the resources without the first fifth of the run; see `ResourceSampler`."""
    spaces.resolve_defaults(args)
    bench = bench or RealtimeBenchmark.load(args)
    pipelines = [bench.pipeline() for _ in range(args.robots)]
    seconds = 60 * args.minutes
    seen = run_realtime(
        pipelines,
        sensor_load.sensors(),
        seconds,
        lead_in=5.0,
        device=args.device,
        period=min(5.0, max(0.2, seconds / 360)),
    )
    return {
        "space": bench.space.id,
        "weights": spaces.weights_description(bench.space),
        "p99_ms_first_half": seen.first_half,
        **realtime_summary(seen, pipelines),
    }
