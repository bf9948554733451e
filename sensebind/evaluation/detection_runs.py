"""The data that is scored: the truth of one recording, and the output of each compared detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensebind.evaluation.fault_metrics import FaultReport
from sensebind.evaluation.psds import ScoreTimeline
from sensebind.evaluation.spans import Array, FaultSpans, Spans

ALL = "all modalities"
LATE = "late fusion"  # the highest score of the single modalities


@dataclass(frozen=True)
class DetectionRun:
    """The output of one detector. `reported_at` (N,): the time in s at which each of `spans` was reported. `timeline`:
    the scores at all times."""

    spans: Spans
    reported_at: Array
    timeline: ScoreTimeline


@dataclass(frozen=True)
class RecordingRuns:
    """One recording, its truth, and the output of each compared detector. Times in s from `Recording.start`.

    `runs`: detector → output, for `ALL`, each modality alone and `LATE`. `activity`: result of
    `SignalActivity.z_scores`. `unscored_events`: kind → number of events that are not scored. `warnings`: see
    `replay.session.prompt_warnings`.
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
    warnings: tuple[str, ...] = ()
