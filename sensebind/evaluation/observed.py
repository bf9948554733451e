"""What is scored: the truth of one recording, and what each way of telling events made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensebind.evaluation.faults import Naming
from sensebind.evaluation.psds import Course
from sensebind.evaluation.spans import Array, Faults, Spans

ALL = "all senses"
LATE = "late fusion"  # the greatest of what the senses say by themselves


@dataclass(frozen=True)
class Telling:
    """What one way of telling told. `told` (N,) are the seconds at which each of `spans` was reported; `course`
    holds the scores at all times."""

    spans: Spans
    told: Array
    course: Course


@dataclass(frozen=True)
class Observation:
    """One recording and its truth, as every way of telling tells it. Times in seconds from `Recording.start`.

    `ways` is name → what it told: `ALL`, each sense by itself, `LATE`. `activity` is what `Activity.course` gives.
    `others` counts events of kinds that are not scored.
    """

    name: str
    seconds: float
    space: str
    prompts: tuple[str, ...]
    truth: Spans
    faults: Faults | None
    ways: Mapping[str, Telling]
    activity: tuple[Array, dict[str, Array]]
    namings: tuple[Naming, ...]
    others: Mapping[str, int]
