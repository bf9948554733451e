"""Augmentation of image pairs: the same crop of both images, and another brightness of the spoke's image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

MIN_CROP_SIDE = 0.6  # smallest side of a crop, as a fraction of the image's


def random_crops(count: int, generator: torch.Generator) -> Tensor:
    """float32 (count, 2, 3): affine maps from a crop to the image, for `affine_grid`; half of them mirror the image."""
    side = MIN_CROP_SIDE + (1 - MIN_CROP_SIDE) * torch.rand(count, 2, generator=generator)
    shift = (1 - side) * (2 * torch.rand(count, 2, generator=generator) - 1)
    mirror = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0], maps[:, 1, 1] = side[:, 0] * mirror, side[:, 1]
    maps[:, :, 2] = shift
    return maps


def apply_crops(images: Tensor, maps: Tensor) -> Tensor:
    """Images (B, C, H, W), maps (B, 2, 3) of `random_crops` → crops (B, C, H, W)."""
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter_brightness(levels: Tensor, generator: torch.Generator, inverted_fraction: float = 0.0) -> Tensor:
    """Images (B, C, H, W) in 0..1 with random gain, gamma and noise each; a fraction of them is inverted."""
    shape = (len(levels), 1, 1, 1)
    gamma = torch.exp(0.25 * torch.randn(shape, generator=generator))
    gain = 0.7 + 0.6 * torch.rand(shape, generator=generator)
    noise = 0.04 * torch.rand(shape, generator=generator) * torch.randn(levels.shape, generator=generator)
    changed = (levels.clamp(min=1e-3) ** gamma * gain + noise).clamp(0, 1)
    inverted = torch.rand(shape, generator=generator) < inverted_fraction
    return torch.where(inverted, 1 - changed, changed)
