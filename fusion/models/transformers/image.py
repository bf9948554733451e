"""What encoders of images share: frames of a window, the recipe of a checkpoint, and images as patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sensebind.fusion.core import encodings
from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.core.samples import Frame, Sample
from sensebind.fusion.core.space import SpaceError, TrainedWindow
from sensebind.fusion.models.transformers.checkpoint import Checkpoint
from sensebind.fusion.preprocess.image_recipe import ImageRecipe, read_recipe

IMAGE_WINDOW = TrainedWindow(0.5, frames=1)


def rgb_frames(samples: Sequence[Sample]) -> Tensor:
    """F samples of one camera → RGB uint8 (F, H, W, 3).

    Raises `EncodingError` if one cannot be decoded, and `ValueError` if they differ in size or are no images.
    """
    frames = [_rgb(sample) for sample in samples]
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"the frames of a window of {samples[0].modality} differ in size")
    return torch.stack(frames)


def checkpoint_recipe(checkpoint: Checkpoint, part: str, side: int) -> ImageRecipe:
    """The recipe of `part` of the checkpoint's processor, `image_processor` or `video_processor`.

    Missing settings are those of the card, and `side` pixels. Raises `SpaceError` for settings that cannot be followed.
    """
    card = checkpoint.card.vision
    defaults = ImageRecipe(
        size=(side, side),
        shortest_edge=side if card["size"]["crop"] == "center" else 0,
        interpolation=str(card["interpolation"]),
        mean=tuple(card["mean"]),
        std=tuple(card["std"]),
    )
    try:
        return read_recipe(checkpoint.processor_settings(part), defaults)
    except RecipeError as error:
        raise SpaceError(f"'{checkpoint.folder}': {part}: {error}") from error


def image_patches(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, h, w) → patches (B, rows · columns, side² · 3), row by row, channels last."""
    rows, columns = images.shape[2] // side, images.shape[3] // side
    patches = images.unflatten(3, (columns, side)).unflatten(2, (rows, side))  # (B, 3, rows, side, columns, side)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)


def _rgb(sample: Sample) -> Tensor:
    if not isinstance(sample.data, Frame):
        raise ValueError(f"a window of {sample.modality} holds frames, not {type(sample.data).__name__}")
    pixels = encodings.decode_rgb(sample.data)
    shared = pixels.flags.writeable and min(pixels.strides) >= 0  # else PyTorch cannot use the memory
    return torch.from_numpy(pixels if shared else np.array(pixels, order="C"))
