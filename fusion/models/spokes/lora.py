"""Low-rank adaptation (LoRA, Hu et al., arXiv 2106.09685): trains a low-rank update of frozen weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRankUpdate(nn.Module):
    """Weight W (out, …) → W + B A in the shape of W. At first A (rank, in) is random and B (out, rank) is 0, so the
    result is W."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def add_lora(module: nn.Module, rank: int) -> None:
    """Freeze `module`, and add a trainable update of this rank to each linear layer and dense convolution in it whose
    weight has a higher rank. Biases are trained too: they cost nothing and adapt a network to another kind of image."""
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
    """Add the updates to the weights, so that inference costs no more than without them."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
