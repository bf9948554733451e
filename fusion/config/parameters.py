"""The parameters of each executable, and the check of their values.

Each part of an executable declares its parameters in an options dataclass. The parameters of an executable that belong
to no part are declared here.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.errors import ConfigError, printable
from sensebind.fusion.core.events import EventKind
from sensebind.fusion.core.parameters import (
    USER_DEFINED,
    Effect,
    Options,
    Parameter,
    options_with_values,
    parameter,
    parameters_of,
)
from sensebind.fusion.core.samples import AUDIO, SENSOR_MODALITIES, TEXT
from sensebind.fusion.core.windows import WindowOptions
from sensebind.fusion.events.change import ChangeDetector
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.fault import CONFIGURED_SENSORS, FaultDetector
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.inference.options import EngineOptions
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.io.topic_names import MAX_NAME_LENGTH, MAX_SENSORS, NAME_PATTERN, bare_name
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


def _autostart() -> Any:
    """The parameter `autostart` of a lifecycle node."""
    return parameter(
        True,
        "Configure and activate when the process starts. False: a lifecycle manager does it",
        effect=Effect.START,
    )


# Names that a user-defined modality cannot have.
RESERVED_MODALITY_NAMES = (TEXT, FUSED, PROMPT_PREFIX.rstrip("."), *DETECTOR_TYPES)
# Names that the user's sensors cannot have: `fault.expected: [configured]` and `fault:embeddings:stopped` mean
# something else, and ROS declares parameters that begin with `qos_overrides.`.
RESERVED_SENSOR_NAMES = (
    *SENSOR_MODALITIES, *RESERVED_MODALITY_NAMES, CONFIGURED_SENSORS, "embeddings", "qos_overrides"
)  # fmt: skip
MAX_SHOWN_LENGTH = 200  # characters of a name from a file in an error


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderNodeOptions(Options):
    """Parameters of `embedder` that belong to none of its parts. Raises `ConfigError`."""

    modalities: tuple[str, ...] = parameter(
        SENSOR_MODALITIES,
        "Modalities to subscribe to. A user-defined one needs <modality>.fields, or <sensor>.fields of each of its "
        "sensors",
    )
    robots: tuple[str, ...] = parameter(
        (),
        "Robots that share the space and the device. Each name is a namespace, in which the topics of the robot are, "
        "with the same parameters for all. Empty: one robot, in the namespace of the embedder. Live only",
        effect=Effect.CONFIGURE,
    )
    workers: int = parameter(
        0,
        "Processes that receive, check and prepare the data of `robots`. With a GPU, set one for every two to four "
        "robots. 0: the embedder does it itself",
        bounds=(0, 64),
        effect=Effect.CONFIGURE,
    )
    autostart: bool = _autostart()
    idle_timeout: float = parameter(
        0.5,
        "Time without a message after which a sensor's complete windows close, without waiting for `lateness`. Live "
        "only",
        bounds=(0.05, 60.0),
        unit="s",
        formerly="idle",
        effect=Effect.AT_ONCE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorNodeOptions(Options):
    """Parameters of `detector` that belong to none of its detectors. Raises `ConfigError`."""

    effect = Effect.AT_ONCE

    autostart: bool = _autostart()
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

    autostart: bool = _autostart()
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

    effect = Effect.START

    recording: str = parameter("", "Bag to play (required): a folder, or an .mcap, .db3 or .bag file")
    rate: float = parameter(1.0, "Playback speed. 1: as recorded", bounds=(0.01, 100.0))
    loop: bool = parameter(False, "Start again at the end")
    clock: bool = parameter(True, "Publish /clock. A recorded /clock is then not played")
    delay: float = parameter(
        2.0, "Shortest wait before the first message, so that subscribers connect", bounds=(0.0, 60.0), unit="s"
    )
    topics: tuple[str, ...] = parameter((), "Topics to play. Empty: all")
    wait_for: tuple[str, ...] = parameter(
        (), "Topics of the recording that must have a subscriber before the first message. Empty: play without any"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecorderOptions(Options):
    """Parameters of `event_recorder`. Raises `ConfigError`."""

    effect = Effect.AT_ONCE

    autostart: bool = _autostart()
    snapshot_service: str = parameter(
        "/rosbag2_recorder/snapshot",
        "Service of the recorder, rosbag2_interfaces/srv/Snapshot. That of `ros2 bag record --snapshot-mode`; with "
        "`--node-name NAME` it is /NAME/snapshot",
        effect=Effect.CONFIGURE,
    )
    event_kinds: tuple[str, ...] = parameter(
        (),
        "Kinds of events to record. Empty: all",
        choices=tuple(kind.name.lower() for kind in EventKind),
    )
    event_labels: tuple[str, ...] = parameter(
        (), "Labels of events to record, such as person, or fault:thermal:frozen. Empty: all"
    )
    snapshot_delay: float = parameter(
        0.0,
        "Time from the report of an onset to the snapshot, in which the recorder collects more. 0: at once",
        bounds=(0.0, 600.0),
        unit="s",
    )
    snapshot_interval: float = parameter(
        10.0,
        "Shortest time from one snapshot to the next. Onsets in it are counted, not recorded",
        bounds=(0.0, 86400.0),
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class ModalityOptions(Options):
    """Which sensors a modality has. Raises `ConfigError`."""

    sensors: tuple[str, ...] = parameter(
        (),
        "Names of the sensors of this modality, if it has several. Each has the parameters of the modality under its "
        "own name, such as front.topic; their defaults are the values of the modality. Empty: one sensor, which is "
        "named as the modality",
    )


# Their values for a named sensor are its own.
OWN_PARAMETERS = ("topic", "camera_info_topic", "info_topic", "acceleration_topic")
MODALITY_PARAMETERS = ("fusion_weight",)  # which a named sensor does not have: they are of the whole modality


def modality_parameters(modality: str) -> list[Parameter]:
    """All parameters of one modality, `<modality>.<name>`: its sensors, and the parameters of each of them."""
    parts = (ModalityOptions(), *_sensor_parts(modality))
    return [p for part in parts for p in parameters_of(part, f"{modality}.", _modality_key(modality))]


def sensor_parameters(modality: str, sensor: str, given: Mapping[str, Any]) -> list[Parameter]:
    """All parameters of a named sensor, `<sensor>.<name>`. Their defaults are the modality's values in `given`. Raises
    `ConfigError` for a value of a wrong type or out of range."""
    found = []
    for part in _sensor_parts(modality):
        for declared in parameters_of(part, "", _modality_key(modality)):
            if declared.name in MODALITY_PARAMETERS:
                continue
            of_modality = replace(declared, name=f"{modality}.{declared.name}")
            value = given.get(of_modality.name)
            default = declared.default if value is None or declared.name in OWN_PARAMETERS else of_modality.check(value)
            found.append(replace(declared, name=f"{sensor}.{declared.name}", default=default, formerly=""))
    return found


def sensor_options(values: Mapping[str, Any], modality: str, sensor: str = "") -> SensorOptions:
    """The options of one sensor's messages, from the embedder's parameters. `sensor`: empty for the only sensor of its
    modality. Raises `ConfigError`."""
    prefix = f"{sensor or modality}."
    return options_with_values(SensorOptions(modality, sensor=sensor), values, prefix, _modality_key(modality))


def window_options(values: Mapping[str, Any], modality: str, sensor: str = "") -> WindowOptions:
    """The options of one sensor's windows, from the embedder's parameters. `sensor`: as in `sensor_options`. Raises
    `ConfigError`."""
    return options_with_values(WindowOptions(), values, f"{sensor or modality}.", _modality_key(modality))


def _sensor_parts(modality: str) -> tuple[SensorOptions, WindowOptions]:
    """The options that each sensor of a modality has."""
    return SensorOptions(modality), WindowOptions()


def _modality_key(modality: str) -> str:
    """The modality; `USER_DEFINED` if it is not one of `SENSOR_MODALITIES`."""
    return modality if modality in SENSOR_MODALITIES else USER_DEFINED


def embedder_parameters(modalities: Sequence[str] = (), given: Mapping[str, Any] | None = None) -> list[Parameter]:
    """All parameters of `embedder` and of `sensebind replay`.

    They include those of all `SENSOR_MODALITIES`, used or not, of user-defined `modalities`, and of the sensors that
    the values `given` name. Raises `ConfigError` for names that sensors cannot have.
    """
    parts = (SpaceOptions(), EmbedderNodeOptions(), StreamOptions(), EngineOptions())
    found = [p for part in parts for p in parameters_of(part)]
    every = list(dict.fromkeys([*SENSOR_MODALITIES, *modalities]))
    for modality in every:
        found += modality_parameters(modality)
    of_sensors: dict[str, Parameter] = {}
    for modality in dict.fromkeys([*modalities, *every]):  # of two with a sensor of one name, the used one is first
        for sensor in _named_sensors(given or {}, modality):
            own = {p.name: p for p in sensor_parameters(modality, sensor, given or {})}
            of_sensors = {**own, **of_sensors}
    return [*found, *of_sensors.values()]


def detector_parameters() -> list[Parameter]:
    """All parameters of `detector`, except those whose names end in a label (`label_parameter`)."""
    own = [p for name, detector in DETECTOR_TYPES.items() for p in parameters_of(detector.default_options, f"{name}.")]
    return parameters_of(DetectorNodeOptions()) + own


NODE_PARAMETERS: Mapping[str, Callable[[], list[Parameter]]] = {  # executable → all its parameters
    "embedder": embedder_parameters,
    "detector": detector_parameters,
    "bridge": lambda: parameters_of(BridgeNodeOptions()),
    "event_recorder": lambda: parameters_of(EventRecorderOptions()),
    "player": lambda: parameters_of(PlayerNodeOptions()),
}


def label_parameter(name: str) -> Parameter | None:
    """The declaration of a parameter whose name ends in a label; None for any other name."""
    if name.startswith(PROMPT_PREFIX):
        return Parameter(
            name, [], "Phrases that mean this label. Empty: the label is not detected", effect=Effect.AT_ONCE
        )
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
    if node != "embedder" and isinstance(modalities, list | tuple):
        names |= {p.name for p in embedder_parameters([m for m in modalities if isinstance(m, str)], given)}
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
        if printable(given) != given:
            raise ConfigError(f"the name of the parameter '{given}' has control characters: remove them")
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
            raise unknown_parameter(name, known)
    return result


def unknown_parameter(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that no parameter has, with the most similar known name."""
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"there is no parameter '{printable(name, MAX_SHOWN_LENGTH)}'{hint}")


def modalities_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The modalities that the parameter `modalities` names, in its order. Raises `ConfigError`."""
    wanted = options_with_values(EmbedderNodeOptions(), values).modalities
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigError(
            f"parameter 'modalities' must name some of {', '.join(SENSOR_MODALITIES)} once each, not {list(wanted)!r}"
        )
    for modality in wanted:
        if modality not in SENSOR_MODALITIES and not _has_fields(values, modality):
            raise ConfigError(
                f"parameter 'modalities' names '{modality}', which is not one of {', '.join(SENSOR_MODALITIES)}: for a "
                f"user-defined modality, set '{modality}.fields' to the paths of its numbers, or '<sensor>.fields' of "
                f"each sensor in '{modality}.sensors'"
            )
        if not NAME_PATTERN.fullmatch(modality) or modality in RESERVED_MODALITY_NAMES:
            raise ConfigError(
                f"'{modality}' cannot be the name of a modality: use lower-case letters, digits and _, and not one of "
                f"{', '.join(RESERVED_MODALITY_NAMES)}"
            )
    return wanted


def robots_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The robots that the parameter `robots` names. Raises `ConfigError` for names that are not namespaces, and for
    topics that all robots would share."""
    robots = options_with_values(EmbedderNodeOptions(), values).robots
    for name in robots:
        if not NAME_PATTERN.fullmatch(name) or robots.count(name) > 1:
            raise ConfigError(
                f"parameter 'robots' names '{name}': use up to {MAX_NAME_LENGTH} lower-case letters, digits and _, "
                "each name once"
            )
    for sensor in sensors_of(values) if robots else ():
        for parameter_name in (f"{sensor}.{name}" for name in OWN_PARAMETERS):
            topic = str(values.get(parameter_name) or "")
            if topic.startswith("/"):
                raise ConfigError(
                    f"parameter '{parameter_name}': '{topic}' would be the topic of all robots: write "
                    f"'{topic.lstrip('/')}', which is /{robots[0]}{topic} for the robot {robots[0]}"
                )
    return robots


def sensors_of(values: Mapping[str, Any], modalities: Sequence[str] | None = None) -> dict[str, str]:
    """Sensor → its modality, in the order of `modalities` and `<modality>.sensors`. Raises `ConfigError`.

    `modalities`: None for those that `values` name. A modality without named sensors has one, which is named as the
    modality.
    """
    found: dict[str, str] = {}
    modalities = modalities_of(values) if modalities is None else modalities
    for modality in modalities:
        for sensor in _named_sensors(values, modality) or (modality,):
            if sensor in found or (sensor != modality and sensor in modalities):
                raise ConfigError(
                    f"parameter '{modality}.sensors' names '{sensor}', which is the name of another sensor or of a "
                    "modality: choose another"
                )
            found[sensor] = modality
        if len(found) > MAX_SENSORS:  # other nodes would refuse the description of the space
            raise ConfigError(
                f"parameter '{modality}.sensors': with these and the sensors of other modalities the robot has "
                f"{len(found)} sensors, and at most {MAX_SENSORS} are possible: name fewer"
            )
    return found


def _has_fields(values: Mapping[str, Any], modality: str) -> bool:
    """Whether the numbers of each sensor of a user-defined modality are known."""
    names = values.get(f"{modality}.sensors") or ()
    of_each = [values.get(f"{name}.fields") for name in names] if isinstance(names, list | tuple) else []
    return bool(values.get(f"{modality}.fields")) or (bool(of_each) and all(of_each))


def _named_sensors(values: Mapping[str, Any], modality: str) -> tuple[str, ...]:
    """The sensors that the parameter `<modality>.sensors` names. Raises `ConfigError` for a name that has another
    meaning."""
    key = f"{modality}.sensors"
    names = options_with_values(ModalityOptions(), {} if values.get(key) is None else values, f"{modality}.").sensors
    if len(names) > MAX_SENSORS:
        raise ConfigError(f"parameter '{key}' names {len(names)} sensors: a robot has at most {MAX_SENSORS}")
    for name in names:
        if not NAME_PATTERN.fullmatch(name) or name in RESERVED_SENSOR_NAMES or names.count(name) > 1:
            raise ConfigError(
                f"parameter '{key}' names '{name}': use up to {MAX_NAME_LENGTH} lower-case letters, digits and _, "
                f"each name once, and not one of {', '.join(RESERVED_SENSOR_NAMES)}"
            )
    return names


def sensor_warnings(values: Mapping[str, Any]) -> list[str]:
    """Warnings about parameters of sensors that do not fit together. Raises `ConfigError`.

    They name parameters of a modality that its named sensors do not use, and sensors that have the same data.
    """
    found = []
    sources: dict[tuple[str, ...], list[str]] = {}  # modality, topic, type and channel → sensors
    for modality in modalities_of(values):
        names = _named_sensors(values, modality)
        for own in OWN_PARAMETERS if names else ():
            if given := values.get(f"{modality}.{own}"):
                found.append(
                    f"parameter '{modality}.{own}' ({given}) has no effect beside '{modality}.sensors' "
                    f"({', '.join(names)}): set '{names[0]}.{own}' and that of each other sensor, or remove one of both"
                )
        for name in names:
            options = sensor_options(values, modality, name)
            numbers = options.fields if modality not in SENSOR_MODALITIES else ()
            key = (modality, bare_name(options.topic_name), options.transport, options.audio_format.channel, *numbers)
            sources.setdefault(key, []).append(name)
    for (modality, topic, *_), sensors in sources.items():
        if len(sensors) > 1:
            what = "topic and channel" if modality == AUDIO else "topic"
            settings = " and ".join(f"'{sensor}.topic'" for sensor in sensors)
            found.append(
                f"the sensors {' and '.join(sensors)} for {modality} have the same {what} ('{topic}') and so the same "
                f"data: set {settings} to different topics"
                + (f", or '{sensors[-1]}.channel' to another channel" if modality == AUDIO else "")
            )
    return found


def embedder_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every parameter of the embedder: the given one, or else the default. Raises `ConfigError`."""
    sensors_of(given)
    parameters = embedder_parameters(modalities_of(given), given)
    return resolve_values(parameters, given, parameters_of_other_nodes("embedder"))


def detector_values(given: Mapping[str, Any], embedder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The value of every parameter of the detector: the given one, or else the default. Raises `ConfigError`.

    `embedder`: the values that the same file sets for the embedder; their names are ignored.
    """
    others = parameters_of_other_nodes("detector", {**given, **(embedder or {})})
    return resolve_values(detector_parameters(), given, others)
