"""The abstract base classes of spaces: every member that the engine, the GPU runner, spokes and nodes may use.

A space is a set of encoders with their weights. Only vectors of the same space can be compared. Derive from `Space`, or
from `Hub` if spokes can be trained to match its image encoder. A subclass must define the attributes of `Space` and the
abstract methods. All other members have a default for a plain model on a CPU.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import TEXT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from sensebind.fusion.core.futures import EmbeddingFuture
    from sensebind.fusion.core.windows import Window

MIN_COMPETENCE = 0.5  # of a modality that can recognise a phrase
Encoder: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"  # (B, …) on the device → float32 (B, D) there
Preparation: TypeAlias = "Callable[[Window], torch.Tensor]"  # one window → one row, on the CPU


class SpaceError(SensebindError):
    """A space cannot be found or loaded. The message names the remedy."""


@dataclass(frozen=True, slots=True)
class TrainedWindow:
    """The window of a modality that the model was trained with.

    `length` is in seconds. `frames` is the number of images that are taken from the window; 0: the whole time series.
    """

    length: float
    frames: int = 0


class Space(ABC):
    """A set of encoders with their weights. Their vectors are float32, unit length, `dimension` long.

    Attributes:
        id: ``name@digest``. Vectors can be compared only if their ids are equal.
        dimension: length D of a vector.
        modalities: those with a trained encoder. Always includes ``text``, for `embed_text`; `embed` takes the others.
        logit_scales: modality → factor of its cosines before a softmax.
        trained_windows: sensor modality → its window. May include modalities that have no encoder yet.
        licence: licence of the weights, an SPDX identifier or a sentence.
    """

    if TYPE_CHECKING:  # A subclass defines these as attributes or properties; `validate_space` checks that.

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
        """Preprocess one window to the encoder's input, without the batch axis, on the CPU.

        Raises `sensebind.fusion.core.encodings.EncodingError` for data that cannot be decoded.
        """

    @abstractmethod
    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        """Embed a batch (B, …) of stacked `tensor` results: float32 unit vectors (B, dimension) on the CPU."""

    @abstractmethod
    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed N phrases: float32 unit vectors (N, dimension) on the CPU."""

    @property
    def logit_biases(self) -> Mapping[str, float]:
        """Modality → term that is added to its scaled cosines before a sigmoid; 0 if it is missing."""
        return {}

    def encoder_id(self, modality: str) -> str:
        """Return the id of the encoder of a modality, or of text: the same id means the same vectors for the same data.

        What was fitted to the vectors of an encoder (`events.prompt_calibration`) belongs to its id. The default
        implementation returns the id of the space: then all encoders change together.
        """
        return self.id

    # --- Phrases that a modality can recognise

    def competence(self, modality: str, phrases: Sequence[str]) -> torch.Tensor:
        """Return how well a modality of this space can recognise each of N phrases: float32 (N,), 0 to 1, on the CPU.

        With 0, the modality is no evidence for or against the phrase, unless a trained prompt classifier recognises it
        (`limits_classifiers`). 1: its vectors are full evidence, or the competence is not known. The default
        implementation returns 1 for all phrases.
        """
        import torch

        return torch.ones(len(phrases))

    def limits_classifiers(self, modality: str) -> bool:
        """Return whether the competence of a modality also limits trained prompt classifiers.

        True: with competence 0, the modality does not measure what the phrase names. A classifier would only learn what
        came at the same time in its training data, so none is trained or used. False, as in the default implementation:
        a classifier gives the competence 1 for its label.
        """
        return False

    def nearest_phrases(self, modality: str, phrase: str) -> list[str]:
        """Return phrases that a modality can recognise and that are similar to `phrase`, the nearest first.

        They are suggestions for a prompt that no modality can recognise. The default implementation returns none.
        """
        return []

    # --- Objects with their place in the image

    def object_names(self, modality: str) -> tuple[str, ...]:
        """Return the names of the K kinds of objects that the encoder of a modality locates, in the order of
        `EmbeddingFuture.objects`. The default implementation returns none."""
        return ()

    def named_objects(self, phrases: Sequence[str]) -> list[str]:
        """Return, for each of N phrases, which of the `object_names` it means; empty if it means none of them, as in
        the default implementation."""
        return [""] * len(phrases)

    # --- Computation of several modalities at the same time

    def embed_async(self, modality: str, batch: torch.Tensor) -> EmbeddingFuture:
        """Start to `embed` a batch (B, …) and return without waiting, so that several modalities are computed at the
        same time. The future also has the objects, if `object_names` are not empty. The default implementation
        computes the vectors before it returns."""
        from sensebind.fusion.core.futures import CompletedFuture

        began = time.perf_counter()
        vectors = self.embed(modality, batch)
        return CompletedFuture(vectors, time.perf_counter() - began)

    @property
    def compiled_modalities(self) -> frozenset[str]:
        """Modalities whose encoders are compiled for this processor."""
        return frozenset()

    # --- GPU: `inference.cuda.GpuRunner` uses these members of a space on CUDA

    @cached_property  # so that a subclass may assign it
    def device(self) -> torch.device:
        """The device on which the encoders compute. The GPU runner runs a space whose device is CUDA."""
        import torch

        return torch.device("cpu")

    @cached_property
    def dtype(self) -> torch.dtype:
        """The precision of the encoders."""
        import torch

        return torch.float32

    def device_input(self, window: Window) -> torch.Tensor:
        """Preprocess one window to the row that is copied to the device: few bytes. Raises the errors of `tensor`."""
        return self.tensor(window)

    def preparation(self, modality: str) -> Preparation | None:
        """Return a function that another process can use to prepare windows, without the weights of this space.

        It can be pickled. Its rows are those of `device_input` if the space is on a GPU, otherwise those of `tensor`.
        The default implementation returns None: only the process of the space prepares windows."""
        return None

    def encoder(self, modality: str) -> Encoder:
        """Return the function that computes unit vectors from stacked `device_input` rows, all on the device. That of
        the default implementation calls `embed` with the rows on the CPU, so the host waits for the device."""
        return lambda rows: self.embed(modality, rows.cpu()).to(self.device)

    def graph_capturable(self, modality: str) -> bool:
        """Return whether a CUDA graph can capture `encoder(modality)`. False if the encoder waits for the device, for
        example to copy a result to the host."""
        return False


class Hub(Space):
    """A space that spokes are trained to match. A spoke contains a copy of its image encoder.

    Attributes:
        shipped_spokes: spoke files that come with the hub.
        compiled: whether the encoders of the hub and of its spokes are compiled for this processor.
        renders_images: whether depth and thermal images without an encoder of their own may use the image encoder,
            rendered as grey images. False for a hub that is published with such encoders, or with spokes.
    """

    shipped_spokes: Sequence[Path] = ()
    compiled: bool = False
    renders_images: bool = True

    @abstractmethod
    def image_encoder(self) -> torch.nn.Module:
        """Return a copy of the image encoder, float32 on the CPU. It maps RGB images, float32 (B, 3, 224, 224) in 0..1,
        to unit vectors (B, dimension)."""

    def target_encoder(self) -> Encoder:
        """Return the function that maps images, as `image_encoder` takes them, to the vectors that spokes are trained
        to match. These are the vectors of `embed`, which may have parts that `image_encoder` does not compute."""
        return self.image_encoder()

    def computed_concepts(self, name: str, rate: float) -> torch.nn.Module:
        """Return the concepts that the hub computes from series at `rate` Hz, without trained weights: a module that
        takes series (B, C, T) and their unit vectors (B, dimension), and returns unit vectors (B, dimension).

        `name` is in the file of the spoke, and identifies the computation. Raises `SpaceError` if the hub has no
        concepts of this name, as in the default implementation."""
        raise SpaceError(
            f"the spoke needs the concepts {name}, which {self.id} does not compute: install the version of Sensebind "
            "that the spoke was made with, or make the spoke again"
        )


class SpaceFactory(Protocol):
    """Creates a space. The entry points of the group ``sensebind.models`` name objects of this type."""

    def __call__(
        self,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = "auto",
    ) -> Space:
        """Load only the encoders that `modalities` need (None: all), onto `device`.

        `weights` is a file or folder (empty: the default of the space); `dtype` is auto, float32, bf16 or fp16. Raises
        `SpaceError` if the weights are missing or wrong.
        """


def limited_competences(space: Space, phrases: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
    """Return modality → competence of each of N phrases, float32 (N,), without the modalities that have 1 for all.

    Raises `SpaceError` if the space returns an array of another shape, or values that are not 0 to 1.
    """
    import numpy as np

    found: dict[str, npt.NDArray[np.float32]] = {}
    for modality in set(space.modalities) - {TEXT} if phrases else ():
        values = np.asarray(space.competence(modality, phrases), np.float32)
        if values.shape != (len(phrases),) or not ((values >= 0) & (values <= 1)).all():
            raise SpaceError(
                f"space {space.id} has a competence of '{modality}' that is not one number of 0 to 1 for each of "
                f"{len(phrases)} phrases"
            )
        if (values < 1).any():
            found[modality] = values
    return found


def encoder_ids(space: Space) -> dict[str, str]:
    """Return modality → id of its encoder, for the modalities of a space, also for text."""
    return {modality: space.encoder_id(modality) for modality in space.modalities}


def limited_modalities(space: Space) -> frozenset[str]:
    """Return the modalities of a space whose competence also limits trained prompt classifiers."""
    return frozenset(m for m in space.modalities if m != TEXT and space.limits_classifiers(m))


def nearest_recognisable(
    space: Space, phrases: Sequence[str], competences: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, list[list[str]]]:
    """Return modality → for each of N phrases, similar phrases that the modality can recognise.

    `competences` is from `limited_competences`. The list is empty for phrases that the modality can recognise.
    """
    return {
        modality: [
            space.nearest_phrases(modality, phrase) if value < MIN_COMPETENCE else []
            for phrase, value in zip(phrases, values.tolist(), strict=True)
        ]
        for modality, values in competences.items()
    }


def suggested_phrases(near: Sequence[Sequence[str]], count: int = 3) -> list[str]:
    """Return at most `count` phrases of several lists (`Space.nearest_phrases`), the first of each list first."""
    by_rank = (phrase for rank in zip_longest(*near) for phrase in rank if phrase)
    return list(islice(dict.fromkeys(by_rank), count))


REQUIRED_ATTRIBUTES = ("id", "dimension", "modalities", "logit_scales", "trained_windows", "licence")


def validate_space(space: object, name: str) -> Space:
    """Return `space` if it is a valid `Space`. Raises `SpaceError`, which names the missing members."""
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
