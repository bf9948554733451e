"""What the command lines of the benchmarks share: options, and a run from the measurement to the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sensebind.benchmarks.harness import figures, sensor_load


def add_space_options(parser: argparse.ArgumentParser) -> None:
    """Declare the space of a benchmark that compares it with nothing. Others use `spaces.add_arguments`."""
    parser.add_argument("--space", default="starter", help="(default: %(default)s)")
    parser.add_argument("--weights", default="", help="of the space")


def add_hop(parser: argparse.ArgumentParser, default: float = 0.2) -> None:
    """Declare the hop of all windows."""
    text = "seconds from window to window (default: %(default)s)"
    parser.add_argument("--hop", type=float, default=default, help=text)


def add_modalities(parser: argparse.ArgumentParser, text: str = "") -> None:
    """Declare the modalities, all of the simulated robot unless some are named. `text`: what the help calls them."""
    parser.add_argument(
        "--modalities", nargs="+", default=list(sensor_load.MESSAGE_RATES), help=f"{text}(default: all five)"
    )


def add_output(parser: argparse.ArgumentParser, text: str = "write the figures to this JSON file as well") -> None:
    """Declare the file that `run_and_report` writes. `text`: its help."""
    parser.add_argument("-o", "--output", metavar="F", help=text)


def run_and_report(
    bench: str,
    measure: Callable[[argparse.Namespace], Mapping[str, Any]],
    args: argparse.Namespace,
    *,
    device: str | None = None,
    expected: tuple[type[Exception], ...] = (),
    passed: Callable[[Mapping[str, Any]], bool] = lambda figures: True,
) -> int:
    """Measure, print a table, write the file of `--output`. Exit status 0, or 1 where the figures do not pass.

    `device`: the one that the file describes (None: `args.device`, as `measure` leaves it, or the CPU). Exceptions of
    the types `expected` are printed and give status 1; others are raised, as is `OSError` for the file.
    """
    try:
        result = measure(args)
    except expected as error:
        print(f"bench {bench}: {error}", file=sys.stderr)
        return 1
    figures.print_figures(result)
    if args.output:
        figures.write_json(
            args.output, figures.with_conditions(bench, result, device or vars(args).get("device", "cpu"))
        )
    return 0 if passed(result) else 1
