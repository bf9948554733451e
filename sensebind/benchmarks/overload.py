"""`sensebind bench overload`: several times what the device carries. Latency stays bounded, drops are counted, memory
does not grow."""

from __future__ import annotations

import argparse
import math
from typing import Any

from sensebind.benchmarks.harness import command_line, sensor_load, spaces
from sensebind.benchmarks.stream import RealtimeBenchmark, realtime_summary, replay_seconds, run_realtime
from sensebind.fusion.inference.engine import TIME_SLICE_S

MIN_HOP = 0.02  # s: for more load than this gives, more robots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument("--times", type=float, default=3.0, help="what the device carries (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="(default: %(default)s)")
    parser.set_defaults(hop=0.2, lead_in=0.0)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 where a window vanished or latency went beyond its bound."""
    return command_line.run_and_report("overload", measure, args, passed=lambda result: bool(result["held_bounds"]))


def measure(args: argparse.Namespace, bench: RealtimeBenchmark | None = None) -> dict[str, Any]:
    """What the device carries is measured first: windows a second of a replay of five sensors."""
    spaces.resolve_defaults(args)
    bench = bench or RealtimeBenchmark.load(args)
    carried = windows_per_second(bench)
    wanted = args.times * carried
    senses = len(sensor_load.MESSAGE_RATES)
    robots = max(1, math.ceil(wanted * MIN_HOP / senses))
    hop = max(MIN_HOP, round(senses * robots / wanted, 4))
    values = {**bench.values, **{f"{m}.hop": hop for m in sensor_load.MESSAGE_RATES}}
    pipelines = [bench.pipeline(values) for _ in range(robots)]
    seen = run_realtime(
        pipelines, sensor_load.sensors(), args.seconds, device=args.device, period=max(0.2, args.seconds / 600)
    )
    result = realtime_summary(seen, pipelines)
    p99 = {m: q["p99"] for m, q in result["latency_ms"].items()}
    deadline = values["deadline"]
    unaccounted = sum(
        s.counts["windows"] - s.counts["embedded"] - sum(s.dropped().values())
        for p in pipelines
        for m, s in p.statistics().items()
        if m in bench.embedded
    )
    # A window waits no longer than its deadline, and then for its turn and those of the other senses.
    bound = 1e3 * (deadline + 2 * TIME_SLICE_S * senses)
    return {
        "space": bench.space.id,
        "weights": spaces.weights_description(bench.space),
        "carried_windows_per_s": round(carried, 1),
        "offered_windows_per_s": round(senses * robots / hop, 1),
        "hop_s": hop,
        "p99_ms_first_half": seen.first_half,
        "p99_ms": p99,
        "bound_ms": bound,
        "unaccounted": unaccounted,
        "held_bounds": unaccounted == 0 and all(value <= bound for value in p99.values()),
        **result,
    }


def windows_per_second(bench: RealtimeBenchmark) -> float:
    """Windows a second that the device embeds when they wait for it."""
    pipeline = bench.pipeline()
    seconds = replay_seconds(pipeline, 4.0, 40)
    return sum(s.counts["embedded"] for s in pipeline.statistics().values()) / seconds
