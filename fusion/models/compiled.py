"""Image and sound encoders as OpenVINO runs them on a processor: fused, in the layout that its vector units want.

What PyTorch does operation by operation, each of which reads and writes its whole result, is one graph here. The graphs
are written out with OpenVINO's own operations from the weights at hand: nothing is exported or kept in files, and a
graph is ready in a third of a second. Every graph is compared with PyTorch before it is used (`agrees`).

OpenVINO is optional. Without it the encoders run in PyTorch, as they do where `dtype` is given.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.frontends.audio import log_mel_frames
from sensebind.fusion.models import wakeword_trunk
from sensebind.fusion.models.efficientnet import MIDDLE, SIDE, Block, Convolution, EfficientNetLite0, Output
from sensebind.fusion.models.sound_features import long_enough, spectrum_statistics
from sensebind.fusion.models.wakeword_trunk import WakewordTrunk
from sensebind.fusion.threads import cores_at_hand

if TYPE_CHECKING:
    import openvino

LOG = logging.getLogger(__name__)
CLOSE: Final = 0.999  # cosine of a compiled encoder's vectors with PyTorch's in float32, at least
LENGTHS = 4  # of sounds, for which graphs are kept
CELLS = 4  # across and down, in which the middle of an image network is handed out


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether OpenVINO is installed and works; the log says once where not."""
    try:
        core()
    except ImportError:
        LOG.info("without OpenVINO images and sounds take half as long again on a CPU: pip install openvino")
        return False
    except RuntimeError as error:
        LOG.warning("OpenVINO does not work here, so PyTorch does its work: %s", error)
        return False
    return True


@lru_cache(maxsize=1)
def core() -> openvino.Core:
    """OpenVINO's entry. Raises `ImportError` where it is not installed."""
    import openvino

    return openvino.Core()


def precision() -> str:
    """What to compute with: bf16 where the processor multiplies it natively (AMX, AVX-512 BF16), else float32."""
    return "bf16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class Later:
    """A result under way. To be fetched once."""

    def __init__(self, finish: Callable[[], Tensor]) -> None:
        self._finish = finish

    @torch.inference_mode()
    def fetch(self) -> Tensor:
        """Wait for it. Raises `RuntimeError` for what the device failed to do."""
        return self._finish()


class Graph:
    """A compiled graph for one row: a batch is one request a row, and requests run on all cores side by side.

    A thread of its own for each row costs no waiting for each other, which threads that share a row do at every layer.
    Batches would gain nothing: the weights are few, the images are many. Safe to call from several threads.
    """

    def __init__(self, model: openvino.Model) -> None:
        """Raises `RuntimeError` where it cannot be compiled."""
        cores = cores_at_hand()
        settings = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": precision()}
        self._compiled = core().compile_model(model, "CPU", settings)
        self._outputs = len(self._compiled.outputs)
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()

    def start(self, batch: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        """Begin with each row of (B, …); what is returned waits for the outputs, float32 (B, …) each.

        The batch must not change until then. Raises `RuntimeError`, then or now, for what the device failed to do.
        """
        rows = np.ascontiguousarray(batch.detach().numpy(), np.float32)
        requests = [self._request() for _ in rows]
        for index, request in enumerate(requests):
            request.start_async({0: rows[index : index + 1]}, share_inputs=True)

        def finish() -> tuple[Tensor, ...]:
            for request in requests:
                request.wait()
            outputs = [[r.get_output_tensor(i).data for r in requests] for i in range(self._outputs)]
            results = tuple(torch.from_numpy(np.concatenate(output)) for output in outputs)
            for request in requests:  # only those that did their work are used again
                self._idle.put(request)
            return results

        return finish

    def _request(self) -> openvino.InferRequest:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


class Compiled(Protocol):
    """An encoder for this processor."""

    def start(self, batch: Tensor) -> Later:
        """Begin with a batch (B, …), which must not change until the vectors, float32 (B, D), were fetched."""


class CompiledImages:
    """An image network with what follows it: float32 (B, planes, 224, 224) → what `head` makes of its `Output`.

    The head is given `middle` (B, 112, 4, 4), means of cells. `levels`: images come as levels in 0..1, as spokes see
    them, and not as the network takes them. One plane is a grey image, which is three times the same to the network:
    its first weights are summed, a third of the work.
    """

    def __init__(self, network: EfficientNetLite0, planes: int, levels: bool, head: Callable[[Output], Tensor]) -> None:
        self._graph = Graph(_image_model(network, planes, levels))
        self._head = head

    def start(self, images: Tensor) -> Later:
        """Begin with a batch."""
        finish = self._graph.start(images)
        return Later(lambda: self._head(Output(*finish())))


class CompiledSound:
    """Sound float32 (B, samples) at 16 kHz → unit vectors (B, D): a spoke's sound encoder.

    The trunk is compiled; the spectrum's statistics and what was trained on them are little work and stay in PyTorch.
    Graphs are of one length of sound: those of the last few are kept.
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], trunk: WakewordTrunk, samples: int) -> None:
        """`encoder` takes features; `samples`: the usual length, which is compiled now."""
        self._encoder = encoder
        self._graph = lru_cache(maxsize=LENGTHS)(lambda length: Graph(_sound_model(trunk, length)))
        self._graph(max(samples, wakeword_trunk.SHORTEST))

    def start(self, sound: Tensor) -> Later:
        """Begin with a batch."""
        sound = long_enough(sound)
        stages = self._graph(sound.shape[1]).start(sound)

        def finish() -> Tensor:
            spectrum = spectrum_statistics(log_mel_frames(sound))  # while the graph works
            return self._encoder(torch.cat([*stages(), spectrum], dim=1))

        return Later(finish)


def agrees(fast: Compiled, plain: Callable[[Tensor], Tensor], example: Tensor, name: str) -> bool:
    """Whether both make the same unit vectors of an example, within `CLOSE`; the log says where not."""
    with torch.inference_mode():
        later = fast.start(example)
        expected = plain(example)
        cosine = float((later.fetch() * expected).sum(dim=1).min())
    if not cosine >= CLOSE:  # so written, NaN is refused as well
        LOG.warning("OpenVINO's vectors of %s are off (cosine %.4f), so PyTorch does its work", name, cosine)
        return False
    return True


def picture(planes: int) -> Tensor:
    """Something to look at: levels float32 (1, planes, 224, 224) in 0..1, things with edges, shades and noise."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    plane = [
        0.3 + 0.4 * x * y + 0.3 * (np.hypot(x - 0.4, y - 0.6) < 0.2) - 0.2 * ((x > 0.6) & (y < 0.5 + 0.1 * i))
        for i in range(planes)
    ]
    levels = np.stack(plane) + 0.02 * noise.standard_normal((planes, SIDE, SIDE))
    return torch.from_numpy(levels.clip(0, 1).astype(np.float32))[None]


def sound(samples: int) -> Tensor:
    """Something to hear: float32 (1, samples) at 16 kHz, a rising tone that comes and goes, and noise."""
    time = np.arange(samples) / wakeword_trunk.RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    wave = tone + 0.01 * np.random.default_rng(0).standard_normal(samples)
    return torch.from_numpy(wave.astype(np.float32))[None]


def _image_model(network: EfficientNetLite0, planes: int, levels: bool) -> openvino.Model:
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter([1, planes, SIDE, SIDE], np.float32)
    x = ops.divide(ops.subtract(ops.multiply(images, _value(255)), _value(127)), _value(128)) if levels else images
    x = _convolution(network.stem, x, grey=planes == 1)
    middle = None
    for index, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        y = _convolution(block.expand, x) if isinstance(block.expand, Convolution) else x
        y = _convolution(block.project, _convolution(block.depthwise, y))
        x = ops.add(x, y) if block.shortcut else y
        if index == MIDDLE.stop - 1:
            middle = ops.adaptive_avg_pool(x, np.array([CELLS, CELLS], np.int64))
    features = ops.reduce_mean(_convolution(network.head, x), np.array([2, 3], np.int64))
    weight, bias = (_constant(p) for p in (network.classifier.weight, network.classifier.bias))
    scores = ops.add(ops.matmul(features, weight, False, True), bias)
    return openvino.Model([middle, features, scores], [images], "images")


def _convolution(layer: Convolution, x: Any, grey: bool = False) -> Any:
    """A layer of `efficientnet.Convolution`: with its bias, its uneven padding and its ReLU6."""
    from openvino import opset13 as ops

    weight = layer.weight.detach().float()
    weight = weight.sum(dim=1, keepdim=True) if grey else weight
    left, right = (layer.uneven[0], layer.uneven[1]) if layer.uneven else (layer.padding, layer.padding)
    place: tuple[list[int], ...] = ([layer.stride] * 2, [left] * 2, [right] * 2, [1, 1])
    if layer.groups > 1:
        y = ops.group_convolution(x, _constant(weight.unflatten(0, (layer.groups, -1))), *place)
    else:
        y = ops.convolution(x, _constant(weight), *place)
    y = ops.add(y, _constant(layer.bias[None, :, None, None]))
    return ops.clamp(y, 0.0, 6.0) if layer.active else y


def _constant(values: Tensor | npt.NDArray[np.float32]) -> Any:
    """A float32 constant of a graph. OpenVINO would make one by itself, value by value, in a tenth of a second."""
    from openvino import opset13 as ops

    array = values.detach().float().numpy() if isinstance(values, Tensor) else values
    return ops.constant(np.ascontiguousarray(array, np.float32))


def _value(number: float) -> npt.NDArray[np.float32]:
    return np.array(number, np.float32)


def _sound_model(trunk: WakewordTrunk, samples: int) -> openvino.Model:
    import openvino
    from openvino import opset13 as ops

    if wakeword_trunk.feature_count(samples) == 0:
        raise ValueError(f"a sound of {samples} samples is too short: {wakeword_trunk.SHORTEST} are needed")
    sound = ops.parameter([1, samples], np.float32)
    x = ops.unsqueeze(_spectrogram(trunk, sound, samples), _axes(1))
    statistics = []
    for index, (weight, bias) in enumerate(zip(trunk.weights[:-2:2], trunk.weights[1:-2:2], strict=True)):
        wide = weight.shape[-1] // 2
        x = ops.convolution(x, _constant(weight), [1, 1], [0, wide], [0, wide], [1, 1])
        x = ops.add(x, _constant(bias[None, :, None, None]))
        # Leaky and bounded below at once: max(x, slope · x) for a slope under 1, then max with the bound.
        x = ops.maximum(ops.maximum(x, ops.multiply(x, _value(wakeword_trunk.SLOPE))), _value(wakeword_trunk.LOWEST))
        if pool := wakeword_trunk.POOLS.get(index):
            statistics += _statistics(x)
            x = ops.max_pool(x, list(pool), [1, 1], [0, 0], [0, 0], list(pool)).output(0)
    statistics += _statistics(x)
    return openvino.Model([ops.concat(statistics, 1)], [sound], "sound")


def _spectrogram(trunk: WakewordTrunk, sound: Any, samples: int) -> Any:
    """`WakewordTrunk.spectrogram`, (1, samples) → (1, frames, 32), without the frequencies that no mel band looks at
    and the samples that its window leaves out: two thirds of its products are with 0."""
    from openvino import opset13 as ops

    steps = (samples - wakeword_trunk.WINDOW) // wakeword_trunk.STEP + 1
    each = wakeword_trunk.STEP // wakeword_trunk.HOP
    mels, basis = trunk.mels.numpy(), trunk.basis[:, 0].numpy()
    heard = np.flatnonzero(np.abs(mels).sum(axis=1))
    real, imaginary = np.split(basis, 2)
    inside = np.flatnonzero(np.abs(basis).sum(axis=0))
    first, last = int(inside[0]), int(inside[-1]) + 1
    kernel = np.concatenate([real[heard], imaginary[heard]])[:, None, first:last] * wakeword_trunk.FULL_SCALE
    used = ops.slice(sound, _axes(first), _axes((steps * each - 1) * wakeword_trunk.HOP + last), _axes(1), _axes(1))
    parts = ops.convolution(ops.unsqueeze(used, _axes(1)), _constant(kernel), [wakeword_trunk.HOP], [0], [0], [1])
    squared = ops.multiply(parts, parts)
    both = np.concatenate([mels[heard], mels[heard]])  # real and imaginary parts are added in the same product
    power = ops.maximum(ops.matmul(squared, _constant(both), True, False), _value(wakeword_trunk.FLOOR))
    decibels = ops.multiply(ops.log(power), _value(10 / np.log(10)))
    stepwise = ops.reshape(decibels, np.array([1, steps, each, -1], np.int64), False)
    loudest = ops.reduce_max(stepwise, np.array([2, 3], np.int64), True)
    kept = ops.maximum(stepwise, ops.subtract(loudest, _value(wakeword_trunk.DYNAMIC_RANGE)))
    flat = ops.reshape(kept, np.array([1, steps * each, -1], np.int64), False)
    return ops.add(ops.divide(flat, _value(10)), _value(2))


def _statistics(x: Any) -> list[Any]:
    """Mean, deviation (n − 1) and maximum of (1, C, time, mel) over time and mel: (1, C) each."""
    from openvino import opset13 as ops

    axes = np.array([2, 3], np.int64)
    shape = x.get_output_partial_shape(0).to_shape() if hasattr(x, "get_output_partial_shape") else x.get_shape()
    count = shape[2] * shape[3]
    mean = ops.reduce_mean(x, axes, True)
    apart = ops.subtract(x, mean)
    variance = ops.divide(ops.reduce_sum(ops.multiply(apart, apart), axes), _value(max(count - 1, 1)))
    return [ops.squeeze(mean, axes), ops.sqrt(variance), ops.reduce_max(x, axes)]


def _axes(number: int) -> npt.NDArray[np.int64]:
    return np.array([number], np.int64)
