"""Recordings of people's motion with phrases for their activities, from the packages seglearn and aeon.

Training and measuring need these packages: pip install seglearn aeon (extra `activities`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sensebind.fusion.core.samples import IMU, SECOND, Reading, Sample
from sensebind.fusion.core.space import Hub
from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess.resampling import resample_readings
from sensebind.training.data.pairs import AlignError, Pairs, class_id

STANDARD_GRAVITY = 9.80665  # m/s²
WINDOW_LENGTH, INPUT_RATE = 2.0, 200.0  # s; Hz of the spoke's input
SEGLEARN_RATE, BASIC_MOTIONS_RATE = 50.0, 10.0  # Hz of the two data sets
HELD_OUT_SUBJECTS = (8, 9, 10)  # of seglearn's 10 subjects
# Phrases for seglearn's abbreviations (Burns et al., 2018) and for aeon's classes.
SEGLEARN_PHRASES = {
    "PEN": "a hanging arm swinging like a pendulum", "ABD": "lifting an arm sideways",
    "FEL": "lifting an arm forwards", "IR": "turning a forearm inwards", "ER": "turning a forearm outwards",
    "TRAP": "pulling shoulders together", "ROW": "rowing with an elastic band",
}  # fmt: skip
BASIC_MOTIONS_PHRASES = {
    "Standing": "a person standing still", "Walking": "a person walking", "Running": "a person running",
    "Badminton": "a person playing badminton",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ActivityRecording:
    """A recording of an activity.

    `values` float64 (N, 6) at `rate` Hz: acceleration (m/s²) and angular velocity (rad/s). `phrase` describes the
    activity. `subject` is the number of the person, negative if unknown.
    """

    values: npt.NDArray[np.float64]
    rate: float
    phrase: str
    subject: int
    held_out: bool


def read_activities() -> list[ActivityRecording]:
    """All recordings of both packages. Three of seglearn's ten people are held out, and the test half of aeon's data
    set, which does not identify people. Raises `AlignError` if a package is missing."""
    return [*_read_seglearn(), *_read_basic_motions()]


def _package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise AlignError(f"recordings of activities need a package that is not installed: pip install {package}")
    return Path(found.origin).parent


def _read_seglearn() -> list[ActivityRecording]:
    path = _package_folder("seglearn") / "data" / "watch_dataset.npy"
    content: dict[str, Any] = np.load(path, allow_pickle=True).item()  # as the package itself loads this file
    result = []
    for values, label, subject in zip(content["X"], content["y"], content["subject"], strict=True):
        scaled = np.asarray(values, np.float64).copy()
        scaled[:, :3] *= STANDARD_GRAVITY  # the file has g
        phrase = SEGLEARN_PHRASES[content["y_labels"][int(label)]]
        result.append(ActivityRecording(scaled, SEGLEARN_RATE, phrase, int(subject), int(subject) in HELD_OUT_SUBJECTS))
    return result


def _read_basic_motions() -> list[ActivityRecording]:
    result = []
    for half in ("TRAIN", "TEST"):
        path = _package_folder("aeon") / "datasets" / "data" / "BasicMotions" / f"BasicMotions_{half}.ts"
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and line[0] not in "#@":
                *channels, label = line.split(":")
                values = np.array([[float(x) for x in channel.split(",")] for channel in channels]).T
                result.append(
                    ActivityRecording(values, BASIC_MOTIONS_RATE, BASIC_MOTIONS_PHRASES[label], -1, half == "TEST")
                )
    return result


def activity_window(activity: ActivityRecording, start: float) -> Window:
    """The window of `WINDOW_LENGTH` s of a recording that begins at `start` (s)."""
    first = round(start * activity.rate)
    rows = activity.values[first : first + round(WINDOW_LENGTH * activity.rate)]
    begin = SECOND
    samples = tuple(Sample(IMU, begin + round(i / activity.rate * SECOND), Reading(row)) for i, row in enumerate(rows))
    return Window(IMU, begin, begin + round(WINDOW_LENGTH * SECOND), 1.0, samples)


def activity_windows(activities: Sequence[ActivityRecording], step: float = 1.0) -> tuple[torch.Tensor, list[int]]:
    """Tensors float32 (N, 6, 400) of windows every `step` s, and the index of each window's recording."""
    tensors, owners = [], []
    for number, activity in enumerate(activities):
        last = len(activity.values) / activity.rate - WINDOW_LENGTH
        for start in np.arange(0, max(last, 0) + 1e-6, step):
            tensors.append(torch.from_numpy(resample_readings(activity_window(activity, float(start)), INPUT_RATE, 6)))
            owners.append(number)
    return torch.stack(tensors), owners


def activity_pairs(activities: Sequence[ActivityRecording], hub: Hub, training: bool) -> Pairs:
    """Windows of the training recordings, or of the held-out ones if `training` is False, each paired with the hub's
    vector of its phrase.

    `Pairs.blocks` has one block for each person. Recordings of unknown people are divided into four blocks.
    """
    chosen = [activity for activity in activities if activity.held_out != training]
    inputs, owners = activity_windows(chosen)
    phrases = list(dict.fromkeys(activity.phrase for activity in chosen))
    vectors = hub.embed_text(phrases)
    index = torch.tensor([phrases.index(chosen[owner].phrase) for owner in owners])
    groups = torch.tensor([class_id(chosen[owner].phrase) for owner in owners])
    blocks = torch.tensor([chosen[o].subject if chosen[o].subject >= 0 else 100 + o % 4 for o in owners])
    return Pairs(
        inputs, vectors[index], groups, blocks, torch.stack([blocks, blocks + 1], dim=1), torch.zeros_like(blocks),
        torch.empty(0),
    )  # fmt: skip
