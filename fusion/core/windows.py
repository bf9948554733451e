"""What a window is, how a modality is cut into windows, and how much of a window its samples cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sensebind.fusion.core.samples import SECOND, Calibration, Sample


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How one modality is cut. Times in int nanoseconds.

    `frames`: how many images represent a window, 0 for a time series. One frame: the newest before the
    tick, so `length` is how old it may be. More: those nearest to points spread evenly from the window's
    start to its end. `max_gap`: a longer silence starts the windows afresh.

    Raises `ValueError` for values that make no sense together.
    """

    modality: str
    length: int
    hop: int
    lateness: int = SECOND // 20
    min_coverage: float = 0.5
    frames: int = 0
    max_gap: int = 10 * SECOND

    def __post_init__(self) -> None:
        for name in ("length", "hop", "max_gap"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{self.modality}.{name} must be longer than nothing")
        if self.lateness < 0 or self.frames < 0 or not 0 <= self.min_coverage <= 1:
            raise ValueError(f"{self.modality}: lateness and frames are never negative, min_coverage is 0..1")
        if self.lateness >= self.max_gap:
            raise ValueError(f"{self.modality}.lateness must be shorter than max_gap")


@dataclass(frozen=True, slots=True)
class Window:
    """`[start, tick)` of one modality, in int nanoseconds, with the samples that overlap it in order of stamp.

    `coverage` is the share of it, 0..1, that held valid data. Image modalities: `samples` holds exactly the
    frames that were chosen. Time series: every sample that overlaps; a sound may begin before `start`.
    """

    modality: str
    start: int
    tick: int
    coverage: float
    samples: tuple[Sample, ...]
    calibration: Calibration = Calibration()


def sound_coverage(sounds: Sequence[Sample], start: int, tick: int) -> float:
    """Share of `[start, tick)` that lies in a sound, 0..1; overlaps count once."""
    covered, reached = 0, start
    for sound in sounds:
        begin, end = max(sound.stamp, reached), min(sound.end, tick)
        if end > begin:
            covered += end - begin
            reached = end
    return covered / (tick - start)


def reading_coverage(readings: Sequence[Sample], start: int, tick: int) -> float:
    """Share of `[start, tick)` near a reading, 0..1.

    A reading stands for the time until the next. A step over 2.5 usual periods holds a gap, and then covers
    one period only; usual is the median of five steps around it, for a sensor may change its rate. One
    reading alone covers nothing, for it has no period.
    """
    if len(readings) < 2:
        return 0.0
    stamps = np.array([r.stamp for r in readings], np.int64)
    steps = np.diff(stamps).astype(float)
    shortest = steps.min()
    # What lies before the first and after the last is judged by the steps next to it.
    whole = np.concatenate(([stamps[0] - start], steps, [tick - stamps[-1]]))
    if whole.max() <= 2.5 * shortest:  # no step holds a gap, for none is usual that is shorter than the shortest
        return float(whole.sum() / (tick - start))
    usual = np.median(sliding_window_view(np.pad(steps, 2, mode="edge"), 5), axis=1)
    usual = np.concatenate((usual[:1], usual, usual[-1:]))
    return float(np.where(whole > 2.5 * usual, usual, whole).sum() / (tick - start))
