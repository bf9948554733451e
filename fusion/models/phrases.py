"""Phrases to vectors: each embedded once, and several wordings of one thing made one vector."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

EmbedText = Callable[[Sequence[str]], Tensor]  # N phrases → (N, D) of unit length

PLAIN_TEMPLATES = ("{}",)  # what ImageBind's authors use for sounds: the class's name alone
CLIP_TEMPLATES = (  # the seven of CLIP's eighty templates that its authors found to do nearly as well as all
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def embed_prompt_ensemble(
    embed_text: EmbedText, phrases: Sequence[str], templates: Sequence[str] = CLIP_TEMPLATES
) -> Tensor:
    """N phrases → float32 (N, D) of unit length: the mean of a phrase's vectors in all `templates`, made unit length.

    Each template holds one ``{}``. Raises `ValueError` for others, and for none.
    """
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise ValueError(f"every template must hold one {{}}: {list(templates)}")
    prompts = [template.replace("{}", phrase) for phrase in phrases for template in templates]
    vectors = embed_text(prompts)
    return normalize(vectors.unflatten(0, (len(phrases), len(templates))).mean(1), dim=-1)


class TextEmbeddingCache:
    """The vectors of the phrases that were asked for last, by space and phrase. Safe to use from several threads."""

    def __init__(self, capacity: int = 10_000) -> None:
        self.capacity = capacity
        self._vectors: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._lock = threading.Lock()  # guards `_vectors`

    def embed(self, space: str, phrases: Sequence[str], embed_text: EmbedText) -> Tensor:
        """(N, D) for N ≥ 1 phrases; `embed_text` is called at most once, with those that are not held."""
        with self._lock:
            known = {p: self._vectors[space, p] for p in phrases if (space, p) in self._vectors}
        missing = list(dict.fromkeys(p for p in phrases if p not in known))
        if missing:
            known.update(zip(missing, embed_text(missing), strict=True))
        with self._lock:
            for phrase in phrases:
                self._vectors[space, phrase] = known[phrase]
                self._vectors.move_to_end((space, phrase))
            while len(self._vectors) > self.capacity:
                self._vectors.popitem(last=False)
        return torch.stack([known[phrase] for phrase in phrases])
