"""The intervals that labels name or coincide with, and the score of those that no label explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sensebind.fusion.core.events import Evidence, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.prompt.state import ExplainedIntervals, PromptSensorState
from sensebind.fusion.events.proposals.intervals import ProposalState
from sensebind.fusion.events.scores import strongest_evidence

UNKNOWN_LABEL = "unknown"  # of events of the kind UNKNOWN: intervals that no label explains
TIME_TO_NAME = 3 * SECOND // 2  # ns after the start of an interval; without a label by then it is unknown
COINCIDENCE = 3 * SECOND  # ns; largest difference of two starts that coincide
MAX_GAP = SECOND // 2  # ns; largest time from the end of one to the start of the other: an image each 0.5 s


def began_with(proposals: ProposalState | None, since: int) -> bool:
    """Whether the newest interval of a modality began when something else did, at `since` (ns), and went on then."""
    proposal = proposals.latest if proposals is not None else None
    return proposal is not None and abs(proposal.start - since) <= COINCIDENCE and proposal.end >= since - MAX_GAP


def interval_of(
    fresh: Mapping[str, PromptSensorState], evidence: Sequence[Evidence], at: int
) -> tuple[int, int] | None:
    """Return the interval that label number `at` names, (start, end) in ns.

    None if the modality of the `strongest_evidence` does not name an interval.
    """
    strongest = strongest_evidence(evidence)
    if strongest is None:
        return None
    sensor_state = fresh[strongest.sensor]
    proposal = sensor_state.proposal
    if sensor_state.named is None or not sensor_state.named[at] or proposal is None:
        return None
    return proposal.start, proposal.end


def unknown_score(
    tick: int, fresh: Mapping[str, PromptSensorState], explained: ExplainedIntervals, best: float
) -> Score | None:
    """Return the score of the intervals that no label explains: 1 minus the score of the best label, `best`, once an
    interval has lasted for `TIME_TO_NAME`; None without such an interval."""
    found = {sensor: s.proposal for sensor, s in fresh.items() if s.naming is not None}
    unnamed = {
        sensor: p
        for sensor, p in found.items()
        if p is not None and tick - p.start >= TIME_TO_NAME and not explained.contain(sensor, p)
    }
    if not unnamed:
        return None
    score = 1.0 - best
    first = min(unnamed.values(), key=lambda proposal: proposal.start)
    evidence = tuple(
        Evidence(s.modality, score, True, s.start, s.tick, coincides=sensor not in unnamed, sensor=sensor)
        for sensor, s in fresh.items()
        if s.proposal is not None and (sensor in unnamed or began_with(s.proposals, first.start))
    )
    return Score(score, evidence, 0, (), (first.start, first.end))
