"""Vectors that are being computed: `Space.start` and a GPU runner return them, and the engine waits for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class EmbeddingFuture(ABC):
    """The vectors of one batch, computed or still being computed.

    `first`: a batch of this shape ran for the first time, so its time does not predict the next one.
    `took`: seconds that computing took, if it ended before this object was returned; None if it is still going on.
    """

    first: bool = False
    took: float | None = None

    @abstractmethod
    def fetch(self) -> Tensor:
        """Wait for the vectors: float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""


class Computed(EmbeddingFuture):
    """Vectors that are already computed."""

    def __init__(self, vectors: Tensor, took: float) -> None:
        self._vectors, self.took = vectors, took

    def fetch(self) -> Tensor:
        """float32 (B, D) on the CPU, at once."""
        return self._vectors


class Deferred(EmbeddingFuture):
    """Vectors that `finish` waits for or computes. Call `fetch` only once."""

    def __init__(self, finish: Callable[[], Tensor]) -> None:
        self._finish = finish

    @torch.inference_mode()
    def fetch(self) -> Tensor:
        """float32 (B, D) on the CPU. Raises `RuntimeError` if the device failed."""
        return self._finish()
