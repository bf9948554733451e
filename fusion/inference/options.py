"""The parameters of the engine. Does not import PyTorch, because nodes without an engine need them too."""

from __future__ import annotations

from dataclasses import dataclass

from sensebind.fusion.core.parameters import Options, parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions(Options):
    """How windows are batched. Raises `ConfigError`."""

    batch_size: int = parameter(
        16, "Largest number of windows of one modality that are embedded together", bounds=(1, 1024)
    )
