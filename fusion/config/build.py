"""Parameters to the objects that they describe: a space, windows, a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import modalities_of, sensor_options, window_options
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import options_from
from sensebind.fusion.core.samples import SECOND, SENSOR_MODALITIES, to_ns
from sensebind.fusion.core.space import Aperture, Space
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.events.tracker import EventLine
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.inference.options import EngineOptions
from sensebind.fusion.models import registry
from sensebind.fusion.stream.options import StreamOptions
from sensebind.fusion.stream.pipeline import Pipeline


def space(values: Mapping[str, Any]) -> Space:
    """The space that the embedder's parameters describe, with its encoders on the device. Raises `SpaceError`."""
    options = options_from(registry.SpaceOptions(), values)
    return registry.load(
        options.space,
        modalities=modalities_of(values),
        device=options.device,
        weights=options.weights,
        dtype=options.dtype,
        spokes=list(options.spokes),
    )


def window_specs(values: Mapping[str, Any], apertures: Mapping[str, Aperture]) -> dict[str, WindowSpec]:
    """How each modality is cut into windows: by the parameters, and by the space where they leave it to the space.

    Raises `ConfigError` for windows that do not fit together.
    """
    specs = {}
    for modality in modalities_of(values):
        options = window_options(values, modality)
        aperture = apertures.get(modality)
        if aperture is None and options.window and modality not in SENSOR_MODALITIES:
            aperture = Aperture(options.window)  # a user-defined modality that is not bound yet
        if aperture is None:
            raise ConfigError(f"space '{values['space']}' has no window for '{modality}': leave it out of 'modalities'")
        specs[modality] = options.spec(modality, aperture.length, aperture.frames)
    hops = {m: s.hop for m, s in specs.items()}
    shortest = min(hops.values())
    for modality, hop in hops.items():
        if hop % shortest:
            raise ConfigError(
                f"parameter '{modality}.hop' must be a multiple of the shortest hop ({shortest / SECOND:g} s), "
                f"so that windows end together; it is {hop / SECOND:g} s"
            )
    return specs


def pipeline(
    values: Mapping[str, Any],
    space: Space,
    *,
    engine: Engine | None = None,
    live: bool = False,
    events: EventLine | None = None,
) -> Pipeline:
    """The pipeline that the embedder's parameters describe. Raises `ConfigError`.

    `engine`: one that other pipelines use too; None: one of its own. `live`: at most `queue_size` windows of a modality
    wait; otherwise any number, and none is dropped.
    """
    specs = window_specs(values, space.apertures)
    options = options_from(StreamOptions(), values)
    return Pipeline(
        specs,
        engine or Engine(space, options_from(EngineOptions(), values).batch_size),
        patience=to_ns(options.fusion_timeout),
        fusion_weights={m: window_options(values, m).fusion_weight for m in specs},
        calibrations={m: sensor_options(values, m).calibration for m in specs},
        queue_size=options.queue_size if live else None,
        deadline=options.deadline,
        events=events,
    )
