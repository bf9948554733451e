"""`sensebind bench overload`: several times the load that the device can process.

It checks that latency stays bounded and that all drops are counted, and it records memory.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness import command_line, sensor_load
from sensebind.benchmarks.realtime.run import realtime_summary, run_realtime
from sensebind.benchmarks.stream import RealtimeBenchmark, replay_seconds
from sensebind.fusion.inference.batch_runner import TIME_SLICE_S
from sensebind.fusion.stream.accounting.identity import sensor_accounts, unaccounted_by_line

MIN_HOP = 0.02  # s; more load needs more robots


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument(
        "--times", type=float, default=3.0, help="load as a multiple of the maximum load (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the run in s (default: %(default)s)")
    parser.set_defaults(hop=0.2, lead_in=0.0)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Exit status 1 if anything is unaccounted for or latency exceeds its bound."""
    return command_line.run_and_report("overload", measure, args, passed=lambda result: bool(result["held_bounds"]))


def measure(args: argparse.Namespace, bench: RealtimeBenchmark | None = None) -> dict[str, Any]:
    """Measure the windows per second of a replay of five sensors, then run at `args.times` that load in real time."""
    spaces.resolve_defaults(args)
    bench = bench or RealtimeBenchmark.load(args)
    load = planned_load(bench, args.times)
    pipelines = [bench.pipeline(load.values) for _ in range(load.robots)]
    seen = run_realtime(
        pipelines, sensor_load.sensors(), args.seconds, device=args.device, period=max(0.2, args.seconds / 600)
    )
    result = realtime_summary(seen, pipelines)
    p99 = {m: q["p99"] for m, q in result["latency_ms"].items()}
    deadline = load.values["deadline"]
    sensors = [s for p in pipelines for m, s in p.statistics().items() if m in bench.embedded]
    unaccounted = unaccounted_by_line(line for s in sensors for line in sensor_accounts(s))
    # A window waits at most until its deadline, then for its own turn and the turns of the other modalities.
    bound = 1e3 * (deadline + 2 * TIME_SLICE_S * len(sensor_load.MESSAGE_RATES))
    return {
        "space": bench.space.id,
        "weights": spaces.weights_description(bench.space),
        **load.figures(),
        "p99_ms_first_half": seen.first_half,
        "p99_ms": p99,
        "bound_ms": bound,
        "unaccounted_by_kind": unaccounted,
        "unaccounted": sum(unaccounted.values()),
        "held_bounds": not any(unaccounted.values()) and all(value <= bound for value in p99.values()),
        **result,
    }


@dataclass(frozen=True, slots=True)
class Load:
    """Robots that need `offered` windows per second, of a device that embeds `carried`. `values`: their parameters."""

    carried: float
    robots: int
    hop: float  # s
    values: Mapping[str, Any]

    @property
    def offered(self) -> float:
        """Windows per second of all robots."""
        return len(sensor_load.MESSAGE_RATES) * self.robots / self.hop

    def of_one_robot(self) -> Load:
        """The same windows per second from one robot, or as many as the shortest hop of an embedder allows."""
        modality_count = len(sensor_load.MESSAGE_RATES)
        return replace(self, robots=1, hop=max(MIN_HOP, round(modality_count / self.offered, 4)))

    def figures(self) -> dict[str, float]:
        """For a report."""
        return {
            "carried_windows_per_s": round(self.carried, 1),
            "offered_windows_per_s": round(self.offered, 1),
            "hop_s": self.hop,
        }


def planned_load(bench: RealtimeBenchmark, times: float) -> Load:
    """The robots and hops that need `times` the windows per second that the device embeds in a replay, which is
    measured first. There is one robot if its hop is then at least `MIN_HOP`."""
    carried = windows_per_second(bench)
    wanted = times * carried
    modality_count = len(sensor_load.MESSAGE_RATES)
    robots = max(1, math.ceil(wanted * MIN_HOP / modality_count))
    hop = max(MIN_HOP, round(modality_count * robots / wanted, 4))
    return Load(carried, robots, hop, {**bench.values, **{f"{m}.hop": hop for m in sensor_load.MESSAGE_RATES}})


def windows_per_second(bench: RealtimeBenchmark) -> float:
    """Windows per second that the device embeds in a replay, without real time."""
    pipeline = bench.pipeline()
    seconds = replay_seconds(pipeline, 4.0, 40)
    return sum(s.counts["embedded"] for s in pipeline.statistics().values()) / seconds
