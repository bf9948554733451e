"""What a space is, and how one is found by name.

A space is a model with its weights: a set of encoders whose vectors compare with each other and with
nothing else. Third parties add their own under the entry-point group ``sensebind.models``: the entry
point's name is the space's name, its object a factory with the signature of `SpaceFactory`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from sensebind.fusion.core.errors import SensebindError

if TYPE_CHECKING:
    import torch

    from sensebind.fusion.core.windows import Window

GROUP = "sensebind.models"
BUILTIN = {
    "starter": "sensebind.fusion.models.starter.space:StarterSpace.load",
    "imagebind_huge": "sensebind.fusion.models.imagebind.space:ImageBindSpace.load",
}

OPEN_CLIP = "open_clip"  # followed by a colon and the name of one of its models


class SpaceError(SensebindError):
    """A space that cannot be found or loaded; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Aperture:
    """How much of a modality the model looks at: the window that it was trained with.

    `length` is in seconds; `frames` is how many images are taken from it (0: the whole time series).
    """

    length: float
    frames: int = 0


class Space(Protocol):
    """A model and its weights. All vectors it returns are float32, unit length, `dimension` long."""

    @property
    def id(self) -> str:
        """``name@digest``; vectors compare only when their ids are equal."""

    @property
    def dimension(self) -> int: ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those with a trained encoder here: what `embed` takes. Always includes ``text``."""

    @property
    def logit_scales(self) -> Mapping[str, float]:
        """Per modality, the factor that its cosines are multiplied by before a softmax."""

    @property
    def apertures(self) -> Mapping[str, Aperture]:
        """Windows of the sensor modalities; may name ones without an encoder yet."""

    @property
    def licence(self) -> str: ...

    def tensor(self, window: Window) -> torch.Tensor:
        """One window → the encoder's input, without the batch axis, on the CPU. This is the frontend.

        Raises `sensebind.fusion.core.encodings.EncodingError` for data that cannot be understood.
        """

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        """(B, …) stacked `tensor`s → (B, dimension) float32 unit vectors on the CPU."""

    def embed_text(self, texts: Sequence[str]) -> torch.Tensor:
        """N phrases → (N, dimension) float32 unit vectors on the CPU."""


class Hub(Space, Protocol):
    """A space whose image encoder can be trained further: what spokes are bound to."""

    def image_encoder(self) -> torch.nn.Module:
        """A copy of the image encoder, float32 on the CPU: RGB levels float32 (B, 3, 224, 224) in 0..1 → unit
        vectors (B, dimension)."""


class SpaceFactory(Protocol):
    def __call__(
        self,
        *,
        modalities: Iterable[str] | None = None,
        device: str = "cpu",
        weights: str = "",
        dtype: str = "auto",
    ) -> Space:
        """Load only the encoders that `modalities` need (all where None), onto `device`.

        `weights` names a file or folder (empty: those that the space comes with); `dtype` is auto, float32,
        bf16 or fp16.
        """


def names() -> list[str]:
    """Names of all spaces that this installation knows, whether or not their weights are there."""
    return sorted({*BUILTIN, *(entry.name for entry in entry_points(group=GROUP))})


def load(
    name: str,
    *,
    modalities: Iterable[str] | None = None,
    device: str = "cpu",
    weights: str = "",
    dtype: str = "auto",
    spokes: Sequence[str] = (),
) -> Space:
    """The space called `name`, with the spokes that it ships and those in the files `spokes`.

    Raises `SpaceError` where the name is unknown or the weights are missing or wrong.
    """
    from sensebind.fusion.models.spokes.bound import bind

    device, asked = resolve_device(device), None if modalities is None else list(modalities)
    hub = hub_of(name, modalities=asked, device=device, weights=weights, dtype=dtype)
    return bind(hub, spokes, asked, device)


def hub_of(
    name: str,
    *,
    modalities: Iterable[str] | None = None,
    device: str = "cpu",
    weights: str = "",
    dtype: str = "auto",
) -> Space:
    """The space called `name` by itself, without spokes. Raises `SpaceError`."""
    return _factory(name)(modalities=modalities, device=resolve_device(device), weights=weights, dtype=dtype)


def resolve_device(device: str) -> str:
    """``auto`` → ``cuda`` where there is one, else ``cpu``; others are checked and returned."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SpaceError(f"device '{device}' is not one that PyTorch knows: use cpu, cuda or auto") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpaceError(f"device '{device}' cannot be used, because PyTorch finds no GPU: choose cpu or auto")
    return device


def _factory(name: str) -> SpaceFactory:
    from functools import partial
    from importlib.metadata import EntryPoint

    family, _, variant = name.partition(":")
    if family == OPEN_CLIP:
        clip = EntryPoint(family, "sensebind.fusion.models.open_clip:OpenClipSpace.load", GROUP).load()
        return partial(clip, model=variant)
    if name in BUILTIN:
        loaded: SpaceFactory = EntryPoint(name, BUILTIN[name], GROUP).load()
        return loaded
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            found: SpaceFactory = entry.load()
            return found
    raise SpaceError(f"no space is called '{name}'; known here: {', '.join(names())}, {OPEN_CLIP}:<model>")
