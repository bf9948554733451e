"""Builds detectors from parameter values and phrases."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.config.parameters import DETECTOR_TYPES, ONSET_THRESHOLD_PREFIX, PROMPT_PREFIX
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import options_with_values
from sensebind.fusion.core.samples import TEXT
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.evidence import EvidenceOptions
from sensebind.fusion.events.fault import CONFIGURED_SENSORS, FaultDetector
from sensebind.fusion.events.prompt import (
    CompetenceLookup,
    ObjectLookup,
    PromptDetector,
    PromptOptions,
    full_competence,
    no_objects,
)

LOG = logging.getLogger(__name__)


def prompts_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label → phrases, from `prompts.<label>`. A label without a phrase is left out."""
    return {
        name.removeprefix(PROMPT_PREFIX): list(phrases)
        for name, phrases in values.items()
        if name.startswith(PROMPT_PREFIX) and any(phrase.strip() for phrase in phrases)
    }


def onset_thresholds_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Label → onset threshold, from `prompt.onset_thresholds.<label>`.

    Raises `ConfigError` for a label that no parameter `prompts.<label>` names.
    """
    found = {
        name.removeprefix(ONSET_THRESHOLD_PREFIX): float(value)
        for name, value in values.items()
        if name.startswith(ONSET_THRESHOLD_PREFIX)
    }
    for label in found:
        if f"{PROMPT_PREFIX}{label}" not in values:
            labels = [name.removeprefix(PROMPT_PREFIX) for name in values if name.startswith(PROMPT_PREFIX)]
            near = difflib.get_close_matches(label, labels, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"parameter '{ONSET_THRESHOLD_PREFIX}{label}' is for a label without 'prompts.{label}'{hint}"
            )
    return found


def make_detectors(
    values: Mapping[str, Any],
    embed_text: Callable[[Sequence[str]], npt.ArrayLike],
    sensors: Mapping[str, str] = {},
    competences: CompetenceLookup = full_competence,
    named_objects: ObjectLookup = no_objects,
    encoders: Mapping[str, str] | None = None,
) -> list[Detector]:
    """The detectors that the parameter `detectors` names. The prompt detector is left out if no label has a phrase.

    `embed_text`: N phrases → (N, D) unit vectors. `sensors`: sensor → modality, of those that the embedder is
    configured for and has encoders for. `competences`, `named_objects` and `encoders`: see `PromptDetector`. Raises
    `ConfigError` for values that do not fit together, and `CalibrationError` for a calibration that cannot be read.
    """
    values = {**values, "fault.expected": _expected_sensors(values["fault.expected"], sensors)}
    prompts = prompts_of(values)
    found: list[Detector] = []
    for name, detector in DETECTOR_TYPES.items():
        if name not in values["detectors"] or (detector is PromptDetector and not prompts):
            continue
        options = _options(detector.default_options, f"{name}.", values)
        try:
            if detector is PromptDetector:
                found.append(PromptDetector(prompts, embed_text, options, competences, named_objects, encoders))
            else:
                found.append(FaultDetector(options, sensors) if detector is FaultDetector else detector(options))
        except ValueError as error:
            raise ConfigError(f"parameters '{name}.*': {error}") from error
    return found


def _expected_sensors(expected: Sequence[str], sensors: Mapping[str, str]) -> list[str]:
    """The names of the sensors in `fault.expected`: `configured` means all of them, a modality its named sensors.

    Logs a warning for a name that none of `sensors` has. They may be empty: not known yet.
    """
    found: set[str] = set()
    for name in expected:
        if name == CONFIGURED_SENSORS:
            found |= sensors.keys()
            continue
        own = {sensor for sensor, modality in sensors.items() if name in (sensor, modality)}
        if sensors and not own and name != TEXT:
            near = difflib.get_close_matches(name, [*sensors, *sensors.values()], 1)
            LOG.warning(
                "parameter 'fault.expected' names '%s', which will be reported as unplugged: the sensors with an "
                "encoder are %s%s",
                name,
                ", ".join(sensors),
                f"; did you mean '{near[0]}'?" if near else "",
            )
        found |= own or {name}
    return sorted(found - {TEXT})


def phrases_of(values: Mapping[str, Any]) -> list[str]:
    """The phrases that `make_detectors` embeds, each once. Raises the errors of `make_detectors`."""
    wanted: dict[str, None] = {}

    def collect(phrases: Sequence[str]) -> npt.ArrayLike:
        wanted.update(dict.fromkeys(phrases))
        return np.eye(len(phrases), dtype=np.float32)

    make_detectors(values, collect)
    return list(wanted)


def _options(default: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """The options `default` with the values of the parameters `<prefix><name>`. Raises `ConfigError`."""
    if isinstance(default, EvidenceOptions):
        # A score that keeps an event open must count as support, even if the user sets a low `offset_threshold`.
        offset = values[f"{prefix}offset_threshold"]
        default = replace(default, support=min(default.support, offset), prior=min(default.prior, offset / 2))
    options = options_with_values(default, values, prefix)
    return (
        replace(options, onset_thresholds=onset_thresholds_of(values))
        if isinstance(options, PromptOptions)
        else options
    )
