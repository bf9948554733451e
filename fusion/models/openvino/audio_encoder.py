"""The audio network YAMNet, compiled by OpenVINO for the processor. Its patches are computed in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.models.openvino.graphs import CompiledGraph, add_convolution, add_linear
from sensebind.fusion.models.starter.layers import Convolution
from sensebind.fusion.models.starter.yamnet import YamNet, YamNetOutput
from sensebind.fusion.preprocess.log_mel_patches import BAND_COUNT, PATCH_FRAMES, log_mel_patches

if TYPE_CHECKING:
    import openvino


class CompiledAudioEncoder:
    """Sound float32 (B, samples) at 16 kHz → `head` of its `YamNetOutput`, (B, P, …), as of `YamNet.of_sound`."""

    def __init__(self, network: YamNet, head: Callable[[YamNetOutput], Tensor]) -> None:
        self._graph = CompiledGraph(_build_graph(network))
        self._head = head

    def embed_async(self, sound: Tensor) -> EmbeddingFuture:
        """Begin to embed a batch."""
        patches = log_mel_patches(sound)
        finish = self._graph.start_async(patches.flatten(0, 1)[:, None].numpy())

        def fetch() -> Tensor:
            outputs = (torch.from_numpy(values).unflatten(0, patches.shape[:2]) for values in finish())
            return self._head(YamNetOutput(*outputs))

        return DeferredFuture(fetch)


def example_audio(seconds: float = 2.0) -> Tensor:
    """A test sound: float32 (1, samples) at 16 kHz, a rising tone, a bang and noise."""
    noise = np.random.default_rng(0)
    time = np.arange(round(seconds * 16_000)) / 16_000
    wave = 0.2 * np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.02 * noise.standard_normal(time.size)
    wave[time.size // 2 : time.size // 2 + 800] += 0.5 * noise.standard_normal(len(wave[time.size // 2 :][:800]))
    return torch.from_numpy(wave.astype(np.float32))[None]


def _build_graph(network: YamNet) -> openvino.Model:
    """Patches (1, 1, 96, 64) → embedding (1, 1024) and logits (1, 521)."""
    import openvino
    from openvino import opset13 as ops

    patches = x = ops.parameter([1, 1, PATCH_FRAMES, BAND_COUNT], np.float32)
    for layer in network.convolutions:
        assert isinstance(layer, Convolution)
        x = add_convolution(layer, x)
    embedding = ops.reduce_mean(x, np.array([2, 3], np.int64))
    return openvino.Model([embedding, add_linear(network.classifier, embedding)], [patches], "sound")
