"""Proposes intervals in which the raw data of one modality stand out from what is usual in the stream.

Something that begins and ends is visible in the raw data before a model recognises it: sound in a band of frequencies,
a change in a part of an image, heat, a jolt. `core.embeddings.Activity` has these features. A feature is active while
it is several deviations above a running low quantile of its last seconds. So noise that is there all the time (motors,
wind, the motion of the robot) is not proposed, and a long event becomes usual only when it fills most of that time. The
method is that of voice activity detectors with minimum statistics (R. Martin, "Noise power spectral density
estimation based on optimal smoothing and minimum statistics", 2001), with a quantile in place of the minimum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Activity
from sensebind.fusion.core.samples import SECOND

FloatArray = npt.NDArray[np.float32]
Floating = TypeVar("Floating", np.float32, np.float64)

HISTORY = 30 * SECOND  # ns of frames that the baseline is made of
MAX_HISTORY_FRAMES = 2048  # with shorter frames the history is shorter
MIN_HISTORY = 3 * SECOND  # ns; with a shorter history nothing is proposed
MIN_HISTORY_FRAMES = 8
BASELINE_QUANTILE, LOW_QUANTILE = 0.35, 0.10
# Standard normal quantiles: those of 0.35 and 0.10 are 0.385 below the mean, and 0.896 apart.
QUANTILES_APART, BASELINE_BELOW_MEAN = 0.896, 0.385
MIN_DEVIATION = 1.0  # of a feature, whose unit is the smallest rise that matters
TOP_FEATURES = 3  # the mean of this many highest features of a frame is compared with the threshold
ACTIVE_THRESHOLD = 3.5  # deviations
MAX_PAUSE = 3 * SECOND // 2  # ns; after a longer time without an active frame the interval has ended
MAX_FIRST_PAUSE = SECOND // 4  # ns; a single active frame before a longer time without one is noise
MIN_ACTIVE_FRAMES = 2  # of an interval that is proposed
MAX_FRAME_PERIOD = SECOND  # ns; limit of the time that a single frame stands for


@dataclass(frozen=True, slots=True)
class Proposal:
    """An interval in which the data of a modality stand out. Times in int nanoseconds.

    `start` is the middle of the first active frame, `end` that of the last one so far. `is_open`: the interval has not
    ended yet.
    """

    start: int
    end: int
    active_frames: int
    is_open: bool = True

    @property
    def is_confirmed(self) -> bool:
        """Whether it has enough active frames to be something other than noise."""
        return self.active_frames >= MIN_ACTIVE_FRAMES


@dataclass(frozen=True, slots=True)
class ProposalState:
    """The frames of the last `HISTORY`, (N, F) with their ends (N,) in ns, and the newest proposal of a modality.

    `active_fraction`: fraction of the newest window's new frames that are active.
    """

    frames: FloatArray
    ends: npt.NDArray[np.int64]
    proposal: Proposal | None = None
    active_fraction: float = 0.0

    @property
    def current(self) -> Proposal | None:
        """The proposal that is open and confirmed."""
        found = self.proposal
        return found if found is not None and found.is_open and found.is_confirmed else None

    @property
    def latest(self) -> Proposal | None:
        """The newest confirmed proposal, open or not."""
        return self.proposal if self.proposal is not None and self.proposal.is_confirmed else None


def updated_proposals(state: ProposalState | None, activity: Activity | None, tick: int) -> ProposalState | None:
    """Return the state after the frames of the window that ends at `tick` (ns). None: no window had frames yet.

    Frames that an earlier window had already are skipped. The state starts again if the number of features changes.
    """
    if activity is None:
        return _without_new_frames(state, tick)
    frames = np.where(np.isfinite(activity.values), activity.values, np.float32(np.nan))
    if state is None or state.frames.shape[1] != frames.shape[1]:
        state = ProposalState(np.empty((0, frames.shape[1]), np.float32), np.empty(0, np.int64))
    last = int(state.ends[-1]) if len(state.ends) else None
    ends = tick - activity.period * np.arange(len(frames) - 1, -1, -1, dtype=np.int64)
    period = activity.period or (MAX_FRAME_PERIOD if last is None else min(tick - last, MAX_FRAME_PERIOD))
    # Half a frame of tolerance: the grid of frames of another window may be shifted.
    is_new = np.ones(len(ends), bool) if last is None else ends > last + activity.period // 2
    new, new_ends = frames[is_new], ends[is_new]
    if not len(new):
        return _without_new_frames(state, tick)
    strengths = _strengths(state, new)
    middles = (int(end) - period // 2 for end in new_ends)
    proposal = _extended(state.proposal, zip(middles, strengths, strict=True), tick, period)
    kept = int(np.searchsorted(state.ends, tick - HISTORY, side="right"))
    return ProposalState(
        np.concatenate([state.frames[kept:], new])[-MAX_HISTORY_FRAMES:],
        np.concatenate([state.ends[kept:], new_ends])[-MAX_HISTORY_FRAMES:],
        proposal,
        float(np.mean(np.array(strengths) >= ACTIVE_THRESHOLD)),
    )


def _without_new_frames(state: ProposalState | None, tick: int) -> ProposalState | None:
    """Return the state at `tick` (ns) after a window without new frames: an interval may have ended."""
    return None if state is None else replace(state, proposal=_extended(state.proposal, (), tick))


def _strengths(state: ProposalState, new: FloatArray) -> list[float]:
    """Return how far each of the new frames (K, F) stands out, in deviations: the mean of its highest features."""
    known = len(state.ends)
    if known < MIN_HISTORY_FRAMES or int(state.ends[-1]) - int(state.ends[0]) < MIN_HISTORY:
        return [0.0] * len(new)
    baseline, low = column_quantiles(state.frames.astype(np.float64), (BASELINE_QUANTILE, LOW_QUANTILE))
    deviation = np.maximum((baseline - low) / QUANTILES_APART, MIN_DEVIATION)
    z = (new - baseline) / deviation - BASELINE_BELOW_MEAN
    z = np.where(np.isfinite(z), z, 0.0)
    count = min(TOP_FEATURES, z.shape[1])
    return [float(value) for value in np.sort(z, axis=1)[:, -count:].mean(axis=1)]


def column_quantiles(values: npt.NDArray[Floating], quantiles: Iterable[float]) -> list[npt.NDArray[Floating]]:
    """Return quantiles of each column of (N, F), (F,) each: the value at that rank, without NaN. NaN if all are NaN."""
    ordered = np.sort(values, axis=0)  # NaN is sorted to the end
    counts = np.count_nonzero(~np.isnan(values), axis=0)
    columns = np.arange(values.shape[1])
    return [ordered[np.maximum(np.round(q * (counts - 1)).astype(int), 0), columns] for q in quantiles]


def _extended(
    proposal: Proposal | None, frames: Iterable[tuple[int, float]], tick: int, period: int = 0
) -> Proposal | None:
    """Return the newest proposal after frames (middle in ns, strength), oldest first, up to `tick` (ns).

    `period`: time between the frames in ns.
    """
    for middle, strength in frames:
        if strength < ACTIVE_THRESHOLD:
            continue
        pause = MAX_PAUSE if proposal is None or proposal.is_confirmed else max(MAX_FIRST_PAUSE, 2 * period)
        if proposal is None or not proposal.is_open or middle - proposal.end > pause:
            proposal = Proposal(middle, middle, 1)
        else:
            proposal = replace(proposal, end=middle, active_frames=proposal.active_frames + 1)
    if proposal is not None and proposal.is_open and tick - proposal.end > MAX_PAUSE:
        proposal = replace(proposal, is_open=False)
    return proposal
