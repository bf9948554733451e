"""Windows: how the samples of a sensor are divided into windows, and the coverage of a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import USER_DEFINED, Options, parameter
from sensebind.fusion.core.samples import (
    AUDIO,
    IMAGE_MODALITIES,
    IMU,
    SECOND,
    Calibration,
    Reading,
    Sample,
    Sound,
    to_ns,
)

MAX_READING_RATE, MAX_SOUND_RATE = 10_000.0, 768_000.0  # Hz: defaults of `WindowOptions.max_rate`
MAX_CHANNELS = 64  # of a sound: the bound of `audio.channels`
MAX_READING = 1e19  # largest number of a reading: float32 holds its square


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOptions(Options):
    """How the samples of a sensor are divided into windows, and the weight of its modality in the fused vector. Raises
    `ConfigError`."""

    hop: float = parameter(
        0.5,
        "Time from the end of one window to the end of the next. Must be a multiple of the shortest hop of all sensors",
        bounds=(0.001, 3600.0),
        unit="s",
    )
    window: float = parameter(
        0.0,
        "Length of a window; of a window of one image, the maximum age of the image. 0: the length that the encoder "
        "was trained with, and for one image at least the hop, so that slow cameras are used. Required for a modality "
        "without an encoder",
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
        "How far the stamp of a message may be behind the newest stamp of its sensor. A window closes when the "
        "newest stamp is this far past its end. Must be shorter than `max_gap`",
        bounds=(0.0, 60.0),
        unit="s",
    )
    min_coverage: float = parameter(
        0.5,
        "Smallest fraction of a window that must hold data. A window with less is dropped. No effect on a "
        "window of one image",
        bounds=(0.0, 1.0),
    )
    max_gap: float = parameter(
        10.0,
        "Largest step from one stamp to the next. After a longer one, windows start again",
        bounds=(0.1, 86400.0),
        unit="s",
    )
    max_rate: float = parameter(
        0.0,
        "Largest rate of readings, and of the samples of a sound. Of readings, a window holds as many as arrive at "
        "this rate, and the oldest are dropped (counted as `overflow`). A sound at a higher rate is dropped (counted "
        "as `invalid`). 0: 10,000 for readings and 768,000 for sounds",
        bounds=(0.0, 768_000.0),
        unit="Hz",
        modalities=(AUDIO, IMU, USER_DEFINED),
    )
    fusion_weight: float = parameter(
        1.0,
        "Weight in the fused vector, multiplied by the coverage. 0: used only if no modality with a weight is present",
        bounds=(0.0, 1000.0),
    )

    def spec(self, modality: str, length: float, frames: int, sensor: str = "") -> WindowSpec:
        """Return the windows of a sensor whose encoder was trained with `length` seconds and `frames` images.

        A window of one image, whose length the parameters do not set, is at least as long as the hop: else no window
        has the images of a camera that are always older than that at the tick. Raises `ConfigError` for values that do
        not fit together.
        """
        frames = self.frames or frames
        if not self.window and frames == 1:
            length = max(length, self.hop)
        try:
            return WindowSpec(
                modality,
                length=to_ns(self.window or length),
                hop=to_ns(self.hop),
                lateness=to_ns(self.lateness),
                min_coverage=self.min_coverage,
                frames=frames,
                max_gap=to_ns(self.max_gap),
                sensor=sensor,
                max_rate=self.max_rate,
            )
        except ValueError as error:
            raise ConfigError(f"parameters of windows: {error}") from error


DEFAULTS = WindowOptions()


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How the samples of one sensor are divided into windows. Times in int nanoseconds.

    `frames`: number of images in a window; 0 for a time series. If it is 1, the window holds the newest image before
    the tick, and `length` is its maximum age. If it is more, the window holds the images nearest to points that are
    spread evenly from its start to its end. `max_gap`: after a longer step between stamps, windows start again.
    `sensor`: name of the sensor; empty: that of the modality. `max_rate` (Hz): see `WindowOptions`.

    Raises `ValueError` for values that do not fit together.
    """

    modality: str
    length: int
    hop: int
    lateness: int = to_ns(DEFAULTS.lateness)
    min_coverage: float = DEFAULTS.min_coverage
    frames: int = DEFAULTS.frames
    max_gap: int = to_ns(DEFAULTS.max_gap)
    sensor: str = ""
    max_rate: float = 0.0

    def __post_init__(self) -> None:
        if not self.sensor:
            object.__setattr__(self, "sensor", self.modality)
        for name in ("length", "hop", "max_gap"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{self.sensor}.{name} must be greater than 0")
        if self.lateness < 0 or self.frames < 0 or not 0 <= self.min_coverage <= 1:
            raise ValueError(f"{self.sensor}: lateness and frames must be at least 0, min_coverage 0 to 1")
        if self.lateness >= self.max_gap:
            raise ValueError(
                f"{self.sensor}.lateness ({self.lateness / SECOND:g} s) must be shorter than "
                f"{self.sensor}.max_gap ({self.max_gap / SECOND:g} s)"
            )

    @property
    def max_readings(self) -> int:
        """How many readings may be held for the windows that are open: those of `max_rate`."""
        seconds = (max(self.length, self.hop) + self.hop + self.lateness) / SECOND
        return max(2, round((self.max_rate or MAX_READING_RATE) * seconds))

    @property
    def max_duration(self) -> int:
        """Sum of the durations, in ns, of the sounds that may be held: twice that of sounds that do not overlap."""
        return 2 * (max(self.length, self.hop) + self.hop + self.lateness + self.max_gap)

    def accepts(self, sample: Sample) -> bool:
        """Whether the content of a sample is usable and what it claims is within bounds: not empty, finite, of a sound
        a rate up to `max_rate`, at most `MAX_CHANNELS` channels and a duration up to `max_gap`. Frames are checked when
        they are decoded."""
        data = sample.data
        if isinstance(data, Reading):  # a comparison with NaN is false
            return data.values.size > 0 and bool((np.abs(data.values) <= MAX_READING).all())
        if not isinstance(data, Sound):
            return data.data.size > 0
        if data.data.size == 0 or data.data.shape[1] > MAX_CHANNELS:
            return False
        if not 0 < data.sample_rate <= (self.max_rate or MAX_SOUND_RATE) or data.duration > self.max_gap:
            return False
        return data.data.dtype.kind != "f" or bool(np.isfinite(data.data).all())


@dataclass(frozen=True, slots=True, eq=False)
class ReadingSeries:
    """The readings of a window as arrays: `stamps` int64 (N,) in ns, ascending, and `values` float64 (N, C).

    `values` is None if the readings have different numbers of values.
    """

    stamps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64] | None

    @classmethod
    def of(cls, samples: Sequence[Sample], before: ReadingSeries | None = None) -> ReadingSeries:
        """Return the series of at least one sample.

        `before`: the series of an earlier window. It must contain every sample up to its own end that is in `samples`.
        Only the newer ones are then converted. This is much faster, because windows of motion overlap.
        """
        known = 0 if before is None else len(before.stamps) - int(np.searchsorted(before.stamps, samples[0].stamp))
        stamps = np.array([s.stamp for s in samples[known:]], np.int64)
        rows = [s.data.values for s in samples[known:] if isinstance(s.data, Reading)]
        sizes = {row.size for row in rows} if len(rows) == len(stamps) else {-1, 0}
        values: npt.NDArray[np.float64] | None = None
        if before is not None and known:
            if before.values is None or sizes - {before.values.shape[1]}:
                return cls.of(samples)  # the number of values changed
            stamps = np.concatenate([before.stamps[-known:], stamps])
            values = np.concatenate([before.values[-known:].ravel(), *rows]).reshape(len(stamps), -1)
        elif len(sizes) == 1:
            values = np.concatenate(rows).reshape(len(rows), -1)
        return cls(stamps, values)

    def first_columns(
        self, samples: Sequence[Sample], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the stamps (N,) and the first `count` values (N, count) of the readings that have as many.

        `samples`: those of this series.
        """
        if self.values is not None:
            number = len(self.stamps) if self.values.shape[1] >= count else 0
            return self.stamps[:number], self.values[:number, :count] if number else np.empty((0, count))
        rows = [(s.stamp, s.data.values[:count]) for s in samples if isinstance(s.data, Reading)]
        rows = [(stamp, row) for stamp, row in rows if row.size == count]
        stamps = np.array([stamp for stamp, _ in rows], np.int64)
        return stamps, np.array([row for _, row in rows], np.float64).reshape(-1, count)


@dataclass(frozen=True, slots=True)
class Window:
    """The samples of one sensor in `[start, tick)`, int nanoseconds, in order of their stamps.

    `coverage` is the fraction of the window with valid data, 0..1. Image modalities: `samples` holds the chosen frames.
    Time series: `samples` holds every sample that overlaps the window, so a sound may begin before `start`. `sensor` is
    the name of the sensor; empty: that of the modality.
    """

    modality: str
    start: int
    tick: int
    coverage: float
    samples: tuple[Sample, ...]
    calibration: Calibration = Calibration()
    sensor: str = ""
    _series: ReadingSeries | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sensor:
            object.__setattr__(self, "sensor", self.modality)

    @classmethod
    def of_readings(
        cls, spec: WindowSpec, start: int, tick: int, samples: Sequence[Sample], series: ReadingSeries
    ) -> Window:
        """Return the window of readings. `series`: these readings as arrays."""
        coverage = _coverage_of_stamps(series.stamps, start, tick)
        window = cls(spec.modality, start, tick, coverage, tuple(samples), sensor=spec.sensor)
        object.__setattr__(window, "_series", series)
        return window

    @property
    def series(self) -> ReadingSeries:
        """The readings of this window as arrays. Converted once."""
        if self._series is None:
            object.__setattr__(self, "_series", ReadingSeries.of(self.samples))
        assert self._series is not None
        return self._series


def audio_coverage(sounds: Sequence[Sample], start: int, tick: int) -> float:
    """Return the fraction of `[start, tick)` that sounds cover, 0..1. Overlaps count once."""
    covered, reached = 0, start
    for sound in sounds:
        begin, end = max(sound.stamp, reached), min(sound.end, tick)
        if end > begin:
            covered += end - begin
            reached = end
    return covered / (tick - start)


def reading_coverage(readings: Sequence[Sample], start: int, tick: int) -> float:
    """Return the fraction of `[start, tick)` that readings cover, 0..1.

    A reading covers the time until the next one. A step longer than 2.5 usual periods contains a gap and covers one
    period only. The usual period is the median of five steps around it, because a sensor may change its rate. A single
    reading covers nothing, because its period is not known.
    """
    return _coverage_of_stamps(np.array([r.stamp for r in readings], np.int64), start, tick)


def _coverage_of_stamps(stamps: npt.NDArray[np.int64], start: int, tick: int) -> float:
    if len(stamps) < 2:
        return 0.0
    steps = np.diff(stamps).astype(float)
    shortest = steps.min()
    # The times before the first and after the last reading are compared with the periods next to them.
    intervals = np.concatenate(([stamps[0] - start], steps, [tick - stamps[-1]]))
    if intervals.max() <= 2.5 * shortest:  # no gap: no usual period is shorter than the shortest step
        return float(intervals.sum() / (tick - start))
    periods = np.median(sliding_window_view(np.pad(steps, 2, mode="edge"), 5), axis=1)
    periods = np.concatenate((periods[:1], periods, periods[-1:]))
    return float(np.where(intervals > 2.5 * periods, periods, intervals).sum() / (tick - start))
