"""A pipe or a device in place of a file that a library reads is an error at once: it would wait, or read for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sys
from pathlib import Path
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.events.prompt_calibration import find_calibration
from sensebind.fusion.io.zmq_publisher import ZmqPublisher
from sensebind.fusion.models.spokes.spoke import read_spec

folder, address = Path(sys.argv[1]), "tcp://127.0.0.1:*"
for path in (folder / "pipe.key", Path("/dev/zero")):
    for read in (
        lambda: read_spec(path),
        lambda: find_calibration(str(path), "toy@1", {}),
        lambda: ZmqPublisher(address, str(path), str(folder)),
        lambda: ZmqPublisher(address, str(folder / "good.key_secret"), str(folder)),
    ):
        try:
            read()
        except SensebindError as error:
            print(error)
"""


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no device without an end")
def test_a_pipe_and_a_device_as_spoke_calibration_or_key_are_errors_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key")
    key = "0" * 40
    (tmp_path / "good.key_secret").write_text(f'curve\n    public-key = "{key}"\n    secret-key = "{key}"\n')
    run = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert [line.count("it is a pipe or a device") for line in run.stdout.splitlines()] == [1] * 8, run.stdout
