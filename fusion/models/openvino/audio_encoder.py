"""A sound spoke's encoder, compiled for a processor; what overlapping windows of a stream share is worked out once.

The trunk's graph goes on from where it was: in time it only has convolutions over three frames, so it is given the last
two frames of what each of them looked at (the `convolution_states`), and gives back the new ones. A whole window begins
without, and what comes out before its own beginning is left out. What is kept of each stage are statistics of each
instant over its mel bands, from which those of any stretch of time follow.
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

from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.models.openvino.image_encoder import CompiledGraph, Floats, constant, scalar
from sensebind.fusion.models.spokes.sound_features import FEATURE_SIZE, pad_to_min_length, spectrum_statistics
from sensebind.fusion.models.starter.wakeword_trunk import (
    ACTIVATION_MIN,
    DYNAMIC_RANGE_DB,
    FFT_HOP_SAMPLES,
    FULL_SCALE,
    LEAKY_RELU_SLOPE,
    MIN_POWER,
    MIN_SAMPLES,
    POOL_SIZES,
    SAMPLE_RATE,
    STEP_SAMPLES,
    STEP_WINDOW_SAMPLES,
    WakewordTrunk,
)
from sensebind.fusion.preprocess.audio import FRAME_SHIFT, log_mel_frames

if TYPE_CHECKING:
    import openvino

FRAMES_PER_STEP: Final = STEP_SAMPLES // FFT_HOP_SAMPLES  # frames of a step
MAX_CACHED_GRAPHS = 8  # of sounds, for which graphs are kept
MAX_CACHED_WINDOWS = 64  # windows of all streams, 0.5 MB each


@dataclass(frozen=True)
class StageLayout:
    """Where the trunk is looked at: `frames_per_step` instants a step, of which the first `lead_in_frames` lie before
    the window, by `mel_bands`."""

    frames_per_step: int
    lead_in_frames: int
    mel_bands: int


@dataclass(frozen=True)
class CachedAudioWindow:
    """What is kept of a window: its `sound` from the sample number `start_sample` on, the trunk's `convolution_states`
    at its end, for each stage the statistics of its instants, float32 (3, channels, instants), and its log-mel frames
    (T, 128)."""

    start_sample: int
    sound: Floats
    convolution_states: list[Floats]
    stage_statistics: list[Floats]
    log_mel_frames: Tensor


class CompiledAudioEncoder:
    """Sound float32 (B, samples) at 16 kHz, or its features (B, 1809), → unit vectors (B, D): a spoke's sound encoder.

    Graphs are of one length of sound: those of the last few are kept. Safe to call from several threads.
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], trunk: WakewordTrunk, samples: int) -> None:
        """`encoder` takes features; `samples`: the usual length, which is compiled now."""
        self._encoder = encoder
        self._stage_layouts, self._state_shapes = _stage_layouts(trunk)
        self._graph = lru_cache(maxsize=MAX_CACHED_GRAPHS)(lambda steps: CompiledGraph(_build_graph(trunk, steps)))
        self._graph(step_count(max(samples, MIN_SAMPLES)))
        self._compiler_pool = ThreadPoolExecutor(1, thread_name_prefix="compiling")
        self._graph_futures: dict[int, Future[CompiledGraph]] = {}  # for the steps that windows go on by
        self._window_cache: OrderedDict[tuple[str, int], CachedAudioWindow | None] = (
            OrderedDict()
        )  # None: it came, and was not kept
        self._lock = threading.Lock()  # guards `_window_cache` and `_graph_futures`

    def embed_async(self, batch: Tensor) -> EmbeddingFuture:
        """Begin with a batch."""
        if batch.shape[1] == FEATURE_SIZE:
            return DeferredFuture(lambda: self._encoder(batch))
        sound = pad_to_min_length(batch)
        trunk = self._start_graph(sound.numpy())

        def finish() -> Tensor:
            spectrum = spectrum_statistics(log_mel_frames(sound))  # while the graph works
            stages, _ = trunk()
            rows = [self._stage_features([stage[row] for stage in stages]) for row in range(len(sound))]
            return self._encoder(torch.cat([torch.stack(rows), spectrum], dim=1))

        return DeferredFuture(finish)

    @torch.inference_mode()
    def stream_tensor(self, stream: str, start: int, sound: Floats) -> Tensor:
        """What `embed_async` takes for one window, (samples,) from sample number `start` of a stream on.

        Where a window came before that lies a whole number of the trunk's steps earlier and holds, bit for bit, the
        same sound where they overlap, only what is new is worked out, and the features are returned. Where windows
        never lie so, nothing is kept, and the sound is returned as it is.
        """
        with self._lock:
            earlier = [start - n * STEP_SAMPLES for n in range(1, (len(sound) - MIN_SAMPLES) // STEP_SAMPLES + 1)]
            known = [(at, self._window_cache.get((stream, at))) for at in earlier if (stream, at) in self._window_cache]
            cached = next((h for _, h in known if h is not None and _continues(h, start, sound)), None)
            if not known or len(sound) < MIN_SAMPLES:
                self._store(stream, start, None)
                return torch.from_numpy(sound)
            graph = self._continuation_graph((start - cached.start_sample) // STEP_SAMPLES) if cached else None
            now = (
                self._continue_window(cached, graph, start, sound)
                if cached and graph
                else self._compute_window(start, sound)
            )
            self._store(stream, start, now)
        return torch.cat([self._stage_features(now.stage_statistics), spectrum_statistics(now.log_mel_frames[None])[0]])

    def cached_windows(self) -> int:
        """Windows that something is known of."""
        with self._lock:
            return len(self._window_cache)

    def wait_for_graphs(self) -> None:
        """Wait for the graphs that are being made: from then on windows that can go on where others were do so."""
        with self._lock:
            under_way = list(self._graph_futures.values())
        for made in under_way:
            made.result()

    def _store(self, stream: str, start: int, heard: CachedAudioWindow | None) -> None:
        self._window_cache[stream, start] = heard
        while len(self._window_cache) > MAX_CACHED_WINDOWS:
            self._window_cache.popitem(last=False)

    def _compute_window(self, start: int, sound: Floats) -> CachedAudioWindow:
        stages, tails = self._start_graph(sound[None])()
        return CachedAudioWindow(start, sound, tails, [s[0] for s in stages], log_mel_frames(torch.from_numpy(sound)))

    def _continuation_graph(self, steps: int) -> CompiledGraph | None:
        """The graph for so many steps; None while it is made, which takes longer than windows can wait."""
        if steps not in self._graph_futures:
            if len(self._graph_futures) >= MAX_CACHED_GRAPHS:
                return None
            self._graph_futures[steps] = self._compiler_pool.submit(self._graph, steps)
        made = self._graph_futures[steps]
        return made.result() if made.done() else None

    def _continue_window(
        self, heard: CachedAudioWindow, graph: CompiledGraph, start: int, sound: Floats
    ) -> CachedAudioWindow:
        new = start - heard.start_sample
        steps = new // STEP_SAMPLES
        end = (step_count(len(sound)) - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES
        outputs = graph.start_async(
            sound[None, end - (steps - 1) * STEP_SAMPLES - STEP_WINDOW_SAMPLES : end], *heard.convolution_states
        )()
        count = len(self._stage_layouts)
        stages = [
            np.concatenate([old[:, :, steps * stage.frames_per_step :], more[0]], axis=2)
            for stage, old, more in zip(self._stage_layouts, heard.stage_statistics, outputs, strict=False)
        ]
        kept = heard.log_mel_frames[new // FRAME_SHIFT :]
        more_frames = log_mel_frames(torch.from_numpy(sound[len(kept) * FRAME_SHIFT :]))
        return CachedAudioWindow(start, sound, outputs[count:], stages, torch.cat([kept, more_frames]))

    def _start_graph(self, sound: Floats) -> Callable[[], tuple[list[Floats], list[Floats]]]:
        """Begin with whole sounds (B, samples): what is returned waits for their stages and tails."""
        steps = step_count(sound.shape[1])
        used = np.ascontiguousarray(sound[:, : (steps - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES], np.float32)
        nothing = [np.zeros((len(sound), *shape), np.float32) for shape in self._state_shapes]
        outputs = self._graph(steps).start_async(used, *nothing)

        def finish() -> tuple[list[Floats], list[Floats]]:
            results = outputs()
            count = len(self._stage_layouts)
            stages = [s[..., stage.lead_in_frames :] for stage, s in zip(self._stage_layouts, results, strict=False)]
            return stages, results[count:]

        return finish

    def _stage_features(self, stages: Sequence[Floats]) -> Tensor:
        """Mean, deviation and maximum of each stage's channels over time and mel, and of what the last pooling makes of
        the last stage: float32 (1296,), as `AudioFeatureExtractor.stage_statistics`.

        Deviations of parts are put together as Chan, Golub and LeVeque do (1983), so that none drowns in the mean.
        """
        parts = []
        for stage, (means, squares, maxima) in zip(self._stage_layouts, stages, strict=True):
            count = means.shape[1] * stage.mel_bands
            apart = means - means.mean(axis=1, keepdims=True, dtype=np.float64)
            variance = (squares.sum(axis=1, dtype=np.float64) + stage.mel_bands * np.square(apart).sum(axis=1)) / (
                count - 1
            )
            parts += [means.mean(axis=1, dtype=np.float64), np.sqrt(variance), maxima.max(axis=1)]
        last = stages[-1][2]
        pairs = last[:, : last.shape[1] // 2 * 2].reshape(len(last), -1, 2).max(axis=2)
        parts += [pairs.mean(axis=1), pairs.std(axis=1, ddof=1), pairs.max(axis=1)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def step_count(samples: int) -> int:
    """Steps of the trunk's spectrogram in a sound."""
    return (samples - STEP_WINDOW_SAMPLES) // STEP_SAMPLES + 1


def example_audio(samples: int) -> Tensor:
    """Something to hear: float32 (1, samples) at 16 kHz, a rising tone that comes and goes, and noise."""
    time = np.arange(samples) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    wave = tone + 0.01 * np.random.default_rng(0).standard_normal(samples)
    return torch.from_numpy(wave.astype(np.float32))[None]


def _continues(heard: CachedAudioWindow, start: int, sound: Floats) -> bool:
    """Whether a window's sound goes on where an earlier one's was."""
    new = start - heard.start_sample
    return len(heard.sound) == len(sound) and np.array_equal(heard.sound[new:], sound[: len(sound) - new])


def _stage_layouts(trunk: WakewordTrunk) -> tuple[list[StageLayout], list[tuple[int, int, int]]]:
    """The trunk's stages, and the shapes of its tails."""
    rate, late, bands = FRAMES_PER_STEP, 0, trunk.mels.shape[1]
    stages, tails = [], []
    for index, weight in enumerate(trunk.weights[:-2:2]):
        if weight.shape[2] > 1:
            late += weight.shape[2] - 1
            tails.append((weight.shape[1], weight.shape[2] - 1, bands))
        if pool := POOL_SIZES.get(index):
            stages.append(StageLayout(rate, late, bands))
            rate, late, bands = rate // pool[0], late // pool[0], bands // pool[1]
    return stages, tails


def _build_graph(trunk: WakewordTrunk, steps: int) -> openvino.Model:
    """Sound (1, samples of so many steps) and tails → each stage's mean, summed squares of what is apart from it, and
    maximum over mel, (1, 3, channels, instants); then the new tails."""
    import openvino
    from openvino import opset13 as ops

    if steps < 1:
        raise ValueError(f"a sound of less than {STEP_WINDOW_SAMPLES} samples has no step")
    sound = ops.parameter([1, (steps - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES], np.float32)
    inputs, stages, tails = [sound], [], []
    x = ops.unsqueeze(_spectrogram(trunk, sound, steps), _int64_array(1))
    bands = trunk.mels.shape[1]
    last = len(trunk.weights[:-2:2]) - 1
    for index, (weight, bias) in enumerate(zip(trunk.weights[:-2:2], trunk.weights[1:-2:2], strict=True)):
        height, width = weight.shape[2:]
        if height > 1:
            tail = ops.parameter([1, weight.shape[1], height - 1, bands], np.float32)
            x = ops.concat([tail, x], 2)
            inputs.append(tail)
            tails.append(
                ops.slice(
                    x, _int64_array(1 - height), _int64_array(np.iinfo(np.int32).max), _int64_array(1), _int64_array(2)
                )
            )
        x = ops.convolution(x, constant(weight), [1, 1], [0, width // 2], [0, width // 2], [1, 1])
        x = ops.add(x, constant(bias[None, :, None, None]))
        # A leaky ReLU with a slope under 1 is max(x, slope · x); then the lower bound.
        x = ops.maximum(ops.maximum(x, ops.multiply(x, scalar(LEAKY_RELU_SLOPE))), scalar(ACTIVATION_MIN))
        if pool := POOL_SIZES.get(index):
            stages.append(_mel_statistics(x))
            bands //= pool[1]
            if index < last:
                x = ops.max_pool(x, list(pool), [1, 1], [0, 0], [0, 0], list(pool)).output(0)
    return openvino.Model([*stages, *tails], inputs, "sound")


def _spectrogram(trunk: WakewordTrunk, sound: Any, steps: int) -> Any:
    """`WakewordTrunk.spectrogram`, (1, samples) → (1, frames, 32), without the frequencies that no mel band looks at
    and the samples that its window leaves out: two thirds of its products are with 0."""
    from openvino import opset13 as ops

    mels, basis = trunk.mels.numpy(), trunk.basis[:, 0].numpy()
    cached = np.flatnonzero(np.abs(mels).sum(axis=1))
    inside = np.flatnonzero(np.abs(basis).sum(axis=0))
    first, last = int(inside[0]), int(inside[-1]) + 1
    real, imaginary = np.split(basis[:, first:last], 2)
    kernel = np.concatenate([real[cached], imaginary[cached]])[:, None] * FULL_SCALE
    used = ops.slice(
        sound,
        _int64_array(first),
        _int64_array((steps * FRAMES_PER_STEP - 1) * FFT_HOP_SAMPLES + last),
        _int64_array(1),
        _int64_array(1),
    )
    parts = ops.convolution(ops.unsqueeze(used, _int64_array(1)), constant(kernel), [FFT_HOP_SAMPLES], [0], [0], [1])
    both = np.concatenate([mels[cached], mels[cached]])  # real and imaginary parts are added in the same product
    power = ops.matmul(ops.multiply(parts, parts), constant(both), True, False)
    decibels = ops.multiply(ops.log(ops.maximum(power, scalar(MIN_POWER))), scalar(10 / np.log(10)))
    stepwise = ops.reshape(decibels, np.array([1, steps, FRAMES_PER_STEP, -1], np.int64), False)
    loudest = ops.reduce_max(stepwise, np.array([2, 3], np.int64), True)
    kept = ops.maximum(stepwise, ops.subtract(loudest, scalar(DYNAMIC_RANGE_DB)))
    flat = ops.reshape(kept, np.array([1, steps * FRAMES_PER_STEP, -1], np.int64), False)
    return ops.add(ops.divide(flat, scalar(10)), scalar(2))


def _mel_statistics(x: Any) -> Any:
    """(1, C, time, mel) → (1, 3, C, time): mean, summed squares apart from it, and maximum over mel."""
    from openvino import opset13 as ops

    mean = ops.reduce_mean(x, _int64_array(3), True)
    apart = ops.subtract(x, mean)
    squares = ops.reduce_sum(ops.multiply(apart, apart), _int64_array(3))
    parts = (ops.squeeze(mean, _int64_array(3)), squares, ops.reduce_max(x, _int64_array(3)))
    return ops.concat([ops.unsqueeze(part, _int64_array(1)) for part in parts], 1)


def _int64_array(number: int) -> npt.NDArray[np.int64]:
    return np.array([number], np.int64)
