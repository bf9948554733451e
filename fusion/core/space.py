"""The contract of a space: everything that the engine, the GPU runner, spokes and nodes may ask of one.

A space is a model with its weights: a set of encoders. Their vectors can be compared with each other, and with vectors
of no other space. Derive from `Space`, or from `Hub` if spokes can be trained to match its image encoder. What a space
must define is abstract; everything else has a default that suits a plain model on a CPU.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sensebind.fusion.core.errors import SensebindError

if TYPE_CHECKING:
    import torch

    from sensebind.fusion.core.futures import EmbeddingFuture
    from sensebind.fusion.core.windows import Window

Encoder: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"  # (B, …) on the device → float32 (B, D) there


class SpaceError(SensebindError):
    """A space that cannot be found or loaded; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TrainedWindow:
    """The window of a modality that the model was trained with.

    `length` is in seconds; `frames` is how many images are taken from the window (0: the whole time series).
    """

    length: float
    frames: int = 0


class Space(ABC):
    """A model and its weights. All vectors it returns are float32, unit length, `dimension` long.

    Attributes:
        id: ``name@digest``; vectors compare only if their ids are equal.
        dimension: length D of a vector.
        modalities: those with a trained encoder here. Always includes ``text``, for `embed_text`;
            `embed` takes the others.
        logit_scales: per modality, the factor that its cosines are multiplied by before a softmax.
        trained_windows: windows of the sensor modalities; may name ones without an encoder yet.
        licence: of the weights, as an SPDX identifier or a sentence.
    """

    if TYPE_CHECKING:  # A subclass defines them as attributes or as properties; `validate_space` checks that it did.

        @property
        def id(self) -> str: ...

        @property
        def dimension(self) -> int: ...

        @property
        def modalities(self) -> tuple[str, ...]: ...

        @property
        def logit_scales(self) -> Mapping[str, float]: ...

        @property
        def trained_windows(self) -> Mapping[str, TrainedWindow]: ...

        @property
        def licence(self) -> str: ...

    @abstractmethod
    def tensor(self, window: Window) -> torch.Tensor:
        """One window → the encoder's input, without the batch axis, on the CPU. This is the preprocessing.

        Raises `sensebind.fusion.core.encodings.EncodingError` for data that cannot be understood.
        """

    @abstractmethod
    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        """(B, …) stacked `tensor`s → (B, dimension) float32 unit vectors on the CPU."""

    @abstractmethod
    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """N phrases → (N, dimension) float32 unit vectors on the CPU."""

    @property
    def logit_biases(self) -> Mapping[str, float]:
        """Per modality, what is added to a scaled cosine before a sigmoid. The default, empty, means 0."""
        return {}

    # --- Windows from streams, and several modalities at once

    def stream_tensor(self, window: Window) -> torch.Tensor:
        """As `tensor`, for windows of a stream: it may reuse results that overlapping windows share, and the shape may
        differ from that of `tensor`. `embed` and `embed_async` take batches of it. Raises as `tensor` does."""
        return self.tensor(window)

    def embed_async(self, modality: str, batch: torch.Tensor) -> EmbeddingFuture:
        """Begin to `embed` a batch (B, …) and return at once, so that several modalities are computed at the same time.
        The default computes before it returns."""
        from sensebind.fusion.core.futures import CompletedFuture

        began = time.perf_counter()
        vectors = self.embed(modality, batch)
        return CompletedFuture(vectors, time.perf_counter() - began)

    @property
    def compiled_modalities(self) -> frozenset[str]:
        """Modalities whose encoders are compiled for this processor."""
        return frozenset()

    # --- A GPU. A space on CUDA is driven by `inference.cuda.GpuRunner`, which calls these.

    @cached_property  # so that a subclass may assign it
    def device(self) -> torch.device:
        """Where the encoders compute. A space that returns a CUDA device here is run by the GPU runner."""
        import torch

        return torch.device("cpu")

    @cached_property
    def dtype(self) -> torch.dtype:
        """The encoders' precision."""
        import torch

        return torch.float32

    def device_input(self, window: Window) -> torch.Tensor:
        """One window → the row that is sent to the device, in as few bytes as possible. Raises as `tensor` does."""
        return self.tensor(window)

    def encoder(self, modality: str) -> Encoder:
        """The function that computes unit vectors from stacked `device_input` rows, all on the device. The default
        calls `embed` with the rows on the CPU, as `embed` expects, so the host waits for the device."""
        return lambda rows: self.embed(modality, rows.cpu()).to(self.device)

    def graph_capturable(self, modality: str) -> bool:
        """Whether a CUDA graph can record the work of `encoder(modality)`: False where that work waits for the
        device, for example to copy a result to the host."""
        return False


class Hub(Space):
    """A space that spokes are trained to match, on a copy of its image encoder.

    Attributes:
        shipped_spokes: spoke files that come with the hub.
        compiled: whether the encoders of the hub and of its spokes are compiled for this processor.
    """

    shipped_spokes: Sequence[Path] = ()
    compiled: bool = False

    @abstractmethod
    def image_encoder(self) -> torch.nn.Module:
        """A copy of the image encoder, float32 on the CPU: RGB levels float32 (B, 3, 224, 224) in 0..1 → unit
        vectors (B, dimension)."""


class SpaceFactory(Protocol):
    """What makes a space: the object that an entry point of the group ``sensebind.models`` names."""

    def __call__(
        self,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = "auto",
    ) -> Space:
        """Load only the encoders that `modalities` need (None: all), onto `device`.

        `weights` names a file or folder (empty: those that the space comes with); `dtype` is auto, float32,
        bf16 or fp16. Raises `SpaceError` where the weights are missing or wrong.
        """


REQUIRED_ATTRIBUTES = ("id", "dimension", "modalities", "logit_scales", "trained_windows", "licence")


def validate_space(space: object, name: str) -> Space:
    """Return `space` if it fulfils the contract. Raises a `SpaceError` that names what is missing."""
    if not isinstance(space, Space):
        raise SpaceError(
            f"space '{name}' is a {type(space).__name__}: derive it from sensebind.fusion.core.space.Space (or Hub)"
        )
    if missing := [field for field in REQUIRED_ATTRIBUTES if not hasattr(space, field)]:
        raise SpaceError(f"space '{name}' ({type(space).__name__}) lacks {', '.join(missing)}")
    import torch

    if not isinstance(space.device, torch.device):
        raise SpaceError(f"space '{name}' has the device {space.device!r}: set torch.device({str(space.device)!r})")
    return space
