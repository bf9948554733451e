"""`sensebind bench start`: time and memory of a new process until its first vector.

If the weights are one file, the time to read it is measured too. The file's pages are dropped from the system's cache
before, if the system allows it. For imagebind_huge without `--weights`, synthetic weights are first written to a
temporary file in bf16.
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

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.encoders.synthetic_weights import synthetic_weights
from sensebind.benchmarks.harness import command_line, resources, sensor_load
from sensebind.benchmarks.harness.processes import ProcessError, subprocess_environment
from sensebind.fusion.models.imagebind.network import MODALITIES, SPACE_NAME
from sensebind.replay.progress import track

CHILD_COMMAND = f"import sys; from {__package__} import start; start.child_main(sys.argv[1])"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    command_line.add_modalities(parser, "encoders to load, separated by spaces ")
    parser.add_argument(
        "--times", type=int, default=2, help="number of runs; the fastest one counts (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report("start", measure, args)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each run in its own process. Raises `ProcessError` if one fails."""
    spaces.resolve_defaults(args)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights
        if args.space == SPACE_NAME and not weights:
            weights = str(Path(folder) / "synthetic.safetensors")
            _write_synthetic(weights)
        asked = {
            "space": args.space, "weights": weights, "device": args.device, "dtype": args.dtype,
            "modalities": args.modalities, "tiny": args.tiny,
        }  # fmt: skip
        runs = [_run_child(asked) for _ in track(range(args.times), "processes", "starts")]
        result = min(runs, key=lambda report: report["first_vector_s"])
        if weights and Path(weights).is_file():
            _evict_page_cache(Path(weights))
            read = _file_read_seconds(Path(weights))
            result |= {
                "file_gb": round(Path(weights).stat().st_size / 1e9, 3),
                "read_file_s": round(read, 2),
                "first_vector_times_reading": round(result["first_vector_s"] / max(read, 1e-9), 2),
            }
    return result


def child_main(asked: str) -> None:
    """Entry point of the process: load the space, embed one window of each modality, print the times as JSON."""
    given = json.loads(asked)
    imported = time.time() - given["began"]
    from sensebind.fusion.inference.engine import Engine

    args = argparse.Namespace(**given)
    space = spaces.load(args, args.modalities)
    loaded = time.time() - given["began"]
    engine, first = Engine(space), {}
    specs = spaces.specs(space, args.modalities)
    for modality, windows in sensor_load.windows({m: s for m, s in specs.items() if m in space.modalities}, 1).items():
        engine.embed(windows)
        first[modality] = round(time.time() - given["began"], 3)
    report: dict[str, Any] = {
        "space": space.id,
        "imported_s": round(imported, 3),
        "loaded_s": round(loaded, 3),
        "first_vector_s": min(first.values()),
        "all_modalities_s": max(first.values()),
        "by_modality_s": first,
        "peak_memory_mb": round(resources.peak_resident_bytes() / 2**20, 1),
    }
    if args.device.startswith("cuda"):
        import torch

        report["gpu_peak_mb"] = round(torch.cuda.max_memory_reserved() / 2**20, 1)
    print(json.dumps(report))


def _run_child(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["weights"] and Path(asked["weights"]).is_file():
        _evict_page_cache(Path(asked["weights"]))
    began = time.time()
    command = [sys.executable, "-c", CHILD_COMMAND, json.dumps({**asked, "began": began})]
    ended = subprocess.run(command, capture_output=True, text=True, env=subprocess_environment())
    if ended.returncode:
        raise ProcessError(
            f"the measured process failed with exit status {ended.returncode}: {ended.stderr.strip()[-800:]}"
        )
    report: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return report


def _write_synthetic(path: str) -> None:
    import torch
    from safetensors.torch import save_file

    state: dict[str, torch.Tensor] = {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for modality in MODALITIES:
        made = synthetic_weights([modality], device)
        state |= {k: (v.bfloat16() if v.ndim else v).cpu().contiguous() for k, v in made.items()}
    save_file(state, path)


def _evict_page_cache(path: Path) -> None:
    """Ask the system to drop the file's pages from its cache, so that it is read from the disk again."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _file_read_seconds(path: Path) -> float:
    """Seconds to read a file once, in blocks of 16 MB."""
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        block = bytearray(1 << 24)
        while file.readinto(block):
            pass
    return time.perf_counter() - began
