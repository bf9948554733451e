"""Files of images and sounds as vectors, without a recording."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from helpers.small_transformers import images, letter_tokenizer, randomize, write_checkpoint
from sensebind.cli import main
from sensebind.fusion.core.encodings import EncodingError, decode_photograph
from sensebind.fusion.io.sensor_files import FileError
from sensebind.fusion.models.phrases import TextEmbeddingCache
from sensebind.fusion.models.registry import load_space
from sensebind.replay.embed_files import embed_files

SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_images_whose_inputs_differ_in_shape_are_embedded_in_one_call(tmp_path: Path) -> None:
    import transformers as hf

    folder = tmp_path / "naflex"
    folder.mkdir()
    text = {**SIZES, "vocab_size": 80, "max_position_embeddings": 64}
    config = hf.Siglip2Config(text_config=text, vision_config={**SIZES, "patch_size": 16, "num_patches": 16})
    write_checkpoint(folder, randomize(hf.Siglip2Model(config)))
    letter_tokenizer(folder, "Siglip2Tokenizer")
    files = []
    for number, shape in enumerate([(60, 90), (90, 60), (60, 90)]):
        files.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(files[-1], images(1, *shape, seed=number)[0])
    space = load_space(f"transformers:{folder}")
    vectors = embed_files(space, "vision", files)
    assert np.allclose(vectors, np.concatenate([embed_files(space, "vision", [file]) for file in files]), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 30_000.0])
def test_a_sound_that_is_not_scaled_or_not_finite_is_named(tmp_path: Path, value: float) -> None:
    samples = np.zeros(16_000, np.float32)
    samples[100] = value
    soundfile.write(tmp_path / "wrong.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(FileError, match=r"wrong\.wav' has values that are not finite, or over 100 times full scale"):
        embed_files(load_space("starter", modalities=["audio"]), "audio", [str(tmp_path / "wrong.wav")])


def test_one_string_is_not_taken_for_a_list_of_phrases() -> None:
    with pytest.raises(TypeError, match=r"expected a list of phrases, not one string: \['a dog'\]"):
        TextEmbeddingCache().embed("space", "a dog", lambda phrases: torch.zeros(len(phrases), 2))


def test_a_file_that_cannot_be_read_is_skipped_and_named_and_the_others_are_embedded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 10:40] = (30, 60, 200)
    for name in ("photo.png", "photo.webp", "photo.tiff", "photo.bmp", "photo.gif"):
        assert cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / "cut.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes()[:200])
    (tmp_path / "empty.jpg").write_bytes(b"")
    names = [str(tmp_path / n) for n in ("photo.png", "cut.jpg", "photo.webp", "photo.tiff", "photo.bmp", "empty.jpg",
                                         "photo.gif", "nowhere.png")]  # fmt: skip
    out = tmp_path / "vectors.npz"
    assert main(["embed", "--modality", "vision", "--batch-size", "2", "-o", str(out), *names]) == 1
    printed = capfd.readouterr()
    assert "5 vectors of" in printed.out and "; 3 of 8 files skipped" in printed.out
    for bad in ("cut.jpg", "empty.jpg", "nowhere.png"):
        assert f"skipped: '{tmp_path / bad}'" in printed.err
    with np.load(out) as found:
        assert found["names"].tolist() == [names[i] for i in (0, 2, 3, 4, 6)]
        vectors = found["vectors"]
    assert np.allclose(vectors[2:4], vectors[0], atol=1e-5)  # TIFF and BMP lose nothing
    assert (vectors @ vectors[0] > 0.8).all()


def test_if_no_file_can_be_read_nothing_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    out = tmp_path / "vectors.npz"
    assert main(["embed", "--modality", "vision", "-o", str(out), str(tmp_path / "empty.jpg")]) == 2
    assert "empty.jpg" in capfd.readouterr().err and not out.exists()


def test_a_photograph_is_turned_upright_by_its_exif(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    pixels = cv2.resize(pixels, (240, 200), interpolation=cv2.INTER_CUBIC)
    turned = cv2.imencode(".jpg", cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, 6, 0, 0)  # orientation 6
    (tmp_path / "phone.jpg").write_bytes(
        turned[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + turned[2:]
    )
    cv2.imwrite(str(tmp_path / "upright.jpg"), pixels)
    cv2.imwrite(str(tmp_path / "turned.jpg"), cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE))
    names = [str(tmp_path / name) for name in ("phone.jpg", "upright.jpg", "turned.jpg")]
    phone, upright, other = embed_files(load_space("starter", modalities=["vision"]), "vision", names)
    assert phone @ upright > 0.99 > phone @ other


def test_a_sound_whose_channels_cancel_each_other_is_named_and_a_channel_can_be_selected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    opposite, mono, array = (str(tmp_path / name) for name in ("opposite.wav", "mono.wav", "array.wav"))
    soundfile.write(opposite, np.stack([tone, -tone], axis=1), 16_000)
    soundfile.write(mono, tone, 16_000)
    soundfile.write(array, np.stack([tone, -tone, 0 * tone], axis=1), 16_000)
    space = load_space("starter", modalities=["audio"])
    (cancelled,) = embed_files(space, "audio", [opposite])
    assert f"'{opposite}': the 2 channels of the sound cancel each other" in caplog.text
    assert "set --channel to the number of one channel" in caplog.text
    caplog.clear()
    (alone,) = embed_files(space, "audio", [mono])
    (first,) = embed_files(space, "audio", [array])  # of three channels the first, as of a sensor
    (second,) = embed_files(space, "audio", [opposite], channel="1")
    assert not caplog.text
    assert alone @ cancelled < 0.9 < 0.999 < min(alone @ first, alone @ second)
    with pytest.raises(FileError, match=r"mono\.wav': parameter '--channel' is 1, but the sound has 1 channels"):
        embed_files(space, "audio", [mono], channel="1")
    out = str(tmp_path / "vectors.npz")
    assert main(["embed", "--modality", "audio", "--channel", "left", "-o", out, mono]) == 2
    assert "channel must be a number from 0, mean or loudest, not 'left'" in capfd.readouterr().err


SCENE = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
SCENE = cv2.resize(SCENE, (160, 120), interpolation=cv2.INTER_CUBIC)


def saved(folder: Path, name: str, mode: str = "RGB", orientation: int = 1, **options: object) -> Path:
    """The scene in a file, in a mode of Pillow; its pixels are turned so that the EXIF turns them back."""
    from PIL import Image

    turn = Image.Transpose
    turns = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
             6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}  # fmt: skip
    image = Image.fromarray(SCENE)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    if orientation in turns:
        image = image.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / name, exif=exif, **options)
    return folder / name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp", "a.jpg"])
def test_every_orientation_in_exif_gives_the_same_image(tmp_path: Path, name: str, orientation: int) -> None:
    pytest.importorskip("PIL")
    options = {"lossless": True} if name == "a.webp" else {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    found = decode_photograph(np.fromfile(saved(tmp_path, name, "RGB", orientation, **options), np.uint8))
    assert np.abs(found.astype(int) - SCENE).max() <= (6 if name == "a.jpg" else 0)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [("palette.gif", "P", {}), ("palette.png", "P", {}), ("palette.bmp", "P", {}), ("palette.tiff", "P", {}),
     ("web.gif", "RGB", {}), ("cmyk.tiff", "CMYK", {}), ("grey_alpha.png", "LA", {}), ("alpha.png", "RGBA", {}),
     ("bits.png", "1", {}), ("progressive.jpg", "RGB", {"progressive": True}), ("lzw.tiff", "RGB", {"compression":
     "tiff_lzw"}), ("two.mpo", "RGB", {"format": "MPO", "save_all": True}), ("moving.webp", "RGB", {"lossless": True,
     "save_all": True}), ("moving.png", "RGB", {"save_all": True}), ("moving.gif", "P", {"save_all": True})],
)  # fmt: skip
def test_every_kind_of_image_file_has_the_pixels_that_pillow_reads(
    tmp_path: Path, name: str, mode: str, options: dict[str, object]
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    if options.get("save_all"):
        options = {**options, "append_images": [pillow.fromarray(255 - SCENE)]}
    path = saved(tmp_path, name, mode, **options)
    with pillow.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decode_photograph(np.fromfile(path, np.uint8)) - expected).max() <= 1


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
def test_image_files_of_16_bits_keep_their_colours(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), SCENE[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_photograph(np.fromfile(tmp_path / name, np.uint8)), SCENE)


def test_a_colour_tiff_of_floats_is_named_with_a_remedy(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "floats.tiff"), SCENE.astype(np.float32) / 255)
    with pytest.raises(EncodingError, match="TIFF of floats .* save it with 8 or 16 bits"):
        decode_photograph(np.fromfile(tmp_path / "floats.tiff", np.uint8))
