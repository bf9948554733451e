"""What all benchmarks share: the machine they ran on, quantiles, processor time, the JSON file."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def machine(device: str = "cpu") -> dict[str, Any]:
    """Where and with what a run was made."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    found: dict[str, Any] = {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "amx": bool(torch.cpu.get_capabilities().get("amx_bf16")) if hasattr(torch.cpu, "get_capabilities") else None,
        "load_average_at_end": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(torch.device(device))
        found["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return found


def versions() -> dict[str, str]:
    """Of what decides the speed."""
    result = {"python": platform.python_version()}
    for name in ("sensebind", "torch", "numpy", "opencv-python-headless", "ros-rclpy", "ros-rmw-fastrtps-cpp"):
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            continue
    return result


def report(bench: str, figures: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
    """`figures` with all that must be known to judge them."""
    return {
        "bench": bench,
        "date": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
        "command": shlex.join(["sensebind", *sys.argv[1:]]),
        "machine": machine(device),
        "versions": versions(),
        "figures": dict(figures),
    }


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """As JSON, with its folder."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def quantiles(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """p50, p95, p99, max and their count; NaN where there is none. In the values' unit."""
    if not len(values):
        return dict.fromkeys(("p50", "p95", "p99", "max"), float("nan")) | {"count": 0}
    p50, p95, p99, top = np.percentile(np.asarray(values, float), [50, 95, 99, 100])
    return {
        "p50": round(p50, 3),
        "p95": round(p95, 3),
        "p99": round(p99, 3),
        "max": round(top, 3),
        "count": len(values),
    }


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, in all its threads; NaN where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int | None = None) -> int:
    """Bytes of a process in memory."""
    for line in _lines(f"/proc/{pid or os.getpid()}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def show(figures: Mapping[str, Any], indent: str = "") -> None:
    """A table on the terminal: a line a figure, groups indented."""
    for name, value in figures.items():
        if isinstance(value, Mapping) and all(not isinstance(v, Mapping | list) for v in value.values()):
            print(f"{indent}{name:<34}" + "  ".join(f"{k} {_short(v)}" for k, v in value.items()))
        elif isinstance(value, Mapping):
            print(f"{indent}{name}")
            show(value, indent + "  ")
        elif isinstance(value, list):
            for item in value:
                print(
                    f"{indent}{name:<34}"
                    + "  ".join(f"{k} {_short(v)}" for k, v in item.items() if not isinstance(v, Mapping))
                )
        else:
            print(f"{indent}{name:<34}{_short(value)}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
