"""Vectors of phrases: a cache, templates, and prompt ensembles, which average a phrase over several templates."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

EmbedText = Callable[[Sequence[str]], Tensor]  # N phrases → (N, D) of unit length

PLAIN_TEMPLATES = ("{}",)  # ImageBind's authors use the bare name of a class for sounds
CLIP_TEMPLATES = (  # seven of CLIP's 80 templates; according to its authors, nearly as good as all 80
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
    """N phrases → float32 (N, D) of unit length: the normalized mean of a phrase's vectors in all `templates`.

    Raises `ValueError` if there are no templates, or one does not hold ``{}`` exactly once.
    """
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise ValueError(f"every template must hold one {{}}: {list(templates)}")
    prompts = [template.replace("{}", phrase) for phrase in phrases for template in templates]
    vectors = embed_text(prompts)
    return normalize(vectors.unflatten(0, (len(phrases), len(templates))).mean(1), dim=-1)


def apply_template(template: str, phrase: str) -> str:
    """Put a phrase into a template, which holds ``{}`` once.

    A phrase that already is such a sentence does not change. If the template has an article before ``{}`` and the
    phrase begins with one, the phrase's article is used: "a photo of a {}." and "the dog" give "a photo of the dog.".
    """
    before, _, after = template.partition("{}")
    if before.strip() and phrase.lower().startswith(before.lower().removesuffix("a ")) and phrase.endswith(after):
        return phrase
    if before.endswith((" a ", " the ")) and phrase.lower().startswith(("a ", "an ", "the ", "some ")):
        before = before.removesuffix("a ").removesuffix("the ")
    return f"{before}{phrase}{after}"


class TextEmbeddingCache:
    """Caches the vectors of the last `capacity` phrases, by space and phrase. Safe to use from several threads."""

    def __init__(self, capacity: int = 10_000) -> None:
        self.capacity = capacity
        self._vectors: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._lock = threading.Lock()  # guards `_vectors`

    def embed(self, space: str, phrases: Sequence[str], embed_text: EmbedText) -> Tensor:
        """N ≥ 1 phrases → (N, D). Calls `embed_text` at most once, with the phrases that are not cached.

        Raises `TypeError` for one string, which would be taken for a list of letters.
        """
        if isinstance(phrases, str):
            raise TypeError(f"expected a list of phrases, not one string: [{phrases!r}]")
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
