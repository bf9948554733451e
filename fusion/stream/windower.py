"""Samples of one modality, in any order, cut into windows that end on the shared grid.

Time is what the samples say, never when they came. A window `[tick − length, tick)` closes when the
watermark, the newest stamp seen minus the allowed lateness, reaches its tick; so any order of arrival
within the allowed lateness gives the same windows. Ticks are the multiples of the hop since the epoch,
so windows of all modalities and of every run are aligned by construction.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sensebind.fusion.core.samples import SECOND, Reading, Sample, Sound
from sensebind.fusion.core.windows import Window, WindowSpec, audio_coverage, reading_coverage

MIN_BACKWARD_JUMP = 1 * SECOND  # older than this (and than the lateness) is another time, not a late sample
JUMP_CONFIRMATIONS = 3  # samples in a row that must agree before a jump in time is believed
MAX_BUFFER_BYTES = 256 * 2**20  # bytes that one modality may hold


class Windower:
    """Windows of one modality. What comes in, and what is done with it:

    - **duplicate** (a stamp that is already held): ignored, counted.
    - **late** (its stamp lies before a closed tick): used for the windows that are still open, counted.
    - **unstamped** (stamp ≤ 0) or **invalid** (NaN, infinite, empty): left out, counted; the window's
      coverage falls by what is missing.
    - **gap**: windows that hold no sample do not exist; ticks passed over are counted as `gaps`.
    - **a jump**, forward by more than `max_gap` or backward by more than `MIN_BACKWARD_JUMP`: held back until
      `JUMP_CONFIRMATIONS` samples in a row agree; then open windows that are whole are closed, and windows start
      afresh from those samples (`restarts`). Samples that nothing confirms are counted as `outlier`.
    - **overflow**: past `MAX_BUFFER_BYTES` bytes, or 100,000 samples, the oldest go, counted.

    Windows below `min_coverage` are counted under `coverage` and not returned.
    """

    def __init__(self, spec: WindowSpec, counts: Counter[str] | None = None) -> None:
        self.spec = spec
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.coverage_sum = 0.0  # over all windows with data, also those under the minimum
        self._max_backward = max(spec.lateness, MIN_BACKWARD_JUMP)
        self._unconfirmed: list[Sample] = []
        self._reset()

    def _reset(self) -> None:
        self._samples: list[Sample] = []
        self._stamps: list[int] = []
        self._bytes = 0
        self.newest_stamp: int | None = None  # end of the newest sample
        self.closed_through: int | None = None  # newest tick that will never be opened again
        self._has_data = False  # a window has held data: from here on, ticks without any are gaps

    def accept(self, sample: Sample) -> list[Window]:
        """Take one sample; return the windows that it closed, oldest first."""
        self.counts["samples"] += 1
        if sample.stamp <= 0:
            self.counts["unstamped"] += 1
            return []
        if not is_valid(sample):
            self.counts["invalid"] += 1
            return []
        if self._is_time_jump(sample):
            return self._hold_for_confirmation(sample)
        self.counts["outlier"] += len(self._unconfirmed)
        self._unconfirmed.clear()
        return self._accept(sample)

    def flush(self) -> list[Window]:
        """Close the windows that end at or before the newest stamp: no earlier sample will come."""
        return [] if self.newest_stamp is None else self._close(self.newest_stamp)

    def restart(self) -> list[Window]:
        """Time starts afresh: flush, forget everything but the samples of a jump that was being confirmed.

        Those close no window before the next sample does, so all windows returned are of the old time.
        """
        windows = self.flush()
        suspects, self._unconfirmed = self._unconfirmed, []
        self.counts["restarts"] += self.newest_stamp is not None
        self._reset()
        for sample in suspects:
            self._insert(sample)
            self.newest_stamp = sample.end if self.newest_stamp is None else max(self.newest_stamp, sample.end)
        return windows

    def _is_time_jump(self, sample: Sample) -> bool:
        if self.newest_stamp is None:
            return False
        return (
            sample.stamp > self.newest_stamp + self.spec.max_gap or sample.end < self.newest_stamp - self._max_backward
        )

    def _hold_for_confirmation(self, sample: Sample) -> list[Window]:
        if any(s.stamp == sample.stamp for s in self._unconfirmed):
            self.counts["duplicate"] += 1
            return []
        if self._unconfirmed and not self._same_time_base(sample, self._unconfirmed[-1]):
            self.counts["outlier"] += len(self._unconfirmed)
            self._unconfirmed.clear()
        self._unconfirmed.append(sample)
        return self.restart() if len(self._unconfirmed) >= JUMP_CONFIRMATIONS else []

    def _same_time_base(self, sample: Sample, other: Sample) -> bool:
        return other.stamp - self._max_backward <= sample.stamp <= other.end + self.spec.max_gap

    def _accept(self, sample: Sample) -> list[Window]:
        if self.closed_through is not None and sample.stamp < self.closed_through:
            self.counts["late"] += 1
            if sample.end <= self.closed_through + self.spec.hop - self.spec.length:
                return []  # no open window reaches back so far
        self._insert(sample)
        self.newest_stamp = sample.end if self.newest_stamp is None else max(self.newest_stamp, sample.end)
        return self._close(self.newest_stamp - self.spec.lateness)

    def _insert(self, sample: Sample) -> None:
        at = bisect_left(self._stamps, sample.stamp)
        if at < len(self._stamps) and self._stamps[at] == sample.stamp:
            self.counts["duplicate"] += 1
            return
        if self.spec.frames == 1:
            # Only the newest frame before each tick can ever be chosen: hold no other.
            cell = sample.stamp // self.spec.hop
            if at < len(self._stamps) and self._stamps[at] // self.spec.hop == cell:
                return
            if at > 0 and self._stamps[at - 1] // self.spec.hop == cell:
                at -= 1
                self._remove(at, at + 1)
        self._stamps.insert(at, sample.stamp)
        self._samples.insert(at, sample)
        self._bytes += sample_bytes(sample)
        while self._bytes > MAX_BUFFER_BYTES or len(self._samples) > 100_000:
            self.counts["overflow"] += 1
            self._remove(0, 1)

    def _remove(self, first: int, last: int) -> None:
        self._bytes -= sum(sample_bytes(s) for s in self._samples[first:last])
        del self._samples[first:last], self._stamps[first:last]

    def _close(self, watermark: int) -> list[Window]:
        """Close the ticks up to `watermark`, passing over those whose windows hold nothing."""
        hop, length = self.spec.hop, self.spec.length
        last = watermark // hop * hop
        if self.closed_through is None:
            # Nothing older than the watermark may still come, so the first tick lies after it.
            self.closed_through = min(last, self._stamps[0] // hop * hop)
        windows = []
        while self.closed_through < last:
            # The next tick whose window can hold the oldest sample that is left.
            tick = max(self.closed_through, self._stamps[0] // hop * hop) + hop if self._samples else last + hop
            if self._has_data:
                self.counts["gaps"] += (min(tick, last + hop) - self.closed_through) // hop - 1
            if tick > last:
                self.closed_through = last
                break
            self.closed_through = tick
            window = self._make_window(tick)
            self._drop_before(tick + hop - length)
            if window is None:
                self.counts["gaps"] += self._has_data
                continue
            self._has_data = True
            self.counts["windows"] += 1
            self.coverage_sum += window.coverage
            if window.coverage < self.spec.min_coverage:
                self.counts["coverage"] += 1
            else:
                windows.append(window)
        return windows

    def _drop_before(self, start: int) -> None:
        """Drop the samples that end at or before `start`."""
        count = 0
        while count < len(self._samples) and self._ends_before(self._samples[count], start):
            count += 1
        if count:
            self._remove(0, count)

    @staticmethod
    def _ends_before(sample: Sample, start: int) -> bool:
        return sample.end <= start if isinstance(sample.data, Sound) else sample.stamp < start

    def _make_window(self, tick: int) -> Window | None:
        start = tick - self.spec.length
        last = bisect_left(self._stamps, tick)
        if self._samples and isinstance(self._samples[0].data, Sound):  # one may begin before the window
            chosen = [s for s in self._samples[:last] if not self._ends_before(s, start)]
        else:
            chosen = self._samples[bisect_left(self._stamps, start) : last]
        if not chosen:
            return None
        if self.spec.frames:
            chosen, share = choose_frames(chosen, start, tick, self.spec.frames)
        elif isinstance(chosen[0].data, Sound):
            share = audio_coverage(chosen, start, tick)
        else:
            share = reading_coverage(chosen, start, tick)
        return Window(self.spec.modality, start, tick, share, tuple(chosen))


def is_valid(sample: Sample) -> bool:
    """Whether a sample can be used at all. Frames are judged when they are decoded."""
    data = sample.data
    if isinstance(data, Reading):
        return data.values.size > 0 and bool(np.isfinite(data.values).all())
    if isinstance(data, Sound):
        if data.data.size == 0 or not data.sample_rate > 0:
            return False
        return data.data.dtype.kind != "f" or bool(np.isfinite(data.data).all())
    return data.data.size > 0


def sample_bytes(sample: Sample) -> int:
    """Bytes that a sample holds, roughly."""
    data = sample.data
    return 100 + (data.values.nbytes if isinstance(data, Reading) else data.data.nbytes)


def choose_frames(frames: Sequence[Sample], start: int, tick: int, count: int) -> tuple[list[Sample], float]:
    """`count` frames of a window, and its coverage: the share of the wanted points that have a frame near.

    One frame: the newest. More: the nearest to each of `count` points from start to tick; a point is
    covered where a frame lies within half the distance between points.
    """
    if count == 1:
        return [frames[-1]], 1.0
    spacing = (tick - start) / (count - 1)
    stamps = np.array([f.stamp for f in frames])
    points = start + spacing * np.arange(count)
    nearest = np.abs(stamps[None, :] - points[:, None]).argmin(axis=1)
    near = np.abs(stamps[nearest] - points) <= spacing / 2
    return [frames[i] for i in nearest], float(near.mean())
