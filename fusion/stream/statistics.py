"""Counters and latencies of each sensor's samples and windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sensebind.fusion.core.symptoms import SYMPTOMS  # of a faulty sensor; its windows are embedded

# Causes for which samples were not used. A `late` sample is still used for open windows.
SAMPLE_DROPS = ("unstamped", "invalid", "duplicate", "late", "outlier", "overflow", "clock")
# Samples that are sound, but that no window uses: an image in whose place another one is used; what is between two
# windows that are shorter than the hop; what is after the last complete window when stamps jump or the recording ends.
SAMPLES_WITHOUT_WINDOW = ("superseded", "between", "incomplete")
# Causes for which closed windows were not embedded. `no_encoder`: the space has none for the modality. `abandoned`:
# their batch was never completed.
WINDOW_DROPS = ("coverage", "encoding", "overload", "expired", "failure", "no_encoder", "abandoned")


LATENCY_HISTORY = 2048  # newest windows over which latency quantiles are computed


@dataclass(frozen=True, slots=True)
class SensorStatistics:
    """Totals of one sensor so far. `counts` has the names above, and samples, used (samples that windows used),
    too_late (late samples that no window used), windows, embedded, fused, unfused, replaced (embeddings that another
    one of the same tick replaced before it was fused), restarts, gaps, burst (readings that shared a stamp and were
    spread), and unchecked (windows whose data a health check could not handle; they are embedded). All are of one
    moment; `accounting.identity` says how they add up."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies: Sequence[float] = ()  # ms from close to vector, of the last `LATENCY_HISTORY` windows
    coverage_sum: float = 0.0
    newest_stamp: int = 0  # ns, end of the newest sample
    last_embedded_tick: int = 0  # ns, end of the newest embedded window
    clock_offset: float | None = None  # s, the time of arrival minus the stamp; None: not known
    behind_others: float | None = None  # s by which the stamps are behind those of the others; None: not known
    clock_differs: bool = False  # whether the clock is not that of the others, so that samples are not used
    lag: float = 0.0  # s from the newest sample of this sensor to the newest of all
    open_samples: int = 0  # samples that no window has used yet
    waiting_windows: int = 0  # closed windows in the queue
    windows_in_flight: int = 0  # windows that left the queue and have no result yet
    awaiting_fusion: int = 0  # embeddings whose tick is not fused yet

    def dropped(self, names: Iterable[str] = WINDOW_DROPS) -> dict[str, int]:
        """Cause → count, without the counts that are 0."""
        return {name: self.counts[name] for name in names if self.counts[name]}

    def without_window(self) -> dict[str, int]:
        """Cause → count of the sound samples that no window used, without the counts that are 0. Call it when no more
        samples are expected."""
        counts = {name: self.counts[name] for name in SAMPLES_WITHOUT_WINDOW}
        counts["incomplete"] += self.open_samples
        return {name: count for name, count in counts.items() if count}

    def coverage_mean(self) -> float:
        """Mean coverage, 0 to 1, of all closed windows with data; 0 if there are none."""
        return self.coverage_sum / self.counts["windows"] if self.counts["windows"] else 0.0

    def latency_ms(self) -> dict[str, float]:
        """p50 and p99 over the last `LATENCY_HISTORY` windows, in milliseconds; 0 if none was embedded."""
        if not self.latencies:
            return {"p50": 0.0, "p99": 0.0}
        p50, p99 = np.percentile(np.fromiter(self.latencies, float), [50, 99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}

    def summary(self) -> dict[str, Any]:
        """The entry of this sensor in `summary.json`."""
        return {
            "samples": self.counts["samples"],
            "windows": self.counts["windows"],
            "embedded": self.counts["embedded"],
            "dropped": self.dropped(),
            "samples_dropped": self.dropped(SAMPLE_DROPS),
            "samples_without_window": self.without_window(),
            "symptoms": self.dropped(SYMPTOMS),
            "spread": self.counts["burst"],
            "behind_others_s": None if self.behind_others is None else round(self.behind_others, 3),
            "gaps": self.counts["gaps"],
            "unfused": self.counts["unfused"],
            "unchecked": self.counts["unchecked"],
            "restarts": self.counts["restarts"],
            "coverage_mean": round(self.coverage_mean(), 4),
            "latency_ms": self.latency_ms(),
        }
