"""Cuts the samples of one sensor into windows that end on the shared grid of ticks.

Time is the stamp of a sample, never its time of arrival. A window `[tick − length, tick)` closes when the watermark
(the newest stamp minus the allowed lateness) reaches its tick. So any order of arrival within that lateness gives the
same windows. Ticks are the multiples of the hop since the epoch, so windows of all modalities and of all runs are
aligned.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sensebind.fusion.core.samples import SECOND, Reading, Sample, Sound
from sensebind.fusion.core.windows import ReadingSeries, Window, WindowSpec, audio_coverage
from sensebind.fusion.stream.memory.budget import DEFAULT_BYTES
from sensebind.fusion.stream.memory.sizes import sample_bytes

MIN_BACKWARD_JUMP = 1 * SECOND  # ns; a sample behind the newest by more than this is a clock jump, not late
JUMP_CONFIRMATIONS = 3  # consecutive samples that must agree before a clock jump is accepted
MAX_BURST = 1000  # readings with one stamp
MAX_BURST_STRETCH = 2.5  # a step between readings of a burst is at most so many times that of the burst before
MAX_SAMPLE_SHARE = 1 / JUMP_CONFIRMATIONS  # of `max_bytes`, of one sample: the unconfirmed ones fit together
UNUSED, USED, LATE = range(3)  # of a held sample: whether a window used it; LATE: none, and it came after its tick


class Windower:
    """Cuts the samples of one sensor into windows. Each sample is used by a window (`used`), or counted by one cause of
    `SAMPLE_ENDS`, or open (`open_samples`). Irregular cases, by their names in `counts`:

    - `duplicate`: a sample with a stamp that is already held, or that ends with the newest one. It is dropped.
    - `burst`: a reading with the stamp of the newest one and other values: a driver that empties a FIFO gives all its
      readings one stamp. They are spread evenly from this stamp to the next.
    - `late`: a sample with a stamp before the newest closed tick. It is used for the windows that are still open;
      `too_late` are those that no window used.
    - `clock`: samples that `drop_for_clock` dropped, because the clock of the sensor is not that of the others, or
      `drop_sample`, because of a stamp in the future.
    - `unstamped` (stamp ≤ 0, but not 0 if the next stamp follows it, as in a simulation), `invalid` (NaN, infinite,
      empty, or with claims out of bounds: `WindowSpec.accepts`): samples that are dropped. This lowers the coverage.
    - `gaps`: ticks whose window has no sample, after the first window. They give no window.
    - `restarts`, `outlier`: a sample is a clock jump if it ends after the newest by more than `max_gap`, or is older by
      more than `MIN_BACKWARD_JUMP` (or the lateness, if larger). It is held until `JUMP_CONFIRMATIONS` consecutive
      samples agree. Then the complete windows are closed, and windowing starts again with these samples (`restarts`).
      Samples that are not confirmed are dropped (`outlier`).
    - `superseded`: images in whose place windows use others: before the newest one of their tick, if a window has one
      image. No window uses them.
    - `between`: samples after the end of a window and before the start of the next, if windows are shorter than the
      hop. No window uses them.
    - `incomplete`: samples after the newest closed tick when stamps jump. No window uses them. `open_samples` counts
      those of the newest samples.
    - `overflow`: above `max_bytes` bytes, `WindowSpec.max_readings` or `WindowSpec.max_duration`, the oldest samples
      are dropped. They count as dropped, not as used, also if a window used them: later windows lack them. A sample
      that alone has more than `MAX_SAMPLE_SHARE` of `max_bytes` is dropped itself.
    - `coverage`: windows below `min_coverage`. They are not returned.
    """

    def __init__(self, spec: WindowSpec, counts: Counter[str] | None = None, max_bytes: int = DEFAULT_BYTES) -> None:
        self.spec = spec
        self.max_bytes = max_bytes
        self.largest_refused = 0  # bytes of the largest sample that was dropped because of its size
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.coverage_sum = 0.0  # of all windows with data, also those below the minimum
        self._max_backward = max(spec.lateness, MIN_BACKWARD_JUMP)
        self._max_samples = spec.max_readings
        self.first_stamp: int | None = None  # ns, the earliest stamp that was used and not dropped later
        self._unconfirmed: list[Sample] = []
        self._reset()

    def _reset(self) -> None:
        self._samples: list[Sample] = []
        self._stamps: list[int] = []
        self._states = bytearray()  # of the samples: `UNUSED`, `USED` or `LATE`
        self._bytes = 0
        self._duration = 0  # ns, the sum of the durations of the held sounds, also of those that overlap
        self._series: ReadingSeries | None = None  # of the newest window, if no older sample arrived since
        self.newest_stamp: int | None = None  # ns, end of the newest sample
        self.closed_through: int | None = None  # ns, newest closed tick
        self._zero: Sample | None = None  # a sample with stamp 0, until the next stamp shows whether 0 is one
        self._newest: Sample | None = None  # the newest reading
        self._burst: list[Sample] = []  # later readings with the same stamp
        self._burst_bytes = 0  # of them
        self._burst_step = 0  # ns from one reading to the next in the burst before; 0: there was none
        self._has_data = False  # whether a window had data: from then on, ticks without data are gaps

    def accept(self, sample: Sample) -> list[Window]:
        """Accept one sample; return the windows that it closed, oldest first."""
        self.counts["samples"] += 1
        if sample.stamp < 0:
            self.counts["unstamped"] += 1
            return []
        if not self.spec.accepts(sample):
            self.counts["invalid"] += 1
            return []
        if (size := sample_bytes(sample)) > MAX_SAMPLE_SHARE * self.max_bytes:
            self.counts["overflow"] += 1
            self.largest_refused = max(self.largest_refused, size)
            return []
        zero, self._zero = self._zero, None
        if sample.stamp == 0:
            self.counts["unstamped"] += zero is not None
            self._zero = sample
            self._drop_overflow()
            return []
        if zero is None:
            return self._accept_stamped(sample)
        if sample.stamp > self.spec.max_gap:
            self.counts["unstamped"] += 1
            return self._accept_stamped(sample)
        return self._accept_stamped(zero) + self._accept_stamped(sample)

    def drop_sample(self) -> None:
        """Drop one sample that is not given to `accept`, because its stamp is in the future (`clock`)."""
        self.counts["samples"] += 1
        self.counts["clock"] += 1

    def drop_for_clock(self) -> None:
        """Drop one sample that is not given to `accept`, and all that are held: their clock is not that of the other
        sensors (`clock`)."""
        self.counts["samples"] += 1
        self.counts["clock"] += 1 + len(self._samples) + len(self._unconfirmed) + len(self._burst)
        self.counts["clock"] += self._zero is not None
        self.counts["used"] -= self._states.count(USED)
        self._unconfirmed.clear()
        self.first_stamp = None
        self._reset()

    @property
    def open_samples(self) -> int:
        """How many held samples no window has used yet, with those of a clock jump that is being confirmed, of a burst,
        and with a stamp of 0 that may be one."""
        unused = len(self._states) - self._states.count(USED)
        return unused + len(self._unconfirmed) + len(self._burst) + (self._zero is not None)

    @property
    def is_confirming_jump_back(self) -> bool:
        """Whether the newest sample is held, because its stamp is far before the newest of those that are used."""
        newest = self.newest_stamp
        return newest is not None and bool(self._unconfirmed) and self._unconfirmed[-1].end < newest

    def flush(self) -> list[Window]:
        """Close the windows that end at or before the newest stamp. Call it when no earlier sample is expected."""
        self.counts["unstamped"] += self._zero is not None
        self._zero = None
        self._spread_burst(None)
        return [] if self.newest_stamp is None else self._close(self.newest_stamp)

    def close_through(self, stamp: int) -> list[Window]:
        """Close the windows that end at or before `stamp` (ns), which may be newer than the newest sample. Call it when
        no sample before `stamp` is expected."""
        return [] if self.newest_stamp is None else self._close(stamp)

    def restart(self) -> list[Window]:
        """Start again after a clock jump: flush, then drop all samples except those of a jump that is being confirmed.

        The kept samples close no window until the next sample, so all returned windows are from before the jump.
        """
        zero, self._zero = self._zero, None  # it may be the first stamp after the jump
        windows = self.flush()
        kept, self._unconfirmed = self._unconfirmed, []
        closed = 0 if self.closed_through is None else bisect_left(self._stamps, self.closed_through)
        self._count_unused(0, closed)
        self._count_unused(closed, len(self._samples), "incomplete")
        self.counts["restarts"] += self.newest_stamp is not None
        self._reset()
        self._zero = zero
        for sample in kept:
            self._insert(sample)
            self.newest_stamp = sample.end if self.newest_stamp is None else max(self.newest_stamp, sample.end)
        return windows

    def _accept_stamped(self, sample: Sample) -> list[Window]:
        if self._is_time_jump(sample):
            return self._hold_for_confirmation(sample)
        self.counts["outlier"] += len(self._unconfirmed)
        self._unconfirmed.clear()
        return self._accept(sample)

    def _is_in_burst(self, sample: Sample) -> bool:
        """Whether a reading has the stamp and the frame of the newest one, and other values."""
        if self._newest is None or sample.stamp != self._newest.stamp or sample.frame_id != self._newest.frame_id:
            return False
        before = (self._burst[-1] if self._burst else self._newest).data
        data = sample.data
        return (
            isinstance(data, Reading)
            and isinstance(before, Reading)
            and data.values.shape == before.values.shape
            and not np.array_equal(data.values, before.values)
            and len(self._burst) < MAX_BURST
        )

    def _spread_burst(self, until: int | None) -> None:
        """Insert the readings of a burst, evenly from its stamp to `until` (ns), the next stamp. If that is far, or
        None, they are as near to each other as in the burst before."""
        if not self._burst or self._newest is None:
            return
        first, readings, self._burst = self._newest.stamp, self._burst, []
        self._burst_bytes = 0
        usual, step = self._burst_step, 0 if until is None else (until - first) // (len(readings) + 1)
        if usual and (not step or step > MAX_BURST_STRETCH * usual):
            step = usual
        self._burst_step = step = min(step, SECOND // (len(readings) + 1))
        for number, reading in enumerate(readings if step else (), 1):
            moved = replace(reading, stamp=first + number * step)
            self._insert(moved)
            self.newest_stamp = moved.stamp if self.newest_stamp is None else max(self.newest_stamp, moved.stamp)
        self.counts["burst" if step else "duplicate"] += len(readings)

    def _is_time_jump(self, sample: Sample) -> bool:
        if self.newest_stamp is None:
            return False
        return sample.end > self.newest_stamp + self.spec.max_gap or sample.end < self.newest_stamp - self._max_backward

    def _hold_for_confirmation(self, sample: Sample) -> list[Window]:
        if any(s.stamp == sample.stamp for s in self._unconfirmed):
            self.counts["duplicate"] += 1
            return []
        if self._unconfirmed and not self._same_time_base(sample, self._unconfirmed[-1]):
            self.counts["outlier"] += len(self._unconfirmed)
            self._unconfirmed.clear()
        self._unconfirmed.append(sample)
        self._drop_overflow()
        return self.restart() if len(self._unconfirmed) >= JUMP_CONFIRMATIONS else []

    def _same_time_base(self, sample: Sample, other: Sample) -> bool:
        return other.stamp - self._max_backward <= sample.stamp <= other.end + self.spec.max_gap

    def _accept(self, sample: Sample) -> list[Window]:
        if self._is_in_burst(sample):
            self._burst.append(sample)
            self._burst_bytes += sample_bytes(sample)
            self._drop_overflow()
            return []
        if isinstance(sample.data, Reading) and (self._newest is None or sample.stamp > self._newest.stamp):
            self._spread_burst(sample.stamp)
            self._newest = sample
        if self.closed_through is not None and sample.stamp < self.closed_through:
            if sample.end == self.newest_stamp:  # stamps stand still, and a window used the newest one
                self.counts["duplicate"] += 1
                return []
            self.counts["late"] += 1
            if self._ends_before(sample, self.closed_through + self.spec.hop - self.spec.length):
                self.counts["too_late"] += 1
                return []  # it ends before the first open window
        self._insert(sample)
        self.first_stamp = sample.stamp if self.first_stamp is None else min(self.first_stamp, sample.stamp)
        self.newest_stamp = sample.end if self.newest_stamp is None else max(self.newest_stamp, sample.end)
        return self._close(self.newest_stamp - self.spec.lateness)

    def _insert(self, sample: Sample) -> None:
        at = bisect_left(self._stamps, sample.stamp)
        if at < len(self._stamps) and self._stamps[at] == sample.stamp:
            self.counts["duplicate"] += 1
            return
        if self.spec.frames == 1:
            # A window uses only the newest frame before its tick, so only that one is held.
            cell = sample.stamp // self.spec.hop
            if at < len(self._stamps) and self._stamps[at] // self.spec.hop == cell:
                self.counts["superseded"] += 1
                return
            if at > 0 and self._stamps[at - 1] // self.spec.hop == cell:
                at -= 1
                self._count_unused(at, at + 1, "superseded")
                self._remove(at, at + 1)
        if self._series is not None and sample.stamp < self._series.stamps[-1]:
            self._series = None
        self._stamps.insert(at, sample.stamp)
        self._samples.insert(at, sample)
        is_late = self.closed_through is not None and sample.stamp < self.closed_through
        self._states.insert(at, LATE if is_late else UNUSED)
        self._bytes += sample_bytes(sample)
        self._duration += sample.end - sample.stamp
        self._drop_overflow()

    def _drop_overflow(self) -> None:
        """Drop the oldest samples until the others are within all limits. Those that are held back stay, if they can:
        each of the unconfirmed ones has at most a third of `max_bytes`."""
        allowed = self.max_bytes - self._held_back_bytes()
        while self._samples and (
            self._bytes > allowed or len(self._samples) > self._max_samples or self._duration > self.spec.max_duration
        ):
            self.counts["overflow"] += 1
            self.counts["used"] -= self._states[0] == USED
            self._remove(0, 1)
        while allowed < 0 and self._burst:
            self.counts["overflow"] += 1
            size = sample_bytes(self._burst.pop(0))
            self._burst_bytes -= size
            allowed += size

    def _held_back_bytes(self) -> int:
        """Bytes of the samples that are held, but not among those of the next windows."""
        unused = self._unconfirmed if self._zero is None else [*self._unconfirmed, self._zero]
        return self._burst_bytes + (sum(map(sample_bytes, unused)) if unused else 0)

    @property
    def held_bytes(self) -> int:
        """Bytes of all samples that are held: at most `max_bytes`."""
        return self._bytes + self._held_back_bytes()

    def _remove(self, first: int, last: int) -> None:
        self._bytes -= sum(sample_bytes(s) for s in self._samples[first:last])
        self._duration -= sum(s.end - s.stamp for s in self._samples[first:last])
        del self._samples[first:last], self._stamps[first:last], self._states[first:last]

    def _mark_used(self, first: int, last: int) -> None:
        """Count the held samples from `first` to before `last` as used by a window."""
        self.counts["used"] += last - first - self._states.count(USED, first, last)
        self._states[first:last] = bytes([USED]) * (last - first)

    def _count_unused(self, first: int, last: int, cause: str = "") -> None:
        """Count those of the held samples from `first` to before `last` that no window used: they will be removed.
        `cause`: empty for that of each sample."""
        if self._states.count(USED, first, last) == last - first:
            return
        for at in range(first, last):
            if self._states[at] != USED:
                self.counts[cause or self._cause_without_window(at)] += 1

    def _cause_without_window(self, at: int) -> str:
        """Why no window used a sample from before the newest closed tick."""
        if self._is_between(self._samples[at]):
            return "between"
        return "superseded" if self.spec.frames and self._states[at] != LATE else "too_late"

    def _close(self, watermark: int) -> list[Window]:
        """Close the ticks up to `watermark` (ns), and skip those whose windows have no sample."""
        hop, length = self.spec.hop, self.spec.length
        last = watermark // hop * hop
        if self.closed_through is None:
            if not self._stamps:  # all were dropped
                return []
            # Samples newer than the watermark may still arrive, so no tick after it is closed yet.
            self.closed_through = min(last, self._stamps[0] // hop * hop)
        windows = []
        while self.closed_through < last:
            # The next tick whose window can contain the oldest held sample.
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
            self._count_unused(0, count)
            self._remove(0, count)

    def _is_between(self, sample: Sample) -> bool:
        """Whether a sample ends before the first window that ends after its stamp, so that no window uses it."""
        hop, length = self.spec.hop, self.spec.length
        return length < hop and self._ends_before(sample, (sample.stamp // hop + 1) * hop - length)

    @staticmethod
    def _ends_before(sample: Sample, start: int) -> bool:
        return sample.end <= start if isinstance(sample.data, Sound) else sample.stamp < start

    def _make_window(self, tick: int) -> Window | None:
        start = tick - self.spec.length
        last = bisect_left(self._stamps, tick)
        if self._samples and isinstance(self._samples[0].data, Sound):  # a sound may begin before the window
            chosen = [s for s in self._samples[:last] if not self._ends_before(s, start)]
        else:
            chosen = self._samples[bisect_left(self._stamps, start) : last]
        if not chosen:
            return None
        if not (self.spec.frames or isinstance(chosen[0].data, Sound)):
            self._mark_used(last - len(chosen), last)
            self._series = ReadingSeries.of(chosen, self._series)
            return Window.of_readings(self.spec, start, tick, chosen, self._series)
        if self.spec.frames:
            chosen, coverage = choose_frames(chosen, start, tick, self.spec.frames)
        else:
            coverage = audio_coverage(chosen, start, tick)
        for sample in chosen:
            at = bisect_left(self._stamps, sample.stamp)
            self._mark_used(at, at + 1)
        return Window(self.spec.modality, start, tick, coverage, tuple(chosen), sensor=self.spec.sensor)


def choose_frames(frames: Sequence[Sample], start: int, tick: int, count: int) -> tuple[list[Sample], float]:
    """Choose `count` frames of the window `[start, tick)` in ns. Returns them and the coverage, 0 to 1.

    One frame: the newest. More: the nearest to each of `count` evenly spaced points from start to tick. The coverage is
    the fraction of points with a frame within half the spacing.
    """
    if count == 1:
        return [frames[-1]], 1.0
    spacing = (tick - start) / (count - 1)
    stamps = np.array([f.stamp for f in frames])
    points = start + spacing * np.arange(count)
    nearest = np.abs(stamps[None, :] - points[:, None]).argmin(axis=1)
    near = np.abs(stamps[nearest] - points) <= spacing / 2
    return [frames[i] for i in nearest], float(near.mean())
