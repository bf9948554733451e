"""`sensebind doctor`: its options, and which checks run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sensebind.commands.doctor.findings import print_findings
from sensebind.commands.doctor.installation import check_installation
from sensebind.commands.doctor.security import check_security
from sensebind.fusion.core.errors import SensebindError

if TYPE_CHECKING:
    from argparse import _SubParsersAction


LIVE_SECONDS = 3.0  # nodes publish their status once a second
MAX_SECONDS = 3600.0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds: use one above 0, at most {MAX_SECONDS:g}")
    return value


def add_parser(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation; print how to fix problems",
        description="Check the installation. Lines begin with ok, note (optional) or FAIL (required). Exit status 1 if "
        "a required part is missing.",
    )
    parser.add_argument(
        "--security",
        action="store_true",
        help="check instead who can reach the running nodes: ROS settings, open ports, sockets, and key files",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="print instead what running nodes received, used and dropped, by cause, from /diagnostics; exit status "
        "1 if anything is unaccounted, or no node answers",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help=f"with --live: how long to listen (default: {LIVE_SECONDS:g})",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        action="append",
        metavar="DIR",
        help="with --security: folder of keys to check (default: keys, if there is one)",
    )


def run(args: argparse.Namespace) -> int:
    """Print all findings as they are found. Exit status 1 if one that is not optional needs a fix. Raises
    `SensebindError` for options that do not fit together."""
    if args.keys and not args.security:
        raise SensebindError("--keys needs --security")
    if args.live and args.security:
        raise SensebindError("--live and --security are two checks: choose one")
    if args.live or args.seconds is not None:
        if not args.live:
            raise SensebindError("--seconds needs --live")
        from sensebind.commands.doctor.live import check_live  # it needs NumPy, and the other checks need no package

        return check_live(LIVE_SECONDS if args.seconds is None else args.seconds)
    return print_findings(check_security(args.keys) if args.security else check_installation())
