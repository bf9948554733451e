"""Fixed (untrained) features of a sound, on which a sound spoke is trained: YAMNet's embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sensebind.fusion.models.starter import yamnet
from sensebind.fusion.models.starter.weight_files import AUDIO_WEIGHTS, find_weight_file

FEATURE_SHAPE = (2, yamnet.EMBEDDING_SIZE)


class AudioFeatureExtractor(nn.Module):
    """Sound float32 (B, samples) in −1..1 at 16 kHz → float32 (B, 2, 1024). Has no trainable parameters."""

    def __init__(self, network: yamnet.YamNet) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)

    def forward(self, sound: Tensor) -> Tensor:
        return patch_statistics(self.network.of_sound(sound))


def patch_statistics(output: yamnet.YamNetOutput) -> Tensor:
    """Embeddings (B, P, 1024) of P patches → their mean and maximum over patches, (B, 2, 1024)."""
    return torch.stack([output.embedding.mean(dim=1), output.embedding.amax(dim=1)], dim=1)


def load_audio_features() -> AudioFeatureExtractor:
    """The features of sounds, with the network that ships with the starter space. Raises `SpaceError`."""
    return AudioFeatureExtractor(yamnet.load(find_weight_file(AUDIO_WEIGHTS)))
