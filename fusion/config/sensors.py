"""Parameters to what the decoder of a sensor's messages needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import TOPICS, calibration
from sensebind.fusion.core.samples import AUDIO, SENSOR_MODALITIES
from sensebind.fusion.io.audio_messages import Format
from sensebind.fusion.io.sample_decoder import SensorOptions


def sensor_options(values: Mapping[str, Any], modality: str) -> SensorOptions:
    """What the embedder's parameters (`parameters.embedder_parameters`) say of one sensor."""
    prefix = f"{modality}."
    own = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    options: dict[str, Any] = {name: own[name] for name in ("transport", "type", "fields", "fill") if name in own}
    if modality == AUDIO:
        options["audio_format"] = Format(own["sample_format"], float(own["sample_rate"]), own["channels"])
    return SensorOptions(
        modality,
        topic=own["topic"] or TOPICS.get(modality, modality),
        named=bool(own["topic"]) or modality not in SENSOR_MODALITIES,
        side_topic=own.get("camera_info") or own.get("info_topic") or "",
        calibration=calibration(values, modality),
        **options,
    )
