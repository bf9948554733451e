"""Depth and thermal images through the image encoder of a hub that has no encoder for them."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest
import torch

from helpers.small_transformers import image_window
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import AUDIO, DEPTH, THERMAL, VISION, Frame
from sensebind.fusion.core.space import Hub, Space
from sensebind.fusion.models.image_rendering import RenderingHub, rendered_window, with_rendering
from sensebind.fusion.models.registry import load_space, load_without_spokes

DEPTHS = np.linspace(500, 4000, 40 * 60).reshape(40, 60).astype("<u2")


@pytest.fixture(scope="module")
def hub() -> Hub:
    found = load_without_spokes("starter", modalities=[VISION])
    assert isinstance(found, Hub)
    return found


def test_near_is_bright_and_warm_is_bright() -> None:
    depth = image_window(Frame(DEPTHS.view(np.uint8).ravel(), "16UC1", 40, 60, 120), DEPTH)
    heat = image_window(Frame(DEPTHS.astype(np.uint8).ravel(), "mono8", 40, 60, 60), THERMAL)
    near = rendered_window(depth).samples[0].data
    warm = rendered_window(heat).samples[0].data
    assert isinstance(near, Frame) and isinstance(warm, Frame) and near.encoding == warm.encoding == "rgb8"
    levels = near.data.reshape(40, 60, 3)
    assert levels[0].mean() > 250 and levels[-1].mean() < 5 and (levels[..., 0] == levels[..., 2]).all()
    assert np.array_equal(warm.data.reshape(40, 60, 3)[..., 1], DEPTHS.astype(np.uint8))


def test_only_hubs_without_own_encoders_render(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_rendering(hub, None) is hub  # it ships spokes
    monkeypatch.setattr(type(hub), "renders_images", True)
    assert with_rendering(hub, [VISION, AUDIO]) is hub
    rendering = with_rendering(hub, [DEPTH])
    assert isinstance(rendering, RenderingHub) and rendering.modalities == (*hub.modalities, DEPTH)
    assert rendering.encoder_id(VISION) == hub.encoder_id(VISION)
    assert rendering.encoder_id(DEPTH) == f"rendered-{hub.encoder_id(VISION)}"
    assert hub.competence(DEPTH, ["a dog"]).tolist() == [0.0]  # of the spoke that the hub ships
    assert rendering.competence(DEPTH, ["a dog"]).tolist() == [1.0]
    assert rendering.id == hub.id and rendering.logit_scales[DEPTH] == hub.logit_scales[VISION]
    assert load_space("starter", modalities=[DEPTH]).modalities.count(DEPTH) == 1


def test_a_rendered_image_has_the_vector_that_the_image_encoder_gives_it(hub: Hub) -> None:
    rendering = RenderingHub(hub, [DEPTH, THERMAL])
    window = image_window(Frame(DEPTHS.view(np.uint8).ravel(), "16UC1", 40, 60, 120), DEPTH)
    expected = hub.embed(VISION, hub.tensor(rendered_window(window))[None])
    tensor = rendering.tensor(window)[None]
    assert torch.allclose(rendering.embed(DEPTH, tensor), expected, atol=1e-5)
    assert torch.allclose(rendering.embed_async(DEPTH, tensor).fetch(), expected, atol=1e-5)
    assert rendering.object_names(DEPTH) == hub.object_names(VISION)
    prepare = pickle.loads(pickle.dumps(rendering.preparation(DEPTH)))  # as in another process
    assert torch.equal(prepare(window), tensor[0])


def test_an_image_that_cannot_be_decoded_is_an_error(hub: Hub) -> None:
    with pytest.raises(EncodingError):
        RenderingHub(hub, [DEPTH]).tensor(image_window(Frame(np.zeros(3, np.uint8), "16UC1", 40, 60, 120), DEPTH))


def test_every_member_of_a_hub_is_passed_on() -> None:
    """A member of the base class that is added later must not silently have its default here."""
    of_hub = {name for name, member in inspect.getmembers(Hub) if not name.startswith("_") and callable(member)} | {
        name for name, member in vars(Space).items() if isinstance(member, property)
    }
    own = set(vars(RenderingHub)) | {"register"}  # of ABC
    assert of_hub - own == set(), f"RenderingHub does not define {of_hub - own}"
