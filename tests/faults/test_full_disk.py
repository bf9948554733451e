"""A full disk under the log of a node does not stop it. What commands do then is in tests/commands/test_outputs.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.fault_runs import Publisher, toy_environment
from helpers.ros_processes import parameter_arguments, peer
from helpers.sensor_publisher import EMBEDDER_VALUES
from sensebind.fusion.io import messages


@pytest.mark.slow  # the quick sibling: the outputs of commands in tests/commands/test_outputs.py
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_an_embedder_whose_log_cannot_be_written_goes_on_and_ends_as_usual(tmp_path: Path) -> None:
    environment = toy_environment(tmp_path)
    arguments = parameter_arguments({"space": "toy", **EMBEDDER_VALUES})
    command = [sys.executable, "-m", "sensebind.nodes.embedder", *arguments]
    with peer(environment) as me, open("/dev/full", "w") as full:
        fused = me.subscribe(messages.EMBEDDING_TYPE, "embeddings/fused")
        embedder = subprocess.Popen(command, env=environment, stdout=full, stderr=full)
        publisher = Publisher(environment)
        try:
            me.wait_until(lambda: len(fused) > 5, 60, "embeddings")
            embedder.send_signal(signal.SIGINT)
            assert embedder.wait(60) == 0
        finally:
            publisher.process.kill()
            embedder.kill()
