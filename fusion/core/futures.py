"""Futures of vectors: `Space.embed_async` and the GPU runner return them, and the engine fetches their vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class EmbeddingFuture(ABC):
    """The vectors of one batch, computed or still being computed.

    `is_first_of_shape`: this batch is the first of its shape, so its duration does not predict the next one.
    `compute_seconds`: duration of the computation in seconds, if it ended before this object was returned, else None.
    """

    is_first_of_shape: bool = False
    compute_seconds: float | None = None

    @abstractmethod
    def fetch(self) -> Tensor:
        """Wait for the vectors: float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""


class CompletedFuture(EmbeddingFuture):
    """Vectors that are already computed."""

    def __init__(self, vectors: Tensor, compute_seconds: float) -> None:
        self._vectors, self.compute_seconds = vectors, compute_seconds

    def fetch(self) -> Tensor:
        """Return float32 (B, D) on the CPU, without waiting."""
        return self._vectors


class DeferredFuture(EmbeddingFuture):
    """Vectors that `finish` waits for or computes. Call `fetch` only once."""

    def __init__(self, finish: Callable[[], Tensor]) -> None:
        self._finish = finish

    @torch.inference_mode()
    def fetch(self) -> Tensor:
        """Return float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""
        return self._finish()
