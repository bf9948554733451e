"""Parameters and phrases to detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy.typing as npt

from sensebind.fusion.config import ConfigError
from sensebind.fusion.events.disagreement import DisagreementDetector, DisagreementOptions
from sensebind.fusion.events.event import Detector, LifeOptions
from sensebind.fusion.events.novelty import NoveltyDetector, NoveltyOptions
from sensebind.fusion.events.prompts import PromptDetector, PromptOptions

Options = TypeVar("Options", PromptOptions, NoveltyOptions, DisagreementOptions)


def prompts_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label → phrases, from `prompts.<label>`. A label without a phrase is switched off."""
    return {
        name.removeprefix("prompts."): list(phrases)
        for name, phrases in values.items()
        if name.startswith("prompts.") and any(phrase.strip() for phrase in phrases)
    }


def detectors(values: Mapping[str, Any], embed_text: Callable[[Sequence[str]], npt.ArrayLike]) -> list[Detector]:
    """The detectors that the parameters of `config.detector_parameters` ask for.

    `embed_text` turns N phrases into (N, D) unit vectors. Raises `ConfigError` for values that do not fit
    together.
    """
    wanted, prompts = values["detectors"], prompts_of(values)
    unknown = set(wanted) - {"prompt", "novelty", "disagreement"}
    if unknown:
        raise ConfigError(
            f"parameter 'detectors' may name prompt, novelty and disagreement, not {', '.join(sorted(unknown))}"
        )
    found: list[Detector] = []
    try:
        if "prompt" in wanted and prompts:
            found.append(PromptDetector(prompts, embed_text, _options(PromptOptions, "prompt", values)))
        if "novelty" in wanted:
            found.append(NoveltyDetector(_options(NoveltyOptions, "novelty", values)))
        if "disagreement" in wanted:
            found.append(DisagreementDetector(_options(DisagreementOptions, "disagreement", values)))
    except ValueError as error:
        raise ConfigError(f"parameters of the detectors: {error}") from error
    return found


def _options(kind: type[Options], prefix: str, values: Mapping[str, Any]) -> Options:
    given = {name.removeprefix(f"{prefix}."): value for name, value in values.items() if name.startswith(f"{prefix}.")}
    if not given.get("background", True):
        del given["background"]
    elif "background" in given:
        given["background"] = tuple(given["background"])
    life = {field.name: given.pop(field.name) for field in fields(LifeOptions) if field.name in given}
    return kind(**given, life=LifeOptions(**life))
