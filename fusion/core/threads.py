"""Limits the threads that this process computes with: at most one per available core, and none that spin.

`set_thread_environment` is called once, when `sensebind` is imported. PyTorch and OpenCV read these environment
variables when they are first imported. A variable that the user has set is not changed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def set_thread_environment() -> None:
    """Set the environment variables that the libraries read.

    OpenMP threads sleep while they wait: on a busy computer, a spinning thread occupies a core that another thread
    needs, and everything becomes ten times slower. By default, PyTorch counts the cores of the machine, not those that
    a container may use. OpenCV's own threads spin before they sleep, and are no faster on images of camera size.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")


def set_switch_interval() -> None:
    """Let a waiting thread get the interpreter lock after 1 ms instead of Python's 5 ms: for a process that embeds live.

    The encoders release and acquire the lock a hundred times for each window, while messages keep another thread busy.
    """
    sys.setswitchinterval(0.001)


def available_cores() -> int:
    """Return the number of cores that this process may use, from its CPU affinity and its control group's quota."""
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
