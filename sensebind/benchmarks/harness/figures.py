"""Machine and source of a run, quantiles, resources of processes, and the JSON file of figures."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention import SDPBackend

import sensebind.fusion

SOURCE_FOLDER = Path(sensebind.fusion.__file__).resolve().parent  # `fusion/`: the code that benchmarks measure
REPORTED_PACKAGES = [  # packages that affect speed
    *("sensebind", "torch", "numpy", "opencv-python-headless", "opencv-python", "safetensors"),
    *("ros-rclpy", "ros-rmw-fastrtps-cpp"),
]
# Fields of `nvidia-smi --query-gpu`. Each group is one query: a driver that lacks the second still answers the first.
GPU_STATE_FIELDS = (
    ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu"),
    ("clocks_event_reasons.active",),
)


def machine_info(device: str | None = "cpu") -> dict[str, Any]:
    """Describe the machine. `device`: the device that computes (None: it is left out, and no GPU is used)."""
    names = [line for line in _read_lines("/proc/cpuinfo") if line.startswith("model name")]
    found: dict[str, Any] = {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "amx": bool(torch.cpu.get_capabilities().get("amx_bf16")) if hasattr(torch.cpu, "get_capabilities") else None,
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
    }
    if device is None:
        return found
    found["attention"] = attention_backend(device)
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(torch.device(device))
        found["gpu"] = device_name(device)
        found["gpu_processors"] = properties.multi_processor_count
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["gpu_state"] = gpu_state(device)
    return found


def device_name(device: str) -> str:
    """Name and memory of a GPU; `cpu` for a CPU."""
    if not device.startswith("cuda"):
        return device
    properties = torch.cuda.get_device_properties(torch.device(device))
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def gpu_state(device: str) -> dict[str, str]:
    """Driver, clocks (MHz), power (W), temperature (°C) and the current causes of clock limits, as `nvidia-smi`
    prints them. Empty for a CPU, and if `nvidia-smi` does not answer."""
    if not device.startswith("cuda"):
        return {}
    uuid = getattr(torch.cuda.get_device_properties(torch.device(device)), "uuid", None)
    chosen = [] if uuid is None else ["-i", f"GPU-{uuid}"]
    result: dict[str, str] = {}
    for fields in GPU_STATE_FIELDS:
        values = _command_output(["nvidia-smi", *chosen, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
        first = values.splitlines()[:1]
        result |= dict(zip(fields, (v.strip() for v in first[0].split(",")), strict=False)) if first else {}
    return result


def attention_backend(device: str) -> str:
    """The kernel that PyTorch chooses for attention in ImageBind's image encoder: the name of an `SDPBackend`, or
    `unknown` if PyTorch does not report it."""
    choose = getattr(torch, "_fused_sdp_choice", None)  # private to PyTorch
    if choose is None:
        return "unknown"
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    query = torch.zeros(1, 16, 257, 80, device=device, dtype=dtype)
    return SDPBackend(choose(query, query, query)).name


def source_version() -> dict[str, str]:
    """Identify the code that was measured: a digest of all Python files of `fusion/`, and in a checkout git's commit
    (with `changed` if `fusion/` has uncommitted changes)."""
    total = hashlib.sha256()
    for path in sorted(SOURCE_FOLDER.rglob("*.py")):
        total.update(path.relative_to(SOURCE_FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    result = {"digest": total.hexdigest()[:12]}
    git = ["git", "-C", str(SOURCE_FOLDER)]
    if commit := _command_output([*git, "rev-parse", "--short=12", "HEAD"]):
        changed = _command_output([*git, "status", "--porcelain", "--untracked-files=no", "--", "."])
        result["commit"] = f"{commit} changed" if changed else commit
    return result


def _command_output(command: Sequence[str]) -> str:
    """Output of a command; empty if the command is missing, fails, or does not end within 10 s."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def package_versions() -> dict[str, str]:
    """Versions of the packages that affect speed."""
    result = {"python": platform.python_version()}
    if torch.version.cuda:
        result |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    for name in REPORTED_PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            continue
    return result


def with_conditions(bench: str, figures: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
    """`figures` with the conditions of the run."""
    return {**run_conditions(bench, device), "figures": dict(figures)}


def run_conditions(bench: str, device: str | None = "cpu") -> dict[str, Any]:
    """Conditions of a run: date, command, machine, versions, source. `device`: see `machine_info`."""
    return {
        "bench": bench,
        "date": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
        "command": shlex.join(["sensebind", *sys.argv[1:]]),
        "machine": machine_info(device),
        "versions": package_versions(),
        "source": source_version(),
    }


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, and create its folder. NaN and infinity become null. Raises `OSError`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = target.with_name(f".{target.name}.part")  # if writing is interrupted, the earlier file remains
    try:
        whole.write_text(json.dumps(_nan_to_null(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        whole.replace(target)
    finally:
        whole.unlink(missing_ok=True)


def _nan_to_null(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _nan_to_null(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_nan_to_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def quantiles(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """p50, p95, p99 and max in the unit of the values, and the count. Without values: NaN, and count 0."""
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


class RingBuffer:
    """The newest `size` numbers. All memory is allocated at once, so that it does not look like a leak."""

    def __init__(self, size: int = 1 << 16) -> None:
        self._values = np.full(size, np.nan)
        self.count = 0  # numbers added so far

    def add(self, value: float) -> None:
        self._values[self.count % len(self._values)] = value
        self.count += 1

    def values(self) -> npt.NDArray[np.float64]:
        """The numbers, oldest first."""
        at = self.count % len(self._values)
        both = np.concatenate([self._values[at:], self._values[:at]])
        return both[~np.isnan(both)]


class ResourceSampler:
    """Context manager: its thread records the resources of this process and the use of a GPU every `period` seconds.

    `rows` hold `s`, the seconds since the start, and the figures of `process_resources` and `gpu_usage`.
    """

    def __init__(self, period: float = 1.0, device: str = "cpu") -> None:
        self._period, self._device = period, device
        self.rows: list[dict[str, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> ResourceSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(self._period):
            self.rows.append(
                {"s": round(time.monotonic() - began, 1), **process_resources(), **gpu_usage(self._device)}
            )

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


def process_resources() -> dict[str, float]:
    """Resources of this process: resident memory in MB, threads, open files."""
    status = {line.split(":")[0]: line.split() for line in _read_lines("/proc/self/status")}
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return {
        "rss_mb": round(int(status["VmRSS"][1]) / 1024, 2) if "VmRSS" in status else math.nan,
        "threads": int(status["Threads"][1]) if "Threads" in status else threading.active_count(),
        "files": files,
    }


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
    for line in _read_lines(f"/proc/{pid}/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def print_figures(figures: Mapping[str, Any], indent: str = "") -> None:
    """Print a table: one line for each figure, groups indented."""
    for name, value in figures.items():
        if isinstance(value, Mapping) and all(not isinstance(v, Mapping | list) for v in value.values()):
            print(f"{indent}{name:<34}" + "  ".join(f"{k} {_format_value(v)}" for k, v in value.items()))
        elif isinstance(value, Mapping):
            print(f"{indent}{name}")
            print_figures(value, indent + "  ")
        elif isinstance(value, list):
            for item in value:
                print(
                    f"{indent}{name:<34}"
                    + "  ".join(f"{k} {_format_value(v)}" for k, v in item.items() if not isinstance(v, Mapping))
                )
        else:
            print(f"{indent}{name:<34}{_format_value(value)}")


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
