"""What all encoders that OpenVINO compiles share: compiled graphs, layers of graphs, the comparison with PyTorch.

PyTorch runs one operation after the other, and each writes its whole result to memory. OpenVINO compiles a graph: it
fuses operations and chooses the memory layout for the processor's vector units. The graphs are built here from
OpenVINO's operations and the loaded weights; nothing is exported or stored in files. A graph is ready in a third of a
second. Every graph is compared with PyTorch before it is used (`matches_pytorch`).

OpenVINO is optional. Without it, or if `dtype` is set, encoders run in PyTorch.
"""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.models.starter.layers import Convolution, InvertedResidual

if TYPE_CHECKING:
    import openvino

Floats = npt.NDArray[np.float32]

LOG = logging.getLogger(__name__)
MIN_COSINE: Final = 0.999  # lowest cosine of a compiled encoder's vectors with PyTorch's in float32


@lru_cache(maxsize=1)
def openvino_available() -> bool:
    """Whether OpenVINO is installed and works. Logs once if not."""
    try:
        openvino_core()
    except ImportError:
        LOG.info("OpenVINO is not installed: encoders take 1.2 to 1.9 times as long on a CPU: pip install openvino")
        return False
    except RuntimeError as error:
        LOG.warning("OpenVINO does not work, so PyTorch is used: %s", error)
        return False
    return True


@lru_cache(maxsize=1)
def openvino_core() -> openvino.Core:
    """OpenVINO's runtime. Raises `ImportError` if it is not installed."""
    with _without_telemetry():
        import openvino

    return openvino.Core()


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """OpenVINO reports to its maker over the network when it is imported. A robot must not do so without being asked.

    If its package of telemetry cannot be imported, OpenVINO uses a stub of its own.
    """
    name = "openvino_telemetry"
    if name in sys.modules:  # the program that uses this module has decided otherwise
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # documented: the import of this name fails
    try:
        yield
    finally:
        del sys.modules[name]


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


def add_convolution(layer: Convolution, x: Any, grey: bool = False) -> Any:
    """A layer of `starter.layers`, with its bias, padding and activation. `grey`: the input has one channel, not
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
    if layer.activation == "relu6":
        return ops.clamp(y, 0.0, 6.0)
    return ops.relu(y) if layer.activation == "relu" else y


def add_inverted_residual(block: InvertedResidual, x: Any) -> Any:
    """A block of `starter.layers`."""
    from openvino import opset13 as ops

    y = add_convolution(block.expand, x) if isinstance(block.expand, Convolution) else x
    y = add_convolution(block.project, add_convolution(block.depthwise, y))
    return ops.add(x, y) if block.shortcut else y


def add_linear(layer: torch.nn.Linear, x: Any) -> Any:
    """A linear layer of a graph."""
    from openvino import opset13 as ops

    return ops.add(ops.matmul(x, constant(layer.weight), False, True), constant(layer.bias))


def constant(values: Tensor | npt.NDArray[np.floating]) -> Any:
    """A float32 constant of a graph. OpenVINO's own conversion copies value by value and takes a tenth of a second."""
    from openvino import opset13 as ops

    array = values.detach().float().numpy() if isinstance(values, Tensor) else values
    return ops.constant(np.ascontiguousarray(array, np.float32))


def scalar(number: float) -> Floats:
    """A number as a float32 constant of a graph."""
    return np.array(number, np.float32)
