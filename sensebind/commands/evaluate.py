"""`sensebind evaluate`: how much the starter space knows, on data that it was not made from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from sensebind.fusion.evaluation import Row


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure the starter space on real data",
        description="zeroshot: phrases for photographs and retrieval between senses, for the map that ships and those "
        "that were tried. audio: a linear probe on the audio trunk. What is not there is left out.",
    )
    parser.add_argument("what", choices=("zeroshot", "audio"), help="what to measure")
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), metavar="DIR",
        help="folder with evaluation/roadscene, seven_scenes and esc10 in it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"), metavar="DIR",
        help="stamps of Debian's package tuxpaint-stamps-default (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure and print. Raises `SensebindError`."""
    from sensebind.fusion import evaluation
    from sensebind.fusion.models.registry import resolve_device
    from sensebind.fusion.models.starter import StarterSpace

    space = StarterSpace.load(modalities=["vision", "text"], device=resolve_device(args.device))
    print(f"space {space.id}, {space.dimension} numbers")
    if args.what == "audio":
        accuracy, clips = evaluation.probe_audio(space, args.shared / "evaluation" / "esc10")
        print(f"ESC-10, linear probe, each fold told by the others: {accuracy:.3f} of {clips} clips (chance 0.100)")
        return 0
    print(table(evaluation.measure(space, args.shared, args.stamps)))
    if args.stamps.is_dir():
        print(f"\nbest factor of the cosines on the other stamps: {evaluation.best_scale(space, args.stamps):g}")
    return 0


def table(rows: list[Row]) -> str:
    """Maps down, figures across, in Markdown; below them the number of items and what chance would give."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    about = {name: figure for row in rows for name, figure in row.figures.items()}
    lines = ["| map | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for row in rows:
        cells = [f"{row.figures[name][0]:.3f}" if name in row.figures else "–" for name in names]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    lines.append("| chance | " + " | ".join(f"{about[name][2]:.3f}" for name in names) + " |")
    lines.append("| items | " + " | ".join(str(about[name][1]) for name in names) + " |")
    return "\n".join(lines)
