"""Parameters to the objects that they describe: a space, windows, a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import known_or_user_defined, modalities_of
from sensebind.fusion.config.sensors import sensor_options
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import options_from
from sensebind.fusion.core.samples import SECOND, to_ns
from sensebind.fusion.core.space import Aperture, Space
from sensebind.fusion.core.windows import WindowOptions, WindowSpec
from sensebind.fusion.events.tracker import EventLine
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.models import registry
from sensebind.fusion.stream.pipeline import Pipeline, StreamOptions


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
        aperture = apertures.get(modality)
        if aperture is None and values[f"{modality}.window"] and f"{modality}.fields" in values:
            aperture = Aperture(values[f"{modality}.window"])  # a modality of the user's, not bound yet
        if aperture is None:
            raise ConfigError(f"space '{values['space']}' has no window for '{modality}': leave it out of 'modalities'")
        options = options_from(WindowOptions(), values, f"{modality}.", known_or_user_defined(modality))
        try:
            specs[modality] = WindowSpec(
                modality,
                length=to_ns(options.window or aperture.length),
                hop=to_ns(options.hop),
                lateness=to_ns(options.lateness),
                min_coverage=options.min_coverage,
                frames=options.frames or aperture.frames,
                max_gap=to_ns(options.max_gap),
            )
        except ValueError as error:
            raise ConfigError(f"parameters of windows: {error}") from error
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
    queue_size: int | None = None,
    events: EventLine | None = None,
) -> Pipeline:
    """The pipeline that the embedder's parameters describe. Raises `ConfigError`.

    `engine`: one that other pipelines use too; None: one of its own.
    """
    specs = window_specs(values, space.apertures)
    options = options_from(StreamOptions(), values)
    return Pipeline(
        specs,
        engine or Engine(space, values["batch_size"]),
        patience=to_ns(options.patience),
        fusion_weights={m: values[f"{m}.fusion_weight"] for m in specs},
        calibrations={m: sensor_options(values, m).calibration for m in specs},
        queue_size=queue_size,
        deadline=options.deadline,
        events=events,
    )
