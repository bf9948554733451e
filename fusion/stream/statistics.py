"""What happened to each modality's samples and windows: counters by cause, and latencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sensebind.fusion.core.symptoms import SYMPTOMS  # windows that were embedded although their sensor may be lying

# Samples that came and were not used, by cause.
SAMPLE_DROPS = ("unstamped", "invalid", "duplicate", "late", "outlier", "overflow")
# Windows that closed and were not embedded, by cause.
WINDOW_DROPS = ("coverage", "encoding", "overload", "expired", "failure")


LATENCY_HISTORY = 2048  # windows that quantiles of the latency are taken over


@dataclass(frozen=True, slots=True)
class ModalityStatistics:
    """Totals of one modality up to now. `counts`: the names above, and samples, windows, embedded, restarts, gaps."""

    counts: Counter[str] = field(default_factory=Counter)
    latencies: Sequence[float] = ()  # ms, window closed → vector, of the last `LATENCY_HISTORY` windows
    coverage_sum: float = 0.0
    newest_stamp: int = 0  # ns, end of the newest sample
    last_embedded_tick: int = 0  # ns, the newest embedded window's end
    lag: float = 0.0  # s that this modality is behind the newest of any

    def dropped(self, names: Iterable[str] = WINDOW_DROPS) -> dict[str, int]:
        """Cause → count, those that happened."""
        return {name: self.counts[name] for name in names if self.counts[name]}

    def coverage_mean(self) -> float:
        """0..1 over all windows that closed with data; 0 where none did."""
        return self.coverage_sum / self.counts["windows"] if self.counts["windows"] else 0.0

    def latency_ms(self) -> dict[str, float]:
        """p50 and p99 over the last `LATENCY_HISTORY` windows, in milliseconds; 0 where none was embedded."""
        if not self.latencies:
            return {"p50": 0.0, "p99": 0.0}
        p50, p99 = np.percentile(np.fromiter(self.latencies, float), [50, 99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}

    def summary(self) -> dict[str, Any]:
        """As it stands in `summary.json`."""
        return {
            "samples": self.counts["samples"],
            "windows": self.counts["windows"],
            "embedded": self.counts["embedded"],
            "dropped": self.dropped(),
            "samples_dropped": self.dropped(SAMPLE_DROPS),
            "symptoms": self.dropped(SYMPTOMS),
            "gaps": self.counts["gaps"],
            "restarts": self.counts["restarts"],
            "coverage_mean": round(self.coverage_mean(), 4),
            "latency_ms": self.latency_ms(),
        }
