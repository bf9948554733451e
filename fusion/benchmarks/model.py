"""`sensebind bench model`: each encoder by itself, by batch size, beside the plain way and the device's own speed.

The plain way is what one would write first: one prepared window at a time through the eager model, in float32 and in
bf16. The fast way is the engine's: on a GPU raw windows through the `Runner`, its copies and preparation counted; on a
CPU prepared windows in one call. Floating-point work is counted by `torch.utils.flop_counter` on one window, and
compared with a square matrix product that was timed in the same run.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sensebind.fusion.benchmarks import figures, robot, spaces
from sensebind.fusion.config import FREE, embedder_parameters, resolve, window_specs
from sensebind.fusion.models.imagebind_space import ImageBindSpace, precision
from sensebind.fusion.models.registry import Space
from sensebind.fusion.runner import Runner, lacks_memory
from sensebind.fusion.samples import VISION

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DIFFERENT = 16  # windows that differ; larger batches repeat them
# Of imagebind_huge on an H100, to be reached: vision, batch 32.
TARGETS = {"times_float32_eager_1": 12.0, "times_bf16_eager_1": 5.0, "share_of_matmul": 0.55, "cosine": 0.999}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.add_argument("--modalities", nargs="+", default=list(robot.RATES), help="(default: all five)")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), help="(default: 1, 2, 4, … 256)")
    parser.add_argument("--seconds", type=float, default=0.5, help="that each is repeated for (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=4.0, help="s that a batch may take (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    result = measure(args)
    figures.show(result)
    if args.output:
        figures.write(args.output, figures.report("model", result, args.device))
    return 0


def measure(args: argparse.Namespace, tell: Callable[[dict[str, Any]], None] = lambda result: None) -> dict[str, Any]:
    """All encoders; `tell` hears what there is so far after each."""
    spaces.settle(args)
    rate = matrix_rate(args.device, args.seconds)
    plain_dtypes = ["float32"] + ["bf16"] * ("bf16" in rate)
    result: dict[str, Any] = {"matmul_tflops": rate, "input": robot.digest(), "encoders": {}}
    # One encoder at a time is in memory: in each of three precisions, imagebind_huge's vision takes 2.5 GB in float32.
    for modality in args.modalities:
        fast = spaces.load(args, [modality])
        if modality not in fast.modalities:
            result["encoders"][modality] = {"skipped": f"{fast.id} has no encoder for it"}
            continue
        result |= {"space": fast.id, "weights": spaces.weights_of(fast), "dtype": _dtype(fast)}
        plain = {dtype: spaces.load(args, [modality], dtype) for dtype in plain_dtypes}
        result["encoders"][modality] = encoder(modality, fast, plain, args, rate)
        tell(result)
        del fast, plain
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()
    reached = result["encoders"].get(VISION, {}).get("by_batch", {}).get("32")
    if reached and args.device.startswith("cuda"):
        result["targets"] = {n: {"wanted": t, "got": reached.get(n, math.nan)} for n, t in TARGETS.items()}
    return result


def encoder(
    modality: str, fast: Space, eager: Mapping[str, Space], args: argparse.Namespace, rate: Mapping[str, float]
) -> dict[str, Any]:
    """One modality: {flop, plain ms, by_batch: {size: {ms, windows_per_s, tflops, ratios, cosine, memory}}}."""
    values = resolve(embedder_parameters([modality]), {}, free=FREE)
    windows = robot.windows(window_specs(values, fast.apertures), DIFFERENT)[modality]
    single = eager["float32"]
    rows = [single.tensor(window) for window in windows]
    flop = operations(single, modality, rows[0])
    truth = torch.cat([single.embed(modality, row[None]) for row in rows])
    plain = {
        name: _repeat(lambda s=space: s.embed(modality, rows[0][None]), args.seconds)  # type: ignore[misc]
        for name, space in eager.items()
    }
    runner = Runner.of(fast)
    sent = rows if runner is None else [runner.raw(window) for window in windows]
    result: dict[str, Any] = {
        "gflop_per_window": round(flop / 1e9, 3),
        "weights_mb": round(_bytes(fast, modality) / 1e6, 1),
        "row_kb": round(sent[0].numel() * sent[0].element_size() / 1e3, 1),
        "plain_ms": {name: round(1e3 * seconds, 3) for name, seconds in plain.items()},
        "by_batch": {},
    }
    took = 0.0
    for batch in args.batches:
        if 2.5 * took > args.longest:
            break
        chosen = [sent[i % len(sent)] for i in range(batch)]
        try:
            took, vectors, memory = _fast(fast, runner, modality, chosen, args)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            result["by_batch"][str(batch)] = {"failed": "out of memory"}
            break
        per_window = took / batch
        tflops = flop / per_window / 1e12
        result["by_batch"][str(batch)] = {
            "ms": round(1e3 * took, 3),
            "windows_per_s": round(1 / per_window, 1),
            "tflops": round(tflops, 3),
            "share_of_matmul": round(tflops / rate.get(_dtype(fast), math.nan), 3),
            **{f"times_{name}_eager_1": round(seconds / per_window, 2) for name, seconds in plain.items()},
            "cosine": round(float((vectors * truth[torch.arange(batch) % len(truth)]).sum(1).min()), 6),
            "memory_mb": round(memory / 1e6, 1),
        }
    if runner is not None:
        result["graphs"] = f"{runner.captured()} of {runner.shapes()} shapes"
        runner.release()
    return result


def _fast(
    space: Space, runner: Runner | None, modality: str, rows: Sequence[Tensor], args: argparse.Namespace
) -> tuple[float, Tensor, int]:
    """Seconds of a batch, its vectors, and the bytes of memory at the peak."""
    if runner is None:
        batch = torch.stack(list(rows))
        vectors = space.embed(modality, batch)
        return _repeat(lambda: space.embed(modality, batch), args.seconds), vectors, figures.resident()
    torch.cuda.reset_peak_memory_stats(runner.device)
    vectors = runner.launch(modality, rows).fetch()
    runner.launch(modality, rows).fetch()
    count, began = 0, time.perf_counter()
    before = runner.launch(modality, rows)
    while True:  # one batch is gathered and copied while another is computed, as in the scheduler
        under_way = runner.launch(modality, rows)
        before.fetch()
        count, before = count + 1, under_way
        if time.perf_counter() - began > args.seconds and count >= 3:
            break
    before.fetch()
    took = (time.perf_counter() - began) / (count + 1)
    return took, vectors, torch.cuda.max_memory_allocated(runner.device)


def _repeat(work: Callable[[], Any], seconds: float) -> float:
    """Seconds of one call: the median of those that fit, three at least, after one that is not counted."""
    work()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matrix_rate(device: str, seconds: float = 0.5) -> dict[str, float]:
    """TFLOP/s of a square matrix product of random numbers, by dtype; the best of several."""
    gpu = device.startswith("cuda")
    size = 8192 if gpu else 1536
    result = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("float32", torch.float32)):
        if not gpu and dtype not in (torch.float32, precision("auto", device)):
            continue  # emulated: it would take minutes and tell nothing
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best, began = math.inf, time.perf_counter()
        for count in range(200):
            start = time.perf_counter()
            for _ in range(4 if gpu else 1):
                product = a @ b
            if gpu:
                torch.cuda.synchronize()
            took = (time.perf_counter() - start) / (4 if gpu else 1)
            best = min(best, took) if count else best
            if count >= 3 and time.perf_counter() - began > seconds:
                break
        del product
        result[name] = round(2 * size**3 / best / 1e12, 4)
    return result


def operations(space: Space, modality: str, row: Tensor) -> int:
    """Floating-point operations of one window, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not counted
        space.embed(modality, row[None])
    return int(counter.get_total_flops())


def _bytes(space: Space, modality: str) -> float:
    if isinstance(space, ImageBindSpace):
        return float(sum(p.numel() * p.element_size() for p in space._model(modality).parameters()))
    return math.nan


def _dtype(space: Space) -> str:
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "float32"}
    return names.get(getattr(getattr(space, "hub", space), "dtype", torch.float32), "float32")
