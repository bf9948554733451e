"""Loads spaces by name: those of this package, models of transformers and open_clip, and spaces that other packages
register.

Other packages register spaces under the entry-point group ``sensebind.models``. The name of an entry point is the name
of the space. Its object is a factory with the signature of `core.space.SpaceFactory`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from sensebind.fusion.core.freed_memory import return_freed_memory
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.space import Space, SpaceError, SpaceFactory, validate_space
from sensebind.fusion.models.precision import AUTO_DTYPE, DTYPE_NAMES

ENTRY_POINT_GROUP = "sensebind.models"
BUILTIN_SPACES = {
    "starter": "sensebind.fusion.models.starter.space:StarterSpace.load",
    "imagebind_huge": "sensebind.fusion.models.imagebind.space:ImageBindSpace.load",
}

PREFIXED_SPACES = {  # prefix → factory; the space is called <prefix>:<model>
    "open_clip": "sensebind.fusion.models.open_clip:OpenClipSpace.load",
    "transformers": "sensebind.fusion.models.transformers.space:TransformersSpace.load",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceOptions(Options):
    """The space to load, and how to load it. Raises `ConfigError`."""

    space: str = parameter(
        "starter",
        "Embedding space (the model): starter, imagebind_huge, transformers:<folder or owner/model>, "
        "open_clip:<model>, or one that another package registers",
    )
    weights: str = parameter(
        "",
        "Weight file or folder; imagebind_huge and open_clip need one. Empty: those that are installed with the space, "
        "or that the space's name says",
    )
    spokes: tuple[str, ...] = parameter(
        (), "Files of spokes (encoders trained by `sensebind align`). Each replaces the space's encoder of its modality"
    )
    dtype: str = parameter(
        AUTO_DTYPE, "Precision of the encoders. auto: the space decides", choices=(AUTO_DTYPE, *DTYPE_NAMES)
    )
    device: str = parameter("auto", "Device of the encoders: cpu, cuda, cuda:1, … auto: cuda if there is one, else cpu")


def space_names() -> list[str]:
    """Names of all installed spaces, with or without weights."""
    return sorted({*BUILTIN_SPACES, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


def load_space(
    name: str,
    *,
    modalities: Iterable[str] | None = None,
    device: str = "cpu",
    weights: str = "",
    dtype: str = AUTO_DTYPE,
    spokes: Sequence[str] = (),
) -> Space:
    """Load the space `name`, with the spokes that it ships and those in the files `spokes`.

    A hub without an encoder for depth or thermal images embeds them with its image encoder (`image_rendering`).

    Raises `SpaceError` if the name is unknown or the weights are missing or wrong.
    """
    from sensebind.fusion.models.image_rendering import with_rendering
    from sensebind.fusion.models.spokes.bound_space import bind_spokes

    device, requested = resolve_device(device), None if modalities is None else list(modalities)
    hub = load_without_spokes(name, modalities=requested, device=device, weights=weights, dtype=dtype)
    space = bind_spokes(with_rendering(hub, requested), spokes, requested, device, load_source=load_space)
    return_freed_memory()  # that was needed only while loading: 45 MB of the starter space
    return space


def load_without_spokes(
    name: str,
    *,
    modalities: Iterable[str] | None = None,
    device: str = "cpu",
    weights: str = "",
    dtype: str = AUTO_DTYPE,
) -> Space:
    """Load the space `name` without spokes. Raises `SpaceError`."""
    space = _factory(name)(modalities=modalities, device=resolve_device(device), weights=weights, dtype=dtype)
    return validate_space(space, name)


def resolve_device(device: str) -> str:
    """``auto`` → ``cuda`` if PyTorch finds a GPU, else ``cpu``. Checks other names and returns them.

    Raises `SpaceError` if PyTorch does not know the device or finds no GPU.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SpaceError(f"PyTorch does not know the device '{device}': use cpu, cuda or auto") from error
    if kind not in ("cpu", "cuda"):
        raise SpaceError(f"device '{device}' is not supported: use cpu, cuda or auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SpaceError(f"device '{device}' cannot be used, because PyTorch finds no GPU: choose cpu or auto")
    return device


def _factory(name: str) -> SpaceFactory:
    from functools import partial
    from importlib.metadata import EntryPoint

    prefix, _, model = name.partition(":")
    if prefix in PREFIXED_SPACES:
        return partial(EntryPoint(prefix, PREFIXED_SPACES[prefix], ENTRY_POINT_GROUP).load(), model=model)
    if name in BUILTIN_SPACES:
        loaded: SpaceFactory = EntryPoint(name, BUILTIN_SPACES[name], ENTRY_POINT_GROUP).load()
        return loaded
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            found: SpaceFactory = entry.load()
            return found
    raise SpaceError(
        f"there is no space '{name}'; available: {', '.join(space_names())}, "
        f"{', '.join(f'{prefix}:<model>' for prefix in PREFIXED_SPACES)}"
    )
