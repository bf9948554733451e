"""What a window is, how a modality is cut into windows, and how much of a window its samples cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.samples import IMAGE_MODALITIES, Calibration, Sample, to_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions(Options):
    """How the user wants one modality to be cut into windows, and what its vector counts. Raises `ConfigError`."""

    hop: float = parameter(
        0.5,
        "Time from one window to the next. A multiple of the shortest hop of all modalities",
        bounds=(0.001, 3600.0),
        unit="s",
    )
    window: float = parameter(
        0.0,
        "Length of a window. 0: the length that the encoder was trained with. Required for a modality without an "
        "encoder",
        bounds=(0.0, 3600.0),
        unit="s",
    )
    frames: int = parameter(
        0,
        "Number of images in a window. 0: as many as the encoder was trained with",
        bounds=(0, 64),
        modalities=IMAGE_MODALITIES,
    )
    lateness: float = parameter(
        0.05,
        "Largest delay of a message behind newer ones, by stamps. Windows close this much later. Shorter than "
        "`max_gap`",
        bounds=(0.0, 60.0),
        unit="s",
    )
    min_coverage: float = parameter(
        0.5,
        "Smallest fraction of a window that must hold data. A window with less is dropped. No effect on one image",
        bounds=(0.0, 1.0),
    )
    max_gap: float = parameter(
        10.0,
        "Largest step from one stamp to the next. After a longer one, windows start again",
        bounds=(0.1, 86400.0),
        unit="s",
    )
    fusion_weight: float = parameter(
        1.0,
        "Weight in the fused vector, multiplied by the coverage. 0: used only if no modality with a weight is present",
        bounds=(0.0, 1000.0),
    )

    def spec(self, modality: str, length: float, frames: int) -> WindowSpec:
        """The windows of a modality whose encoder was trained with `length` seconds and `frames` images.

        Raises `ConfigError` for values that do not fit together.
        """
        try:
            return WindowSpec(
                modality,
                length=to_ns(self.window or length),
                hop=to_ns(self.hop),
                lateness=to_ns(self.lateness),
                min_coverage=self.min_coverage,
                frames=self.frames or frames,
                max_gap=to_ns(self.max_gap),
            )
        except ValueError as error:
            raise ConfigError(f"parameters of windows: {error}") from error


DEFAULTS = WindowOptions()


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
    lateness: int = to_ns(DEFAULTS.lateness)
    min_coverage: float = DEFAULTS.min_coverage
    frames: int = DEFAULTS.frames
    max_gap: int = to_ns(DEFAULTS.max_gap)

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


def audio_coverage(sounds: Sequence[Sample], start: int, tick: int) -> float:
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
