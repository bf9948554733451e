"""How long work takes: the median of repeated runs, by the device's own clock where it has one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

LEAST = 3  # runs that count, however long they take


def device_seconds(work: Callable[[], Any], device: str, seconds: float) -> float:
    """Median seconds of one call of `work`, which may return before the device is done. At least 3 calls count, and as
    many as fit in `seconds`; one call before them does not.

    On a GPU the calls are queued without a wait between them, and CUDA events time each: the figure is of a device that
    is kept busy, under the clocks that it holds then. Elsewhere it is wall-clock time. Raises what `work` raises.
    """
    if not device.startswith("cuda"):
        return wall_seconds(work, seconds)
    work()
    torch.cuda.synchronize(device)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - began < seconds:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(11)]
        marks[0].record()
        for mark in marks[1:]:
            work()
            mark.record()
        marks[-1].synchronize()
        times += [1e-3 * a.elapsed_time(b) for a, b in zip(marks, marks[1:], strict=False)]
    return statistics.median(times)


def wall_seconds(work: Callable[[], Any], seconds: float) -> float:
    """Median seconds of one call of `work`, which returns when all is done. At least 3 calls count, and as many as fit
    in `seconds`; one call before them does not. Raises what `work` raises."""
    work()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
