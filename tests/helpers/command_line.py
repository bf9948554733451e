"""Runs the command line of this checkout as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from helpers.paths import ROOT

# A line of progress, which long work writes to stderr where it is not a terminal: "replay: 2 of 20 s (10 %), …".
PROGRESS_LINE = re.compile(r"[^:\n]+: \d+ (of \d+ )?\w+ .*\n")


def command(*arguments: object) -> list[str]:
    """The command `sensebind` with these arguments."""
    return [sys.executable, "-m", "sensebind.cli", *map(str, arguments)]


def environment(variables: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The environment of this process, in which the package of this checkout is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def sensebind(
    *arguments: object,
    folder: Path = ROOT,
    variables: Mapping[str, str] = MappingProxyType({}),
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run `sensebind` in `folder` to its end. `variables` are added to the environment."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, cwd=folder, env=environment(variables)
    )


def without_progress(stderr: str) -> str:
    """The lines of stderr that are no progress: how many of these there are depends on the load of the machine."""
    return PROGRESS_LINE.sub("", stderr).strip()
