"""Image encoders compiled by OpenVINO for the processor, and the parts that all compiled encoders share.

PyTorch runs one operation after the other, and each writes its whole result to memory. OpenVINO compiles a graph: it
fuses operations and chooses the memory layout for the processor's vector units. The graphs are built here from
OpenVINO's operations and the loaded weights; nothing is exported or stored in files. A graph is ready in a third of a
second. Every graph is compared with PyTorch before it is used (`matches_pytorch`).

OpenVINO is optional. Without it, or if `dtype` is set, encoders run in PyTorch.
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
MIN_COSINE: Final = 0.999  # lowest cosine of a compiled encoder's vectors with PyTorch's in float32
APPEARANCE_GRID = 4  # rows and columns of cells in the output `stage5` of an image network


@lru_cache(maxsize=1)
def openvino_available() -> bool:
    """Whether OpenVINO is installed and works. Logs once if not."""
    try:
        openvino_core()
    except ImportError:
        LOG.info("OpenVINO is not installed: images and sounds take 1.5 times as long on a CPU: pip install openvino")
        return False
    except RuntimeError as error:
        LOG.warning("OpenVINO does not work, so PyTorch is used: %s", error)
        return False
    return True


@lru_cache(maxsize=1)
def openvino_core() -> openvino.Core:
    """OpenVINO's runtime. Raises `ImportError` if it is not installed."""
    import openvino

    return openvino.Core()


class CompiledGraph:
    """A compiled graph for one row. A batch is one request for each row; requests run in parallel on all cores.

    Each row has one thread: threads that share a row wait for each other at every layer. A graph for batches would not
    be faster, because the weights are small compared with the images. Safe to call from several threads.
    """

    def __init__(self, model: openvino.Model) -> None:
        """Raises `RuntimeError` if the graph cannot be compiled."""
        cores = available_cores()
        # By default OpenVINO uses bf16 if the processor has it. Its vectors are inaccurate (docs/performance-cpu.md).
        settings = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino_core().compile_model(model, "CPU", settings)
        self._outputs = len(self._compiled.outputs)
        self._idle_requests: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()

    def start_async(self, *inputs: Floats) -> Callable[[], list[Floats]]:
        """Begin to compute each row of the inputs, float32 (B, …). The returned function waits for the outputs, (B, …)
        each.

        Inputs must not change until then. Both functions raise `RuntimeError` if the device fails.
        """
        requests = [self._request() for _ in inputs[0]]
        for row, request in enumerate(requests):
            request.start_async({i: values[row : row + 1] for i, values in enumerate(inputs)}, share_inputs=True)

        def finish() -> list[Floats]:
            for request in requests:
                request.wait()
            outputs = range(self._outputs)
            results = [np.concatenate([r.get_output_tensor(i).data for r in requests]) for i in outputs]
            for request in requests:  # failed requests are not reused: an error skips this
                self._idle_requests.put(request)
            return results

        return finish

    def _request(self) -> openvino.InferRequest:
        try:
            return self._idle_requests.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


class CompiledEncoder(Protocol):
    """An encoder compiled for this processor."""

    def embed_async(self, batch: Tensor) -> EmbeddingFuture:
        """Begin to embed a batch (B, …). It must not change before the vectors, float32 (B, D), are fetched."""


@runtime_checkable
class CompilableEncoder(Protocol):
    """An image encoder that can be compiled."""

    def compile_for_cpu(self, channels: int, head: Callable[[Tensor], Tensor]) -> CompiledEncoder:
        """This encoder, followed by `head`, compiled for images with `channels` channels."""


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


def matches_pytorch(
    compiled: CompiledEncoder, reference: Callable[[Tensor], Tensor], example: Tensor, name: str
) -> bool:
    """Whether both make the same unit vectors of an example, with a cosine of at least `MIN_COSINE`. Logs a warning if
    not."""
    with torch.inference_mode():
        future = compiled.embed_async(example)
        expected = reference(example)
        cosine = float((future.fetch() * expected).sum(dim=1).min())
    if not cosine >= MIN_COSINE:  # true for NaN too
        LOG.warning("OpenVINO's vectors of %s are wrong (cosine %.4f), so PyTorch is used", name, cosine)
        return False
    return True


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
    x = _add_convolution(network.stem, x, grey=channels == 1)
    stage5 = None
    for index, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        y = _add_convolution(block.expand, x) if isinstance(block.expand, Convolution) else x
        y = _add_convolution(block.project, _add_convolution(block.depthwise, y))
        x = ops.add(x, y) if block.shortcut else y
        if index == STAGE5_BLOCKS.stop - 1:
            stage5 = ops.adaptive_avg_pool(x, np.array([APPEARANCE_GRID, APPEARANCE_GRID], np.int64))
    features = ops.reduce_mean(_add_convolution(network.head, x), np.array([2, 3], np.int64))
    weight, bias = (constant(p) for p in (network.classifier.weight, network.classifier.bias))
    logits = ops.add(ops.matmul(features, weight, False, True), bias)
    return openvino.Model([stage5, features, logits], [images], "images")


def _add_convolution(layer: Convolution, x: Any, grey: bool = False) -> Any:
    """A layer of `efficientnet.Convolution`, with its bias, padding and ReLU6. `grey`: the input has one channel, not
    three equal ones."""
    from openvino import opset13 as ops

    weight = layer.weight.detach().float()
    weight = weight.sum(dim=1, keepdim=True) if grey else weight
    left, right = (layer.uneven[0], layer.uneven[1]) if layer.uneven else (layer.padding, layer.padding)
    geometry: tuple[list[int], ...] = ([layer.stride] * 2, [left] * 2, [right] * 2, [1, 1])
    if layer.groups > 1:
        y = ops.group_convolution(x, constant(weight.unflatten(0, (layer.groups, -1))), *geometry)
    else:
        y = ops.convolution(x, constant(weight), *geometry)
    y = ops.add(y, constant(layer.bias[None, :, None, None]))
    return ops.clamp(y, 0.0, 6.0) if layer.relu6 else y


def constant(values: Tensor | npt.NDArray[np.floating]) -> Any:
    """A float32 constant of a graph. OpenVINO's own conversion copies value by value and takes a tenth of a second."""
    from openvino import opset13 as ops

    array = values.detach().float().numpy() if isinstance(values, Tensor) else values
    return ops.constant(np.ascontiguousarray(array, np.float32))


def scalar(number: float) -> Floats:
    """A number as a float32 constant of a graph."""
    return np.array(number, np.float32)
