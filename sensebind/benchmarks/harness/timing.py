"""Times: the median of repeated runs of a piece of work, by CUDA events on a GPU, and quantiles of many times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
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


def quantiles(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """p50, p95, p99 and max in the unit of the values, and the count. Without values: NaN, and count 0."""
    if not len(values):
        return dict.fromkeys(("p50", "p95", "p99", "max"), float("nan")) | {"count": 0}
    p50, p95, p99, top = np.percentile(np.asarray(values, float), [50, 95, 99, 100])
    return {
        "p50": round(p50, 3),
        "p95": round(p95, 3),
        "p99": round(p99, 3),
        "max": round(top, 3),
        "count": len(values),
    }


class RingBuffer:
    """The newest `size` numbers. All memory is allocated at once, so that it does not look like a leak."""

    def __init__(self, size: int = 1 << 16) -> None:
        self._values = np.full(size, np.nan)
        self.count = 0  # numbers added so far

    def add(self, value: float) -> None:
        self._values[self.count % len(self._values)] = value
        self.count += 1

    def values(self) -> npt.NDArray[np.float64]:
        """The numbers, oldest first."""
        at = self.count % len(self._values)
        both = np.concatenate([self._values[at:], self._values[:at]])
        return both[~np.isnan(both)]
