"""`Windower` behaves as its docstring says, for streams of samples that hypothesis generates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensebind.fusion.core import windows as window_module
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import Window, WindowOptions, WindowSpec
from sensebind.fusion.stream.windower import Windower

MS = SECOND // 1000
START = 1_700_000_000 * SECOND
FRAMES = WindowSpec(VISION, length=SECOND // 2, hop=SECOND // 2, frames=1)
READINGS = WindowSpec(IMU, length=2 * SECOND, hop=SECOND // 2)
SHORT_FRAMES = replace(FRAMES, length=SECOND // 5)  # shorter than the hop
SHORT_READINGS = replace(READINGS, length=SECOND // 5)
SOUNDS = WindowSpec(AUDIO, length=2 * SECOND, hop=SECOND // 2, lateness=300 * MS)


def frame(stamp: int, value: int = 0) -> Sample:
    return Sample(VISION, stamp, Frame(np.full(12, value, np.uint8), "rgb8", 2, 2, 6))


def reading(stamp: int, value: float = 0.0) -> Sample:
    return Sample(IMU, stamp, Reading(np.full(6, value)))


def sound(stamp: int, length: int = 1600, rate: float = 16000) -> Sample:
    return Sample(AUDIO, stamp, Sound(np.zeros((length, 1), np.int16), rate))


def run(spec: WindowSpec, samples: Iterable[Sample], flush: bool = True) -> tuple[list[Window], Windower]:
    windower = Windower(spec)
    windows = [window for sample in samples for window in windower.accept(sample)]
    return windows + (windower.flush() if flush else []), windower


def shape(windows: list[Window]) -> list[tuple[int, int, float, tuple[int, ...]]]:
    return [(w.start, w.tick, round(w.coverage, 9), tuple(s.stamp for s in w.samples)) for w in windows]


def delivered(samples: list[Sample], delays: list[int], lateness: int) -> list[Sample]:
    """The samples in order of arrival, if a network delays each by at most the lateness."""
    order = sorted(range(len(samples)), key=lambda i: samples[i].stamp + delays[i] % (lateness + 1))
    return [samples[i] for i in order]


gaps = st.lists(st.integers(1 * MS, 1200 * MS), min_size=2, max_size=80)
delays = st.lists(st.integers(0, SECOND), min_size=80, max_size=80)


@pytest.mark.parametrize(("spec", "make"), [(FRAMES, frame), (READINGS, reading)], ids=["frames", "readings"])
@given(gaps, delays, st.integers(0, SECOND))
def test_any_order_within_the_lateness_gives_the_same_windows(spec, make, gaps, delays, phase) -> None:
    samples = [make(int(stamp)) for stamp in START + phase + np.cumsum(gaps)]
    expected, _ = run(spec, samples)
    got, windower = run(spec, delivered(samples, delays, spec.lateness))
    assert shape(got) == shape(expected)
    assert windower.counts["late"] == 0


@pytest.mark.parametrize(
    ("spec", "make"),
    [(FRAMES, frame), (READINGS, reading), (SHORT_FRAMES, frame), (SHORT_READINGS, reading)],
    ids=["frames", "readings", "frames in windows shorter than the hop", "readings in windows shorter than the hop"],
)
@given(st.lists(st.integers(0, 3000 * MS), min_size=2, max_size=80), delays, st.booleans())
def test_every_sample_is_in_a_window_or_counted_by_its_cause(spec, make, gaps, delays, restart) -> None:
    samples = [make(int(stamp)) for stamp in START + np.cumsum(gaps)]
    samples = delivered(samples, delays, spec.lateness)
    windower = Windower(replace(spec, min_coverage=0.0))
    windows = [window for sample in samples for window in windower.accept(sample)]
    windows += windower.restart() if restart else windower.flush()
    used = {sample.stamp for window in windows for sample in window.samples}
    counted = sum(windower.counts[cause] for cause in ("duplicate", "outlier", "superseded", "between", "incomplete"))
    assert len(samples) == len(used) + counted + windower.open_samples


@given(st.lists(st.integers(0, 400 * MS), min_size=5, max_size=60), delays)
def test_sounds_in_any_order_within_the_lateness_give_the_same_windows(silences, delays) -> None:
    stamps = START + np.cumsum([100 * MS + silence // 40 for silence in silences])
    samples = [sound(int(stamp)) for stamp in stamps]
    expected, _ = run(SOUNDS, samples)
    # The stamp of a block is at its start, but its end advances the watermark. So the largest delay is one block less.
    got, _ = run(SOUNDS, delivered(samples, delays, SOUNDS.lateness - 100 * MS))
    assert shape(got) == shape(expected)


@pytest.mark.parametrize(("spec", "make"), [(FRAMES, frame), (READINGS, reading), (SOUNDS, sound)])
@given(st.lists(st.integers(10 * MS, 700 * MS), min_size=2, max_size=50), st.data())
def test_duplicates_change_nothing(spec, make, gaps, data) -> None:
    samples = [make(int(stamp)) for stamp in START + np.cumsum(gaps)]
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=len(samples), max_size=len(samples)))
    doubled = [sample for sample, times in zip(samples, repeats, strict=True) for _ in range(times)]
    assert shape(run(spec, doubled)[0]) == shape(run(spec, samples)[0])


@given(gaps, st.sampled_from([FRAMES, READINGS]))
def test_every_window_ends_on_the_grid_and_contains_only_its_own_samples(gaps, spec) -> None:
    make = frame if spec is FRAMES else reading
    windows, _ = run(spec, [make(int(stamp)) for stamp in START + np.cumsum(gaps)])
    ticks = [w.tick for w in windows]
    assert ticks == sorted(set(ticks))
    for window in windows:
        assert window.tick % spec.hop == 0 and window.tick - window.start == spec.length
        assert all(window.start <= s.stamp < window.tick for s in window.samples)
        assert spec.min_coverage <= window.coverage <= 1


def test_a_window_closes_when_the_watermark_reaches_its_tick_and_not_before() -> None:
    windower = Windower(FRAMES)
    assert windower.accept(frame(START + 100 * MS)) == []
    assert windower.accept(frame(START + 549 * MS)) == []
    (window,) = windower.accept(frame(START + 550 * MS))
    assert window.tick == START + 500 * MS and window.samples[0].stamp == START + 100 * MS


def test_the_frame_of_a_window_is_the_newest_before_its_tick() -> None:
    windows, _ = run(FRAMES, [frame(START + i * 33 * MS, i) for i in range(40)])
    assert [w.samples[0].stamp for w in windows] == [START + 495 * MS, START + 990 * MS]
    assert [len(w.samples) for w in windows] == [1, 1]


def test_the_two_frames_of_a_window_are_at_its_start_and_its_end() -> None:
    spec = WindowSpec(VISION, length=2 * SECOND, hop=SECOND, frames=2)
    windows, _ = run(spec, [frame(START + i * 100 * MS) for i in range(41)])
    assert [(s.stamp - w.start) // MS for w in windows[-1:] for s in w.samples] == [0, 1900]
    assert windows[-1].coverage == 1


def test_coverage_is_the_fraction_of_the_window_with_data() -> None:
    whole = [sound(START + i * 100 * MS) for i in range(40)]
    with_gap = [s for i, s in enumerate(whole) if not 25 <= i < 30]
    assert {w.coverage for w in run(SOUNDS, whole)[0] if w.start >= START} == {1.0}
    by_tick = {w.tick: w.coverage for w in run(SOUNDS, with_gap)[0]}
    assert by_tick[START + 3 * SECOND] == pytest.approx(0.75)

    spec = WindowSpec(IMU, length=2 * SECOND, hop=SECOND, min_coverage=0)
    stamps = [START + i * 5 * MS for i in range(801) if not 500 <= i < 600]
    by_tick = {w.tick: w.coverage for w in run(spec, [reading(s) for s in stamps])[0]}
    assert by_tick[START + 4 * SECOND] == pytest.approx(0.75, abs=0.01)
    assert by_tick[START + 2 * SECOND] == pytest.approx(1.0)


def test_medians_are_computed_only_for_readings_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()
    view = window_module.sliding_window_view
    monkeypatch.setattr(window_module, "sliding_window_view", lambda x, n: sizes.append(x.size) or view(x, n))
    even = [reading(START + i * 5 * MS + i % 3 * MS) for i in range(400)]
    assert window_module.reading_coverage(even, START, START + 2 * SECOND) == 1.0 and not sizes
    with_gap = even[:100] + even[200:]
    assert (
        window_module.reading_coverage(with_gap, START, START + 2 * SECOND) == pytest.approx(0.75, abs=0.01) and sizes
    )


def test_windows_under_the_minimum_coverage_are_counted_and_not_returned() -> None:
    samples = [sound(START + i * 100 * MS) for i in range(10)] + [sound(START + 6 * SECOND)]
    windows, windower = run(SOUNDS, samples)
    assert windows and all(w.coverage >= 0.5 for w in windows)
    assert windower.counts["windows"] == len(windows) + windower.counts["coverage"] > len(windows)


@given(st.sampled_from([0, -1, -SECOND]))
def test_samples_without_a_stamp_are_counted_and_dropped(stamp) -> None:
    samples = [frame(START + i * 100 * MS) for i in range(20)]
    windows, windower = run(FRAMES, samples[:10] + [frame(stamp)] + samples[10:])
    assert shape(windows) == shape(run(FRAMES, samples)[0])
    assert windower.counts["unstamped"] == 1


def test_invalid_readings_and_sounds_are_counted_and_reduce_the_coverage() -> None:
    samples = [reading(START + i * 10 * MS, np.nan if 100 <= i < 150 else 0) for i in range(400)]
    windows, windower = run(READINGS, samples)
    assert windower.counts["invalid"] == 50
    assert min(w.coverage for w in windows) < 0.8
    bad = Sample(AUDIO, START, Sound(np.array([[np.inf]], np.float32), 16000))
    assert run(SOUNDS, [bad])[1].counts["invalid"] == 1


def test_a_sensor_that_stops_and_returns_leaves_only_a_gap() -> None:
    before = [frame(START + i * 100 * MS) for i in range(20)]
    for pause in (4 * SECOND, 60 * SECOND):
        after = [frame(START + 2 * SECOND + pause + i * 100 * MS) for i in range(20)]
        windows, windower = run(FRAMES, before + after)
        whole, _ = run(FRAMES, before)
        assert shape(windows)[: len(whole)] == shape(whole)
        assert windows[-1].tick == after[-1].stamp // FRAMES.hop * FRAMES.hop
        assert {w.samples[-1].stamp for w in windows} <= {s.stamp for s in before + after}
        assert windower.counts["outlier"] == windower.counts["late"] == 0
        if pause < FRAMES.max_gap:
            assert windower.counts["gaps"] == 8 and windower.counts["restarts"] == 0
        else:
            assert windower.counts["restarts"] == 1


@given(st.integers(2, 5), st.integers(5 * SECOND, 100 * SECOND))
def test_a_looped_recording_gives_the_same_windows_in_each_loop(loops, length) -> None:
    step = length // 40
    samples = [reading(START + i * step) for i in range(40)]
    spec = WindowSpec(IMU, length=5 * step, hop=SECOND // 2, max_gap=max(10 * SECOND, step + 1))
    once, _ = run(spec, samples)
    again, windower = run(spec, samples * loops)
    assert shape(again) == shape(once) * loops
    assert windower.counts["restarts"] == loops - 1 and windower.counts["outlier"] == 0


@given(st.integers(-(10**6), 10**6).filter(lambda s: abs(s) > 30), st.integers(1, 2))
def test_a_few_wrong_stamps_are_dropped(seconds, count) -> None:
    samples = [reading(START + i * 50 * MS) for i in range(100)]
    outliers = [reading(START + seconds * SECOND + i * MS) for i in range(count)]
    windows, windower = run(READINGS, samples[:50] + outliers + samples[50:])
    assert shape(windows) == shape(run(READINGS, samples)[0])
    assert windower.counts["outlier"] == count and windower.counts["restarts"] == 0


def test_late_samples_are_used_in_windows_that_are_still_open() -> None:
    samples = [reading(START + i * 100 * MS) for i in range(60)]
    late = samples.pop(30)
    samples.insert(38, late)  # 0.8 s late: more than the lateness, less than `MIN_BACKWARD_JUMP`
    windows, windower = run(READINGS, samples)
    assert windower.counts["late"] == 1
    holding = [w.tick for w in windows if late.stamp in {s.stamp for s in w.samples}]
    assert holding and all(tick > START + 3500 * MS for tick in holding)


def windows_by_definition(spec: WindowSpec, arrivals: list[Sample]) -> tuple[dict[int, list[int]], set[int]]:
    """What the windows of a stream without jumps, repeated stamps and bursts are by definition: tick → stamps of its
    samples; and the stamps that are too late: each window that could have them had closed when they arrived."""
    found: dict[int, list[int]] = {}
    held: list[Sample] = []
    too_late: set[int] = set()
    newest, closed = 0, None

    def has(tick: int, sample: Sample) -> bool:
        overlaps = sample.end > tick - spec.length if spec.modality == AUDIO else sample.stamp >= tick - spec.length
        return overlaps and sample.stamp < tick

    for sample in [*arrivals, None]:  # at the end, all windows up to the newest stamp close
        if sample is not None:
            if closed is not None and sample.stamp < closed:
                ahead = range(closed + spec.hop, closed + 2 * spec.length + 2 * spec.hop, spec.hop)
                too_late |= set() if any(has(tick, sample) for tick in ahead) else {sample.stamp}
            held.append(sample)
            newest = max(newest, sample.end)
        last = (newest - (spec.lateness if sample is not None else 0)) // spec.hop * spec.hop
        if closed is None:
            closed = min(last, min(s.stamp for s in held) // spec.hop * spec.hop)
        for tick in range(closed + spec.hop, last + 1, spec.hop):
            if stamps := sorted(s.stamp for s in held if has(tick, s)):
                found[tick] = stamps[-1:] if spec.frames else stamps
        closed = max(closed, last)
    return found, too_late


@pytest.mark.parametrize(
    ("spec", "make"),
    [(replace(spec, length=SECOND), make) for spec, make in ((FRAMES, frame), (READINGS, reading), (SOUNDS, sound))]
    + [(SHORT_READINGS, reading)],
    ids=["frames", "readings", "sounds", "readings in windows shorter than the hop"],
)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=40, unique=True),
    st.lists(st.integers(0, 9), min_size=40, max_size=40),
)
def test_late_samples_are_in_each_window_that_is_still_open_and_too_late_only_if_none_is(
    spec: WindowSpec, make, steps: list[int], delays: list[int]
) -> None:
    """Stamps are multiples of 100 ms, so many are exactly at the start or the end of a window."""
    spec = replace(spec, min_coverage=0.0)
    steps = sorted(steps, key=lambda step: step + delays[step % 40])  # delays are up to 0.9 s
    samples = [make(START + step * 100 * MS) for step in steps]
    windower = Windower(spec)
    windows = [window for sample in samples for window in windower.accept(sample)] + windower.flush()
    found, too_late = windows_by_definition(spec, samples)
    assert {w.tick: [s.stamp for s in w.samples] for w in windows} == found
    # A late image is also too late if the windows that are open use a newer one.
    assert windower.counts["too_late"] >= len(too_late) if spec.frames else windower.counts["too_late"] == len(too_late)


@given(st.lists(st.integers(20, 400), min_size=2, max_size=6))
def test_a_change_of_rate_leaves_no_gap(rates) -> None:
    stamps, now = [], START
    for rate in rates:
        for _ in range(3 * rate):
            stamps.append(now)
            now += SECOND // rate
    windows, _ = run(READINGS, [reading(s) for s in stamps])
    full = [w for w in windows if w.start >= START]
    assert min(w.coverage for w in full) > 0.9
    assert [w.tick for w in full] == list(range(full[0].tick, full[-1].tick + 1, READINGS.hop))


@settings(max_examples=3, deadline=None)
@given(st.sampled_from([VISION, IMU]))
def test_the_number_of_samples_is_bounded_if_no_window_closes(modality) -> None:
    windower = Windower(FRAMES if modality == VISION else replace(READINGS, max_rate=1000.0))
    for i in range(4000):
        assert not windower.accept(frame(START + i) if modality == VISION else reading(START + i))
    held = 1 if modality == VISION else 2550  # 1 kHz for the window of 2 s, the hop of 0.5 s and the lateness of 50 ms
    assert len(windower._samples) == held
    assert modality == VISION or windower.counts["overflow"] == 4000 - held


@pytest.mark.parametrize(
    "data",
    [
        Sound(np.zeros((10_000, 1), np.int16), 1.0),  # 20 kB that claim 2.8 hours
        Sound(np.zeros((100, 1), np.int16), 1e12),
        Sound(np.zeros((10, 10_000), np.int16), 16_000.0),
        Sound(np.full((10, 1), np.inf, np.float32), 16_000.0),
        Reading(np.array([1e300, 0, 0, 0, 0, 0])),
        Reading(np.array([np.inf, 0, 0, 0, 0, 0])),
    ],
    ids=["1 Hz", "1 THz", "10,000 channels", "infinite sound", "1e300", "infinite reading"],
)
def test_a_sample_that_claims_more_than_the_limits_makes_no_windows_and_is_counted(data) -> None:
    spec = SOUNDS if isinstance(data, Sound) else READINGS
    windows, windower = run(spec, [Sample(spec.modality, START + i * 100 * MS, data) for i in range(10)])
    assert not windows and not windower._samples
    assert windower.counts["invalid"] == 10 and windower.counts["windows"] == 0


def test_a_sound_ends_within_the_largest_gap_or_is_a_clock_jump() -> None:
    """At 200 Hz, 1600 samples last 8 s: within `max_gap` of 10 s, as its stamp, but its end is 13 s later."""
    samples = [sound(START + i * 100 * MS) for i in range(50)]
    windows, windower = run(SOUNDS, [*samples, sound(START + 10 * SECOND, rate=200.0), sound(START + 5 * SECOND)])
    assert windower.counts["outlier"] == 1
    assert windows[-1].tick <= START + 5 * SECOND + 100 * MS


def test_the_claimed_duration_of_sounds_that_overlap_is_bounded() -> None:
    """Each claims 8 s from nearly the same stamp, so together they claim more than an hour."""
    windower = Windower(SOUNDS)
    for i in range(500):
        windower.accept(sound(START + i * MS, 800, rate=100.0))
    assert sum(s.end - s.stamp for s in windower._samples) <= SOUNDS.max_duration < 30 * SECOND
    assert windower.counts["overflow"] >= 490


def test_the_number_of_bytes_is_bounded() -> None:
    spec = WindowSpec(VISION, length=60 * SECOND, hop=60 * SECOND, frames=2, max_gap=90 * SECOND)
    windower = Windower(spec, max_bytes=100_000)
    for i in range(1000):
        windower.accept(Sample(VISION, START + i, Frame(np.zeros(10_000, np.uint8), "jpeg", compressed=True)))
    assert windower._bytes <= 100_000 and windower.counts["overflow"] > 900


@given(st.lists(st.tuples(st.integers(-5 * SECOND, 400 * SECOND), st.booleans()), max_size=120))
def test_the_counts_are_consistent_for_any_stream(stream) -> None:
    windower, windows = Windower(READINGS), []
    for offset, flush in stream:
        windows += windower.accept(reading(START + offset))
        windows += windower.flush() if flush else []
    counts = windower.counts
    assert counts["samples"] == len(stream)
    assert counts["windows"] == len(windows) + counts["coverage"]


@pytest.mark.parametrize("bad", [{"length": 0}, {"hop": -1}, {"min_coverage": 2}, {"lateness": 20 * SECOND}])
def test_an_impossible_window_spec_is_refused_with_the_name_of_its_modality(bad) -> None:
    with pytest.raises(ValueError, match="imu"):
        WindowSpec(**{"modality": IMU, "length": SECOND, "hop": SECOND, **bad})


# Bursts, and a stamp of 0


@given(st.integers(2, 12), st.integers(5, 40))
def test_readings_that_share_a_stamp_are_spread_evenly_to_the_next_stamp(count: int, period: int) -> None:
    """A driver that empties a FIFO of `count` readings, `period` ms apart, gives all of them the stamp of the first."""
    number = 4 * SECOND // (period * MS) // count * count
    true = [reading(START + i * period * MS, float(i)) for i in range(number)]
    sent = [reading(START + i // count * count * period * MS, float(i)) for i in range(number)]
    expected, _ = run(READINGS, true)
    found, windower = run(READINGS, sent)
    assert shape(found) == shape(expected)
    assert windower.counts["burst"] == number - number // count and not windower.counts["duplicate"]


def test_a_reading_that_is_repeated_unchanged_is_a_duplicate() -> None:
    samples = [reading(START + i // 2 * 10 * MS, float(i // 2)) for i in range(400)]
    _, windower = run(READINGS, samples)
    assert windower.counts["duplicate"] == 200 and not windower.counts["burst"]


def test_a_pause_after_a_burst_does_not_stretch_it() -> None:
    def burst(start: int) -> list[Sample]:
        return [reading(start, float(value)) for value in range(10)]

    stamps = [START + i * 50 * MS for i in range(10)] + [START + 3 * SECOND]
    windower = Windower(READINGS)
    for start in stamps:
        for sample in burst(start):
            windower.accept(sample)
    windower.flush()
    held = [s.stamp for s in windower._samples if START + 450 * MS <= s.stamp < START + 3 * SECOND]
    assert all(stamp < START + 510 * MS for stamp in held)


def test_a_stamp_of_zero_is_a_stamp_where_the_clock_starts_at_zero() -> None:
    simulated = [frame(i * 100 * MS, i) for i in range(30)]
    windows, windower = run(FRAMES, simulated)
    assert windows[0].samples[0].stamp == 400 * MS and not windower.counts["unstamped"]
    assert windower.first_stamp == 0
    again = [frame(i * 100 * MS, i) for i in range(30)]
    _, windower = run(FRAMES, simulated + again)  # the simulation starts again
    assert not windower.counts["unstamped"] and windower.counts["restarts"] == 1


@given(st.lists(st.sampled_from(["zero", "stamped"]), max_size=40))
def test_a_missing_stamp_among_stamps_of_today_is_counted(kinds: list[str]) -> None:
    samples = [reading(0 if kind == "zero" else START + i * 10 * MS, float(i)) for i, kind in enumerate(kinds)]
    _, windower = run(READINGS, samples)
    assert windower.counts["unstamped"] == kinds.count("zero")
    assert windower.counts["samples"] == len(kinds)


@pytest.mark.parametrize("period", [500 * MS, SECOND, 3 * SECOND])
@pytest.mark.parametrize("phase", [0, 100 * MS, 400 * MS])
def test_each_image_of_a_slow_camera_is_in_a_window_though_its_encoder_was_trained_with_shorter_ones(
    period: int, phase: int
) -> None:
    spec = WindowOptions().spec(DEPTH, length=0.25, frames=1)
    samples = [replace(frame(START + phase + i * period), modality=DEPTH) for i in range(8)]
    windows, windower = run(spec, samples, flush=False)
    used = [sample for window in windows for sample in window.samples]
    assert used == samples[: len(used)] and len(used) + windower.open_samples == len(samples)
    assert windower.open_samples <= 2  # of the newest ticks, which wait for late images
