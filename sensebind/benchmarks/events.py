"""`sensebind bench events`: how long after something began the robot is told, over DDS.

A simulated recording is played in real time to the embedder and the detector, each a process of its own. For each
onset of the truth: the wall time from when the player's clock passed it to the arrival of the ONSET message of its
label (`live_s`), and how much of it is there by design, in the stream's own time (`told_s`: the stamp of that message
less the true onset, which is windows, hop and `min_duration`). `added_s` is the rest: lateness, waiting for the slowest
sense, computing, DDS.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sensebind.benchmarks.harness import command_line
from sensebind.benchmarks.harness.processes import ProcessError, ros_environment
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import SECOND
from sensebind.simulation.recorder import GroundTruthEvent

STARTUP_TIMEOUT = 90.0  # s for all processes to find each other
MATCH_BEFORE_ONSET, MATCH_AFTER_OFFSET = (
    0.5,
    3.0,
)  # s before an onset, and after an offset, that an event of its label may be told at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--scenario", type=Path, metavar="F", help="YAML (default: config/scenarios/house.yaml)")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], metavar="N",
        help="of the held-out scenario; one run after the other for several (default: 0)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, metavar="S", help="of the scenario, whatever the file says")
    parser.add_argument("--config", type=Path, metavar="F", help="ROS parameter file (default: config/starter.yaml)")
    command_line.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 where ROS or a process is missing."""
    return command_line.run_and_report("events", measure, args, expected=(ProcessError, ModuleNotFoundError))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Simulate, play, listen; the figures of all runs together. Raises `ProcessError`, and `ModuleNotFoundError`
    without rclpy."""
    return combine_runs([{"seed": seed, **row} for seed in args.seed for row in measure_run(args, seed)])


def measure_run(args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """One run: see `onset_delays`."""
    from sensebind.fusion.config.files import shipped_parameter_file
    from sensebind.simulation import scenario
    from sensebind.simulation.messages import SIMULATION_START
    from sensebind.simulation.recorder import record

    plan = scenario.read_scenario(
        args.scenario or shipped_parameter_file("scenarios/house.yaml"), seed, True, args.seconds
    )
    with tempfile.TemporaryDirectory() as folder:
        truth = record(plan, Path(folder) / "recording")
        parameters = Path(folder) / "parameters.yaml"
        parameters.write_text(
            parameters_with_prompts(args.config or shipped_parameter_file("starter.yaml"), {t.label for t in truth})
        )
        events, clock = play_and_record_events(Path(folder) / "recording", parameters, Path(folder))
    return onset_delays(events, clock, truth, SIMULATION_START)


def parameters_with_prompts(config: Path, labels: set[str]) -> str:
    """The parameter file, with the prompts of these labels as well where it does not ask for them."""
    from sensebind.simulation.catalogue import CATALOGUE

    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    prompts = document.setdefault("detector", {}).setdefault("ros__parameters", {}).setdefault("prompts", {})
    for label in sorted(labels & set(CATALOGUE)):
        prompts.setdefault(label, list(CATALOGUE[label].phrases))
    return str(yaml.safe_dump(document))


def play_and_record_events(
    recording: Path, parameters: Path, logs: Path
) -> tuple[list[tuple[float, Event]], list[tuple[float, int]]]:
    """Play in real time: (arrival, event) of each, and (arrival, ns) of the clock; arrivals are `time.monotonic`."""
    import rclpy

    environment = ros_environment()
    from rosgraph_msgs.msg import Clock

    from sensebind.nodes.support.listener import Listener
    from sensebind.nodes.support.processes import node_process

    heard: list[tuple[float, Event]] = []
    clock: list[tuple[float, int]] = []
    ros = ["--ros-args", "--params-file", str(parameters)]
    with ExitStack() as stack:
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        listener = Listener(lambda event: heard.append((time.monotonic(), event)))
        stack.callback(listener.destroy_node)

        def tick(message: Clock) -> None:
            clock.append((time.monotonic(), message.clock.sec * SECOND + message.clock.nanosec))

        listener.create_subscription(Clock, "/clock", tick, 1000)
        processes = {
            name: stack.enter_context(node_process(name, ros, environment=environment, log=logs / f"{name}.log"))
            for name in ("embedder", "detector")
        }

        def spin(until: Callable[[], bool], seconds: float, what: str) -> None:
            deadline = time.monotonic() + seconds
            while not until():
                rclpy.spin_once(listener, timeout_sec=0.05)
                for name, process in processes.items():
                    if process.poll() is not None:
                        log = (logs / f"{name}.log").read_text(errors="replace")[-2000:]
                        raise ProcessError(f"{name} stopped ({process.returncode}):\n{log}")
                if time.monotonic() > deadline:
                    raise ProcessError(f"{what} took over {seconds:.0f} s")

        spin(listener.is_ready, STARTUP_TIMEOUT, "starting the nodes")
        arguments = ["--ros-args", "-p", f"recording:={recording}", "-p", "delay:=4.0"]
        player = stack.enter_context(
            node_process("player", arguments, environment=environment, log=logs / "player.log")
        )
        spin(lambda: player.poll() is not None, 3600, "playing")
        quiet = time.monotonic() + 2
        spin(lambda: time.monotonic() > quiet, 10, "the end")
    if not clock:
        raise ProcessError("the player told no time")
    return heard, clock


def onset_delays(
    events: Sequence[tuple[float, Event]],
    clock: Sequence[tuple[float, int]],
    truth: Sequence[GroundTruthEvent],
    epoch: int,
) -> list[dict[str, Any]]:
    """For each onset of what was there, in seconds from `epoch` (ns), how soon it was heard of (see
    `play_and_record_events`)."""
    shown = [stamp for _, stamp in clock]
    rows = []
    for item in truth:
        onsets = [
            (arrived, event) for arrived, event in events
            if event.kind is EventKind.PROMPT and event.phase is EventPhase.ONSET and event.label == item.label
            and item.onset - MATCH_BEFORE_ONSET <= (event.tick - epoch) / SECOND <= item.offset + MATCH_AFTER_OFFSET
        ]  # fmt: skip
        row: dict[str, Any] = {"label": item.label, "onset": round(item.onset, 3)}
        if onsets:
            arrived, event = onsets[0]
            sense = max(event.evidence, key=lambda e: e.score).modality if event.evidence else ""
            by_design = (event.tick - epoch) / SECOND - item.onset
            began = bisect_left(shown, epoch + round(item.onset * SECOND))
            live = arrived - clock[min(began, len(clock) - 1)][0]
            row |= {"sense": sense, "live_s": round(live, 3), "told_s": round(by_design, 3)}
            row["added_s"] = round(live - by_design, 3)
        rows.append(row)
    return rows


def combine_runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of many onsets, and the onsets."""
    return {"events": len(rows), "told": sum("sense" in row for row in rows), **delay_summary(rows), "onsets": rows}


def delay_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and 90th percentile of all that was told, and by the sense that was surest."""
    found = [row for row in rows if "sense" in row]
    groups = {"all": found, **{s: [r for r in found if r["sense"] == s] for s in sorted({r["sense"] for r in found})}}
    return {
        key: {
            name: {"p50": round(float(np.median(values)), 3), "p90": round(float(np.percentile(values, 90)), 3)}
            for name, own in groups.items()
            if (values := [row[key] for row in own])
        }
        for key in ("live_s", "told_s", "added_s")
    }
