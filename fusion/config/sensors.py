"""Parameters to what the decoder of a sensor's messages needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import known_or_user_defined
from sensebind.fusion.core.parameters import options_from
from sensebind.fusion.io.sample_decoder import SensorOptions


def sensor_options(values: Mapping[str, Any], modality: str) -> SensorOptions:
    """What the embedder's parameters say of one sensor. Raises `ConfigError`."""
    return options_from(SensorOptions(modality), values, f"{modality}.", known_or_user_defined(modality))
