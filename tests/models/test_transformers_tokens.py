"""A tokenizer with more words than the model: the error says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from helpers.small_transformers import word_tokenizer
from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.transformers.family import TextEncoder


class TableEncoder(TextEncoder):
    """The mean of the vectors of the tokens; `words`: how many it has."""

    def __init__(self, folder: Path, words: int) -> None:
        card = SimpleNamespace(templates=["{}"], lowercase=False, max_length=0, padding=True)
        super().__init__(card, word_tokenizer(folder), 32)  # type: ignore[arg-type]
        self.table, self.positions = nn.Embedding(words, 4), nn.Embedding(3, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table(input_ids).mean(1)


def test_a_token_that_the_model_does_not_have_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with torch.inference_mode():
        assert TableEncoder(tmp_path, 1000).embed(["a dog"]).shape == (1, 4)
        with pytest.raises(SpaceError, match="Fetch the model again, with its tokenizer"):
            TableEncoder(tmp_path, 5).embed(["a dog"])
