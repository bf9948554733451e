"""Vectors that are being computed: what `Space.start` and a GPU runner return, and what the engine waits for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class EmbeddingFuture(ABC):
    """The vectors of one batch, under way or computed.

    `first`: a batch of this shape was run for the first time, so its time says nothing about the next one.
    `took`: seconds, where the vectors were computed before this object was returned; None where they are under way.
    """

    first: bool = False
    took: float | None = None

    @abstractmethod
    def fetch(self) -> Tensor:
        """Wait for the vectors: float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""


class Computed(EmbeddingFuture):
    """Vectors that are there already."""

    def __init__(self, vectors: Tensor, took: float) -> None:
        self._vectors, self.took = vectors, took

    def fetch(self) -> Tensor:
        """float32 (B, D) on the CPU, at once."""
        return self._vectors


class Deferred(EmbeddingFuture):
    """Vectors that `finish` waits for or computes. Fetch them once."""

    def __init__(self, finish: Callable[[], Tensor]) -> None:
        self._finish = finish

    @torch.inference_mode()
    def fetch(self) -> Tensor:
        """float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""
        return self._finish()
