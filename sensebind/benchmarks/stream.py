"""`sensebind bench stream`: robots with five sensors each, in real time, through one engine.

The latency of a window begins when the sample that closes it is due, and ends with the call that publishes its vector.
So it includes the delay of a sample that this machine delivers late. The figures are of the same kinds as
ros2_benchmark's: latency and jitter at fixed rates, missed windows, processor and GPU use, the largest rate with at
most 5 % missed windows, and a hash of the input.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness import command_line, environment, sensor_load
from sensebind.benchmarks.harness.parts import Report
from sensebind.benchmarks.realtime.run import realtime_summary, run_realtime
from sensebind.benchmarks.realtime.workers import StreamWorkers
from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import embedder_values
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.threads import set_switch_interval
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner
from sensebind.fusion.inference.engine import EmbeddingJob, Engine
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Pipeline

P99_BOUND_MS = 50.0  # ms; maximum p99 of the latency in the search for the largest number of robots
MAX_MISSED_SHARE = 0.05  # fraction of windows that may be missed at the peak rate
RATE_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # factors of the sensors' rates, tried in this order
MAX_ROBOTS = 512  # the largest number that is tried
MIN_RUN_OVERHEAD = 3.0  # s; a run is expected to take at least this time beyond its length


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument("--robots", type=int, default=1, help="number of robots (default: %(default)s)")
    command_line.add_hop(parser)
    parser.add_argument(
        "--every-frame", action="store_true", help="embed each image; audio, IMU and thermal windows at 10 Hz"
    )
    text = f"find the largest number of robots with a p99 of at most {P99_BOUND_MS:g} ms and no missed window"
    parser.add_argument("--find", action="store_true", help=text)
    text = f"find the highest image rate of one robot with at most {100 * MAX_MISSED_SHARE:g} %% missed windows"
    parser.add_argument("--peak", action="store_true", help=text)
    text = "do not compare the speed of a replay with plain PyTorch (float32, one window at a time)"
    parser.add_argument("--no-plain", action="store_true", help=text)
    parser.add_argument("--batch-size", type=int, default=0, help="batch size of the engine (default: 16, on a GPU 32)")
    text = "time in s at the start whose latencies are not counted (default: %(default)s)"
    parser.add_argument("--lead-in", type=float, default=1.0, help=text)
    text = "processes that deliver and prepare the data of the robots, as `workers` of the embedder (default: none)"
    parser.add_argument("--workers", type=int, default=0, help=text)
    text = "replace the encoders by a device that answers at once, to measure the host alone; needs --workers"
    parser.add_argument("--instant-device", action="store_true", help=text)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each run in s (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report("stream", measure, args)


def measure(args: argparse.Namespace, report: Report = lambda result: None) -> dict[str, Any]:
    """Run the measurements that the options name; `report` receives the figures so far after each. Raises
    `ConfigError`."""
    if args.instant_device and not args.workers:
        raise ConfigError("--instant-device needs --workers")
    spaces.resolve_defaults(args)
    bench = RealtimeBenchmark.load(args)
    result: dict[str, Any] = {
        **bench.conditions(),
        "embedded": ", ".join(bench.embedded),
        "threads": torch.get_num_threads(),
        "fixed_rate": bench.measure_robots(args.robots, args.seconds),
    }
    report(result)
    if args.find:
        result["most_robots"] = bench.find_max_robots(args.seconds)
        report(result)
    if args.peak:
        result["peak"] = bench.find_peak_rate(args.seconds)
        report(result)
    if bench.workers is not None:
        bench.workers.close()
    elif not args.no_plain:
        result |= bench.replays(args)
    return result


@dataclass
class RealtimeBenchmark:
    """A space with its engine, and the parameters of the robots."""

    space: Space
    engine: Engine
    values: Mapping[str, Any]
    device: str
    lead_in: float = 1.0
    warm_up_seconds: float = 0.0  # s that the warm-up took
    workers: StreamWorkers | None = None  # None: the robots run in this process
    embedded: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, args: argparse.Namespace, space: Space | None = None) -> RealtimeBenchmark:
        """Load the space, and run its encoders at every batch size."""
        set_switch_interval()  # as in the embedder
        modalities = tuple(sensor_load.MESSAGE_RATES)
        hops = (
            sensor_load.EVERY_FRAME_HOPS if getattr(args, "every_frame", False) else dict.fromkeys(modalities, args.hop)
        )
        batch_size = getattr(args, "batch_size", 0) or (32 if args.device.startswith("cuda") else 16)
        given = {"modalities": modalities, "batch_size": batch_size, **{f"{m}.hop": hop for m, hop in hops.items()}}
        values = embedder_values(given)
        space = space or spaces.load(args)
        engine = Engine(space, batch_size)
        embedded = [m for m in modalities if m in space.modalities]
        bench = cls(space, engine, values, args.device, getattr(args, "lead_in", 1.0), embedded=embedded)
        began = time.perf_counter()
        pipeline = bench.pipeline()
        some = sensor_load.windows({m: pipeline.specs[m] for m in embedded}, 1)
        engine.warm_up([w for windows in some.values() for w in windows])
        bench.warm_up_seconds = time.perf_counter() - began
        if count := getattr(args, "workers", 0):
            bench.workers = StreamWorkers(count, engine, instant=getattr(args, "instant_device", False))
        return bench

    def conditions(self) -> dict[str, Any]:
        """Conditions of a run: input, device, space, weights, batch size, warm-up, graphs."""
        runner = self.engine.batches.runner
        return {
            "input": sensor_load.input_digest(),
            "device": environment.device_name(self.device),
            "space": self.space.id,
            "weights": spaces.weights_description(self.space),
            "batch_size": self.engine.batches.batch_size,
            "workers": self.workers.conditions() if self.workers else None,
            "warm_up_s": round(self.warm_up_seconds, 2),
            "graphs": {"captured": runner.graph_count(), "shapes": runner.shape_count()}
            if isinstance(runner, GpuRunner)
            else None,
        }

    def pipeline(self, values: Mapping[str, Any] | None = None) -> Pipeline:
        values = values or self.values
        return build.make_pipeline(values, self.space, engine=self.engine, live=True)

    def measure_robots(self, robots: int, seconds: float, factor: float = 1.0) -> dict[str, Any]:
        """Run `robots` robots for `seconds`, with rates multiplied and hops divided by `factor`."""
        shortest = min(self.values[f"{m}.hop"] for m in sensor_load.MESSAGE_RATES)
        ticks = round(shortest / factor * SECOND)
        hops = {
            f"{m}.hop": round(self.values[f"{m}.hop"] / shortest) * ticks / SECOND for m in sensor_load.MESSAGE_RATES
        }
        values = {**self.values, **hops}
        own = sensor_load.sensors(rates={m: rate * factor for m, rate in sensor_load.MESSAGE_RATES.items()})
        if self.workers is not None:
            return self.workers.measure(values, robots, own, seconds, self.lead_in)
        pipelines = [self.pipeline(values) for _ in range(robots)]
        return realtime_summary(
            run_realtime(pipelines, own, seconds, lead_in=self.lead_in, device=self.device), pipelines
        )

    def find_max_robots(
        self,
        seconds: float,
        bound: float = P99_BOUND_MS,
        until: float = math.inf,
        report: Report = lambda result: None,
    ) -> dict[str, Any]:
        """Find the largest number of robots with p99 ≤ `bound` ms in every modality and no missed window; at most 512.

        Doubles the number until it fails, then bisects. A number that fails is tried a second time, so that one
        disturbance of the machine does not decide. `until`: deadline (`time.monotonic()`); if it stops the search,
        `complete` is False and `robots` is a lower bound, or None before the first run. `report` receives the figures
        so far after each run.
        """
        result: dict[str, Any] = {"robots": None, "p99_bound_ms": bound, "complete": False, "tried": []}

        def holds(robots: int) -> bool:
            return any(self._try_robot_count(robots, seconds, until, result, report) for _ in range(2))

        held, failed = 0, 1
        try:
            while failed <= MAX_ROBOTS and holds(failed):
                held, failed = failed, 2 * failed
            while failed - held > 1:
                middle = (held + failed) // 2
                held, failed = (middle, failed) if holds(middle) else (held, middle)
        except _OutOfTimeError:
            return result
        return result | {"complete": True}

    def _try_robot_count(
        self, robots: int, seconds: float, until: float, result: dict[str, Any], report: Report
    ) -> bool:
        """Run once with `robots` robots and add the outcome to `result`. Raises `_OutOfTimeError` if too little time is
        left before `until`."""
        overheads = [
            MIN_RUN_OVERHEAD,
            *(1.5 * item["overhead_s"] * robots / item["robots"] for item in result["tried"][-1:]),
        ]
        if time.monotonic() + seconds + max(overheads) > until:
            raise _OutOfTimeError
        began = time.monotonic()
        run = self.measure_robots(robots, seconds)
        overhead = round(time.monotonic() - began - seconds, 2)
        # NaN if a modality has no latency: then the p99 is not within the bound.
        p99 = float(np.max([q["p99"] for q in run["latency_ms"].values()] or [math.nan]))
        held = bool(p99 <= result["p99_bound_ms"] and not run["missed"])
        cpu = run["cpu_percent"].get("of_a_core", math.nan)
        outcome = {"robots": robots, "held": held, "p99_ms": p99, "missed": run["missed"], "overhead_s": overhead}
        result["tried"].append({**outcome, "cpu_percent_of_a_core": cpu})
        result["robots"] = max(result["robots"] or 0, robots if held else 0)
        report(result)
        return held

    def find_peak_rate(self, seconds: float) -> dict[str, Any]:
        """Find the largest factor of one robot's rates at which no modality misses more than `MAX_MISSED_SHARE` of its
        windows."""
        tried = []
        for factor in RATE_FACTORS:
            if min(self.values[f"{m}.hop"] for m in sensor_load.MESSAGE_RATES) / factor < 0.002:
                break
            result = self.measure_robots(1, seconds, factor)
            share = max(result["missed_share"].values(), default=0.0)
            p99 = max((q["p99"] for q in result["latency_ms"].values()), default=math.nan)
            tried.append({"factor": factor, "missed": round(share, 4), "p99_ms": p99, "rate": result["windows_per_s"]})
            if share > MAX_MISSED_SHARE:
                break
        held = [item["factor"] for item in tried if item["missed"] <= MAX_MISSED_SHARE]
        return {"image_rate_hz": max(held, default=0.0) * sensor_load.MESSAGE_RATES["vision"], "tried": tried}

    def replays(self, args: argparse.Namespace) -> dict[str, Any]:
        """Compare the speed of a replay with the baseline, each window alone in eager float32. The two alternate.

        `replay_speed`: seconds of data of five sensors per second of computing, from samples in memory.
        """
        plain = spaces.load(args, dtype="float32")
        fast, slow = [], []
        for _ in range(3):
            fast.append(replay_seconds(self.pipeline(), args.seconds, 8 * self.engine.batches.batch_size // 16))
            slow.append(
                replay_seconds(build.make_pipeline(self.values, plain, engine=_EagerEngine(plain)), args.seconds, 1)
            )
        return {
            "replay_speed": round(args.seconds / min(fast), 2),
            "replay_times_plain": round(min(slow) / min(fast), 2),
        }


class _OutOfTimeError(Exception):
    """The deadline of a search leaves no time for another run."""


class _EagerEngine(Engine):
    """The baseline: an engine that embeds each window alone."""

    def __init__(self, space: Space) -> None:
        super().__init__(space, runner=None)

    def submit(self, windows: Sequence[Window]) -> EmbeddingJob:
        vectors = [self.space.embed(w.modality, self.space.tensor(w)[None])[0].numpy() for w in windows]
        return EmbeddingJob(
            list(windows),
            {i: self._make_embedding(w, v) for i, (w, v) in enumerate(zip(windows, vectors, strict=True))},
        )


def replay_seconds(pipeline: Pipeline, seconds: float, batch: int) -> float:
    """Time in s to process `seconds` of sensor data, `batch` windows at a time."""
    began = time.perf_counter()
    for _ in process_samples(pipeline, sensor_load.sample_stream(sensor_load.sensors(), seconds), batch):
        pass
    return time.perf_counter() - began
