"""Encoders as OpenVINO runs them on a processor: fused, in the layout that its vector units want. Those of images.

What PyTorch does operation by operation, each of which reads and writes its whole result, is one graph here. The graphs
are written out with OpenVINO's own operations from the weights at hand: nothing is exported or kept in files, and a
graph is ready in a third of a second. Every graph is compared with PyTorch before it is used
(`matches_pytorch`).

OpenVINO is optional. Without it the encoders run in PyTorch, as they do where `dtype` is given.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.models.starter.efficientnet import (
    IMAGE_SIZE,
    STAGE5_BLOCKS,
    Block,
    Convolution,
    EfficientNetLite0,
    EfficientNetOutput,
)

if TYPE_CHECKING:
    import openvino

Floats = npt.NDArray[np.float32]

LOG = logging.getLogger(__name__)
MIN_COSINE: Final = 0.999  # cosine of a compiled encoder's vectors with PyTorch's in float32, at least
APPEARANCE_GRID = 4  # across and down, in which the middle of an image network is handed out


@lru_cache(maxsize=1)
def openvino_available() -> bool:
    """Whether OpenVINO is installed and works; the log says once where not."""
    try:
        openvino_core()
    except ImportError:
        LOG.info("without OpenVINO images and sounds take half as long again on a CPU: pip install openvino")
        return False
    except RuntimeError as error:
        LOG.warning("OpenVINO does not work here, so PyTorch does its work: %s", error)
        return False
    return True


@lru_cache(maxsize=1)
def openvino_core() -> openvino.Core:
    """OpenVINO's entry. Raises `ImportError` where it is not installed."""
    import openvino

    return openvino.Core()


class CompiledGraph:
    """A compiled graph for one row: a batch is one request a row, and requests run on all cores side by side.

    A thread of its own for each row costs no waiting for each other, which threads that share a row do at every layer.
    Batches would gain nothing: the weights are few, the images are many. Safe to call from several threads.
    """

    def __init__(self, model: openvino.Model) -> None:
        """Raises `RuntimeError` where it cannot be compiled."""
        cores = available_cores()
        # By itself OpenVINO takes bf16 where a processor has it, whose vectors are off (docs/performance-cpu.md).
        settings = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino_core().compile_model(model, "CPU", settings)
        self._outputs = len(self._compiled.outputs)
        self._idle_requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()

    def start_async(self, *inputs: Floats) -> Callable[[], list[Floats]]:
        """Begin with each row of the inputs, float32 (B, …); what is returned waits for the outputs, (B, …) each.

        Inputs must not change until then. Raises `RuntimeError`, then or now, for what the device failed to do.
        """
        requests = [self._request() for _ in inputs[0]]
        for row, request in enumerate(requests):
            request.start_async({i: values[row : row + 1] for i, values in enumerate(inputs)}, share_inputs=True)

        def finish() -> list[Floats]:
            for request in requests:
                request.wait()
            outputs = range(self._outputs)
            results = [np.concatenate([r.get_output_tensor(i).data for r in requests]) for i in outputs]
            for request in requests:  # only those that did their work are used again
                self._idle_requests.put(request)
            return results

        return finish

    def _request(self) -> openvino.InferRequest:
        try:
            return self._idle_requests.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


class CompiledEncoder(Protocol):
    """An encoder for this processor."""

    def embed_async(self, batch: Tensor) -> EmbeddingFuture:
        """Begin with a batch (B, …), which must not change until the vectors, float32 (B, D), were fetched."""


@runtime_checkable
class CompilableEncoder(Protocol):
    """An image encoder that can be compiled."""

    def compile_for_cpu(self, channels: int, head: Callable[[Tensor], Tensor]) -> CompiledEncoder:
        """For images of so many `channels`, with `head` behind it."""


class CompiledImageEncoder:
    """An image network with what follows it: float32 (B, channels, 224, 224) → what `head` makes of its
    `EfficientNetOutput`.

    The head is given `stage5` (B, 112, 4, 4), means of cells. `unnormalized`: images come as levels in 0..1, as spokes
    see them, and not as the network takes them. One channel is a grey image, which is three times the same to the
    network: its first weights are summed, a third of the work.
    """

    def __init__(
        self,
        network: EfficientNetLite0,
        channels: int,
        unnormalized: bool,
        head: Callable[[EfficientNetOutput], Tensor],
    ) -> None:
        self._graph = CompiledGraph(_build_image_graph(network, channels, unnormalized))
        self._head = head

    def embed_async(self, images: Tensor) -> EmbeddingFuture:
        """Begin with a batch."""
        finish = self._graph.start_async(np.ascontiguousarray(images.numpy(), np.float32))
        return DeferredFuture(lambda: self._head(EfficientNetOutput(*map(torch.from_numpy, finish()))))


def matches_pytorch(
    compiled: CompiledEncoder, reference: Callable[[Tensor], Tensor], example: Tensor, name: str
) -> bool:
    """Whether both make the same unit vectors of an example, within `MIN_COSINE`; the log says where not."""
    with torch.inference_mode():
        later = compiled.embed_async(example)
        expected = reference(example)
        cosine = float((later.fetch() * expected).sum(dim=1).min())
    if not cosine >= MIN_COSINE:  # so written, NaN is refused as well
        LOG.warning("OpenVINO's vectors of %s are off (cosine %.4f), so PyTorch does its work", name, cosine)
        return False
    return True


def example_image(planes: int) -> Tensor:
    """Something to look at: levels float32 (1, planes, 224, 224) in 0..1, things with edges, shades and noise."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / IMAGE_SIZE
    plane = [
        0.3 + 0.4 * x * y + 0.3 * (np.hypot(x - 0.4, y - 0.6) < 0.2) - 0.2 * ((x > 0.6) & (y < 0.5 + 0.1 * i))
        for i in range(planes)
    ]
    levels = np.stack(plane) + 0.02 * noise.standard_normal((planes, IMAGE_SIZE, IMAGE_SIZE))
    return torch.from_numpy(levels.clip(0, 1).astype(np.float32))[None]


def _build_image_graph(network: EfficientNetLite0, planes: int, levels: bool) -> openvino.Model:
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter([1, planes, IMAGE_SIZE, IMAGE_SIZE], np.float32)
    x = ops.divide(ops.subtract(ops.multiply(images, scalar(255)), scalar(127)), scalar(128)) if levels else images
    x = _add_convolution(network.stem, x, grey=planes == 1)
    middle = None
    for index, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        y = _add_convolution(block.expand, x) if isinstance(block.expand, Convolution) else x
        y = _add_convolution(block.project, _add_convolution(block.depthwise, y))
        x = ops.add(x, y) if block.shortcut else y
        if index == STAGE5_BLOCKS.stop - 1:
            middle = ops.adaptive_avg_pool(x, np.array([APPEARANCE_GRID, APPEARANCE_GRID], np.int64))
    features = ops.reduce_mean(_add_convolution(network.head, x), np.array([2, 3], np.int64))
    weight, bias = (constant(p) for p in (network.classifier.weight, network.classifier.bias))
    scores = ops.add(ops.matmul(features, weight, False, True), bias)
    return openvino.Model([middle, features, scores], [images], "images")


def _add_convolution(layer: Convolution, x: Any, grey: bool = False) -> Any:
    """A layer of `efficientnet.Convolution`: with its bias, its uneven padding and its ReLU6."""
    from openvino import opset13 as ops

    weight = layer.weight.detach().float()
    weight = weight.sum(dim=1, keepdim=True) if grey else weight
    left, right = (layer.uneven[0], layer.uneven[1]) if layer.uneven else (layer.padding, layer.padding)
    place: tuple[list[int], ...] = ([layer.stride] * 2, [left] * 2, [right] * 2, [1, 1])
    if layer.groups > 1:
        y = ops.group_convolution(x, constant(weight.unflatten(0, (layer.groups, -1))), *place)
    else:
        y = ops.convolution(x, constant(weight), *place)
    y = ops.add(y, constant(layer.bias[None, :, None, None]))
    return ops.clamp(y, 0.0, 6.0) if layer.relu6 else y


def constant(values: Tensor | npt.NDArray[np.floating]) -> Any:
    """A float32 constant of a graph. OpenVINO would make one by itself, value by value, in a tenth of a second."""
    from openvino import opset13 as ops

    array = values.detach().float().numpy() if isinstance(values, Tensor) else values
    return ops.constant(np.ascontiguousarray(array, np.float32))


def scalar(number: float) -> Floats:
    """A number in a graph."""
    return np.array(number, np.float32)
