"""`sensebind bench model`: each encoder alone, by batch size, compared with a baseline and with a matrix product.

The baseline embeds one preprocessed window at a time with the eager model, in float32 and in bf16. The tested way is
the engine's: on a GPU raw windows through the `GpuRunner`, including copies and preprocessing; on a CPU preprocessed
windows in one call. The windows are clearly different: `wrong_window` counts the vectors that are closer to another
window's float32 vector than to their own. Times are medians of back-to-back runs; a GPU's clocks are recorded before
and after. Floating-point operations are counted by `torch.utils.flop_counter` on one window, and compared with a square
matrix product that is timed in the same run.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.encoders.correctness import compare_with_reference, reference_vectors
from sensebind.benchmarks.harness import command_line, environment, resources, sensor_load
from sensebind.benchmarks.harness.parts import Report
from sensebind.benchmarks.harness.timing import device_seconds, wall_seconds
from sensebind.fusion.core.samples import VISION
from sensebind.fusion.core.space import Space
from sensebind.fusion.inference.cuda import GpuRunner, empty_cache, is_out_of_memory
from sensebind.fusion.models.imagebind.space import ImageBindSpace, resolve_dtype
from sensebind.replay.progress import track

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GPU_MATRIX_SIZE, CPU_MATRIX_SIZE = 8192, 1536  # rows and columns of the matrices whose product is timed
DISTINCT_WINDOWS = 16  # different windows; larger batches repeat them
# Targets of imagebind_huge's vision encoder on an H100, batch 32.
TARGETS = {"times_float32_eager_1": 12.0, "times_bf16_eager_1": 5.0, "share_of_matmul": 0.55, "min_cosine": 0.999}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    command_line.add_modalities(parser, "encoders to measure, separated by spaces ")
    text = "batch sizes, separated by spaces (default: 1, 2, 4, … 256)"
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCH_SIZES), help=text)
    text = "time of each measurement in s (default: %(default)s)"
    parser.add_argument("--seconds", type=float, default=0.5, help=text)
    text = "maximum time of a batch in s; larger batches are skipped (default: %(default)s)"
    parser.add_argument("--longest", type=float, default=4.0, help=text)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    return command_line.run_and_report("model", measure, args)


def measure(args: argparse.Namespace, report: Report = lambda result: None) -> dict[str, Any]:
    """Measure all encoders; `report` receives the figures so far after each batch size."""
    spaces.resolve_defaults(args)
    rate = matmul_tflops(args.device, args.seconds)
    plain_dtypes = ["float32"] + ["bf16"] * ("bf16" in rate)
    result: dict[str, Any] = {"matmul_tflops": rate, "input": sensor_load.input_digest(), "encoders": {}}
    on_gpu = args.device.startswith("cuda")
    result["device"] = environment.device_name(args.device)
    if on_gpu:
        result["gpu_state_before"] = environment.gpu_state(args.device)
    # One encoder at a time is in memory, in up to three copies; imagebind_huge's vision takes 2.5 GB in float32.
    for modality in track(args.modalities, "encoders", "encoders"):
        fast = spaces.load(args, [modality])
        if modality not in fast.modalities:
            result["encoders"][modality] = {"skipped": f"{fast.id} has no encoder for it"}
            continue
        result |= {"space": fast.id, "weights": spaces.weights_description(fast), "dtype": _dtype_name(fast)}
        plain = {dtype: spaces.load(args, [modality], dtype) for dtype in plain_dtypes}
        for found in measure_encoder(modality, fast, plain, args, rate):
            result["encoders"][modality] = found
            if on_gpu and modality == VISION and "32" in found["by_batch"]:
                result["targets"] = compare_with_targets(found["by_batch"]["32"])
            report(result)
        del fast, plain
        if on_gpu:
            result["gpu_state_after"] = environment.gpu_state(args.device)
            empty_cache()
        report(result)
    return result


def compare_with_targets(row: Mapping[str, Any]) -> dict[str, Any]:
    """Compare vision's figures at batch 32 with `TARGETS`."""
    got = {name: row.get(name, math.nan) for name in TARGETS}
    return {name: {"wanted": t, "got": got[name], "reached": bool(got[name] >= t)} for name, t in TARGETS.items()}


def measure_encoder(
    modality: str, fast: Space, eager: Mapping[str, Space], args: argparse.Namespace, rate: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Measure one modality. Yields the figures so far after each batch size: operations and memory of a window, ms of
    the baseline (`plain_ms`), and in `by_batch` the ms, ratios, cosine and memory of each batch size."""
    single = eager["float32"]
    wanted = reference_vectors(
        single, sensor_load.distinct_windows(spaces.specs(fast, [modality]), DISTINCT_WINDOWS)[modality]
    )
    windows, truth = wanted.windows, wanted.vectors
    rows = [single.tensor(window) for window in windows]
    flop = flops_per_window(single, modality, rows[0])
    plain = {
        name: wall_seconds(lambda s=space: s.embed(modality, rows[0][None]), args.seconds)  # type: ignore[misc]
        for name, space in eager.items()
    }
    runner = GpuRunner.for_space(fast)
    sent = rows if runner is None else [runner.device_input(window) for window in windows]
    result: dict[str, Any] = {
        "gflop_per_window": round(flop / 1e9, 3),
        "weights_mb": round(_weight_bytes(fast, modality) / 1e6, 1),
        "row_kb": round(sent[0].numel() * sent[0].element_size() / 1e3, 1),
        "plain_ms": {name: round(1e3 * seconds, 3) for name, seconds in plain.items()},
        "by_batch": {},
    }
    took = 0.0
    for batch in args.batches:
        yield result
        if 2.5 * took > args.longest:
            break
        chosen = [sent[i % len(sent)] for i in range(batch)]
        try:
            took, vectors, memory = _time_batch(fast, runner, modality, chosen, args)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            result["by_batch"][str(batch)] = {"failed": "out of memory"}
            break
        per_window = took / batch
        tflops = flop / per_window / 1e12
        result["by_batch"][str(batch)] = {
            "ms": round(1e3 * took, 3),
            "windows_per_s": round(1 / per_window, 1),
            "tflops": round(tflops, 3),
            "share_of_matmul": round(tflops / (rate.get(_dtype_name(fast)) or math.nan), 3),
            **{f"times_{name}_eager_1": round(seconds / per_window, 2) for name, seconds in plain.items()},
            **compare_with_reference(vectors, truth, [i % len(truth) for i in range(batch)]),
            "memory_mb": round(memory / 1e6, 1),
        }
    if runner is not None:
        result["graphs"] = {"captured": runner.graph_count(), "shapes": runner.shape_count()}
        runner.free_memory()
    yield result


def _time_batch(
    space: Space, runner: GpuRunner | None, modality: str, rows: Sequence[Tensor], args: argparse.Namespace
) -> tuple[float, Tensor, int]:
    """Seconds of a batch, its vectors, and bytes of memory: the peak of the GPU, or the resident memory on a CPU."""
    if runner is None:
        batch = torch.stack(list(rows))
        vectors = space.embed(modality, batch)
        return wall_seconds(lambda: space.embed(modality, batch), args.seconds), vectors, resources.resident_bytes()
    torch.cuda.reset_peak_memory_stats(runner.device)
    vectors = runner.launch(modality, rows).fetch()
    runner.launch(modality, rows).fetch()
    previous = runner.launch(modality, rows)
    ended = [time.perf_counter()]
    while len(ended) < 4 or ended[-1] - ended[0] < args.seconds:
        newest = runner.launch(modality, rows)  # gathered and copied while the previous batch is computed
        previous.fetch()
        previous = newest
        ended.append(time.perf_counter())
    previous.fetch()
    took = statistics.median(b - a for a, b in zip(ended[1:], ended[2:], strict=False))
    return took, vectors, torch.cuda.max_memory_allocated(runner.device)


def matmul_tflops(device: str, seconds: float = 0.5) -> dict[str, float]:
    """TFLOP/s of a square matrix product of random numbers, by dtype: the median of back-to-back products over
    `seconds`, at the same clocks as the encoders."""
    gpu = device.startswith("cuda")
    size = GPU_MATRIX_SIZE if gpu else CPU_MATRIX_SIZE
    result = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("float32", torch.float32)):
        if not gpu and dtype not in (torch.float32, resolve_dtype("auto", device)):
            continue  # the CPU emulates it: it would take minutes
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        took = device_seconds(lambda a=a, b=b: a @ b, device, seconds)  # type: ignore[misc]
        result[name] = round(2 * size**3 / took / 1e12, 4)
    return result


def flops_per_window(space: Space, modality: str, row: Tensor) -> int:
    """Floating-point operations of one window: a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not counted
        space.embed(modality, row[None])
    return int(counter.get_total_flops())


def _weight_bytes(space: Space, modality: str) -> float:
    if isinstance(space, ImageBindSpace):
        return float(sum(p.numel() * p.element_size() for p in space.load_encoder(modality).parameters()))
    return math.nan


def _dtype_name(space: Space) -> str:
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "float32"}
    return names.get(space.dtype, "float32")
