"""Compiled encoders give PyTorch's float32 vectors, and a window's vector does not depend on the rest of the batch."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.encodings import ThermalImage
from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.models import registry
from sensebind.fusion.models.openvino import image_encoder as compiled
from sensebind.fusion.models.openvino.audio_encoder import MAX_CACHED_WINDOWS, CompiledAudioEncoder
from sensebind.fusion.models.spokes.bound_space import BoundSpace
from sensebind.fusion.models.spokes.sound_features import FEATURE_SIZE
from sensebind.fusion.preprocess import thermal
from sensebind.simulation import rooms, synthetic_sounds
from sensebind.training import starter_comparison as evaluation

MODALITIES = (VISION, AUDIO, DEPTH, THERMAL, IMU)
ENCODINGS = {VISION: "rgb8", DEPTH: "16UC1", THERMAL: "mono16"}


@pytest.fixture(scope="module")
def eager_space() -> BoundSpace:
    space = registry.load_space("starter", modalities=MODALITIES, device="cpu", dtype="float32")
    assert isinstance(space, BoundSpace) and not space.compiled_modalities
    return space


@pytest.fixture(scope="module")
def compiled_space() -> BoundSpace:
    pytest.importorskip("openvino", reason="OpenVINO, which compiles encoders, is not installed")
    space = registry.load_space("starter", modalities=MODALITIES, device="cpu")
    assert isinstance(space, BoundSpace) and space.compiled_modalities == {VISION, AUDIO, DEPTH, THERMAL}
    return space


def image_window(modality: str, pixels: np.ndarray, number: int) -> Window:
    height, width = pixels.shape[:2]
    data = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8)
    frame = Frame(data, ENCODINGS[modality], height, width, data.size // height)
    tick = (number + 1) * SECOND
    return Window(modality, tick - SECOND // 4, tick, 1.0, (Sample(modality, tick - 1, frame, modality),))


def audio_window(wave: np.ndarray, number: int = 0) -> Window:
    """A sound in blocks of 0.1 s, int16."""
    counts = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)[:, None]
    start = (number + 1) * 10 * SECOND
    blocks = [
        Sample(AUDIO, start + at * SECOND // 16_000, Sound(counts[at : at + 1600], 16_000), AUDIO)
        for at in range(0, len(counts), 1600)
    ]
    return Window(AUDIO, start, start + len(counts) * SECOND // 16_000, 1.0, tuple(blocks))


def imu_window(number: int) -> Window:
    values = np.random.default_rng(number).normal(0, 0.5, (1000, 6)) + [0, 0, 9.81, 0, 0, 0]
    start = (number + 1) * 10 * SECOND
    readings = tuple(Sample(IMU, start + i * SECOND // 200, Reading(row), IMU) for i, row in enumerate(values))
    return Window(IMU, start, start + 5 * SECOND, 1.0, readings)


@cache
def synthetic_sound() -> np.ndarray:
    return synthetic_sounds.synthetic_sounds(1)[0].samples


@cache
def windows(modality: str) -> list[Window]:
    """Data of each sensor: photographs, simulated rooms, synthetic sounds and silence, a shaken IMU."""
    if modality == IMU:
        return [imu_window(number) for number in range(4)]
    noise = np.random.default_rng(3)
    if modality == AUDIO:
        waves = [one.samples[:32_000] for one in synthetic_sounds.synthetic_sounds(1)[::4]]
        faint = 1e-4 * noise.standard_normal(32_000)  # beside a bang, it is below the trunk's dynamic range
        bang = np.where(np.arange(32_000) > 28_000, 0.8 * noise.standard_normal(32_000), faint)
        return [audio_window(w, i) for i, w in enumerate([*waves, np.zeros(32_000), faint, bang])]
    views = [view for _ in range(2) for view in rooms.render_walk(rooms.random_room(noise), noise, 4)]
    if modality == DEPTH:
        return [image_window(DEPTH, (1000 * np.nan_to_num(v.depth)).astype("<u2"), i) for i, v in enumerate(views)]
    if modality == THERMAL:
        kelvin = [v.kelvin + noise.normal(0, 0.1, v.kelvin.shape) for v in views]
        return [image_window(THERMAL, np.round(100 * k).astype("<u2"), i) for i, k in enumerate(kelvin)]
    photos = evaluation.read_photos() or {}
    return [image_window(VISION, pixels, i) for i, pixels in enumerate([*photos.values(), *(v.colour for v in views)])]


@pytest.mark.parametrize("modality", MODALITIES)
def test_vectors_are_those_of_pytorch_in_float32(
    eager_space: BoundSpace, compiled_space: BoundSpace, modality: str
) -> None:
    batch = torch.stack([compiled_space.tensor(window) for window in windows(modality)])
    vectors, expected = compiled_space.embed(modality, batch), eager_space.embed(modality, batch)
    assert vectors.dtype == torch.float32 and vectors.device.type == "cpu"
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(batch)))
    assert (vectors * expected).sum(dim=1).min() >= compiled.MIN_COSINE
    assert (expected @ expected.T).min() < compiled.MIN_COSINE  # windows differ by more than the tolerance


def test_vectors_do_not_depend_on_the_other_windows_of_a_batch(compiled_space: BoundSpace) -> None:
    some = [window for modality in MODALITIES for window in windows(modality)[:3]]
    alone = {(w.modality, w.tick): Engine(compiled_space).embed([w])[0] for w in some}
    mixed = np.random.default_rng(0).permutation(len(some))
    for order in (range(len(some)), mixed):
        for result in Engine(compiled_space).embed([some[i] for i in order]):
            other = alone[result.modality, result.tick]  # type: ignore[union-attr]  # a Failure has no tick, and fails
            assert isinstance(result, Embedding) and isinstance(other, Embedding)
            np.testing.assert_allclose(result.vector, other.vector, atol=1e-5)


@pytest.mark.parametrize("samples", [8_000, 15_999, 16_000, 48_000])
def test_sounds_of_any_length_are_embedded(eager_space: BoundSpace, compiled_space: BoundSpace, samples: int) -> None:
    wave = torch.from_numpy(synthetic_sound()[:samples].astype(np.float32))
    wave = torch.nn.functional.pad(wave, (0, samples - len(wave)))[None]
    assert float((compiled_space.embed(AUDIO, wave) * eager_space.embed(AUDIO, wave)).sum()) >= compiled.MIN_COSINE


def test_several_threads_get_the_vectors_of_one_thread(compiled_space: BoundSpace) -> None:
    batches = [(m, compiled_space.tensor(w)[None]) for m in (VISION, AUDIO, DEPTH) for w in windows(m)[:3]]
    expected = [compiled_space.embed(*batch) for batch in batches]
    got: list[torch.Tensor] = [torch.empty(0)] * len(batches)

    def work(index: int) -> None:
        got[index] = compiled_space.embed(*batches[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@cache
def long_recording() -> np.ndarray:
    """12 s at 16 kHz with all special cases of the trunk: noise, zeros, and faint noise beside a bang."""
    noise = np.random.default_rng(8)
    wave = 0.1 * noise.standard_normal(12 * 16_000)
    wave[40_000:90_000] *= 1e-5
    wave[100_000:130_000] = 0
    wave[60_000:62_000] = 0.9 * np.sign(noise.standard_normal(2_000))
    return wave.astype(np.float32)


def streaming_encoder(space: BoundSpace) -> CompiledAudioEncoder:
    encoder = space.load_spoke(AUDIO).streaming_encoder
    assert encoder is not None
    return encoder


def assert_equals_pytorch(space: BoundSpace, eager: BoundSpace, tensor: torch.Tensor, wave: np.ndarray) -> None:
    vectors, expected = space.embed(AUDIO, tensor[None]), eager.embed(AUDIO, torch.from_numpy(wave)[None])
    torch.testing.assert_close(vectors, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("hop", [3200, 1600, 2560])
def test_overlapping_windows_share_work_and_have_the_same_vectors(
    compiled_space: BoundSpace, eager_space: BoundSpace, hop: int
) -> None:
    encoder, name = streaming_encoder(compiled_space), f"microphone {hop}"
    for run in range(2):  # in the first run, graphs may still be compiled
        starts = range(0, len(long_recording()) - 32_000, hop)
        tensors = [encoder.stream_tensor(name, run * 2**30 + at, long_recording()[at : at + 32_000]) for at in starts]
        encoder.wait_for_graphs()
        shared = [len(tensor) == FEATURE_SIZE for tensor in tensors]
        assert all(shared[8:]) and not shared[0]
        for tensor, at in list(zip(tensors, starts, strict=True))[:: len(tensors) // 9]:
            assert_equals_pytorch(compiled_space, eager_space, tensor, long_recording()[at : at + 32_000])


def test_windows_that_are_never_a_whole_number_of_steps_apart_share_nothing(compiled_space: BoundSpace) -> None:
    starts = range(0, len(long_recording()) - 32_000, 8000)
    assert all(
        len(streaming_encoder(compiled_space).stream_tensor("half", at, long_recording()[at : at + 32_000])) == 32_000
        for at in starts
    )


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 24), st.booleans()), min_size=2, max_size=12))
def test_windows_may_come_in_any_order_be_missing_or_hold_another_sound(
    compiled_space: BoundSpace, eager_space: BoundSpace, order: list[tuple[int, bool]]
) -> None:
    """A cached window is continued only if it equals the new one, bit for bit, in the overlap."""
    encoder = streaming_encoder(compiled_space)
    encoder.wait_for_graphs()
    for step, other in order:
        wave = np.roll(long_recording(), 77 if other else 0)[step * 3200 : step * 3200 + 32_000]
        tensor = encoder.stream_tensor("order", step * 3200, wave.copy())
        assert_equals_pytorch(compiled_space, eager_space, tensor, wave)


def test_the_cache_is_bounded(compiled_space: BoundSpace) -> None:
    for number in range(3 * MAX_CACHED_WINDOWS):
        streaming_encoder(compiled_space).stream_tensor(f"robot {number}", 0, long_recording()[:32_000])
    assert streaming_encoder(compiled_space).cached_windows() == MAX_CACHED_WINDOWS


def test_windows_of_sound_have_the_same_vectors_one_by_one_and_in_a_batch(compiled_space: BoundSpace) -> None:
    some = [audio_window_at(start) for start in range(0, 80_000, 3200)]
    streaming_encoder(compiled_space).wait_for_graphs()
    live = [result for window in some for result in Engine(compiled_space).embed([window])]
    for one, other in zip(live, Engine(compiled_space).embed(some), strict=True):
        assert isinstance(one, Embedding) and isinstance(other, Embedding)
        np.testing.assert_allclose(one.vector, other.vector, atol=2e-4)


def audio_window_at(start: int) -> Window:
    """2 s of `long_recording` from sample number `start`, in blocks of 0.1 s with the stamps of one stream."""
    window = audio_window(long_recording()[start : start + 32_000])
    begin = 100 * SECOND + start * SECOND // 16_000
    samples = tuple(replace(s, stamp=s.stamp - window.start + begin) for s in window.samples)
    return replace(window, start=begin, tick=begin + 2 * SECOND, samples=samples)


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "openvino", None)  # makes the import fail
    for cached in (compiled.openvino_available, compiled.openvino_core):
        cached.cache_clear()
    yield
    for cached in (compiled.openvino_available, compiled.openvino_core):
        cached.cache_clear()


def test_without_openvino_pytorch_is_used_and_a_message_is_logged(
    eager_space: BoundSpace, without_openvino: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        space = registry.load_space("starter", modalities=[VISION, AUDIO], device="cpu")
    assert isinstance(space, BoundSpace) and not space.compiled_modalities
    assert "pip install openvino" in caplog.text
    for modality in (VISION, AUDIO):
        tensor = space.tensor(windows(modality)[0])[None]
        torch.testing.assert_close(
            space.embed(modality, tensor), eager_space.embed(modality, tensor), atol=1e-6, rtol=0
        )


class DifferentEncoder:
    """An encoder that always returns the same vector."""

    def __init__(self, vector: torch.Tensor) -> None:
        self.vector = vector

    def embed_async(self, batch: torch.Tensor) -> EmbeddingFuture:
        return DeferredFuture(lambda: self.vector)


@pytest.mark.parametrize(("angle", "agrees"), [(0.0, True), (0.04, True), (0.05, False), (float("nan"), False)])
def test_a_compiled_encoder_with_different_vectors_is_not_used(
    angle: float, agrees: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rotated = torch.tensor([[np.cos(angle), np.sin(angle)]], dtype=torch.float32)
    assert (
        compiled.matches_pytorch(
            DifferentEncoder(rotated), lambda batch: torch.tensor([[1.0, 0.0]]), torch.zeros(1), "smell"
        )
        is agrees
    )
    assert ("smell" in caplog.text) is not agrees


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 65535))
def test_a_thermal_image_has_the_same_contrast_in_counts_as_in_kelvin(
    seed: int, height: int, width: int, span: int
) -> None:
    noise = np.random.default_rng(seed)
    counts = noise.integers(0, span, (height, width), endpoint=True).astype(np.uint16)
    kelvin = counts.astype(np.float32) * np.float32(0.01) + np.float32(20)
    from_counts = thermal.stretch_contrast(ThermalImage(kelvin, True, counts, 0.01, 20.0))
    np.testing.assert_allclose(from_counts, thermal.stretch_contrast(ThermalImage(kelvin, True)), atol=2e-4)
