"""`sensebind bench gpu`: is a GPU right, how fast is it, and how many robots does it carry? At most seven minutes.

Parts in the order of their worth, each in a process of its own with a limit of time, so that an error of the device, a
hang or a lack of memory costs that part alone. Needs PyTorch, NumPy, OpenCV, PyYAML and safetensors; without a
checkpoint imagebind_huge gets synthetic weights. `--device cpu` tries the benchmark itself, with `--tiny` in a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from sensebind.fusion.benchmarks import breakdown, correctness, figures, model, robot, spaces
from sensebind.fusion.benchmarks import parts as bench_parts
from sensebind.fusion.benchmarks.parts import Part, Report
from sensebind.fusion.benchmarks.stream import Bench
from sensebind.fusion.benchmarks.timing import device_seconds
from sensebind.fusion.config import FREE, embedder_parameters, resolve, window_specs
from sensebind.fusion.models.imagebind_space import ImageBindSpace
from sensebind.fusion.models.registry import Space
from sensebind.fusion.runner import empty_cache
from sensebind.fusion.samples import VISION
from sensebind.fusion.windows import WindowSpec

BUDGET = 420.0  # s
HOP = 0.2  # s from window to window of a robot's sensors
ROBOT_SECONDS = 20.0  # of one robot, at most
SEARCH_SECONDS = 6.0  # of each run of the search for the most robots
# Rows, inputs and outputs of the image encoder's linear layers, of 32 images of 257 tokens.
LINEAR = tuple((32 * 257, k, n) for k, n in ((1280, 3840), (1280, 1280), (1280, 5120), (5120, 1280)))
COPY = 32 * 2 * 480 * 640 * 3  # bytes of a batch of 32 windows of two colour images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.set_defaults(device="auto")
    bench_parts.add_arguments(parser, BUDGET)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; 1 where a part failed or a vector was wrong."""
    spaces.settle(args)
    content = bench_parts.run("gpu", parts(args), args, bench_parts.in_child(__name__, args))
    wrong = content["parts"].get("correctness", {}).get("passed") is False
    return int(wrong or bench_parts.failed(content))


def parts(args: argparse.Namespace) -> list[Part]:
    """All parts, in the order of their worth."""
    return [
        Part("correctness", 20, partial(check_vectors, args), limit=130),
        Part("device", 10, partial(device_facts, args), limit=45),
        Part("vision", 20, partial(vision, args), limit=90),
        Part("one_robot", 15, partial(one_robot, args), limit=75),
        Part("most_robots", 20, partial(most_robots, args)),
    ]


def check_vectors(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """Every way to a vector against eager float32, modality by modality: see `correctness`."""
    on_gpu = args.device.startswith("cuda")
    result: dict[str, Any] = {"passed": False, "modalities": {}}
    until = time.monotonic() + seconds
    for number, modality in enumerate(robot.RATES):
        share = (until - time.monotonic()) / (len(robot.RATES) - number)
        try:
            fast, plain = spaces.load(args, [modality]), spaces.load(args, [modality], "float32")
            if modality not in fast.modalities:
                result["modalities"][modality] = {"skipped": f"{fast.id} has no encoder for it"}
                continue
            result |= {"space": fast.id, "weights": spaces.weights_of(fast)}
            windows = robot.distinct_windows(_specs(modality, fast), 24 if on_gpu else 6)[modality]
            for found in correctness.check(fast, plain, windows, turns=80 if on_gpu else 8, seconds=share / 3):
                result["modalities"][modality] = found
                report(result)
        except (RuntimeError, MemoryError) as error:  # out of memory, or an error of the device: try the others
            result["modalities"].setdefault(modality, {})["failed"] = f"{type(error).__name__}: {str(error)[-300:]}"
            report(result)
        fast = plain = None  # type: ignore[assignment]  # the next modality needs the memory
        if on_gpu:
            empty_cache()
    checked = [item for item in result["modalities"].values() if "skipped" not in item]
    return result | {"passed": bool(checked) and all(item.get("passed") for item in checked)}


def device_facts(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """What the device is, and the rates that bound everything else: matrix products, the image encoder's linear
    layers, the copy from pinned memory."""
    on_gpu, each = args.device.startswith("cuda"), min(1.0, seconds / 20)
    result: dict[str, Any] = figures.machine(args.device)
    report(result)
    result["matmul_tflops"] = model.matrix_rate(args.device, each)
    if on_gpu:
        result["linear"] = [_linear(args.device, *sizes, each) for sizes in LINEAR]
        sent = torch.empty(COPY, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(COPY, dtype=torch.uint8, device=args.device)
        took = device_seconds(lambda: there.copy_(sent, non_blocking=True), args.device, each)
        result["pinned_copy_gb_per_s"] = round(COPY / took / 1e9, 2)
        result["gpu_state_at_end"] = figures.gpu_state(args.device)
    return result


def vision(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """The image encoder at batch 1, 8 and 32 beside the plain way, then where the time of a batch goes."""
    given = ["--modalities", VISION, "--batches", "1", "8", "32", "--seconds", str(min(1.0, seconds / 40))]
    result = model.measure(bench_parts.options("model", args, given), report)
    space = spaces.load(args, [VISION])
    if isinstance(space, ImageBindSpace):
        windows = robot.distinct_windows(_specs(VISION, space), model.DIFFERENT)[VISION]
        result["breakdown"] = {}
        for size in (32, 1):
            raw = torch.stack([space.raw(windows[i % len(windows)]) for i in range(size)])
            result["breakdown"][str(size)] = breakdown.of_batch(space, VISION, raw, min(0.5, seconds / 80))
            report(result)
    return result


def one_robot(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """One robot with five sensors in real time: latency, missed windows, processor time."""
    bench = _bench(args)
    report(bench.facts())
    return {**bench.facts(), **bench.live(1, min(ROBOT_SECONDS, seconds / 4))}


def most_robots(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """How many robots the device carries: see `Bench.find`."""
    until = time.monotonic() + seconds
    bench = _bench(args)
    facts = bench.facts()
    found = bench.find(min(SEARCH_SECONDS, seconds / 8), until=until, report=lambda found: report({**facts, **found}))
    return {**bench.facts(), **found}


def _bench(args: argparse.Namespace) -> Bench:
    return Bench.of(argparse.Namespace(**vars(args), hop=HOP))


def _specs(modality: str, space: Space) -> Mapping[str, WindowSpec]:
    return window_specs(resolve(embedder_parameters([modality]), {}, free=FREE), space.apertures)


def _linear(device: str, rows: int, inputs: int, outputs: int, seconds: float) -> dict[str, Any]:
    x, w = (torch.randn(n, inputs, device=device).bfloat16() for n in (rows, outputs))
    bias = torch.randn(outputs, device=device).bfloat16()
    took = device_seconds(lambda: torch.nn.functional.linear(x, w, bias), device, seconds)
    tflops = 2 * rows * inputs * outputs / took / 1e12
    return {"shape": f"{rows}x{inputs}->{outputs}", "ms": round(1e3 * took, 4), "tflops": round(tflops, 1)}
