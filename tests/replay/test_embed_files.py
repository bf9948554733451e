"""Files of images and sounds as vectors, without a recording."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from helpers.small_transformers import images, letter_tokenizer, randomize, write_checkpoint
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
