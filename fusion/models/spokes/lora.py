"""Low-rank adaptation (LoRA, Hu et al., arXiv 2106.09685): train a small sum beside frozen weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRankUpdate(nn.Module):
    """Weight W (out, …) → W + B A, with A (rank, in) drawn and B (out, rank) zero: at first nothing changes."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def add_lora(module: nn.Module, rank: int) -> None:
    """Freeze `module`; give a sum of this rank to every linear layer and every dense convolution in it, and train the
    biases of all its layers too, which cost nothing and move a network from one kind of image to another."""
    module.requires_grad_(False)
    for layer in list(module.modules()):
        if not isinstance(layer, nn.Linear | nn.Conv2d) and not hasattr(layer, "weight"):
            continue
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim not in (2, 4):
            continue
        dense = getattr(layer, "groups", 1) == 1
        if dense and min(weight.shape[0], weight[0].numel()) > rank:
            parametrize.register_parametrization(layer, "weight", LowRankUpdate(weight, rank))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.requires_grad_(True)


def merge_lora(module: nn.Module) -> None:
    """Add the sums into the weights, so that inference costs what it did without them."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
