"""Parameters and phrases to detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.config.parameters import DETECTOR_TYPES, PROMPT_PREFIX
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import options_with_values
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.evidence import EvidenceOptions
from sensebind.fusion.events.prompt import PromptDetector

CONFIGURED_MODALITIES = "configured"  # in `fault.expected`: all modalities that the embedder takes in


def prompts_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label → phrases, from `prompts.<label>`. A label without a phrase is switched off."""
    return {
        name.removeprefix(PROMPT_PREFIX): list(phrases)
        for name, phrases in values.items()
        if name.startswith(PROMPT_PREFIX) and any(phrase.strip() for phrase in phrases)
    }


def make_detectors(
    values: Mapping[str, Any],
    embed_text: Callable[[Sequence[str]], npt.ArrayLike],
    modalities: Sequence[str] = (),
) -> list[Detector]:
    """The detectors that the detector's parameters ask for.

    `embed_text` turns N phrases into (N, D) unit vectors. `modalities`: those that the embedder is configured for and
    has encoders for. Raises `ConfigError` for values that do not fit together, and `CalibrationError` for a calibration
    that cannot be read.
    """
    if CONFIGURED_MODALITIES in values["fault.expected"]:
        values = {
            **values,
            "fault.expected": sorted({*values["fault.expected"], *modalities} - {CONFIGURED_MODALITIES, TEXT}),
        }
    prompts = prompts_of(values)
    found: list[Detector] = []
    for name, detector in DETECTOR_TYPES.items():
        if name not in values["detectors"] or (detector is PromptDetector and not prompts):
            continue
        options = _options(detector.default_options, f"{name}.", values)
        try:
            found.append(
                PromptDetector(prompts, embed_text, options) if detector is PromptDetector else detector(options)
            )
        except ValueError as error:
            raise ConfigError(f"parameters '{name}.*': {error}") from error
    return found


def phrases_of(values: Mapping[str, Any]) -> list[str]:
    """The phrases whose vectors `make_detectors` asks for, once each. Raises what `make_detectors` raises."""
    wanted: dict[str, None] = {}

    def note(phrases: Sequence[str]) -> npt.ArrayLike:
        wanted.update(dict.fromkeys(phrases))
        return np.eye(len(phrases), dtype=np.float32)

    make_detectors(values, note)
    return list(wanted)


def _options(default: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """A detector's options from its default ones and the parameters `<prefix><name>`. Raises `ConfigError`."""
    if isinstance(
        default, EvidenceOptions
    ):  # a modality supports what keeps an event open, however low `offset_threshold` was set
        off = values[f"{prefix}offset_threshold"]
        default = replace(default, support=min(default.support, off), prior=min(default.prior, off / 2))
    return options_with_values(default, values, prefix)
