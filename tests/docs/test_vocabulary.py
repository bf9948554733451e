"""The check of retired words finds them in names, comments and texts, and leaves other words alone."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from helpers.paths import ROOT


@pytest.fixture(scope="module")
def vocabulary() -> ModuleType:
    """docs/vocabulary.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("vocabulary", ROOT / "docs" / "vocabulary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text", ["x = 1  # it is told", "told_by = 2", "isTold = 3", "Senses:", "class Lane:", "2 things"]
)
def test_a_retired_word_is_found(vocabulary: ModuleType, text: str) -> None:
    (found,) = vocabulary.findings("fusion/module.py", text)
    assert found.file == "fusion/module.py" and found.line == 1


@pytest.mark.parametrize(
    "text", ["sensebind, sensed, essences", "this makes sense", "nothing, something", "a RealSense"]
)
def test_other_words_are_allowed(vocabulary: ModuleType, text: str) -> None:
    assert not list(vocabulary.findings("fusion/module.py", text))
