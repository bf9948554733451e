"""Python in a process of its own, with the package of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import ROOT


def run_python(*arguments: str, folder: Path, timeout: float = 600.0) -> str:
    """Run ``python ARGUMENTS`` in `folder` to its end. Returns its output; fails the test if its status is not 0."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
