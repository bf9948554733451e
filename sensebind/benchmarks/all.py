"""`sensebind bench all`: all benchmarks, the most useful first, within a budget of time, into one file: see `parts`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
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
    gpu = args.device.startswith("cuda")
    held: dict[bool, Bench] = {}

    def bench(every_frame: bool = False) -> Bench:
        if every_frame not in held:
            space = held[not every_frame].space if held else None
            asked = argparse.Namespace(**vars(args), hop=0.2, every_frame=every_frame)
            held[every_frame] = Bench.of(asked, space)
        return held[every_frame]

    def model(modalities: list[str]) -> Callable[[float, Report], dict[str, Any]]:
        def work(left: float, report: Report) -> dict[str, Any]:
            given = ["--seconds", "0.5", "--longest", "4" if gpu else "2", "--modalities", *modalities]
            return dict(_module("model").measure(bench_parts.options_of("model", args, given), report))

        return work

    def one_robot(left: float, report: Report) -> dict[str, Any]:
        it = bench()
        return {**it.facts(), **it.live(1, min(20.0, left / 4))}

    def many_robots(left: float, report: Report) -> dict[str, Any]:
        until = time.monotonic() + left
        return {**bench().facts(), **bench().find(min(6.0, left / 14), until=until, report=report)}

    def every_frame(left: float, report: Report) -> dict[str, Any]:
        it = bench(True)
        return {**it.facts(), **it.live(1, min(10.0, left / 2))}

    def peak(left: float, report: Report) -> dict[str, Any]:
        return {**bench(True).facts(), **bench(True).peak(min(5.0, left / 10))}

    def overload(left: float, report: Report) -> dict[str, Any]:
        given = ["--seconds", str(min(30.0, left - 15))]
        return dict(_module("overload").measure(bench_parts.options_of("overload", args, given), bench()))

    def start(left: float, report: Report) -> dict[str, Any]:
        return dict(_module("start").measure(bench_parts.options_of("start", args, [])))

    def soak(left: float, report: Report) -> dict[str, Any]:
        given = ["--minutes", str(min(2.0, (left - 10) / 60)), "--hop", "0.2"]
        return dict(_module("soak").measure(bench_parts.options_of("soak", args, given), bench()))

    def line(left: float, report: Report) -> dict[str, Any]:
        return dict(_module("line").measure(10.0))

    def ros(left: float, report: Report) -> dict[str, Any]:
        given = ["--seconds", "6", *(["--no-peak"] if left < 200 else [])]
        return dict(_module("ros").measure(bench_parts.options_of("ros", args, given)))

    others = [m for m in robot.RATES if m != VISION]
    first = [Part("model_vision", 20, model([VISION])), Part("model_others", 30, model(others))]
    streams = [
        Part("one_robot", 15, one_robot),
        Part("most_robots", 30, many_robots),
        Part("every_frame", 15, every_frame),
        Part("peak_rate", 30, peak),
    ]
    rest = [Part("start", 40, start), Part("overload", 30, overload), Part("soak", 30, soak), Part("line", 30, line)]
    whole = [first[0], *streams[:2], first[1], *streams[2:], *rest] if gpu else [rest[3], *streams, *first, *rest[:3]]
    return [*whole, Part("ros", 90, ros)]


def _module(name: str) -> Any:
    return import_module(f"sensebind.benchmarks.{name}")
