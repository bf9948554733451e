"""CLIP, MetaCLIP 2, SigLIP and SigLIP 2: an image encoder and a text encoder, trained together on pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sensebind.fusion.core.samples import TEXT, VISION
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.transformers.checkpoint import Checkpoint
from sensebind.fusion.models.transformers.family import (
    ModelFamily,
    PooledTextEncoder,
    RgbEncoder,
    dtype_of,
    load_model,
    load_tokenizer,
    unit,
)
from sensebind.fusion.models.transformers.image import IMAGE_WINDOW, checkpoint_recipe, image_patches, rgb_frames
from sensebind.fusion.preprocess.image_recipe import ImageRecipe, apply_recipe, resize_and_normalize

MAX_PATCHES = 16_384  # of an image
MODEL_CLASSES = {
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
}


class FixedSizeImageEncoder(RgbEncoder):
    """An image encoder with a fixed size: RGB images → `pooler_output` of the network → projection, if there is one."""

    window = IMAGE_WINDOW
    capturable = True

    def __init__(self, network: nn.Module, projection: nn.Module | None, recipe: ImageRecipe) -> None:
        super().__init__()
        self.network, self.projection, self.recipe = network, projection or nn.Identity(), recipe

    def device_input(self, window: Window) -> Tensor:
        """The newest frame → uint8 (H, W, 3)."""
        return rgb_frames(window.samples[-1:])[0]

    def prepare(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, *size)."""
        return apply_recipe(rows.permute(0, 3, 1, 2), self.recipe)

    def prepare_float(self, images: Tensor) -> Tensor:
        """See `RgbEncoder`."""
        return resize_and_normalize(images, self.recipe.size, self.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 3, *size) → float32 unit vectors (B, D)."""
        pooled = self.network(pixel_values=inputs.to(dtype_of(self.network))).pooler_output
        return unit(self.projection(pooled))


class NaFlexImageEncoder(RgbEncoder):
    """SigLIP 2's NaFlex encoder: an image keeps its aspect ratio and becomes at most `max_patches` patches.

    Images of one shape have the same number of patches, so a batch needs no padding. The inputs are images
    (B, 3, h, w), where h and w are multiples of the patch size.
    """

    window = IMAGE_WINDOW

    def __init__(self, network: nn.Module, recipe: ImageRecipe, patch_size: int, max_patches: int) -> None:
        super().__init__()
        self.network, self.recipe, self.patch_size, self.max_patches = network, recipe, patch_size, max_patches

    def device_input(self, window: Window) -> Tensor:
        """The newest frame → uint8 (H, W, 3)."""
        return rgb_frames(window.samples[-1:])[0]

    def prepare(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, h, w)."""
        size = size_for_patches(rows.shape[1], rows.shape[2], self.patch_size, self.max_patches)
        return resize_and_normalize(rows.permute(0, 3, 1, 2), size, self.recipe)

    def prepare_float(self, images: Tensor) -> Tensor:
        """See `RgbEncoder`."""
        size = size_for_patches(images.shape[2], images.shape[3], self.patch_size, self.max_patches)
        return resize_and_normalize(images, size, self.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 3, h, w) → float32 unit vectors (B, D)."""
        count, side = len(inputs), self.patch_size
        rows, columns = inputs.shape[2] // side, inputs.shape[3] // side
        patches = image_patches(inputs, side)
        shapes = torch.tensor([[rows, columns]], device=inputs.device).expand(count, -1)
        mask = torch.ones(count, rows * columns, dtype=torch.int32, device=inputs.device)
        outputs = self.network(
            pixel_values=patches.to(dtype_of(self.network)), pixel_attention_mask=mask, spatial_shapes=shapes
        )
        return unit(outputs.pooler_output)


class ImageTextFamily(ModelFamily):
    """A model with an image encoder and a text encoder."""

    def __init__(self, checkpoint: Checkpoint, model: Any, with_vision: bool) -> None:
        card, config = checkpoint.card, model.config
        self.text = PooledTextEncoder(
            card,
            load_tokenizer(checkpoint),
            config.text_config.max_position_embeddings,
            model.text_model,
            model.text_projection if hasattr(model, "text_projection") else None,
        )
        self.encoders = {VISION: _image_encoder(checkpoint, model)} if with_vision else {}
        # CLIP projects both to projection_dim; the image encoder of SigLIP decides the dimension of its vectors.
        projected = hasattr(model, "visual_projection")
        self.dimension = config.projection_dim if projected else config.vision_config.hidden_size
        scale = float(model.logit_scale.detach().float().exp())
        bias = float(model.logit_bias.detach().float()) if hasattr(model, "logit_bias") else 0.0
        self.logit_scales: Mapping[str, float] = {TEXT: scale, VISION: scale}
        self.logit_biases: Mapping[str, float] = {VISION: bias} if bias else {}

    @classmethod
    def load(cls, checkpoint: Checkpoint, modalities: Sequence[str] | None, dtype: torch.dtype) -> ImageTextFamily:
        """See `ModelFamily`."""
        class_name = MODEL_CLASSES[str(checkpoint.config["model_type"])]
        return cls(checkpoint, load_model(checkpoint, class_name, dtype), modalities is None or VISION in modalities)


@lru_cache(maxsize=64)
def size_for_patches(height: int, width: int, patch_size: int, max_patches: int) -> tuple[int, int]:
    """The largest size in whole patches, at most `max_patches`, with about the aspect ratio of (height, width).

    Each side is `scale` times the image's, rounded up to whole patches. The scale is found by bisection to 1e-5, as
    the published preprocessing of SigLIP 2 does; an exact solution would differ from it by one patch for some shapes.
    """

    def patches(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, int(np.ceil(side * scale / patch_size))) for side in (height, width))
        return rows, columns

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        rows, columns = patches(middle)
        low, high = (middle, high) if rows * columns <= max_patches else (low, middle)
    rows, columns = patches(low)
    return rows * patch_size, columns * patch_size


def _image_encoder(checkpoint: Checkpoint, model: Any) -> RgbEncoder:
    """Raises `SpaceError` if the settings of the image processor do not fit the model."""
    vision = model.config.vision_config
    if checkpoint.config["model_type"] == "siglip2":
        return _naflex_encoder(checkpoint, model)
    side = int(vision.image_size)
    recipe = checkpoint_recipe(checkpoint, "image_processor", side)
    if recipe.size != (side, side):
        raise SpaceError(
            f"'{checkpoint.folder}': the image processor makes images of {recipe.size}, but the model takes {side} × "
            f"{side}"
        )
    projection = model.visual_projection if hasattr(model, "visual_projection") else None
    return FixedSizeImageEncoder(model.vision_model, projection, recipe)


def _naflex_encoder(checkpoint: Checkpoint, model: Any) -> NaFlexImageEncoder:
    """Raises `SpaceError` if the settings of the image processor do not fit the model."""
    card, vision = checkpoint.card.vision, model.config.vision_config
    settings = checkpoint.processor_settings("image_processor")
    try:
        patch = int(settings.get("patch_size") or vision.patch_size)
        patches = int(settings.get("max_num_patches") or card["naflex"]["max_num_patches"])
    except (TypeError, ValueError) as error:
        raise SpaceError(f"'{checkpoint.folder}': image_processor: {error}") from error
    if patch != vision.patch_size or not 1 <= patches <= MAX_PATCHES:
        raise SpaceError(
            f"'{checkpoint.folder}': the image processor makes at most {patches} patches of {patch} pixels; needed are "
            f"1 to {MAX_PATCHES} of {vision.patch_size}"
        )
    recipe = checkpoint_recipe(checkpoint, "image_processor", int(card["size"]["default"]))
    return NaFlexImageEncoder(model.vision_model, recipe, patch, patches)
