"""The contract between a family of models and the space: the encoders of sensors, and the encoder of text."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sensebind.fusion.core.space import SpaceError, TrainedWindow
from sensebind.fusion.core.windows import Window
from sensebind.fusion.models.phrases import apply_template
from sensebind.fusion.models.transformers.cards import ModelCard
from sensebind.fusion.models.transformers.checkpoint import Checkpoint

TEXT_BATCH_SIZE = 64  # phrases that are embedded together
MIN_TOKENS = 4  # of a phrase
NUMBERED_LAYER = re.compile(r"layers?\.\d+\.")  # in the name of a weight


class SensorEncoder(nn.Module, ABC):
    """The encoder of one sensor modality. Its steps: window → `device_input` (a CPU row of few bytes) → `prepare` (on
    the device) → `forward` (unit vectors).

    `window`: the window that the model was trained with. `capturable`: whether a CUDA graph can capture `prepare` and
    `forward`; they must not wait for the device.
    """

    window: TrainedWindow
    capturable: bool = False

    @abstractmethod
    def device_input(self, window: Window) -> Tensor:
        """One window → one row without the batch axis: uint8 (H, W, 3) or (F, H, W, 3) for images, float32 (N,) for
        sound. Raises `EncodingError` if the data cannot be decoded, and `ValueError` if the window does not fit."""

    @abstractmethod
    def prepare(self, rows: Tensor) -> Tensor:
        """Stacked rows (B, …) → float32 inputs of the network (B, …), on the same device."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Prepared inputs (B, …) → float32 unit vectors (B, D), on the same device."""


class RgbEncoder(SensorEncoder):
    """An encoder of RGB images."""

    @abstractmethod
    def prepare_float(self, images: Tensor) -> Tensor:
        """RGB images float32 (B, 3, H, W) in 0..1 → float32 inputs of the network, with gradients. The training of
        spokes calls it with 224 × 224 pixels."""


class TextEncoder(nn.Module, ABC):
    """The encoder of phrases: a tokenizer and a network. `max_tokens`: the longest phrase that the network takes."""

    def __init__(self, card: ModelCard, tokenizer: Any, max_tokens: int) -> None:
        super().__init__()
        self.card = card
        self.max_tokens = min(max_tokens, card.max_length or max_tokens, tokenizer.model_max_length)
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # a tokenizer is used by one thread at a time

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Tokens, int64 (N, T), and their mask (N, T) → float32 unit vectors (N, D), on the same device.

        Without a mask, the network sees the padding: some models were trained so.
        """

    def embed(self, phrases: Sequence[str]) -> Tensor:
        """N phrases → float32 unit vectors (N, D) on the CPU. The card's first template is put around each.

        Phrases longer than `max_tokens` are cut at the end.
        """
        sentences = [self.sentence(phrase) for phrase in phrases]
        parts = [sentences[i : i + TEXT_BATCH_SIZE] for i in range(0, len(sentences), TEXT_BATCH_SIZE)]
        device = next(self.parameters()).device
        return torch.cat([self(*(t.to(device) for t in self._tokens(part))).float().cpu() for part in parts])

    def _check_tokens(self, tokens: Tensor) -> None:
        """Raise `SpaceError` for a token that the network does not have: on a GPU, it would end the process."""
        # The table of the tokens is the largest one; the others are of positions.
        size = max((part.num_embeddings for part in self.modules() if isinstance(part, nn.Embedding)), default=0)
        if size and int(tokens.max()) >= size:
            raise SpaceError(
                f"the tokenizer gives token {int(tokens.max())}, but the model has {size}: they are not of one model. "
                "Fetch the model again, with its tokenizer"
            )

    def sentence(self, phrase: str) -> str:
        """A phrase as the tokenizer gets it."""
        sentence = apply_template(self.card.templates[0], phrase)
        return sentence.lower() if self.card.lowercase else sentence

    def _tokens(self, sentences: Sequence[str]) -> list[Tensor]:
        """Tokens int64 (N, T), and their mask (N, T) if the tokenizer of the model makes one."""
        with self._lock:
            tokens = self._tokenizer(
                list(sentences),
                padding=self.card.padding,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
        self._check_tokens(tokens["input_ids"])
        return [tokens[name] for name in ("input_ids", "attention_mask") if name in tokens]


class PooledTextEncoder(TextEncoder):
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


class ModelFamily(ABC):
    """A loaded model. A subclass loads the encoders of one family.

    Attributes:
        dimension: length D of its vectors.
        encoders: sensor modality → its encoder.
        text: the encoder of phrases.
        logit_scales: modality → factor of its cosines.
        logit_biases: modality → term that is added to its scaled cosines.
        variant: part of the space's id, if one checkpoint makes spaces whose vectors cannot be compared.
    """

    dimension: int
    encoders: Mapping[str, SensorEncoder]
    text: TextEncoder
    logit_scales: Mapping[str, float]
    logit_biases: Mapping[str, float]
    variant: str = ""

    @classmethod
    @abstractmethod
    def load(cls, checkpoint: Checkpoint, modalities: Sequence[str] | None, dtype: torch.dtype) -> ModelFamily:
        """Load the encoders of `modalities` (None: all) on the CPU in `dtype`. Raises `SpaceError`."""


def load_model(
    checkpoint: Checkpoint, class_name: str, dtype: torch.dtype, *, partial: bool = False, **settings: Any
) -> Any:
    """The model of transformers' class `class_name`, on the CPU, without gradients. No code of the checkpoint is run.

    `settings` replace those of `config.json`; `config` replaces it whole. `partial`: the checkpoint has layers that
    this model leaves out. Raises `SpaceError` if files do not fit.
    """
    import transformers

    transformers.logging.disable_progress_bar()  # a node writes a log
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # the library's table of names is checked here
    try:
        model, report = getattr(transformers, class_name).from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
            **settings,
        )
    except Exception as error:  # the errors of damaged files have no common base
        raise SpaceError(
            f"'{checkpoint.folder}' cannot be loaded: {_one_line(error)}. If it was downloaded, remove the folder and "
            "fetch it again"
        ) from error
    finally:
        transformers.logging.set_verbosity(before)
    wrong = [*sorted(report["missing_keys"]), *sorted(str(key[0]) for key in report["mismatched_keys"])]
    if not partial:  # other names may be left over from training
        wrong += sorted(key for key in report["unexpected_keys"] if NUMBERED_LAYER.search(key))
    if wrong:
        raise SpaceError(
            f"the weights in '{checkpoint.folder}' do not fit: {', '.join(wrong[:5])} missing, left over or of another "
            "size than config.json says"
        )
    return model.eval().requires_grad_(False)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of a checkpoint. Raises `SpaceError`, also if it cannot distinguish two words."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        usable = tokenizer.pad_token_id is not None and int(tokenizer.model_max_length) >= MIN_TOKENS
        # Without its files, the library makes a tokenizer with an empty vocabulary: each letter is unknown.
        usable = usable and tokenizer("dogs")["input_ids"] != tokenizer("rain")["input_ids"]
    except Exception as error:  # the errors of damaged files have no common base
        raise SpaceError(f"the tokenizer in '{checkpoint.folder}' cannot be loaded: {_one_line(error)}") from error
    if not usable:
        raise SpaceError(
            f"the tokenizer in '{checkpoint.folder}' is damaged: it has no padding token, takes fewer than "
            f"{MIN_TOKENS} tokens, or gives different words the same tokens, as without tokenizer.json. Fetch the "
            "model again"
        )
    return tokenizer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def unit(vectors: Tensor) -> Tensor:
    """Vectors (B, D) → float32, unit length."""
    return normalize(vectors.float(), dim=-1)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The precision of a network's parameters."""
    return next(network.parameters()).dtype
