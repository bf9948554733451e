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
