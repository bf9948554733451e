"""ImageBind as a space: windows become unit vectors, and only the encoders of configured modalities are loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.small_imagebind import SIZES, image_frame, motion, sound, window
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import Calibration, Frame, Reading
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models import registry
from sensebind.fusion.models.imagebind import weights
from sensebind.fusion.models.imagebind.network import MODALITIES, modality_of_entry
from sensebind.fusion.models.imagebind.space import ImageBindSpace, resolve_dtype
from sensebind.fusion.preprocess import audio, image


@pytest.fixture(scope="module")
def space(checkpoint: Path) -> ImageBindSpace:
    return ImageBindSpace.load(weights=str(checkpoint), dtype="float32", **SIZES)


def windows() -> dict[str, Window]:
    return {
        "vision": window("vision", image_frame(seed=1), image_frame(seed=2)),
        "audio": window("audio", sound(2.0)),
        "depth": window("depth", image_frame("16UC1", (60, 80), np.uint16), calibration=Calibration(500.0, 80)),
        "thermal": window("thermal", image_frame("mono16", (60, 80), np.uint16)),
        "imu": window("imu", *motion(), length=5.0),
    }


@pytest.mark.parametrize("modality", list(windows()))
def test_a_window_of_each_modality_becomes_a_unit_vector(space: ImageBindSpace, modality: str) -> None:
    tensor = space.tensor(windows()[modality])
    assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all()
    vectors = space.embed(modality, torch.stack([tensor, tensor]))
    assert vectors.shape == (2, 16) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


def test_two_frames_are_a_video_and_one_is_an_image(space: ImageBindSpace) -> None:
    first, second = image_frame(seed=1), image_frame(seed=2)
    assert space.tensor(window("vision", first)).shape == (3, 224, 224)
    video = space.tensor(window("vision", first, second))
    assert video.shape == (1, 3, 2, 224, 224)
    rgb = second.data.reshape(60, 80, 3)
    assert torch.equal(video[0, :, 1], image.imagebind_tensor(rgb))
    with pytest.raises(ValueError, match="vision.frames"):
        space.tensor(window("vision", first, second, first))


def test_two_identical_frames_are_an_image(space: ImageBindSpace) -> None:
    one = window("vision", image_frame())
    twice = Window("vision", one.start, one.tick, 0.5, one.samples * 2)
    assert torch.equal(space.tensor(twice), space.tensor(one))


def test_sounds_longer_than_the_training_windows_become_three_clips(space: ImageBindSpace) -> None:
    two, four = sound(2.0), sound(4.0)
    one = audio.imagebind_tensor(two.data.T)
    torch.testing.assert_close(space.tensor(window("audio", two)), one, atol=1e-3, rtol=0)
    assert space.tensor(window("audio", four, length=4.0)).shape == (3, 1, 128, 204)


@pytest.mark.parametrize("metres", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("width", [320, 640])
def test_a_plane_of_known_depth_has_its_disparity_at_every_resolution(
    space: ImageBindSpace, metres: float, width: int
) -> None:
    """Baseline · focal length / depth, in pixels of an image whose shorter side is 224, divided by the maximum, 75."""
    plane = np.full((width * 3 // 4, width), metres * 1000, np.uint16)
    frame = Frame(plane.reshape(-1).view(np.uint8), "16UC1", *plane.shape, plane.strides[0])
    calibration = Calibration(focal_length=525.0 * width / 640, focal_width=width, baseline=0.1)
    tensor = space.tensor(window("depth", frame, calibration=calibration))
    expected = 0.1 * 525 * (224 / 480) / metres / 75
    torch.testing.assert_close(tensor, torch.full((1, 224, 224), expected), rtol=1e-3, atol=0)


def test_the_text_encoder_is_loaded_by_the_first_phrase(checkpoint: Path) -> None:
    space = ImageBindSpace.load(modalities=["imu"], weights=str(checkpoint), **SIZES)
    assert set(space._models) == {"imu"} and space.modalities == ("text", "imu")
    vectors = space.embed_text(["a dog", "a cat", "a dog"])
    assert vectors.shape == (3, 16) and torch.equal(vectors[0], vectors[2])
    assert set(space._models) == {"imu", "text"}
    assert space.embed_text([]).shape == (0, 16)


def test_a_phrase_has_the_same_vector_in_every_batch(space: ImageBindSpace) -> None:
    alone = space.embed_text(["a red car"])
    assert torch.equal(space.embed_text(["rain", "a red car"])[1], alone[0])


def test_files_of_every_format_make_one_space(checkpoint: Path, space: ImageBindSpace, tmp_path: Path) -> None:
    names = list(weights.read_entries(checkpoint))
    targets = {tmp_path / f"{m}.safetensors": [n for n in names if modality_of_entry(n) == m] for m in MODALITIES}
    weights.convert(checkpoint, targets, torch.bfloat16)
    converted = ImageBindSpace.load(weights=str(tmp_path), dtype="bf16", **SIZES)
    one = ImageBindSpace.load(weights=str(tmp_path / "imu.safetensors"), dtype="bf16", **SIZES)
    assert space.id == converted.id == one.id and space.id.startswith("imagebind_huge@")
    assert one.modalities == ("imu",)
    batch = space.tensor(windows()["imu"])[None]
    assert (one.embed("imu", batch) @ space.embed("imu", batch).T).item() > 0.999
    assert torch.equal(one.embed("imu", batch), converted.embed("imu", batch))
    with pytest.raises(ValueError, match="no encoder for 'text'"):
        one.embed_text(["a dog"])
    with pytest.raises(SpaceError, match="holds no encoder for 'audio'; it has imu"):
        ImageBindSpace.load(modalities=["imu", "audio"], weights=str(tmp_path / "imu.safetensors"), **SIZES)


def test_the_space_has_the_published_scales_windows_and_licence(space: ImageBindSpace) -> None:
    assert space.logit_scales == pytest.approx(
        {"vision": 1.0, "text": 1 / 0.07, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}, rel=1e-5
    )
    assert {m: a.length for m, a in space.trained_windows.items()}["imu"] == 5.0
    assert space.dimension == 16 and "not for commercial use" in space.licence


def test_the_registry_loads_the_space_and_names_missing_or_wrong_weights(checkpoint: Path) -> None:
    with pytest.raises(SpaceError, match="imagebind_huge.pth and set weights to its path"):
        registry.load_space("imagebind_huge")
    with pytest.raises(SpaceError, match="of another shape"):  # the small checkpoint is not the published one
        registry.load_space("imagebind_huge", weights=str(checkpoint))
    with pytest.raises(SpaceError, match="there is no weight file"):
        registry.load_space("imagebind_huge", weights="absent.pth")


def test_automatic_precision_depends_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("fp16", "cpu") == torch.float16
    with pytest.raises(SpaceError, match="dtype 'int8' is not one of"):
        resolve_dtype("int8", "cpu")
    for features, expected in (
        ({}, torch.float32),
        ({"avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features, raising=False)
        assert resolve_dtype("auto", "cpu") == expected


def test_vectors_that_are_not_finite_are_an_error(space: ImageBindSpace) -> None:
    with pytest.raises(RuntimeError, match="not finite"):
        space.embed("imu", torch.full((1, 6, 2000), torch.nan))


def test_a_window_of_an_unknown_modality_is_refused(space: ImageBindSpace) -> None:
    with pytest.raises(ValueError, match="radar"):
        space.tensor(window("radar", Reading(np.zeros(3))))
    with pytest.raises(ValueError, match="no encoder for 'radar'"):
        space.embed("radar", torch.zeros(1, 3))


# ----------------------------------------------------------------------------------------------------------- fuzz


def fuzz_frames(space: ImageBindSpace, count: int) -> None:
    """Mutated compressed and raw images of every modality: an error with a message, or a finite tensor."""
    cv2 = pytest.importorskip("cv2")
    generator = np.random.default_rng(4)
    rgb = generator.integers(0, 256, (40, 60, 3), np.uint8)
    deep = generator.integers(0, 2**16, (40, 60), np.uint16)
    whole = {
        "vision": [
            *(Frame(cv2.imencode(f".{name}", rgb)[1].reshape(-1), name, compressed=True) for name in ("jpeg", "png")),
            image_frame("bgr8"), image_frame("bgra8", (30, 40, 4)),
            image_frame("yuv422_yuy2", (30, 40, 2)), image_frame("bayer_rggb8", (30, 40)),
        ],
        "depth": [
            Frame(cv2.imencode(".png", deep)[1].reshape(-1), "16UC1; png compressed", compressed=True),
            image_frame("16UC1", (30, 40), np.uint16), image_frame("32FC1", (30, 40), np.float32),
        ],
        "thermal": [image_frame("mono16", (30, 40), np.uint16), image_frame("mono8", (30, 40)), image_frame("rgb8")],
    }  # fmt: skip
    for number in range(count):
        modality = list(whole)[number % 3]
        frame = whole[modality][generator.integers(len(whole[modality]))]
        data = frame.data.copy()
        places = generator.integers(0, len(data), generator.integers(0, 20))
        data[places] = generator.integers(0, 256, len(places), np.uint8)
        if generator.random() < 0.3:
            data = data[: generator.integers(1, len(data))]
        size = [frame.height, frame.width, frame.step]
        if generator.random() < 0.3 and not frame.compressed:
            size[generator.integers(3)] = int(generator.choice([0, 1, 7, 10_000, 2**31]))
        big = bool(generator.integers(2))
        mutated = Frame(data, frame.encoding, *size, big_endian=big, compressed=frame.compressed)
        try:
            tensor = space.tensor(window(modality, mutated))
        except (EncodingError, ValueError) as error:
            assert str(error)
        else:
            assert tensor.shape[-2:] == (224, 224) and torch.isfinite(tensor).all()


def test_a_thousand_mutated_images_are_refused_or_become_finite_tensors(space: ImageBindSpace) -> None:
    fuzz_frames(space, 1000)
