"""`sensebind bench soak`: one robot for a long time. Memory, threads and open files, and by how much they grow."""

from __future__ import annotations

import argparse
from typing import Any

from sensebind.benchmarks.harness import robot, shell, spaces
from sensebind.benchmarks.stream import Bench, live, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=30.0, help="(default: %(default)s)")
    parser.add_argument("--robots", type=int, default=1, help="(default: %(default)s)")
    shell.add_hop(parser, 0.5)
    parser.set_defaults(lead_in=5.0)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return shell.run("soak", measure, args)


def measure(args: argparse.Namespace, bench: Bench | None = None) -> dict[str, Any]:
    """`held` tells first, last, largest and growth an hour of each, after the first fifth of the time."""
    spaces.settle(args)
    bench = bench or Bench.of(args)
    pipelines = [bench.pipeline() for _ in range(args.robots)]
    seconds = 60 * args.minutes
    seen = live(
        pipelines, robot.sensors(), seconds, lead_in=5.0, device=args.device, period=min(5.0, max(0.2, seconds / 360))
    )
    return {
        "space": bench.space.id,
        "weights": spaces.weights_of(bench.space),
        "p99_ms_first_half": seen.first_half,
        **summary(seen, pipelines),
    }
