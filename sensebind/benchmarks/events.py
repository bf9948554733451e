"""`sensebind bench events`: the delay from the onset of an event to its ONSET message, over DDS.

A simulated recording is played in real time to the embedder and the detector, each in its own process. For each true
onset, in s:
- `live_s`: the wall time from the moment at which the player's clock passed the onset to the arrival of the message.
- `design_delay_s`: the part that is due to the design (windows, hop, `min_duration`): the message's stamp minus the
  true onset.
- `added_s`: the rest, due to lateness, the wait for the slowest modality, computing and DDS.
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
from sensebind.replay.progress import track
from sensebind.simulation.recorder import GroundTruthEvent

STARTUP_TIMEOUT = 90.0  # s for all processes to find each other
# An ONSET message belongs to a true event of its label if its stamp is at most so many s before onset or after offset.
MATCH_BEFORE_ONSET, MATCH_AFTER_OFFSET = 0.5, 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--scenario", type=Path, metavar="F", help="scenario, YAML (default: config/scenarios/house.yaml)"
    )
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], metavar="N",
        help="seeds of the held-out scenario, one run for each (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="length of the scenario in s (default: as in the file)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="F", help="ROS parameter file (default: the package's starter.yaml)"
    )
    command_line.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Exit status 1 if ROS is missing or a process failed."""
    return command_line.run_and_report("events", measure, args, expected=(ProcessError, ModuleNotFoundError))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One run for each seed; the figures of all runs together. Raises `ProcessError`, and `ModuleNotFoundError` without
    rclpy."""
    seeds = track(args.seed, "runs", "runs")
    return combine_runs([{"seed": seed, **row} for seed in seeds for row in measure_run(args, seed)])


def measure_run(args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Simulate, play and record the events of one run; see `onset_delays`."""
    from sensebind.fusion.config.files import shipped_parameter_file
    from sensebind.simulation import scenario
    from sensebind.simulation.messages import SIMULATION_START
    from sensebind.simulation.recorder import record

    simulated = scenario.read_scenario(
        args.scenario or shipped_parameter_file("scenarios/house.yaml"), seed, True, args.seconds
    )
    with tempfile.TemporaryDirectory() as folder:
        truth = record(simulated, Path(folder) / "recording")
        parameters = Path(folder) / "parameters.yaml"
        parameters.write_text(
            parameters_with_prompts(args.config or shipped_parameter_file("starter.yaml"), {t.label for t in truth})
        )
        events, clock = play_and_record_events(Path(folder) / "recording", parameters, Path(folder))
    return onset_delays(events, clock, truth, SIMULATION_START)


def parameters_with_prompts(config: Path, labels: set[str]) -> str:
    """Text of the parameter file `config`, with prompts for the labels of the catalogue that it lacks."""
    from sensebind.fusion.config.files import read_parameter_file
    from sensebind.simulation.catalogue import CATALOGUE

    given = read_parameter_file(config, "detector")
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    prompts = document.setdefault("detector", {}).setdefault("ros__parameters", {}).setdefault("prompts", {})
    for label in sorted(labels & set(CATALOGUE)):
        if f"prompts.{label}" not in given:
            prompts[label] = list(CATALOGUE[label].phrases)
    return str(yaml.safe_dump(document))


def play_and_record_events(
    recording: Path, parameters: Path, logs: Path
) -> tuple[list[tuple[float, Event]], list[tuple[float, int]]]:
    """Play the recording to the nodes in real time, with log files in the folder `logs`.

    Returns (arrival, event) of each event message, and (arrival, ns) of each clock message; arrivals are
    `time.monotonic`. Raises `ProcessError`.
    """
    import rclpy

    environment = ros_environment()
    from rosgraph_msgs.msg import Clock

    from sensebind.nodes.support.listener import Listener
    from sensebind.nodes.support.processes import node_process

    received: list[tuple[float, Event]] = []
    clock: list[tuple[float, int]] = []
    ros = ["--ros-args", "--params-file", str(parameters)]
    with ExitStack() as stack:
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        listener = Listener(lambda event: received.append((time.monotonic(), event)))
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
                        raise ProcessError(f"{name} stopped with exit status {process.returncode}:\n{log}")
                if time.monotonic() > deadline:
                    raise ProcessError(f"{what} took longer than {seconds:.0f} s")

        spin(listener.is_ready, STARTUP_TIMEOUT, "starting the nodes")
        arguments = ["--ros-args", "-p", f"recording:={recording}", "-p", "delay:=4.0"]
        player = stack.enter_context(
            node_process("player", arguments, environment=environment, log=logs / "player.log")
        )
        spin(lambda: player.poll() is not None, 3600, "playing")
        quiet = time.monotonic() + 2
        spin(lambda: time.monotonic() > quiet, 10, "waiting for the last messages")
    if not clock:
        raise ProcessError("the player published no clock")
    return received, clock


def onset_delays(
    events: Sequence[tuple[float, Event]],
    clock: Sequence[tuple[float, int]],
    truth: Sequence[GroundTruthEvent],
    epoch: int,
) -> list[dict[str, Any]]:
    """The delays of each true onset: see the module. The row of a missed event has no delays.

    `events`, `clock`: see `play_and_record_events`. `epoch`: the time in ns from which the times of `truth` count.
    """
    clock_times = [stamp for _, stamp in clock]
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
            competent = [e for e in event.evidence if e.competence > 0]
            modality = max(competent, key=lambda e: e.score).modality if competent else ""
            by_design = (event.tick - epoch) / SECOND - item.onset
            began = bisect_left(clock_times, epoch + round(item.onset * SECOND))
            live = arrived - clock[min(began, len(clock) - 1)][0]
            row |= {"modality": modality, "live_s": round(live, 3), "design_delay_s": round(by_design, 3)}
            row["added_s"] = round(live - by_design, 3)
        rows.append(row)
    return rows


def combine_runs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of all rows of `onset_delays`, and the rows."""
    reported = sum("modality" in row for row in rows)
    return {"events": len(rows), "reported": reported, **delay_summary(rows), "onsets": rows}


def delay_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and 90th percentile of each delay, of all detected events and by the modality with the highest score."""
    found = [row for row in rows if "modality" in row]
    modalities = sorted({row["modality"] for row in found})
    groups = {"all": found, **{m: [row for row in found if row["modality"] == m] for m in modalities}}
    return {
        key: {
            name: {"p50": round(float(np.median(values)), 3), "p90": round(float(np.percentile(values, 90)), 3)}
            for name, own in groups.items()
            if (values := [row[key] for row in own])
        }
        for key in ("live_s", "design_delay_s", "added_s")
    }
