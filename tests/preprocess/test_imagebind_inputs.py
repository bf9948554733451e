"""ImageBind's preprocessing: images, sounds and phrases become the published tensors, element by element."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sensebind.fusion.core import encodings
from sensebind.fusion.core.samples import Calibration, Frame
from sensebind.fusion.preprocess import audio, image, text, thermal


@pytest.fixture(scope="module")
def golden_images(shared: Path) -> Any:
    return np.load(shared / "reference" / "golden_image_video.npz")


@pytest.fixture(scope="module")
def sounds(shared: Path) -> Any:
    return np.load(shared / "reference" / "golden_audio.npz")


# ---------------------------------------------------------------------------------------------------------- images


def on_host(rgb: np.ndarray) -> torch.Tensor:
    return image.imagebind_tensor(rgb)


def without_uint8_kernel(rgb: np.ndarray) -> torch.Tensor:
    """The code for devices without a uint8 kernel, on the CPU."""
    height, width = rgb.shape[:2]
    short = min(height, width)
    size = int(224 * height / short), int(224 * width / short)
    resized = image._resize_uint8(torch.from_numpy(rgb).permute(2, 0, 1)[None], *size, "bicubic")
    return image.imagebind_batch(image.resize_and_crop(resized))[0]


def on_cuda(rgb: np.ndarray) -> torch.Tensor:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    return image.imagebind_batch(torch.from_numpy(rgb).permute(2, 0, 1)[None].cuda())[0].cpu()


@pytest.mark.parametrize("name", ["land", "port", "small", "sq"])
@pytest.mark.parametrize("path", [on_host, without_uint8_kernel, on_cuda])
def test_images_are_resized_cropped_and_normalized_as_published(
    golden_images: Any, name: str, path: Callable[[np.ndarray], torch.Tensor]
) -> None:
    error = np.abs(path(golden_images[f"image/{name}/in"]).numpy() - golden_images[f"image/{name}/out"])
    assert error.mean() <= 0.005 and error.max() <= 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_images_of_every_size_are_resized_as_by_pillow(height: int, width: int, seed: int) -> None:
    if max(height, width) > 100 * min(height, width):
        return
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    short = min(height, width)
    size = int(224 * width / short), int(224 * height / short)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    expected = Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    got = image.resize_and_crop(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    error = np.abs(got.numpy().astype(int) - np.asarray(expected, int))
    assert error.max() <= 2 and error.mean() <= 0.05


def test_a_batch_of_images_gives_the_tensors_of_each_image() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (3, 100, 150, 3), np.uint8)
    each = torch.stack([image.imagebind_tensor(rgb) for rgb in batch])
    assert torch.equal(image.imagebind_batch(torch.from_numpy(batch).permute(0, 3, 1, 2)), each)


def test_images_may_be_views_and_read_only() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    flipped = rgb[:, ::-1]
    rgb.flags.writeable = False
    assert torch.equal(image.imagebind_tensor(rgb), image.imagebind_tensor(rgb.copy()))
    assert torch.equal(image.imagebind_tensor(flipped), image.imagebind_tensor(flipped.copy()))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((3, 10, 10), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((1, 1000, 3), np.uint8),
    ],
)
def test_arrays_that_are_not_images_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected|too narrow"):
        image.imagebind_tensor(wrong)


# ----------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("name", ["chirp2s", "chirp1s", "chirp3s", "silence2s", "stereo2s"])
def test_sounds_become_the_published_spectrograms(sounds: Any, name: str) -> None:
    waveform = sounds[f"{name}/waveform"]
    for got, wanted in (
        (audio.log_mel(waveform), sounds[f"{name}/mel"][0]),
        (audio.imagebind_tensor(waveform), sounds[f"{name}/normalized"]),
    ):
        assert got.shape == wanted.shape and got.dtype == torch.float32
        error = np.abs(got.numpy() - wanted)
        assert error.mean() <= 2e-5 and np.quantile(error, 0.999) <= 2e-3


@pytest.mark.parametrize("name", ["chirp2s", "chirp1s", "chirp3s"])
def test_the_number_of_frames_is_the_published_one(sounds: Any, name: str) -> None:
    frames = audio.log_mel_frames(torch.from_numpy(sounds[f"{name}/waveform"])[0])
    assert tuple(frames.shape) == sounds[f"{name}/fbank"].shape


def test_the_bands_are_the_published_ones(sounds: Any) -> None:
    assert np.abs(audio.mel_filterbank().numpy() - sounds["mel_banks"]).max() < 2e-5
    assert not audio.mel_filterbank()[3].any()


def test_silence_has_the_lowest_value_and_padding_another() -> None:
    tensor = audio.imagebind_tensor(np.zeros(32_000, np.float32))
    assert tensor[0, :, :198].unique().tolist() == pytest.approx([(math.log(2**-23) + 4.268) / 9.138])
    assert tensor[0, :, 198:].unique().tolist() == pytest.approx([0.467], abs=1e-3)


def test_a_batch_of_sounds_gives_the_tensors_of_each_sound() -> None:
    batch = torch.randn(3, 2, 20_000) * 0.1
    each = torch.stack([audio.imagebind_tensor(w) for w in batch])
    torch.testing.assert_close(audio.imagebind_tensor(batch), each, atol=1e-4, rtol=0)


def test_long_sounds_are_cut_into_clips_at_the_published_times(shared: Path) -> None:
    times = json.loads((shared / "reference" / "clip_times.json").read_text())
    for duration, clips in times.items():
        ramp = torch.sin(torch.arange(round(float(duration) * 16_000)).double() ** 1.5 / 1e4).float()
        got = audio.imagebind_clips(ramp)
        for clip, (start, end) in zip(got, clips["audio3"], strict=True):
            expected = audio.imagebind_tensor(ramp[int(start * 16_000) : int(end * 16_000)])
            torch.testing.assert_close(clip, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("offset", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("level", [0.3, 1e-3, 0.0])
@pytest.mark.parametrize("block", [160, 777, 50_000])
def test_sliding_spectrograms_equal_those_of_single_windows(offset: float, level: float, block: int) -> None:
    generator = np.random.default_rng(0)
    sound = (offset + level * generator.standard_normal(6 * 16_000)).astype(np.float32)
    sliding = audio.SlidingLogMel(hop=8000)
    got = torch.stack([w for i in range(0, len(sound), block) for w in sliding.push(sound[i : i + block])])
    wanted = torch.stack([audio.log_mel(sound[i : i + 32_000]) for i in range(0, len(sound) - 31_999, 8000)])
    assert got.shape == wanted.shape
    error = (got - wanted).abs()
    assert error.mean() <= 2e-6 and error.max() <= 0.01


def test_sliding_spectrograms_are_returned_when_complete_and_buffers_stay_small() -> None:
    sliding = audio.SlidingLogMel(hop=1600)
    assert sliding.push(np.zeros(31_999, np.float32)) == []
    assert len(sliding.push(np.zeros(1, np.float32))) == 1
    for _ in range(50):
        assert len(sliding.push(np.zeros(1600, np.float32))) == 1
    assert len(sliding._sample_buffer) < 400 + 160 and len(sliding._frame_buffer) <= 200
    with pytest.raises(ValueError, match="multiple of 160"):
        audio.SlidingLogMel(hop=100)
    with pytest.raises(ValueError, match="length"):
        audio.SlidingLogMel(hop=160, length=100_000)
    with pytest.raises(ValueError, match="finite"):
        sliding.push(np.array([np.nan], np.float32))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(399), np.zeros((2, 0)), np.zeros((1, 1, 1, 800)), np.full(800, np.nan), np.full(800, 3e4)],
)
def test_arrays_that_are_not_sounds_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a waveform|scaled to"):
        audio.imagebind_tensor(wrong)


# -------------------------------------------------------------------------------------------------------- phrases


def test_phrases_become_the_published_tokens(shared: Path) -> None:
    cases = json.loads((shared / "reference" / "golden_text.json").read_text())["cases"]
    got = text.imagebind_tokens([case["text"] for case in cases])
    assert got.dtype == torch.int64
    for row, case in zip(got.tolist(), cases, strict=True):
        assert row == case["ids"], case["text"]


def test_special_tokens_in_a_text_are_recognised_unless_within_punctuation() -> None:
    start, end = 49406, 49407
    row = text.imagebind_tokens(["<|startoftext|><|endoftext|> a"])[0].tolist()
    assert row[:4] == [start, start, end, 320]
    assert text.imagebind_tokens(["!!<|startoftext|>"])[0].tolist().count(start) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=200) | st.text("<|>startofex&#;'!a 1\n", max_size=100), max_size=4))
def test_every_phrase_becomes_77_tokens_with_a_start_and_an_end_token(texts: list[str]) -> None:
    rows = text.imagebind_tokens(texts)
    assert rows.shape == (len(texts), 77)
    for row in rows.tolist():
        end = max(i for i, token in enumerate(row) if token == 49407)
        assert row[0] == 49406 and set(row[end + 1 :]) <= {0} and min(row) >= 0 and max(row) < 49408


def test_very_long_phrases_are_tokenised() -> None:
    assert text.imagebind_tokens(["x" * 10**6, "&amp;" * 10**5, "\ud800é" * 10**5]).shape == (3, 77)


@pytest.mark.parametrize("wrong", ["a phrase", [b"bytes"], [None]])
def test_anything_but_a_list_of_phrases_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="list of strings"):
        text.imagebind_tokens(wrong)


# ----------------------------------------------------------------------------------------------------------- fuzz


def fuzz_arrays(count: int) -> None:
    """Arrays of any shape, type and content: an error with a message, or a finite tensor."""
    generator = np.random.default_rng(3)
    for _ in range(count):
        shape = tuple(int(n) for n in generator.choice([0, 1, 2, 3, 4, 37, 640], generator.integers(0, 5)))
        shape = shape if math.prod(shape) < 2**20 else shape[:2]
        dtype = generator.choice(np.array(["u1", "i2", "f4", "f8", "?"]))
        array = (generator.standard_normal(shape) * 10.0 ** generator.integers(-30, 38)).astype(dtype)
        if array.size and array.dtype.kind == "f" and generator.random() < 0.5:
            array.flat[generator.integers(array.size)] = generator.choice([np.nan, np.inf, -np.inf, 3e38])
        for frontend, wanted in ((image.imagebind_tensor, (3, 224, 224)), (audio.imagebind_tensor, (1, 128, 204))):
            try:
                tensor = frontend(array)
            except ValueError as error:
                assert str(error)
            else:
                assert tuple(tensor.shape[-3:]) == wanted and torch.isfinite(tensor).all()


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_a_thousand_mutated_arrays_are_refused_or_become_finite_tensors() -> None:
    fuzz_arrays(1000)


def test_thermal_lookup_tables_give_the_computed_pixels() -> None:
    counts = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    for unit, offset in ((0.01, 0.0), (0.04, 0.0), (1.0, 200.0)):
        frame = Frame(counts.reshape(-1).view(np.uint8), "16UC1", 256, 256, 512)
        decoded = encodings.decode_thermal(frame, Calibration(thermal_unit=unit, thermal_offset=offset))
        assert decoded.counts is not None
        computed = thermal.to_uint8(encodings.ThermalImage(decoded.values, True))
        assert np.array_equal(thermal.to_uint8(decoded), computed) and len(np.unique(computed)) > 50
