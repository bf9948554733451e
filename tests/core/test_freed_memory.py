"""Memory that a long-running process has freed goes back to the system."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from sensebind.fusion.core.freed_memory import objects_frozen

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


def test_objects_that_stay_are_not_searched_for_garbage_and_later_garbage_is_found_early() -> None:
    staying = [[number] for number in range(100_000)]
    before = gc.get_freeze_count()
    with objects_frozen():
        assert gc.get_freeze_count() > before + len(staying) and len(gc.get_objects()) < 1000
        kept: list[object] = []
        for number in range(100_000):
            garbage: list[object] = [number]
            garbage.append(garbage)
            kept.append([garbage])  # it lives for a time, so that it becomes old
            if len(kept) > 2000:
                kept.clear()
        assert len(gc.get_objects()) < 40_000
    assert gc.get_freeze_count() == 0
