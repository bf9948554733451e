"""Memory, threads, open files, processor time and GPU use of processes, and their growth during a run."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from typing_extensions import Self  # in Python 3.10


class PeriodicSampler:
    """Context manager: its thread calls `sample` every `period` seconds."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def sample(self, seconds: float) -> None:
        """Record what there is now, `seconds` after the start."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(self._period):
            self.sample(time.monotonic() - began)


class ResourceSampler(PeriodicSampler):
    """Records the resources of this process and the use of a GPU.

    `rows` hold `s`, the seconds since the start, and the figures of `process_resources` and `gpu_usage`.
    """

    def __init__(self, period: float = 1.0, device: str = "cpu") -> None:
        super().__init__(period)
        self._device = device
        self.rows: list[dict[str, float]] = []

    def sample(self, seconds: float) -> None:
        """Add a row."""
        self.rows.append({"s": round(seconds, 1), **process_resources(), **gpu_usage(self._device)})

    def summary(self, warm_up_fraction: float = 0.2) -> dict[str, Any]:
        """First, last, largest and mean value of each figure and its growth per hour by least squares, without the
        first `warm_up_fraction` of the rows."""
        rows = self.rows[int(warm_up_fraction * len(self.rows)) :]
        result: dict[str, Any] = {"samples": len(rows)}
        for name in rows[0] if rows else ():
            if name == "s":
                continue
            values = [row.get(name, math.nan) for row in rows]
            growth = least_squares_slope([row["s"] for row in rows], values) * 3600
            result[name] = {
                "first": values[0],
                "last": values[-1],
                "max": max(values),
                "mean": round(float(np.mean(values)), 2),
                "growth_per_hour": round(growth, 3),
            }
        return result


def least_squares_slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Growth of `values` per unit of `times`, by least squares; NaN for fewer than two values."""
    if len(times) < 2:
        return math.nan
    x = np.asarray(times, float) - np.mean(times)
    return float(x @ (np.asarray(values, float) - np.mean(values)) / max(float(x @ x), 1e-12))


# How the names of shared memory begin in /proc/PID/maps; other shared mappings are files.
SHARED_MEMORY = ("/dev/shm/", "/dev/zero", "/memfd:", "/SYSV")


def process_resources(pid: int | None = None) -> dict[str, float]:
    """Resources of a process (None: this one), memory in MB; NaN if it has ended.

    `rss_mb`: resident memory. `private_mb`: that without shared memory. `shared_mb`: the size of the shared memory that
    is mapped, resident or not: pages of it become resident when they are first used, so it is what they can reach.
    """
    folder = Path("/proc") / ("self" if pid is None else str(pid))
    status = {line.split(":")[0]: line.split() for line in read_lines(str(folder / "status"))}
    try:
        files: float = len(os.listdir(folder / "fd"))
    except OSError:
        files = math.nan
    rss, shared = (int(status[name][1]) if name in status else math.nan for name in ("VmRSS", "RssShmem"))
    return {
        "rss_mb": round(rss / 1024, 2),
        "private_mb": round((rss - shared) / 1024, 2),
        "shared_mb": round(_mapped_shared_memory(folder) / 2**20, 2) if status else math.nan,
        "threads": int(status["Threads"][1]) if "Threads" in status else math.nan,
        "files": files,
    }


def _mapped_shared_memory(folder: Path) -> int:
    """The size of the shared memory that a process has mapped, in bytes; 0 if it has ended."""
    size = 0
    for line in read_lines(str(folder / "maps")):  # START-END PERMISSIONS OFFSET DEVICE INODE PATH
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1].endswith("s") and fields[5].startswith(SHARED_MEMORY):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            size += end - start
    return size


def gpu_usage(device: str) -> dict[str, float]:
    """Memory that PyTorch reserved (MB), and the percentage of time in which kernels ran; empty without a GPU."""
    if not device.startswith("cuda"):
        return {}
    found = {"gpu_mb": round(torch.cuda.memory_reserved(torch.device(device)) / 2**20, 1)}
    try:
        found["gpu_percent"] = float(torch.cuda.utilization(torch.device(device)))
    except Exception:  # NVIDIA's library is missing or has the wrong version, or the driver lacks it
        return found
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time in s that a process has used so far, in all its threads; NaN if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process in bytes (None: this process)."""
    return _proc_status_bytes(pid or os.getpid(), "VmRSS")


def peak_resident_bytes() -> int:
    """Peak resident memory of this process in bytes.

    Unlike the peak of `getrusage`, it does not include the process that this one was forked from.
    """
    return _proc_status_bytes(os.getpid(), "VmHWM")


def _proc_status_bytes(pid: int, name: str) -> int:
    """A size in bytes from /proc/PID/status; 0 if it is missing."""
    for line in read_lines(f"/proc/{pid}/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def read_lines(path: str) -> list[str]:
    """Lines of a file of /proc; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
