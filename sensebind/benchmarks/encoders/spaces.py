"""The space that a benchmark measures: a real one, or ImageBind at its full size with synthetic weights."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from sensebind.benchmarks.encoders.synthetic_weights import synthetic_weights
from sensebind.benchmarks.harness import command_line
from sensebind.benchmarks.harness.sensor_load import MESSAGE_RATES
from sensebind.fusion.config.build import make_window_specs
from sensebind.fusion.config.parameters import embedder_values
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.core.space import Space
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.models import registry
from sensebind.fusion.models.imagebind.network import ENCODER_CONFIGS, MODALITIES, SPACE_NAME, ImageBind
from sensebind.fusion.models.imagebind.space import ImageBindSpace, resolve_dtype
from sensebind.fusion.models.phrases import TextEmbeddingCache

STARTER = "starter"
TINY_SIZES: Mapping[str, Any] = {  # sizes of `ImageBind`: one block of width 16 for each encoder
    f"{modality}_{name}": value
    for modality in MODALITIES
    for name, value in (("embed_dim", 16), ("num_blocks", 1), ("num_heads", 2))
} | {"out_embed_dim": 16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a benchmark that measures a space."""
    parser.add_argument(
        "--space", default="", help=f"space to measure (default: {STARTER} on a CPU, {SPACE_NAME} on a GPU)"
    )
    parser.add_argument(
        "--weights", default="", help=f"weight file or folder (default: the space's own; {SPACE_NAME}: random)"
    )
    parser.add_argument("--dtype", default="auto", help="auto, float32, bf16 or fp16 (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default: %(default)s)")
    parser.add_argument(
        "--tiny", action="store_true", help=f"use a very small random {SPACE_NAME}: to test a benchmark, not to measure"
    )
    command_line.add_output(parser)


def resolve_defaults(args: argparse.Namespace) -> None:
    """Set the device and the space of `args` if they are `auto` or empty. Raises `SpaceError` for a missing device."""
    args.device = registry.resolve_device(args.device)
    args.space = args.space or (SPACE_NAME if args.device.startswith("cuda") or args.tiny else STARTER)


def load(args: argparse.Namespace, modalities: Iterable[str] = tuple(MESSAGE_RATES), dtype: str | None = None) -> Space:
    """Load the space that the options name. `dtype`: replaces that of the options. Raises `SpaceError`."""
    wanted = args.dtype if dtype is None else dtype
    if args.space == SPACE_NAME and not args.weights:
        return SyntheticImageBind(
            modalities, args.device, resolve_dtype(wanted, args.device), TINY_SIZES if args.tiny else None
        )
    return registry.load_space(
        args.space, modalities=modalities, device=args.device, weights=args.weights, dtype=wanted
    )


def specs(space: Space, modalities: Sequence[str]) -> Mapping[str, WindowSpec]:
    """The windows of `modalities` with default parameters, in the lengths that the space was trained with."""
    return make_window_specs(embedder_values({"modalities": list(modalities)}), space.trained_windows)


def weights_description(space: Space) -> str:
    """Describe the weights for a report."""
    if not isinstance(space, SyntheticImageBind):
        return "real"
    return "synthetic (random, tiny: times have no meaning)" if space.is_tiny else "synthetic (random, published sizes)"


class SyntheticImageBind(ImageBindSpace):
    """ImageBind with random weights: as fast and as large as the real one. `sizes`: see `ImageBind`."""

    id: str

    def __init__(
        self,
        modalities: Iterable[str],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        sizes: Mapping[str, Any] | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.id = f"{SPACE_NAME}@synthetic"
        self._config_overrides = dict(sizes or {})
        self.is_tiny = self._config_overrides == TINY_SIZES
        self._available_modalities = set(modalities) | {TEXT}
        self.logit_scales = {
            m: ENCODER_CONFIGS[m].initial_logit_scale for m in MODALITIES if m in self._available_modalities
        }
        self._models: dict[str, ImageBind] = {}
        self._load_lock = threading.Lock()
        self._text_cache = TextEmbeddingCache()
        for modality in modalities:
            self.load_encoder(modality)

    def _load(self, modality: str) -> ImageBind:
        with torch.device("meta"):
            model = ImageBind(modalities=[modality], **self._config_overrides)
        state = synthetic_weights([modality], self.device, self._config_overrides)
        model.load_checkpoint({k: v.to(self.dtype) if v.ndim else v for k, v in state.items()})
        return model.eval()
