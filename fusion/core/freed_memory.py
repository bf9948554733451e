"""Gives memory that was freed back to the system, and leaves objects that stay out of the search for garbage.

Each arena of glibc keeps what was freed between blocks that are still used. The images of a camera are such blocks, so
the memory of a node that receives them would grow by hundreds of MB in an hour, although it uses no more.

Python searches all objects for garbage when a quarter of them is new. The 200,000 objects of the imports stay for good.
With them, one search stops all threads for 0.1 s, and hours of garbage are kept until the next one.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RETURN_PERIOD = 5.0  # s; in 30 s, an embedder of cameras uses most of what was given back again


def return_freed_memory() -> None:
    """Give back what is free now. Other C libraries than glibc have no such function; then nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def freed_memory_returned(period: float = RETURN_PERIOD) -> Iterator[None]:
    """Call `return_freed_memory` every `period` s until the block ends, in a thread of its own."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(period):
            return_freed_memory()

    threading.Thread(target=run, name="freed memory", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def freeze_objects() -> None:
    """Leave the objects that exist now out of the search for garbage, until `gc.unfreeze`. Takes about 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.collect()  # so that Python counts no frozen object when it decides whether to search


@contextmanager
def objects_frozen() -> Iterator[None]:
    """Leave the objects that exist now out of the search for garbage until the block ends."""
    freeze_objects()
    try:
        yield
    finally:
        gc.unfreeze()
