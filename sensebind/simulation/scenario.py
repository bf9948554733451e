"""Scenarios: what happens to a robot, written as YAML, and drawn by chance where the file leaves it open.

duration: 120            # s
ground: carpet           # carpet, wood, tiles or gravel
motor: -46               # dB of full scale, of the robot's own noise
places: [0, 60]          # s at which the robot comes to another room
events:
  - {type: person, at: 10, for: 8}
  - {type: glass_breaking, at: 30}
  - {type: dog, rate: 2, for: 4}                            # so many a minute, at random times
  - {type: person, at: 50, for: 6, senses: [vision, depth]} # cold and silent: a dummy
  - {type: picture, at: 60, photograph: cat.png, label: cat, warmth: 14}   # on a board, kelvin over the room's
clips: {folder: sounds, every: 12, snr: 10}                 # sound files of FOLDER/<label>/, at random times
distractors: [{type: radio, at: 70, for: 5}]                # as events, but nothing to be told
dark: [[80, 95]]
occluded: [[52, 54]]     # somebody stands before the robot: its cameras see nothing else, its microphone hears on
path:                    # m ahead and aside of where it began in this place, degrees to the left; smooth between
  - {at: 20}
  - {at: 26, ahead: 0.8, turn: 15}
noise: {vision: 2, depth: 1.5, imu: 3}                      # times the usual
faults: [{sensor: thermal, fault: frozen, at: 40, for: 30}]
thermal_camera: {palette: black-hot, noise: 0.2}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import yaml

from sensebind.fusion.core.errors import SensebindError
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

DEFAULT_DURATION = 4.0  # s that an event lasts where nothing says
DURATION_BY_KIND = {"glass_breaking": 1.5, "bump": 0.6, "fall": 1.0, "knock": 2.0, "bell": 3.0}
MIN_EVENT_GAP = 1.0  # s between events that are drawn by chance
PALETTES = ("radiometric", "white-hot", "black-hot", "iron")
SCENARIO_KEYS = (
    "duration", "ground", "motor", "places", "path", "events", "clips", "distractors", "dark", "occluded", "noise",
    "faults", "thermal_camera",
)  # fmt: skip
HELD_OUT_SEED_OFFSET = 500_000  # added to the seed: rooms, shades, voices and sizes that training never saw
AUDIO_SUFFIXES = (".wav", ".ogg", ".flac", ".mp3")


class ScenarioError(SensebindError):
    """A scenario that cannot be read; the message names the file, the entry and what is allowed."""


def read_scenario(
    path: Path, seed: int = 0, held_out_seed: bool = False, duration: float | None = None
) -> SimulatedScenario:
    """The plan that a scenario file and a seed make. `duration` (s) may cut it short. Raises `ScenarioError`."""
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(f"scenario '{path}' cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise ScenarioError(f"scenario '{path}' must hold names and values: {', '.join(SCENARIO_KEYS)}")
    return parse_scenario(told, str(path), seed + (HELD_OUT_SEED_OFFSET if held_out_seed else 0), duration, path.parent)


def parse_scenario(
    content: Mapping[str, Any], name: str, seed: int, duration: float | None = None, folder: Path = Path()
) -> SimulatedScenario:
    """The plan that a scenario's content makes; `name` is for errors. Raises `ScenarioError`."""
    _check_keys(content, SCENARIO_KEYS, name)
    length = _number(content, "duration", name, 1.0, 36_000.0, 60.0)
    until = length if duration is None else float(duration)
    length = max(length, until)
    ground = _choice(content.get("ground", "carpet"), tuple(GROUNDS), f"{name}: ground")
    noise = np.random.default_rng([seed, 23])
    happenings: list[SimulatedEvent] = []
    for entry in _list(content, "events", name):
        happenings += _parse_events(entry, f"{name}: events", length, noise, happenings, True, folder)
    for entry in _list(content, "distractors", name):
        happenings += _parse_events(entry, f"{name}: distractors", length, noise, happenings, False, folder)
    if "clips" in content:
        happenings += _parse_clips(content["clips"], name, length, noise, folder)
    faults = tuple(_parse_fault(entry, f"{name}: faults", length) for entry in _list(content, "faults", name))
    starts = [float(start) for start in content.get("places", [0.0])]
    return SimulatedScenario(
        until, tuple((start, ground) for start in starts if start < until),
        tuple(h for h in happenings if h.onset < until), seed, tuple(f for f in faults if f.onset < until),
        _parse_spans(content, "dark", name), _parse_thermal_camera(content.get("thermal_camera", {}), name),
        _number(content, "motor", name, -120.0, 0.0, MOTOR_LEVEL), path=_parse_path(content, name),
        occluded=_parse_spans(content, "occluded", name), noise_of=_parse_noise_scales(content.get("noise", {}), name),
    )  # fmt: skip


def _parse_events(
    entry: Any,
    where: str,
    length: float,
    noise: np.random.Generator,
    others: list[SimulatedEvent],
    content: bool,
    folder: Path,
) -> list[SimulatedEvent]:
    names = ("type", "at", "for", "rate", "senses", "label", "ahead", "aside", "photograph", "warmth")
    _check_keys(entry, names, where)
    kind = _choice(entry.get("type"), tuple(CATALOGUE), f"{where}: type")
    where = f"{where}: {kind}"
    lasts = _number(entry, "for", where, 0.05, 36_000.0, DURATION_BY_KIND.get(kind, DEFAULT_DURATION))
    senses = frozenset(
        _choice(s, SIMULATED_SENSORS, f"{where}: senses") for s in entry.get("senses", SIMULATED_SENSORS)
    )
    if ("at" in entry) == ("rate" in entry):
        raise ScenarioError(f"{where}: give 'at' (s) or 'rate' (a minute), and not both")
    if "at" in entry:
        onsets = [_number(entry, "at", where, 0.0, length, 0.0)]
    else:
        count = int(noise.poisson(_number(entry, "rate", where, 0.0, 60.0, 1.0) * length / 60))
        onsets = []
        for _ in range(50 * count):
            onset = float(noise.uniform(3.0, max(3.1, length - lasts)))
            taken = [(h.onset, h.offset) for h in others] + [(o, o + lasts) for o in onsets]
            if len(onsets) < count and all(
                onset > b + MIN_EVENT_GAP or onset + lasts < a - MIN_EVENT_GAP for a, b in taken
            ):
                onsets.append(onset)
    ahead = _number(entry, "ahead", where, 0.6, 6.0, float(noise.uniform(1.4, 2.2)))
    aside = _number(entry, "aside", where, -2.0, 2.0, float(noise.uniform(-0.4, 0.4)))
    label = str(entry.get("label", kind))
    photograph = _load_photograph(entry["photograph"], where, kind, folder) if "photograph" in entry else None
    warmth = _number(entry, "warmth", where, -50.0, 500.0, 0.0) if "warmth" in entry else None
    return [
        SimulatedEvent(
            kind,
            at,
            at + lasts,
            senses,
            ahead,
            aside,
            label,
            in_ground_truth=content,
            photograph=photograph,
            warmth=warmth,
        )
        for at in sorted(onsets)
    ]


def _load_photograph(value: Any, where: str, kind: str, folder: Path) -> npt.NDArray[np.uint8]:
    """RGB (H, W, 3) of a file in the scenario's folder, or of one that comes with scikit-image."""
    if kind != "picture":
        raise ScenarioError(f"{where}: 'photograph' is for type picture alone")
    path = folder / str(value)
    if not path.is_file():
        try:
            path = rooms.scikit_image_path(str(value))
        except ImportError:
            raise ScenarioError(f"{where}: photograph '{path}' does not exist, nor is scikit-image installed") from None
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if image is None:
        raise ScenarioError(f"{where}: photograph '{value}' is no picture in '{folder}', nor one of scikit-image's")
    return np.asarray(image, np.uint8)


def _parse_clips(
    entry: Any, name: str, length: float, noise: np.random.Generator, folder: Path
) -> list[SimulatedEvent]:
    """Sound files at random times, the name of a file's folder being its label (without a number before it)."""
    _check_keys(entry, ("folder", "every", "snr", "longest"), f"{name}: clips")
    place = Path(str(entry.get("folder", "")))
    place = place if place.is_absolute() else folder / place
    files = sorted(p for p in place.glob("*/*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ScenarioError(f"{name}: clips: '{place}' holds no folders with sound files ({', '.join(AUDIO_SUFFIXES)})")
    every = _number(entry, "every", f"{name}: clips", 1.0, 3600.0, 12.0)
    longest = _number(entry, "longest", f"{name}: clips", 0.2, 3600.0, 5.0)
    found: list[SimulatedEvent] = []
    at = float(noise.uniform(2.0, 4.0 + every / 2))
    while True:
        path = files[int(noise.integers(len(files)))]
        try:
            data, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise ScenarioError(f"{name}: clips: '{path}' is not a sound that can be read: {error}") from error
        sound = np.asarray(soxr.resample(data.mean(axis=1), rate, AUDIO_SAMPLE_RATE), np.float32)
        loud = np.flatnonzero(np.abs(sound) > 0.02 * (np.abs(sound).max() + 1e-9))
        sound = sound[loud[0] : loud[-1] + 1][: round(longest * AUDIO_SAMPLE_RATE)] if len(loud) else sound[:1]
        if at + len(sound) / AUDIO_SAMPLE_RATE > length - 1:
            return found
        label = path.parent.name.partition(" - ")[2] or path.parent.name
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
    lasts = _number(entry, "for", where, 0.1, 36_000.0, length)
    sensor = _choice(entry.get("sensor"), SIMULATED_SENSORS, f"{where}: sensor")
    return Fault(sensor, _choice(entry.get("fault"), FAULTS, f"{where}: fault"), onset, onset + lasts)


def parse_fault(content: str, length: float) -> Fault:
    """``SENSOR:FAULT[:AT[:FOR]]``, times in s, as a fault of a scenario of `length` s. Raises `ScenarioError`."""
    try:
        sensor, name, *times = content.split(":")
        given = dict(zip(("at", "for")[: len(times)], map(float, times), strict=True))
    except ValueError as error:  # too few parts, too many, or no numbers
        raise ScenarioError(f"fault '{content}' must be SENSOR:FAULT[:AT[:FOR]], with times in s") from error
    return _parse_fault({"sensor": sensor, "fault": name, **given}, f"fault '{content}'", length)


def _parse_spans(content: Mapping[str, Any], key: str, name: str) -> tuple[tuple[float, float], ...]:
    spans = []
    for span in _list(content, key, name):
        if not isinstance(span, list) or len(span) != 2 or not all(isinstance(t, int | float) for t in span):
            raise ScenarioError(f"{name}: {key}: expected spans [from, to] in s, not {span!r}")
        spans.append((float(span[0]), float(span[1])))
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
    values = dict(entry)
    if "palette" in values:
        _choice(values["palette"], PALETTES, f"{name}: thermal_camera: palette")
    if "size" in values:
        values["size"] = (int(values["size"][0]), int(values["size"][1]))
    return ThermalCamera(**values)


def _check_keys(entry: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise ScenarioError(f"{where}: expected names and values ({', '.join(names)}), not {entry!r}")
    unknown = [name for name in entry if name not in names]
    if unknown:
        raise ScenarioError(f"{where}: '{unknown[0]}' is not known; known: {', '.join(names)}")


def _list(content: Mapping[str, Any], key: str, name: str) -> list[Any]:
    value = content.get(key) or []
    if not isinstance(value, list):
        raise ScenarioError(f"{name}: '{key}' must be a list")
    return value


def _choice(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise ScenarioError(f"{where}: '{value}' is not one of {', '.join(allowed)}")
    return str(value)


def _number(content: Mapping[str, Any], key: str, where: str, low: float, high: float, default: float) -> float:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ScenarioError(f"{where}: '{key}' must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)
