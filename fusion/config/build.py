"""Parameters to the objects that they describe: a space, a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import calibration, modalities_of, window_specs
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.tracker import EventLine
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.models import registry
from sensebind.fusion.stream.pipeline import Pipeline


def space(values: Mapping[str, Any]) -> Space:
    """The space that the embedder's parameters describe, with its encoders on the device. Raises `SpaceError`."""
    return registry.load(
        values["space"],
        modalities=modalities_of(values),
        device=values["device"],
        weights=values["weights"],
        dtype=values["dtype"],
        spokes=values["spokes"],
    )


def pipeline(
    values: Mapping[str, Any],
    space: Space,
    *,
    engine: Engine | None = None,
    queue_size: int | None = None,
    events: EventLine | None = None,
) -> Pipeline:
    """The pipeline that the parameters `parameters.embedder_parameters` describe. Raises `ConfigError`.

    `engine`: one that other pipelines use too; None: one of its own.
    """
    specs = window_specs(values, space.apertures)
    return Pipeline(
        specs,
        engine or Engine(space, values["batch_size"]),
        patience=round(values["patience"] * SECOND),
        fusion_weights={m: values[f"{m}.fusion_weight"] for m in specs},
        calibrations={m: calibration(values, m) for m in specs},
        queue_size=queue_size,
        deadline=values["deadline"],
        events=events,
    )
