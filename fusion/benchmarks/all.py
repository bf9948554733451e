"""`sensebind bench all`: everything in the order of its worth, within a budget, into one file.

The file is written after every part and is whole at any time, so a machine that is taken away leaves what there was.
A part that fails says so and the next begins.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sensebind.fusion.benchmarks import figures, robot, spaces
from sensebind.fusion.benchmarks.stream import Bench
from sensebind.fusion.samples import VISION

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Part:
    """`least`: seconds that it needs, or it is not begun; `work` is given those that are left."""

    name: str
    least: float
    work: Callable[[float, Tell], dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument("--budget", type=float, default=450.0, help="s for all of it (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts by name, in place of all")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; 1 where a part failed."""
    ended = time.monotonic() + args.budget
    spaces.settle(args)
    content = figures.report("all", {}, args.device) | {"budget_s": args.budget, "parts": {}}
    stopped = signal.signal(signal.SIGTERM, _stop)
    try:
        for part in parts(args):
            if args.only and part.name not in args.only:
                continue
            _do(part, ended, content, args.output)
    except KeyboardInterrupt:
        content["stopped"] = "before its end"
    finally:
        signal.signal(signal.SIGTERM, stopped)
        content["machine"] |= {"load_average_at_end": figures.machine()["load_average_at_end"]}
        _write(args.output, content)
    return int(any("failed" in result for result in content["parts"].values()))


def _do(part: Part, ended: float, content: dict[str, Any], output: str | None) -> None:
    left = ended - time.monotonic()
    if left < part.least:
        content["parts"][part.name] = {"skipped": f"{left:.0f} s were left, and it needs {part.least:.0f}"}
        _write(output, content)
        return
    print(f"--- {part.name} ({left:.0f} s left)", flush=True)
    began = time.monotonic()

    def tell(result: dict[str, Any]) -> None:
        content["parts"][part.name] = {"took_s": round(time.monotonic() - began, 1), **result}
        _write(output, content)

    try:
        result = part.work(left, tell)
    except Exception as error:  # the other parts are worth having
        traceback.print_exc(limit=4, file=sys.stderr)
        result = content["parts"].get(part.name, {}) | {"failed": f"{type(error).__name__}: {str(error)[-500:]}"}
        print(f"{part.name} failed: {error}", flush=True)
    tell(result)
    figures.show(result)


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

    def model(modalities: list[str]) -> Callable[[float, Tell], dict[str, Any]]:
        def work(left: float, tell: Tell) -> dict[str, Any]:
            given = ["--seconds", "0.5", "--longest", "4" if gpu else "2", "--modalities", *modalities]
            return dict(_module("model").measure(_options("model", args, given), tell))

        return work

    def one_robot(left: float, tell: Tell) -> dict[str, Any]:
        it = bench()
        return {**_facts(it), **it.live(1, min(20.0, left / 4))}

    def many_robots(left: float, tell: Tell) -> dict[str, Any]:
        return {**_facts(bench()), **bench().find(min(6.0, left / 14))}

    def every_frame(left: float, tell: Tell) -> dict[str, Any]:
        it = bench(True)
        return {**_facts(it), **it.live(1, min(10.0, left / 2))}

    def peak(left: float, tell: Tell) -> dict[str, Any]:
        return {**_facts(bench(True)), **bench(True).peak(min(5.0, left / 10))}

    def overload(left: float, tell: Tell) -> dict[str, Any]:
        given = ["--seconds", str(min(30.0, left - 15))]
        return dict(_module("overload").measure(_options("overload", args, given), bench()))

    def start(left: float, tell: Tell) -> dict[str, Any]:
        return dict(_module("start").measure(_options("start", args, [])))

    def soak(left: float, tell: Tell) -> dict[str, Any]:
        given = ["--minutes", str(min(2.0, (left - 10) / 60)), "--hop", "0.2"]
        return dict(_module("soak").measure(_options("soak", args, given), bench()))

    def line(left: float, tell: Tell) -> dict[str, Any]:
        return dict(_module("line").measure(10.0))

    def ros(left: float, tell: Tell) -> dict[str, Any]:
        given = ["--seconds", "6", *(["--no-peak"] if left < 200 else [])]
        return dict(_module("ros").measure(_options("ros", args, given)))

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


def _facts(bench: Bench) -> dict[str, Any]:
    runner = bench.engine.runner
    return {
        "input": robot.digest(),
        "space": bench.space.id,
        "weights": spaces.weights_of(bench.space),
        "batch_size": bench.engine.batch_size,
        "warm_up_s": round(bench.warmed, 2),
        "graphs": f"{runner.captured()} of {runner.shapes()} shapes" if runner else "none: a CPU",
    }


def _module(name: str) -> Any:
    return import_module(f"sensebind.fusion.benchmarks.{name}")


def _options(name: str, args: argparse.Namespace, given: list[str]) -> argparse.Namespace:
    """What a bench would have been given on the command line."""
    parser = argparse.ArgumentParser(prog=f"sensebind bench {name}")
    _module(name).add_arguments(parser)
    shared = ["--space", args.space, "--weights", args.weights, "--device", args.device]
    shared += [] if name == "ros" else ["--dtype", args.dtype]
    return parser.parse_args([*shared, *given])


def _write(output: str | None, content: dict[str, Any]) -> None:
    if output:
        figures.write(output, content)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt
