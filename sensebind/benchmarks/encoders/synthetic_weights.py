"""Random weights for imagebind_huge, to measure time and memory: these do not depend on the values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sensebind.fusion.models.imagebind.network import ENCODER_CONFIGS, modality_of_entry, state_dict_shapes


def synthetic_weights(
    modalities: Iterable[str], device: str | torch.device = "cpu", sizes: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """State dict of random float32 weights, the same in every run on the same device type. `sizes`: see `ImageBind`."""
    generator = torch.Generator(device).manual_seed(0)
    state = {}
    for name, shape in state_dict_shapes(modalities, sizes).items():
        values = torch.randn(shape, generator=generator, device=device)
        if name.endswith(".mask"):
            values = torch.full(shape, -math.inf, device=device).triu(1)
        elif name.endswith("log_logit_scale"):
            values = torch.tensor(math.log(ENCODER_CONFIGS[modality_of_entry(name)].initial_logit_scale), device=device)
        elif len(shape) == 1:
            values = values * 0.2 + (1.0 if name.endswith("weight") else 0.0)  # LayerNorm's weights, and biases
        elif any(part in name for part in ("pos_embed", "cls_token", "token_embedding", "bias_k", "bias_v")):
            values *= 0.5
        else:
            values *= 1.5 / math.sqrt(math.prod(shape[1:]))
        state[name] = values
    return state
