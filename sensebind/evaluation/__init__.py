"""How good the events are: detections against a truth, in the measures that the field knows, without any model."""

from sensebind.evaluation.calibration import Reliability, reliability
from sensebind.evaluation.faults import FaultScore, Naming, score_faults
from sensebind.evaluation.matching import Counts, Match, by_events, by_segments, false_alarms, labelled, match
from sensebind.evaluation.psds import SCENARIOS, Course, Scenario, psds
from sensebind.evaluation.spans import Faults, Spans

__all__ = [
    "SCENARIOS",
    "Counts",
    "Course",
    "FaultScore",
    "Faults",
    "Match",
    "Naming",
    "Reliability",
    "Scenario",
    "Spans",
    "by_events",
    "by_segments",
    "false_alarms",
    "labelled",
    "match",
    "psds",
    "reliability",
    "score_faults",
]
