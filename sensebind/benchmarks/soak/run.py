"""`sensebind bench soak`: a long run at more load than the device carries, with a slow reader and random faults.

First the windows per second that the device embeds in a replay are measured, as in `bench overload`. Then robots that
need `--load` times as many run in real time, so windows must be dropped all the time. Embeddings and events are
published as the bridge does. A fast reader counts what it lost. A slow reader takes one message a second. Every
`--faults-every` seconds a random fault begins (`soak.faults`), and ends before the next one.

`--nodes` runs the real nodes as processes over DDS instead: embedder, detector and bridge. Their sensors send at
`--load` times their rates. The run in one process is the default: it needs no ROS, and every sample that was given is
known, so that the accounting needs no sequence numbers of the middleware.

Exit status 1 if memory, threads or open files grow (`soak.flatness`), something is unaccounted for, a fault has no
recovery before the next one, or a thread or process ended.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness import command_line, sensor_load
from sensebind.benchmarks.harness.processes import ProcessError, ros_environment
from sensebind.benchmarks.overload import Load, planned_load
from sensebind.benchmarks.ros import ros_embedder_values
from sensebind.benchmarks.soak import flatness
from sensebind.benchmarks.soak.faults import ROBOT_FAULTS, FaultPlan, plan_faults
from sensebind.benchmarks.soak.robots import SoakRobots
from sensebind.benchmarks.stream import RealtimeBenchmark
from sensebind.fusion.core.errors import ConfigError

EXPECTED = (ProcessError, ConfigError, ModuleNotFoundError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the run (default: %(default)s)")
    text = "windows per second as a multiple of those that the device embeds in a replay (default: %(default)s)"
    parser.add_argument("--load", type=float, default=2.0, help=text)
    text = "seconds from one random fault to the next; 0: no faults (default: %(default)s)"
    parser.add_argument("--faults-every", type=float, default=20.0, help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults (default: %(default)s)")
    text = "run embedder, detector and bridge as processes over DDS, with sensors at --load times their rates"
    parser.add_argument("--nodes", action="store_true", help=text)
    parser.set_defaults(hop=0.2, lead_in=0.0)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report(
        "soak", measure, args, expected=EXPECTED, passed=lambda result: bool(result["passed"])
    )


def measure(args: argparse.Namespace, bench: RealtimeBenchmark | None = None) -> dict[str, Any]:
    """The figures of a run; `passed`: see the exit status above. Raises `ProcessError`, `ConfigError`, and with
    `--nodes` `ModuleNotFoundError` without rclpy."""
    spaces.resolve_defaults(args)
    if args.nodes and args.tiny:
        raise ConfigError("--nodes needs a space that the embedder can load: leave out --tiny")
    bench = bench or RealtimeBenchmark.load(args)
    load = planned_load(bench, args.load)
    conditions = {"space": bench.space.id, "weights": spaces.weights_description(bench.space)}
    seconds = 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        if args.nodes:
            load = load.of_one_robot()
            del bench  # the embedder loads the space too
            plan, start, found = _run_nodes(args, load, seconds, Path(folder))
        else:
            with SoakRobots(bench, load, Path(folder)) as robots:
                start = sensor_load.next_start_time()
                plan = plan_faults(robots.sensors, ROBOT_FAULTS, seconds, args.faults_every, args.seed, start)
                found = robots.run(plan, start, seconds, args.seed)
    faults = plan.figures(start)
    late = [row for row in faults if row["recovery_s"] is None]
    flat = flatness.is_flat(found["processes"])
    return {
        **conditions,
        "seconds": seconds,
        "seed": args.seed,
        "load": args.load,
        "robots": load.robots,
        **load.figures(),
        **found,
        "faults": faults,
        "not_recovered": len(late),
        "flat": flat,
        "rule": flatness.RULE,
        "passed": flat and not found["unaccounted"] and not late and found["ended"] == "none",
    }


def _run_nodes(
    args: argparse.Namespace, load: Load, seconds: float, folder: Path
) -> tuple[FaultPlan, int, dict[str, Any]]:
    environment = ros_environment()
    from sensebind.benchmarks.soak.nodes import SoakNodes
    from sensebind.benchmarks.soak.publisher import SensorRun

    modalities = list(sensor_load.MESSAGE_RATES)
    values = ros_embedder_values(argparse.Namespace(**vars(args) | {"modalities": modalities, "hop": load.hop}))
    sensors = SensorRun(modalities, args.load, seconds, args.faults_every, args.seed)
    return SoakNodes(values, folder, environment).run(sensors)
