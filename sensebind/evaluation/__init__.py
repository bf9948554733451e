"""Metrics of detections against a ground truth. The names exported here need no model."""

from sensebind.evaluation.fault_metrics import FaultReport, FaultScore, score_faults
from sensebind.evaluation.matching import (
    Counts,
    Match,
    event_based_counts,
    false_alarm_indices,
    label_from_truth,
    match,
    segment_based_counts,
)
from sensebind.evaluation.psds import PSDS_SCENARIOS, PsdsScenario, ScoreTimeline, psds
from sensebind.evaluation.reliability import Reliability, reliability
from sensebind.evaluation.spans import FaultSpans, Spans

__all__ = [
    "PSDS_SCENARIOS",
    "Counts",
    "FaultReport",
    "FaultScore",
    "FaultSpans",
    "Match",
    "PsdsScenario",
    "Reliability",
    "ScoreTimeline",
    "Spans",
    "event_based_counts",
    "false_alarm_indices",
    "label_from_truth",
    "match",
    "psds",
    "reliability",
    "score_faults",
    "segment_based_counts",
]
