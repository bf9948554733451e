"""The parameters of a pipeline. This module does not import PyTorch, because nodes without encoders use it too."""

from __future__ import annotations

from dataclasses import dataclass

from sensebind.fusion.core.parameters import Options, parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions(Options):
    """Limits of the wait for fusion, and of the number and age of windows in the queue. Raises `ConfigError`."""

    fusion_timeout: float = parameter(
        1.0,
        "Fusion waits for a sensor while it is at most this far behind the newest sensor, by stamps. One of three or "
        "more sensors that is up to 3 s ahead of all others does not count as the newest. 0: no waiting",
        bounds=(0.0, 60.0),
        unit="s",
        formerly="patience",
    )
    queue_size: int = parameter(
        16,
        "Number of closed windows of one sensor that may wait. If there are more, the oldest is dropped (counted "
        "as `overload`). Live only",
        bounds=(1, 10_000),
    )
    deadline: float = parameter(
        1.0,
        "Time that a window may wait. After it, only the newest windows of its sensor are embedded; the others are "
        "dropped (counted as `expired`). 0: no limit. Live only",
        bounds=(0.0, 3600.0),
        unit="s",
    )
    memory_limit_mb: int = parameter(
        0,
        "Resident memory that the embedder and its workers may use together. What the loaded space leaves of it is "
        "divided among samples, windows, caches and the middleware; above a sensor's share, its oldest samples "
        "(counted as `overflow`) and windows (`overload`) are dropped. 0: no limit; a sensor then has at most 300 MB "
        "of samples and 300 MB of windows. Live only",
        bounds=(0, 16_777_216),
        unit="MB",
    )
