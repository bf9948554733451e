"""ImageBind: every stage gives the values of the published model, names and shapes match, wrong inputs are errors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from sensebind.fusion.models.imagebind.network import MODALITIES, ImageBind, state_dict_shapes
from sensebind.fusion.models.phrases import CLIP_TEMPLATES, TextEmbeddingCache, embed_prompt_ensemble

SIZES = {
    f"{modality}_{name}": value
    for modality in MODALITIES
    for name, value in (("embed_dim", 16), ("num_blocks", 2), ("num_heads", 2))
} | {"out_embed_dim": 16}
LIMITS = {"golden_tiny": 2e-6, "golden_tiny_hot": 1e-5}


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference"


@pytest.fixture(scope="module")
def fill(reference: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill", reference / "fill.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names(reference: Path) -> dict[str, Any]:
    return json.loads((reference / "state_dict_keys.json").read_text())


@pytest.fixture(scope="module")
def model() -> ImageBind:
    """A small model whose random weights make attention far from uniform."""
    torch.manual_seed(1)
    small = ImageBind(**SIZES).eval()
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return small.requires_grad_(False)


def random_batch(modality: str, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    if modality == "text":
        ids = torch.randint(1, 49406, (count, 77), generator=generator)
        ids[:, 0], ids[:, 9], ids[:, 10:] = 49406, 49407, 0
        return ids
    shape = {"vision": (3, 224, 224), "audio": (1, 128, 204), "imu": (6, 2000)}.get(modality, (1, 224, 224))
    return torch.randn(count, *shape, generator=generator)


# -------------------------------------------------------------------------------------------- the published model


@pytest.mark.parametrize("golden", LIMITS)
@pytest.mark.parametrize("modality", MODALITIES)
def test_every_stage_gives_the_values_of_the_published_model(
    modality: str, golden: str, reference: Path, fill: ModuleType, names: dict[str, Any]
) -> None:
    seed = "h" if golden.endswith("hot") else "a"
    entries = {k: v for k, v in names["tiny"].items() if k.split(".")[1] == modality}
    tiny = ImageBind(**fill.TINY, modalities=[modality]).eval()
    state = fill.fill_state(entries, seed, hot=seed == "h")
    tiny.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=True)
    batch = torch.from_numpy(fill.case_input(seed, modality, fill.CASES_A[modality]))
    with torch.no_grad():
        stages = tiny.intermediate_outputs(modality, batch)
        assert torch.equal(tiny({modality: batch})[modality], stages["out"])
    with np.load(reference / f"{golden}.npz") as expected:
        for stage, value in stages.items():
            wanted = expected[f"{modality}/{stage}"]
            error = np.abs(value.numpy() - wanted).max() / np.linalg.norm(wanted, axis=-1).max()
            assert error <= LIMITS[golden], f"{stage}: {error:.1e}"


def test_names_and_shapes_are_those_of_the_published_checkpoint(fill: ModuleType, names: dict[str, Any]) -> None:
    with torch.device("meta"):
        huge = ImageBind(**fill.HUGE)
    assert {k: list(v.shape) for k, v in huge.state_dict().items()} == names["imagebind_huge"]
    assert sum(p.numel() for p in huge.parameters()) == 1_200_781_057
    assert {k: tuple(v) for k, v in names["imagebind_huge"].items()} == state_dict_shapes(MODALITIES)
    assert [name for name, _ in huge.named_buffers()] == names["buffers"]


def test_a_model_of_one_modality_loads_a_checkpoint_of_all(model: ImageBind) -> None:
    with torch.device("meta"):
        imu = ImageBind(**SIZES, modalities=["imu"])
    imu.load_checkpoint(model.state_dict())
    assert torch.equal(imu.embed("imu", random_batch("imu")), model.embed("imu", random_batch("imu")))


# ------------------------------------------------------------------------------------------------- clips, crops, sizes


@pytest.mark.parametrize("modality", ["vision", "audio", "depth", "thermal", "imu"])
def test_clips_are_embedded_separately_and_averaged(model: ImageBind, modality: str) -> None:
    clips = random_batch(modality, 6).unflatten(0, (2, 3))
    each = model({modality: clips.flatten(0, 1)})[modality]
    torch.testing.assert_close(model({modality: clips})[modality], each.unflatten(0, (2, 3)).mean(1))


def test_an_image_has_the_vector_of_a_video_of_two_equal_frames(model: ImageBind) -> None:
    image = random_batch("vision")
    still = model({"vision": image})["vision"]
    for frames in (1, 2):
        video = image[:, None, :, None].expand(-1, 1, -1, frames, -1, -1)
        assert torch.equal(model({"vision": video})["vision"], still)
    moving = torch.stack([image, image.flip(-1)], dim=2)[:, None]
    assert not torch.allclose(model({"vision": moving})["vision"], still, atol=1e-3)


def cubic_interpolation(old: int, new: int) -> np.ndarray:
    """Matrix (new, old): Keys' cubic convolution with a = −0.75, repeated edges, and pixel centres at halves."""
    positions = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for row, position in zip(matrix, positions, strict=True):
        for i in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            d = abs(position - i)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            row[min(max(i, 0), old - 1)] += near if d <= 1 else far if d < 2 else 0
    return matrix


@pytest.mark.parametrize("side", [196, 280, 448])
def test_position_embeddings_are_interpolated_for_images_of_other_sizes(model: ImageBind, side: int) -> None:
    helper = model.modality_preprocessors["vision"].pos_embedding_helper
    tokens = side // 14
    positions = helper(torch.zeros(1, 1 + tokens**2, 16))[0].numpy()
    learned = helper.pos_embed[0].numpy()
    matrix = cubic_interpolation(16, tokens)
    expected = np.einsum("ia,jb,abc->ijc", matrix, matrix, learned[1:].reshape(16, 16, 16))
    assert np.array_equal(positions[0], learned[0])
    np.testing.assert_allclose(positions[1:], expected.reshape(-1, 16), atol=1e-5)
    assert model.embed("vision", torch.randn(1, 3, side, side)).shape == (1, 16)


@pytest.mark.parametrize("modality", MODALITIES)
def test_embed_returns_unit_vectors_and_forward_scales_them(model: ImageBind, modality: str) -> None:
    batch = random_batch(modality)
    unit, scaled = model.embed(modality, batch), model({modality: batch})[modality]
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(scaled, unit * min(model.logit_scale(modality), 100))


def test_tokens_after_the_end_of_a_phrase_do_not_change_its_vector(model: ImageBind) -> None:
    ids = random_batch("text")
    changed = ids.clone()
    changed[:, 10:] = 5
    assert torch.allclose(model.embed("text", ids), model.embed("text", changed), atol=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_gives_nearly_the_same_vectors(model: ImageBind, modality: str, dtype: torch.dtype) -> None:
    low = ImageBind(**SIZES, modalities=[modality]).eval()
    low.load_checkpoint({k: v.to(dtype) if v.ndim else v for k, v in model.state_dict().items()})
    low_vectors, vectors = (each.embed(modality, random_batch(modality)) for each in (low, model))
    assert low_vectors.dtype == torch.float32
    assert (low_vectors * vectors).sum(-1).min() >= 0.999


def test_stochastic_depth_is_for_training_only() -> None:
    torch.manual_seed(0)
    model = ImageBind(**SIZES, modalities=["imu"], imu_drop_path=0.7)
    batch = random_batch("imu", 8)
    assert not torch.equal(model.train().embed("imu", batch), model.embed("imu", batch))
    assert torch.equal(model.eval().embed("imu", batch), model.embed("imu", batch))


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("modality", "shape"),
    [
        ("vision", (1, 1, 3, 3, 224, 224)),  # three frames: one would be dropped silently
        ("vision", (1, 1, 3, 4, 224, 224)),
        ("vision", (1, 3, 224, 280)),  # not square: patches would get wrong position embeddings
        ("vision", (1, 3, 225, 225)),  # the last pixels would be dropped
        ("vision", (1, 3, 2, 224, 224)),  # video without an axis of clips, read as crops of two channels
        ("vision", (3, 224, 224)),
        ("vision", (1, 0, 3, 224, 224)),
        ("vision", (1, 3, 0, 0)),
        ("audio", (1, 1, 128, 198)),
        ("audio", (1, 128, 204)),
        ("depth", (1, 3, 224, 224)),
        ("thermal", (1, 1, 280, 280)),
        ("imu", (1, 2000, 6)),
        ("imu", (1, 6, 400)),
        ("text", (1, 76)),
    ],
)
def test_the_error_for_an_input_of_a_wrong_shape_names_the_right_one(
    model: ImageBind, modality: str, shape: tuple[int, ...]
) -> None:
    batch = torch.zeros(shape, dtype=torch.int64 if modality == "text" else torch.float32)
    with pytest.raises(ValueError, match=rf"{modality} takes \(B, .*not \({shape[0]}, "):
        model({modality: batch})


def test_other_wrong_inputs_and_arguments_are_named_in_the_error(model: ImageBind) -> None:
    with pytest.raises(ValueError, match="token ids"):
        model({"text": torch.zeros(1, 77)})
    with pytest.raises(ValueError, match="from 0 to 49407"):
        model({"text": torch.full((1, 77), 49408)})
    with pytest.raises(ValueError, match="floats"):
        model({"imu": torch.zeros(1, 6, 2000, dtype=torch.int64)})
    with pytest.raises(ValueError, match="no encoder for 'radar'"):
        model({"radar": torch.zeros(1, 1)})
    with pytest.raises(ValueError, match="no modality"):
        ImageBind(modalities=["radar"])
    with pytest.raises(TypeError, match="imu_width"):
        ImageBind(imu_width=3)
    with pytest.raises(ValueError, match="is not a multiple of the 3 heads"):
        ImageBind(modalities=["imu"], imu_num_heads=3)


# ---------------------------------------------------------------------------------------------------------- phrases


def test_a_prompt_ensemble_is_the_mean_over_the_templates() -> None:
    vectors = {
        t.replace("{}", p): torch.nn.functional.normalize(torch.randn(4), dim=0) for t in CLIP_TEMPLATES for p in "ab"
    }
    got = embed_prompt_ensemble(lambda texts: torch.stack([vectors[t] for t in texts]), ["a", "b"])
    mean = sum(vectors[t.replace("{}", "b")] for t in CLIP_TEMPLATES)
    torch.testing.assert_close(got[1], mean / mean.norm())
    with pytest.raises(ValueError, match="template"):
        embed_prompt_ensemble(lambda texts: torch.zeros(1, 4), ["a"], ["no place"])


def test_phrases_are_embedded_once_per_space_and_the_least_recent_are_dropped() -> None:
    embedded: list[str] = []

    def embed(texts: Any) -> torch.Tensor:
        embedded.extend(texts)
        return torch.tensor([[float(len(t))] for t in texts])

    cache = TextEmbeddingCache(capacity=2)
    assert cache.embed("s", ["a", "bb", "a"], embed).tolist() == [[1.0], [2.0], [1.0]]
    assert cache.embed("s", ["bb", "a"], embed).tolist() == [[2.0], [1.0]]
    assert embedded == ["a", "bb"]
    cache.embed("other", ["a"], embed)
    cache.embed("s", ["bb"], embed)
    assert embedded == ["a", "bb", "a", "bb"]
