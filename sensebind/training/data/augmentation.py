"""The same cut in both pictures of a pair, so that what is where still agrees; brightness in the spoke's alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

MIN_CROP_SIDE = 0.6  # of the side that a cut keeps


def random_crops(count: int, generator: torch.Generator) -> Tensor:
    """float32 (count, 2, 3): affine maps of a cut's square into the picture's, as `affine_grid` takes them; half of
    them mirrored."""
    side = MIN_CROP_SIDE + (1 - MIN_CROP_SIDE) * torch.rand(count, 2, generator=generator)
    shift = (1 - side) * (2 * torch.rand(count, 2, generator=generator) - 1)
    mirror = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0], maps[:, 1, 1] = side[:, 0] * mirror, side[:, 1]
    maps[:, :, 2] = shift
    return maps


def apply_crops(pictures: Tensor, maps: Tensor) -> Tensor:
    """Pictures (B, C, H, W), maps (B, 2, 3) of `random_crops` → (B, C, H, W)."""
    grid = affine_grid(maps, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter_brightness(levels: Tensor, generator: torch.Generator, inverted_fraction: float = 0.0) -> Tensor:
    """Levels (B, C, H, W) in 0..1 with another gain, gamma and noise each; a share of them `inverted_fraction`."""
    shape = (len(levels), 1, 1, 1)
    gamma = torch.exp(0.25 * torch.randn(shape, generator=generator))
    gain = 0.7 + 0.6 * torch.rand(shape, generator=generator)
    noise = 0.04 * torch.rand(shape, generator=generator) * torch.randn(levels.shape, generator=generator)
    changed = (levels.clamp(min=1e-3) ** gamma * gain + noise).clamp(0, 1)
    flipped = torch.rand(shape, generator=generator) < inverted_fraction
    return torch.where(flipped, 1 - changed, changed)
