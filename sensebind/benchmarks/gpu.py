"""`sensebind bench gpu`: check and measure a GPU in at most seven minutes.

It checks the vectors, and measures the speed of the image encoder, the latency of one robot and the number of robots
that the GPU serves. The most useful part runs first. Each part runs in its own process with a time limit, so an error
of the GPU, a hang or a lack of memory ends that part alone. The benchmark needs PyTorch, NumPy, OpenCV, PyYAML and
safetensors. Without a checkpoint imagebind_huge has synthetic weights. `--device cpu --tiny` tests the benchmark itself
in a minute.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from sensebind.benchmarks import model
from sensebind.benchmarks.encoders import batch_profile, correctness, spaces
from sensebind.benchmarks.encoders.correctness import ReferenceVectors
from sensebind.benchmarks.harness import environment, sensor_load
from sensebind.benchmarks.harness import parts as bench_parts
from sensebind.benchmarks.harness.interference import control
from sensebind.benchmarks.harness.parts import Part, PartError, Report
from sensebind.benchmarks.harness.timing import device_seconds
from sensebind.benchmarks.stream import RealtimeBenchmark
from sensebind.fusion.core.samples import VISION
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.inference.cuda import empty_cache
from sensebind.fusion.models.imagebind.space import ImageBindSpace

BUDGET_SECONDS = 420.0
# The parts, the most useful first: the minimum time and the time limit of each, in s.
PART_TIME_LIMITS = {
    "correctness": (20.0, 130.0),
    "device": (10.0, 45.0),
    "vision": (20.0, 90.0),
    "one_robot": (20.0, 75.0),
    "most_robots": (30.0, 110.0),
    "most_robots_with_workers": (40.0, math.inf),
}
GPU_CHECK_SIZES, CPU_CHECK_SIZES = (24, 80), (6, 8)  # windows of each modality, and batches of each thread
SENSOR_HOP = 0.2  # s between the windows of each simulated sensor
ROBOT_SECONDS = 15.0  # maximum length of the run with one robot
MAX_WORKERS = 8
SEARCH_SECONDS = (4.0, 6.0)  # shortest and longest run of the search; an IMU's first window takes 3 s
# (rows, inputs, outputs) of the image encoder's four linear layers, for 32 images of 257 tokens.
LINEAR_LAYER_SHAPES = tuple((32 * 257, k, n) for k, n in ((1280, 3840), (1280, 1280), (1280, 5120), (5120, 1280)))
COPY_BYTES = 32 * 2 * 480 * 640 * 3  # bytes of 32 windows of two colour images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    spaces.add_arguments(parser)
    parser.set_defaults(device="auto")
    bench_parts.add_arguments(parser, BUDGET_SECONDS, list(PART_TIME_LIMITS))


def run(args: argparse.Namespace) -> int:
    """Measure, print, write. Exit status 1 if a vector was wrong, if a part failed, or if nothing was measured.

    Raises `PartError` if no GPU is found and no other device is named.
    """
    if args.device == "auto" and not torch.cuda.is_available():
        raise PartError(
            f"PyTorch {torch.__version__} finds no GPU: install a CUDA build of PyTorch and the driver, or test the "
            "benchmark itself with --device cpu --tiny"
        )
    spaces.resolve_defaults(args)
    print(f"device {args.device}, space {args.space}, at most {args.budget:.0f} s, file {args.output or 'none (-o)'}")
    content = bench_parts.run_parts("gpu", parts(args), args, bench_parts.run_in_subprocess(__name__, args))
    _print_verdict(content["parts"], args.output)
    wrong = content["parts"].get("correctness", {}).get("passed") is False
    return int(wrong or bench_parts.exit_status(content))


def parts(args: argparse.Namespace) -> list[Part]:
    """All parts, the most useful first."""
    works = (check_vectors, device_facts, measure_image_encoder, one_robot, most_robots, most_robots_with_workers)
    return [
        Part(name, least, partial(work, args), limit)
        for (name, (least, limit)), work in zip(PART_TIME_LIMITS.items(), works, strict=True)
    ]


def check_vectors(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """Compare every way to compute a vector with eager float32: one modality at a time, then all through one runner.
    See `correctness`."""
    result: dict[str, Any] = {"passed": False, "device": environment.device_name(args.device), "modalities": {}}
    deadline, turns = time.monotonic() + seconds, _check_sizes(args)[1]
    wanted: list[ReferenceVectors] = []
    for number, modality in enumerate(sensor_load.MESSAGE_RATES):
        share = (deadline - time.monotonic()) / (len(sensor_load.MESSAGE_RATES) + 1 - number)
        try:
            wanted += _check_modality(args, modality, share, result, report)
        except Exception as error:  # the other modalities are still checked
            result["modalities"].setdefault(modality, {})["failed"] = f"{type(error).__name__}: {str(error)[-300:]}"
            report(result)
        if args.device.startswith("cuda"):
            empty_cache()  # the next modality needs the memory
    tested = spaces.load(args, [item.modality for item in wanted]) if wanted else None
    if tested and all(tested.graph_capturable(item.modality) for item in wanted):
        left = deadline - time.monotonic()
        result["all_modalities"] = correctness.check_device_path(
            tested, wanted, batches_per_thread=2 * turns, seconds=left / 2
        )
    checked = [item for item in result["modalities"].values() if "skipped" not in item]
    together = result.get("all_modalities", {"passed": True})
    return result | {"passed": bool(checked) and all(item.get("passed") for item in [*checked, together])}


def _check_modality(
    args: argparse.Namespace, modality: str, seconds: float, result: dict[str, Any], report: Report
) -> list[ReferenceVectors]:
    """Check one modality and add its figures to `result`. Returns its references; empty if the space has no encoder."""
    reference = spaces.load(args, [modality], "float32")
    result |= {"space": reference.id, "weights": spaces.weights_description(reference)}
    if modality not in reference.modalities:
        result["modalities"][modality] = {"skipped": f"{reference.id} has no encoder for it"}
        return []
    count, turns = _check_sizes(args)
    windows = sensor_load.distinct_windows(spaces.specs(reference, [modality]), count)[modality]
    wanted = correctness.reference_vectors(reference, windows)
    known: dict[str, Any] = {}
    if args.device.startswith("cuda") and isinstance(reference, ImageBindSpace):
        known["reference_on_cpu"] = correctness.reference_on_cpu(reference, wanted)
    del reference  # the other space needs the memory
    tested = spaces.load(args, [modality])
    for found in correctness.check_space(
        tested, wanted, batches_per_thread=turns, seconds=seconds / 3, earlier_checks=known
    ):
        result["modalities"][modality] = found
        report(result)
    return [wanted]


def _check_sizes(args: argparse.Namespace) -> tuple[int, int]:
    return GPU_CHECK_SIZES if args.device.startswith("cuda") else CPU_CHECK_SIZES


def device_facts(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """Describe the device, and measure what limits its speed: matrix products, the image encoder's linear layers, and
    copies from pinned memory."""
    each = min(1.0, seconds / 20)
    result: dict[str, Any] = environment.machine_info(args.device)
    report(result)
    result["matmul_tflops"] = model.matmul_tflops(args.device, each)
    report(result)
    if args.device.startswith("cuda"):
        result["linear"] = [_time_linear_layer(args.device, *sizes, each) for sizes in LINEAR_LAYER_SHAPES]
        report(result)
        host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
        device = torch.empty(COPY_BYTES, dtype=torch.uint8, device=args.device)
        took = device_seconds(lambda: device.copy_(host, non_blocking=True), args.device, each)
        result["pinned_copy_gb_per_s"] = round(COPY_BYTES / took / 1e9, 2)
        result["gpu_state_at_end"] = environment.gpu_state(args.device)
    return result


def measure_image_encoder(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """Compare the image encoder at batch 1, 8 and 32 with the baseline, then measure the stages of a batch."""
    given = ["--modalities", VISION, "--batches", "1", "8", "32", "--seconds", str(min(1.0, seconds / 40))]
    result = model.measure(bench_parts.options_of("model", args, given), report)
    space = spaces.load(args, [VISION])
    if not isinstance(space, ImageBindSpace):
        return result
    windows = sensor_load.distinct_windows(spaces.specs(space, [VISION]), model.DISTINCT_WINDOWS)[VISION]
    batches = {
        size: torch.stack([space.device_input(windows[i % len(windows)]) for i in range(size)]) for size in (32, 1)
    }
    stages = result["stages"] = {}
    for size, raw in batches.items():
        for found in batch_profile.batch_stage_times(space, VISION, raw, min(0.5, seconds / 100)):
            stages[str(size)] = found
            report(result)
    # Last, because a profiler can end the process.
    result["kernels"] = batch_profile.slowest_kernels(space, VISION, batches[32])
    return result


def one_robot(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """Measure one robot with five sensors in real time: latency, missed windows, processor time."""
    bench = _realtime_benchmark(args)
    report(bench.conditions())
    with control() as beside:
        found = bench.measure_robots(1, min(ROBOT_SECONDS, seconds / 4))
    return {**bench.conditions(), **found, **beside}


def most_robots(args: argparse.Namespace, seconds: float, report: Report, workers: int = 0) -> dict[str, Any]:
    """Find the largest number of robots that the device serves: see `RealtimeBenchmark.find_max_robots`."""
    deadline = time.monotonic() + seconds
    bench = _realtime_benchmark(args, workers)
    facts = bench.conditions()
    each = max(SEARCH_SECONDS[0], min(SEARCH_SECONDS[1], seconds / 8))
    with control() as beside:
        found = bench.find_max_robots(each, until=deadline, report=lambda found: report({**facts, **found}))
    if bench.workers is not None:
        bench.workers.close()
    return {**bench.conditions(), **found, **beside}


def most_robots_with_workers(args: argparse.Namespace, seconds: float, report: Report) -> dict[str, Any]:
    """As `most_robots`, with processes that prepare the data, as `workers` of the embedder: one for two cores."""
    return most_robots(args, seconds, report, workers=max(1, min(MAX_WORKERS, available_cores() // 2)))


def _realtime_benchmark(args: argparse.Namespace, workers: int = 0) -> RealtimeBenchmark:
    return RealtimeBenchmark.load(argparse.Namespace(**vars(args), hop=SENSOR_HOP, workers=workers))


def _time_linear_layer(device: str, rows: int, inputs: int, outputs: int, seconds: float) -> dict[str, Any]:
    x, w = (torch.randn(n, inputs, device=device).bfloat16() for n in (rows, outputs))
    bias = torch.randn(outputs, device=device).bfloat16()
    took = device_seconds(lambda: torch.nn.functional.linear(x, w, bias), device, seconds)
    tflops = 2 * rows * inputs * outputs / took / 1e12
    return {"shape": f"{rows}x{inputs}->{outputs}", "ms": round(1e3 * took, 4), "tflops": round(tflops, 4)}


def _print_verdict(results: Mapping[str, Mapping[str, Any]], output: str | None) -> None:
    """Print the summary, in four lines at most."""
    passed = results.get("correctness", {}).get("passed")
    print(f"\nvectors    {'not checked' if passed is None else 'right' if passed else 'WRONG'}")
    ended = {word: [n for n, result in results.items() if word in result] for word in ("failed", "skipped")}
    done = len(results) - sum(map(len, ended.values()))
    named = "".join(f", {len(names)} {word} ({', '.join(names)})" for word, names in ended.items() if names)
    print(f"parts      {done} done{named}")
    if targets := results.get("vision", {}).get("targets"):
        print(f"targets    {sum(target['reached'] for target in targets.values())} of {len(targets)} reached")
    if output:
        print(f"figures    {output}")
