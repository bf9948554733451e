"""The state of the prompt detector: the last window of each sensor, and which intervals are explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import DetectedObject
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.evidence import (
    BoolArray,
    FloatArray,
    RunningBaseline,
)
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.events.proposals.intervals import Proposal, ProposalState
from sensebind.fusion.events.proposals.naming import (
    NamingState,
)


@dataclass(frozen=True, slots=True)
class PromptSensorState:
    """The state of one sensor: its modality, its last window, the values of this window for the L labels, and their
    baselines."""

    modality: str
    start: int
    tick: int
    coverage: float
    deviations: FloatArray  # (L,), from the baseline
    margins: FloatArray  # (L,), differences of background z-scores
    log_likelihood_ratios: FloatArray  # (L,), NaN for labels without a trained classifier
    scores: FloatArray  # (L,)
    similarities: FloatArray  # (L,), cosine similarities of the best phrases
    baseline: RunningBaseline  # of the background z-scores after competition, (L,)
    objects: tuple[DetectedObject, ...]  # in the window
    proposals: ProposalState | None = None  # None: no window had features of activity
    naming: NamingState | None = None  # None: the modality does not name intervals
    named: BoolArray | None = None  # (L,), whether a score is that of the interval; None as for `naming`
    faulty: bool = False  # a later window has a symptom

    @property
    def proposal(self) -> Proposal | None:
        """The interval that is open and confirmed."""
        return self.proposals.current if self.proposals is not None else None


@dataclass(frozen=True, slots=True)
class ExplainedIntervals:
    """Which intervals a label explains: those that an event of a label overlaps.

    `open_labels` (L,): the labels whose score reached the onset threshold and has not fallen below the offset threshold
    since; None: none. `starts`: sensor → start (ns) of its newest interval that was open at the same time as a label.
    Such an interval stays explained when the label's score falls.
    """

    open_labels: BoolArray | None = None
    starts: Mapping[str, int] = field(default_factory=dict)

    def by_another(self, start: int, at: int) -> bool:
        """Whether an interval that began at `start` (ns) is explained by other labels than number `at`."""
        return start in self.starts.values() and self.open_labels is not None and not self.open_labels[at]

    def contain(self, sensor: str, proposal: Proposal) -> bool:
        """Whether an interval of a sensor is explained."""
        return self.starts.get(sensor) == proposal.start


@dataclass(frozen=True, slots=True)
class PromptState:
    sensor_states: Mapping[str, PromptSensorState] = field(default_factory=dict)
    recent_scores: tuple[tuple[int, FloatArray], ...] = ()  # tick, pooled scores (L,); of the last `smoothing` seconds
    # (L,) ns, since when a modality has supported each label; 0: none does. None: no tick yet.
    supported_since: npt.NDArray[np.int64] | None = None
    explained: ExplainedIntervals = ExplainedIntervals()
    calibration: PromptCalibration | None = None  # of the stream's space

    def current_sensors(self, tick: int, max_age: float) -> dict[str, PromptSensorState]:
        """Return the sensors that are used at a tick: not faulty, and not older than `max_age` (s)."""
        return {
            name: s
            for name, s in sorted(self.sensor_states.items())
            if not s.faulty and tick - s.tick <= max_age * SECOND
        }
