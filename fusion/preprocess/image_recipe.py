"""The preprocessing of an image model, as the files of its checkpoint describe it, on any device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.preprocess.pillow_resize import pillow_resize

MAX_SIDE = 4096  # pixels of the input of a model
PILLOW_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers of the filters, as checkpoints store them


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """How an RGB image becomes the input of a model.

    Attributes:
        size: height and width of the input in pixels.
        shortest_edge: the shorter side of the image is resized to this, and the centre of `size` is cut out. 0: the
            image is resized to `resized`, so its aspect ratio changes.
        resized: height and width before the centre of `size` is cut out; (0, 0): `size`, without cropping.
        interpolation: bicubic or bilinear. Resizing is antialiased.
        scale: factor of the levels 0..255 before the normalization.
        mean, std: of each channel: (level · scale − mean) / std.
    """

    size: tuple[int, int]
    shortest_edge: int = 0
    resized: tuple[int, int] = (0, 0)
    interpolation: str = "bicubic"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


def read_recipe(settings: Mapping[str, Any], defaults: ImageRecipe) -> ImageRecipe:
    """The recipe in the settings of an image processor of transformers (`preprocessor_config.json`).

    Missing settings have the values of `defaults`. Raises `RecipeError` for settings that cannot be followed.
    """
    try:
        return _read_recipe(settings, defaults)
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"the settings of images: {error}") from error


def _read_recipe(settings: Mapping[str, Any], defaults: ImageRecipe) -> ImageRecipe:
    resized = settings.get("do_resize", True)
    if not resized:
        raise RecipeError("do_resize is false: images of a camera must be resized to the size of the model")
    size, shortest_edge, resized = defaults.size, defaults.shortest_edge, (0, 0)
    if settings.get("size"):
        # A number alone is the shortest edge for a family that crops, else the side of a square.
        size, shortest_edge = _read_size(settings["size"], number_is_edge=defaults.shortest_edge > 0)
    crops = settings.get("do_center_crop")
    if crops if crops is not None else shortest_edge > 0:
        if settings.get("crop_size"):
            before = size
            size, _ = _read_size(settings["crop_size"])
            resized = before if not shortest_edge and before != size else (0, 0)
    elif shortest_edge:
        raise RecipeError("do_center_crop is false, but size only names the shortest_edge: images would differ in size")
    normalized = settings.get("do_normalize", True)
    rescaled = settings.get("do_rescale", True)
    return ImageRecipe(
        size=size,
        shortest_edge=shortest_edge,
        resized=resized,
        interpolation=_read_filter(settings.get("resample"), defaults.interpolation),
        scale=float(settings.get("rescale_factor") or defaults.scale) if rescaled else 1.0,
        mean=_triple(settings.get("image_mean"), defaults.mean) if normalized else (0.0, 0.0, 0.0),
        std=_triple(settings.get("image_std"), defaults.std, positive=True) if normalized else (1.0, 1.0, 1.0),
    )


def apply_recipe(images: Tensor, recipe: ImageRecipe) -> Tensor:
    """RGB images, uint8 (B, 3, H, W) on any device → float32 (B, 3, *size) on that device.

    Resized images are rounded to 8 bits, as by Pillow. Raises `ValueError` for other shapes and dtypes, and for images
    that are too narrow to be cropped.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"expected RGB images, uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    height, width = recipe.size
    if recipe.resized != (0, 0):
        return normalize_levels(
            _crop_centre(pillow_resize(images, recipe.resized, recipe.interpolation), height, width), recipe
        )
    if not recipe.shortest_edge:
        return resize_and_normalize(images, recipe.size, recipe)
    rows, columns = images.shape[-2:]
    short = min(rows, columns)
    if max(rows, columns) > 100 * short:
        raise ValueError(f"an image of {rows} × {columns} pixels is too narrow to be cropped")
    edge = recipe.shortest_edge
    resized = pillow_resize(images, (int(edge * rows / short), int(edge * columns / short)), recipe.interpolation)
    return normalize_levels(_crop_centre(resized, height, width), recipe)


def normalize_levels(levels: Tensor, recipe: ImageRecipe) -> Tensor:
    """Levels uint8 (B, 3, H, W) → float32 (B, 3, H, W): (level · scale − mean) / std, rounded as by transformers."""
    channel, table = _lookup_table(recipe, levels.device)
    return table[channel, levels.long()]


def normalize_float(images: Tensor, recipe: ImageRecipe) -> Tensor:
    """Images float32 (B, 3, H, W) in 0..1 → (image · 255 · scale − mean) / std."""
    scale, mean, std = _constants(recipe, images.device)
    return (images * (255 * scale) - mean) / std


def resize_and_normalize(images: Tensor, size: tuple[int, int], recipe: ImageRecipe) -> Tensor:
    """RGB images, uint8 (B, 3, H, W) or float32 in 0..1 → float32 (B, 3, *size), without cropping.

    uint8 is resized as by Pillow. Floats are resized by PyTorch, with gradients.
    """
    if images.dtype == torch.uint8:
        return normalize_levels(pillow_resize(images, size, recipe.interpolation), recipe)
    if tuple(images.shape[-2:]) != size:
        images = interpolate(images, size, mode=recipe.interpolation, antialias=True).clamp(0, 1)
    return normalize_float(images, recipe)


def _crop_centre(images: Tensor, height: int, width: int) -> Tensor:
    """The centre of `height` × `width` pixels. An odd pixel is cut off below and to the right. Smaller images are
    padded with zeros."""
    rows, columns = images.shape[-2:]
    if rows < height or columns < width:
        above, left = max(height - rows, 0) // 2, max(width - columns, 0) // 2
        below, right = max(height - rows, 0) - above, max(width - columns, 0) - left
        images = torch.nn.functional.pad(images, (left, right, above, below))
        rows, columns = images.shape[-2:]
    top, left = (rows - height) // 2, (columns - width) // 2
    return images[..., top : top + height, left : left + width]


@lru_cache(maxsize=32)
def _lookup_table(recipe: ImageRecipe, device: torch.device) -> tuple[Tensor, Tensor]:
    """Channel numbers int64 (3, 1, 1), and for each channel the results of all levels, float32 (3, 256)."""
    levels = (np.arange(256, dtype=np.float64) * recipe.scale).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None] for values in (recipe.mean, recipe.std))
    with torch.inference_mode(False):
        return torch.arange(3).view(3, 1, 1).to(device), torch.from_numpy((levels - mean) / std).to(device)


@lru_cache(maxsize=32)
def _constants(recipe: ImageRecipe, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Scale (), mean and std (3, 1, 1) on the device. Cached, because a new transfer makes the host wait."""
    with torch.inference_mode(False):  # else they could not be used with gradients
        scale = torch.tensor(recipe.scale, device=device)
        mean, std = (torch.tensor(values).view(3, 1, 1).to(device) for values in (recipe.mean, recipe.std))
        return scale, mean, std


def _read_size(size: Any, number_is_edge: bool = False) -> tuple[tuple[int, int], int]:
    """((height, width), shortest edge or 0) of a `size` or `crop_size`. Raises `RecipeError`."""
    if isinstance(size, int):
        size = {"shortest_edge": size} if number_is_edge else {"height": size, "width": size}
    found: tuple[tuple[int, int], int] | None = None
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        found = (int(size["height"]), int(size["width"])), 0
    elif isinstance(size, Mapping) and size.get("shortest_edge") and not size.get("longest_edge"):
        edge = int(size["shortest_edge"])
        found = (edge, edge), edge
    if found is None or not all(1 <= side <= MAX_SIDE for side in found[0]):
        raise RecipeError(
            f"size {size!r} of the image processor is not supported: height and width, or shortest_edge, 1 to "
            f"{MAX_SIDE} pixels"
        )
    return found


def _read_filter(number: Any, default: str) -> str:
    if number is None:
        return default
    if number in PILLOW_FILTERS.values():
        return str(number)
    if number not in PILLOW_FILTERS:
        raise RecipeError(f"resample {number!r} of the image processor is not supported: 2 (bilinear) or 3 (bicubic)")
    return PILLOW_FILTERS[number]


def _triple(values: Any, default: tuple[float, float, float], positive: bool = False) -> tuple[float, float, float]:
    if values is None:
        return default
    numbers = [float(values)] * 3 if isinstance(values, int | float) else [float(value) for value in values]
    if len(numbers) != 3 or not all(abs(number) < 1e6 and (number > 0 or not positive) for number in numbers):
        raise RecipeError(f"image_mean and image_std must have 3 finite numbers, image_std above 0, not {values!r}")
    return numbers[0], numbers[1], numbers[2]
