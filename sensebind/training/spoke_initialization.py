"""The spoke that a training starts with: read from a file, or new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sensebind.fusion.config.files import read_parameter_file
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, THERMAL, VISION, Reading, Sample
from sensebind.fusion.core.space import Hub, SpaceError
from sensebind.fusion.models.spokes import spoke as spokes
from sensebind.fusion.models.spokes.spoke import Spoke, SpokeSpec
from sensebind.replay.session import Settings, open_replay
from sensebind.training.data.pairs import AlignError

IMU_RATE = 200.0  # Hz of the input of a new IMU spoke
IMU_CHANNELS = 6
IMAGE_WINDOW = 0.25  # s, of a new image spoke if neither the config nor the hub sets it


@dataclass(frozen=True)
class SpokeInitialization:
    """How the first spoke is made.

    `file`: the spoke file to start with. None: the spoke that the hub ships for the modality, or a new one if there is
    none, if `scratch` is set, or if `method` is whole or head. `method`: whole, head or lora (None: lora for images,
    else whole). `rank` is that of LoRA, `seed` that of a new spoke's weights.
    """

    file: Path | None = None
    scratch: bool = False
    method: str | None = None
    rank: int = 8
    seed: int = 0


def training_parameters(file: Path | None, modality: str) -> Mapping[str, Any]:
    """The embedder's parameters of `modality` and vision, from a parameter file or the defaults. Raises
    `ConfigError`."""
    given = read_parameter_file(file, "embedder") if file else {}
    given["modalities"] = list(dict.fromkeys([VISION, modality]))
    wanted = (VISION, modality, "modalities")
    return Settings.of({name: value for name, value in given.items() if name.partition(".")[0] in wanted}).embedder


def initial_spoke(
    hub: Hub,
    modality: str,
    values: Mapping[str, Any],
    initialization: SpokeInitialization,
    recordings: Sequence[Path] = (),
) -> Spoke:
    """The spoke to train for `modality`.

    `values` are the embedder's parameters. The number of channels of a user-defined modality is read from the first of
    `recordings`. Raises `SpaceError` if the spoke is for another modality or hub or the method does not fit the
    modality, `AlignError` if its window has another length, and `SensebindError` if the number of channels is unknown.
    """
    shipped = next((path for path in hub.shipped_spokes if path.stem == modality), None)
    file = initialization.file or (
        shipped if not initialization.scratch and initialization.method in (None, "lora") else None
    )
    torch.manual_seed(initialization.seed)
    if file is not None:
        spec = spokes.read_spec(file)
        if spec.modality != modality or spec.hub != hub.id:
            raise SpaceError(
                f"spoke '{file}' is for modality {spec.modality} and hub {spec.hub}, not for {modality} and {hub.id}"
            )
        spoke = Spoke(spec, hub)
        spokes.load_weights(spoke, file)
    elif modality in (VISION, DEPTH, THERMAL):
        spoke = Spoke(_image_spec(hub, modality, values, initialization), hub)
    else:
        spoke = Spoke(_series_spec(hub, modality, values, initialization, recordings), hub)
    window = values[f"{modality}.window"]
    if spoke.spec.kind != "image" and window and window != spoke.spec.length:
        raise AlignError(
            f"{modality}.window is {window:g} s, the spoke's is {spoke.spec.length:g} s: change it, or give --scratch"
        )
    return spoke


def _window(hub: Hub, modality: str, values: Mapping[str, Any]) -> float:
    """Length of a window in s: from the config, else from the hub, else 0."""
    trained_window = hub.trained_windows.get(modality)
    return float(values[f"{modality}.window"] or (trained_window.length if trained_window else 0.0))


def _image_spec(hub: Hub, modality: str, values: Mapping[str, Any], initialization: SpokeInitialization) -> SpokeSpec:
    trained_window = hub.trained_windows.get(modality)
    length = _window(hub, modality, values) or IMAGE_WINDOW
    frames = trained_window.frames if trained_window else 1
    method = initialization.method or "lora"
    return SpokeSpec(modality, "image", hub.id, hub.dimension, method, length, frames, rank=max(1, initialization.rank))


def _series_spec(
    hub: Hub, modality: str, values: Mapping[str, Any], initialization: SpokeInitialization, recordings: Sequence[Path]
) -> SpokeSpec:
    """The spec of a spoke for audio, for IMU data or for a user-defined modality."""
    if initialization.method not in (None, "whole"):
        raise SpaceError(f"--method {initialization.method} is for images; a spoke for '{modality}' is trained whole")
    length = _window(hub, modality, values)
    if not length:
        raise SpaceError(f"set {modality}.window in the parameter file (--config): the length of a window in seconds")
    rate = IMU_RATE if modality == IMU else float(values.get(f"{modality}.rate", 0.0))
    if modality == AUDIO:
        kind, channels = "sound", 0
    else:
        kind, channels = "series", IMU_CHANNELS if modality == IMU else reading_size(recordings, modality, values)
    return SpokeSpec(modality, kind, hub.id, hub.dimension, "whole", length, 0, rate, channels)


def reading_size(recordings: Sequence[Path], modality: str, values: Mapping[str, Any]) -> int:
    """How many numbers a reading of a user-defined modality has: as many as the first one in the first recording.

    Raises `SensebindError` if there is none.
    """
    if not recordings:
        raise SensebindError(f"files can be read for the built-in modalities only: give recordings for '{modality}'")
    with open_replay(recordings[0], values, (modality,)) as replay:
        for sample in replay.samples():
            if isinstance(sample, Sample) and isinstance(sample.data, Reading):
                return int(sample.data.values.size)
            if not isinstance(sample, Sample):
                raise SensebindError(f"'{recordings[0]}', {modality}: {sample.message}")
    raise SensebindError(
        f"'{recordings[0]}' has no message of '{modality}': set {modality}.topic in the parameter file"
    )
