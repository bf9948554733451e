"""`sensebind bench all`: most benchmarks, the most useful first, within a time budget, into one file: see `parts`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness import parts as bench_parts
from sensebind.benchmarks.harness import sensor_load
from sensebind.benchmarks.harness.parts import Part, Report
from sensebind.benchmarks.stream import RealtimeBenchmark
from sensebind.fusion.core.samples import VISION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    bench_parts.add_arguments(parser, 450.0)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write. Exit status 1 if a part failed or nothing was measured."""
    spaces.resolve_defaults(args)
    content = bench_parts.run_parts("all", parts(args), args)
    return bench_parts.exit_status(content)


def parts(args: argparse.Namespace) -> list[Part]:
    """All parts in order. On a GPU the parts that need a GPU come first, on a CPU the quickest parts."""
    measurements, gpu = PartMeasurements(args), args.device.startswith("cuda")
    vision = Part("model_vision", 20, partial(measurements.model, [VISION]))
    others = Part(
        "model_others", 30, partial(measurements.model, [m for m in sensor_load.MESSAGE_RATES if m != VISION])
    )
    robots = [Part("one_robot", 15, measurements.one_robot), Part("most_robots", 30, measurements.most_robots)]
    frames = [Part("every_frame", 15, measurements.every_frame), Part("peak_rate", 30, measurements.peak_rate)]
    rest = [
        Part("start", 40, measurements.start),
        Part("overload", 30, measurements.overload),
        Part("soak", 30, measurements.soak),
    ]
    pipeline, ros = Part("pipeline", 30, measurements.pipeline), Part("ros", 90, measurements.ros)
    if gpu:
        return [vision, *robots, others, *frames, *rest, pipeline, ros]
    return [pipeline, *robots, *frames, vision, others, *rest, ros]


@dataclass
class PartMeasurements:
    """The measurements of the parts; the public methods but `bench` have the signature of `Part.measure`."""

    args: argparse.Namespace
    benchmarks: dict[bool, RealtimeBenchmark] = field(default_factory=dict)  # key: whether every frame is embedded

    def bench(self, every_frame: bool = False) -> RealtimeBenchmark:
        """A space with its engine, loaded at the first call. Both kinds share the space."""
        if every_frame not in self.benchmarks:
            space = self.benchmarks[not every_frame].space if self.benchmarks else None
            asked = argparse.Namespace(**vars(self.args), hop=0.2, every_frame=every_frame)
            self.benchmarks[every_frame] = RealtimeBenchmark.load(asked, space)
        return self.benchmarks[every_frame]

    def model(self, modalities: Sequence[str], seconds_left: float, report: Report) -> dict[str, Any]:
        longest = "4" if self.args.device.startswith("cuda") else "2"
        return self._measure("model", ["--seconds", "0.5", "--longest", longest, "--modalities", *modalities], report)

    def one_robot(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return self._measure_robots(False, lambda bench: bench.measure_robots(1, min(20.0, seconds_left / 4)))

    def most_robots(self, seconds_left: float, report: Report) -> dict[str, Any]:
        until = time.monotonic() + seconds_left
        return self._measure_robots(
            False, lambda bench: bench.find_max_robots(min(6.0, seconds_left / 14), until=until, report=report)
        )

    def every_frame(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return self._measure_robots(True, lambda bench: bench.measure_robots(1, min(10.0, seconds_left / 2)))

    def peak_rate(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return self._measure_robots(True, lambda bench: bench.find_peak_rate(min(5.0, seconds_left / 10)))

    def overload(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return self._measure("overload", ["--seconds", str(min(30.0, seconds_left - 15))], self.bench())

    def start(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return self._measure("start", [])

    def soak(self, seconds_left: float, report: Report) -> dict[str, Any]:
        minutes = min(2.0, (seconds_left - 20) / 60)
        return self._measure("soak.run", ["--minutes", str(minutes), "--faults-every", "10"], self.bench())

    def pipeline(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return dict(_module("pipeline_cost").measure(10.0))

    def ros(self, seconds_left: float, report: Report) -> dict[str, Any]:
        return self._measure("ros", ["--seconds", "6", *(["--no-peak"] if seconds_left < 200 else [])])

    def _measure_robots(
        self, every_frame: bool, measure: Callable[[RealtimeBenchmark], dict[str, Any]]
    ) -> dict[str, Any]:
        bench = self.bench(every_frame)
        return {**bench.conditions(), **measure(bench)}

    def _measure(self, name: str, given: Sequence[str], *more: Any) -> dict[str, Any]:
        """The figures of another benchmark with the options `given`, on the same space and device."""
        return dict(_module(name).measure(bench_parts.options_of(name, self.args, given), *more))


def _module(name: str) -> Any:
    return import_module(f"sensebind.benchmarks.{name}")
