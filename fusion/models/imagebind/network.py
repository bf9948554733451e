"""ImageBind (Girdhar et al., 2023, arXiv 2305.05665): six encoders, one space.

The encoders of all modalities have the same structure. A stem turns patches of the input into tokens. A transformer
processes the tokens. One output token (the class token, or the end token of a text) is projected to the joint space,
normalized to unit length and scaled. Only stems, sizes and scales differ. Parameters have the names of the published
checkpoint, so its state dict loads unchanged.

Written from the paper and from published facts (names, shapes, constants, outputs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, linear, normalize, scaled_dot_product_attention

from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, TEXT, THERMAL, VISION
from sensebind.fusion.models.imagebind import weights as files

MODALITIES = (VISION, TEXT, AUDIO, DEPTH, THERMAL, IMU)
SPACE_NAME = "imagebind_huge"
DIMENSION = 1024
VOCABULARY_SIZE, CONTEXT_LENGTH = 49408, 77
IMU_PATCH_SAMPLES = 8  # samples of all six channels in one token
MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes and constants of one modality's encoder, from section 4 and appendix B of the paper."""

    embed_dim: int
    num_blocks: int
    num_heads: int
    input_shape: tuple[int | str, ...]  # shape of one input; a name stands for any size
    initial_logit_scale: float = 1.0  # at the start of training; only that of text is learned, others are fixed
    drop_path: float = 0.0  # rate of stochastic depth at the last block; for training only


ENCODER_CONFIGS: Mapping[str, EncoderConfig] = {
    VISION: EncoderConfig(1280, 32, 16, (3, "side", "side")),
    TEXT: EncoderConfig(1024, 24, 16, (CONTEXT_LENGTH,), initial_logit_scale=1 / 0.07),
    AUDIO: EncoderConfig(768, 12, 12, (1, 128, 204), initial_logit_scale=20.0, drop_path=0.1),
    DEPTH: EncoderConfig(384, 12, 8, (1, 224, 224), initial_logit_scale=5.0),
    THERMAL: EncoderConfig(768, 12, 12, (1, 224, 224), initial_logit_scale=10.0),
    IMU: EncoderConfig(512, 6, 8, (6, 2000), initial_logit_scale=5.0, drop_path=0.7),
}


class ImageBind(nn.Module):
    """The model, at first in evaluation mode.

    `<modality>_embed_dim`, `_num_blocks`, `_num_heads`, `_drop_path` and `out_embed_dim` set its sizes. The defaults
    are those of `imagebind_huge`. `modalities`: encoders to build (None: all). Raises `TypeError` for an unknown
    argument and `ValueError` for an unknown modality.
    """

    def __init__(
        self, *, out_embed_dim: int = DIMENSION, modalities: Iterable[str] | None = None, **config_overrides: Any
    ) -> None:
        super().__init__()
        wanted = set(MODALITIES if modalities is None else modalities)
        if wanted - set(MODALITIES):
            raise ValueError(f"ImageBind has no modality {sorted(wanted - set(MODALITIES))}; it has {MODALITIES}")
        encoders = make_encoder_configs(config_overrides)
        self.modalities = tuple(m for m in MODALITIES if m in wanted)
        self.out_embed_dim = out_embed_dim
        self.modality_preprocessors = nn.ModuleDict({m: _stem(m, encoders[m]) for m in self.modalities})
        self.modality_trunks = nn.ModuleDict({m: _trunk(m, encoders[m]) for m in self.modalities})
        self.modality_heads = nn.ModuleDict({m: _head(m, encoders[m], out_embed_dim) for m in self.modalities})
        self.modality_postprocessors = nn.ModuleDict({m: _scale(m, encoders[m]) for m in self.modalities})
        self.eval()

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{modality: (B, *input)} → {modality: float32 (B, out_embed_dim)}, scaled by `logit_scale`.

        Inputs are float, those of text int64. `EncoderConfig.input_shape` is the shape of one input. Inputs may have an
        axis of clips or crops, (B, S, *input); the scaled vectors are averaged over it. Video is
        (B, S, 3, T, side, side) with T = 1 or 2 frames. Raises `ValueError` for other shapes.
        """
        return {
            m: self._average_clips(self._encode(m, flat), clips) for m, (flat, clips) in self._checked(inputs).items()
        }

    def embed(self, modality: str, batch: Tensor) -> Tensor:
        """As `forward` for one modality, but returns float32 (B, out_embed_dim) of unit length."""
        return normalize(self({modality: batch})[modality], dim=-1)

    def embed_unchecked(self, modality: str, batch: Tensor) -> Tensor:
        """As `embed`, but does not check the token ids of texts: the check would make the host wait for a GPU."""
        flat, clips = self._flatten_clips(modality, batch)
        return normalize(self._average_clips(self._encode(modality, flat), clips), dim=-1)

    def intermediate_outputs(self, modality: str, batch: Tensor) -> dict[str, Tensor]:
        """Outputs of all stages of an encoder, to compare implementations. N = B · clips.

        `tokens` (N, L, D): of the stem, with position embeddings. `block0`, `trunk` (N, L, D): of the first and the
        last block. `head` (N, out): projected. `post` (N, out): unit length, scaled. `out` (B, out): mean over clips.
        """
        flat, clips = self._checked({modality: batch})[modality]
        stem: Any = self.modality_preprocessors[modality]
        trunk: Any = self.modality_trunks[modality]
        tokens = stem(flat)
        block0 = trunk.blocks[0](trunk.pre_transformer_layer(tokens), stem.mask)
        last = trunk(tokens, stem.mask)
        head = self.modality_heads[modality](select_output_token(modality, last, flat))
        post = self.modality_postprocessors[modality](head)
        out = self._average_clips(post, clips)
        return {"tokens": tokens, "block0": block0, "trunk": last, "head": head, "post": post, "out": out}

    def logit_scale(self, modality: str) -> float:
        """The factor that scales the modality's unit vectors: 1 for vision, else learned or fixed, at most 100."""
        post: Any = self.modality_postprocessors[modality]
        return float(post[1].scale()) if len(post) > 1 else 1.0

    def load_checkpoint(self, checkpoint: str | Path | Mapping[str, Tensor]) -> None:
        """Load the weights of a file (`weights.read_tensors`) or a state dict. Ignores entries of encoders that were
        not built.

        The tensors become the parameters without a copy, in their dtype. Those of a file stay on disk until they are
        used. Raises `weights.WeightsError` that lists missing and unknown entries and those of another shape.
        """
        others = set(MODALITIES) - set(self.modalities)
        if isinstance(checkpoint, Mapping):
            state = {name: tensor for name, tensor in checkpoint.items() if modality_of_entry(name) not in others}
        else:
            state = files.read_tensors(checkpoint, lambda name: modality_of_entry(name) not in others)
        files.check_entries(state, {name: tensor.shape for name, tensor in self.state_dict().items()})
        self.load_state_dict(state, assign=True)
        self.requires_grad_(False)

    def _encode(self, modality: str, flat: Tensor) -> Tensor:
        stem = self.modality_preprocessors[modality]
        last = self.modality_trunks[modality](stem(flat), stem.mask)
        head = self.modality_heads[modality](select_output_token(modality, last, flat))
        return self.modality_postprocessors[modality](head)

    @staticmethod
    def _average_clips(vectors: Tensor, clips: int) -> Tensor:
        return vectors.unflatten(0, (-1, clips)).mean(1) if clips > 1 else vectors

    def _checked(self, inputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, int]]:
        """Per modality: the inputs with the axis of clips merged into the batch, and the number of clips."""
        for modality, batch in inputs.items():
            _check_ids(modality, batch)
        return {modality: self._flatten_clips(modality, batch) for modality, batch in inputs.items()}

    def _flatten_clips(self, modality: str, batch: Tensor) -> tuple[Tensor, int]:
        if modality not in self.modalities:
            raise ValueError(f"no encoder for '{modality}' was built; there are {', '.join(self.modalities)}")
        wanted = ENCODER_CONFIGS[modality].input_shape
        if modality == VISION and batch.ndim == 6:
            wanted = (3, "1 or 2", "side", "side")
        clips = batch.shape[1] if batch.ndim == 2 + len(wanted) else 1
        one = tuple(batch.shape[-len(wanted) :])
        if batch.ndim - len(wanted) not in (1, 2) or clips == 0 or not _shape_matches(one, wanted):
            shape = ", ".join(map(str, wanted))
            raise ValueError(f"{modality} takes (B, {shape}) or (B, clips, {shape}), not {tuple(batch.shape)}")
        if batch.is_floating_point() == (modality == TEXT):
            raise ValueError(f"{modality} takes {'token ids' if modality == TEXT else 'floats'}, not {batch.dtype}")
        return batch.reshape(-1, *one), clips


def _check_ids(modality: str, batch: Tensor) -> None:
    if modality != TEXT or batch.is_floating_point() or not batch.numel():
        return
    if not 0 <= int(batch.min()) <= int(batch.max()) < VOCABULARY_SIZE:
        raise ValueError(f"text takes token ids from 0 to {VOCABULARY_SIZE - 1}")


def _shape_matches(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Whether one input has the wanted shape. An image must be square, with a side that is a multiple of 14 pixels."""
    if any(isinstance(w, int) and n != w for n, w in zip(shape, wanted, strict=True)):
        return False
    square = shape[-1] == shape[-2] and shape[-1] > 0 and shape[-1] % 14 == 0 if "side" in wanted else True
    return square and (len(shape) != 4 or shape[1] in (1, 2))


def make_encoder_configs(sizes: Mapping[str, Any]) -> dict[str, EncoderConfig]:
    """Modality → configuration of its encoder, with `sizes` in place of the published values.

    The names in `sizes` are `<modality>_embed_dim`, `…_num_blocks`, `…_num_heads` and `…_drop_path`, for example
    `imu_num_blocks`. Raises `TypeError` for an unknown name.
    """
    encoders = dict(ENCODER_CONFIGS)
    for name, value in sizes.items():
        modality, _, field = name.partition("_")
        if modality not in encoders or field not in ("embed_dim", "num_blocks", "num_heads", "drop_path"):
            raise TypeError(f"ImageBind has no argument '{name}'")
        encoders[modality] = replace(encoders[modality], **{field: value})
    return encoders


def state_dict_shapes(modalities: Iterable[str], sizes: Mapping[str, Any] | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the entries of a checkpoint with these modalities. Allocates no memory for them."""
    with torch.device("meta"):
        model = ImageBind(modalities=modalities, **dict(sizes or {}))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def modality_of_entry(key: str) -> str:
    """The modality that a checkpoint's entry belongs to; empty if the model has no such entry."""
    parts = key.split(".")
    return parts[1] if len(parts) > 2 and parts[0].startswith("modality_") else ""


# ------------------------------------------------------------------------------------------------- transformer


def _new_parameter(*shape: int, std: float = 0.02) -> nn.Parameter:
    values = torch.empty(shape)
    # A meta tensor has no values to initialise, and the attempt would import 70 MB of PyTorch.
    return nn.Parameter(values if values.is_meta else nn.init.normal_(values, std=std))


class Attention(nn.Module):
    """Multi-head self-attention. `add_bias_kv`: all tokens also attend to one learned key and value."""

    def __init__(self, width: int, heads: int, add_bias_kv: bool) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"embed_dim {width} is not a multiple of the {heads} heads")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k = _new_parameter(1, 1, width) if add_bias_kv else None
        self.bias_v = _new_parameter(1, 1, width) if add_bias_kv else None
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1)], dim=1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        return self.out_proj(scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention, then MLP, each after LayerNorm and with a residual connection."""

    def __init__(self, width: int, heads: int, add_bias_kv: bool, drop: float) -> None:
        super().__init__()
        self.attn = Attention(width, heads, add_bias_kv)
        self.drop_path = DropPath(drop)
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm_1(x), mask))
        return x + self.drop_path(self.mlp(self.norm_2(x)))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): in training, a random fraction of the batch skips the block."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class Trunk(nn.Module):
    def __init__(self, encoder: EncoderConfig, norm_first: bool, add_bias_kv: bool) -> None:
        super().__init__()
        width, count = encoder.embed_dim, encoder.num_blocks
        self.pre_transformer_layer = nn.Sequential(*([nn.LayerNorm(width, eps=1e-6)] if norm_first else []))
        rates = [encoder.drop_path * i / max(count - 1, 1) for i in range(count)]
        self.blocks = nn.ModuleList(Block(width, encoder.num_heads, add_bias_kv, rate) for rate in rates)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.pre_transformer_layer(x)
        for block in self.blocks:
            x = block(x, mask)
        return x


def _trunk(modality: str, encoder: EncoderConfig) -> Trunk:
    """The encoders from CLIP (vision, text) have no `add_bias_kv`. Only vision normalizes tokens before the blocks."""
    return Trunk(encoder, norm_first=modality == VISION, add_bias_kv=modality not in (VISION, TEXT))


# ------------------------------------------------------------------------------------------ from inputs to tokens


class PositionEmbedding(nn.Module):
    """A learned vector per position; the first is that of the class token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = _new_parameter(1, tokens, width)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self.pos_embed.shape[1]:
            return x + self.pos_embed
        # Another image size: the learned square grid is interpolated to the image's grid.
        side, learned_side = math.isqrt(x.shape[1] - 1), math.isqrt(self.pos_embed.shape[1] - 1)
        grid = self.pos_embed[:, 1:].unflatten(1, (learned_side, learned_side)).permute(0, 3, 1, 2)
        grid = interpolate(grid.float(), (side, side), mode="bicubic").to(x.dtype)
        return x + torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class PatchStem(nn.Module):
    """Patches → tokens: a linear map (a convolution, or a matrix for flat patches), then LayerNorm."""

    def __init__(self, proj: nn.Module, width: int) -> None:
        super().__init__()
        self.proj = proj
        self.norm_layer = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return self.norm_layer(x.flatten(2).transpose(1, 2) if x.ndim == 4 else x)


class RepeatFrame(nn.Module):
    """(N, 3, side, side) or (N, 3, T, side, side) → T = 2: a single image becomes a video of two equal frames."""

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.ndim == 5 else x[:, :, None]
        return x if x.shape[2] == 2 else x.expand(-1, -1, 2, -1, -1)


class VideoStem(nn.Module):
    """Patches of 14 × 14 pixels × 2 frames → tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(RepeatFrame(), nn.Conv3d(3, width, (2, 14, 14), (2, 14, 14), bias=False))

    def forward(self, x: Tensor) -> Tensor:
        # On a GPU a matrix product: the speed of a convolution depends on the kernel that cuDNN chooses.
        return self.as_matrix_product(x) if x.is_cuda else self.proj(x).flatten(2).transpose(1, 2)

    def as_matrix_product(self, x: Tensor) -> Tensor:
        """The same tokens by one matrix product, because patches do not overlap. For a single image, whose two frames
        are equal, the two halves of the kernel are summed, so that each pixel is multiplied once."""
        weight: Any = self.proj[1].weight
        still = x.ndim == 4 or x.shape[2] == 1
        kernel = weight.sum(2) if still else weight
        x = x if x.ndim == 5 else x[:, :, None]
        patches = x.unflatten(4, (-1, 14)).unflatten(3, (-1, 14))  # N, 3, T, rows, 14, columns, 14
        flat = patches.permute(0, 3, 5, 1, 2, 4, 6).flatten(3).flatten(1, 2)
        return linear(flat, kernel.flatten(1))


class ClassTokenStem(nn.Module):
    """A stem that puts a class token before the patches."""

    mask: Tensor | None = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = _new_parameter(1, 1, width)

    def with_class_token(self, x: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(x), 1, -1), x], dim=1)


class ImageStem(ClassTokenStem):
    """Images and spectrograms → class token and patches, with position embeddings."""

    def __init__(self, name: str, stem: nn.Module, tokens: int, width: int) -> None:
        super().__init__(width)
        self.name = name
        self.add_module(name, stem)
        self.pos_embedding_helper = PositionEmbedding(1 + tokens, width)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.get_submodule(self.name)
        return self.pos_embedding_helper(self.with_class_token(stem(x.to(self.cls_token.dtype))))


class ImuStem(ClassTokenStem):
    """(N, 6, T) → a class token and T / 8 tokens of six channels × eight samples each, channel after channel."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__(width)
        self.pos_embed = _new_parameter(1, 1 + tokens, width)
        self.imu_stem = PatchStem(nn.Linear(6 * IMU_PATCH_SAMPLES, width, bias=False), width)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.to(self.cls_token.dtype).unflatten(2, (-1, IMU_PATCH_SAMPLES)).transpose(1, 2).flatten(2)
        return self.with_class_token(self.imu_stem(patches)) + self.pos_embed


class TextStem(nn.Module):
    """Token ids (B, N) → tokens (B, N, D). `mask` (N, N) is the causal mask: a token does not attend to later ones."""

    mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = _new_parameter(1, CONTEXT_LENGTH, width, std=0.01)
        mask = [[-math.inf if key > query else 0.0 for key in range(CONTEXT_LENGTH)] for query in range(CONTEXT_LENGTH)]
        self.register_buffer("mask", torch.tensor(mask))
        self.token_embedding = nn.Embedding.from_pretrained(_new_parameter(VOCABULARY_SIZE, width), freeze=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.pos_embed


def _stem(modality: str, encoder: EncoderConfig) -> nn.Module:
    width = encoder.embed_dim
    if modality == VISION:
        return ImageStem("rgbt_stem", VideoStem(width), 16 * 16, width)
    if modality == TEXT:
        return TextStem(width)
    if modality == IMU:
        return ImuStem(2000 // IMU_PATCH_SAMPLES, width)
    name = "depth_stem" if modality == DEPTH else "rgbt_stem"
    stride, tokens = (10, 12 * 19) if modality == AUDIO else (16, 14 * 14)
    return ImageStem(name, PatchStem(nn.Conv2d(1, width, 16, stride, bias=False), width), tokens, width)


# ------------------------------------------------------------------------------------- from tokens to the space


def select_output_token(modality: str, tokens: Tensor, inputs: Tensor) -> Tensor:
    """(N, L, D) → (N, D): the class token; for text the end token, which has the largest id."""
    if modality != TEXT:
        return tokens[:, 0]
    return tokens[torch.arange(len(tokens), device=tokens.device), inputs.argmax(dim=1)]


class TextHead(nn.Module):
    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class UnitLength(nn.Module):
    """Normalizes to unit length, in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x.float(), dim=-1)


class LogitScale(nn.Module):
    """Multiplies by the exponential of a learned or fixed number, at most `MAX_LOGIT_SCALE`."""

    def __init__(self, initial: float, learnable: bool) -> None:
        super().__init__()
        value = torch.tensor(math.log(initial))
        if learnable:
            self.log_logit_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_logit_scale", value)

    def scale(self) -> Tensor:
        return self.log_logit_scale.float().exp().clamp(max=MAX_LOGIT_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale()


def _head(modality: str, encoder: EncoderConfig, out: int) -> nn.Module:
    norm, project = nn.LayerNorm(encoder.embed_dim, eps=1e-6), nn.Linear(encoder.embed_dim, out, bias=False)
    if modality == TEXT:
        return TextHead(nn.Sequential(norm, project))
    dropout = [nn.Dropout(0.5)] if modality == IMU else []  # for training; the next layer's name depends on it
    return nn.Sequential(norm, nn.Identity(), *dropout, project)


def _scale(modality: str, encoder: EncoderConfig) -> nn.Module:
    if modality == VISION:
        return nn.Sequential(UnitLength())
    return nn.Sequential(UnitLength(), LogitScale(encoder.initial_logit_scale, learnable=modality == TEXT))
