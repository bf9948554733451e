"""The command `sensebind`. Each subcommand is a module of `commands`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

from sensebind import __version__
from sensebind.fusion.core.errors import printable

COMMANDS = (
    "demo", "replay", "topics", "embed", "align", "evaluate", "calibrate", "simulate", "bench", "weights", "keys",
    "doctor",
)  # fmt: skip


MAX_LOG_LENGTH = 4000  # characters of one line of the log


class LogFormatter(logging.Formatter):
    """One line for each record, which may quote a file: names in a recording may have newlines and any length."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(record.getMessage(), MAX_LOG_LENGTH)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    result = argparse.ArgumentParser(
        prog="sensebind", description="One embedding space for all sensors of a robot: embed, replay, train, evaluate."
    )
    result.add_argument("--version", action="version", version=f"sensebind {__version__}")
    subparsers = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"sensebind.commands.{name}").add_parser(subparsers)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand. Exit status: 0, 1 if it found a problem, 2 for wrong arguments or input, 130 after Ctrl-C."""
    name = ""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name or sign that the terminal cannot show is no error
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:  # it writes the log of a program that sets up none
        logging.lastResort.setFormatter(LogFormatter())
    try:
        args = build_parser().parse_args(argv)
        name = f" {args.command}"
        return int(import_module(f"sensebind.commands.{args.command}").run(args))
    except KeyboardInterrupt:
        print(f"sensebind{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader of the output closed the pipe, as `head` does
    except Exception as error:
        if not is_expected(error):
            raise
        with suppress(OSError):  # the log of stderr may be on the disk that is full
            print(f"sensebind{name}: {printable(error, MAX_LOG_LENGTH)}{missing_package_hint(error)}", file=sys.stderr)
        return 2


def is_expected(error: Exception) -> bool:
    """Whether the cause is in the arguments, the input or a named file: then `main` prints the message without a
    traceback. An error of a file names it: "[Errno 21] Is a directory: 'out'". One of a full disk that names none is of
    stdout."""
    from sensebind.fusion.core.atomic import FULL
    from sensebind.fusion.core.errors import SensebindError, is_of_a_file

    return (
        isinstance(error, SensebindError)
        or is_of_a_file(error)
        or (isinstance(error, OSError) and error.errno in FULL)
        or bool(missing_package_hint(error))
    )


def missing_package_hint(error: Exception) -> str:
    """What to do if a package of others is missing; empty for other errors."""
    own = isinstance(error, ModuleNotFoundError) and (error.name or "sensebind").partition(".")[0] == "sensebind"
    return "; run `sensebind doctor`" if isinstance(error, ModuleNotFoundError) and not own else ""


if __name__ == "__main__":
    sys.exit(main())
