"""Messages that no node may use, one for each kind of wrong content, made with rclpy or rosbags."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, Activity, Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.core.samples import AUDIO, SECOND, VISION
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.io import messages

START = 1_700_000_000 * SECOND
MEGABYTE = "x" * 10**6
FORGED = "front\n[ERROR] [1700000000.0] [embedder]: forged"
SPACE = ToySpace([VISION, AUDIO])

Change = tuple[str, str, Callable[[Any, Any], None]]  # name, the cause that is counted, what it does to a message


def good_embedding(make: Any, modality: str = VISION, tick: int = START, sequence: int = 0) -> Any:
    vector = l2_normalize(np.arange(1.0, SPACE.dimension + 1))
    fused: dict[str, Any] = {"sources": (VISION,), "weights": (1.0,)} if modality == FUSED else {}
    activity = Activity(np.ones((2, 3), np.float32), SECOND // 10)
    sensor = "" if modality == FUSED else modality
    item = Embedding(modality, tick - SECOND, tick, SPACE.id, 1.0, vector, sensor=sensor, activity=activity, **fused)
    return messages.embedding_message(make, item, sequence)


def good_event(make: Any, sequence: int = 0) -> Any:
    evidence = (Evidence(VISION, 0.75, True, START - SECOND, START, sensor=VISION),)
    item = Event(
        "prompt/person/1", EventKind.PROMPT, "person", EventPhase.ONSET, START, 0, START, 0.75, SPACE.id, evidence
    )
    return messages.event_message(make, item, sequence)


def good_space(make: Any) -> Any:
    specs = {m: WindowSpec(m, SECOND, SECOND // 2) for m in (VISION, AUDIO)}
    return messages.space_message(make, SPACE, specs, START)


def _set(path: str, value: Any) -> Callable[[Any, Any], None]:
    def change(message: Any, make: Any) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            message = message[int(parent)] if parent.isdigit() else getattr(message, parent)
        setattr(message, name, make.float_array(value) if isinstance(value, np.ndarray) else value)

    return change


def _at(seconds: int) -> Callable[[Any, Any], None]:
    def change(message: Any, make: Any) -> None:
        message.window_start.sec, message.header.stamp.sec = seconds - 1, seconds

    return change


UNIT = l2_normalize(np.arange(1.0, SPACE.dimension + 1))
WITH_NAN = np.where(np.arange(SPACE.dimension) == 3, np.nan, UNIT)
WITH_INF = np.where(np.arange(SPACE.dimension) == 3, np.inf, UNIT)

EMBEDDINGS: list[Change] = [
    ("too short", "dimension", _set("vector", l2_normalize(np.ones(3)))),
    ("empty", "dimension", _set("vector", np.ones(0))),
    ("NaN", "not_finite", _set("vector", WITH_NAN)),
    ("infinite", "not_finite", _set("vector", WITH_INF)),
    ("zero", "not_unit", _set("vector", np.zeros(SPACE.dimension))),
    ("huge", "not_unit", _set("vector", 1e30 * UNIT)),
    ("modality of another sensor", "modality", _set("modality", AUDIO)),
    ("modality without encoder", "modality", _set("modality", "radar")),
    ("no modality", "name", _set("modality", "")),
    ("sensor of another topic", "name", _set("sensor", "rear")),
    ("sensor with a newline", "name", _set("sensor", FORGED)),
    ("sensor of a megabyte", "name", _set("sensor", MEGABYTE)),
    ("space of a megabyte", "text", _set("space", MEGABYTE)),
    ("no space", "text", _set("space", "")),
    ("frame with a newline", "text", _set("header.frame_id", FORGED)),
    ("before 1970", "time", _set("header.stamp.sec", -5)),
    ("2038", "time", _at(2**31 - 10)),
    ("1970", "time", _at(10)),
    ("too many nanoseconds", "time", _set("header.stamp.nanosec", 2**32 - 1)),
    ("window of a year", "time", _set("window_start.sec", 1_600_000_000)),
    ("coverage NaN", "number", _set("coverage", math.nan)),
    ("coverage 7", "number", _set("coverage", 7.0)),
    ("weights without sources", "sources", _set("weights", np.ones(2))),
    ("infinite activity", "activity", _set("activity", np.array([math.inf, 0, 0, 0, 0, 0]))),
    ("activity of another shape", "activity", _set("activity_features", 5)),
    ("much activity", "activity", _set("activity", np.zeros(10**5))),
    ("symptom with a newline", "name", _set("symptoms", [FORGED])),
]
# These are valid alone: simulated clocks begin at 0. `StampGate` compares them with the stamps of the others.
OTHER_TIMES = ("2038", "1970")
EVENTS: list[Change] = [
    ("kind", "kind", _set("kind", 99)),
    ("phase", "phase", _set("phase", 7)),
    ("no label", "text", _set("label", "")),
    ("label with a newline", "text", _set("label", FORGED)),
    ("id of a megabyte", "text", _set("id", MEGABYTE)),
    ("score NaN", "number", _set("score", math.nan)),
    ("score 5", "number", _set("score", 5.0)),
    ("before 1970", "time", _set("onset.sec", -1)),
    ("offset before onset", "time", _set("offset.sec", 5)),
    ("too many nanoseconds", "time", _set("header.stamp.nanosec", 2**32 - 1)),
    ("evidence infinite", "number", _set("evidence.0.weight", math.inf)),
    ("evidence of a sensor with a newline", "name", _set("evidence.0.sensor", FORGED)),
    ("evidence of a long window", "time", _set("evidence.0.window_start.sec", 5)),
]
SPACES: list[Change] = [
    ("no id", "text", _set("id", "")),
    ("id with a newline", "text", _set("id", FORGED)),
    ("id of a megabyte", "text", _set("id", MEGABYTE)),
    ("no dimension", "number", _set("dimension", 0)),
    ("dimension", "number", _set("dimension", 2**32 - 1)),
    ("no modalities", "name", _set("modalities", [])),
    ("a modality twice", "name", _set("modalities", [VISION, VISION, AUDIO])),
    ("a bad modality", "name", _set("modalities", ["a b", VISION, AUDIO])),
    ("encoders", "size", _set("encoders", ["x"])),
    ("scales NaN", "number", _set("logit_scales", np.full(3, np.nan))),
    ("a sensor for a bad topic", "name", _set("sensors.0.name", "a/b c")),
    ("a sensor twice", "name", _set("sensors.0.name", AUDIO)),
    ("hop NaN", "number", _set("sensors.0.hop", math.nan)),
    ("hop negative", "number", _set("sensors.0.hop", -1.0)),
    ("licence", "size", _set("licence", MEGABYTE)),
]
