"""The GPU runner, tested on a CPU: it gives the vectors of the engine without a runner, in batches of any kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.small_imagebind import SIZES, image_frame, motion, sound, window
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import Calibration, Frame, Sound
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference import cuda as runners
from sensebind.fusion.inference.cuda import BATCHES_IN_FLIGHT, MAX_CAPTURED_BATCHES, GpuRunner, bucket_size
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.models import registry
from sensebind.fusion.models.imagebind.network import VideoStem
from sensebind.fusion.models.imagebind.space import ImageBindSpace
from sensebind.fusion.models.spokes.bound_space import BoundSpace
from sensebind.fusion.preprocess import audio


@pytest.fixture(scope="module")
def space(checkpoint: Path) -> ImageBindSpace:
    return ImageBindSpace.load(weights=str(checkpoint), dtype="float32", **SIZES)


def int16_sound(seconds: float = 2.0, seed: int = 0, rate: int = 16_000) -> Sound:
    levels = np.random.default_rng(seed).normal(0, 3000, (round(seconds * rate), 1))
    return Sound(levels.astype(np.int16), rate)


def windows_of_all_modalities(seed: int) -> list[Window]:
    """A window of each kind whose input on the device differs from the engine's without a runner."""
    calibration = Calibration(500.0, 80)
    return [
        window("vision", image_frame(seed=seed)),
        window("vision", image_frame(seed=seed), image_frame(seed=seed + 50)),
        window("vision", image_frame("bgr8", (90, 70, 3), seed=seed)),
        window("audio", int16_sound(seed=seed)),
        window("audio", sound(2.0)),
        window("audio", int16_sound(3.0, seed), length=3.0),
        window("depth", image_frame("16UC1", (60, 80), np.uint16, seed), calibration=calibration),
        window("thermal", image_frame("mono16", (60, 80), np.uint16, seed)),
        window("imu", *motion(), length=5.0),
    ]


def test_the_runner_gives_the_vectors_of_the_engine_without_it(space: ImageBindSpace) -> None:
    some = [w for seed in range(3) for w in windows_of_all_modalities(seed)]
    plain, fast = (Engine(space, runner=r).embed(some) for r in (None, GpuRunner(space)))
    for a, b in zip(plain, fast, strict=True):
        assert isinstance(a, Embedding) and isinstance(b, Embedding)
        assert (a.modality, a.tick, a.coverage) == (b.modality, b.tick, b.coverage)
        assert a.vector @ b.vector >= 0.999


def test_images_and_sounds_are_sent_to_the_device_unconverted(space: ImageBindSpace) -> None:
    sent = {
        (w.modality, t.dtype, tuple(t.shape)) for w in windows_of_all_modalities(0) for t in [space.device_input(w)]
    }
    assert ("vision", torch.uint8, (60, 80, 3)) in sent and ("vision", torch.uint8, (2, 60, 80, 3)) in sent
    assert ("thermal", torch.uint8, (60, 80)) in sent and ("audio", torch.int16, (32000,)) in sent


@pytest.mark.parametrize("name", ["nv12", "NV21", "bgr16", "8UC4", "bayer_rggb8; png compressed "])
def test_every_encoding_of_a_camera_is_sent_to_the_device_as_its_colours(space: ImageBindSpace, name: str) -> None:
    rgb = np.broadcast_to(np.array([200, 30, 20], np.uint8), (32, 32, 3))
    i420 = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YUV_I420)
    y, u, v = i420[:32], i420[32:40].reshape(16, 16), i420[40:].reshape(16, 16)
    mosaic = np.full((32, 32), 30)
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = 200, 20
    sent: dict[str, np.ndarray] = {
        "nv12": np.concatenate([y, np.stack([u, v], axis=2).reshape(16, 32)]),
        "NV21": np.concatenate([y, np.stack([v, u], axis=2).reshape(16, 32)]),
        "bgr16": rgb[..., ::-1].astype(np.uint16) << 8,
        "8UC4": cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGRA),
    }
    if name in sent:
        data = np.ascontiguousarray(sent[name]).view(np.uint8).reshape(-1)
        frame = Frame(data, name, 32, 32, sent[name].strides[0] if sent[name].ndim == 2 else data.size // 32)
    else:
        frame = Frame(cv2.imencode(".png", mosaic.astype(np.uint8))[1].reshape(-1), name, compressed=True)
    found = space.device_input(window("vision", frame)).numpy().astype(int)
    assert found.shape == (32, 32, 3) and np.abs(found[4:-4, 4:-4] - [200, 30, 20]).max() <= 6


def test_a_16_bit_sound_is_sent_unchanged(space: ImageBindSpace) -> None:
    one = window("audio", int16_sound())
    data = one.samples[0].data
    assert isinstance(data, Sound) and np.array_equal(space.device_input(one).numpy(), data.data[:, 0])
    sent = space.device_input(one)[None]
    assert torch.equal(audio.imagebind_batch(sent), audio.imagebind_batch(sent / 32768))


class Echo:
    """A space whose encoder returns its input, so that a row of another batch is noticed."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def device_input(self, window: Window) -> Tensor:
        raise NotImplementedError

    def encoder(self, modality: str) -> runners.Encoder:
        def encode(rows: Tensor) -> Tensor:
            self.sizes.append(len(rows))
            return rows.float()

        return encode

    def graph_capturable(self, modality: str) -> bool:
        return modality != "waits"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.booleans()), min_size=1, max_size=30))
def test_every_batch_gets_its_own_rows_while_others_are_in_flight(calls) -> None:
    """Batches are launched in any order and number, and fetched at once or at the end; padding is never returned."""
    runner, number, waiting = GpuRunner(Echo()), 0.0, []
    for modality, count, at_once in calls:
        rows = [torch.full((3,), number + i) for i in range(count)]
        number += count
        waiting.append((runner.launch(modality, rows), torch.stack(rows)))
        if at_once:
            assert torch.equal(waiting[-1][0].fetch(), waiting[-1][1])
    for future, want in reversed(waiting):
        assert torch.equal(future.fetch(), want)


def test_batches_are_padded_to_powers_of_two() -> None:
    assert [bucket_size(n) for n in (1, 2, 3, 5, 8, 9, 33)] == [1, 2, 4, 8, 8, 16, 64]
    space = Echo()
    runner = GpuRunner(space)
    for count in (1, 2, 3, 4, 5):
        runner.launch("a", [torch.ones(2)] * count)
    assert set(space.sizes) == {1, 2, 4, 8} and runner.shape_count() == 4


def test_rows_past_the_batch_do_not_change_its_vectors(space: ImageBindSpace) -> None:
    """The same windows alone, and after a full batch of others in the same buffers: the same vectors."""
    windows = [window("vision", image_frame(seed=seed)) for seed in range(12)]
    rows = [space.device_input(w) for w in windows]
    alone = GpuRunner(space).launch("vision", rows[:5]).fetch()
    used = GpuRunner(space)
    for _ in range(BATCHES_IN_FLIGHT):
        used.launch("vision", rows[4:12])
    torch.testing.assert_close(used.launch("vision", rows[:5]).fetch(), alone)


def test_the_number_of_kept_shapes_is_bounded() -> None:
    runner = GpuRunner(Echo())
    futures = [runner.launch("a", [torch.ones(width)]) for width in range(1, MAX_CAPTURED_BATCHES + 20)]
    assert runner.shape_count() == MAX_CAPTURED_BATCHES
    assert all(future.fetch().shape == (1, width) for width, future in enumerate(futures, 1))
    runner.free_memory()
    assert runner.shape_count() == 0
    assert torch.equal(runner.launch("a", [torch.ones(2)]).fetch(), torch.ones(1, 2))


class Cramped(ImageBindSpace):
    """A space on a device whose memory holds three windows."""

    def encoder(self, modality: str) -> runners.Encoder:
        encode = super().encoder(modality)

        def limited(rows: Tensor) -> Tensor:
            if len(rows) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encode(rows)

        return limited


def test_a_batch_that_does_not_fit_in_memory_is_halved_and_logged(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = Cramped.load(weights=str(checkpoint), dtype="float32", **SIZES)
    engine = Engine(space, runner=GpuRunner(space))
    windows = [window("thermal", image_frame("mono16", (60, 80), np.uint16, seed)) for seed in range(8)]
    plain = Engine(space, runner=None).embed(windows)
    for a, b in zip(plain, engine.embed(windows), strict=True):
        assert isinstance(a, Embedding) and isinstance(b, Embedding) and a.vector @ b.vector >= 0.999
    assert engine.batches.limit("thermal") == 2 and "out of memory" in caplog.text


def test_vectors_that_are_not_finite_are_a_failure(space: ImageBindSpace) -> None:
    class Broken(Echo):
        def device_input(self, window: Window) -> Tensor:
            return torch.full((4,), float("nan") if window.coverage < 1 else 1.0)

    broken = Broken()
    engine = Engine(space, runner=GpuRunner(broken))
    good = window("imu", *motion(), length=5.0)
    bad = Window("imu", good.start, good.tick, 0.5, good.samples)
    results = engine.embed([good, bad, good])
    assert [isinstance(r, Failure) for r in results] == [False, True, False]


def test_a_cpu_has_no_runner(space: ImageBindSpace) -> None:
    assert space.device.type == "cpu" and GpuRunner.for_space(space) is None


def test_the_video_stem_as_a_matrix_product_gives_the_same_tokens() -> None:
    torch.manual_seed(0)
    stem = VideoStem(32).eval()
    for shape in ((2, 3, 56, 56), (2, 3, 1, 56, 56), (2, 3, 2, 56, 56), (1, 3, 2, 28, 28)):
        x = torch.randn(shape)
        torch.testing.assert_close(stem.as_matrix_product(x), stem(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modality", ["vision", "audio", "depth", "thermal", "imu"])
def test_the_runner_gives_the_same_vectors_for_the_starter_space(modality: str) -> None:
    bound = registry.load_space("starter", modalities=[modality], device="cpu")
    some = [
        w
        for seed in range(3)
        for w in windows_of_all_modalities(seed)
        if w.modality == modality and len(w.samples) != 2
    ][-2:]
    plain, fast = (Engine(bound, runner=r).embed(some) for r in (None, GpuRunner(bound)))
    for a, b in zip(plain, fast, strict=True):
        assert isinstance(a, Embedding) and isinstance(b, Embedding) and a.vector @ b.vector >= 0.999


class Gpu:
    """A fake `torch` with a GPU, as far as the runner uses it: memory is the CPU's, streams and events write to a log,
    and a graph repeats the work that was done while it was captured."""

    def __init__(self, forbids_capture: bool = False) -> None:
        self.log: list[str] = []
        self.stream = "default"
        self.captures = 0  # number of attempts
        self.refuses_to_empty = False
        self.captured: list[Any] | None = None
        self.forbids_capture = forbids_capture
        self.cuda = self
        gpu = self

        class Stream:
            count = 0

            def __init__(self, device: Any) -> None:
                Stream.count += 1
                self.name = f"stream{Stream.count}"

        class Event:
            count = 0

            def __init__(self, blocking: bool = False) -> None:
                Event.count += 1
                self.name, self.recorded, self.blocking = f"event{Event.count}", False, blocking

            def record(self) -> None:
                self.recorded = True
                gpu.log.append(f"{gpu.stream} records {self.name}")

            def wait(self) -> None:
                assert self.recorded, "nothing to wait for"
                gpu.log.append(f"{gpu.stream} waits for {self.name}")

            def synchronize(self) -> None:
                assert self.recorded and self.blocking, "the host spins while it waits"
                gpu.log.append(f"host waits for {self.name}")

        class CUDAGraph:
            def replay(self) -> None:
                gpu.log.append(f"{gpu.stream} replays")
                for work in self.works:
                    work()

        self.Stream, self.Event, self.CUDAGraph = Stream, Event, CUDAGraph

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def zeros(self, *shape: Any, pin_memory: bool = False, device: Any = None, **rest: Any) -> Tensor:
        assert not (pin_memory and device is not None)
        return torch.zeros(*shape, **rest)

    def zeros_like(self, tensor: Tensor, device: Any = None) -> Tensor:
        return torch.zeros_like(tensor)

    @contextmanager
    def stream_context(self, stream: Any) -> Iterator[None]:
        before, self.stream = self.stream, stream.name
        yield
        self.stream = before

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert pool == "pool" and self.stream == stream.name and capture_error_mode == "thread_local"
        self.captures += 1
        if self.forbids_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        graph.works = self.captured = []
        yield
        self.captured = None

    def graph_pool_handle(self) -> str:
        return "pool"

    def synchronize(self, device: Any) -> None:
        assert self.captured is None, "the host must not wait while a graph is captured"

    def empty_cache(self) -> None:
        if self.refuses_to_empty:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        self.log.append("cache emptied")


class EchoOnGpu(Echo):
    device = torch.device("cuda")


@pytest.fixture(params=[False, True], ids=["graphs", "no graph can be captured"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    fake = Gpu(request.param)

    class Module:
        """`torch` and `torch.cuda` in one: `stream` is a function in the second."""

        def __getattr__(self, name: str) -> Any:
            return fake.stream_context if name == "stream" else self if name == "cuda" else getattr(fake, name)

    encode_once = runners._CapturedBatch._encode

    def encode(batch: Any) -> None:
        if fake.captured is not None:
            fake.captured.append(lambda: batch.output.copy_(batch.streams.encode(batch.input)))
        encode_once(batch)

    monkeypatch.setattr(runners, "torch", Module())
    monkeypatch.setattr(runners._CapturedBatch, "_encode", encode)
    return fake


def test_on_a_gpu_a_batch_is_computed_after_its_copy_and_the_host_waits_once(
    gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    """Checks the order of calls on a fake GPU. Speed and the behaviour of CUDA can be tested only on a GPU."""
    runner = GpuRunner(EchoOnGpu())
    waiting = []
    for number in range(5):
        rows = [torch.full((3,), 10.0 * number + i) for i in range(3)]
        waiting.append((runner.launch("a", rows), torch.stack(rows)))
    for future, want in waiting:
        assert torch.equal(future.fetch(), want)
    begun = len(gpu.log)
    runner.launch("a", [torch.ones(3)] * 4).fetch()
    steps = gpu.log[begun:]
    assert [re.sub(r"\d+", "", step) for step in steps] == [
        "stream records event",
        "stream waits for event",
        *(["stream replays"] if not gpu.forbids_capture else []),
        "stream records event",
        "host waits for event",
    ]
    copying, computing = steps[0].split()[0], steps[1].split()[0]
    assert copying != computing and steps[-2].startswith(computing) and steps[1].split()[-1] == steps[0].split()[-1]
    assert runner.graph_count() == (0 if gpu.forbids_capture else runner.shape_count()) and runner.shape_count() == 1
    assert ("no CUDA graph could be captured" in caplog.text) == gpu.forbids_capture
    runner.free_memory()
    assert runner.shape_count() == 0 and gpu.log[-1] == "cache emptied"


def test_each_modality_has_its_own_streams_on_a_gpu(gpu: Gpu) -> None:
    runner = GpuRunner(EchoOnGpu())
    for modality in "ab":
        for _ in range(3):
            runner.launch(modality, [torch.ones(3)]).fetch()
    streams = {step.split()[0] for step in gpu.log if step.startswith("stream")}
    assert len(streams) == 4


def test_one_failed_capture_ends_the_captures_of_all_modalities(gpu: Gpu) -> None:
    """PyTorch before 2.12 refuses every capture after a failed one; the vectors are still right."""
    runner = GpuRunner(EchoOnGpu())
    for modality in "abc":
        rows = [torch.full((3,), float(ord(modality)))]
        assert torch.equal(runner.launch(modality, rows).fetch(), torch.stack(rows))
    assert gpu.captures == (1 if gpu.forbids_capture else 3)
    assert runner.graph_count() == (0 if gpu.forbids_capture else 3) and runner.shape_count() == 3


def test_an_encoder_that_waits_for_the_device_is_never_captured(gpu: Gpu) -> None:
    runner = GpuRunner(EchoOnGpu())
    assert torch.equal(runner.launch("waits", [torch.ones(3)]).fetch(), torch.ones(1, 3))
    assert gpu.captures == 0 and runner.graph_count() == 0
    runner.launch("a", [torch.ones(3)]).fetch()
    assert gpu.captures == 1, "another modality lost its graphs"


def test_a_hub_without_its_own_device_path_is_not_captured() -> None:
    bound = registry.load_space("starter", modalities=["vision", "imu"], device="cpu")
    assert isinstance(bound, BoundSpace) and bound.graph_capturable("imu") and bound.graph_capturable("vision")
    assert not BoundSpace(ToySpace(), []).graph_capturable("vision")  # type: ignore[arg-type]


def test_memory_is_released_while_no_other_thread_can_capture(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = GpuRunner(EchoOnGpu())
    runner.launch("a", [torch.ones(3)]).fetch()
    locked: list[bool] = []
    monkeypatch.setattr(gpu, "empty_cache", lambda: locked.append(runner._lock.locked()))
    runner.free_memory()
    assert locked == [True]


def test_a_release_that_pytorch_refuses_is_logged_and_the_runner_continues(
    gpu: Gpu, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.refuses_to_empty = True
    runner = GpuRunner(EchoOnGpu())
    runner.launch("a", [torch.ones(3)]).fetch()
    runner.free_memory()
    assert "could not be released" in caplog.text
    assert torch.equal(runner.launch("a", [torch.ones(3)]).fetch(), torch.ones(1, 3))
