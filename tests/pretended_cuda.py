"""A machine without a GPU that pretends to have one, so that the code for GPUs runs at least once before a GPU does.

Tensors "on" the GPU lie on the CPU, streams do their work at once, an event's time is the wall clock's, and a graph
does again what the runner did while it was captured. That CUDA accepts these calls is not shown.
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
GPU_NAME = "Pretended GPU"


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
    captured: CUDAGraph | None = None  # the one under capture

    def __init__(self) -> None:
        self.works: list[Callable[[], Any]] = []

    def replay(self) -> None:
        for work in self.works:
            work()


@contextmanager
def capture(graph: CUDAGraph, **options: Any) -> Iterator[None]:
    assert CUDAGraph.captured is None, "two captures at a time"
    CUDAGraph.captured = graph
    try:
        yield
    finally:
        CUDAGraph.captured = None


def on_cpu(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, with the CPU in place of a GPU and ordinary memory in place of pinned memory."""

    def is_gpu(value: Any) -> bool:
        return str(value).startswith("cuda") if isinstance(value, str | torch.device) else False

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("pin_memory", None)
        args = tuple(torch.device("cpu") if is_gpu(value) else value for value in args)
        kwargs = {name: torch.device("cpu") if is_gpu(value) else value for name, value in kwargs.items()}
        return call(*args, **kwargs)

    return wrapped


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend until the test ends."""
    import torch._dynamo  # PyTorch imports it late, and its annotations need `torch.Generator` to be a type

    for name in FACTORY_FUNCTIONS:
        monkeypatch.setattr(torch, name, on_cpu(getattr(torch, name)))
    monkeypatch.setattr(torch, "Generator", on_cpu(torch.Generator))
    monkeypatch.setattr(torch.Tensor, "to", on_cpu(torch.Tensor.to))
    properties = SimpleNamespace(name=GPU_NAME, total_memory=8 << 30, multi_processor_count=4, major=9, minor=0)
    answers = {
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
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, answer=answer, **kwargs: answer)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for name, value in {"Event": Event, "Stream": Stream, "CUDAGraph": CUDAGraph, "graph": capture}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    encode_once = runners._CapturedBatch._encode

    def encode(station: Any) -> None:
        if CUDAGraph.captured is not None:
            CUDAGraph.captured.works.append(lambda: station.output.copy_(station.streams.encode(station.input)))
        encode_once(station)

    monkeypatch.setattr(runners._CapturedBatch, "_encode", encode)
