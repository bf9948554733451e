"""CLIP, MetaCLIP 2, SigLIP and SigLIP 2 as spaces: the vectors are those of the library's own processor and model."""

from __future__ import annotations

import copy
import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers.small_transformers import (
    IMAGE_ENCODINGS,
    encoded,
    image_window,
    images,
    letter_tokenizer,
    randomize,
    relative_error,
    sentencepiece_tokenizer,
    word_tokenizer,
    write_checkpoint,
)
from sensebind.fusion.core import encodings
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION, Frame
from sensebind.fusion.core.space import Hub, Space, SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner
from sensebind.fusion.models.registry import load_space
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.spokes.spoke import Spoke, SpokeSpec

FAMILIES = ("clip", "metaclip_2", "siglip", "siglip2_fixed", "siglip2")
SHARED_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION_SIZES = {**SHARED_SIZES, "image_size": 64, "patch_size": 16}
TEXT_SIZES = {
    **SHARED_SIZES, "vocab_size": 80, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2,
    "eos_token_id": 1,
}  # fmt: skip
PHRASES = ["dog", "a cat", "Glass breaking", "the siren of rain"]
SENTENCES = {  # the published templates, with the article of the phrase
    "clip": ["a photo of a dog.", "a photo of a cat.", "a photo of a Glass breaking.", "a photo of the siren of rain."],
    "siglip": ["this is a photo of " + phrase.lower() + "." for phrase in PHRASES],
}


def processor_of(family: str) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    if family in ("clip", "metaclip_2"):
        return CLIPImageProcessorPil(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64})
    if family == "siglip2":
        return Siglip2ImageProcessorPil(patch_size=16, max_num_patches=12)
    resample = 2 if family == "siglip2_fixed" else 3
    return SiglipImageProcessorPil(size={"height": 64, "width": 64}, resample=resample)


def model_of(family: str) -> Any:
    import transformers as hf

    torch.manual_seed(0)
    if family == "clip":
        return hf.CLIPModel(hf.CLIPConfig(text_config=TEXT_SIZES, vision_config=VISION_SIZES, projection_dim=24))
    if family == "metaclip_2":
        config = hf.MetaClip2Config(text_config=TEXT_SIZES, vision_config=VISION_SIZES, projection_dim=24)
        return hf.MetaClip2Model(config)
    if family == "siglip2":
        sizes = {**SHARED_SIZES, "patch_size": 16, "num_patches": 16}
        return hf.Siglip2Model(hf.Siglip2Config(text_config=TEXT_SIZES, vision_config=sizes))
    return hf.SiglipModel(hf.SiglipConfig(text_config=TEXT_SIZES, vision_config=VISION_SIZES))


class Checkpoint:
    """A small random model in a folder, with the library's processor, tokenizer and model as the oracle."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.model, self.processor = randomize(model_of(family)), processor_of(family)
        write_checkpoint(folder, self.model, processor=self.processor)
        if family == "siglip2_fixed":  # its tokenizer distinguishes it from SigLIP
            self.tokenizer = letter_tokenizer(folder, "GemmaTokenizer")
        elif family == "siglip2":
            self.tokenizer = letter_tokenizer(folder, "Siglip2Tokenizer")
        elif family == "siglip":
            self.tokenizer = sentencepiece_tokenizer(folder)
        else:
            self.tokenizer = word_tokenizer(folder)

    @torch.no_grad()
    def image_vectors(self, pixels: list[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
        inputs = self.processor(pixels, return_tensors="pt")
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        return normalize(copy.deepcopy(self.model).to(dtype).get_image_features(**inputs).pooler_output.float(), dim=1)

    @torch.no_grad()
    def text_vectors(self, sentences: list[str]) -> Tensor:
        padding = {"padding": "max_length", "max_length": 64} if self.family.startswith("siglip") else {"padding": True}
        tokens = self.tokenizer(sentences, return_tensors="pt", **padding)
        names = [name for name in ("input_ids", "attention_mask") if name in tokens]
        vectors = self.model.get_text_features(**{name: tokens[name] for name in names})
        return normalize(vectors.pooler_output, dim=1)

    @cached_property
    def space(self) -> Space:
        return load_space(f"transformers:{self.folder}", modalities=["vision", "text"])


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def windows_of(pixels: list[np.ndarray], encoding: str = "rgb8") -> list[Window]:
    return [image_window(encoded(image, encoding)) for image in pixels]


def embed(space: Space, windows: list[Window]) -> Tensor:
    return space.embed(VISION, torch.stack([space.tensor(window) for window in windows]))


@pytest.mark.parametrize("encoding", IMAGE_ENCODINGS)
def test_image_vectors_equal_the_library_s(checkpoint: Checkpoint, encoding: str) -> None:
    windows = windows_of(images(6), encoding)
    decoded = [encodings.decode_rgb(window.samples[0].data) for window in windows]
    got, expected = embed(checkpoint.space, windows), checkpoint.image_vectors(decoded)
    assert relative_error(got, expected) < 1e-4
    assert (got @ expected.T).argmax(dim=1).tolist() == list(range(6))


@pytest.mark.parametrize("shape", [(131, 97), (64, 64), (240, 320)])
def test_images_of_every_shape_have_the_library_s_vectors(checkpoint: Checkpoint, shape: tuple[int, int]) -> None:
    pixels = images(4, *shape)
    got = embed(checkpoint.space, windows_of(pixels))
    assert relative_error(got, checkpoint.image_vectors(pixels)) < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 64, "crop_size": 64, "do_center_crop": True, "feature_extractor_type": "CLIPFeatureExtractor"},
        {"size": 72, "crop_size": {"height": 64, "width": 64}},
        {"size": {"height": 72, "width": 80}, "crop_size": 64, "do_center_crop": True},
        {"size": {"height": 64, "width": 64}, "do_center_crop": False, "resample": 2},
    ],
)
def test_old_and_unusual_settings_of_clip_are_followed(tmp_path: Path, settings: dict[str, Any]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    checkpoint = Checkpoint("clip", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    checkpoint.processor = CLIPImageProcessorPil.from_pretrained(tmp_path)
    pixels = images(4)
    assert relative_error(embed(checkpoint.space, windows_of(pixels)), checkpoint.image_vectors(pixels)) < 1e-4


def test_in_bf16_image_vectors_equal_the_library_s_in_bf16(checkpoint: Checkpoint) -> None:
    pixels = images(6)
    space = load_space(f"transformers:{checkpoint.folder}", dtype="bf16")
    expected = checkpoint.image_vectors(pixels, torch.bfloat16)
    assert relative_error(embed(space, windows_of(pixels)), expected) < 1e-2


def test_a_phrase_is_put_into_the_template_and_has_the_library_s_vector(checkpoint: Checkpoint) -> None:
    sentences = SENTENCES["siglip" if checkpoint.family.startswith("siglip") else "clip"]
    if checkpoint.family == "clip":
        sentences = [sentence.lower() for sentence in sentences]
    space, expected = checkpoint.space, checkpoint.text_vectors(sentences)
    got = space.embed_text(PHRASES)
    assert relative_error(got, expected) < 1e-4
    assert (got @ expected.T).argmax(dim=1).tolist() == list(range(len(PHRASES)))
    assert torch.allclose(space.embed_text(sentences), expected, atol=1e-5)  # whole sentences do not change


def test_one_row_equals_the_same_row_of_a_batch(checkpoint: Checkpoint) -> None:
    space, windows = checkpoint.space, windows_of(images(5))
    batch = embed(space, windows)
    assert torch.allclose(torch.cat([embed(space, [window]) for window in windows]), batch, atol=1e-6)
    assert torch.allclose(torch.cat([space.embed_text([p]) for p in PHRASES]), space.embed_text(PHRASES), atol=1e-6)


def test_the_gpu_path_takes_bytes_and_gives_the_same_vectors(checkpoint: Checkpoint) -> None:
    space, windows = checkpoint.space, windows_of(images(3))
    rows = [space.device_input(window) for window in windows]
    assert {(row.dtype, tuple(row.shape)) for row in rows} == {(torch.uint8, (97, 131, 3))}
    assert torch.allclose(GpuRunner(space).launch(VISION, rows).fetch(), embed(space, windows), atol=1e-6)


def test_scales_and_biases_are_the_checkpoint_s(checkpoint: Checkpoint) -> None:
    space, model = checkpoint.space, checkpoint.model
    assert space.logit_scales[VISION] == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-5)
    bias = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else 0.0
    assert space.logit_biases.get(VISION, 0.0) == pytest.approx(bias)


def test_depth_and_thermal_images_are_rendered_for_the_image_encoder(checkpoint: Checkpoint) -> None:
    space = load_space(f"transformers:{checkpoint.folder}", modalities=[DEPTH, THERMAL])
    assert set(space.modalities) == {"text", VISION, DEPTH, THERMAL}
    depth = np.linspace(500, 4000, 60 * 80).reshape(60, 80).astype("<u2")
    heat = (np.random.default_rng(0).random((60, 80)) * 255).astype(np.uint8)
    for modality, frame in (
        (DEPTH, Frame(depth.view(np.uint8).ravel(), "16UC1", 60, 80, 160)),
        (THERMAL, Frame(heat.ravel(), "mono8", 60, 80, 80)),
    ):
        window = image_window(frame, modality)
        vector = space.embed(modality, space.tensor(window)[None])
        assert torch.allclose(vector.norm(dim=1), torch.ones(1))
        row = space.device_input(window)
        assert row.dtype == torch.uint8 and row.shape[2] == 3 and torch.equal(row[..., 0], row[..., 2])
        assert torch.allclose(space.encoder(modality)(row[None]), vector, atol=1e-6)


def test_a_spoke_starts_from_the_rendering_and_binds_to_the_hub(checkpoint: Checkpoint, tmp_path: Path) -> None:
    hub = load_space(f"transformers:{checkpoint.folder}", modalities=[VISION])
    assert isinstance(hub, Hub)
    levels = torch.rand(2, 3, 224, 224)
    file = tmp_path / "thermal.safetensors"
    spoke = Spoke(SpokeSpec(THERMAL, "image", hub.id, hub.dimension, method="lora", rank=2), hub)
    assert torch.allclose(spoke.embed(levels), hub.image_encoder()(levels).detach(), atol=1e-5)
    spokes.save(spoke, file)
    bound = load_space(f"transformers:{checkpoint.folder}", spokes=[str(file)])
    assert {THERMAL, DEPTH, VISION, "text"} == set(bound.modalities) and bound.id != hub.id
    # A spoke has a scale of its own and no bias; other modalities keep the hub's.
    assert bound.logit_biases == {m: b for m, b in hub.logit_biases.items() if m != THERMAL} | (
        {DEPTH: hub.logit_biases[VISION]} if hub.logit_biases else {}
    )


def test_the_licence_is_in_the_log_and_an_unknown_checkpoint_is_named(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    space = load_space(f"transformers:{checkpoint.folder}")
    expected = {"clip": "MIT", "metaclip_2": "CC-BY-NC-4.0"}.get(checkpoint.family, "Apache-2.0")
    assert expected in space.licence and "unverified" in space.licence
    assert space.licence in caplog.text and "is not in the card" in caplog.text


def test_the_id_names_the_content_of_the_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / checkpoint.folder.name
    shutil.copytree(checkpoint.folder, copied)
    assert load_space(f"transformers:{copied}").id == checkpoint.space.id
    tokenizer = copied / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert load_space(f"transformers:{copied}").id != checkpoint.space.id


def test_an_unknown_modality_or_precision_is_refused(checkpoint: Checkpoint) -> None:
    space = checkpoint.space
    with pytest.raises(ValueError, match="no encoder for 'imu'"):
        space.embed("imu", torch.zeros(1, 6, 10))
    with pytest.raises(SpaceError, match="dtype 'int8' is not one of"):
        load_space(f"transformers:{checkpoint.folder}", dtype="int8")
