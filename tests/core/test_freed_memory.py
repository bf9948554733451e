"""Memory that a long-running process has freed goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import time
from sensebind.fusion.core.freed_memory import freed_memory_returned
from sensebind.fusion.stream.memory.sizes import MEGABYTE, resident_bytes

SIZE = 100_000  # bytes of a block; glibc takes larger ones from the system one by one
with freed_memory_returned(0.2):
    blocks = [bytes([number % 255 + 1]) * SIZE for number in range(2000)]
    full = resident_bytes()
    survivors = blocks[::20]  # what is free lies between blocks that are used
    del blocks
    end = time.monotonic() + 20
    while resident_bytes() > full - 120 * MEGABYTE and time.monotonic() < end:
        time.sleep(0.05)
    print((full - resident_bytes()) // MEGABYTE, sum(map(len, survivors)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back on request")
def test_memory_between_blocks_that_are_still_used_goes_back_to_the_system() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    returned, kept = map(int, run.stdout.split())
    assert returned >= 120 and kept == 10_000_000
