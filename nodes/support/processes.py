"""Starts and stops the executables as separate processes: for the demo, the benchmarks and tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def node_process(
    name: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the executable `name` (embedder, detector, …) with ROS arguments until the block ends. Then send SIGINT.

    Its output is written to `log`. It is killed if it does not stop within 10 s.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"sensebind.nodes.{name}", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
        )
        try:
            yield process
        finally:
            stop_process(process, 10)


def stop_process(process: subprocess.Popen[Any], seconds: float) -> None:
    """Send SIGINT to a process that still runs, and wait for its end; kill it if it takes longer than `seconds`."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
