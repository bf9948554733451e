"""Converts phrases to the token ids of CLIP's text encoder, which ImageBind uses."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from instant_clip_tokenizer import Tokenizer

CONTEXT_LENGTH = 77
START_TOKEN, END_TOKEN = 49406, 49407
MAX_CHARACTERS = 16_384  # characters that are read: 75 tokens contain far fewer
SPECIAL_TOKENS = re.compile(r"<\|(startoftext|endoftext)\|>")


def imagebind_tokens(texts: Sequence[str]) -> torch.Tensor:
    """N phrases → int64 (N, 77): start, byte-pair ids, end, zeros. Byte-pair ids that do not fit are dropped.

    Raises `TypeError` if `texts` is not a sequence of strings.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("phrases must be a list of strings")
    ids = np.zeros((len(texts), CONTEXT_LENGTH), np.int64)
    for row, text in zip(ids, texts, strict=True):
        tokens = [START_TOKEN, *_encode(clean_text(text))][: CONTEXT_LENGTH - 1] + [END_TOKEN]
        row[: len(tokens)] = tokens
    return torch.from_numpy(ids)


def clean_text(text: str) -> str:
    """Repair Unicode, resolve HTML entities twice, collapse white space, make lower case: as CLIP was trained."""
    import ftfy  # imported here: only text needs it

    whole = ftfy.fix_text(text[:MAX_CHARACTERS].encode("utf-8", "replace").decode())
    return re.sub(r"\s+", " ", html.unescape(html.unescape(whole))).strip().lower()


def _encode(text: str) -> list[int]:
    """Byte-pair ids. A special token that the text contains becomes its id, except within a run of punctuation."""
    ids: list[int] = []
    done = 0
    for match in SPECIAL_TOKENS.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if match.start() > done and not (before.isalnum() or before.isspace()):
            continue
        ids += [
            *_tokenizer().encode(text[done : match.start()]),
            START_TOKEN if match[1] == "startoftext" else END_TOKEN,
        ]
        done = match.end()
    return ids + list(_tokenizer().encode(text[done:]))


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from instant_clip_tokenizer import Tokenizer

    return Tokenizer()
