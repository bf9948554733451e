"""SIGINT ends every node with one line and exit status 0, also while it starts."""

from __future__ import annotations

import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.patrols import record_patrol
from helpers.ros_processes import Executable, parameter_arguments, ros_environment

NODES = ("embedder", "detector", "bridge", "event_recorder", "player")


def wait_for_handler(process: Executable, number: int = signal.SIGTERM, timeout: float = 30.0) -> None:
    """Wait until the process handles this signal: Python itself does not handle SIGTERM, so the node does."""
    deadline = time.monotonic() + timeout
    status = Path(f"/proc/{process.pid}/status")
    while time.monotonic() < deadline:
        caught = next((line for line in status.read_text().splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
        if int(caught.split()[1], 16) >> (number - 1) & 1:
            return
        time.sleep(0.002)
    pytest.fail(f"{process.command} does not handle signal {number}:\n{process.output}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc shows which signals a process handles")
@pytest.mark.parametrize("node", NODES)
def test_a_node_ends_in_order_at_any_moment_of_its_start(node: str, tmp_path: Path) -> None:
    arguments = []
    if node == "player":
        record_patrol(tmp_path / "bag", duration=1.0)
        arguments = [str(tmp_path / "bag")]
    chance = random.Random(node)
    longest = 6.0 if node == "embedder" else 2.5  # s, in which a node is ready on an idle machine

    def interrupted_after(seconds: float) -> None:
        values = {"address": f"ipc://{tmp_path}/socket-{seconds}"} if node == "bridge" else {}
        command = [sys.executable, "-m", f"sensebind.nodes.{node}", *arguments, *parameter_arguments(values)]
        process = Executable(command, ros_environment("sensebind_msgs"))
        try:
            wait_for_handler(process)
            time.sleep(seconds)
            assert process.stop(timeout=30) == 0, (seconds, process.output)
            assert process.output.count("stopped by SIGINT") == 1, (seconds, process.output)
            assert "stopped by SIGINT" in process.lines[-1], (seconds, process.output)
            for word in ("Traceback", "Exception", "not configured", "KeyboardInterrupt"):
                assert word not in process.output, (seconds, process.output)
        finally:
            process.kill()

    delays = [0.0, *(chance.uniform(0.0, longest) for _ in range(5 if node == "embedder" else 2))]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(interrupted_after, delays))
