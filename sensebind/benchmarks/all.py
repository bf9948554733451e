"""`sensebind bench all`: all benchmarks, the most useful first, within a budget of time, into one file: see `parts`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

from sensebind.benchmarks.harness import parts as bench_parts
from sensebind.benchmarks.harness import robot, spaces
from sensebind.benchmarks.harness.parts import Part, Report
from sensebind.benchmarks.stream import Bench
from sensebind.fusion.core.samples import VISION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    bench_parts.add_arguments(parser, 450.0)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write. Exit status 1 if a part failed or nothing was measured."""
    spaces.settle(args)
    content = bench_parts.run("all", parts(args), args)
    return bench_parts.exit_status(content)


def parts(args: argparse.Namespace) -> list[Part]:
    """On a GPU what only a GPU can tell comes first; on a CPU what takes least time."""
    work, gpu = Works(args), args.device.startswith("cuda")
    vision = Part("model_vision", 20, partial(work.model, [VISION]))
    others = Part("model_others", 30, partial(work.model, [m for m in robot.RATES if m != VISION]))
    robots = [Part("one_robot", 15, work.one_robot), Part("most_robots", 30, work.most_robots)]
    frames = [Part("every_frame", 15, work.every_frame), Part("peak_rate", 30, work.peak)]
    rest = [Part("start", 40, work.start), Part("overload", 30, work.overload), Part("soak", 30, work.soak)]
    line, ros = Part("line", 30, work.line), Part("ros", 90, work.ros)
    if gpu:
        return [vision, *robots, others, *frames, *rest, line, ros]
    return [line, *robots, *frames, vision, others, *rest, ros]


@dataclass
class Works:
    """What each part measures, in the shape of `Part.work`."""

    args: argparse.Namespace
    held: dict[bool, Bench] = field(default_factory=dict)  # by whether every frame is embedded

    def bench(self, every_frame: bool = False) -> Bench:
        """A space with its engine, made when it is first needed. Both kinds share the space."""
        if every_frame not in self.held:
            space = self.held[not every_frame].space if self.held else None
            asked = argparse.Namespace(**vars(self.args), hop=0.2, every_frame=every_frame)
            self.held[every_frame] = Bench.of(asked, space)
        return self.held[every_frame]

    def model(self, modalities: Sequence[str], left: float, report: Report) -> dict[str, Any]:
        longest = "4" if self.args.device.startswith("cuda") else "2"
        return self._measure("model", ["--seconds", "0.5", "--longest", longest, "--modalities", *modalities], report)

    def one_robot(self, left: float, report: Report) -> dict[str, Any]:
        return self._robots(False, lambda bench: bench.live(1, min(20.0, left / 4)))

    def most_robots(self, left: float, report: Report) -> dict[str, Any]:
        until = time.monotonic() + left
        return self._robots(False, lambda bench: bench.find(min(6.0, left / 14), until=until, report=report))

    def every_frame(self, left: float, report: Report) -> dict[str, Any]:
        return self._robots(True, lambda bench: bench.live(1, min(10.0, left / 2)))

    def peak(self, left: float, report: Report) -> dict[str, Any]:
        return self._robots(True, lambda bench: bench.peak(min(5.0, left / 10)))

    def overload(self, left: float, report: Report) -> dict[str, Any]:
        return self._measure("overload", ["--seconds", str(min(30.0, left - 15))], self.bench())

    def start(self, left: float, report: Report) -> dict[str, Any]:
        return self._measure("start", [])

    def soak(self, left: float, report: Report) -> dict[str, Any]:
        given = ["--minutes", str(min(2.0, (left - 10) / 60)), "--hop", "0.2"]
        return self._measure("soak", given, self.bench())

    def line(self, left: float, report: Report) -> dict[str, Any]:
        return dict(_module("line").measure(10.0))

    def ros(self, left: float, report: Report) -> dict[str, Any]:
        return self._measure("ros", ["--seconds", "6", *(["--no-peak"] if left < 200 else [])])

    def _robots(self, every_frame: bool, measure: Callable[[Bench], dict[str, Any]]) -> dict[str, Any]:
        bench = self.bench(every_frame)
        return {**bench.facts(), **measure(bench)}

    def _measure(self, name: str, given: Sequence[str], *more: Any) -> dict[str, Any]:
        """The figures of another benchmark with the options `given`, on the space and device of this one."""
        return dict(_module(name).measure(bench_parts.options_of(name, self.args, given), *more))


def _module(name: str) -> Any:
    return import_module(f"sensebind.benchmarks.{name}")
