"""CLAP: an encoder of sound and an encoder of text, trained together on pairs.

Models with fusion were trained to join three random parts of a sound that is longer than the model's input with its
whole. A window is at most as long as the input, so there is nothing to join: the encoder gets one spectrogram, and its
fusion layers are not used. That equals the library's model with ``is_longer`` false. The library's feature extractor
sets ``is_longer`` for one random sound of each batch without a long sound. That is not done here, because the vector of
a sound must not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sensebind.fusion.core.errors import RecipeError
from sensebind.fusion.core.samples import AUDIO, TEXT
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.transformers.cards import ModelCard
from sensebind.fusion.models.transformers.checkpoint import Checkpoint
from sensebind.fusion.models.transformers.family import (
    ModelFamily,
    PooledTextEncoder,
    dtype_of,
    load_model,
    load_tokenizer,
    unit,
)
from sensebind.fusion.models.transformers.sound import SoundEncoder
from sensebind.fusion.preprocess.clap_audio import ClapRecipe, clap_log_mel, read_clap_recipe


class ClapSoundEncoder(SoundEncoder):
    """CLAP's encoder of sound: waveform → log-mel spectrogram → `pooler_output` of the network → projection.

    It takes at most 10 s; of a longer window, the newest 10 s are used. Its first layer normalizes the spectrogram. It
    computes in float32 in any precision, because bf16 would round the decibels to steps of up to 0.5 dB.
    """

    def __init__(self, card: ModelCard, model: Any, recipe: ClapRecipe) -> None:
        super().__init__(float(card.audio["window"]), recipe.rate, recipe.max_samples)
        self.network, self.projection, self.recipe = model.audio_model, model.audio_projection, recipe
        encoder = self.network.audio_encoder
        encoder.enable_fusion = encoder.patch_embed.enable_fusion = False  # see the text of the module
        self.normalization = encoder.batch_norm
        encoder.batch_norm = nn.Identity()

    def prepare(self, rows: Tensor) -> Tensor:
        """float32 (B, N) → float32 (B, 1, frames, bands), in dB."""
        return clap_log_mel(rows, self.recipe)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (B, 1, frames, bands) → float32 unit vectors (B, D)."""
        normalized = self.normalization(inputs.transpose(1, 3)).transpose(1, 3)
        outputs = self.network(input_features=normalized.to(dtype_of(self.projection)))
        return unit(self.projection(outputs.pooler_output))


class ClapFamily(ModelFamily):
    """A model with an encoder of sound and an encoder of text."""

    def __init__(self, checkpoint: Checkpoint, model: Any, with_audio: bool, dtype: torch.dtype) -> None:
        text = model.config.text_config
        longest = text.max_position_embeddings - text.pad_token_id - 1  # positions begin after the padding's number
        self.text = PooledTextEncoder(
            checkpoint.card, load_tokenizer(checkpoint), longest, model.text_model, model.text_projection
        )
        self.encoders = (
            {AUDIO: ClapSoundEncoder(checkpoint.card, model, _recipe(checkpoint, model))} if with_audio else {}
        )
        self.dimension = model.config.projection_dim
        scales = {AUDIO: model.logit_scale_a, TEXT: model.logit_scale_t}
        self.logit_scales: Mapping[str, float] = {m: float(s.detach().float().exp()) for m, s in scales.items()}
        self.logit_biases: Mapping[str, float] = {}
        model.to(dtype)  # not the normalization, which `ClapSoundEncoder` took out of `model`

    @classmethod
    def load(cls, checkpoint: Checkpoint, modalities: Sequence[str] | None, dtype: torch.dtype) -> ClapFamily:
        """See `ModelFamily`."""
        model = load_model(checkpoint, "ClapModel", torch.float32)
        return cls(checkpoint, model, modalities is None or AUDIO in modalities, dtype)


def _recipe(checkpoint: Checkpoint, model: Any) -> ClapRecipe:
    """The preprocessing of a checkpoint. Raises `SpaceError` if it does not fit the model."""
    config = model.config.audio_config
    try:
        recipe = read_clap_recipe(checkpoint.processor_settings("feature_extractor"), config.enable_fusion)
    except (RecipeError, ValueError, TypeError) as error:
        raise SpaceError(f"'{checkpoint.folder}': {error}") from error
    longest = config.spec_size * (config.spec_size // config.num_mel_bins)
    if recipe.bands != config.num_mel_bins or recipe.frames > longest:
        raise SpaceError(
            f"'{checkpoint.folder}': the feature extractor makes {recipe.frames} frames of {recipe.bands} bands, but "
            f"the model takes at most {longest} of {config.num_mel_bins}"
        )
    return recipe
