"""Binding a modality to a frozen hub: the loss, the held-out split, training with checkpoints, spokes in a space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers.toy_space import ToySpace
from sensebind.cli import main
from sensebind.evaluation.spaces.retrieval import recall_at_k
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import SECOND, Frame, Sample
from sensebind.fusion.core.space import Hub, SpaceError, encoder_ids
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models import registry
from sensebind.fusion.models.spokes import lora
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.spokes.bound_space import BoundSpace, bind_spokes
from sensebind.fusion.models.spokes.spoke import Spoke, SpokeSpec
from sensebind.training.data.augmentation import apply_crops, jitter_brightness, random_crops
from sensebind.training.data.pairs import AlignError, Pairs, concatenate_pairs, split
from sensebind.training.losses import gradient_cached_backward, info_nce
from sensebind.training.spoke_initialization import (
    SpokeInitialization,
    initial_spoke,
    reading_size,
    training_parameters,
)
from sensebind.training.spoke_training import TrainingOptions, held_out_recall, train_spoke

SIDE = 224


class ToyImages(nn.Module):
    """Images scaled to 8 × 8, then the projection of the toy space."""

    def __init__(self, projection: torch.Tensor) -> None:
        super().__init__()
        self.read = nn.Linear(*projection.shape, bias=True)
        with torch.no_grad():
            self.read.weight.copy_(projection.T)
            self.read.bias.zero_()

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(levels, 8).permute(0, 2, 3, 1).flatten(1)
        return torch.nn.functional.normalize(self.read(small - 0.5), dim=1)


class ToyHub(ToySpace, Hub):
    """A toy space that spokes can be bound to."""

    def image_encoder(self) -> nn.Module:
        return ToyImages(self._projections["vision"])


HUB = ToyHub(["vision"])


def spec(modality: str = "thermal", kind: str = "image", **more) -> SpokeSpec:
    return SpokeSpec(modality, kind, HUB.id, HUB.dimension, **{"method": "lora", "rank": 2, **more})


def scenes(count: int, seed: int = 0, inverted: bool = True) -> Pairs:
    """Pairs of a colour image (the hub's) and its grey image, inverted if `inverted` (the spoke's), in blocks of 8."""
    noise = np.random.default_rng(seed)
    coarse = torch.from_numpy(noise.random((count, 1, 6, 6), np.float32))
    grey = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    tint = torch.from_numpy(noise.uniform(0.8, 1, (count, 3, 1, 1)).astype(np.float32))
    colour = grey * tint
    rows = torch.arange(count)
    with torch.no_grad():
        targets = HUB.image_encoder()(colour)
    return Pairs(
        1 - grey if inverted else grey, targets, rows, rows // 8, torch.stack([rows * 10, rows * 10 + 10], 1),
        torch.zeros(count, dtype=torch.long), colour,
    )  # fmt: skip


# --- the loss


def test_info_nce_is_the_mean_cross_entropy_of_both_directions() -> None:
    a, b = (torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for _ in range(2))
    own = torch.arange(6)
    expected = sum(torch.nn.functional.cross_entropy(10 * x, own) for x in (a @ b.T, b @ a.T)) / 2
    assert torch.allclose(info_nce(a, b, 10.0, own), expected)


def test_pairs_of_the_same_group_are_not_negatives_of_each_other() -> None:
    vectors = torch.eye(4)[[0, 0, 1]]
    apart, together = (info_nce(vectors, vectors, 20.0, torch.tensor(g)) for g in ([0, 1, 2], [0, 0, 2]))
    assert together < 1e-6 < 0.3 < apart


def test_the_bank_adds_negatives_of_other_groups_only() -> None:
    vectors, groups = torch.eye(4)[:2], torch.tensor([0, 1])
    alone = info_nce(vectors, vectors, 5.0, groups)
    same = info_nce(vectors, vectors, 5.0, groups, vectors[:1], groups[:1])
    other = info_nce(vectors, vectors, 5.0, groups, vectors[:1], torch.tensor([7]))
    assert torch.isclose(same, info_nce(vectors, vectors, 5.0, groups, vectors[:1], groups[:1]))
    assert alone < same < other


@given(chunk=st.integers(1, 12))
def test_gradient_caching_gives_the_gradients_of_the_whole_batch(chunk: int) -> None:
    torch.manual_seed(0)
    inputs, hub, groups = torch.randn(10, 5), torch.nn.functional.normalize(torch.randn(10, 3), dim=1), torch.arange(10)
    found = []
    for size in (chunk, 100):
        torch.manual_seed(1)
        layer = nn.Linear(5, 3)
        value = gradient_cached_backward(
            lambda x, layer=layer: torch.nn.functional.normalize(layer(x), dim=1), inputs,
            lambda v: info_nce(v, hub, 10.0, groups), size,
        )  # fmt: skip
        found.append((value, layer.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_recall_counts_ties_as_misses_and_any_member_of_the_group_as_a_hit() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.1, 0.9, 0.8], [0.7, 0.2, 0.1]])
    assert recall_at_k(scores, torch.arange(3)) == [pytest.approx(1 / 3)]
    assert recall_at_k(scores, torch.tensor([0, 1, 0])) == [pytest.approx(2 / 3)]
    assert recall_at_k(scores, torch.arange(3), (1, 2, 3)) == [pytest.approx(x) for x in (1 / 3, 2 / 3, 1)]


# --- the held-out split


@given(count=st.integers(3, 60), length=st.integers(1, 40), share=st.floats(0.05, 0.9), seed=st.integers(0, 5))
def test_no_training_pair_overlaps_a_held_out_pair_in_time(count: int, length: int, share: float, seed: int) -> None:
    ticks = torch.arange(count) * 5
    pairs = Pairs(
        torch.zeros(count, 1), torch.zeros(count, 2), torch.arange(count), torch.arange(count) // 3,
        torch.stack([ticks - length, ticks], 1), torch.zeros(count, dtype=torch.long), torch.empty(0),
    )  # fmt: skip
    try:
        training, held = split(pairs, share, seed)
    except AlignError:
        return  # no training pair is left, or there is one block only: tested below
    assert len(training) and len(held)
    for first, last in training.spans.tolist():
        assert all(last <= a or first >= b for a, b in held.spans.tolist())
    assert not set(training.blocks.tolist()) & set(held.blocks.tolist())


def test_pairs_of_a_single_block_are_an_error() -> None:
    pairs = scenes(8)
    with pytest.raises(AlignError, match="--block"):
        split(pairs)


def test_concatenated_recordings_have_blocks_and_times_of_their_own() -> None:
    pairs = concatenate_pairs([scenes(16), scenes(16, seed=1)])
    assert len(pairs) == 32 and len(pairs.class_ids.unique()) == 32 and len(pairs.blocks.unique()) == 4
    training, held = split(pairs, 0.25)
    assert len(training) == 24 and len(held) == 8  # equal times of two recordings do not overlap


# --- augmentation


def test_both_images_of_a_pair_are_cropped_in_the_same_way() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = random_crops(4, generator)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    images = torch.stack([x, y]).expand(4, 2, 32, 32)
    together = apply_crops(images, maps)
    apart = torch.cat([apply_crops(images[:, :1], maps), apply_crops(images[:, 1:], maps)], dim=1)
    assert torch.equal(together, apart)
    assert not torch.equal(together[0], images[0])
    assert (apply_crops(images, torch.eye(2, 3).expand(4, 2, 3)) - images).abs().max() < 1e-5


def test_brightness_jitter_stays_in_range_and_can_invert() -> None:
    levels = torch.rand(8, 1, 16, 16)
    changed = jitter_brightness(levels, torch.Generator().manual_seed(0), inverted_fraction=1.0)
    assert changed.min() >= 0 and changed.max() <= 1
    corr = torch.corrcoef(torch.stack([levels[0].flatten(), changed[0].flatten()]))[0, 1]
    assert corr < -0.8


# --- training


def settings(**more) -> TrainingOptions:
    return TrainingOptions(
        **{"epochs": 6, "batch": 16, "chunk": 8, "learning_rate": 0.02, "views": 1, "bank": 16, **more}
    )


@pytest.mark.parametrize("method", ["head", "lora", "whole"])
def test_a_spoke_learns_to_match_inverted_images_to_the_hubs_vectors(method: str) -> None:
    training, held = split(scenes(96), 0.2)
    spoke = Spoke(spec(method=method), HUB)
    before = held_out_recall(spoke, held)
    best = train_spoke(spoke, HUB, training, held, settings(epochs=12))
    assert best.recall > before + 0.2 and best.recall == pytest.approx(held_out_recall(spoke, held))
    assert best.chance < 0.1


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    training, held = split(scenes(48), 0.3)
    whole, parts = (Spoke(spec(), HUB) for _ in range(2))
    parts.encoder.load_state_dict(whole.encoder.state_dict())
    again = Spoke(spec(), HUB)
    again.encoder.load_state_dict(whole.encoder.state_dict())
    train_spoke(whole, HUB, training, held, settings())
    train_spoke(parts, HUB, training, held, settings(), checkpoint=tmp_path / "c.pt", stop_after=3)
    train_spoke(again, HUB, training, held, settings(), checkpoint=tmp_path / "c.pt")
    for name, value in whole.saved_state().items():
        assert torch.allclose(again.saved_state()[name], value, atol=1e-6), name


def test_a_checkpoint_with_other_settings_is_an_error(tmp_path: Path) -> None:
    training, held = split(scenes(48), 0.3)
    train_spoke(Spoke(spec(), HUB), HUB, training, held, settings(epochs=1), checkpoint=tmp_path / "c.pt")
    with pytest.raises(AlignError, match="other settings"):
        train_spoke(Spoke(spec(), HUB), HUB, training, held, settings(epochs=2), checkpoint=tmp_path / "c.pt")


def test_training_ends_early_and_keeps_the_best_epoch() -> None:
    # The spoke already matches the hub: nothing to learn.
    training, held = split(scenes(48, inverted=False), 0.3)
    spoke, epochs = Spoke(spec(), HUB), []
    best = train_spoke(spoke, HUB, training, held, settings(epochs=40, patience=2), on_epoch=epochs.append)
    assert len(epochs) < 40
    assert held_out_recall(spoke, held) == pytest.approx(best.recall)
    assert best.recall == pytest.approx(max([best.recall, *(e.recall for e in epochs)]))


# --- spokes in files and spaces


def test_lora_changes_nothing_before_training_and_adds_no_parameters_after_merging() -> None:
    module, images = HUB.image_encoder(), torch.rand(2, 3, SIDE, SIDE)
    before = module(images)
    lora.add_lora(module, 2)
    assert torch.allclose(module(images), before, atol=1e-6)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    changed = module(images)
    lora.merge_lora(module)
    assert torch.allclose(module(images), changed, atol=1e-5)
    assert {name for name, _ in module.named_parameters()} == {"read.weight", "read.bias"}


@pytest.mark.parametrize(
    "made",
    [spec(), spec(method="whole"), spec("smell", "series", method="whole", rate=5.0, channels=3, length=4.0, frames=0)],
    ids=["lora", "whole", "series"],
)
def test_a_spoke_read_from_its_file_returns_the_same_vectors(tmp_path: Path, made: SpokeSpec) -> None:
    spoke = Spoke(made, HUB)
    with torch.no_grad():
        for parameter in spoke.encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    spokes.save(spoke, tmp_path / "s.safetensors")
    again = spokes.load(tmp_path / "s.safetensors", HUB)
    inputs = torch.rand(2, 3, 20) if made.kind == "series" else torch.rand(2, 1, SIDE, SIDE)
    assert again.spec == spoke.spec
    assert (again.embed(inputs) * spoke.embed(inputs)).sum(1).min() > 0.999  # half precision in the file


def test_a_spoke_of_another_hub_and_an_invalid_file_are_errors(tmp_path: Path) -> None:
    spokes.save(Spoke(replace(spec(), hub="other@1"), HUB), tmp_path / "s.safetensors")
    with pytest.raises(SpaceError, match="the hub other@1"):
        spokes.load(tmp_path / "s.safetensors", HUB)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    for name in ("x.safetensors", "absent.safetensors"):
        with pytest.raises(SpaceError, match=name):
            spokes.load(tmp_path / name, HUB)


def test_a_hub_with_a_spoke_is_a_space_with_another_id(tmp_path: Path) -> None:
    spokes.save(Spoke(spec(), HUB), tmp_path / "thermal.safetensors")
    space = bind_spokes(HUB, [tmp_path / "thermal.safetensors"])
    assert isinstance(space, BoundSpace)
    assert set(space.modalities) == {"text", "vision", "thermal"} and space.id != HUB.id
    assert space.trained_windows["thermal"].frames == 1 and space.logit_scales["thermal"] > 0
    grey = np.full((12, 16), 90, np.uint8)
    frame = Frame(grey.ravel(), "mono8", 12, 16, 16)
    window = Window("thermal", SECOND, 2 * SECOND, 1.0, (Sample("thermal", SECOND, frame),))
    vector = space.embed("thermal", space.tensor(window)[None])
    assert vector.shape == (1, 16) and float(vector.norm()) == pytest.approx(1, abs=1e-5)
    assert encoder_ids(space) == {
        "text": HUB.encoder_id("text"),
        "vision": HUB.encoder_id("vision"),
        "thermal": space.encoder_id("thermal"),
    }
    spokes.save(Spoke(replace(spec(), about={"data": "other"}), HUB), tmp_path / "other.safetensors")
    other = bind_spokes(HUB, [tmp_path / "other.safetensors"]).encoder_id("thermal")
    assert len({other, space.encoder_id("thermal"), HUB.id, space.id}) == 4
    assert bind_spokes(HUB, []) is HUB
    only = bind_spokes(HUB, [tmp_path / "thermal.safetensors"], ["vision"])
    assert "thermal" not in only.modalities and only.id == space.id


def test_a_spoke_for_a_space_without_image_encoder_is_an_error(tmp_path: Path) -> None:
    spokes.save(Spoke(spec(), HUB), tmp_path / "thermal.safetensors")
    with pytest.raises(SpaceError, match="spokes"):
        bind_spokes(ToySpace(), [tmp_path / "thermal.safetensors"])


# --- the initial spoke


def test_a_new_initial_spoke_fits_the_modality() -> None:
    values = training_parameters(None, "thermal")
    assert set(values["modalities"]) == {"vision", "thermal"}
    image = initial_spoke(HUB, "thermal", values, SpokeInitialization(rank=2)).spec
    assert (image.kind, image.method, image.length, image.rank) == ("image", "lora", 0.25, 2)
    hub = ToyHub(["vision", "imu"])
    series = initial_spoke(hub, "imu", training_parameters(None, "imu"), SpokeInitialization()).spec
    assert (series.kind, series.method, series.length, series.channels) == ("series", "whole", 2.0, 6)
    with pytest.raises(SpaceError, match="--method lora is for images"):
        initial_spoke(hub, "imu", training_parameters(None, "imu"), SpokeInitialization(method="lora"))
    with pytest.raises(SensebindError, match="give recordings for 'smell'"):
        reading_size([], "smell", {})


def test_an_initial_spoke_from_a_file_must_have_the_same_modality_and_window(tmp_path: Path) -> None:
    first = Spoke(spec("imu", "series", method="whole", length=2.0, rate=50.0, channels=6), HUB)
    spokes.save(first, tmp_path / "imu.safetensors")
    start, values = SpokeInitialization(tmp_path / "imu.safetensors"), dict(training_parameters(None, "imu"))
    again = initial_spoke(HUB, "imu", values, start)
    assert again.spec == first.spec
    for name, tensor in again.saved_state().items():
        torch.testing.assert_close(tensor, first.saved_state()[name], atol=1e-3, rtol=1e-2)
    with pytest.raises(SpaceError, match="is for modality imu and"):
        initial_spoke(HUB, "thermal", training_parameters(None, "thermal"), start)
    with pytest.raises(AlignError, match=r"imu\.window is 3 s, the spoke's is 2 s"):
        initial_spoke(HUB, "imu", {**values, "imu.window": 3.0}, start)


def test_align_needs_a_hub_and_pairs_or_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = tmp_path / "pairs", tmp_path / "s.safetensors"
    pairs.mkdir()
    arguments = ["align", "--pairs", str(pairs), "--modality", "thermal", "-o", str(out)]
    monkeypatch.setattr(registry, "load_without_spokes", lambda name, weights: ToySpace())
    assert main(arguments) == 2 and "has no image encoder" in capsys.readouterr().err
    monkeypatch.setattr(registry, "load_without_spokes", lambda name, weights: HUB)
    assert main(arguments) == 2 and "must hold folders 'thermal'" in capsys.readouterr().err
    assert main([*arguments, "recording"]) == 2 and "and not both" in capsys.readouterr().err


# --- other hubs


def test_imagebind_is_a_hub(tmp_path: Path) -> None:
    from helpers.small_imagebind import SIZES
    from sensebind.fusion.models.imagebind.network import ImageBind
    from sensebind.fusion.models.imagebind.space import ImageBindSpace

    torch.save(ImageBind(**SIZES).state_dict(), tmp_path / "small.pth")
    hub = ImageBindSpace.load(
        modalities=["vision", "text"], weights=str(tmp_path / "small.pth"), dtype="float32", **SIZES
    )
    images = torch.rand(2, 3, SIDE, SIDE)
    trained = hub.image_encoder()(images)
    assert trained.shape == (2, hub.dimension) and torch.allclose(trained.norm(dim=1), torch.ones(2), atol=1e-5)
    spoke = Spoke(SpokeSpec("thermal", "image", hub.id, hub.dimension, method="lora", rank=2), hub)
    assert torch.allclose(spoke.embed(images), trained, atol=1e-4)  # an untrained spoke returns the hub's vectors


def test_an_open_clip_model_with_a_weight_file_is_a_hub(tmp_path: Path) -> None:
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip cannot be imported here: {error}")
    from sensebind.fusion.models import registry

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    torch.save(model.state_dict(), tmp_path / "random.pt")
    hub = registry.load_without_spokes("open_clip:ViT-B-32", weights=str(tmp_path / "random.pt"))
    levels = torch.rand(2, 3, SIDE, SIDE)
    assert torch.allclose(hub.embed("vision", levels), hub.image_encoder()(levels), atol=1e-4)
    assert hub.embed_text(["a dog", "a cat"]).shape == (2, hub.dimension)
    spoke = Spoke(SpokeSpec("thermal", "image", hub.id, hub.dimension, method="lora", rank=2), hub)
    spokes.save(spoke, tmp_path / "thermal.safetensors")
    assert "thermal" in bind_spokes(hub, [tmp_path / "thermal.safetensors"]).modalities


def test_the_error_for_an_unknown_open_clip_model_names_open_clip() -> None:
    from sensebind.fusion.models import registry

    with pytest.raises(SpaceError, match="open_clip"):
        registry.load_without_spokes("open_clip:nothing-like-it", weights="absent.pt")
