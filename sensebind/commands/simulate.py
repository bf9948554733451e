"""`sensebind simulate`: a recording of a simulated robot with all five senses, and the truth beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="record a simulated robot, with the truth beside it",
        description="Write BAG (MCAP, all five senses), BAG.truth.tsv (onset, offset, label) and, where sensors fail, "
        "BAG.faults.tsv. The same scenario and seed give the same bytes.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scenario", type=Path, metavar="F", help="YAML: see docs/simulation.md and config/scenarios")
    what.add_argument("--tour", type=int, metavar="N", help="pass N stations, each with a thing of its own kind")
    parser.add_argument("--seed", type=int, default=0, help="what is left to chance (default: %(default)s)")
    parser.add_argument("--held-out", action="store_true", help="rooms, shades and voices that training never saw")
    parser.add_argument("--duration", type=float, metavar="S", help="of a scenario, whatever the file says")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="SENSOR:FAULT[:AT[:FOR]]",
        help="let a sensor fail from AT (s, default: the start) for so long; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--thermal-camera", choices=("radiometric", "white-hot", "black-hot", "iron"), help="of a tour: its palette"
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="BAG", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Simulate and write. Raises `SensebindError`."""
    from dataclasses import replace

    from sensebind.simulation import scenario
    from sensebind.simulation.recorder import ThermalCamera, record
    from sensebind.simulation.survey import FIRST_HELD_OUT_SEED, tour

    if args.tour is not None:
        if args.tour < 1:
            raise scenario.ScenarioError(f"a tour has one station or more, not {args.tour}")
        camera = ThermalCamera()
        if args.thermal_camera:  # another make altogether
            camera = ThermalCamera(args.thermal_camera, noise=0.3, blur=1.2, size=(80, 60))
        plan = tour(args.seed + (FIRST_HELD_OUT_SEED if args.held_out else 0), args.tour, camera)
    else:
        plan = scenario.read_scenario(args.scenario, args.seed, args.held_out, args.duration)
    faults = [scenario.parse_fault(text, plan.duration) for text in args.fault]
    plan = replace(plan, faults=(*plan.faults, *faults))
    truth = record(plan, args.out, overwrite=args.overwrite)
    print(f"{args.out}: {plan.duration:g} s, {len(truth)} events, {len(plan.faults)} faults; {args.out}.truth.tsv")
    return 0
