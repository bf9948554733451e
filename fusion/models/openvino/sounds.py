"""A sound spoke's encoder, compiled for a processor; what overlapping windows of a stream share is worked out once.

The trunk's graph goes on from where it was: in time it only has convolutions over three frames, so it is given the last
two frames of what each of them looked at (their `tails`), and gives back the new ones. A whole window begins without,
and what comes out before its own beginning is left out. What is kept of each stage are statistics of each instant over
its mel bands, from which those of any stretch of time follow.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensebind.fusion.core.futures import Deferred, EmbeddingFuture
from sensebind.fusion.models.openvino.images import Floats, Graph, constant, value
from sensebind.fusion.models.spokes.sound_features import SIZE, long_enough, spectrum_statistics
from sensebind.fusion.models.starter.wakeword_trunk import (
    DYNAMIC_RANGE,
    FLOOR,
    FULL_SCALE,
    HOP,
    LOWEST,
    POOLS,
    RATE,
    SHORTEST,
    SLOPE,
    STEP,
    WINDOW,
    WakewordTrunk,
)
from sensebind.fusion.preprocess.audio import SHIFT, log_mel_frames

if TYPE_CHECKING:
    import openvino

EACH: Final = STEP // HOP  # frames of a step
LENGTHS = 8  # of sounds, for which graphs are kept
REMEMBERED = 64  # windows of all streams, 0.5 MB each


@dataclass(frozen=True)
class Stage:
    """Where the trunk is looked at: `rate` instants a step, of which the first `late` lie before the window, by so many
    `bands`."""

    rate: int
    late: int
    bands: int


@dataclass(frozen=True)
class Heard:
    """What is kept of a window: its `sound` from the sample number `start` on, the trunk's `tails` at its end, for each
    stage the statistics of its instants, float32 (3, channels, instants), and its log-mel frames (T, 128)."""

    start: int
    sound: Floats
    tails: list[Floats]
    stages: list[Floats]
    frames: Tensor


class CompiledSound:
    """Sound float32 (B, samples) at 16 kHz, or its features (B, 1809), → unit vectors (B, D): a spoke's sound encoder.

    Graphs are of one length of sound: those of the last few are kept. Safe to call from several threads.
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], trunk: WakewordTrunk, samples: int) -> None:
        """`encoder` takes features; `samples`: the usual length, which is compiled now."""
        self._encoder = encoder
        self._stages, self._tails = _plan(trunk)
        self._graph = lru_cache(maxsize=LENGTHS)(lambda steps: Graph(_model(trunk, steps)))
        self._graph(steps_of(max(samples, SHORTEST)))
        self._making = ThreadPoolExecutor(1, thread_name_prefix="compiling")
        self._made: dict[int, Future[Graph]] = {}  # for the steps that windows go on by
        self._heard: OrderedDict[tuple[str, int], Heard | None] = OrderedDict()  # None: it came, and was not kept
        self._lock = threading.Lock()  # guards `_heard` and `_made`

    def start(self, batch: Tensor) -> EmbeddingFuture:
        """Begin with a batch."""
        if batch.shape[1] == SIZE:
            return Deferred(lambda: self._encoder(batch))
        sound = long_enough(batch)
        trunk = self._begin(sound.numpy())

        def finish() -> Tensor:
            spectrum = spectrum_statistics(log_mel_frames(sound))  # while the graph works
            stages, _ = trunk()
            rows = [self._statistics([stage[row] for stage in stages]) for row in range(len(sound))]
            return self._encoder(torch.cat([torch.stack(rows), spectrum], dim=1))

        return Deferred(finish)

    @torch.inference_mode()
    def slide(self, stream: str, start: int, sound: Floats) -> Tensor:
        """What `start` takes for one window, (samples,) from sample number `start` of a stream on.

        Where a window came before that lies a whole number of the trunk's steps earlier and holds, bit for bit, the
        same sound where they overlap, only what is new is worked out, and the features are returned. Where windows
        never lie so, nothing is kept, and the sound is returned as it is.
        """
        with self._lock:
            earlier = [start - n * STEP for n in range(1, (len(sound) - SHORTEST) // STEP + 1)]
            known = [(at, self._heard.get((stream, at))) for at in earlier if (stream, at) in self._heard]
            heard = next((h for _, h in known if h is not None and _goes_on(h, start, sound)), None)
            if not known or len(sound) < SHORTEST:
                self._keep(stream, start, None)
                return torch.from_numpy(sound)
            graph = self._further_by((start - heard.start) // STEP) if heard else None
            now = self._further(heard, graph, start, sound) if heard and graph else self._whole(start, sound)
            self._keep(stream, start, now)
        return torch.cat([self._statistics(now.stages), spectrum_statistics(now.frames[None])[0]])

    def remembered(self) -> int:
        """Windows that something is known of."""
        with self._lock:
            return len(self._heard)

    def settle(self) -> None:
        """Wait for the graphs that are being made: from then on windows that can go on where others were do so."""
        with self._lock:
            under_way = list(self._made.values())
        for made in under_way:
            made.result()

    def _keep(self, stream: str, start: int, heard: Heard | None) -> None:
        self._heard[stream, start] = heard
        while len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)

    def _whole(self, start: int, sound: Floats) -> Heard:
        stages, tails = self._begin(sound[None])()
        return Heard(start, sound, tails, [s[0] for s in stages], log_mel_frames(torch.from_numpy(sound)))

    def _further_by(self, steps: int) -> Graph | None:
        """The graph for so many steps; None while it is made, which takes longer than windows can wait."""
        if steps not in self._made:
            if len(self._made) >= LENGTHS:
                return None
            self._made[steps] = self._making.submit(self._graph, steps)
        made = self._made[steps]
        return made.result() if made.done() else None

    def _further(self, heard: Heard, graph: Graph, start: int, sound: Floats) -> Heard:
        new = start - heard.start
        steps = new // STEP
        end = (steps_of(len(sound)) - 1) * STEP + WINDOW
        outputs = graph.start(sound[None, end - (steps - 1) * STEP - WINDOW : end], *heard.tails)()
        count = len(self._stages)
        stages = [
            np.concatenate([old[:, :, steps * stage.rate :], more[0]], axis=2)
            for stage, old, more in zip(self._stages, heard.stages, outputs, strict=False)
        ]
        kept = heard.frames[new // SHIFT :]
        more_frames = log_mel_frames(torch.from_numpy(sound[len(kept) * SHIFT :]))
        return Heard(start, sound, outputs[count:], stages, torch.cat([kept, more_frames]))

    def _begin(self, sound: Floats) -> Callable[[], tuple[list[Floats], list[Floats]]]:
        """Begin with whole sounds (B, samples): what is returned waits for their stages and tails."""
        steps = steps_of(sound.shape[1])
        used = np.ascontiguousarray(sound[:, : (steps - 1) * STEP + WINDOW], np.float32)
        nothing = [np.zeros((len(sound), *shape), np.float32) for shape in self._tails]
        outputs = self._graph(steps).start(used, *nothing)

        def finish() -> tuple[list[Floats], list[Floats]]:
            results = outputs()
            count = len(self._stages)
            stages = [s[..., stage.late :] for stage, s in zip(self._stages, results, strict=False)]
            return stages, results[count:]

        return finish

    def _statistics(self, stages: Sequence[Floats]) -> Tensor:
        """Mean, deviation and maximum of each stage's channels over time and mel, and of what the last pooling makes of
        the last stage: float32 (1296,), as `SoundFeatures.stage_statistics`.

        Deviations of parts are put together as Chan, Golub and LeVeque do (1983), so that none drowns in the mean.
        """
        parts = []
        for stage, (means, squares, maxima) in zip(self._stages, stages, strict=True):
            count = means.shape[1] * stage.bands
            apart = means - means.mean(axis=1, keepdims=True, dtype=np.float64)
            variance = (squares.sum(axis=1, dtype=np.float64) + stage.bands * np.square(apart).sum(axis=1)) / (
                count - 1
            )
            parts += [means.mean(axis=1, dtype=np.float64), np.sqrt(variance), maxima.max(axis=1)]
        last = stages[-1][2]
        pairs = last[:, : last.shape[1] // 2 * 2].reshape(len(last), -1, 2).max(axis=2)
        parts += [pairs.mean(axis=1), pairs.std(axis=1, ddof=1), pairs.max(axis=1)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def steps_of(samples: int) -> int:
    """Steps of the trunk's spectrogram in a sound."""
    return (samples - WINDOW) // STEP + 1


def example(samples: int) -> Tensor:
    """Something to hear: float32 (1, samples) at 16 kHz, a rising tone that comes and goes, and noise."""
    time = np.arange(samples) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    wave = tone + 0.01 * np.random.default_rng(0).standard_normal(samples)
    return torch.from_numpy(wave.astype(np.float32))[None]


def _goes_on(heard: Heard, start: int, sound: Floats) -> bool:
    """Whether a window's sound goes on where an earlier one's was."""
    new = start - heard.start
    return len(heard.sound) == len(sound) and np.array_equal(heard.sound[new:], sound[: len(sound) - new])


def _plan(trunk: WakewordTrunk) -> tuple[list[Stage], list[tuple[int, int, int]]]:
    """The trunk's stages, and the shapes of its tails."""
    rate, late, bands = EACH, 0, trunk.mels.shape[1]
    stages, tails = [], []
    for index, weight in enumerate(trunk.weights[:-2:2]):
        if weight.shape[2] > 1:
            late += weight.shape[2] - 1
            tails.append((weight.shape[1], weight.shape[2] - 1, bands))
        if pool := POOLS.get(index):
            stages.append(Stage(rate, late, bands))
            rate, late, bands = rate // pool[0], late // pool[0], bands // pool[1]
    return stages, tails


def _model(trunk: WakewordTrunk, steps: int) -> openvino.Model:
    """Sound (1, samples of so many steps) and tails → each stage's mean, summed squares of what is apart from it, and
    maximum over mel, (1, 3, channels, instants); then the new tails."""
    import openvino
    from openvino import opset13 as ops

    if steps < 1:
        raise ValueError(f"a sound of less than {WINDOW} samples has no step")
    sound = ops.parameter([1, (steps - 1) * STEP + WINDOW], np.float32)
    inputs, stages, tails = [sound], [], []
    x = ops.unsqueeze(_spectrogram(trunk, sound, steps), _axes(1))
    bands = trunk.mels.shape[1]
    last = len(trunk.weights[:-2:2]) - 1
    for index, (weight, bias) in enumerate(zip(trunk.weights[:-2:2], trunk.weights[1:-2:2], strict=True)):
        height, width = weight.shape[2:]
        if height > 1:
            tail = ops.parameter([1, weight.shape[1], height - 1, bands], np.float32)
            x = ops.concat([tail, x], 2)
            inputs.append(tail)
            tails.append(ops.slice(x, _axes(1 - height), _axes(np.iinfo(np.int32).max), _axes(1), _axes(2)))
        x = ops.convolution(x, constant(weight), [1, 1], [0, width // 2], [0, width // 2], [1, 1])
        x = ops.add(x, constant(bias[None, :, None, None]))
        # A leaky ReLU with a slope under 1 is max(x, slope · x); then the lower bound.
        x = ops.maximum(ops.maximum(x, ops.multiply(x, value(SLOPE))), value(LOWEST))
        if pool := POOLS.get(index):
            stages.append(_instants(x))
            bands //= pool[1]
            if index < last:
                x = ops.max_pool(x, list(pool), [1, 1], [0, 0], [0, 0], list(pool)).output(0)
    return openvino.Model([*stages, *tails], inputs, "sound")


def _spectrogram(trunk: WakewordTrunk, sound: Any, steps: int) -> Any:
    """`WakewordTrunk.spectrogram`, (1, samples) → (1, frames, 32), without the frequencies that no mel band looks at
    and the samples that its window leaves out: two thirds of its products are with 0."""
    from openvino import opset13 as ops

    mels, basis = trunk.mels.numpy(), trunk.basis[:, 0].numpy()
    heard = np.flatnonzero(np.abs(mels).sum(axis=1))
    inside = np.flatnonzero(np.abs(basis).sum(axis=0))
    first, last = int(inside[0]), int(inside[-1]) + 1
    real, imaginary = np.split(basis[:, first:last], 2)
    kernel = np.concatenate([real[heard], imaginary[heard]])[:, None] * FULL_SCALE
    used = ops.slice(sound, _axes(first), _axes((steps * EACH - 1) * HOP + last), _axes(1), _axes(1))
    parts = ops.convolution(ops.unsqueeze(used, _axes(1)), constant(kernel), [HOP], [0], [0], [1])
    both = np.concatenate([mels[heard], mels[heard]])  # real and imaginary parts are added in the same product
    power = ops.matmul(ops.multiply(parts, parts), constant(both), True, False)
    decibels = ops.multiply(ops.log(ops.maximum(power, value(FLOOR))), value(10 / np.log(10)))
    stepwise = ops.reshape(decibels, np.array([1, steps, EACH, -1], np.int64), False)
    loudest = ops.reduce_max(stepwise, np.array([2, 3], np.int64), True)
    kept = ops.maximum(stepwise, ops.subtract(loudest, value(DYNAMIC_RANGE)))
    flat = ops.reshape(kept, np.array([1, steps * EACH, -1], np.int64), False)
    return ops.add(ops.divide(flat, value(10)), value(2))


def _instants(x: Any) -> Any:
    """(1, C, time, mel) → (1, 3, C, time): mean, summed squares apart from it, and maximum over mel."""
    from openvino import opset13 as ops

    mean = ops.reduce_mean(x, _axes(3), True)
    apart = ops.subtract(x, mean)
    squares = ops.reduce_sum(ops.multiply(apart, apart), _axes(3))
    parts = (ops.squeeze(mean, _axes(3)), squares, ops.reduce_max(x, _axes(3)))
    return ops.concat([ops.unsqueeze(part, _axes(1)) for part in parts], 1)


def _axes(number: int) -> npt.NDArray[np.int64]:
    return np.array([number], np.int64)
