"""Where the time of one batch of ImageBind goes: preparation, encoder, attention, and the kernels by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from sensebind.fusion.benchmarks.timing import device_seconds
from sensebind.fusion.models.imagebind_space import ImageBindSpace

KERNELS = 14  # that are named: those that take longest
WARM_UPS = 3  # runs before a graph is captured
GPU_ATTENTION = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
CPU_ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)


@torch.no_grad()
def of_batch(space: ImageBindSpace, modality: str, raw: Tensor, seconds: float) -> dict[str, Any]:
    """Milliseconds of the parts of one batch of `raw`s (B, …), each measured for about `seconds`.

    `attention_ms`: the encoder with each attention kernel that the device may have, on a GPU as a CUDA graph, or why
    there is no figure.
    """
    device, encode = str(space.device), space.encoder(modality)
    rows = raw.to(space.device)
    ready = space.prepare(modality, rows)

    def milliseconds(work: Callable[[], Any]) -> float:
        return round(1e3 * device_seconds(work, device, seconds), 4)

    return {
        "batch": len(raw),
        "preparation_ms": milliseconds(lambda: space.prepare(modality, rows)),
        "encoder_ms": milliseconds(lambda: encode(ready)),
        "attention_ms": _attention(lambda: encode(ready), device, milliseconds),
        "kernels": kernels(lambda: encode(rows), device),
    }


def kernels(work: Callable[[], Any], device: str) -> list[dict[str, Any]] | str:
    """What takes longest in one call of `work`: the device's kernels on a GPU, PyTorch's operators on a CPU. Why there
    is nothing, where the driver does not let a process see its kernels."""
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


def _attention(encode: Callable[[], Any], device: str, milliseconds: Callable[[Callable[[], Any]], float]) -> Any:
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
