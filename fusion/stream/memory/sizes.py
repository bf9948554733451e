"""How many bytes samples and windows use, and how many this process uses."""

from __future__ import annotations

import os
from pathlib import Path

from sensebind.fusion.core.samples import Reading, Sample
from sensebind.fusion.core.windows import Window

MEGABYTE = 2**20
SAMPLE_OVERHEAD_BYTES = 350  # of a sample beside its data, on CPython


def sample_bytes(sample: Sample) -> int:
    """Approximate size of a sample in bytes. The values of a reading count twice: a window also has them as an array
    (`ReadingSeries`)."""
    data = sample.data
    return SAMPLE_OVERHEAD_BYTES + (2 * data.values.nbytes if isinstance(data, Reading) else data.data.nbytes)


def window_bytes(window: Window) -> int:
    """Approximate size of a window in bytes, with all its samples: also those that it shares with other windows."""
    return sum(map(sample_bytes, window.samples))


def resident_bytes() -> int:
    """The resident memory of this process in bytes; 0 if the system does not show it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
