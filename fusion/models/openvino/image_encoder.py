"""The image network, and the object detector, compiled by OpenVINO for the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture, SceneFuture
from sensebind.fusion.models.openvino.graphs import (
    CompiledGraph,
    add_convolution,
    add_inverted_residual,
    add_linear,
    scalar,
)
from sensebind.fusion.models.starter import object_detector
from sensebind.fusion.models.starter.concepts import APPEARANCE_GRID
from sensebind.fusion.models.starter.efficientnet import (
    IMAGE_SIZE,
    STAGE5_BLOCKS,
    EfficientNetLite0,
    EfficientNetOutput,
)
from sensebind.fusion.models.starter.layers import Convolution, InvertedResidual

if TYPE_CHECKING:
    import openvino


class CompiledImageEncoder:
    """An image network followed by `head`: float32 (B, channels, 224, 224) → `head` of its `EfficientNetOutput`.

    `head` gets `stage5` as (B, 112, 4, 4), means over cells. `unit_range_input`: images are in 0..1, as in spokes, and
    the graph scales them for the network. With one channel, images are grey: the weights of the three equal channels
    are summed in the first convolution, which is a third of its work.
    """

    def __init__(
        self,
        network: EfficientNetLite0,
        channels: int,
        unit_range_input: bool,
        head: Callable[[EfficientNetOutput], Tensor],
    ) -> None:
        self._graph = CompiledGraph(_build_image_graph(network, channels, unit_range_input))
        self._head = head

    def embed_async(self, images: Tensor) -> EmbeddingFuture:
        """Begin to embed a batch."""
        finish = self._graph.start_async(np.ascontiguousarray(images.numpy(), np.float32))
        return DeferredFuture(lambda: self._head(EfficientNetOutput(*map(torch.from_numpy, finish()))))


class CompiledSceneEncoder:
    """An image network and the object detector: float32 (B, 3, 224, 224) → `head` of both outputs.

    Images are as `EfficientNetLite0` takes them. `detector_input` makes from them what the detector takes. `head` gets
    `EfficientNetOutput` and the presence of each label, (B, 23). The objects of the futures are the detector's.
    """

    def __init__(
        self,
        network: EfficientNetLite0,
        detector: object_detector.ObjectDetector,
        detector_input: Callable[[Tensor], Tensor],
        head: Callable[[EfficientNetOutput, Tensor], Tensor],
    ) -> None:
        self._images = CompiledGraph(_build_image_graph(network, 3, False))
        self._objects = CompiledGraph(_build_detector_graph(detector))
        self._anchors = detector.anchors.float()
        self._detector_input, self._head = detector_input, head

    def embed_async(self, images: Tensor) -> EmbeddingFuture:
        """Begin to embed a batch."""
        finish_images = self._images.start_async(np.ascontiguousarray(images.numpy(), np.float32))
        finish_objects = self._objects.start_async(np.ascontiguousarray(self._detector_input(images).numpy()))

        def fetch() -> tuple[Tensor, Tensor]:
            output = EfficientNetOutput(*map(torch.from_numpy, finish_images()))
            logits, encodings = map(torch.from_numpy, finish_objects())
            objects = object_detector.best_objects(logits, encodings, self._anchors)
            return self._head(output, objects[..., 0]), objects

        return SceneFuture(fetch)


def example_image(channels: int) -> Tensor:
    """A test image: float32 (1, `channels`, 224, 224) in 0..1, objects with edges, shades and noise."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / IMAGE_SIZE
    plane = [
        0.3 + 0.4 * x * y + 0.3 * (np.hypot(x - 0.4, y - 0.6) < 0.2) - 0.2 * ((x > 0.6) & (y < 0.5 + 0.1 * i))
        for i in range(channels)
    ]
    levels = np.stack(plane) + 0.02 * noise.standard_normal((channels, IMAGE_SIZE, IMAGE_SIZE))
    return torch.from_numpy(levels.clip(0, 1).astype(np.float32))[None]


def _build_image_graph(network: EfficientNetLite0, channels: int, unit_range_input: bool) -> openvino.Model:
    import openvino
    from openvino import opset13 as ops

    images = x = ops.parameter([1, channels, IMAGE_SIZE, IMAGE_SIZE], np.float32)
    if unit_range_input:
        x = ops.divide(ops.subtract(ops.multiply(images, scalar(255)), scalar(127)), scalar(128))
    x = add_convolution(network.stem, x, grey=channels == 1)
    stage5 = None
    for index, block in enumerate(network.blocks):
        assert isinstance(block, InvertedResidual)
        x = add_inverted_residual(block, x)
        if index == STAGE5_BLOCKS.stop - 1:
            stage5 = ops.adaptive_avg_pool(x, np.array([APPEARANCE_GRID, APPEARANCE_GRID], np.int64))
    features = ops.reduce_mean(add_convolution(network.head, x), np.array([2, 3], np.int64))
    return openvino.Model([stage5, features, add_linear(network.classifier, features)], [images], "images")


def _build_detector_graph(network: object_detector.ObjectDetector) -> openvino.Model:
    """An image (1, 3, 300, 300) → the class logits (1, 1917, 24) and encoded boxes (1, 1917, 4) of `raw_outputs`."""
    import openvino
    from openvino import opset13 as ops

    size = object_detector.IMAGE_SIZE
    images = x = ops.parameter([1, 3, size, size], np.float32)
    x = add_convolution(network.stem, x)
    maps = []
    for index, block in enumerate(network.blocks):
        assert isinstance(block, InvertedResidual)
        if index == object_detector.FIRST_MAP_BLOCK:
            assert isinstance(block.expand, Convolution) and not block.shortcut
            maps.append(add_convolution(block.expand, x))
            x = add_convolution(block.project, add_convolution(block.depthwise, maps[0]))
        else:
            x = add_inverted_residual(block, x)
    maps.append(add_convolution(network.head, x))
    for pair in network.additional:
        assert isinstance(pair, torch.nn.Sequential)
        x = maps[-1]
        for layer in pair:
            assert isinstance(layer, Convolution)
            x = add_convolution(layer, x)
        maps.append(x)
    outputs = []
    for heads, values in ((network.class_heads, object_detector.CLASS_COUNT), (network.box_heads, 4)):
        rows = []
        for head, feature_map in zip(heads, maps, strict=True):
            assert isinstance(head, Convolution)
            cells = ops.transpose(add_convolution(head, feature_map), np.array([0, 2, 3, 1], np.int64))
            rows.append(ops.reshape(cells, np.array([1, -1, values], np.int64), False))
        outputs.append(ops.concat(rows, 1))
    return openvino.Model(outputs, [images], "objects")
