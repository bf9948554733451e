"""Compiled encoders give PyTorch's float32 vectors, and a window's vector does not depend on the rest of the batch."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
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
from sensebind.fusion.models.openvino import graphs
from sensebind.fusion.models.spokes.bound_space import BoundSpace
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
def synthetic_sound(name: str = "knocking on a door") -> np.ndarray:
    """A sound of 4 s at 16 kHz, in −0.7..0.7."""
    wave = np.nan_to_num(synthetic_sounds.synthesizer_named(name)(np.random.default_rng(0)))
    return np.asarray(0.7 * wave / np.abs(wave).max(), np.float32)


@cache
def windows(modality: str) -> list[Window]:
    """Data of each sensor: photographs, simulated rooms, synthetic sounds and silence, a shaken IMU."""
    if modality == IMU:
        return [imu_window(number) for number in range(4)]
    noise = np.random.default_rng(3)
    if modality == AUDIO:
        waves = [synthetic_sound(name)[:32_000] for name in synthetic_sounds.SYNTHESIZERS]
        faint = 1e-4 * noise.standard_normal(32_000)
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
    assert (vectors * expected).sum(dim=1).min() >= graphs.MIN_COSINE
    assert (expected @ expected.T).min() < graphs.MIN_COSINE  # windows differ by more than the tolerance


def test_objects_are_those_of_pytorch_and_only_images_have_them(
    eager_space: BoundSpace, compiled_space: BoundSpace
) -> None:
    batch = torch.stack([compiled_space.tensor(window) for window in windows(VISION)])
    futures = [space.embed_async(VISION, batch) for space in (compiled_space, eager_space)]
    vectors = [future.fetch() for future in futures]
    assert (vectors[0] * vectors[1]).sum(dim=1).min() >= graphs.MIN_COSINE
    found, expected = (future.objects for future in futures)
    names = compiled_space.object_names(VISION)
    assert found is not None and expected is not None and found.shape == (len(batch), len(names), 5)
    torch.testing.assert_close(found[..., 0], expected[..., 0], atol=0.02, rtol=0)
    clear = expected[..., 0] > 0.4
    assert clear.any()
    torch.testing.assert_close(found[clear], expected[clear], atol=0.05, rtol=0)
    for modality in (AUDIO, DEPTH):
        assert compiled_space.object_names(modality) == ()
        future = compiled_space.embed_async(modality, compiled_space.tensor(windows(modality)[0])[None])
        future.fetch()
        assert future.objects is None


@pytest.mark.parametrize("modality", [VISION, AUDIO, DEPTH, THERMAL])
def test_a_compiled_encoder_also_answers_for_the_device(compiled_space: BoundSpace, modality: str) -> None:
    batch = torch.stack([compiled_space.tensor(window) for window in windows(modality)[:2]])
    with torch.inference_mode():
        vectors = compiled_space.encoder(modality)(batch)
    assert (vectors * compiled_space.embed(modality, batch)).sum(dim=1).min() >= graphs.MIN_COSINE


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
    assert float((compiled_space.embed(AUDIO, wave) * eager_space.embed(AUDIO, wave)).sum()) >= graphs.MIN_COSINE


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


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "openvino", None)  # makes the import fail
    for cached in (graphs.openvino_available, graphs.openvino_core):
        cached.cache_clear()
    yield
    for cached in (graphs.openvino_available, graphs.openvino_core):
        cached.cache_clear()


def test_openvino_is_used_without_its_telemetry() -> None:
    """OpenVINO's own telemetry would start a process that reports its import over the network."""
    pytest.importorskip("openvino")
    program = (
        "import multiprocessing, sys\n"
        "from sensebind.fusion.models.openvino.graphs import openvino_available\n"
        "print(openvino_available(), 'openvino_telemetry' in sys.modules, multiprocessing.active_children())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2) == ["True", "False", "[]\n"]


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
        graphs.matches_pytorch(
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
