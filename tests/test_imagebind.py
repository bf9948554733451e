"""ImageBind: the published model's numbers at every stage, its names and shapes, and errors where it has traps."""

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
    """A small one with random weights that make attention far from uniform."""
    torch.manual_seed(1)
    made = ImageBind(**SIZES).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False)


def one(modality: str, count: int = 2) -> torch.Tensor:
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
def test_every_stage_gives_the_published_models_numbers(
    modality: str, golden: str, reference: Path, fill: ModuleType, names: dict[str, Any]
) -> None:
    seed = "h" if golden.endswith("hot") else "a"
    mine = {k: v for k, v in names["tiny"].items() if k.split(".")[1] == modality}
    tiny = ImageBind(**fill.TINY, modalities=[modality]).eval()
    state = fill.fill_state(mine, seed, hot=seed == "h")
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


def test_a_checkpoint_of_all_modalities_fills_a_model_of_one(model: ImageBind) -> None:
    with torch.device("meta"):
        imu = ImageBind(**SIZES, modalities=["imu"])
    imu.load_checkpoint(model.state_dict())
    assert torch.equal(imu.embed("imu", one("imu")), model.embed("imu", one("imu")))


# ------------------------------------------------------------------------------------------------- clips, crops, sizes


@pytest.mark.parametrize("modality", ["vision", "audio", "depth", "thermal", "imu"])
def test_clips_are_embedded_one_by_one_and_averaged(model: ImageBind, modality: str) -> None:
    clips = one(modality, 6).unflatten(0, (2, 3))
    each = model({modality: clips.flatten(0, 1)})[modality]
    torch.testing.assert_close(model({modality: clips})[modality], each.unflatten(0, (2, 3)).mean(1))


def test_an_image_is_a_video_in_which_nothing_moves(model: ImageBind) -> None:
    image = one("vision")
    still = model({"vision": image})["vision"]
    for frames in (1, 2):
        video = image[:, None, :, None].expand(-1, 1, -1, frames, -1, -1)
        assert torch.equal(model({"vision": video})["vision"], still)
    moving = torch.stack([image, image.flip(-1)], dim=2)[:, None]
    assert not torch.allclose(model({"vision": moving})["vision"], still, atol=1e-3)


def cubic(theirs: int, ours: int) -> np.ndarray:
    """(ours, theirs): Keys' cubic convolution with a = −0.75 and repeated rims, pixel centres at halves."""
    places = (np.arange(ours) + 0.5) * theirs / ours - 0.5
    matrix = np.zeros((ours, theirs))
    for row, place in zip(matrix, places, strict=True):
        for i in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - i)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            row[min(max(i, 0), theirs - 1)] += near if d <= 1 else far if d < 2 else 0
    return matrix


@pytest.mark.parametrize("side", [196, 280, 448])
def test_places_are_interpolated_for_images_of_other_sizes(model: ImageBind, side: int) -> None:
    helper = model.modality_preprocessors["vision"].pos_embedding_helper
    tokens = side // 14
    places = helper(torch.zeros(1, 1 + tokens**2, 16))[0].numpy()
    learned = helper.pos_embed[0].numpy()
    matrix = cubic(16, tokens)
    expected = np.einsum("ia,jb,abc->ijc", matrix, matrix, learned[1:].reshape(16, 16, 16))
    assert np.array_equal(places[0], learned[0])
    np.testing.assert_allclose(places[1:], expected.reshape(-1, 16), atol=1e-5)
    assert model.embed("vision", torch.randn(1, 3, side, side)).shape == (1, 16)


@pytest.mark.parametrize("modality", MODALITIES)
def test_embed_gives_unit_vectors_and_forward_scales_them(model: ImageBind, modality: str) -> None:
    batch = one(modality)
    unit, scaled = model.embed(modality, batch), model({modality: batch})[modality]
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(scaled, unit * min(model.logit_scale(modality), 100))


def test_what_follows_the_end_of_a_phrase_does_not_matter(model: ImageBind) -> None:
    ids = one("text")
    changed = ids.clone()
    changed[:, 10:] = 5
    assert torch.allclose(model.embed("text", ids), model.embed("text", changed), atol=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_gives_nearly_the_same_vectors(model: ImageBind, modality: str, dtype: torch.dtype) -> None:
    low = ImageBind(**SIZES, modalities=[modality]).eval()
    low.load_checkpoint({k: v.to(dtype) if v.ndim else v for k, v in model.state_dict().items()})
    low_vectors, vectors = low.embed(modality, one(modality)), model.embed(modality, one(modality))
    assert low_vectors.dtype == torch.float32
    assert (low_vectors * vectors).sum(-1).min() >= 0.999


def test_stochastic_depth_is_for_training_only() -> None:
    torch.manual_seed(0)
    model = ImageBind(**SIZES, modalities=["imu"], imu_drop_path=0.7)
    batch = one("imu", 8)
    assert not torch.equal(model.train().embed("imu", batch), model.embed("imu", batch))
    assert torch.equal(model.eval().embed("imu", batch), model.embed("imu", batch))


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("modality", "shape"),
    [
        ("vision", (1, 1, 3, 3, 224, 224)),  # three frames: one would be dropped without a word
        ("vision", (1, 1, 3, 4, 224, 224)),
        ("vision", (1, 3, 224, 280)),  # not square: patches would get the places of others
        ("vision", (1, 3, 225, 225)),  # the last pixels would be dropped
        ("vision", (1, 3, 2, 224, 224)),  # video without its axis of clips reads as crops of two channels
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
def test_inputs_of_a_wrong_shape_are_refused_with_the_right_one(
    model: ImageBind, modality: str, shape: tuple[int, ...]
) -> None:
    batch = torch.zeros(shape, dtype=torch.int64 if modality == "text" else torch.float32)
    with pytest.raises(ValueError, match=rf"{modality} takes \(B, .*not \({shape[0]}, "):
        model({modality: batch})


def test_other_mistakes_are_named(model: ImageBind) -> None:
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
    with pytest.raises(ValueError, match="cannot be shared among 3 heads"):
        ImageBind(modalities=["imu"], imu_num_heads=3)


# ---------------------------------------------------------------------------------------------------------- phrases


def test_an_ensemble_is_the_mean_of_a_phrases_wordings() -> None:
    vectors = {
        t.replace("{}", p): torch.nn.functional.normalize(torch.randn(4), dim=0) for t in CLIP_TEMPLATES for p in "ab"
    }
    got = embed_prompt_ensemble(lambda texts: torch.stack([vectors[t] for t in texts]), ["a", "b"])
    mean = sum(vectors[t.replace("{}", "b")] for t in CLIP_TEMPLATES)
    torch.testing.assert_close(got[1], mean / mean.norm())
    with pytest.raises(ValueError, match="template"):
        embed_prompt_ensemble(lambda texts: torch.zeros(1, 4), ["a"], ["no place"])


def test_phrases_are_embedded_once_per_space_and_the_oldest_are_forgotten() -> None:
    asked: list[str] = []

    def embed(texts: Any) -> torch.Tensor:
        asked.extend(texts)
        return torch.tensor([[float(len(t))] for t in texts])

    cache = TextEmbeddingCache(capacity=2)
    assert cache.embed("s", ["a", "bb", "a"], embed).tolist() == [[1.0], [2.0], [1.0]]
    assert cache.embed("s", ["bb", "a"], embed).tolist() == [[2.0], [1.0]]
    assert asked == ["a", "bb"]
    cache.embed("other", ["a"], embed)
    cache.embed("s", ["bb"], embed)
    assert asked == ["a", "bb", "a", "bb"]
