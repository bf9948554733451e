"""How many threads this process should compute with: no more than there are cores for it, and none that spins.

`set_thread_environment` is called once, when `sensebind` is imported; PyTorch and OpenCV read what it sets when they
are first imported. A variable that the user has set stays as it is.
"""

from __future__ import annotations

import os
from pathlib import Path


def set_thread_environment() -> None:
    """Tell the libraries, by their environment variables.

    OpenMP's threads sleep while they wait: on a robot's busy computer a spinning thread takes the core that the other
    one needs, and everything is ten times slower. PyTorch by itself counts the machine's cores, not those that a
    container may use. OpenCV's own threads spin before they sleep, and gain nothing on images of a camera's size.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")


def available_cores() -> int:
    """Processor cores that this process may use: its affinity, and the share that its control group allows."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in (_cgroup_v2_cores(), _cgroup_v1_cores()):
        if quota is not None:
            count = min(count, max(1, round(quota)))
    return max(1, count)


def _cgroup_v2_cores() -> float | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _cgroup_v1_cores() -> float | None:
    folder = Path("/sys/fs/cgroup/cpu")
    try:
        limit, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return None if limit <= 0 else limit / period
