"""Builds a space, windows and a pipeline from parameter values (name → value)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sensebind.fusion.config.parameters import modalities_of, sensor_options, sensors_of, window_options
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import options_with_values
from sensebind.fusion.core.samples import SECOND, SENSOR_MODALITIES, to_ns
from sensebind.fusion.core.space import Space, TrainedWindow
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.inference.options import EngineOptions
from sensebind.fusion.models import registry
from sensebind.fusion.stream.memory.budget import NO_LIMIT, MemoryBudget, WorkerPart, divide_memory, plain_window
from sensebind.fusion.stream.memory.sizes import MEGABYTE, resident_bytes
from sensebind.fusion.stream.options import StreamOptions
from sensebind.fusion.stream.pipeline import Pipeline

LOG = logging.getLogger(__name__)


def load_space_from(values: Mapping[str, Any]) -> Space:
    """Load the space that the embedder's parameters describe, with its encoders on the device. Raises `SpaceError`."""
    options = options_with_values(registry.SpaceOptions(), values)
    return registry.load_space(
        options.space,
        modalities=modalities_of(values),
        device=options.device,
        weights=options.weights,
        dtype=options.dtype,
        spokes=list(options.spokes),
    )


def make_window_specs(values: Mapping[str, Any], trained_windows: Mapping[str, TrainedWindow]) -> dict[str, WindowSpec]:
    """Sensor → how its samples are cut into windows.

    Parameters take precedence over `trained_windows`: the windows that the encoders of the space were trained with.
    Raises `ConfigError` for a modality without a window length, and for windows that do not fit together.
    """
    specs = {}
    for sensor, modality in sensors_of(values).items():
        options = window_options(values, modality, sensor)
        trained_window = trained_windows.get(modality)
        if trained_window is None and options.window and modality not in SENSOR_MODALITIES:
            trained_window = TrainedWindow(options.window)  # a user-defined modality without a spoke
        if trained_window is None:
            raise ConfigError(f"space '{values['space']}' has no window for '{modality}': remove it from 'modalities'")
        specs[sensor] = options.spec(modality, trained_window.length, trained_window.frames, sensor)
    hops = {sensor: spec.hop for sensor, spec in specs.items()}
    shortest = min(hops.values())
    for sensor, hop in hops.items():
        if hop % shortest:
            raise ConfigError(
                f"parameter '{sensor}.hop' must be a multiple of the shortest hop ({shortest / SECOND:g} s), "
                f"so that windows end together; it is {hop / SECOND:g} s"
            )
    return specs


def make_pipeline(
    values: Mapping[str, Any],
    space: Space,
    *,
    engine: Engine | None = None,
    live: bool = False,
    tracker: EventTracker | None = None,
    memory: MemoryBudget = NO_LIMIT,
) -> Pipeline:
    """The pipeline that the embedder's parameters describe. Raises `ConfigError`.

    `engine`: an engine that several pipelines share; None: the pipeline makes its own engine. `live`: at most
    `queue_size` windows of each sensor wait; if False, their number has no limit and no window is dropped. `memory`:
    see `memory_budget`.
    """
    specs = make_window_specs(values, space.trained_windows)
    options = options_with_values(StreamOptions(), values)
    return Pipeline(
        specs,
        engine or Engine(space, options_with_values(EngineOptions(), values).batch_size),
        fusion_timeout=to_ns(options.fusion_timeout),
        fusion_weights={s.modality: window_options(values, s.modality).fusion_weight for s in specs.values()},
        calibrations={name: sensor_options(values, s.modality, name).calibration for name, s in specs.items()},
        queue_size=options.queue_size if live else None,
        deadline=options.deadline,
        tracker=tracker,
        memory=memory,
    )


def memory_budget(
    values: Mapping[str, Any], space: Space, *, robots: int = 1, part: WorkerPart | None = None
) -> MemoryBudget:
    """The memory of this process, which has loaded `space`, by the embedder's parameters. `robots`: how many it serves.
    `part`: that of this process, if it is a worker. Raises `ConfigError` if the limit is too small.

    With a limit, the space embeds a window of each modality first, so that what it uses is known.
    """
    limit = MEGABYTE * options_with_values(StreamOptions(), values).memory_limit_mb if part is None else part.limit
    specs = make_window_specs(values, space.trained_windows)
    if limit:
        warm_up(space, specs)
    return divide_memory(limit, resident_bytes(), specs, robots=robots, part=part)


def warm_up(space: Space, specs: Mapping[str, WindowSpec]) -> None:
    """Embed a window of each modality of a space, so that it has the memory that it needs."""
    for modality, spec in {spec.modality: spec for spec in specs.values() if spec.modality in space.modalities}.items():
        try:
            space.embed(modality, space.tensor(plain_window(spec)).unsqueeze(0))
        except Exception as error:  # of any kind: real data of a user-defined modality may have another form
            LOG.debug("a plain window of %s could not be embedded: %s", modality, error)
