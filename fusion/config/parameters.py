"""Every parameter: its name, default, range and meaning. Nodes declare them, files set them, the CLI reads them.

Files are ROS parameter files (`/**: ros__parameters:`), so a robot and the command line share one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMAGE_MODALITIES,
    IMU,
    SECOND,
    SENSOR_MODALITIES,
    TEXT,
    THERMAL,
    VISION,
    Calibration,
)
from sensebind.fusion.core.space import Aperture
from sensebind.fusion.core.windows import WindowSpec

FREE = ("prompts.",)  # names that the user makes up: `prompts.<label>` is a list of phrases

DETECTORS = ("prompt", "novelty", "disagreement", "change", "fault")

Value = bool | int | float | str | list[str]

TOPICS = {  # relative names of the sensor topics
    VISION: "camera/image",
    DEPTH: "depth/image",
    THERMAL: "thermal/image",
    AUDIO: "audio",
    IMU: "imu",
}


class ConfigError(SensebindError):
    """A parameter or a parameter file that cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as ROS knows it. `minimum` and `maximum` bound numbers, `choices` bounds strings."""

    name: str
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Value:
        """`value` in this parameter's type. Raises `ConfigError`."""
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is list and isinstance(value, tuple | list) and all(isinstance(v, str) for v in value):
            value = list(value)
        elif type(value) is not kind:
            raise ConfigError(f"parameter '{self.name}' must be a {_kind(self.default)}, not {value!r}")
        if isinstance(value, float | int) and not isinstance(value, bool):
            low, high = self.minimum, self.maximum
            if value != value or (low is not None and value < low) or (high is not None and value > high):
                bounds = " and ".join(
                    f"{word} {bound:g}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
                )
                raise ConfigError(f"parameter '{self.name}' must be {bounds or 'a number'}, not {value!r}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"parameter '{self.name}' must be one of {', '.join(self.choices)}, not {value!r}")
        return value  # type: ignore[return-value]  # its type was compared with the default's above


def _kind(default: Value) -> str:
    names = {bool: "boolean", int: "whole number", float: "number", str: "string", list: "list of strings"}
    return names[type(default)]


def embedder_parameters(modalities: Sequence[str] = SENSOR_MODALITIES) -> list[Parameter]:
    """All parameters of `embedder` (and of `sensebind replay`) for these modalities."""
    common = [
        Parameter("space", "starter", "Space to embed into: starter, imagebind_huge or a registered one"),
        Parameter("weights", "", "Weight file or folder of the space; empty: the ones it comes with"),
        Parameter("spokes", [], "Files of spokes, made by sensebind align, that come before the space's own"),
        Parameter("dtype", "auto", "Precision of the encoders", choices=("auto", "float32", "bf16", "fp16")),
        Parameter("device", "auto", "Device of the encoders: cpu, cuda, cuda:1, … or auto"),
        Parameter("modalities", list(modalities), "Senses to take in"),
        Parameter("autostart", True, "Configure and activate without a lifecycle manager"),
        Parameter(
            "patience", 1.0, "Seconds by which a sense may fall behind the newest before it is not awaited", 0.0, 60.0
        ),
        Parameter("queue_size", 16, "Closed windows of one sense that may wait for the device", 1, 10_000),
        Parameter(
            "deadline", 1.0, "Seconds that a window may wait before newer ones go first; 0: no bound", 0.0, 3600.0
        ),
        Parameter("batch_size", 16, "Windows of one sense that are embedded together at most", 1, 1024),
        Parameter("idle", 0.5, "Seconds of silence of a topic after which its whole windows close", 0.05, 60.0),
    ]
    return common + [p for modality in modalities for p in _modality_parameters(modality)]


def _modality_parameters(modality: str) -> list[Parameter]:
    image = modality in IMAGE_MODALITIES
    parameters = [
        Parameter("topic", "", f"Topic; empty: {TOPICS.get(modality, modality)}, or found in a recording"),
        Parameter("hop", 0.5, "Seconds from one window to the next", 0.01, 3600.0),
        Parameter("window", 0.0, "Seconds that a window holds; 0: what the space was trained with", 0.0, 3600.0),
        Parameter("lateness", 0.05, "Seconds that a message may be late and still be in its windows", 0.0, 60.0),
        Parameter("min_coverage", 0.5, "Share of a window that must hold valid data", 0.0, 1.0),
        Parameter("max_gap", 10.0, "Seconds of silence after which windows start afresh", 0.1, 86400.0),
        Parameter("fusion_weight", 1.0, "Weight in the fused vector, times coverage", 0.0, 1000.0),
    ]
    if image:
        parameters += [
            Parameter("transport", "raw", "Message type of the topic", choices=("raw", "compressed")),
            Parameter("frames", 0, "Frames that stand for a window; 0: what the space was trained with", 0, 64),
        ]
    if modality in (VISION, DEPTH):
        parameters.append(Parameter("camera_info", "", "CameraInfo topic; empty: beside the image topic"))
    if modality not in SENSOR_MODALITIES:
        parameters += [
            Parameter("type", "", "Message type of the topic; empty: the one that is published"),
            Parameter("fields", [], "Paths of its numbers: data, wrench.force.x, ranges[0:360]; this makes a sense"),
            Parameter("rate", 10.0, "Hz at which its spoke takes them in", 0.01, 10_000.0),
            Parameter("fill", 0.0, "What stands for a number that is not finite", -1e9, 1e9),
        ]
    if modality == DEPTH:
        parameters += [
            Parameter("unit", 0.001, "Metres per count of an integer depth image (REP-118: 0.001)", 1e-6, 1.0),
            Parameter("focal_length", 0.0, "Focal length in pixels where no CameraInfo tells; 0: not known", 0.0, 1e5),
            Parameter("focal_width", 640, "Width in pixels of the image that focal_length is of", 1, 65536),
            Parameter(
                "baseline", 0.0, "Stereo baseline in metres; 0: from CameraInfo, or the space's default", 0.0, 10.0
            ),
        ]
    if modality == THERMAL:
        parameters += [
            Parameter("unit", 0.01, "Kelvin per count of a 16-bit thermal image", 1e-6, 1000.0),
            Parameter("offset", 0.0, "Kelvin at count 0 of a 16-bit thermal image", -1000.0, 1000.0),
        ]
    if modality == AUDIO:
        parameters += [
            Parameter(
                "type", "", "Message type; empty: the one that is published, e.g. audio_common_msgs/msg/AudioData"
            ),
            Parameter("info_topic", "", "AudioInfo topic; empty: <topic's namespace>/info and audio_info"),
            Parameter("sample_rate", 0, "Hz where no message tells; 0: from the messages", 0, 768_000),
            Parameter("channels", 0, "Channels where no message tells; 0: from the messages", 0, 64),
            Parameter("sample_format", "", "S16LE, S32LE, F32LE, … where no message tells"),
        ]
    return [
        Parameter(f"{modality}.{p.name}", p.default, p.description, p.minimum, p.maximum, p.choices) for p in parameters
    ]


def detector_parameters() -> list[Parameter]:
    """All parameters of `detector`, but for `prompts.<label>`: one list of phrases for each label."""
    prompt = [
        Parameter(
            "prompt.threshold", 3.0, "Deviations over the background at which one sense's score is 1/2", 0.0, 20.0
        ),
        Parameter("prompt.rivalry", 0.5, "Share of a better label's lead that is taken off", 0.0, 2.0),
        Parameter("prompt.trust", 0.7, "How much of a label's usual level in this stream is taken off", 0.0, 1.0),
        Parameter("prompt.maturity", 10.0, "Seconds after which that level counts half", 0.1, 3600.0),
        Parameter("prompt.min_modalities", 1, "Senses that must support an event", 1, 16),
        Parameter("prompt.background", [], "Phrases to stand out against, 8 or more; empty: a list of ordinary things"),
        Parameter("prompt.smoothing", 0.0, "Seconds over which the median of the scores is taken", 0.0, 60.0),
        Parameter(
            "prompt.calibration",
            "",
            "File made by sensebind calibrate, in place of slope and threshold; empty: the space's own; none",
        ),
        Parameter("prompt.sure", 0.95, "Score at which an event is reported at once; 1: always wait", 0.01, 1.0),
    ]
    novelty = [
        Parameter("novelty.threshold", 4.0, "Deviations over the usual distance at which the score is 1/2", 0.0, 20.0),
        Parameter("novelty.habituation", 4.0, "Seconds after which what is perceived is known", 0.1, 3600.0),
        Parameter("novelty.half_life", 600.0, "Seconds after which what is not perceived weighs half", 1.0, 1e6),
        Parameter("novelty.warm_up", 10.0, "Seconds in which nothing is unusual", 0.1, 3600.0),
    ]
    disagreement = [
        Parameter(
            "disagreement.threshold", 4.0, "Deviations under the usual agreement at which the score is 1/2", 0.0, 20.0
        ),
        Parameter("disagreement.warm_up", 10.0, "Seconds in which no pair disagrees", 0.1, 3600.0),
    ]
    change = [
        Parameter("change.false_alarms_per_hour", 1.0, "Changes told in an hour of a stream without any", 0.001, 1e3),
        Parameter("change.warm_up", 15.0, "Seconds in which nothing changes, and after a change", 1.0, 3600.0),
        Parameter("change.memory", 60.0, "Seconds over which the usual is averaged", 1.0, 86400.0),
    ]
    fault = [
        Parameter("fault.causes", [], "Faults to tell: dark, frozen, unplugged, …; empty: all"),
        Parameter("fault.silence", 1.25, "Seconds without a vector after which a sense is unplugged", 0.1, 3600.0),
        Parameter("fault.expected", [], "Senses that must be there from the start, or [configured]: all of them"),
    ]
    result = [
        Parameter("detectors", list(DETECTORS), "Detectors to run"),
        Parameter("patience", 1.0, "Seconds by which a tick's vectors may trail its fused one", 0.0, 60.0),
    ]
    for kind, own, on, off, min_duration in (
        ("prompt", prompt, 0.6, 0.35, 0.5),
        ("novelty", novelty, 0.6, 0.35, 1.0),
        ("disagreement", disagreement, 0.6, 0.35, 1.0),
    ):
        result += [
            *own,
            Parameter(f"{kind}.slope", 1.5, "Nats of score for each deviation", 0.1, 10.0),
            Parameter(f"{kind}.memory", 60.0, "Seconds over which the usual is averaged", 1.0, 86400.0),
            Parameter(f"{kind}.on", on, "Score at which an event begins", 0.01, 0.99),
            Parameter(f"{kind}.off", off, "Score below which it is over; at most `on`", 0.01, 0.99),
            *_life(kind, min_duration, 1.0, 1.0),
        ]
    return result + change + _life("change", 0.0, 0.0, 3.0) + fault + _life("fault", 0.5, 1.5, 5.0)


def _life(kind: str, min_duration: float, release: float, update_period: float) -> list[Parameter]:
    return [
        Parameter(f"{kind}.min_duration", min_duration, "Seconds that it lasts before it is reported", 0.0, 3600.0),
        Parameter(f"{kind}.release", release, "Seconds below `off` after which it is over", 0.0, 3600.0),
        Parameter(f"{kind}.refractory", 0.0, "Seconds after it before another of its label", 0.0, 3600.0),
        Parameter(f"{kind}.update_period", update_period, "Seconds from one update to the next", 0.0, 3600.0),
    ]


def bridge_parameters() -> list[Parameter]:
    """All parameters of `bridge`."""
    return [
        Parameter("address", "tcp://127.0.0.1:7447", "ZeroMQ address that the PUB socket binds to"),
        Parameter("secret_key", "", "CURVE secret key file of the server, made by `sensebind keys`"),
        Parameter("authorized_keys", "", "Folder of CURVE public keys of the clients that may connect"),
        Parameter(
            "queue_size", 1000, "Messages that may wait for one slow client; the newest are dropped then", 1, 10**6
        ),
    ]


def player_parameters() -> list[Parameter]:
    """All parameters of `player`."""
    return [
        Parameter("recording", "", "Bag to play: a folder, or an .mcap, .db3 or .bag file"),
        Parameter("rate", 1.0, "Speed, relative to how it was recorded", 0.01, 100.0),
        Parameter("loop", False, "Begin again at the end"),
        Parameter("clock", True, "Publish /clock"),
        Parameter(
            "delay", 2.0, "Seconds to wait at least before the first message, for subscribers to be found", 0.0, 60.0
        ),
        Parameter("topics", [], "Topics to play; empty: all"),
    ]


def parameters_of(node: str) -> list[Parameter]:
    """All parameters of the node called `node`."""
    return {
        "embedder": embedder_parameters,
        "detector": detector_parameters,
        "bridge": bridge_parameters,
        "player": player_parameters,
    }[node]()


def names_of_others(node: str, given: Mapping[str, Any] | None = None) -> set[str]:
    """Names of parameters that a file may give to all nodes and that are not for this one.

    `given`: what the file gives, which may name senses of the user's own.
    """
    nodes = {"embedder", "detector", "bridge", "player"} - {node}
    names = {parameter.name for other in nodes for parameter in parameters_of(other)}
    own = (given or {}).get("modalities") or []
    if node != "embedder" and isinstance(own, list):
        names |= {parameter.name for parameter in embedder_parameters([m for m in own if isinstance(m, str)])}
    return names


def read(path: str | Path, node: str) -> dict[str, Any]:
    """The flat parameters (`vision.hop`) that a ROS parameter file gives to the node called `node`.

    Sections for all nodes (`/**`) come first, then those that name the node. Raises `ConfigError`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"parameter file '{path}' cannot be read: {error}") from error
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"parameter file '{path}' is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"parameter file '{path}' must hold '/**:' with 'ros__parameters:' inside")
    values: dict[str, Any] = {}
    for wanted in (("/**",), (node, f"/{node}", f"/**/{node}")):
        for section, body in document.items():
            if section not in wanted:
                continue
            if not isinstance(body, dict) or not isinstance(body.get("ros__parameters"), dict):
                raise ConfigError(f"'{section}' in '{path}' must hold 'ros__parameters:' with names and values")
            values.update(_flat(body["ros__parameters"]))
    if document and not values and not any("ros__parameters" in (b or {}) for b in document.values()):
        raise ConfigError(f"parameter file '{path}' has no 'ros__parameters:'; begin it with '/**:'")
    return values


def shipped(name: str) -> Path:
    """The path of a parameter file that the package ships, such as ``starter.yaml``."""
    return Path(str(files("sensebind") / "config" / name))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def resolve(
    parameters: Iterable[Parameter],
    values: Mapping[str, Any],
    *,
    free: Sequence[str] = (),
    others: Iterable[str] = (),
) -> dict[str, Any]:
    """Every parameter's value: from `values` where it is there, else the default.

    Names that begin with one of `free` (``prompts.``) take lists of strings. Names in `others` belong to
    other nodes and are passed over. Raises `ConfigError` for an unknown name, with the nearest known one.
    """
    known = {p.name: p for p in parameters}
    result: dict[str, Any] = {name: p.default for name, p in known.items()}
    elsewhere = set(others)
    for name, value in values.items():
        if name in known:
            result[name] = known[name].check(value)
        elif any(name.startswith(prefix) for prefix in free):
            result[name] = Parameter(name, [], "").check([value] if isinstance(value, str) else value)
        elif name not in elsewhere and name != "use_sim_time":
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"there is no parameter '{name}'{hint}")
    return result


def modalities_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The senses that these parameters ask for, in the order given. Raises `ConfigError`."""
    wanted = Parameter("modalities", list(SENSOR_MODALITIES), "").check(
        values.get("modalities", list(SENSOR_MODALITIES))
    )
    assert isinstance(wanted, list)
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigError(
            f"parameter 'modalities' must name some of {', '.join(SENSOR_MODALITIES)} once each, not {wanted!r}"
        )
    for modality in wanted:
        if modality not in SENSOR_MODALITIES and not values.get(f"{modality}.fields"):
            raise ConfigError(
                f"parameter 'modalities' names '{modality}', which is none of {', '.join(SENSOR_MODALITIES)}: for a "
                f"sense of your own, set '{modality}.fields' to the paths of its numbers"
            )
        if not re.fullmatch(r"[a-z][a-z0-9_]*", modality) or modality in (TEXT, FUSED):
            raise ConfigError(f"'{modality}' cannot be a sense's name: use small letters, digits and _")
    return tuple(wanted)


def window_specs(values: Mapping[str, Any], apertures: Mapping[str, Aperture]) -> dict[str, WindowSpec]:
    """How each sense is cut: the parameters' values, and the space's where they leave it to the space.

    Raises `ConfigError` for windows that make no sense.
    """
    specs = {}
    for modality in modalities_of(values):
        aperture = apertures.get(modality)
        if aperture is None and values[f"{modality}.window"] and f"{modality}.fields" in values:
            aperture = Aperture(values[f"{modality}.window"])  # a sense of the user's, not bound yet
        if aperture is None:
            raise ConfigError(f"space '{values['space']}' has no window for '{modality}': leave it out of 'modalities'")
        try:
            specs[modality] = WindowSpec(
                modality,
                length=_nanoseconds(values[f"{modality}.window"] or aperture.length),
                hop=_nanoseconds(values[f"{modality}.hop"]),
                lateness=_nanoseconds(values[f"{modality}.lateness"]),
                min_coverage=values[f"{modality}.min_coverage"],
                frames=values.get(f"{modality}.frames") or aperture.frames,
                max_gap=_nanoseconds(values[f"{modality}.max_gap"]),
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


def calibration(values: Mapping[str, Any], modality: str) -> Calibration:
    """What the parameters say of a sensor; CameraInfo adds to it later."""
    if modality == DEPTH:
        return Calibration(
            focal_length=values["depth.focal_length"],
            width=values["depth.focal_width"] if values["depth.focal_length"] else 0,
            baseline=values["depth.baseline"],
            depth_unit=values["depth.unit"],
        )
    if modality == THERMAL:
        return Calibration(thermal_unit=values["thermal.unit"], thermal_offset=values["thermal.offset"])
    return Calibration()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * SECOND)
