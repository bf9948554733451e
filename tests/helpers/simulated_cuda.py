"""A simulated GPU, so that the code for GPUs can be tested on a machine without one.

Tensors "on" the GPU are in CPU memory. Streams run their work at once. An event records the wall-clock time. A graph
repeats the runner's encoding that was captured. The tests do not show that CUDA accepts these calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sensebind.fusion.inference import cuda as runners

FACTORY_FUNCTIONS = (
    "empty",
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "arange",
    "linspace",
    "tensor",
    "as_tensor",
    "eye",
)
FACTORY_FUNCTIONS += ("hann_window", "zeros_like", "empty_like")
GPU_NAME = "Simulated GPU"


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self.at: float | None = None

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        assert self.at is not None, "nothing was recorded"

    def synchronize(self) -> None:
        assert self.at is not None, "nothing was recorded"

    def elapsed_time(self, later: Event) -> float:
        assert self.at is not None and later.at is not None
        return 1e3 * (later.at - self.at)


class Stream:
    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: Any) -> None:
        pass


class CUDAGraph:
    captured: CUDAGraph | None = None  # the graph that is being captured

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def replay(self) -> None:
        for call in self.calls:
            call()


@contextmanager
def capture(graph: CUDAGraph, **options: Any) -> Iterator[None]:
    assert CUDAGraph.captured is None, "two captures at a time"
    CUDAGraph.captured = graph
    try:
        yield
    finally:
        CUDAGraph.captured = None


def on_cpu(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, with the CPU in place of a GPU and pageable memory in place of pinned memory."""

    def is_gpu(value: Any) -> bool:
        return str(value).startswith("cuda") if isinstance(value, str | torch.device) else False

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("pin_memory", None)
        args = tuple(torch.device("cpu") if is_gpu(value) else value for value in args)
        kwargs = {name: torch.device("cpu") if is_gpu(value) else value for name, value in kwargs.items()}
        return call(*args, **kwargs)

    return wrapped


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a GPU until the test ends."""
    import torch._dynamo  # PyTorch imports it late, and its annotations need `torch.Generator` to be a type

    for name in FACTORY_FUNCTIONS:
        monkeypatch.setattr(torch, name, on_cpu(getattr(torch, name)))
    monkeypatch.setattr(torch, "Generator", on_cpu(torch.Generator))
    monkeypatch.setattr(torch.Tensor, "to", on_cpu(torch.Tensor.to))
    properties = SimpleNamespace(name=GPU_NAME, total_memory=8 << 30, multi_processor_count=4, major=9, minor=0)
    results = {
        "is_available": True,
        "is_bf16_supported": True,
        "get_device_properties": properties,
        "graph_pool_handle": (0, 1),
        "memory_reserved": 1 << 20,
        "max_memory_reserved": 1 << 20,
        "max_memory_allocated": 1 << 20,
        "current_stream": Stream(),
        "utilization": 50,
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
    }
    for name, result in results.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, result=result, **kwargs: result)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for name, value in {"Event": Event, "Stream": Stream, "CUDAGraph": CUDAGraph, "graph": capture}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    encode_once = runners._CapturedBatch._encode

    def encode(batch: Any) -> None:
        if CUDAGraph.captured is not None:
            CUDAGraph.captured.calls.append(lambda: batch.output.copy_(batch.streams.encode(batch.input)))
        encode_once(batch)

    monkeypatch.setattr(runners._CapturedBatch, "_encode", encode)
