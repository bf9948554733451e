"""Benchmarks that consist of parts, run in the order of their worth within a budget of time.

The file of figures is written after every part and is whole at any time, so a machine that is taken away leaves what
was measured until then. A part that fails is reported, and the next one begins. A part runs in this process, or
in a process of its own (`in_child`): then nothing that it does, a hang or a lost GPU included, reaches the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sensebind.fusion.benchmarks import figures

Report = Callable[[dict[str, Any]], None]  # a part calls it with all its figures so far
CHILD = "import sys; from sensebind.fusion.benchmarks import parts; parts.child(sys.argv[1])"
POLL = 0.1  # s between two looks at a child
MARGIN = 5.0  # s before its limit at which a child is asked to have ended
GRACE = 5.0  # s that a child has to end after SIGTERM, before SIGKILL


@dataclass(frozen=True)
class Part:
    """One part of a benchmark.

    `least`: seconds that it needs; with fewer left it is skipped. `work(seconds, report)` measures for about `seconds`
    at most and returns its figures. `limit`: seconds after which `in_child` ends it.
    """

    name: str
    least: float
    work: Callable[[float, Report], dict[str, Any]]
    limit: float = math.inf


Perform = Callable[[Part, float, Report], dict[str, Any]]  # the part, seconds left for it, where its figures go


def add_arguments(parser: argparse.ArgumentParser, budget: float) -> None:
    """Declare the options of a benchmark that consists of parts."""
    parser.add_argument("--budget", type=float, default=budget, help="s for all of it (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts by name, in place of all")


def run(bench: str, parts: Sequence[Part], args: argparse.Namespace, perform: Perform | None = None) -> dict[str, Any]:
    """Measure, print, write to `args.output`; the content of the file. `perform`: how a part is run (None: in this
    process; otherwise this process leaves a GPU alone). SIGTERM and SIGINT end the part under way and the benchmark;
    what was measured is kept."""
    ended = time.monotonic() + args.budget
    device = "cpu" if perform else args.device
    content = figures.report(bench, {}, device) | {"budget_s": args.budget, "parts": {}}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for part in parts:
            if not args.only or part.name in args.only:
                _perform(part, ended, content, args.output, perform or in_process)
    except KeyboardInterrupt:
        content["stopped"] = "before its end"
    finally:
        signal.signal(signal.SIGTERM, before)
        content["machine"] |= {"load_average_at_end": round(os.getloadavg()[0], 2)}
        if state := figures.gpu_state(device):
            content["machine"] |= {"gpu_state_at_end": state}
        _write(args.output, content)
    return content


def failed(content: dict[str, Any]) -> bool:
    """Whether a part of what `run` returned failed."""
    return any("failed" in result for result in content["parts"].values())


def options(bench: str, args: argparse.Namespace, given: Sequence[str]) -> argparse.Namespace:
    """What a benchmark would be given on the command line: the options `given`, and the space and device of `args`."""
    parser = argparse.ArgumentParser(prog=f"sensebind bench {bench}")
    import_module(f"sensebind.fusion.benchmarks.{bench}").add_arguments(parser)
    shared = ["--space", args.space, "--weights", args.weights, "--device", args.device]
    if bench != "ros":
        shared += ["--dtype", args.dtype, *(["--tiny"] if args.tiny else [])]
    return parser.parse_args([*shared, *given])


def in_process(part: Part, seconds: float, report: Report) -> dict[str, Any]:
    """Do the work of a part here. Whatever it raises is its figure `failed`, beside those that it reported before."""
    sofar: dict[str, Any] = {}

    def keep(result: dict[str, Any]) -> None:
        sofar.clear()
        sofar.update(result)
        report(result)

    try:
        return part.work(seconds, keep)
    except Exception as error:  # the other parts are worth having
        traceback.print_exc(limit=4, file=sys.stderr)
        return sofar | {"failed": f"{type(error).__name__}: {str(error)[-500:]}"}


def in_child(module: str, args: argparse.Namespace) -> Perform:
    """How to do each part in a process of its own, which is ended when its time is over. There the part is looked up by
    its name in `parts(args)` of the named module. `args` must hold what JSON can express."""

    def perform(part: Part, seconds: float, report: Report) -> dict[str, Any]:
        limit = min(part.limit, seconds)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.json"
            asked = {"module": module, "part": part.name, "seconds": limit - MARGIN, "path": str(path)}
            command = [sys.executable, "-c", CHILD, json.dumps({**asked, "args": vars(args)})]
            process = subprocess.Popen(command, env=child_environment())
            try:
                status = _watch(process, path, time.monotonic() + limit, report)
            finally:
                _end(process)
            result = _read(path)
        if status is None:
            return result | {"failed": f"it was ended, because it had not finished after {limit:.0f} s"}
        if status:
            return result | {"failed": f"its process ended with {_named(status)}"}
        return result

    return perform


def child(asked: str) -> None:
    """What the process of `in_child` does."""
    given = json.loads(asked)
    args = argparse.Namespace(**given["args"])
    everything = import_module(given["module"]).parts(args)
    part = next(part for part in everything if part.name == given["part"])

    def report(result: dict[str, Any]) -> None:
        figures.write(given["path"], result)

    report(in_process(part, given["seconds"], report))


def child_environment() -> dict[str, str]:
    """This process's environment, from which a new Python imports what this one does: also from a bare checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _perform(part: Part, ended: float, content: dict[str, Any], output: str | None, perform: Perform) -> None:
    """Run a part unless too little time is left, and note its figures in `content`."""
    left = ended - time.monotonic()
    if left < part.least:
        content["parts"][part.name] = {"skipped": f"{left:.0f} s were left, and it needs {part.least:.0f}"}
        _write(output, content)
        return
    print(f"--- {part.name} ({left:.0f} s left)", flush=True)
    began = time.monotonic()

    def report(result: dict[str, Any]) -> None:
        content["parts"][part.name] = {"took_s": round(time.monotonic() - began, 1), **result}
        _write(output, content)

    result = perform(part, left, report)
    report(result)
    figures.show(result)


def _watch(process: subprocess.Popen[bytes], path: Path, until: float, report: Report) -> int | None:
    """Report what the process writes, until it ends or time is over; its exit status, or None where it still runs."""
    seen = 0
    while (status := process.poll()) is None and time.monotonic() < until:
        time.sleep(POLL)
        changed = path.stat().st_mtime_ns if path.exists() else 0
        if changed != seen:
            seen = changed
            report(_read(path))
    return status


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs: with SIGTERM, and with SIGKILL where that does not do."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(path: Path) -> dict[str, Any]:
    """The figures that a child wrote; none where it did not get as far."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _named(status: int) -> str:
    """An exit status in words: `status 3`, `SIGSEGV`."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _write(output: str | None, content: dict[str, Any]) -> None:
    if output:
        figures.write(output, content)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
