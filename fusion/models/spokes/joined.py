"""A joined spoke: the encoder of another space, and a map from that space's vectors to the hub's.

Both spaces embed text, and the map was fitted to their vectors of the same phrases. So no windows of the modality were
paired with images or captions. The file holds the map; the encoder is loaded with its space.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.space import Encoder, Preparation, Space, SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.spokes.spoke import JOINED, SpokeSpec, check_hub, read_spec, read_state, write_spoke


class SourceLoader(Protocol):
    """Loads the space that a joined spoke takes its encoder from, with the spokes that the space ships."""

    def __call__(self, name: str, *, modalities: list[str], device: str, weights: str) -> Space: ...


class JoinMap(nn.Module):
    """Unit vectors (B, S) of the source → unit vectors (B, D) of the hub: minus a mean, then times a matrix.

    `matrix` (S, D) has orthonormal columns or rows. `mean` (S,): that of the modality's vectors in the source; zeros if
    it is not known. The results have no part of the mean of the hub's phrases, so their cosines with phrases are
    smaller than those of the hub's own encoders.
    """

    matrix: Tensor
    mean: Tensor

    def __init__(self, matrix: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("mean", mean.float())

    def forward(self, vectors: Tensor) -> Tensor:
        return normalize((vectors.float() - self.mean) @ self.matrix, dim=1)


class MappedFuture(EmbeddingFuture):
    """The vectors of another future, mapped when they are fetched."""

    def __init__(self, inner: EmbeddingFuture, map_vectors: Callable[[Tensor], Tensor]) -> None:
        self._inner, self._map = inner, map_vectors
        self.is_first_of_shape, self.compute_seconds = inner.is_first_of_shape, inner.compute_seconds

    @torch.inference_mode()
    def fetch(self) -> Tensor:
        """See `core.futures.EmbeddingFuture`."""
        return self._map(self._inner.fetch())


class JoinedSpoke:
    """The encoder of `source` for the modality of `spec`, followed by the map to the hub.

    All computations before the map are the source's own, so its compiled encoders stay in use.
    """

    def __init__(self, spec: SpokeSpec, source: Space, join: JoinMap) -> None:
        """Raises `SpaceError` if `source` is not the space that the map was fitted for, or lacks the encoder."""
        if source.id != spec.source_id:
            raise SpaceError(
                f"the spoke for '{spec.modality}' was joined from {spec.source_id}, but the space '{spec.source}' that "
                f"is installed is {source.id}: install that version, or run sensebind align --through text again"
            )
        if spec.modality not in source.modalities:
            raise SpaceError(
                f"space {source.id} has no encoder for '{spec.modality}'; it has {', '.join(source.modalities)}"
            )
        self.spec, self.source = spec, source
        self.join = join.requires_grad_(False).to("cpu").eval()
        self._join_on_device = JoinMap(join.matrix, join.mean).to(source.device).eval()

    def tensor(self, window: Window) -> Tensor:
        """See `core.space.Space`."""
        return self.source.tensor(window)

    def device_input(self, window: Window) -> Tensor:
        """See `core.space.Space`."""
        return self.source.device_input(window)

    def preparation(self) -> Preparation | None:
        """See `core.space.Space`."""
        return self.source.preparation(self.spec.modality)

    @torch.inference_mode()
    def embed(self, batch: Tensor) -> Tensor:
        """(B, …) stacked tensors → float32 unit vectors (B, D) on the CPU."""
        mapped: Tensor = self.join(self.source.embed(self.spec.modality, batch))
        return mapped

    def embed_async(self, batch: Tensor) -> EmbeddingFuture:
        """Begin to `embed`, as the source does."""
        return MappedFuture(self.source.embed_async(self.spec.modality, batch), self.join)

    def embed_on_device(self, batch: Tensor) -> Tensor:
        """(B, …) stacked `device_input` rows on the source's device → float32 unit vectors (B, D) there."""
        mapped: Tensor = self._join_on_device(self._encoder(batch))
        return mapped

    @property
    def is_compiled(self) -> bool:
        """Whether the source's encoder is compiled for this processor."""
        return self.spec.modality in self.source.compiled_modalities

    @property
    def graph_capturable(self) -> bool:
        """Whether a CUDA graph can capture `embed_on_device`."""
        return self.source.graph_capturable(self.spec.modality)

    @cached_property
    def _encoder(self) -> Encoder:
        return self.source.encoder(self.spec.modality)


def save(path: str | Path, spec: SpokeSpec, join: JoinMap) -> None:
    """Write a joined spoke. Raises `SpaceError` if the file cannot be written."""
    write_spoke(path, spec, dict(join.state_dict()))


def load(path: str | Path, hub: Space, device: str | torch.device, load_source: SourceLoader | None) -> JoinedSpoke:
    """Load a joined spoke and its source. Raises `SpaceError`, also if it is for another hub, or if the source is
    missing or has another id."""
    spec = read_spec(path)
    check_hub(path, spec, hub)
    if spec.kind != JOINED:
        raise SpaceError(f"spoke '{path}' is of kind '{spec.kind}', not '{JOINED}'")
    state = read_state(path)
    if state.keys() != {"matrix", "mean"} or state["matrix"].shape != (*state["mean"].shape, spec.dimension):
        raise SpaceError(f"spoke file '{path}' is damaged: run sensebind align --through text again")
    if not all(tensor.isfinite().all() for tensor in state.values()) or not state["matrix"].any():
        raise SpaceError(f"the numbers in spoke file '{path}' are damaged: run sensebind align --through text again")
    if load_source is None:
        raise SpaceError(f"spoke '{path}' needs the space '{spec.source}': load the hub with load_space")
    try:
        source = load_source(
            spec.source, modalities=[spec.modality], device=str(device), weights=find_weights(path, spec)
        )
        if source.dimension != len(state["mean"]):
            raise SpaceError(f"vectors of {source.id} have {source.dimension} dimensions, not {len(state['mean'])}")
        return JoinedSpoke(spec, source, JoinMap(state["matrix"], state["mean"]))
    except SpaceError as error:
        raise SpaceError(f"spoke '{path}' takes its encoder from the space '{spec.source}': {error}") from error


def find_weights(path: str | Path, spec: SpokeSpec) -> str:
    """The source's weights: the path that was given when the spoke was made, or the file or folder of that name beside
    the spoke file. "" if the source needs none. Raises `SpaceError` if neither exists."""
    if not spec.source_weights or Path(spec.source_weights).exists():
        return spec.source_weights
    beside = Path(path).parent / Path(spec.source_weights).name
    if beside.exists():
        return str(beside)
    raise SpaceError(f"its weights are neither at '{spec.source_weights}' nor at '{beside}': copy them there")
