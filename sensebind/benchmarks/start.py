"""`sensebind bench start`: time and memory of a new process until its first vector.

For imagebind_huge beside the time to read its file, both with the file's pages dropped from the system's cache where
the system allows it. Without `--weights`, synthetic ones are written to a temporary file first, in bf16.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sensebind.benchmarks.harness import figures, robot, shell, spaces
from sensebind.benchmarks.harness.processes import ProcessError, child_environment
from sensebind.benchmarks.harness.weights import synthetic
from sensebind.fusion.models.imagebind.network import MODALITIES, NAME

CHILD = f"import sys; from {__package__} import start; start.child(sys.argv[1])"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    shell.add_modalities(parser)
    parser.add_argument("--times", type=int, default=2, help="runs; the fastest counts (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return shell.run("start", measure, args)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Each run in a process of its own. Raises `ProcessError` where one fails."""
    spaces.settle(args)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights
        if args.space == NAME and not weights:
            weights = str(Path(folder) / "synthetic.safetensors")
            _write_synthetic(weights)
        asked = {
            "space": args.space, "weights": weights, "device": args.device, "dtype": args.dtype,
            "modalities": args.modalities, "tiny": args.tiny,
        }  # fmt: skip
        runs = [_run(asked) for _ in range(args.times)]
        result = min(runs, key=lambda told: told["first_vector_s"])
        if weights and Path(weights).is_file():
            _drop(Path(weights))
            read = _read(Path(weights))
            result |= {
                "file_gb": round(Path(weights).stat().st_size / 1e9, 3),
                "read_file_s": round(read, 2),
                "first_vector_times_reading": round(result["first_vector_s"] / max(read, 1e-9), 2),
            }
    return result


def child(asked: str) -> None:
    """What the process does: prints JSON."""
    given = json.loads(asked)
    imported = time.time() - given["began"]
    from sensebind.fusion.inference.engine import Engine

    args = argparse.Namespace(**given)
    space = spaces.load(args, args.modalities)
    loaded = time.time() - given["began"]
    engine, first = Engine(space), {}
    specs = spaces.specs(space, args.modalities)
    for modality, windows in robot.windows({m: s for m, s in specs.items() if m in space.modalities}, 1).items():
        engine.embed(windows)
        first[modality] = round(time.time() - given["began"], 3)
    told: dict[str, Any] = {
        "space": space.id,
        "imported_s": round(imported, 3),
        "loaded_s": round(loaded, 3),
        "first_vector_s": min(first.values()),
        "all_senses_s": max(first.values()),
        "by_sense_s": first,
        "peak_memory_mb": round(figures.peak_resident() / 2**20, 1),
    }
    if args.device.startswith("cuda"):
        import torch

        told["gpu_peak_mb"] = round(torch.cuda.max_memory_reserved() / 2**20, 1)
    print(json.dumps(told))


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["weights"] and Path(asked["weights"]).is_file():
        _drop(Path(asked["weights"]))
    began = time.time()
    command = [sys.executable, "-c", CHILD, json.dumps({**asked, "began": began})]
    ended = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    if ended.returncode:
        raise ProcessError(f"the process failed: {ended.stderr.strip()[-800:]}")
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def _write_synthetic(path: str) -> None:
    import torch
    from safetensors.torch import save_file

    state: dict[str, torch.Tensor] = {}
    maker = "cuda" if torch.cuda.is_available() else "cpu"
    for modality in MODALITIES:
        made = synthetic([modality], maker)
        state |= {k: (v.bfloat16() if v.ndim else v).cpu().contiguous() for k, v in made.items()}
    save_file(state, path)


def _drop(path: Path) -> None:
    """Ask the system to forget the file's pages, so that it is read from the disk again."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(path: Path) -> float:
    """Seconds to read a file once, in blocks of 16 MB."""
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        block = bytearray(1 << 24)
        while file.readinto(block):
            pass
    return time.perf_counter() - began
