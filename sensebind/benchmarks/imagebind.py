"""`sensebind bench imagebind`: speed, memory and precision of the full-size model on a CPU.

Without `--weights` the weights are random, in the published sizes. Time and memory do not depend on their values. The
cosines are those of a network whose attention is far from uniform. The report names the weights.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensebind.benchmarks.encoders.synthetic_weights import synthetic_weights
from sensebind.benchmarks.harness.resources import peak_resident_bytes
from sensebind.fusion.core.samples import IMU, TEXT, VISION
from sensebind.fusion.models.imagebind import weights as files
from sensebind.fusion.models.imagebind.network import (
    ENCODER_CONFIGS,
    MODALITIES,
    VOCABULARY_SIZE,
    ImageBind,
    modality_of_entry,
)
from sensebind.fusion.models.imagebind.space import ImageBindSpace
from sensebind.fusion.models.precision import torch_dtypes

# Targets.
MIN_COSINE = 0.999
MAX_MEMORY_RATIO = 1.15  # peak resident memory relative to the size of the weights, in bf16
MAX_IMU_BYTES = 0.6e9
MIN_BF16_SPEEDUP = 4.0  # vision, bf16 relative to float32, on a CPU with AMX


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--weights", type=Path, help="checkpoint (default: random weights of the same sizes)")
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs of each encoder; the fastest counts (default: %(default)s)"
    )
    text = "encoders to measure, separated by commas (default: %(default)s)"
    parser.add_argument("--modalities", default=",".join(MODALITIES), help=text)


def run(args: argparse.Namespace) -> int:
    """Print the report. Exit status 0 if all targets are reached, else 1."""
    print(f"weights   {args.weights or 'synthetic: random numbers in the sizes of imagebind_huge'}")
    print(f"threads   {torch.get_num_threads()}")
    print("\n           ms per window              speed-up       cosine with float32")
    print("           float32    bf16    fp16    bf16   fp16      bf16      fp16")
    reached = [_report_encoder(modality, args.weights, args.repeat) for modality in args.modalities.split(",")]
    reached.append(_report_memory(args.weights))
    return 0 if all(reached) else 1


def _report_encoder(modality: str, weights: Path | None, repeat: int) -> bool:
    times, cosines = compare_precisions(modality, weights, repeat)
    faster = {name: times["float32"] / value for name, value in times.items()}
    reached = min(cosines.values()) >= MIN_COSINE
    if modality == VISION and torch.cpu.get_capabilities().get("amx_bf16"):
        reached &= faster["bf16"] >= MIN_BF16_SPEEDUP
    print(f"{modality:<10}{times['float32']:>8.1f}{times['bf16']:>8.1f}{times['fp16']:>8.1f}", end="")
    print(f"{faster['bf16']:>8.2f}{faster['fp16']:>7.2f}", end="")
    print(f"{cosines['bf16']:>10.6f}{cosines['fp16']:>10.6f}  {_verdict(reached)}", flush=True)
    return reached


def _report_memory(weights: Path | None) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bf16.safetensors"
        if weights:
            files.convert(weights, {path: list(files.read_entries(weights))}, torch.bfloat16)
        else:
            save_file({k: v.bfloat16() if v.ndim else v for k, v in synthetic_weights(MODALITIES).items()}, path)
        size, whole, imu = path.stat().st_size, peak_load_memory(path, MODALITIES), peak_load_memory(path, [IMU])
    print(f"\npeak memory of a process that loads all in bf16   {whole / 1e9:.2f} GB, ", end="")
    print(
        f"{whole / size:.3f} × the weights (at most {MAX_MEMORY_RATIO})  {_verdict(whole <= MAX_MEMORY_RATIO * size)}"
    )
    print(f"peak memory of a process that loads imu alone     {imu / 1e9:.2f} GB ", end="")
    print(f"(at most {MAX_IMU_BYTES / 1e9})  {_verdict(imu <= MAX_IMU_BYTES)}")
    return whole <= MAX_MEMORY_RATIO * size and imu <= MAX_IMU_BYTES


def _verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def compare_precisions(modality: str, weights: Path | None, repeat: int) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds of one window by precision (the fastest run, the precisions alternate), and cosines with float32."""
    state = (
        files.read_tensors(weights, lambda n: modality_of_entry(n) == modality)
        if weights
        else synthetic_weights([modality])
    )
    models = {}
    for name, dtype in torch_dtypes().items():
        with torch.device("meta"):
            models[name] = ImageBind(modalities=[modality])
        models[name].load_checkpoint({k: v.to(dtype) if v.ndim else v.float() for k, v in state.items()})
    batch = random_input(modality)
    vectors = {name: model.embed(modality, batch) for name, model in models.items()}  # also the warm-up
    best = dict.fromkeys(models, math.inf)
    for _ in range(repeat):
        for name, model in models.items():
            start = time.perf_counter()
            model.embed(modality, batch)
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    cosines = {name: float(v[0] @ vectors["float32"][0]) for name, v in vectors.items() if name != "float32"}
    return best, cosines


def random_input(modality: str) -> Tensor:
    """A random preprocessed window of `modality`, as a batch of one."""
    generator = torch.Generator().manual_seed(1)
    if modality == TEXT:
        ids = torch.randint(1, VOCABULARY_SIZE - 2, (1, 77), generator=generator)
        ids[:, 0], ids[:, 10], ids[:, 11:] = VOCABULARY_SIZE - 2, VOCABULARY_SIZE - 1, 0
        return ids
    shape = [224 if isinstance(n, str) else n for n in ENCODER_CONFIGS[modality].input_shape]
    return torch.randn(1, *shape, generator=generator)


def peak_load_memory(weights: Path, modalities: Iterable[str]) -> int:
    """Peak resident memory in bytes of a process that loads the space and embeds nothing."""
    script = (
        f"import sys; from {__package__} import imagebind as b; "
        "print(b.load_and_measure(sys.argv[1], sys.argv[2].split(',')))"
    )
    command = [sys.executable, "-c", script, str(weights), ",".join(modalities)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def load_and_measure(weights: str, modalities: list[str]) -> int:
    """Load the space in bf16. Returns the peak resident memory of this process in bytes."""
    ImageBindSpace.load(modalities=modalities, weights=weights, dtype="bf16")
    return peak_resident_bytes()
