"""What is scored: the truth of one recording, and what each way of telling events made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensebind.evaluation.fault_metrics import FaultReport
from sensebind.evaluation.psds import ScoreTimeline
from sensebind.evaluation.spans import Array, FaultSpans, Spans

ALL = "all senses"
LATE = "late fusion"  # the greatest of what the senses say by themselves


@dataclass(frozen=True)
class DetectionRun:
    """What one way of telling told. `reported_at` (N,) are the seconds at which each of `spans` was reported;
    `timeline` holds the scores at all times."""

    spans: Spans
    reported_at: Array
    timeline: ScoreTimeline


@dataclass(frozen=True)
class RecordingRuns:
    """One recording and its truth, as every way of telling tells it. Times in seconds from `Recording.start`.

    `runs` is name → what it told: `ALL`, each sense by itself, `LATE`. `activity` is what `SignalActivity.z_scores`
    gives. `unscored_events` counts events of kinds that are not scored.
    """

    name: str
    seconds: float
    space: str
    prompts: tuple[str, ...]
    truth: Spans
    faults: FaultSpans | None
    runs: Mapping[str, DetectionRun]
    activity: tuple[Array, dict[str, Array]]
    fault_reports: tuple[FaultReport, ...]
    unscored_events: Mapping[str, int]
