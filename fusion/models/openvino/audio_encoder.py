"""A sound spoke's encoder, compiled for a processor. What overlapping windows of a stream share is computed once.

The trunk's graph can continue an earlier window. In time it has only convolutions over three frames. So it takes the
last two input frames of each of them (the `convolution_states`) and returns the new ones. A window without an earlier
one starts with states of zeros, and the output frames that depend on them are cut off. For each stage, statistics over
mel bands are cached for each frame. Those of any time span follow from them.
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

FRAMES_PER_STEP: Final = STEP_SAMPLES // FFT_HOP_SAMPLES  # spectrogram frames of a step
MAX_CACHED_GRAPHS = 8  # lengths of sounds whose graphs are cached
MAX_CACHED_WINDOWS = 64  # windows of all streams, 0.5 MB each


@dataclass(frozen=True)
class StageLayout:
    """The output of one stage of the trunk: `frames_per_step` frames for each step, by `mel_bands`. The first
    `lead_in_frames` frames depend on data before the window."""

    frames_per_step: int
    lead_in_frames: int
    mel_bands: int


@dataclass(frozen=True)
class CachedAudioWindow:
    """Cached results of a window: its `sound` from sample number `start_sample` of the stream, the trunk's
    `convolution_states` at its end, for each stage the statistics of its frames, float32 (3, channels, frames), and its
    log-mel frames (T, 128)."""

    start_sample: int
    sound: Floats
    convolution_states: list[Floats]
    stage_statistics: list[Floats]
    log_mel_frames: Tensor


class CompiledAudioEncoder:
    """Sound float32 (B, samples) at 16 kHz, or its features (B, 1809), → unit vectors (B, D): a spoke's sound encoder.

    Each graph takes one length of sound. The last `MAX_CACHED_GRAPHS` are cached. Safe to call from several threads.
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], trunk: WakewordTrunk, samples: int) -> None:
        """`encoder` takes features. `samples`: the usual length of a sound, whose graph is compiled at once."""
        self._encoder = encoder
        self._stage_layouts, self._state_shapes = _stage_layouts(trunk)
        self._graph = lru_cache(maxsize=MAX_CACHED_GRAPHS)(lambda steps: CompiledGraph(_build_graph(trunk, steps)))
        self._graph(step_count(max(samples, MIN_SAMPLES)))
        self._compiler_pool = ThreadPoolExecutor(1, thread_name_prefix="compiling")
        self._graph_futures: dict[int, Future[CompiledGraph]] = {}  # number of new steps → its graph
        # (stream, start sample) → results of a window; None: its results are not cached.
        self._window_cache: OrderedDict[tuple[str, int], CachedAudioWindow | None] = OrderedDict()
        self._lock = threading.Lock()  # guards `_window_cache` and `_graph_futures`

    def embed_async(self, batch: Tensor) -> EmbeddingFuture:
        """Begin to embed a batch."""
        if batch.shape[1] == FEATURE_SIZE:
            return DeferredFuture(lambda: self._encoder(batch))
        sound = pad_to_min_length(batch)
        trunk = self._start_graph(sound.numpy())

        def finish() -> Tensor:
            spectrum = spectrum_statistics(log_mel_frames(sound))  # while the graph computes
            stages, _ = trunk()
            rows = [self._stage_features([stage[row] for stage in stages]) for row in range(len(sound))]
            return self._encoder(torch.cat([torch.stack(rows), spectrum], dim=1))

        return DeferredFuture(finish)

    @torch.inference_mode()
    def stream_tensor(self, stream: str, start: int, sound: Floats) -> Tensor:
        """One window (samples,), from sample number `start` of a stream, → one row of `embed_async`.

        If an earlier window of the stream starts a whole number of the trunk's steps before this one, features are
        returned and results cached. Only the new part is computed if the sound in the overlap is the same, bit for bit.
        If there is no such window, the sound is returned unchanged.
        """
        with self._lock:
            earlier = [start - n * STEP_SAMPLES for n in range(1, (len(sound) - MIN_SAMPLES) // STEP_SAMPLES + 1)]
            known = [self._window_cache[stream, at] for at in earlier if (stream, at) in self._window_cache]
            cached = next((w for w in known if w is not None and _continues(w, start, sound)), None)
            if not known or len(sound) < MIN_SAMPLES:
                self._store(stream, start, None)
                return torch.from_numpy(sound)
            graph = self._continuation_graph((start - cached.start_sample) // STEP_SAMPLES) if cached else None
            window = (
                self._continue_window(cached, graph, start, sound)
                if cached and graph
                else self._compute_window(start, sound)
            )
            self._store(stream, start, window)
        spectrum = spectrum_statistics(window.log_mel_frames[None])[0]
        return torch.cat([self._stage_features(window.stage_statistics), spectrum])

    def cached_windows(self) -> int:
        """Number of windows in the cache, with or without results."""
        with self._lock:
            return len(self._window_cache)

    def wait_for_graphs(self) -> None:
        """Wait for the graphs that are being compiled. Then every window that can continue a cached one does so."""
        with self._lock:
            futures = list(self._graph_futures.values())
        for future in futures:
            future.result()

    def _store(self, stream: str, start: int, window: CachedAudioWindow | None) -> None:
        self._window_cache[stream, start] = window
        while len(self._window_cache) > MAX_CACHED_WINDOWS:
            self._window_cache.popitem(last=False)

    def _compute_window(self, start: int, sound: Floats) -> CachedAudioWindow:
        stages, states = self._start_graph(sound[None])()
        return CachedAudioWindow(start, sound, states, [s[0] for s in stages], log_mel_frames(torch.from_numpy(sound)))

    def _continuation_graph(self, steps: int) -> CompiledGraph | None:
        """The graph for `steps` new steps. None while it is being compiled, which takes longer than windows can wait,
        and if there are too many graphs."""
        if steps not in self._graph_futures:
            if len(self._graph_futures) >= MAX_CACHED_GRAPHS:
                return None
            self._graph_futures[steps] = self._compiler_pool.submit(self._graph, steps)
        future = self._graph_futures[steps]
        return future.result() if future.done() else None

    def _continue_window(
        self, cached: CachedAudioWindow, graph: CompiledGraph, start: int, sound: Floats
    ) -> CachedAudioWindow:
        new_samples = start - cached.start_sample
        steps = new_samples // STEP_SAMPLES
        end = (step_count(len(sound)) - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES
        outputs = graph.start_async(
            sound[None, end - (steps - 1) * STEP_SAMPLES - STEP_WINDOW_SAMPLES : end], *cached.convolution_states
        )()
        count = len(self._stage_layouts)
        stages = [
            np.concatenate([old[:, :, steps * stage.frames_per_step :], new[0]], axis=2)
            for stage, old, new in zip(self._stage_layouts, cached.stage_statistics, outputs, strict=False)
        ]
        old_frames = cached.log_mel_frames[new_samples // FRAME_SHIFT :]
        new_frames = log_mel_frames(torch.from_numpy(sound[len(old_frames) * FRAME_SHIFT :]))
        return CachedAudioWindow(start, sound, outputs[count:], stages, torch.cat([old_frames, new_frames]))

    def _start_graph(self, sound: Floats) -> Callable[[], tuple[list[Floats], list[Floats]]]:
        """Begin to compute whole sounds (B, samples). The returned function waits for their statistics of stages and
        their convolution states."""
        steps = step_count(sound.shape[1])
        used = np.ascontiguousarray(sound[:, : (steps - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES], np.float32)
        zero_states = [np.zeros((len(sound), *shape), np.float32) for shape in self._state_shapes]
        outputs = self._graph(steps).start_async(used, *zero_states)

        def finish() -> tuple[list[Floats], list[Floats]]:
            results = outputs()
            count = len(self._stage_layouts)
            stages = [s[..., stage.lead_in_frames :] for stage, s in zip(self._stage_layouts, results, strict=False)]
            return stages, results[count:]

        return finish

    def _stage_features(self, stages: Sequence[Floats]) -> Tensor:
        """Mean, deviation and maximum of each stage's channels over time and mel, also after the last pooling: float32
        (1296,), as `AudioFeatureExtractor.stage_statistics`.

        Variances of frames are combined after Chan, Golub and LeVeque (1983), which loses no precision to a large mean.
        """
        parts = []
        for stage, (means, squares, maxima) in zip(self._stage_layouts, stages, strict=True):
            count = means.shape[1] * stage.mel_bands
            centred = means - means.mean(axis=1, keepdims=True, dtype=np.float64)
            variance = (squares.sum(axis=1, dtype=np.float64) + stage.mel_bands * np.square(centred).sum(axis=1)) / (
                count - 1
            )
            parts += [means.mean(axis=1, dtype=np.float64), np.sqrt(variance), maxima.max(axis=1)]
        last = stages[-1][2]
        pairs = last[:, : last.shape[1] // 2 * 2].reshape(len(last), -1, 2).max(axis=2)
        parts += [pairs.mean(axis=1), pairs.std(axis=1, ddof=1), pairs.max(axis=1)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))


def step_count(samples: int) -> int:
    """Number of steps of the trunk's spectrogram in `samples` samples."""
    return (samples - STEP_WINDOW_SAMPLES) // STEP_SAMPLES + 1


def example_audio(samples: int) -> Tensor:
    """A test sound: float32 (1, samples) at 16 kHz, a rising tone that is switched on and off, and noise."""
    time = np.arange(samples) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    wave = tone + 0.01 * np.random.default_rng(0).standard_normal(samples)
    return torch.from_numpy(wave.astype(np.float32))[None]


def _continues(cached: CachedAudioWindow, start: int, sound: Floats) -> bool:
    """Whether a window's sound has the length of an earlier one's and equals it in the overlap."""
    new = start - cached.start_sample
    return len(cached.sound) == len(sound) and np.array_equal(cached.sound[new:], sound[: len(sound) - new])


def _stage_layouts(trunk: WakewordTrunk) -> tuple[list[StageLayout], list[tuple[int, int, int]]]:
    """The layouts of the trunk's stages, and the shapes of its convolution states."""
    frames, lead_in, bands = FRAMES_PER_STEP, 0, trunk.mels.shape[1]
    stages, states = [], []
    for index, weight in enumerate(trunk.weights[:-2:2]):
        if weight.shape[2] > 1:
            lead_in += weight.shape[2] - 1
            states.append((weight.shape[1], weight.shape[2] - 1, bands))
        if pool := POOL_SIZES.get(index):
            stages.append(StageLayout(frames, lead_in, bands))
            frames, lead_in, bands = frames // pool[0], lead_in // pool[0], bands // pool[1]
    return stages, states


def _build_graph(trunk: WakewordTrunk, steps: int) -> openvino.Model:
    """Sound (1, samples of `steps` steps) and convolution states → for each stage mean, sum of squared deviations and
    maximum over mel, (1, 3, channels, frames); then the new states."""
    import openvino
    from openvino import opset13 as ops

    if steps < 1:
        raise ValueError(f"the sound is too short: it needs at least {STEP_WINDOW_SAMPLES} samples")
    sound = ops.parameter([1, (steps - 1) * STEP_SAMPLES + STEP_WINDOW_SAMPLES], np.float32)
    inputs, stages, states = [sound], [], []
    x = ops.unsqueeze(_spectrogram(trunk, sound, steps), _int64_array(1))
    bands = trunk.mels.shape[1]
    last = len(trunk.weights[:-2:2]) - 1
    for index, (weight, bias) in enumerate(zip(trunk.weights[:-2:2], trunk.weights[1:-2:2], strict=True)):
        height, width = weight.shape[2:]
        if height > 1:
            state = ops.parameter([1, weight.shape[1], height - 1, bands], np.float32)
            x = ops.concat([state, x], 2)
            inputs.append(state)
            states.append(
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
    return openvino.Model([*stages, *states], inputs, "sound")


def _spectrogram(trunk: WakewordTrunk, sound: Any, steps: int) -> Any:
    """`WakewordTrunk.spectrogram`, (1, samples) → (1, frames, 32), without the frequencies and samples of weight 0,
    which are two thirds of its products."""
    from openvino import opset13 as ops

    mels, basis = trunk.mels.numpy(), trunk.basis[:, 0].numpy()
    frequencies = np.flatnonzero(np.abs(mels).sum(axis=1))
    samples = np.flatnonzero(np.abs(basis).sum(axis=0))
    first, last = int(samples[0]), int(samples[-1]) + 1
    real, imaginary = np.split(basis[:, first:last], 2)
    kernel = np.concatenate([real[frequencies], imaginary[frequencies]])[:, None] * FULL_SCALE
    used = ops.slice(
        sound,
        _int64_array(first),
        _int64_array((steps * FRAMES_PER_STEP - 1) * FFT_HOP_SAMPLES + last),
        _int64_array(1),
        _int64_array(1),
    )
    parts = ops.convolution(ops.unsqueeze(used, _int64_array(1)), constant(kernel), [FFT_HOP_SAMPLES], [0], [0], [1])
    weights = np.concatenate([mels[frequencies]] * 2)  # real and imaginary parts are added in the same product
    power = ops.matmul(ops.multiply(parts, parts), constant(weights), True, False)
    decibels = ops.multiply(ops.log(ops.maximum(power, scalar(MIN_POWER))), scalar(10 / np.log(10)))
    stepwise = ops.reshape(decibels, np.array([1, steps, FRAMES_PER_STEP, -1], np.int64), False)
    loudest = ops.reduce_max(stepwise, np.array([2, 3], np.int64), True)
    clipped = ops.maximum(stepwise, ops.subtract(loudest, scalar(DYNAMIC_RANGE_DB)))
    flat = ops.reshape(clipped, np.array([1, steps * FRAMES_PER_STEP, -1], np.int64), False)
    return ops.add(ops.divide(flat, scalar(10)), scalar(2))


def _mel_statistics(x: Any) -> Any:
    """(1, C, time, mel) → (1, 3, C, time): mean, sum of squared deviations and maximum over mel."""
    from openvino import opset13 as ops

    mean = ops.reduce_mean(x, _int64_array(3), True)
    centred = ops.subtract(x, mean)
    squares = ops.reduce_sum(ops.multiply(centred, centred), _int64_array(3))
    parts = (ops.squeeze(mean, _int64_array(3)), squares, ops.reduce_max(x, _int64_array(3)))
    return ops.concat([ops.unsqueeze(part, _int64_array(1)) for part in parts], 1)


def _int64_array(number: int) -> npt.NDArray[np.int64]:
    return np.array([number], np.int64)
