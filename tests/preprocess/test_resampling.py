"""Resampling of sounds and readings: independent of the division into blocks, and without aliasing."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import firwin

from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, Reading, Sample, Sound
from sensebind.fusion.core.windows import Window
from sensebind.fusion.preprocess import resampling
from sensebind.fusion.preprocess.resampling import _low_pass_taps, even_grid, resample_audio, resample_readings

START = 1_700_000_000 * SECOND
MS = SECOND // 1000


def sounds(wave: np.ndarray, rate: int, cuts: list[int], jitter: int = 0, first: int = START) -> tuple[Sample, ...]:
    edges = [0, *sorted(set(cuts)), len(wave)]
    noise = np.random.default_rng(0)
    return tuple(
        Sample(
            AUDIO, first + a * SECOND // rate + int(noise.integers(-jitter, jitter + 1)), Sound(wave[a:b, None], rate)
        )
        for a, b in pairwise(edges)
        if b > a
    )


def window(samples: tuple[Sample, ...], seconds: float = 2.0, start: int = START) -> Window:
    return Window(samples[0].modality, start, start + round(seconds * SECOND), 1.0, samples)


def tone(frequency: float, rate: float, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 95_999), max_size=10), st.sampled_from([16_000, 44_100, 48_000]))
def test_the_division_into_blocks_does_not_change_the_sound(cuts, rate) -> None:
    wave = np.random.default_rng(1).standard_normal(2 * rate).astype(np.float32) * 0.1
    whole = resample_audio(window(sounds(wave, rate, [])), 16_000)
    np.testing.assert_allclose(
        resample_audio(window(sounds(wave, rate, [c for c in cuts if c < len(wave)])), 16_000), whole, atol=1e-6
    )
    assert whole.shape == (32_000,) and whole.dtype == np.float32


def test_jitter_of_stamps_causes_no_clicks() -> None:
    wave = tone(440, 16_000)
    cuts = list(range(1600, 32_000, 1600))
    found = resample_audio(window(sounds(wave, 16_000, cuts, jitter=3_000_000)), 16_000)
    shift = [np.abs(found[100 + d : -100 + d] - wave[100:-100]).max() for d in range(-50, 51)]
    assert min(shift) < 1e-3


def test_a_gap_becomes_silence_and_later_sound_keeps_its_time() -> None:
    wave = np.ones(32_000, np.float32)
    blocks = sounds(wave, 16_000, list(range(1600, 32_000, 1600)))
    found = resample_audio(window(blocks[:5] + blocks[10:]), 16_000)
    assert not found[8000:16_000].any() and found[:8000].all() and found[16_000:].all()


def test_a_sound_that_begins_before_the_window_is_cut_at_the_window_start() -> None:
    ramp = np.linspace(0, 1, 48_000, dtype=np.float32)
    found = resample_audio(window(sounds(ramp, 16_000, []), start=START + SECOND // 2), 16_000)
    np.testing.assert_allclose(found, ramp[8000:40_000], atol=1e-6)


def test_frequencies_above_half_of_the_new_rate_do_not_alias_and_lower_ones_stay() -> None:
    high = resample_audio(window(sounds(tone(11_000, 48_000), 48_000, [])), 16_000)[1000:-1000]
    low = resample_audio(window(sounds(tone(1_000, 48_000), 48_000, [])), 16_000)[1000:-1000]
    assert np.abs(high).max() < 0.01 and np.abs(low).max() == pytest.approx(1, abs=0.01)


def test_channels_are_averaged() -> None:
    stereo = np.stack([np.full(32_000, 0.6), np.full(32_000, -0.2)], axis=1).astype(np.float32)
    sample = Sample(AUDIO, START, Sound(stereo, 16_000))
    np.testing.assert_allclose(resample_audio(window((sample,)), 16_000), 0.2, atol=1e-6)


def readings(rate: float, frequency: float, jitter: float = 0.0, seconds: float = 5.0) -> Window:
    times = np.arange(0, seconds, 1 / rate) + np.random.default_rng(0).uniform(0, jitter / rate, round(seconds * rate))
    rows = [
        Sample(IMU, START + round(t * SECOND), Reading(np.full(6, np.sin(2 * np.pi * frequency * t)))) for t in times
    ]
    return window(tuple(rows), seconds)


def test_motion_is_low_pass_filtered_before_downsampling() -> None:
    assert np.abs(resample_readings(readings(1000, 150), 200, 6)[:, 50:-50]).max() < 0.01
    kept = resample_readings(readings(1000, 20), 200, 6)
    np.testing.assert_allclose(kept[0, 50:-50], np.sin(2 * np.pi * 20 * np.arange(1000) / 200)[50:-50], atol=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 200), st.floats(0.02, 0.95))
def test_the_low_pass_filter_is_equal_to_that_of_scipy(half: int, share: float) -> None:
    expected = firwin(2 * half + 1, 0.5 * share, fs=1.0)
    np.testing.assert_allclose(_low_pass_taps(half, share), expected, atol=1e-12)


def test_the_first_window_of_a_fast_imu_does_not_import_scipy() -> None:
    """The import would block all modalities of a running robot for two seconds."""
    program = """
import sys
import numpy as np
from sensebind.fusion.preprocess.resampling import resample_readings
from sensebind.fusion.core.samples import Reading, Sample
from sensebind.fusion.core.windows import Window
samples = tuple(Sample("imu", i * 1_000_000, Reading(np.zeros(6))) for i in range(1000))
window = Window("imu", 0, 1_000_000_000, 1.0, samples)
resample_readings(window, 200, 6)
print(sorted(name for name in sys.modules if name.startswith("scipy")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("rate", [184.0, 200.0])
def test_motion_at_any_rate_with_jitter_keeps_its_shape(rate: float) -> None:
    found = resample_readings(readings(rate, 3, jitter=0.3), 400, 6)
    assert found.shape == (6, 2000) and found.dtype == np.float32
    np.testing.assert_allclose(found[0, 20:-20], np.sin(2 * np.pi * 3 * np.arange(2000) / 400)[20:-20], atol=0.02)


def test_readings_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="6 numbers"):
        resample_readings(window((Sample(IMU, START, Reading(np.zeros(3))),)), 400, 6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2000), st.integers(3, 800), st.integers(2, 400))
def test_the_work_of_resampling_follows_from_the_readings_and_the_window_not_from_their_steps(
    step: int, in_burst: int, regular: int
) -> None:
    """A burst, `step` nanoseconds from one reading to the next, then readings for 5 s."""
    times = np.concatenate([np.arange(in_burst) * step / SECOND, 0.1 + np.arange(regular) * 4.9 / regular])
    even, native = even_grid(times, 400.0)
    assert len(even) <= 1 + resampling.MAX_GRID_FACTOR * max(len(times), 5.0 * 400)
    assert even[0] == times[0] and native > 0


def test_a_burst_of_readings_costs_no_more_than_others_and_the_rest_of_the_window_is_kept() -> None:
    """450 readings 2 µs apart, then 100 Hz: their median rate is 500 kHz, for which 5 s would need 2.5 million points.
    The value rises by 1 each second."""
    stamps = [*(2000 * i for i in range(450)), *range(SECOND // 100, 5 * SECOND, SECOND // 100)]
    readings = tuple(Sample(IMU, START + s, Reading(np.full(6, s / SECOND))) for s in stamps)
    found = resample_readings(window(readings, 5.0), 400, 6)
    assert found.shape == (6, 2000)
    np.testing.assert_allclose(found[0], np.arange(2000) / 400, atol=0.03)


def test_a_long_filter_gives_the_same_values_by_fft(monkeypatch) -> None:
    noise = np.random.default_rng(0).standard_normal((4000, 6))
    readings = tuple(Sample(IMU, START + i * MS // 2, Reading(row)) for i, row in enumerate(noise))
    direct = resample_readings(window(readings), 25, 6)
    monkeypatch.setattr(resampling, "MAX_DIRECT_PRODUCTS", 0)
    np.testing.assert_allclose(resample_readings(window(readings), 25, 6), direct, atol=1e-6)


def test_sounds_that_others_cover_are_not_resampled(monkeypatch) -> None:
    """100 sounds of one time, of which the first one is used."""
    import soxr

    calls = []
    original = soxr.resample
    monkeypatch.setattr(
        soxr, "resample", lambda *arguments, **options: calls.append(1) or original(*arguments, **options)
    )
    wave = tone(440, 8000)[:, None]
    blocks = tuple(Sample(AUDIO, START + i, Sound(wave, 8000.0 - i % 2)) for i in range(100))
    assert np.abs(resample_audio(window(blocks), 16_000)).max() > 0.9
    assert len(calls) <= 3
