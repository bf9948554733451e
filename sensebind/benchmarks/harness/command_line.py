"""Options that benchmarks share, and `run_and_report`: measure, print, write, return the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sensebind.benchmarks.harness import report_file, sensor_load
from sensebind.fusion.core.atomic import require_writable


def add_space_options(parser: argparse.ArgumentParser) -> None:
    """Declare the space and its weights only. `spaces.add_arguments` also declares dtype, device and output."""
    parser.add_argument("--space", default="starter", help="space to measure (default: %(default)s)")
    parser.add_argument("--weights", default="", help="weight file or folder (default: the space's own)")


def add_hop(parser: argparse.ArgumentParser, default: float = 0.2) -> None:
    """Declare the hop of all windows."""
    text = "seconds from the end of one window to the end of the next (default: %(default)s)"
    parser.add_argument("--hop", type=float, default=default, help=text)


def add_modalities(parser: argparse.ArgumentParser, text: str = "") -> None:
    """Declare the modalities; the default is all five of the simulated robot. `text`: the start of the help."""
    parser.add_argument(
        "--modalities", nargs="+", default=list(sensor_load.MESSAGE_RATES), help=f"{text}(default: all five)"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Declare the file that `run_and_report` writes."""
    parser.add_argument("-o", "--output", metavar="F", help="also write the figures to this JSON file")


def run_and_report(
    bench: str,
    measure: Callable[[argparse.Namespace], Mapping[str, Any]],
    args: argparse.Namespace,
    *,
    device: str | None = None,
    expected: tuple[type[Exception], ...] = (),
    passed: Callable[[Mapping[str, Any]], bool] = lambda result: True,
) -> int:
    """Measure, print a table, write the file of `--output`. Returns the exit status: 0 if `passed(figures)`, else 1.

    `device`: the device that the file describes (None: `args.device` after `measure`, or the CPU). Exceptions of the
    types `expected` are printed and give status 1. Others are raised, and `OSError` if the file cannot be written.
    """
    if args.output:
        require_writable(Path(args.output).parent)
    try:
        result = measure(args)
    except expected as error:
        print(f"bench {bench}: {error}", file=sys.stderr)
        return 1
    report_file.print_figures(result)
    if args.output:
        report_file.write_json(
            args.output, report_file.with_conditions(bench, result, device or vars(args).get("device", "cpu"))
        )
    return 0 if passed(result) else 1
