"""Digests of weight files, which identify their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

BLOCK_BYTES = 2**20  # bytes that are read at a time


def sha256_of(path: str | Path, progress: Callable[[int], None] = lambda size: None) -> str:
    """SHA-256 of a file, in hexadecimal. `progress` is called with the size of each block that was read. Raises
    `OSError` if it cannot be read."""
    total = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
            progress(len(block))
    return total.hexdigest()
