"""Runs a benchmark that consists of parts: the most useful part first, all within a time budget. One file has the
figures of all parts.

The file is rewritten after every part and is always valid JSON. If the machine is lost, the figures so far remain. A
failed part is reported, and the next one runs. With `run_in_subprocess` each part has its own process, so that a hang
or a lost GPU does not affect the others.
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

from sensebind.benchmarks.harness import environment, report_file
from sensebind.benchmarks.harness.processes import subprocess_environment
from sensebind.fusion.core.errors import SensebindError

Report = Callable[[dict[str, Any]], None]  # receives all figures of a part so far
CHILD_COMMAND = f"import sys; from {__package__} import parts; parts.child_main(sys.argv[1])"
POLL_INTERVAL = 0.1  # s between two checks of a child
STOP_MARGIN = 5.0  # s; a part gets this much less time than the limit of its process
TERMINATE_TIMEOUT = 5.0  # s between SIGTERM and SIGKILL


class PartError(SensebindError):
    """An option does not fit the benchmark's parts, or the file cannot be written."""


@dataclass(frozen=True)
class Part:
    """One part of a benchmark.

    `min_seconds`: a part with less time left is skipped. `measure(seconds, report)` measures for at most about
    `seconds` and returns its figures. `time_limit`: seconds after which `run_in_subprocess` stops it.
    """

    name: str
    min_seconds: float
    measure: Callable[[float, Report], dict[str, Any]]
    time_limit: float = math.inf


PartRunner = Callable[[Part, float, Report], dict[str, Any]]  # arguments: the part, the seconds left, the report


def add_arguments(parser: argparse.ArgumentParser, budget: float, names: Sequence[str] = ()) -> None:
    """Declare the options of a benchmark that consists of parts. `names`: the parts, for the help."""
    parser.add_argument(
        "--budget", type=float, default=budget, help="time limit for all parts, in s (default: %(default)s)"
    )
    known = f": {', '.join(names)}" if names else ""
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"run only these parts, separated by spaces{known}")


def run_parts(
    bench: str, parts: Sequence[Part], args: argparse.Namespace, run_part: PartRunner | None = None
) -> dict[str, Any]:
    """Run the parts, print their figures, write them to `args.output`; returns the content of the file.

    `run_part`: how to run a part (None: in this process). If it is given, this process does not use the GPU. SIGTERM
    and SIGINT stop the run; the figures so far are kept. Raises `PartError` for an unknown part, a budget that is not
    positive, and a file that cannot be written.
    """
    chosen = _select_parts(bench, parts, args)
    deadline = time.monotonic() + args.budget
    content = environment.run_conditions(bench, None if run_part else args.device)
    content |= {"device": args.device, "budget_s": args.budget, "parts": {}}
    if args.output:
        try:
            report_file.write_json(args.output, content)
        except OSError as error:
            reason = f"cannot write the figures to '{args.output}': {error.strerror}: choose another -o"
            raise PartError(reason) from error
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    current = ""
    try:
        for part in chosen:
            current = part.name
            _run_part(part, deadline, content, args.output, run_part or run_in_process)
    except KeyboardInterrupt as interrupt:
        content["stopped_by"] = signal.Signals(*interrupt.args or (signal.SIGINT,)).name
        content["parts"].setdefault(current, {})["failed"] = "stopped by SIGTERM or Ctrl-C"
        content["stopped"] = f"during {current}"
    finally:
        content["machine"] |= {"load_average_at_end": round(os.getloadavg()[0], 2)}
        _write_figures(args.output, content)
        for number, handler in before.items():
            signal.signal(number, handler)
    return content


def exit_status(content: dict[str, Any]) -> int:
    """Exit status for the `content` that `run_parts` returned: 130 after Ctrl-C; 1 if a part failed, the run was ended
    in another way, or every part was skipped; otherwise 0."""
    if content.get("stopped_by") == "SIGINT":
        print(f"interrupted {content['stopped']}: the figures so far are kept", file=sys.stderr)
        return 130
    results = content["parts"].values()
    nothing = all("skipped" in result for result in results)
    return int(nothing or "stopped" in content or any("failed" in result for result in results))


def options_of(bench: str, args: argparse.Namespace, given: Sequence[str]) -> argparse.Namespace:
    """Parse `given` as the command line of another benchmark, with the space and device of `args`."""
    parser = argparse.ArgumentParser(prog=f"sensebind bench {bench}")
    import_module(f"sensebind.benchmarks.{bench}").add_arguments(parser)
    shared = ["--space", args.space, "--weights", args.weights, "--device", args.device]
    if bench != "ros":
        shared += ["--dtype", args.dtype, *(["--tiny"] if args.tiny else [])]
    return parser.parse_args([*shared, *given])


def run_in_process(part: Part, seconds: float, report: Report) -> dict[str, Any]:
    """Run a part in this process. An exception becomes the figure `failed`, added to the figures reported so far."""
    so_far: dict[str, Any] = {}

    def keep(result: dict[str, Any]) -> None:
        so_far.clear()
        so_far.update(result)
        report(result)

    try:
        return part.measure(seconds, keep)
    except Exception as error:  # the other parts must still run
        if not isinstance(error, SensebindError):
            traceback.print_exc(limit=4, file=sys.stderr)
        return so_far | {"failed": f"{type(error).__name__}: {str(error)[-500:]}"}


def run_in_subprocess(module: str, args: argparse.Namespace) -> PartRunner:
    """A runner that gives each part its own process, and stops it at its time limit.

    The process finds the part by name in `parts(args)` of the module `module`. `args` must be serializable as JSON.
    """

    def run_part(part: Part, seconds: float, report: Report) -> dict[str, Any]:
        limit = min(part.time_limit, seconds)
        with tempfile.TemporaryDirectory() as folder:
            path, deadline = Path(folder) / "part.json", time.monotonic() + limit
            # All processes of a machine share this clock, so the start of the child counts too.
            asked = {"module": module, "part": part.name, "deadline": deadline - STOP_MARGIN, "path": str(path)}
            command = [sys.executable, "-c", CHILD_COMMAND, json.dumps({**asked, "args": vars(args)})]
            process = subprocess.Popen(command, env=subprocess_environment())
            try:
                status = _forward_figures(process, path, deadline, report)
            finally:
                _stop(process)
            result = _read_figures(path)
        if status is None:
            return result | {"failed": f"its limit of {limit:.0f} s was exceeded; its process was stopped"}
        if status:
            return result | {"failed": f"its process {_exit_description(status)}"}
        return result

    return run_part


def child_main(asked: str) -> None:
    """Entry point of a process that `run_in_subprocess` starts."""
    given = json.loads(asked)
    args = argparse.Namespace(**given["args"])
    everything = import_module(given["module"]).parts(args)
    part = next(part for part in everything if part.name == given["part"])

    def report(result: dict[str, Any]) -> None:
        report_file.write_json(given["path"], result)

    report(run_in_process(part, given["deadline"] - time.monotonic(), report))


def _select_parts(bench: str, parts: Sequence[Part], args: argparse.Namespace) -> list[Part]:
    """The parts that the options ask for. Raises `PartError`."""
    if not args.budget > 0:
        raise PartError(f"{bench}: --budget {args.budget:g} leaves no time: give a positive number of seconds")
    known = [part.name for part in parts]
    if unknown := [name for name in args.only or () if name not in known]:
        raise PartError(f"{bench} has no part '{unknown[0]}': --only takes {', '.join(known)}, separated by spaces")
    return [part for part in parts if not args.only or part.name in args.only]


def _run_part(part: Part, deadline: float, content: dict[str, Any], output: str | None, run_part: PartRunner) -> None:
    """Run a part unless too little time is left, and add its figures to `content`."""
    left = deadline - time.monotonic()
    if left < part.min_seconds:
        reason = f"{max(0.0, left):.1f} s are left, and it needs {part.min_seconds:.0f} s"
        content["parts"][part.name] = {"skipped": reason}
        print(f"--- {part.name} is skipped: {reason}", flush=True)
        _write_figures(output, content)
        return
    print(f"--- {part.name} ({left:.0f} s left)", flush=True)
    began = time.monotonic()

    def report(result: dict[str, Any]) -> None:
        content["parts"][part.name] = {"took_s": round(time.monotonic() - began, 1), **result}
        _write_figures(output, content)

    result = run_part(part, left, report)
    report(result)
    report_file.print_figures(result)


def _forward_figures(process: subprocess.Popen[bytes], path: Path, deadline: float, report: Report) -> int | None:
    """Report the child's figures until it exits or its time is over. Its exit status; None if it still runs."""
    seen = 0
    while (status := process.poll()) is None and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
        changed = path.stat().st_mtime_ns if path.exists() else 0
        if changed != seen:
            seen = changed
            report(_read_figures(path))
    return status


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a child that still runs: SIGTERM, then SIGKILL."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(TERMINATE_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            process.wait(TERMINATE_TIMEOUT)
        except subprocess.TimeoutExpired:
            print(f"process {process.pid} does not end: it waits in the driver", file=sys.stderr)


def _read_figures(path: Path) -> dict[str, Any]:
    """The figures that a child wrote; empty if it wrote none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _exit_description(status: int) -> str:
    """How a process ended: `exited with status 3`, `was killed by SIGSEGV`."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _write_figures(output: str | None, content: dict[str, Any]) -> None:
    """Write the file. If the disk is full, the run continues: the figures are printed too."""
    if not output:
        return
    try:
        report_file.write_json(output, content)
    except OSError as error:
        print(f"cannot write the figures to '{output}': {error}", file=sys.stderr)


def _interrupt(number: int, frame: object) -> None:
    """Stop the run once: while it stops its part and writes the file, further signals are ignored."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(number)
