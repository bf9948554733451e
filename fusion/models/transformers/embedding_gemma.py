"""EmbeddingGemma 2: one language model that reads text, images, videos and sounds.

The encoders of images and sounds make soft tokens. The language model reads them in the place of embedded words,
between the tokens that begin and end an image or a sound. The vector is the mean of its projected states over all
tokens, with unit length: this is what the modules Pooling and Normalize of sentence-transformers do. The projection
(`embedding_projection`) is a layer of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.core.samples import AUDIO, TEXT, VISION
from sensebind.fusion.core.space import SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.transformers.cards import ModelCard
from sensebind.fusion.models.transformers.checkpoint import Checkpoint
from sensebind.fusion.models.transformers.family import (
    ModelFamily,
    RgbEncoder,
    SensorEncoder,
    TextEncoder,
    load_model,
    load_tokenizer,
    unit,
)
from sensebind.fusion.models.transformers.image import IMAGE_WINDOW, image_patches, rgb_frames
from sensebind.fusion.models.transformers.sound import SoundEncoder
from sensebind.fusion.preprocess.gemma_audio import LogMelRecipe, log_mel, read_log_mel_recipe
from sensebind.fusion.preprocess.image_recipe import ImageRecipe, read_recipe, resize_and_normalize

MODEL_CLASS = "EmbeddingGemma2Model"
SOUND_WINDOW = 5.0  # s: our choice, because no length is published
LONGEST_SOUND = 30.0  # s: longest sound of the published preprocessing
LOGIT_SCALE = 20.0  # our choice, because none is published: the usual factor of cosines of sentence embeddings


@dataclass(frozen=True, slots=True)
class FrameRecipe:
    """How an RGB image becomes patches.

    `recipe`: interpolation and normalization (its size is not used). `patch`: side of a patch in pixels. `pooling`:
    side of the square of patches that become one soft token. `max_tokens`: largest number of soft tokens.
    """

    recipe: ImageRecipe
    patch: int
    pooling: int
    max_tokens: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The size to which an image of (height, width) is resized. Raises `ValueError`."""
        return size_for_tokens(height, width, self.patch * self.pooling, self.max_tokens)

    def resize(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, h, w), normalized."""
        size = self.size(images.shape[1], images.shape[2])
        return resize_and_normalize(images.permute(0, 3, 1, 2), size, self.recipe)


class SequenceTemplate(nn.Module):
    """The embedded tokens around an image, a video or a sound that is alone, as the tokenizer puts them.

    The sequence is `start`, then for each frame `opening`, its soft tokens, `closing`, then `finish`: buffers (n, H).
    """

    start: Tensor
    opening: Tensor
    closing: Tensor
    finish: Tensor

    def __init__(self, tokenizer: Any, embed_tokens: nn.Module, names: tuple[str, str, str]) -> None:
        """`names`: of the tokenizer's tokens that open, stand for, and close the soft tokens. Raises `SpaceError`."""
        super().__init__()
        words = [str(getattr(tokenizer, name, None) or "") for name in names]
        if missing := [name for name, word in zip(names, words, strict=True) if not word]:
            raise SpaceError(f"the tokenizer has no {', '.join(missing)}: the checkpoint cannot take this modality")
        tokens = list(tokenizer("".join(words))["input_ids"])
        ids = tokenizer.convert_tokens_to_ids(words)
        places = [tokens.index(number) if tokens.count(number) == 1 else -1 for number in ids]
        if places[0] < 0 or places != list(range(places[0], places[0] + 3)):
            raise SpaceError(f"the tokenizer splits {' '.join(words)}: its special tokens are damaged")
        before, after = places[0], places[2] + 1
        parts = {"start": tokens[:before], "opening": ids[:1], "closing": ids[2:], "finish": tokens[after:]}
        for name, part in parts.items():
            self.register_buffer(name, embed_tokens(torch.tensor(part, dtype=torch.int64)).detach().clone())

    def forward(self, soft: Tensor) -> Tensor:
        """Soft tokens (B, F, n, H) of F frames → the embedded sequence (B, T, H)."""
        count, frames = soft.shape[:2]
        opening, closing = (part.expand(count, frames, -1, -1) for part in (self.opening, self.closing))
        middle = torch.cat([opening, soft.to(self.opening.dtype), closing], dim=2).flatten(1, 2)
        start, finish = (part.expand(count, -1, -1) for part in (self.start, self.finish))
        return torch.cat([start, middle, finish], dim=1)


class GemmaImageEncoder(RgbEncoder):
    """Images and videos. An image keeps its aspect ratio; all images of one shape have the same number of tokens.

    The parts of the vision tower are called one by one, because its own `forward` removes padding, for which the host
    waits for the device. Without padding the result is the same.
    """

    capturable = True

    def __init__(
        self,
        model: Any,
        template: SequenceTemplate,
        window: TrainedWindow,
        image: FrameRecipe,
        video: FrameRecipe,
        max_frames: int,
    ) -> None:
        super().__init__()
        self.tower, self.embedder, self.language_model = model.vision_tower, model.embed_vision, model.language_model
        self.template, self.window = template, window
        self.image, self.video, self.max_frames = image, video, max_frames

    def device_input(self, window: Window) -> Tensor:
        """One frame → uint8 (H, W, 3). Several frames → a video, uint8 (F, H, W, 3).

        Of more than `max_frames`, some are taken at even distances. Raises `ValueError` for frames of different sizes.
        """
        samples = window.samples
        if len(samples) > self.max_frames:
            samples = tuple(samples[i] for i in np.linspace(0, len(samples) - 1, self.max_frames, dtype=int))
        frames = rgb_frames(samples)
        return frames if len(frames) > 1 else frames[0]

    def prepare(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) → float32 (B, 3, h, w); uint8 (B, F, H, W, 3) → float32 (B, F, 3, h, w)."""
        if rows.ndim == 4:
            return self.image.resize(rows)
        return self.video.resize(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])

    def prepare_float(self, images: Tensor) -> Tensor:
        """See `RgbEncoder`."""
        return resize_and_normalize(images, self.image.size(images.shape[2], images.shape[3]), self.image.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 3, h, w) or (B, F, 3, h, w) → float32 unit vectors (B, D)."""
        frames = inputs if inputs.ndim == 5 else inputs[:, None]
        soft = self._soft_tokens(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return mean_vector(self.language_model, self.template(soft))

    def _soft_tokens(self, images: Tensor) -> Tensor:
        """float32 (B, 3, h, w) → soft tokens (B, n, H)."""
        side, count = self.image.patch, len(images)
        rows, columns = images.shape[2] // side, images.shape[3] // side
        patches = image_patches(images, side)
        y, x = torch.meshgrid(*(torch.arange(n, device=images.device) for n in (rows, columns)), indexing="ij")
        places = torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(count, -1, -1)
        padding = torch.zeros(count, rows * columns, dtype=torch.bool, device=images.device)
        embedded = self.tower.patch_embedder(patches, places, padding)
        states = self.tower.encoder(inputs_embeds=embedded, attention_mask=None, pixel_position_ids=places)
        pooled, _ = self.tower.pooler(
            hidden_states=states.last_hidden_state,
            pixel_position_ids=places,
            padding_positions=padding,
            output_length=rows * columns // self.image.pooling**2,
        )
        if self.tower.config.standardize:
            pooled = (pooled - self.tower.std_bias.float()) * self.tower.std_scale.float()
        return torch.as_tensor(self.embedder(inputs_embeds=pooled.to(embedded.dtype)))


class GemmaSoundEncoder(SoundEncoder):
    """Sounds: log-mel spectrogram → soft tokens, one for 40 ms. It takes at most 30 s."""

    def __init__(self, model: Any, template: SequenceTemplate, length: float, recipe: LogMelRecipe) -> None:
        super().__init__(length, recipe.rate, round(LONGEST_SOUND * recipe.rate))
        self.tower, self.embedder, self.language_model = model.audio_tower, model.embed_audio, model.language_model
        self.template, self.recipe = template, recipe

    def prepare(self, rows: Tensor) -> Tensor:
        """float32 or int16 (B, N) → float32 (B, frames, bands)."""
        return log_mel(rows, self.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, frames, bands) → float32 unit vectors (B, D).

        The published preprocessing pads sounds to multiples of 128 samples, and masks the frames with padding. `inputs`
        has none of these frames, so no mask is needed: a convolution pads with the zeros that masked frames contain.
        """
        soft = self.embedder(inputs_embeds=self.tower(input_features=inputs).last_hidden_state)
        return mean_vector(self.language_model, self.template(soft[:, None]))


class GemmaTextEncoder(TextEncoder):
    """Text. It owns the table of embedded words, which no other encoder needs."""

    def __init__(
        self, card: ModelCard, tokenizer: Any, max_tokens: int, embed_tokens: nn.Module, language_model: nn.Module
    ) -> None:
        super().__init__(card, tokenizer, max_tokens)
        self.embed_tokens, self.language_model = embed_tokens, language_model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """See `TextEncoder`."""
        return mean_vector(self.language_model, self.embed_tokens(input_ids), attention_mask)


class EmbeddingGemmaFamily(ModelFamily):
    """The language model, and the towers that are wanted."""

    def __init__(self, checkpoint: Checkpoint, model: Any) -> None:
        card, config = checkpoint.card, model.config.text_config
        tokenizer = load_tokenizer(checkpoint)
        embed_tokens = model.language_model.embed_tokens
        del model.language_model.embed_tokens  # copies of the image encoder shall not contain half a gigabyte of words
        self.text = GemmaTextEncoder(
            card, tokenizer, config.max_position_embeddings, embed_tokens, model.language_model
        )
        encoders: dict[str, SensorEncoder] = {}
        if model.vision_tower is not None:
            template = SequenceTemplate(tokenizer, embed_tokens, ("boi_token", "image_token", "eoi_token"))
            encoders[VISION] = _image_encoder(checkpoint, model, template)
        if model.audio_tower is not None:
            template = SequenceTemplate(tokenizer, embed_tokens, ("boa_token", "audio_token", "eoa_token"))
            encoders[AUDIO] = _sound_encoder(checkpoint, model, template)
        self.encoders = encoders
        self.dimension = int(config.embedding_dim)
        self.logit_scales: Mapping[str, float] = dict.fromkeys((TEXT, *encoders), LOGIT_SCALE)
        self.logit_biases: Mapping[str, float] = {}

    @classmethod
    def load(cls, checkpoint: Checkpoint, modalities: Sequence[str] | None, dtype: torch.dtype) -> EmbeddingGemmaFamily:
        """See `ModelFamily`. The towers of other modalities are not read."""
        towers = {VISION: "vision_config", AUDIO: "audio_config"}
        unused = {} if modalities is None else {name: None for m, name in towers.items() if m not in modalities}
        return cls(checkpoint, load_model(checkpoint, MODEL_CLASS, dtype, partial=bool(unused), **unused))


def mean_vector(language_model: nn.Module, embedded: Tensor, mask: Tensor | None = None) -> Tensor:
    """Embedded tokens (B, T, H), and 1 for those that are not padding (B, T) → float32 unit vectors (B, D)."""
    states = language_model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state.float()
    if mask is None:
        return unit(states.mean(1))
    weights = mask[..., None].float()
    return unit((states * weights).sum(1) / weights.sum(1))


@lru_cache(maxsize=64)
def size_for_tokens(height: int, width: int, side: int, max_tokens: int) -> tuple[int, int]:
    """The largest size in whole squares of `side` pixels, at most `max_tokens`, with about the image's aspect ratio.

    Both sides are rounded down, as the published preprocessing does. A very narrow image becomes one row or column of
    squares. Raises `ValueError` for an image without pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"an image of {height} × {width} pixels is empty")
    factor = math.sqrt(max_tokens * side**2 / (height * width))
    rows, columns = (math.floor(factor * length / side) for length in (height, width))
    if not rows:
        rows, columns = 1, min(width // height, max_tokens)
    elif not columns:
        rows, columns = min(height // width, max_tokens), 1
    return rows * side, columns * side


def _image_encoder(checkpoint: Checkpoint, model: Any, template: SequenceTemplate) -> GemmaImageEncoder:
    card, video = checkpoint.card.vision, checkpoint.processor_settings("video_processor")
    if video.get("add_timestamps", False):
        raise SpaceError(f"'{checkpoint.folder}': add_timestamps of the video processor is not supported")
    return GemmaImageEncoder(
        model,
        template,
        IMAGE_WINDOW,
        _frame_recipe(checkpoint, "image_processor", int(card["size"]["default"]), model.config.vision_config),
        _frame_recipe(
            checkpoint, "video_processor", int(card["video"]["soft_tokens_per_frame"]), model.config.vision_config
        ),
        int(video.get("max_frames") or card["video"]["max_frames"]),
    )


def _frame_recipe(checkpoint: Checkpoint, part: str, max_tokens: int, vision: Any) -> FrameRecipe:
    """The settings of `part` of the processor. Raises `SpaceError` if they do not fit the vision tower."""
    settings = checkpoint.processor_settings(part)
    known = {key: value for key, value in settings.items() if key not in ("size", "crop_size", "do_center_crop")}
    side = int(vision.patch_size)
    try:
        recipe = read_recipe({"do_normalize": False, **known, "size": side}, ImageRecipe((side, side)))
        patch = int(settings.get("patch_size") or side)
        pooling = int(settings.get("pooling_kernel_size") or vision.pooling_kernel_size)
        tokens = int(settings.get("max_soft_tokens") or max_tokens)
    except (RecipeError, TypeError, ValueError) as error:
        raise SpaceError(f"'{checkpoint.folder}': {part}: {error}") from error
    if (patch, pooling) != (side, vision.pooling_kernel_size) or tokens < 1:
        raise SpaceError(
            f"'{checkpoint.folder}': {part} has patches of {patch} pixels, pooled by {pooling}, and {tokens} soft "
            f"tokens; the model takes patches of {side} pixels, pooled by {vision.pooling_kernel_size}"
        )
    return FrameRecipe(recipe, patch, pooling, tokens)


def _sound_encoder(checkpoint: Checkpoint, model: Any, template: SequenceTemplate) -> GemmaSoundEncoder:
    card = checkpoint.card.audio
    try:
        recipe = read_log_mel_recipe(
            checkpoint.processor_settings("feature_extractor"), int(card.get("sampling_rate", 16_000))
        )
    except RecipeError as error:
        raise SpaceError(f"'{checkpoint.folder}': {error}") from error
    return GemmaSoundEncoder(model, template, float(card.get("window") or SOUND_WINDOW), recipe)
