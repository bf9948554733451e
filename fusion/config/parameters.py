"""The parameters of each executable, and the check of their values.

Each part of an executable declares its parameters in an options dataclass. The parameters of an executable that belong
to no part are declared here.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import (
    USER_DEFINED,
    Options,
    Parameter,
    options_with_values,
    parameter,
    parameters_of,
)
from sensebind.fusion.core.samples import SENSOR_MODALITIES, TEXT
from sensebind.fusion.core.windows import WindowOptions
from sensebind.fusion.events.change import ChangeDetector
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.fault import FaultDetector
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.inference.options import EngineOptions
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.models.registry import SpaceOptions
from sensebind.fusion.stream.options import StreamOptions

LOG = logging.getLogger(__name__)
# Parameters whose names end in a label, which the user chooses.
PROMPT_PREFIX = "prompts."  # a list of phrases
ONSET_THRESHOLD_PREFIX = "prompt.onset_thresholds."  # a number
# Parameters that ROS declares on a node, by name and by the beginning of the name. `ros2 param dump` writes them.
ROS_NODE_PARAMETERS = ("use_sim_time", "start_type_description_service")
ROS_NODE_PREFIXES = ("qos_overrides.",)

DETECTOR_TYPES: Mapping[str, type[Detector]] = {
    "prompt": PromptDetector,
    "novelty": NoveltyDetector,
    "disagreement": DisagreementDetector,
    "change": ChangeDetector,
    "fault": FaultDetector,
}


# Names that a user-defined modality cannot have.
RESERVED_MODALITY_NAMES = (TEXT, FUSED, PROMPT_PREFIX.rstrip("."), *DETECTOR_TYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderNodeOptions(Options):
    """Parameters of `embedder` that belong to none of its parts. Raises `ConfigError`."""

    modalities: tuple[str, ...] = parameter(
        SENSOR_MODALITIES, "Modalities to subscribe to. A user-defined one needs <modality>.fields"
    )
    autostart: bool = parameter(
        True, "Configure and activate when the process starts. False: a lifecycle manager does it"
    )
    idle_timeout: float = parameter(
        0.5,
        "Time without a message after which a sensor's complete windows close, without waiting for `lateness`. Live "
        "only",
        bounds=(0.05, 60.0),
        unit="s",
        formerly="idle",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorNodeOptions(Options):
    """Parameters of `detector` that belong to none of its detectors. Raises `ConfigError`."""

    detectors: tuple[str, ...] = parameter(
        tuple(DETECTOR_TYPES),
        "Detectors to run. prompt runs only if a label has a phrase",
        choices=tuple(DETECTOR_TYPES),
    )
    tick_timeout: float = parameter(
        1.0,
        "Time, by stamps, that a tick waits for missing vectors. 0: no waiting",
        bounds=(0.0, 60.0),
        unit="s",
        formerly="patience",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeNodeOptions(Options):
    """Parameters of `bridge`. Raises `ConfigError`."""

    address: str = parameter(
        "tcp://127.0.0.1:7447",
        "Address of the ZeroMQ PUB socket: tcp://HOST:PORT or ipc://PATH. One that other machines can reach needs "
        "keys. If the default is in use, the bridge takes the next free port up to 7462",
    )
    secret_key: str = parameter(
        "", "File of the bridge's CURVE secret key, from `sensebind keys`. Set it with `authorized_keys`, or neither"
    )
    authorized_keys: str = parameter(
        "", "Folder of the public keys of the clients that may connect. Set it with `secret_key`, or neither"
    )
    client_queue_size: int = parameter(
        1000,
        "Messages that may wait for one slow client. Further ones to that client are dropped",
        bounds=(1, 10**6),
        formerly="queue_size",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayerNodeOptions(Options):
    """Parameters of `player`. Raises `ConfigError` for a wrong value."""

    recording: str = parameter("", "Bag to play (required): a folder, or an .mcap, .db3 or .bag file")
    rate: float = parameter(1.0, "Playback speed. 1: as recorded", bounds=(0.01, 100.0))
    loop: bool = parameter(False, "Start again at the end")
    clock: bool = parameter(True, "Publish /clock. A recorded /clock is then not played")
    delay: float = parameter(
        2.0, "Shortest wait before the first message, so that subscribers connect", bounds=(0.0, 60.0), unit="s"
    )
    topics: tuple[str, ...] = parameter((), "Topics to play. Empty: all")


def sensor_parameters(modality: str) -> list[Parameter]:
    """All parameters of one sensor, `<modality>.<name>`."""
    parts = (SensorOptions(modality), WindowOptions())
    return [p for part in parts for p in parameters_of(part, f"{modality}.", _modality_key(modality))]


def sensor_options(values: Mapping[str, Any], modality: str) -> SensorOptions:
    """The options of one sensor's messages, from the embedder's parameters. Raises `ConfigError`."""
    return options_with_values(SensorOptions(modality), values, f"{modality}.", _modality_key(modality))


def window_options(values: Mapping[str, Any], modality: str) -> WindowOptions:
    """The options of one modality's windows, from the embedder's parameters. Raises `ConfigError`."""
    return options_with_values(WindowOptions(), values, f"{modality}.", _modality_key(modality))


def _modality_key(modality: str) -> str:
    """The modality; `USER_DEFINED` if it is not one of `SENSOR_MODALITIES`."""
    return modality if modality in SENSOR_MODALITIES else USER_DEFINED


def embedder_parameters(modalities: Sequence[str] = ()) -> list[Parameter]:
    """All parameters of `embedder` and of `sensebind replay`.

    They include those of all `SENSOR_MODALITIES`, used or not, and of user-defined `modalities`.
    """
    parts = (SpaceOptions(), EmbedderNodeOptions(), StreamOptions(), EngineOptions())
    common = [p for part in parts for p in parameters_of(part)]
    sensors = dict.fromkeys([*SENSOR_MODALITIES, *modalities])
    return common + [p for modality in sensors for p in sensor_parameters(modality)]


def detector_parameters() -> list[Parameter]:
    """All parameters of `detector`, except those whose names end in a label (`label_parameter`)."""
    own = [p for name, detector in DETECTOR_TYPES.items() for p in parameters_of(detector.default_options, f"{name}.")]
    return parameters_of(DetectorNodeOptions()) + own


NODE_PARAMETERS: Mapping[str, Callable[[], list[Parameter]]] = {  # executable → all its parameters
    "embedder": embedder_parameters,
    "detector": detector_parameters,
    "bridge": lambda: parameters_of(BridgeNodeOptions()),
    "player": lambda: parameters_of(PlayerNodeOptions()),
}


def label_parameter(name: str) -> Parameter | None:
    """The declaration of a parameter whose name ends in a label; None for any other name."""
    if name.startswith(PROMPT_PREFIX):
        return Parameter(name, [], "Phrases that mean this label. Empty: the label is not detected")
    if name.startswith(ONSET_THRESHOLD_PREFIX):
        common = next(p for p in detector_parameters() if p.name == "prompt.onset_threshold")
        return replace(
            common,
            name=name,
            formerly="",
            description="Onset threshold of this label. Its offset threshold keeps the ratio of "
            "`prompt.offset_threshold` to `prompt.onset_threshold`",
        )
    return None


def parameters_of_other_nodes(node: str, given: Mapping[str, Any] | None = None) -> set[str]:
    """Names of the parameters of all other nodes: a file for several nodes may contain them.

    `given`: the values in the file, which may name user-defined modalities.
    """
    found = [p for other, parameters in NODE_PARAMETERS.items() if other != node for p in parameters()]
    names = {p.name for p in found} | {p.formerly for p in found if p.formerly}
    modalities = (given or {}).get("modalities") or []
    if node != "embedder" and isinstance(modalities, list):
        names |= {p.name for p in embedder_parameters([m for m in modalities if isinstance(m, str)])}
    return names


def old_names(parameters: Iterable[Parameter]) -> dict[str, str]:
    """Name in the previous version → current name, for each renamed parameter."""
    return {p.formerly: p.name for p in parameters if p.formerly}


def renamed(old: str, new: str) -> str:
    """The warning for a parameter that is set by its old name."""
    return f"parameter '{old}' is now called '{new}'; the next version will not accept the old name"


def resolve_values(
    parameters: Iterable[Parameter],
    values: Mapping[str, Any],
    other_names: Iterable[str] = (),
    warn: Callable[[str], None] = LOG.warning,
) -> dict[str, Any]:
    """The value of every parameter: the one in `values`, or else the default.

    Names that end in a label (`label_parameter`) have a value only if `values` has one. Names in `other_names` belong
    to other nodes, and ROS declares `ROS_NODE_PARAMETERS`: both are ignored. A value of None, as in a dump of a
    parameter that is not set, counts as missing. `warn` is called for each name of the previous version; if `values`
    has the current name too, its value is used. Raises `ConfigError` for a wrong value, and for an unknown name, with
    the most similar known name.
    """
    parameters = list(parameters)
    known = {p.name: p for p in parameters}
    old = old_names(parameters)
    result: dict[str, Any] = {name: p.default for name, p in known.items()}
    elsewhere = set(other_names)
    for given, value in values.items():
        name = old.get(given, given)
        if name != given:
            warn(renamed(given, name))
            if values.get(name) is not None:
                continue
        declared = known.get(name) or label_parameter(name)
        if declared is not None:
            if value is not None:
                is_phrase = name.startswith(PROMPT_PREFIX) and isinstance(value, str)
                result[name] = declared.check([value] if is_phrase else value)
        elif name not in elsewhere and name not in ROS_NODE_PARAMETERS and not name.startswith(ROS_NODE_PREFIXES):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"there is no parameter '{name}'{hint}")
    return result


def modalities_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The modalities that the parameter `modalities` names, in its order. Raises `ConfigError`."""
    wanted = options_with_values(EmbedderNodeOptions(), values).modalities
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigError(
            f"parameter 'modalities' must name some of {', '.join(SENSOR_MODALITIES)} once each, not {list(wanted)!r}"
        )
    for modality in wanted:
        if modality not in SENSOR_MODALITIES and not values.get(f"{modality}.fields"):
            raise ConfigError(
                f"parameter 'modalities' names '{modality}', which is not one of {', '.join(SENSOR_MODALITIES)}: for a "
                f"user-defined modality, set '{modality}.fields' to the paths of its numbers"
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", modality) or modality in RESERVED_MODALITY_NAMES:
            raise ConfigError(
                f"'{modality}' cannot be the name of a modality: use lower-case letters, digits and _, and not one of "
                f"{', '.join(RESERVED_MODALITY_NAMES)}"
            )
    return wanted


def embedder_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every parameter of the embedder: the given one, or else the default. Raises `ConfigError`."""
    return resolve_values(embedder_parameters(modalities_of(given)), given, parameters_of_other_nodes("embedder"))


def detector_values(given: Mapping[str, Any], embedder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The value of every parameter of the detector: the given one, or else the default. Raises `ConfigError`.

    `embedder`: the values that the same file sets for the embedder; their names are ignored.
    """
    others = parameters_of_other_nodes("detector", {**given, **(embedder or {})})
    return resolve_values(detector_parameters(), given, others)
