"""Conditions of a run: machine, GPU, versions of packages and source, command and date."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend

import sensebind.fusion
from sensebind.benchmarks.harness.resources import read_lines

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


def machine_info(device: str | None = "cpu") -> dict[str, Any]:
    """Describe the machine. `device`: the device that computes (None: it is left out, and no GPU is used)."""
    names = [line for line in read_lines("/proc/cpuinfo") if line.startswith("model name")]
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
