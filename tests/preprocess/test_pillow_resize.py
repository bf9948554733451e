"""Resizing with the results of Pillow, and the preprocessing that checkpoints describe."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.preprocess.image_recipe import ImageRecipe, apply_recipe, read_recipe
from sensebind.fusion.preprocess.pillow_resize import TapCache, pillow_resize

SIDES = st.integers(1, 90)
RECIPE = ImageRecipe((64, 64))


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(SIDES, SIDES), size=st.tuples(SIDES, SIDES), mode=st.sampled_from(("bicubic", "bilinear")))
def test_every_pixel_equals_pillow_s(shape: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    if int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13.0 has another order of the two passes")
    pixels = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], filters[mode]))
    got = pillow_resize(torch.from_numpy(pixels).permute(2, 0, 1)[None], size, mode)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(got, expected)


def test_wrong_images_and_modes_are_refused() -> None:
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    for wrong, size, mode in (
        (images.float(), (2, 2), "bicubic"),
        (images, (0, 2), "bicubic"),
        (images, (2, 2), "box"),
    ):
        with pytest.raises(ValueError, match="expected uint8|mode 'box'"):
            pillow_resize(wrong, size, mode)


def test_a_centre_of_an_odd_image_is_cut_off_below_and_right() -> None:
    recipe = ImageRecipe((2, 2), shortest_edge=2, scale=1.0)
    image = torch.arange(2 * 5, dtype=torch.uint8).view(1, 1, 2, 5).expand(1, 3, 2, 5)
    assert apply_recipe(image, recipe)[0, 0].tolist() == [[1, 2], [6, 7]]


def test_a_narrow_image_is_refused() -> None:
    with pytest.raises(ValueError, match="too narrow"):
        apply_recipe(torch.zeros(1, 3, 1, 400, dtype=torch.uint8), ImageRecipe((8, 8), shortest_edge=8))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, RECIPE),
        ({"size": 32}, ImageRecipe((32, 32))),
        ({"size": {"height": 8, "width": 9}, "resample": 2}, ImageRecipe((8, 9), interpolation="bilinear")),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, ImageRecipe((32, 32), 40)),
        (
            {"image_mean": 0.5, "image_std": [0.1, 0.2, 0.3]},
            ImageRecipe((64, 64), mean=(0.5,) * 3, std=(0.1, 0.2, 0.3)),
        ),
        ({"do_normalize": False, "image_mean": 0.5, "do_rescale": False}, ImageRecipe((64, 64), scale=1.0)),
    ],
)
def test_settings_of_a_checkpoint_become_a_recipe(settings: dict[str, object], expected: ImageRecipe) -> None:
    assert read_recipe(settings, RECIPE) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"do_resize": False},
        {"size": {"longest_edge": 3}},
        {"size": {"shortest_edge": 40}, "do_center_crop": False},
        {"resample": 1},
        {"image_mean": [0.5]},
    ],
)
def test_settings_that_cannot_be_followed_are_named(settings: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="|".join(settings)):
        read_recipe(settings, RECIPE)


def test_images_of_any_number_of_sizes_use_a_limited_memory_for_coefficients() -> None:
    cache = TapCache(limit=2**20)
    for length in (*range(3000, 3100), 100_000):  # the last one alone is above the limit
        places, coefficients = cache.taps(length, 224, "bicubic")
        assert len(places) == len(coefficients) > 3 * length // 224
        assert cache.bytes <= 2**20
    cache.taps(3000, 224, "bicubic")
    assert 0 < cache.bytes <= 2**20
    assert cache.taps(3000, 224, "bicubic")[0] is cache.taps(3000, 224, "bicubic")[0]
