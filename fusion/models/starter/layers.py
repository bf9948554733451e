"""Layers that the networks of the starter space share, with batch normalization folded into their weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu6", "relu", "none"]


class Convolution(nn.Module):
    """A convolution with bias and TensorFlow's ``SAME`` padding, followed by `activation`.

    `odd_input`: the input has an odd number of rows and columns. With stride 2, an even input is padded by one row and
    column less, at the top and the left.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "relu6",
        odd_input: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False)
        self.stride, self.groups, self.activation = stride, groups, activation
        total = kernel - stride + (stride == 2 and odd_input)
        before, after = total // 2, total - total // 2
        self.uneven = (before, after, before, after) if before != after else None
        self.padding = 0 if self.uneven else before

    def forward(self, x: Tensor) -> Tensor:
        if self.uneven:
            x = functional.pad(x, self.uneven)
        x = self._convolve(x)
        if self.activation == "relu6":
            return functional.relu6(x, inplace=True)
        return functional.relu(x, inplace=True) if self.activation == "relu" else x

    def _convolve(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        # cuDNN compiles a kernel for each convolution and batch size: 4.7 s for the 115 of an image on an H100, before
        # the first vector of each batch size. PyTorch's own kernels start at once, and these networks are small.
        with torch.backends.cudnn.flags(enabled=False):
            return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)


class InvertedResidual(nn.Module):
    """Inverted residual block (MobileNetV2, arXiv 1801.04381): expansion, depthwise convolution, projection; a shortcut
    if the shape is unchanged."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, odd_input: bool = False
    ) -> None:
        super().__init__()
        expanded = inputs * expansion
        self.expand = Convolution(inputs, expanded, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(expanded, expanded, kernel, stride, groups=expanded, odd_input=odd_input)
        self.project = Convolution(expanded, outputs, 1, activation="none")
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y
