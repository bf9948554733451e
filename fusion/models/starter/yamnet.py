"""YAMNet (Google; a MobileNet, arXiv 1704.04861, trained on AudioSet), for inference.

Batch normalization is folded into the convolutions of the weight file (`weights/yamnet.md`). Its inputs are the log-mel
patches of `preprocess.log_mel_patches`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.starter.layers import Convolution
from sensebind.fusion.preprocess.log_mel_patches import log_mel_patches

CLASS_COUNT = 521
EMBEDDING_SIZE = 1024
STEM_CHANNELS = 32
# Per depthwise separable convolution: output channels and stride.
SEPARABLE_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1),
                    (512, 1), (1024, 2), (1024, 1))  # fmt: skip


class YamNetOutput(NamedTuple):
    """The network's output for B patches: `embedding` (B, 1024), `logits` (B, 521) of AudioSet's classes, for a
    sigmoid."""

    embedding: Tensor
    logits: Tensor


class YamNet(nn.Module):
    """Log-mel patches float32 (B, 96, 64) → `YamNetOutput`."""

    def __init__(self) -> None:
        """A network without weights: see `load`."""
        super().__init__()
        layers = [Convolution(1, STEM_CHANNELS, 3, 2, activation="relu")]
        inputs = STEM_CHANNELS
        for outputs, stride in SEPARABLE_LAYERS:
            layers.append(Convolution(inputs, inputs, 3, stride, groups=inputs, activation="relu"))
            layers.append(Convolution(inputs, outputs, 1, activation="relu"))
            inputs = outputs
        self.convolutions = nn.Sequential(*layers)
        self.classifier = nn.Linear(EMBEDDING_SIZE, CLASS_COUNT)
        self.eval().requires_grad_(False)

    def forward(self, patches: Tensor) -> YamNetOutput:
        embedding = self.convolutions(patches[:, None]).mean(dim=(2, 3))
        return YamNetOutput(embedding, self.classifier(embedding))

    def of_sound(self, sound: Tensor) -> YamNetOutput:
        """Sound float32 (B, N) at 16 kHz → the output for each of its P patches: (B, P, 1024) and (B, P, 521)."""
        patches = log_mel_patches(sound)
        outputs = self(patches.flatten(0, 1))
        return YamNetOutput(*(values.unflatten(0, patches.shape[:2]) for values in outputs))


def load(path: str | Path) -> YamNet:
    """Load the network from the safetensors file that ships with the starter space.

    Raises `SpaceError` if the file is missing, damaged or of another model.
    """
    try:
        state = safetensors.torch.load_file(path)
        network = YamNet()
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except FileNotFoundError as error:
        raise SpaceError(f"weight file '{path}' is missing: install Sensebind again") from error
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise SpaceError(f"weight file '{path}' is damaged or not YAMNet's: {reason}") from error
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
