"""Checks and activity are computed by fast ways. The results equal those of the straightforward computation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensebind.fusion.core.encodings import pcm_to_float
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Calibration,
    Frame,
    Reading,
    Sample,
    Sound,
)
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.health import activity, camera_changes, checks
from sensebind.fusion.health.checks import SensorHealthMonitor
from sensebind.fusion.stream.windower import Windower

START = 1_700_000_000 * SECOND
TICK = START + 10 * SECOND
SEEDS = st.integers(0, 2**32 - 1)


def activity_of(window: Window) -> npt.NDArray[np.float32] | None:
    found = SensorHealthMonitor().inspect(window).activity
    return None if found is None else found.values


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    rate=st.sampled_from([20.0, 35.0, 8000.0, 11025.0, 16000.0, 16010.0, 22050.0, 44100.0, 48000.0]),
    dtype=st.sampled_from(["float32", "int16", "int32", "int8"]),
    late=st.integers(-SECOND // 20, SECOND // 10),
)
def test_levels_of_sound_are_those_of_a_fourier_transform(seed: int, rate: float, dtype: str, late: int) -> None:
    noise = np.random.default_rng(seed)
    wave = noise.normal(0, 10 ** noise.uniform(-5, -1), round(2.5 * rate)) + 0.2 * np.sin(np.arange(round(2.5 * rate)))
    scale = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    pcm = (wave.clip(-1, 1) * scale).astype(dtype)
    cuts = np.unique(np.r_[0, noise.integers(1, len(pcm), 12), len(pcm)])
    end = TICK + late
    samples = tuple(
        Sample(AUDIO, end - round((len(pcm) - a) * SECOND / rate), Sound(pcm[a:b, None], rate))
        for a, b in zip(cuts, cuts[1:], strict=False)
        if end - round((len(pcm) - a) * SECOND / rate) < TICK
    )
    found = activity_of(Window(AUDIO, TICK - 2 * SECOND, TICK, 1.0, samples))

    size = round(rate / 10)
    joined = np.concatenate([pcm_to_float(s.data.data[:, 0]) for s in samples if isinstance(s.data, Sound)])
    surplus = max(0, round((samples[-1].end - TICK) * rate / SECOND))
    joined = joined[: len(joined) - surplus]
    frames = joined[len(joined) - len(joined) // size * size :].reshape(-1, size)[-20:]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    power = np.abs(np.fft.rfft((frames * hann).astype(np.float64), axis=1)) ** 2
    frequencies, edges = np.fft.rfftfreq(size, 1 / rate), np.geomspace(80, max(min(7600.0, rate / 2), 160.0), 17)
    expected = np.empty((len(frames), 16))
    for band in range(16):
        inside = (frequencies >= edges[band]) & (frequencies < edges[band + 1])
        inside[np.abs(frequencies - np.sqrt(edges[band] * edges[band + 1])).argmin()] = True
        expected[:, band] = power[:, inside].mean(axis=1) / np.square(hann).sum()
    np.testing.assert_allclose(found, 10 * np.log10(expected + 1e-12), rtol=1e-6, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, rate=st.floats(5, 400), seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0]), values=st.integers(6, 9))
def test_activity_of_motion_is_that_of_each_frame_alone(seed: int, rate: float, seconds: float, values: int) -> None:
    noise = np.random.default_rng(seed)
    start = TICK - round(seconds * SECOND)
    stamps = np.unique(start + (noise.uniform(0, 1, round(rate * seconds) + 2) * seconds * SECOND).astype(np.int64))
    rows = noise.normal(0, 10 ** noise.uniform(-3, 2), (len(stamps), values))
    samples = tuple(Sample(IMU, int(t), Reading(row)) for t, row in zip(stamps, rows, strict=True) if t < TICK)
    found = activity_of(Window(IMU, start, TICK, 1.0, samples))

    count = min(round(10 * seconds), 20)
    used = rows[: len(samples)]
    frame_of = count - 1 - (TICK - 1 - stamps[: len(samples)]) // (SECOND // 10)
    acceleration = used[:, :3] - used[:, :3].mean(axis=0)
    changes = np.diff(used[:, :3], axis=0, prepend=used[:1, :3])
    expected = np.full((count, 3), np.nan)
    for frame in range(count):
        own = frame_of == frame
        if np.count_nonzero(own) >= 2:
            parts = acceleration[own], changes[own], used[own, 3:6]
            lengths = [np.sqrt(np.square(part).sum(axis=1).mean()) for part in parts]
            expected[frame] = 20 * np.log10(np.array(lengths) + [0.05, 0.05, 0.01]) / 1.5
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def image_window(modality: str, pixels: npt.NDArray[np.generic], encoding: str, **calibration: float) -> Window:
    frame = Frame(np.ascontiguousarray(pixels).view(np.uint8).reshape(-1), encoding, *pixels.shape[:2])
    return Window(modality, TICK - SECOND, TICK, 1.0, (Sample(modality, TICK - 1, frame),), Calibration(**calibration))


def random_image(noise: np.random.Generator, dtype: str, channels: int) -> npt.NDArray[np.generic]:
    height, width = (int(side) for side in noise.integers(2, 400, 2))
    shape = (height, width, channels) if channels > 1 else (height, width)
    if dtype == "float32":
        image = noise.uniform(0.2, 9, shape).astype(np.float32)
        image[noise.random(shape) < 0.1] = noise.choice([np.nan, np.inf, 0.0, -1.0])
        return image
    image = noise.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    image[: height // 3][noise.random(image[: height // 3].shape) < noise.choice([0.1, 1.0])] = 0
    return image


def cells_of(image: npt.NDArray[np.generic], reduce: Callable[..., np.floating]) -> npt.NDArray[np.float64]:
    """The grid of 6 × 8 cells over an image that is subsampled to at most 160 rows and columns."""
    small = image[:: -(-image.shape[0] // 160), :: -(-image.shape[1] // 160)].astype(np.float64)
    grey = small.mean(axis=2) if small.ndim == 3 else small
    height, width = grey.shape[0] // 6, grey.shape[1] // 8
    return np.array(
        [
            reduce(grey[r * height : r * height + height, c * width : c * width + width])
            for r in range(6)
            for c in range(8)
        ]
    )


def near_quantile(cell: npt.NDArray[np.float64]) -> float:
    valid = np.sort(cell[np.isfinite(cell) & (cell > 0)])
    return float(valid[(5 * (len(valid) - 1)) // 100]) if len(valid) else np.nan


@settings(max_examples=120, deadline=None)
@given(seed=SEEDS, encoding=st.sampled_from(["rgb8", "bgra8", "mono8", "mono16"]))
def test_brightness_is_the_mean_of_each_cell(seed: int, encoding: str) -> None:
    dtype, channels = ("uint16" if encoding == "mono16" else "uint8"), {"rgb8": 3, "bgra8": 4}.get(encoding, 1)
    image = random_image(np.random.default_rng(seed), dtype, channels)
    if min(image.shape[:2]) < 8:
        return
    expected = cells_of(image, np.mean) / (6.0 * np.iinfo(dtype).max / 255)
    found = activity_of(image_window(VISION, image, encoding))
    np.testing.assert_allclose(found, [np.r_[expected, -expected]], rtol=1e-6)


@settings(max_examples=120, deadline=None)
@given(seed=SEEDS, encoding=st.sampled_from(["16UC1", "32FC1"]), unit=st.sampled_from([0.001, 0.0005]))
def test_nearness_is_the_near_quantile_of_each_cell(seed: int, encoding: str, unit: float) -> None:
    image = random_image(np.random.default_rng(seed), {"16UC1": "uint16", "32FC1": "float32"}[encoding], 1)
    if min(image.shape) < 8:
        return
    expected = -np.log2(cells_of(image, near_quantile) * unit) / 0.2
    found = activity_of(image_window(DEPTH, image, encoding, depth_unit=unit))
    np.testing.assert_allclose(found, [expected], rtol=1e-6, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_warmth_is_the_maximum_of_each_cell(seed: int) -> None:
    image = random_image(np.random.default_rng(seed), "uint16", 1)
    if min(image.shape) >= 8:
        found = activity_of(image_window(THERMAL, image, "mono16"))
        np.testing.assert_allclose(found, [cells_of(image, np.max) / 50.0], rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    seed=SEEDS,
    middle=st.sampled_from([3, 4, 5, 16383, 16384, 21998, 22000, 22002, 29500, 39998, 40000, 40002, 65500, 65535]),
    spread=st.sampled_from([0, 1, 3, 300]),
    dead=st.sampled_from([0.0, 0.003, 0.006, 0.02]),
    unit=st.sampled_from([0.01, 0.04, 5.0]),
)
def test_symptoms_of_a_thermal_image_are_those_of_its_percentiles(
    seed: int, middle: int, spread: int, dead: float, unit: float
) -> None:
    noise = np.random.default_rng(seed)
    image = (middle + noise.integers(-spread, spread, (60, 80), endpoint=True)).clip(0, 65535).astype(np.uint16)
    image[noise.random(image.shape) < dead] = noise.choice([0, 16383, 65535])
    low, median, high = np.percentile(image, (0.5, 50, 99.5))
    kelvin = median * unit
    if high <= 4:
        expected = ("dark",)
    elif low >= 65_500 or low == high == 16_383:
        expected = ("blinded",)
    elif not 150 <= kelvin <= 600:
        expected = ("swapped",)
    else:
        expected = () if 220 <= kelvin <= 400 else ("miscalibrated",)
    assert SensorHealthMonitor().check(image_window(THERMAL, image, "mono16", thermal_unit=unit)) == expected


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, shift=st.floats(-0.8, 0.8), scatter=st.sampled_from([0.0, 0.05, 0.3]))
def test_changes_of_colour_and_depth_are_those_of_medians(seed: int, shift: float, scatter: float) -> None:
    noise = np.random.default_rng(seed)
    first = noise.integers(40, 160, (30, 42, 3))
    factor = np.exp(np.array([shift, 0, 0]) + scatter * noise.standard_normal(first.shape))
    before, now = first.astype(np.uint8), (first * factor).clip(0, 255).astype(np.uint8)
    found = camera_changes.colour_balance_change(before, now)

    def change(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], tolerance: float) -> npt.NDArray[np.float64] | None:
        clear = ((a > 20) & (a < 235) & (b > 20) & (b < 235)).all(axis=1)
        if np.count_nonzero(clear) < max(1.0, 0.2 / tolerance * len(a)):
            return None
        ratio = np.log(b[clear].astype(float)) - np.log(a[clear].astype(float))
        ratio -= ratio.mean(axis=1, keepdims=True)
        medians = np.median(ratio, axis=0)
        size = np.abs(medians).max()
        spreads = np.subtract(*np.percentile(ratio, (75, 25), axis=0))
        return None if size < 0.2 / tolerance or np.any(spreads > tolerance * 0.3 * size) else medians

    a, b = before.reshape(-1, 3), now.reshape(-1, 3)
    expected = None if change(a[::7], b[::7], 2.0) is None else change(a, b, 1.0)
    assert (found is None) == (expected is None)
    if found is not None:
        np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, levels=st.sampled_from([2, 3, 100]), period=st.integers(1, 900))
def test_a_loop_is_found_as_by_comparing_every_start(seed: int, levels: int, period: int) -> None:
    noise = np.random.default_rng(seed)
    wave = noise.integers(0, levels, 1600).astype(np.float64)
    if noise.random() < 0.7:
        wave = np.resize(wave[:period], 1600)
    end = wave[-64:]
    equal = [start for start in range(1600 - 65) if np.array_equal(wave[start : start + 64], end)]
    found = 1600 - 64 - equal[-1] if equal else 0
    loops = 32 <= found <= 800 and np.array_equal(wave[-found:], wave[-2 * found : -found])
    assert checks.is_looping(wave, 32) == loops


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, turning=st.sampled_from([0.0, 0.02, 0.3, 3.0]), shaking=st.sampled_from([0.0, 0.3, 5.0]))
def test_the_bound_of_the_rotation_error_is_never_below_it(seed: int, turning: float, shaking: float) -> None:
    noise = np.random.default_rng(seed)
    times = np.sort(noise.uniform(0, noise.uniform(1.5, 4.05), 500))
    values = np.empty((500, 6))
    values[:, :3] = noise.normal(0, 6, 3) + shaking * noise.standard_normal((500, 3))
    values[:, 3:] = turning * noise.standard_normal(3) * np.sin(noise.uniform(0, 6) * times)[:, None]
    stamps = np.unique(START + (times * SECOND).astype(np.int64))
    values = values[: len(stamps)]
    assert checks.gravity_rotation_error(stamps, values) <= checks.rotation_error_bound(stamps, values) + 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, late=st.floats(0, 0.1), changes=st.booleans())
def test_the_readings_of_overlapping_windows_are_those_of_their_samples(seed: int, late: float, changes: bool) -> None:
    """Also if readings arrive late, twice or not at all, and if the number of values changes."""
    noise = np.random.default_rng(seed)
    stamps = START + np.arange(600) * SECOND // 100 + noise.integers(0, SECOND // 200, 600)
    samples = [
        Sample(IMU, int(t), Reading(noise.normal(size=7 if changes and 200 < i < 300 else 6)))
        for i, t in enumerate(stamps)
    ]
    order = np.argsort(stamps + noise.exponential(late / 3 * SECOND + 1, 600), kind="stable")
    windower = Windower(WindowSpec(IMU, length=2 * SECOND, hop=SECOND // 5, lateness=SECOND // 20, min_coverage=0))
    windows = [w for i in order if noise.random() < 0.95 for w in windower.accept(samples[i])]
    assert len(windows) > 15
    for window in windows:
        rows = [s.data.values for s in window.samples if isinstance(s.data, Reading)]
        assert window.series.stamps.tolist() == [s.stamp for s in window.samples]
        if len({len(row) for row in rows}) > 1:
            assert window.series.values is None
        else:
            assert window.series.values is not None and np.array_equal(window.series.values, rows)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 12, 17, 1600])
def test_the_parts_of_a_spectrum_are_those_of_numpy(size: int) -> None:
    frames = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
    parts = np.fft.rfft(frames.astype(np.float64), axis=1)
    expected = np.stack([parts.real, parts.imag], axis=2).reshape(3, -1)
    expected = np.square(np.delete(expected, 1, axis=1)[:, :size])
    np.testing.assert_allclose(activity._squared_spectrum(frames), expected, rtol=1e-9, atol=1e-12 * size)
