"""Scenarios: YAML files that describe simulated events, faults and motion. Values that a file leaves open are random.

duration: 120            # s
ground: carpet           # carpet, wood, tiles or gravel
motor: -46               # level of the motor noise, dB of full scale
places: [0, 60]          # times in s at which the robot enters a new room
events:
  - {type: person, at: 10, for: 8}
  - {type: glass_breaking, at: 30}
  - {type: dog, rate: 2, for: 4}                            # 2 per minute, at random times
  - {type: person, at: 50, for: 6, modalities: [vision, depth]} # cold and silent, like a dummy
  - {type: picture, at: 60, photograph: cat.png, label: cat, warmth: 14, sound: a cat's meows}   # on a board, 14 K
                         # warmer than the room; `sound`: a name of simulation.synthetic_sounds.SYNTHESIZERS
clips: {folder: sounds, every: 12, snr: 10}                 # files sounds/<label>/*; mean pause in s; dB over the motor
distractors: [{type: radio, at: 70, for: 5}]                # simulated like events, but not in the truth
dark: [[80, 95]]         # s without light
occluded: [[52, 54]]     # s in which a board close to the robot hides most of the view; sound is not affected
path:                    # m ahead and aside of the start in the room, degrees to the left; smooth between points
  - {at: 20}
  - {at: 26, ahead: 0.8, turn: 15}
noise: {vision: 2, depth: 1.5, imu: 3}                      # factor of the usual noise, 1 or more
faults: [{sensor: thermal, fault: frozen, at: 40, for: 30}]
thermal_camera: {palette: black-hot, noise: 0.2}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from sensebind.fusion.core.documents import DocumentError, read_bytes, read_yaml
from sensebind.fusion.core.encodings import EncodingError, decode_photograph
from sensebind.fusion.core.errors import SensebindError, printable
from sensebind.fusion.io.sensor_files import MAX_IMAGE_BYTES, FileError, read_sound_file
from sensebind.simulation import rooms
from sensebind.simulation.catalogue import CATALOGUE
from sensebind.simulation.messages import AUDIO_SAMPLE_RATE
from sensebind.simulation.recorder import (
    GROUNDS,
    MOTOR_LEVEL,
    SimulatedEvent,
    SimulatedScenario,
    ThermalCamera,
    Waypoint,
)
from sensebind.simulation.sensor_faults import FAULTS, SIMULATED_SENSORS, Fault
from sensebind.simulation.synthetic_sounds import SYNTHESIZERS

DEFAULT_DURATION = 4.0  # s of an event without `for`
DURATION_BY_KIND = {"glass_breaking": 1.5, "bump": 0.6, "fall": 1.0, "knock": 2.0, "bell": 3.0}
SHORTEST = 0.1  # s, of a scenario
MAX_EVENTS, MAX_RANDOM_EVENTS = 5000, 1000
MAX_LABEL = 120  # characters
MAX_CLIP_SECONDS = 600.0  # of a sound file of `clips`, of which `longest` seconds are used
MIN_EVENT_GAP = 1.0  # s between events at random times
PALETTES = ("radiometric", "white-hot", "black-hot", "iron")
SCENARIO_KEYS = (
    "duration", "ground", "motor", "places", "path", "events", "clips", "distractors", "dark", "occluded", "noise",
    "faults", "thermal_camera",
)  # fmt: skip
MAX_PATH_LENGTH = 2000  # bytes; Linux has 4096 with the folder before it
SCENARIO_FOLDER = Path(str(files("sensebind") / "config" / "scenarios"))
SCENARIO_SUFFIXES = (".yaml", ".yml")
HELD_OUT_SEED_OFFSET = 500_000  # added to the seed: rooms, colours, sounds and sizes that training does not use
AUDIO_SUFFIXES = (".wav", ".ogg", ".flac", ".mp3")


class ScenarioError(SensebindError):
    """A scenario that is not valid; the message names the file, the entry and the allowed values."""


def shipped_scenarios() -> dict[str, Path]:
    """Name → file of the scenarios in the package's folder `config/scenarios`."""
    return {path.stem: path for path in sorted(SCENARIO_FOLDER.glob(f"*{SCENARIO_SUFFIXES[0]}"))}


def find_scenario(name: str) -> Path:
    """The file of a scenario: a path, or the name of a shipped one. Raises `ScenarioError`, which suggests a name."""
    path, shipped = Path(name), shipped_scenarios()
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    near = get_close_matches(path.stem[:100], shipped, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    if path.suffix in SCENARIO_SUFFIXES or len(path.parts) > 1:
        raise ScenarioError(f"scenario '{name}' does not exist: {hint}Shipped scenarios: {', '.join(shipped)}")
    raise ScenarioError(
        f"there is no scenario '{name}': {hint}Give one of {', '.join(shipped)}, or the path of a YAML file"
    )


def scenario_summary(path: Path) -> str:
    """The first sentence of the comment at the head of a scenario file. Raises `OSError`."""
    head = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return re.split(r"(?<=\.)\s", " ".join(line.lstrip("# ") for line in head), maxsplit=1)[0]


def read_scenario(
    path: Path, seed: int = 0, held_out_seed: bool = False, duration: float | None = None
) -> SimulatedScenario:
    """Read a scenario file. All random values depend on `seed`; `held_out_seed` adds `HELD_OUT_SEED_OFFSET` to it.

    `duration` (s) replaces that of the file. Raises `ScenarioError`.
    """
    try:
        content = read_yaml(path)
    except (OSError, DocumentError) as error:
        raise ScenarioError(f"scenario {error}") from error
    if not isinstance(content, dict):
        raise ScenarioError(f"scenario '{path}' must be a mapping; its keys: {', '.join(SCENARIO_KEYS)}")
    seed += HELD_OUT_SEED_OFFSET if held_out_seed else 0
    return parse_scenario(content, str(path), seed, duration, path.parent)


def parse_scenario(
    content: Mapping[str, Any], name: str, seed: int, duration: float | None = None, folder: Path = Path()
) -> SimulatedScenario:
    """A scenario from the content of its file. `name` is for error messages; paths are relative to `folder`. Raises
    `ScenarioError`."""
    _check_keys(content, SCENARIO_KEYS, name)
    length = _number(content, "duration", name, 1.0, 36_000.0, 60.0)
    until = length if duration is None else float(duration)
    if not SHORTEST <= until <= 36_000.0:
        raise ScenarioError(f"{name}: the duration must be a number of s from {SHORTEST:g} to 36000, not {until:g}")
    length = max(length, until)
    ground = _choice(content.get("ground", "carpet"), tuple(GROUNDS), f"{name}: ground")
    noise = np.random.default_rng([seed, 23])
    events: list[SimulatedEvent] = []
    for key in ("events", "distractors"):
        for entry in _list(content, key, name):
            events += _parse_events(entry, f"{name}: {key}", length, noise, events, key == "events", folder)
            _check_count(events, name)
    if "clips" in content:
        events += _parse_clips(content["clips"], name, length, noise, folder)
        _check_count(events, name)
    faults = tuple(_parse_fault(entry, f"{name}: faults", length) for entry in _list(content, "faults", name))
    places = _list(content, "places", name) or [0.0]
    starts = [_number({"places": start}, "places", name, 0.0, 36_000.0, 0.0) for start in places]
    return SimulatedScenario(
        until, tuple((start, ground) for start in starts if start < until),
        tuple(e for e in events if e.onset < until), seed, tuple(f for f in faults if f.onset < until),
        _parse_spans(content, "dark", name), _parse_thermal_camera(content.get("thermal_camera", {}), name),
        _number(content, "motor", name, -120.0, 0.0, MOTOR_LEVEL), path=_parse_path(content, name),
        occluded=_parse_spans(content, "occluded", name),
        noise_scales=_parse_noise_scales(content.get("noise", {}), name),
    )  # fmt: skip


def _parse_events(
    entry: Any,
    where: str,
    length: float,
    noise: np.random.Generator,
    others: list[SimulatedEvent],
    in_ground_truth: bool,
    folder: Path,
) -> list[SimulatedEvent]:
    names = ("type", "at", "for", "rate", "modalities", "label", "ahead", "aside", "photograph", "warmth", "sound")
    _check_keys(entry, names, where)
    kind = _choice(entry.get("type"), tuple(CATALOGUE), f"{where}: type")
    where = f"{where}: {kind}"
    duration = _number(entry, "for", where, 0.05, 36_000.0, DURATION_BY_KIND.get(kind, DEFAULT_DURATION))
    modalities = frozenset(
        _choice(s, SIMULATED_SENSORS, f"{where}: modalities")
        for s in (_list(entry, "modalities", where) if "modalities" in entry else SIMULATED_SENSORS)
    )
    if ("at" in entry) == ("rate" in entry):
        raise ScenarioError(f"{where}: give either 'at' (s) or 'rate' (per minute)")
    if "at" in entry:
        onsets = [_number(entry, "at", where, 0.0, length, 0.0)]
    else:
        count = int(noise.poisson(_number(entry, "rate", where, 0.0, 60.0, 1.0) * length / 60))
        if count > MAX_RANDOM_EVENTS:
            raise ScenarioError(f"{where}: 'rate' gives {count} events, at most {MAX_RANDOM_EVENTS}: lower it")
        onsets = _random_onsets(count, duration, length, noise, others)
    ahead = _number(entry, "ahead", where, 0.6, 6.0, float(noise.uniform(1.4, 2.2)))
    aside = _number(entry, "aside", where, -2.0, 2.0, float(noise.uniform(-0.4, 0.4)))
    label = str(entry.get("label", kind))
    if not 0 < len(label) <= MAX_LABEL or printable(label) != label:
        raise ScenarioError(f"{where}: 'label' must be 1 to {MAX_LABEL} characters, and none a control character")
    photograph = _load_photograph(entry["photograph"], where, kind, folder) if "photograph" in entry else None
    warmth = _number(entry, "warmth", where, -50.0, 500.0, 0.0) if "warmth" in entry else None
    sound = _choice(entry["sound"], tuple(SYNTHESIZERS), f"{where}: sound") if "sound" in entry else ""
    return [
        SimulatedEvent(
            kind,
            at,
            at + duration,
            modalities,
            ahead,
            aside,
            label,
            in_ground_truth=in_ground_truth,
            photograph=photograph,
            warmth=warmth,
            sound=sound,
        )
        for at in sorted(onsets)
    ]


def _check_count(events: Sequence[SimulatedEvent], name: str) -> None:
    """Raises `ScenarioError` for more events than a scenario may have."""
    if len(events) > MAX_EVENTS:
        raise ScenarioError(f"{name}: it has more than {MAX_EVENTS} events: shorten it, or lower 'rate'")


def _random_onsets(
    count: int, duration: float, length: float, noise: np.random.Generator, others: Sequence[SimulatedEvent]
) -> list[float]:
    """Random onsets (s) of up to `count` events of `duration` s, apart from each other and from the `others`."""
    onsets: list[float] = []
    begins, ends = np.full((2, len(others) + count), np.inf)
    begins[: len(others)] = [event.onset for event in others]
    ends[: len(others)] = [event.offset for event in others]
    used = len(others)
    for onset in noise.uniform(3.0, max(3.1, length - duration), 50 * count):
        after, before = onset > ends[:used] + MIN_EVENT_GAP, onset + duration < begins[:used] - MIN_EVENT_GAP
        if (after | before).all():
            onsets.append(float(onset))
            begins[used], ends[used], used = onset, onset + duration, used + 1
            if len(onsets) == count:
                break
    return onsets


def _load_photograph(value: Any, where: str, kind: str, folder: Path) -> npt.NDArray[np.uint8]:
    """Read RGB uint8 (H, W, 3) from a file in the scenario's folder or from an image of scikit-image. Raises
    `ScenarioError`."""
    if kind != "picture":
        raise ScenarioError(f"{where}: 'photograph' is only for type 'picture'")
    path = _path_of(value, f"{where}: 'photograph'", folder)
    if not path.is_file():
        try:
            path = rooms.scikit_image_path(Path(str(value)).name)
        except ImportError:
            raise ScenarioError(f"{where}: no photograph '{path}', and scikit-image is not installed") from None
    if not path.is_file():
        raise ScenarioError(f"{where}: photograph '{value}' is not an image in '{folder}' or of scikit-image")
    try:
        return decode_photograph(np.frombuffer(read_bytes(path, MAX_IMAGE_BYTES), np.uint8))
    except (OSError, DocumentError, EncodingError) as error:
        raise ScenarioError(f"{where}: photograph '{value}': {error}") from error


def _path_of(value: Any, where: str, folder: Path) -> Path:
    """The path that a scenario in `folder` names. Raises `ScenarioError` for what cannot be one."""
    if (
        not isinstance(value, str)
        or not value.isprintable()
        or any(len(os.fsencode(p)) > 255 for p in value.split("/"))
    ):
        raise ScenarioError(f"{where} must be a path in '{folder}', or an absolute one, not {printable(value, 100)}")
    if len(os.fsencode(value)) > MAX_PATH_LENGTH:
        raise ScenarioError(f"{where} is a path of {len(value)} characters: shorten it")
    return folder / value


def _parse_clips(
    entry: Any, name: str, length: float, noise: np.random.Generator, folder: Path
) -> list[SimulatedEvent]:
    """Events with sound files at random times. Their label is the name of the file's folder, without "NUMBER - "."""
    _check_keys(entry, ("folder", "every", "snr", "longest"), f"{name}: clips")
    place = _path_of(entry.get("folder", ""), f"{name}: clips: 'folder'", folder)
    files = sorted(p for p in place.glob("*/*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ScenarioError(f"{name}: clips: '{place}' has no folders with sound files ({', '.join(AUDIO_SUFFIXES)})")
    every = _number(entry, "every", f"{name}: clips", 1.0, 3600.0, 12.0)
    longest = _number(entry, "longest", f"{name}: clips", 0.2, 3600.0, 5.0)
    found: list[SimulatedEvent] = []
    at = float(noise.uniform(2.0, 4.0 + every / 2))
    while True:
        path = files[int(noise.integers(len(files)))]
        try:
            clip = read_sound_file(path, MAX_CLIP_SECONDS)
        except (FileError, OSError) as error:
            raise ScenarioError(f"{name}: clips: {error}") from error
        mono = clip.data.mean(axis=1, dtype=np.float32)
        sound = np.asarray(soxr.resample(mono, clip.sample_rate, AUDIO_SAMPLE_RATE), np.float32)
        loud = np.flatnonzero(np.abs(sound) > 0.02 * (np.abs(sound).max() + 1e-9))
        sound = sound[loud[0] : loud[-1] + 1][: round(longest * AUDIO_SAMPLE_RATE)] if len(loud) else sound[:1]
        if at + len(sound) / AUDIO_SAMPLE_RATE > length - 1:
            return found
        label = path.parent.name.partition(" - ")[2] or path.parent.name
        _check_count(found, name)
        snr = _number(entry, "snr", f"{name}: clips", -30.0, 80.0, 10.0)
        found.append(
            SimulatedEvent(
                "knock",
                at,
                at + len(sound) / AUDIO_SAMPLE_RATE,
                frozenset({"audio"}),
                label=label,
                audio_clip=sound,
                snr=snr,
            )
        )
        at += len(sound) / AUDIO_SAMPLE_RATE + float(noise.uniform(0.5, 1.5)) * every


def _parse_fault(entry: Any, where: str, length: float) -> Fault:
    _check_keys(entry, ("sensor", "fault", "at", "for"), where)
    onset = _number(entry, "at", where, 0.0, length, 0.0)
    duration = _number(entry, "for", where, 0.1, 36_000.0, length)
    sensor = _choice(entry.get("sensor"), SIMULATED_SENSORS, f"{where}: sensor")
    return Fault(sensor, _choice(entry.get("fault"), FAULTS, f"{where}: fault"), onset, onset + duration)


def parse_fault(content: str, length: float) -> Fault:
    """Parse ``SENSOR:FAULT[:AT[:FOR]]``, times in s. Default: from 0 s, for `length` s. Raises `ScenarioError`."""
    try:
        sensor, name, *times = content.split(":")
        given = dict(zip(("at", "for")[: len(times)], map(float, times), strict=True))
    except ValueError as error:  # too few or too many parts, or a time that is not a number
        raise ScenarioError(f"fault '{content}' must be SENSOR:FAULT[:AT[:FOR]], with times in s") from error
    return _parse_fault({"sensor": sensor, "fault": name, **given}, f"fault '{content}'", length)


def _parse_spans(content: Mapping[str, Any], key: str, name: str) -> tuple[tuple[float, float], ...]:
    spans = []
    for span in _list(content, key, name):
        if not isinstance(span, list) or len(span) != 2:
            raise ScenarioError(f"{name}: {key}: expected spans [from, to] in s, not {str(span)[:100]}")
        first, last = (_number({key: t}, key, name, 0.0, 36_000.0, 0.0) for t in span)
        spans.append((first, last))
    return tuple(spans)


def _parse_path(content: Mapping[str, Any], name: str) -> tuple[Waypoint, ...]:
    points: list[Waypoint] = []
    for entry in _list(content, "path", name):
        where = f"{name}: path"
        _check_keys(entry, ("at", "ahead", "aside", "turn"), where)
        at = _number(entry, "at", where, points[-1].at + 0.5 if points else 0.0, 36_000.0, -1.0)
        ahead, aside = _number(entry, "ahead", where, -0.5, 2.5, 0.0), _number(entry, "aside", where, -1.5, 1.5, 0.0)
        points.append(Waypoint(at, ahead, aside, np.radians(_number(entry, "turn", where, -180.0, 180.0, 0.0))))
    return tuple(points)


def _parse_noise_scales(entry: Any, name: str) -> dict[str, float]:
    _check_keys(entry, SIMULATED_SENSORS, f"{name}: noise")
    return {sensor: _number(entry, sensor, f"{name}: noise", 1.0, 20.0, 1.0) for sensor in entry}


def _parse_thermal_camera(entry: Any, name: str) -> ThermalCamera:
    _check_keys(entry, tuple(f.name for f in fields(ThermalCamera)), f"{name}: thermal_camera")
    where, values = f"{name}: thermal_camera", dict(entry)
    if "palette" in values:
        _choice(values["palette"], PALETTES, f"{where}: palette")
    for key in ("noise", "blur"):
        if key in values:
            values[key] = _number(values, key, where, 0.0, 100.0, 0.0)
    if "size" in values:
        size = _list(values, "size", where)
        if len(size) != 2:
            raise ScenarioError(f"{where}: 'size' must be [width, height] in pixels")
        width, height = (int(_number({"size": side}, "size", where, 8, 2048, 80)) for side in size)
        values["size"] = (width, height)
    return ThermalCamera(**values)


def _check_keys(entry: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise ScenarioError(f"{where}: expected a mapping (keys: {', '.join(names)}), not {str(entry)[:100]}")
    unknown = [name for name in entry if name not in names]
    if unknown:
        near = get_close_matches(str(unknown[0]), names, 1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ScenarioError(f"{where}: unknown key '{unknown[0]}'{hint}; known keys: {', '.join(names)}")


def _list(content: Mapping[str, Any], key: str, name: str) -> list[Any]:
    value = content.get(key) or []
    if not isinstance(value, list):
        raise ScenarioError(f"{name}: '{key}' must be a list")
    return value


def _choice(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        near = get_close_matches(str(value), allowed, 1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ScenarioError(f"{where}: '{str(value)[:100]}'{hint} is not one of {', '.join(allowed)}")
    return str(value)


def _number(content: Mapping[str, Any], key: str, where: str, low: float, high: float, default: float) -> float:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ScenarioError(f"{where}: '{key}' must be a number from {low:g} to {high:g}, not {str(value)[:100]}")
    return float(value)
