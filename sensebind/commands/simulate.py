"""`sensebind simulate`: writes a recording of a simulated robot with five sensors, and its truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.arguments import require_apart, seed_number

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "simulate",
        help="write a recording of a simulated robot, and its truth",
        description="Write BAG (MCAP, five sensors), BAG.truth.tsv (onset and offset in s from the start, label) and, "
        "if sensors fail, BAG.faults.tsv. The same scenario and seed give the same bytes.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--scenario", metavar="NAME", help="a scenario of --list, or the path of a YAML file: see docs/simulation.md"
    )
    what.add_argument("--list", action="store_true", help="list the scenarios that are part of Sensebind")
    what.add_argument(
        "--survey",
        type=int,
        metavar="N",
        help="instead of a scenario: a survey of N objects or sounds, one in each room",
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--held-out", action="store_true", help="use rooms, colours, sizes and sounds that are not used in training"
    )
    parser.add_argument(
        "--duration", type=float, metavar="S", help="duration of the scenario in s (default: from the file)"
    )
    parser.add_argument(
        "--fault", action="append", default=[], metavar="SENSOR:FAULT[:AT[:FOR]]",
        help="make a sensor fail from AT (s, default: the start), FOR s (default: to the end), as in "
        "vision:dark:20:30; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--thermal-camera",
        choices=("radiometric", "white-hot", "black-hot", "iron"),
        help="output of the thermal camera of a survey: temperatures (radiometric) or images in a palette",
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="BAG", help="bag folder to write (default: out/NAME, or out/survey)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing BAG")


def run(args: argparse.Namespace) -> int:
    """Simulate and write the files. Raises `SensebindError`."""
    if args.list:
        return _list_scenarios()
    from dataclasses import replace

    from sensebind.replay.progress import progress
    from sensebind.simulation import scenario
    from sensebind.simulation.recorder import ThermalCamera, record
    from sensebind.simulation.survey import FIRST_HELD_OUT_SEED, survey_scenario

    if args.survey is not None:
        if not 1 <= args.survey <= scenario.MAX_EVENTS:
            raise scenario.ScenarioError(f"a survey has 1 to {scenario.MAX_EVENTS} objects, not {args.survey}")
        camera = ThermalCamera()
        if args.thermal_camera:  # another type of camera: other palette, noise, blur and resolution
            camera = ThermalCamera(args.thermal_camera, noise=0.3, blur=1.2, size=(80, 60))
        plan = survey_scenario(args.seed + (FIRST_HELD_OUT_SEED if args.held_out else 0), args.survey, camera)
    else:
        file = scenario.find_scenario(args.scenario)
        plan = scenario.read_scenario(file, args.seed, args.held_out, args.duration)
    faults = [scenario.parse_fault(text, plan.duration) for text in args.fault]
    plan = replace(plan, faults=(*plan.faults, *faults))
    out = args.out or Path("out") / ("survey" if args.survey is not None else file.stem)
    if args.survey is None:
        require_apart([out, Path(f"{out}.truth.tsv"), Path(f"{out}.faults.tsv")], [file])
    with progress("simulating", plan.duration) as shown:
        truth = record(plan, out, overwrite=args.overwrite, progress=shown.reach)
    print(f"{out}: {plan.duration:g} s, {len(truth)} events, {len(plan.faults)} faults; {out}.truth.tsv")
    return 0


def _list_scenarios() -> int:
    """Print the name and the first sentence of each shipped scenario."""
    from sensebind.simulation.scenario import scenario_summary, shipped_scenarios

    found = shipped_scenarios()
    for name, path in found.items():
        print(f"{name:<{max(map(len, found))}}  {scenario_summary(path)}")
    return 0
