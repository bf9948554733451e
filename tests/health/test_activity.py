"""The activity of raw data rises when something begins, and the last frame ends with the window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from sensebind.fusion.core.windows import Window
from sensebind.fusion.health.activity import FRAME_PERIOD
from sensebind.fusion.health.checks import SensorHealthMonitor

TICK = 1_700_000_000 * SECOND


def activity(window: Window) -> np.ndarray:
    found = SensorHealthMonitor().inspect(window).activity
    assert found is not None and found.values.dtype == np.float32
    return found.values


def sound_window(wave: np.ndarray, rate: float = 16000.0, block: int = 1600, shift: int = 0) -> Window:
    """A window of 1 s that ends at `TICK`; its blocks end `shift` ns after it."""
    end = TICK + shift
    count = -(-len(wave) // block)
    samples = [
        Sample(
            AUDIO,
            end - round((len(wave) - i * block) * SECOND / rate),
            Sound(wave[i * block : (i + 1) * block, None], rate),
        )
        for i in range(count)
    ]
    return Window(AUDIO, TICK - SECOND, TICK, 1.0, tuple(samples))


def image_window(modality: str, pixels: np.ndarray, encoding: str) -> Window:
    frame = Frame(np.ascontiguousarray(pixels).view(np.uint8).reshape(-1), encoding, *pixels.shape[:2])
    return Window(modality, TICK - SECOND // 2, TICK, 1.0, (Sample(modality, TICK - 1, frame),))


@settings(max_examples=30, deadline=None)
@given(
    rate=st.sampled_from([8000.0, 16000.0, 44100.0, 48000.0]),
    block=st.integers(100, 9000),
    kind=st.sampled_from([np.float32, np.int16]),
)
def test_a_tone_raises_its_band_in_the_frames_that_have_it(rate: float, block: int, kind: type) -> None:
    time = np.arange(round(rate)) / rate
    wave = 0.01 * np.random.default_rng(0).normal(size=len(time))
    wave[round(0.6 * rate) :] += 0.3 * np.sin(2 * np.pi * 1000 * time[round(0.6 * rate) :])
    values = wave.astype(np.float32) if kind is np.float32 else np.rint(wave * 32767).astype(np.int16)
    frames, highest = activity(sound_window(values, rate, block)), min(7600, rate / 2)
    assert frames.shape == (10, 16)
    rise = frames[6:].mean(axis=0) - frames[:6].mean(axis=0)
    assert rise.max() > 15 and np.argmax(rise) == int(np.log(1000 / 80) / np.log(highest / 80) * 16)


def test_a_block_that_ends_after_the_window_is_cut_at_its_end() -> None:
    wave = np.zeros(20000, np.float32)
    wave[-3200:] = np.random.default_rng(0).normal(size=3200)  # the last 0.2 s of the blocks: after the window
    frames = activity(sound_window(wave, shift=SECOND // 5))
    assert np.all(frames < -100)


def test_an_object_that_appears_raises_brightness_nearness_or_warmth_of_its_cells() -> None:
    grey = np.full((120, 160), 100, np.uint8)
    lit = grey.copy()
    lit[40:80, 40:80] = 220
    before, after = (activity(image_window(VISION, pixels, "mono8"))[0] for pixels in (grey, lit))
    assert len(before) == 96 and (after - before).max() > 3 and (after - before)[48:].min() < -3
    far = np.full((120, 160), 4000, np.uint16)
    near = far.copy()
    near[40:80, 40:80] = 1500
    far[:20] = 0  # no reading
    before, after = (activity(image_window(DEPTH, pixels, "16UC1"))[0] for pixels in (far, near))
    assert (after - before)[~np.isnan(before)].max() == pytest.approx(np.log2(4 / 1.5) / 0.2, rel=0.01)
    assert np.isnan(before[:8]).all()
    cold = np.full((120, 160), 29500, np.uint16)
    warm = cold.copy()
    warm[50:60, 50:60] = 30700
    before, after = (activity(image_window(THERMAL, pixels, "mono16"))[0] for pixels in (cold, warm))
    assert (after - before).max() == pytest.approx(
        12 * Calibration().thermal_scale(is_float=False) * 100 / 0.5, rel=0.01
    )


def test_a_bump_raises_the_frames_of_an_imu() -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(200):
        stamp = TICK - SECOND + i * SECOND // 200
        values = np.array([0, 0, 9.81, 0, 0, 0]) + 0.02 * rng.normal(size=6)
        if 120 <= i < 130:
            values[:3] += 8 * rng.normal(size=3)
            values[3:] += rng.normal(size=3)
        samples.append(Sample(IMU, stamp, Reading(values)))
    frames = activity(Window(IMU, TICK - SECOND, TICK, 1.0, tuple(samples)))
    assert frames.shape == (10, 3) and np.argmax(frames.mean(axis=1)) == 6
    assert FRAME_PERIOD == SECOND // 10


@pytest.mark.parametrize(
    "window",
    [
        Window("gas", TICK - SECOND, TICK, 1.0, (Sample("gas", TICK - 1, Reading(np.array([1.0]))),)),
        Window(IMU, TICK - SECOND, TICK, 1.0, (Sample(IMU, TICK - 1, Reading(np.zeros(6))),)),
        image_window(VISION, np.zeros((4, 4), np.uint8), "no such encoding"),
        Window(AUDIO, TICK - SECOND, TICK, 1.0, (Sample(AUDIO, TICK - 1, Sound(np.zeros((1, 1), np.float32), 0.001)),)),
        Window(AUDIO, TICK - SECOND, TICK, 1.0, (Sample(AUDIO, TICK - 1, Sound(np.zeros((9, 1), np.int16), 1e9)),)),
    ],
)  # fmt: skip
def test_data_without_features_have_no_activity(window: Window) -> None:
    assert SensorHealthMonitor().inspect(window).activity is None
