"""Whether memory, threads and open files of processes stay the same during a long run.

The slope is that of Theil and Sen: the median of the slopes of all pairs of values. A few outliers do not change it.
Its 95 % interval is Sen's (P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, Journal of the
American Statistical Association 63, 1968). It holds for independent values, and values that are taken shortly after
each other are not. So a run is cut into `BLOCKS` blocks, and the medians of the blocks are the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.benchmarks.harness.resources import PeriodicSampler, process_resources

WARM_UP = 0.2  # fraction of the run that is not judged
BLOCKS = 30
Z95 = 1.96  # quantile of the normal distribution for a two-sided interval of 95 %
MEMORY_TOLERANCE = 0.01  # fraction of the first value
# Resource → that fraction; None: not judged. Pages of shared memory become resident one by one, up to its size.
TOLERANCES: Mapping[str, float | None] = {
    "rss_mb": None, "private_mb": MEMORY_TOLERANCE, "shared_mb": MEMORY_TOLERANCE, "threads": 0.0, "files": 0.0,
}  # fmt: skip
RULE = (
    "flat: the 95 % interval of the slope includes 0 or is below it, or the growth at this slope over the judged time "
    f"is at most {100 * MEMORY_TOLERANCE:g} % of the first value (memory only); the first {100 * WARM_UP:g} % of "
    "the run are not judged. Resident memory (rss_mb) is judged in two parts: without shared memory (private_mb), and "
    "the size of the shared memory (shared_mb)"
)


def theil_sen(times: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """The slope of `values` per unit of `times`, and the limits of its 95 % interval; NaN for fewer than two values."""
    x, y = np.asarray(times, float), np.asarray(values, float)
    first, second = np.triu_indices(len(x), 1)
    if not len(first):
        return math.nan, math.nan, math.nan
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    count, n = len(slopes), len(x)
    width = Z95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = math.floor((count - width) / 2), math.ceil((count + width) / 2)
    return float(np.median(slopes)), float(slopes[max(0, low)]), float(slopes[min(count - 1, high)])


def judged(times: Sequence[float], values: Sequence[float], tolerance: float | None = 0.0) -> dict[str, Any]:
    """Figures of one resource. `times` in s since the start of the run, the same number as `values`. `tolerance`: see
    `TOLERANCES`; with None there is no `flat`. `flat` is False without two values."""
    kept = [(t, v) for t, v in zip(times, values, strict=True) if math.isfinite(v)]
    kept = kept[int(WARM_UP * len(kept)) :]
    if len(kept) < 2:
        return {"first": math.nan, "last": math.nan} | ({} if tolerance is None else {"flat": False})
    x, y = (np.array(column, float) for column in zip(*kept, strict=True))
    slope, low, high = theil_sen(_block_medians(x), _block_medians(y))
    growth = slope * (x[-1] - x[0])
    figures = {
        "first": float(y[0]),
        "last": float(y[-1]),
        "max": float(y.max()),
        "slope_per_hour": round(3600 * slope, 3),
        "low_per_hour": round(3600 * low, 3),
        "high_per_hour": round(3600 * high, 3),
    }
    if tolerance is None:
        return figures
    return figures | {"flat": bool(low <= 0 or growth <= tolerance * abs(y[0]))}


def _block_medians(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(np.median(block)) for block in np.array_split(values, min(BLOCKS, len(values)))]


class ProcessWatch(PeriodicSampler):
    """Records the resources of processes every `period` seconds.

    `processes`: name → pid (None: this process).
    """

    def __init__(self, processes: Mapping[str, int | None], period: float) -> None:
        super().__init__(period)
        self._processes = dict(processes)
        self._rows: dict[str, list[dict[str, float]]] = {name: [] for name in processes}

    def sample(self, seconds: float) -> None:
        """Add a row to each process."""
        for name, pid in self._processes.items():
            self._rows[name].append({"s": seconds, **process_resources(pid)})

    def summary(self) -> dict[str, dict[str, Any]]:
        """Process → resource → its figures: see `judged`."""
        return {
            name: {
                resource: judged([row["s"] for row in rows], [row[resource] for row in rows], tolerance)
                for resource, tolerance in TOLERANCES.items()
            }
            for name, rows in self._rows.items()
        }


def is_flat(summary: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all judged resources of all processes of a `ProcessWatch.summary` are flat."""
    return all(figures.get("flat", True) for resources in summary.values() for figures in resources.values())
