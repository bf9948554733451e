"""Parameters and phrases to detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache, partial
from typing import Any

import numpy.typing as npt

from sensebind.fusion.config.parameters import DETECTORS, ConfigError
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.events.calibration import calibration_for
from sensebind.fusion.events.change import ChangeDetector
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.faults import FaultDetector
from sensebind.fusion.events.lifecycle import LifeOptions
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompts import PromptDetector, PromptOptions

WITHOUT_PROMPTS: Mapping[str, type[Detector]] = {  # that are made from options alone, in the order of DETECTORS
    "novelty": NoveltyDetector,
    "disagreement": DisagreementDetector,
    "change": ChangeDetector,
    "fault": FaultDetector,
}
LISTS = ("background", "causes", "expected")  # parameters that are lists, whose being empty means the default
CONFIGURED = "configured"  # in `fault.expected`: all senses that the embedder takes in


def prompts_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label → phrases, from `prompts.<label>`. A label without a phrase is switched off."""
    return {
        name.removeprefix("prompts."): list(phrases)
        for name, phrases in values.items()
        if name.startswith("prompts.") and any(phrase.strip() for phrase in phrases)
    }


def detectors(
    values: Mapping[str, Any],
    embed_text: Callable[[Sequence[str]], npt.ArrayLike],
    modalities: Sequence[str] = (),
) -> list[Detector]:
    """The detectors that the parameters of `parameters.detector_parameters` ask for.

    `embed_text` turns N phrases into (N, D) unit vectors; `modalities` are the senses that are embedded. Raises
    `ConfigError` for values that do not fit together, and `CalibrationError` for a calibration that cannot be read.
    """
    wanted, prompts = values["detectors"], prompts_of(values)
    if CONFIGURED in values["fault.expected"]:
        named = [m for m in values["fault.expected"] if m != CONFIGURED]
        values = {**values, "fault.expected": sorted({*named, *modalities} - {TEXT})}
    unknown = sorted(set(wanted) - set(DETECTORS))
    if unknown:
        raise ConfigError(f"parameter 'detectors' may name {', '.join(DETECTORS)}, not {', '.join(unknown)}")
    found: list[Detector] = []
    try:
        if "prompt" in wanted and prompts:
            found.append(PromptDetector(prompts, embed_text, _options(PromptDetector, "prompt", values)))
        for name, detector in WITHOUT_PROMPTS.items():
            if name in wanted:
                found.append(detector(_options(detector, name, values)))
    except ValueError as error:
        raise ConfigError(f"parameters of the detectors: {error}") from error
    return found


def _options(detector: type[Detector], prefix: str, values: Mapping[str, Any]) -> Any:
    """The options of a detector from the parameters `<prefix>.<name>`. Raises `ValueError` and `CalibrationError`."""
    given = {name.removeprefix(f"{prefix}."): value for name, value in values.items() if name.startswith(f"{prefix}.")}
    for name in LISTS:
        if name in given and not given[name]:
            del given[name]
        elif name in given:
            given[name] = tuple(given[name])
    if "calibration" in given:
        calibration_for(given["calibration"], "")  # a file that cannot be read is told now
        given["calibration"] = lru_cache(maxsize=8)(partial(calibration_for, given["calibration"]))
    life = LifeOptions(**{field.name: given.pop(field.name) for field in fields(LifeOptions) if field.name in given})
    if detector is PromptDetector:  # a sense supports what keeps an event open, however low that was set
        given["support"] = min(PromptOptions().support, life.off)
        given["prior"] = min(PromptOptions().prior, life.off / 2)
    return type(detector.default_options)(**given, life=life)
