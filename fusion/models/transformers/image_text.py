"""CLIP, MetaCLIP 2, SigLIP and SigLIP 2: an image encoder and a text encoder, trained together on pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sensebind.fusion.core import encodings
from sensebind.fusion.core.samples import TEXT, VISION, Frame
from sensebind.fusion.core.space import SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.transformers.cards import ModelCard
from sensebind.fusion.models.transformers.checkpoint import Checkpoint
from sensebind.fusion.models.transformers.family import (
    ModelFamily,
    RgbEncoder,
    TextEncoder,
    load_model,
    load_tokenizer,
    unit,
)
from sensebind.fusion.preprocess.image_recipe import (
    ImageRecipe,
    RecipeError,
    apply_recipe,
    normalize,
    normalize_levels,
    read_recipe,
)
from sensebind.fusion.preprocess.pillow_resize import pillow_resize

IMAGE_WINDOW = TrainedWindow(0.5, frames=1)
MODEL_CLASSES = {
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
}


class ImageTower(RgbEncoder):
    """An image encoder with a fixed size: RGB images → `pooler_output` of the network → projection, if there is one."""

    window = IMAGE_WINDOW
    capturable = True

    def __init__(self, network: nn.Module, projection: nn.Module | None, recipe: ImageRecipe) -> None:
        super().__init__()
        self.network, self.projection, self.recipe = network, projection or nn.Identity(), recipe

    def device_input(self, window: Window) -> Tensor:
        """The newest frame → uint8 (H, W, 3)."""
        return newest_rgb(window)

    def prepare(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, *size)."""
        return apply_recipe(rows.permute(0, 3, 1, 2), self.recipe)

    def prepare_levels(self, images: Tensor) -> Tensor:
        """See `RgbEncoder`."""
        return normalize_images(images, self.recipe.size, self.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 3, *size) → float32 unit vectors (B, D)."""
        pooled = self.network(pixel_values=inputs.to(_dtype_of(self.network))).pooler_output
        return unit(self.projection(pooled))


class FlexibleImageTower(RgbEncoder):
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
        return newest_rgb(window)

    def prepare(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, h, w)."""
        size = size_for_patches(rows.shape[1], rows.shape[2], self.patch_size, self.max_patches)
        resized = pillow_resize(rows.permute(0, 3, 1, 2), size, self.recipe.interpolation)
        return normalize_levels(resized, self.recipe)

    def prepare_levels(self, images: Tensor) -> Tensor:
        """See `RgbEncoder`."""
        size = size_for_patches(images.shape[2], images.shape[3], self.patch_size, self.max_patches)
        return normalize_images(images, size, self.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 3, h, w) → float32 unit vectors (B, D)."""
        count, side = len(inputs), self.patch_size
        rows, columns = inputs.shape[2] // side, inputs.shape[3] // side
        patches = inputs.unflatten(3, (columns, side)).unflatten(2, (rows, side))  # (B, 3, rows, side, columns, side)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1)
        shapes = torch.tensor([[rows, columns]], device=inputs.device).expand(count, -1)
        mask = torch.ones(count, rows * columns, dtype=torch.int32, device=inputs.device)
        outputs = self.network(
            pixel_values=patches.to(_dtype_of(self.network)), pixel_attention_mask=mask, spatial_shapes=shapes
        )
        return unit(outputs.pooler_output)


class TextTower(TextEncoder):
    """A text encoder: tokens → `pooler_output` of the network → projection, if there is one."""

    def __init__(
        self, card: ModelCard, tokenizer: Any, max_tokens: int, network: nn.Module, projection: nn.Module | None
    ) -> None:
        super().__init__(card, tokenizer, max_tokens)
        self.network, self.projection = network, projection or nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `TextEncoder`."""
        outputs = self.network(input_ids=input_ids, attention_mask=attention_mask)
        return unit(self.projection(outputs.pooler_output))


class ImageTextModel(ModelFamily):
    """A model with an image encoder and a text encoder."""

    names: ClassVar[tuple[str, ...]] = tuple(MODEL_CLASSES)

    def __init__(self, checkpoint: Checkpoint, model: Any, with_vision: bool) -> None:
        card, config = checkpoint.card, model.config
        self.text = TextTower(
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
    def load(cls, checkpoint: Checkpoint, modalities: Sequence[str] | None, dtype: torch.dtype) -> ImageTextModel:
        """See `ModelFamily`."""
        class_name = MODEL_CLASSES[str(checkpoint.config["model_type"])]
        return cls(checkpoint, load_model(checkpoint, class_name, dtype), modalities is None or VISION in modalities)


def newest_rgb(window: Window) -> Tensor:
    """The newest frame of a window of images → RGB uint8 (H, W, 3). Raises `EncodingError`, `ValueError`."""
    frame = window.samples[-1].data
    if not isinstance(frame, Frame):
        raise ValueError(f"a window of {window.modality} holds frames, not {type(frame).__name__}")
    pixels = encodings.decode_rgb(frame)
    shared = pixels.flags.writeable and min(pixels.strides) >= 0  # else PyTorch cannot use the memory
    return torch.from_numpy(pixels if shared else np.array(pixels, order="C"))


def normalize_images(images: Tensor, size: tuple[int, int], recipe: ImageRecipe) -> Tensor:
    """RGB images float32 (B, 3, H, W) in 0..1 → float32 (B, 3, *size), resized without cropping and normalized."""
    if tuple(images.shape[-2:]) != size:
        images = interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
    return normalize(images, recipe)


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
    settings = checkpoint.processor_settings("image_processor")
    vision, facts = model.config.vision_config, checkpoint.card.vision
    flexible = str(checkpoint.config["model_type"]) == "siglip2"
    side = 224 if flexible else int(vision.image_size)
    crops = facts["size"]["crop"] == "center"
    defaults = ImageRecipe(
        size=(side, side),
        shortest_edge=side if crops else 0,
        interpolation=str(facts.get("interpolation", "bicubic")),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
    )
    try:
        if flexible:
            known = {key: value for key, value in settings.items() if key not in ("size", "do_center_crop")}
            return FlexibleImageTower(
                model.vision_model,
                read_recipe({**known, "size": side}, defaults),
                int(settings.get("patch_size") or vision.patch_size),
                int(settings.get("max_num_patches") or vision.num_patches),
            )
        recipe = read_recipe(settings, defaults)
    except RecipeError as error:
        raise SpaceError(f"'{checkpoint.folder}': {error}") from error
    if recipe.size != (side, side):
        raise SpaceError(
            f"'{checkpoint.folder}': the image processor makes images of {recipe.size}, but the model takes {side} × "
            f"{side}"
        )
    projection = model.visual_projection if hasattr(model, "visual_projection") else None
    return ImageTower(model.vision_model, projection, recipe)


def _dtype_of(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
