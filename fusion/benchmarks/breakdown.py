"""Time of one ImageBind batch by stage: preprocessing, encoder with each attention kernel, kernels by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from sensebind.fusion.benchmarks.timing import device_seconds
from sensebind.fusion.models.imagebind_space import ImageBindSpace

KERNELS = 14  # that are listed
WARM_UPS = 3  # runs before a graph is captured
GPU_ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
CPU_ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)


@torch.no_grad()
def of_batch(space: ImageBindSpace, modality: str, raw: Tensor, seconds: float) -> dict[str, Any]:
    """Milliseconds of each stage of one batch of `raw`s (B, …). Each stage is measured for about `seconds`.

    `encoder_ms_by_attention`: the whole encoder with each attention kernel that the device may have, on a GPU as a CUDA
    graph; where a kernel does not work, the reason.
    """
    device, encode = str(space.device), space.encoder(modality)
    rows = raw.to(space.device)
    prepared = space.preprocess(modality, rows)

    def milliseconds(work: Callable[[], Any]) -> float:
        return round(1e3 * device_seconds(work, device, seconds), 4)

    return {
        "batch": len(raw),
        "preprocessing_ms": milliseconds(lambda: space.preprocess(modality, rows)),
        "encoder_ms": milliseconds(lambda: encode(prepared)),
        "kernels": kernels(lambda: encode(rows), device),
        "encoder_ms_by_attention": _by_attention(lambda: encode(prepared), device, milliseconds),
    }


def kernels(work: Callable[[], Any], device: str) -> list[dict[str, Any]] | str:
    """The kernels that take longest in one call of `work`, on a CPU PyTorch's operators: milliseconds, calls, name.
    The reason as a string, where the driver does not allow profiling."""
    try:
        return _kernels(work, device)
    except (RuntimeError, AssertionError) as error:
        return f"failed: {error}"


def _kernels(work: Callable[[], Any], device: str) -> list[dict[str, Any]]:
    on_gpu = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)

    def microseconds(event: Any) -> float:
        return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)

    longest = sorted(seen.key_averages(), key=microseconds, reverse=True)[:KERNELS]
    return [{"ms": round(microseconds(e) / 1e3, 3), "calls": e.count, "name": e.key[:80]} for e in longest]


def _by_attention(
    encode: Callable[[], Any], device: str, milliseconds: Callable[[Callable[[], Any]], float]
) -> dict[str, float | str]:
    on_gpu = device.startswith("cuda")
    result: dict[str, float | str] = {}
    for backend in GPU_ATTENTION if on_gpu else CPU_ATTENTION:
        try:
            with sdpa_kernel(backend):
                result[backend.name] = milliseconds(_captured(encode, device) if on_gpu else encode)
        except RuntimeError as error:
            result[backend.name] = f"failed: {str(error).splitlines()[0][:200]}"
    return result


def _captured(work: Callable[[], Any], device: str) -> Callable[[], Any]:
    """A CUDA graph of `work`. Raises `RuntimeError` where it cannot be captured."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay
