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
    `objects`: the objects that the encoder located in the inputs, float32 (B, K, 5), for the K names of
    `Space.object_names`: the score, 0 to 1, and the left, top, right and bottom edge as fractions of the image's width
    and height. `fetch` sets it. None if the encoder locates none, and on a GPU.
    """

    is_first_of_shape: bool = False
    compute_seconds: float | None = None
    objects: Tensor | None = None

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


class SceneFuture(EmbeddingFuture):
    """Vectors and objects that `finish` waits for or computes. Call `fetch` only once."""

    def __init__(self, finish: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self._finish = finish

    @torch.inference_mode()
    def fetch(self) -> Tensor:
        """Return float32 (B, D) on the CPU, and set `objects`. Raises `RuntimeError` if the device failed."""
        vectors, self.objects = self._finish()
        return vectors
