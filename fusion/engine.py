"""Closed windows to vectors: frontend, batch, device. The seam that a faster engine replaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sensebind.fusion.embeddings import Embedding
from sensebind.fusion.encodings import EncodingError
from sensebind.fusion.models.registry import Space
from sensebind.fusion.windows import Window


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be embedded: `cause` is `encoding` (its data) or `failure` (the device)."""

    modality: str
    cause: str
    message: str


class Engine:
    """Embeds windows of the modalities that `space` has encoders for.

    `embed` takes any windows in any order and answers for each in its place. It never raises for what a
    window holds or a device does: that is a `Failure`.
    """

    def __init__(self, space: Space, batch_size: int = 16) -> None:
        self.space = space
        self.batch_size = batch_size

    def embed(self, windows: Sequence[Window]) -> list[Embedding | Failure]:
        """One result per window, in order."""
        results: dict[int, Embedding | Failure] = {}
        ready: dict[tuple[str, torch.Size], list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for index, window in enumerate(windows):
            try:
                tensor = self.space.tensor(window)
            except (EncodingError, ValueError) as error:
                results[index] = Failure(window.modality, "encoding", str(error))
            else:
                ready[window.modality, tensor.shape].append((index, tensor))
        for (modality, _), items in ready.items():
            for first in range(0, len(items), self.batch_size):
                batch = items[first : first + self.batch_size]
                chosen = [windows[index] for index, _ in batch]
                answers = self._batch(modality, chosen, torch.stack([tensor for _, tensor in batch]))
                results.update(zip((index for index, _ in batch), answers, strict=True))
        return [results[index] for index in range(len(windows))]

    def _batch(self, modality: str, windows: Sequence[Window], batch: torch.Tensor) -> Sequence[Embedding | Failure]:
        try:
            vectors = self.space.embed(modality, batch).numpy()
        except RuntimeError as error:  # what PyTorch raises for the device, out of memory included
            return [Failure(modality, "failure", f"on the device: {error}")] * len(windows)
        return [
            Embedding(
                modality=modality,
                start=window.start,
                tick=window.tick,
                space=self.space.id,
                coverage=window.coverage,
                vector=vector,
                frame_id=window.samples[-1].frame_id,
            )
            for window, vector in zip(windows, vectors, strict=True)
        ]
