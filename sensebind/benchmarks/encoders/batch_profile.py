"""Time of one ImageBind batch by stage: preprocessing, encoder with each attention kernel, kernels by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from sensebind.benchmarks.harness.timing import device_seconds
from sensebind.fusion.models.imagebind.space import ImageBindSpace

MAX_KERNELS = 14  # kernels that are listed
MAX_KERNEL_NAME = 200  # characters; longer names are cut, but the end often names the operation
WARM_UP_RUNS = 3  # runs before a graph is captured
# The most reliable first: after a failed capture, PyTorch before 2.12 rejects every later capture.
GPU_ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)
CPU_ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)


@torch.no_grad()
def batch_stage_times(space: ImageBindSpace, modality: str, raw: Tensor, seconds: float) -> Iterator[dict[str, Any]]:
    """Measure the stages of one batch `raw` (B, …) of `Space.device_input` rows in ms, each for about `seconds`.

    Yields all figures so far after each stage. On a GPU the stages are CUDA graphs, as in `GpuRunner`;
    `encoder_eager_ms` is the encoder launched from the host. `encoder_ms_by_attention`: the whole encoder with each
    attention kernel that the device may support. If a stage fails, its figure is the error message.
    """
    device, encode = str(space.device), space.encoder(modality)
    rows = raw.to(space.device)
    prepared = space.preprocess(modality, rows)
    result: dict[str, Any] = {"batch": len(raw)}
    result["preprocessing_ms"] = _milliseconds(lambda: space.preprocess(modality, rows), device, seconds)
    yield result
    result["encoder_ms"] = _milliseconds(lambda: encode(prepared), device, seconds)
    yield result
    result["encoder_eager_ms"] = _milliseconds(lambda: encode(prepared), device, seconds, graph=False)
    yield result
    by_attention: dict[str, float | str] = {}
    for backend in GPU_ATTENTION if device.startswith("cuda") else CPU_ATTENTION:
        with sdpa_kernel(backend):
            by_attention[backend.name] = _milliseconds(lambda: encode(prepared), device, seconds)
        yield result | {"encoder_ms_by_attention": by_attention}


@torch.no_grad()
def slowest_kernels(space: ImageBindSpace, modality: str, raw: Tensor) -> list[dict[str, Any]] | str:
    """The slowest kernels of one batch `raw` (B, …) of `Space.device_input` rows, on a CPU PyTorch's operators, with
    ms, calls and name. If the driver does not allow profiling, the error message."""
    device, encode, rows = str(space.device), space.encoder(modality), raw.to(space.device)
    on_gpu = device.startswith("cuda")
    encode(rows)
    try:
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
            encode(rows)
            if on_gpu:
                torch.cuda.synchronize(device)
        events = profiler.key_averages()
    except (RuntimeError, AssertionError) as error:
        return f"failed: {error}"

    def microseconds(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    longest = sorted(events, key=microseconds, reverse=True)[:MAX_KERNELS]
    return [{"ms": round(microseconds(e) / 1e3, 3), "calls": e.count, "name": e.key[:MAX_KERNEL_NAME]} for e in longest]


def _milliseconds(work: Callable[[], Any], device: str, seconds: float, *, graph: bool = True) -> float | str:
    """Median time of `work` in ms, on a GPU as a CUDA graph; the error message if it raises `RuntimeError`."""
    try:
        run = _capture_cuda_graph(work, device) if graph and device.startswith("cuda") else work
        return round(1e3 * device_seconds(run, device, seconds), 4)
    except RuntimeError as error:
        return f"failed: {error}"[:MAX_KERNEL_NAME]


def _capture_cuda_graph(work: Callable[[], Any], device: str) -> Callable[[], Any]:
    """A CUDA graph of `work`. Raises `RuntimeError` if it cannot be captured."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            work()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay
