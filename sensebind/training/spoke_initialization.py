"""The spoke that a training starts from: one in a file, or a new one."""

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

IMU_RATE = 200.0  # Hz of the input of a new spoke for motion
IMU_CHANNELS = 6
IMAGE_WINDOW = 0.25  # s of a new spoke for images, where neither the config nor the hub says


@dataclass(frozen=True)
class SpokeInitialization:
    """What is asked of the first spoke. `file`: a spoke file to start from; None: the hub's own for this modality, if
    any, unless `scratch`. `method` is whole, head or lora (None: lora for images, else whole), `rank` that of LoRA,
    `seed` that of a new spoke's weights."""

    file: Path | None = None
    scratch: bool = False
    method: str | None = None
    rank: int = 8
    seed: int = 0


def training_parameters(file: Path | None, modality: str) -> Mapping[str, Any]:
    """The embedder's parameters of `modality` and vision: from a parameter file, else the defaults. Raises
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
    """The spoke to train for `modality`, as `initialization` asks for it.

    `values` are the embedder's parameters. The first of `recordings` says how many numbers a modality of the user's
    own has. Raises `SpaceError` for a spoke of another modality or hub and for a method that does not fit the
    modality, `AlignError` for a window of another length, and `SensebindError` where the numbers are not known.
    """
    shipped = next((path for path in hub.shipped_spokes if path.stem == modality), None)
    file = initialization.file or (
        shipped if not initialization.scratch and initialization.method in (None, "lora") else None
    )
    torch.manual_seed(initialization.seed)
    if file is not None:
        spec = spokes.read_spec(file)
        if spec.modality != modality or spec.hub != hub.id:
            raise SpaceError(f"spoke '{file}' is for {spec.modality} and {spec.hub}, not {modality} and {hub.id}")
        spoke = Spoke(spec, hub)
        spokes.load_weights(spoke, file)
    elif modality in (VISION, DEPTH, THERMAL):
        spoke = Spoke(_image_spec(hub, modality, values, initialization), hub)
    else:
        spoke = Spoke(_series_spec(hub, modality, values, initialization, recordings), hub)
    window = values[f"{modality}.window"]
    if spoke.spec.kind != "image" and window and window != spoke.spec.length:
        raise AlignError(f"{modality}.window is {window:g} s, the spoke's is {spoke.spec.length:g} s: --scratch")
    return spoke


def _window(hub: Hub, modality: str, values: Mapping[str, Any]) -> float:
    """Seconds: the config's, else the hub's, else 0."""
    aperture = hub.trained_windows.get(modality)
    return float(values[f"{modality}.window"] or (aperture.length if aperture else 0.0))


def _image_spec(hub: Hub, modality: str, values: Mapping[str, Any], initialization: SpokeInitialization) -> SpokeSpec:
    aperture = hub.trained_windows.get(modality)
    length = _window(hub, modality, values) or IMAGE_WINDOW
    frames = aperture.frames if aperture else 1
    method = initialization.method or "lora"
    return SpokeSpec(modality, "image", hub.id, hub.dimension, method, length, frames, rank=max(1, initialization.rank))


def _series_spec(
    hub: Hub, modality: str, values: Mapping[str, Any], initialization: SpokeInitialization, recordings: Sequence[Path]
) -> SpokeSpec:
    """Of sound, of motion, or of numbers of the user's own."""
    if initialization.method not in (None, "whole"):
        raise SpaceError(f"--method {initialization.method} is for images; a spoke for '{modality}' is trained whole")
    length = _window(hub, modality, values)
    if not length:
        raise SpaceError(f"set {modality}.window in the config: how many seconds a window holds")
    rate = IMU_RATE if modality == IMU else float(values.get(f"{modality}.rate", 0.0))
    if modality == AUDIO:
        kind, channels = "sound", 0
    else:
        kind, channels = "series", IMU_CHANNELS if modality == IMU else reading_size(recordings, modality, values)
    return SpokeSpec(modality, kind, hub.id, hub.dimension, "whole", length, 0, rate, channels)


def reading_size(recordings: Sequence[Path], modality: str, values: Mapping[str, Any]) -> int:
    """How many numbers a reading of the user's own modality has: those of the first reading of the first recording.

    Raises `SensebindError` where there is none.
    """
    if not recordings:
        raise SensebindError(f"files are read for the known senses only: give recordings for '{modality}'")
    with open_replay(recordings[0], values, (modality,)) as replay:
        for sample in replay.samples():
            if isinstance(sample, Sample) and isinstance(sample.data, Reading):
                return int(sample.data.values.size)
            if not isinstance(sample, Sample):
                raise SensebindError(f"'{recordings[0]}', {modality}: {sample.message}")
    raise SensebindError(f"'{recordings[0]}' has no message for '{modality}': name its topic")
