"""Small random checkpoints of transformers' families, written to folders, and the library's own vectors of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sensebind.fusion.core.samples import SECOND, VISION, Frame, Sample
from sensebind.fusion.core.windows import Window

pytest.importorskip("transformers", minversion="5.24")  # needs Python 3.11
IMAGE_ENCODINGS = ("rgb8", "bgr8", "mono8", "jpeg", "bayer_rggb8")

WORDS = [
    "a", "an", "the", "this", "is", "photo", "of", "dog", "cat", "person", "glass", "breaking", "rain", "nearby",
    "siren", "engine", "door", "music", "sound",
]  # fmt: skip


def randomize(model: Any, seed: int = 0) -> Any:
    """Give a model weights that are large enough for different inputs to have different vectors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.5 / fan_in**0.5)
            elif "logit" not in name and name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def word_tokenizer(folder: Path, *, max_length: int = 64, mask: bool = True) -> Any:
    """A tokenizer of words: ``<bos>`` words ``<eos>``. Words that it does not know become ``<unk>``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*specials, ".", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
        model_max_length=max_length, model_input_names=["input_ids", "attention_mask"] if mask else ["input_ids"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def letter_tokenizer(folder: Path, class_name: str, max_length: int = 64) -> Any:
    """A tokenizer of letters, of Gemma's kind: `GemmaTokenizer` or `Siglip2Tokenizer`."""
    import transformers

    symbols = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        "▁",
        ".",
        *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    kind = getattr(transformers, class_name)
    tokenizer = kind(vocab=vocabulary, merges=[], model_max_length=max_length, padding_side="right")
    tokenizer.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def sentencepiece_tokenizer(folder: Path, max_length: int = 64) -> Any:
    """SigLIP's own tokenizer, which writes lower case and drops punctuation, with a vocabulary of `WORDS`."""
    import sentencepiece
    import transformers

    (folder / "words.txt").write_text("\n".join(" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False,
        pad_id=1, eos_id=2, unk_id=0, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    tokenizer = transformers.SiglipTokenizer(
        str(folder / "spiece.model"), model_max_length=max_length, model_input_names=["input_ids"]
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_checkpoint(folder: Path, model: Any, **parts: Any) -> Path:
    """Write a randomized model, and the processor parts that have `save_pretrained`, to `folder`."""
    model.save_pretrained(folder)
    for part in parts.values():
        part.save_pretrained(folder)
    return folder


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest error of a row, relative to the mean length of rows after the batch mean is removed."""
    centred = expected - expected.mean(0)
    return float((got - expected).norm(dim=1).max().detach() / centred.norm(dim=1).mean().detach())


def images(count: int = 4, height: int = 97, width: int = 131, seed: int = 0) -> list[np.ndarray]:
    """RGB images uint8 (H, W, 3) with large coloured areas and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    found = []
    for _ in range(count):
        waves = [np.sin(12 * (random.normal() * x + random.normal() * y) + 6 * random.random()) for _ in range(3)]
        levels = 127 + 90 * np.stack(waves, 2) + random.normal(0, 12, (height, width, 3))
        found.append(np.clip(levels, 0, 255).astype(np.uint8))
    return found


def encoded(rgb: np.ndarray, encoding: str) -> Frame:
    """An RGB image as a camera driver sends it: rgb8, bgr8, mono8, bayer_rggb8 or jpeg."""
    height, width = rgb.shape[:2]
    if encoding == "jpeg":
        return Frame(cv2.imencode(".jpg", rgb[..., ::-1])[1].ravel(), "jpeg", compressed=True)
    if encoding == "mono8":
        rows = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    elif encoding == "bayer_rggb8":
        rows = rgb[..., 1].copy()
        rows[::2, ::2], rows[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    else:
        rows = rgb if encoding == "rgb8" else rgb[..., ::-1]
    rows = np.ascontiguousarray(rows)
    return Frame(rows.ravel(), encoding, height, width, rows.strides[0])


def image_window(frame: Frame, modality: str = VISION) -> Window:
    """A window with one image."""
    return Window(modality, 0, SECOND, 1.0, (Sample(modality, 1, frame),))
