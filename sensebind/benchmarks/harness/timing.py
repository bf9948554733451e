"""Time of a piece of work: the median of repeated runs, measured by CUDA events on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

MIN_RUNS = 3  # runs that are timed, even if they take longer than the given time
RUNS_PER_SYNC = 10  # runs that are queued on a GPU between two waits


def device_seconds(work: Callable[[], Any], device: str, seconds: float) -> float:
    """Median seconds of one call of `work`, which may return before the device is done.

    `work` is called once untimed, then at least 3 times and until `seconds` have passed. On a GPU, calls on the current
    stream are queued back to back and CUDA events time each call: the figure is that of a busy GPU at its sustained
    clocks. On a CPU it is wall-clock time. Exceptions of `work` are raised.
    """
    if not device.startswith("cuda"):
        return wall_seconds(work, seconds)
    with torch.cuda.device(device):  # events are recorded on its current stream
        work()
        torch.cuda.synchronize()
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < MIN_RUNS or time.perf_counter() - began < seconds:
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(RUNS_PER_SYNC + 1)]
            marks[0].record()
            for mark in marks[1:]:
                work()
                mark.record()
            marks[-1].synchronize()
            times += [1e-3 * a.elapsed_time(b) for a, b in zip(marks, marks[1:], strict=False)]
    return statistics.median(times)


def wall_seconds(work: Callable[[], Any], seconds: float) -> float:
    """Median wall-clock seconds of one call of `work`, which returns when its work is done.

    `work` is called once untimed, then at least 3 times and until `seconds` have passed. Its exceptions are raised.
    """
    work()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < MIN_RUNS or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
