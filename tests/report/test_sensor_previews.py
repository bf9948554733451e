"""Previews of sensor data: bounded in memory, complete in time, correct in their scales."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.report_examples import START, frame, motion, recorded, sound
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Frame,
    Reading,
    Sample,
    Sound,
)
from sensebind.report import (
    SensorPreviews,
)
from sensebind.report.panels.charts import Axis, image_strip, spectrogram
from sensebind.report.sensor_previews import (
    MAX_IMAGES,
    MAX_SOUND_BINS,
    MAX_TRACE_BINS,
    MEL_BANDS,
    PREVIEW_SIDE,
    band_edges,
)


def test_previews_are_bounded_and_cover_the_whole_recording() -> None:
    previews = SensorPreviews()
    count = 100_000
    for i in range(count):
        previews.add(motion(i / 200))
        if i % 10 == 0:
            previews.add(frame(VISION, i / 200, 0))
            previews.add(sound(i / 200, length=0.05, rate=2000.0))
    axis = Axis(START, START + count * SECOND // 200)
    stamps = [start for start, _ in image_strip(VISION, previews.images[VISION], axis).times]
    assert MAX_IMAGES / 2 <= len(stamps) <= MAX_IMAGES
    steps = np.diff(stamps) / SECOND
    assert (
        steps.max() <= 2.1 * steps.min() and stamps[0] == START and stamps[-1] > axis.end - 2.1 * steps.max() * SECOND
    )
    assert MAX_TRACE_BINS / 2 <= len(previews.traces[IMU].values) <= MAX_TRACE_BINS
    assert MAX_SOUND_BINS / 2 <= len(previews.spectra[AUDIO].bins.values) <= MAX_SOUND_BINS
    assert len(previews.spectra[AUDIO].remainder) < 2000


def test_a_wrong_stamp_adds_at_most_one_column() -> None:
    previews = recorded(10, (IMU,))
    width = previews.traces[IMU].width
    previews.add(Sample(IMU, 1, Reading(np.ones(6))))
    previews.add(Sample(IMU, START * 3, Reading(np.ones(6))))
    previews.add(Sample(IMU, 0, Reading(np.ones(6))))
    previews.add(Sample(IMU, START, Reading(np.full(6, np.nan))))
    assert previews.traces[IMU].width == width and len(previews.traces[IMU].values) == 100 + 2


def test_data_that_cannot_be_decoded_are_left_out() -> None:
    previews = SensorPreviews()
    for encoding in ("no such encoding", "rgb8"):
        previews.add(Sample(VISION, START, Frame(np.zeros(10, np.uint8), encoding, 4, 4)))
    previews.add(Sample(AUDIO, START, Sound(np.zeros((0, 1), np.float32), 16_000.0)))
    previews.add(Sample(AUDIO, START, Sound(np.ones((10, 1), np.float32), 0.0)))
    assert not previews.images[VISION].values and not previews.spectra
    previews.add(frame(VISION, 0.0))
    assert len(previews.images[VISION].values) == 1


def test_compressed_images_are_shown() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[..., 2] = 200
    data = cv2.imencode(".jpg", image)[1].ravel()
    previews = SensorPreviews()
    previews.add(Sample(VISION, START, Frame(data, "jpeg", compressed=True)))
    kept = next(iter(previews.images[VISION].values.values())).values
    assert max(kept.shape) == PREVIEW_SIDE and kept.reshape(-1, 3).mean(axis=0) == pytest.approx([200, 0, 0], abs=3)


def test_previews_do_not_share_memory_with_a_message() -> None:
    previews = SensorPreviews()
    sample = frame(VISION, 0.0, 1)
    assert isinstance(sample.data, Frame)
    previews.add(sample)
    kept = next(iter(previews.images[VISION].values.values())).values.copy()
    sample.data.data[:] = 255
    np.testing.assert_array_equal(next(iter(previews.images[VISION].values.values())).values, kept)


@pytest.mark.parametrize("length", [0.005, 0.1, 7.0])
@pytest.mark.parametrize("rate", [8000.0, 44_100.0])
def test_the_spectrum_of_a_tone_does_not_depend_on_the_length_of_blocks(length: float, rate: float) -> None:
    previews = SensorPreviews()
    for i in range(round(7 / length)):
        previews.add(sound(i * length, 1000.0, length, rate))
    spectra = previews.spectra[AUDIO]
    _, values = spectra.bins.between(START, START + 7 * SECOND)
    total = np.sum(values, axis=0)
    band = int(np.argmax(total[2:]))
    edges = band_edges(spectra.max_frequency)
    assert edges[max(band - 1, 0)] <= 1000 <= edges[min(band + 2, MEL_BANDS)]
    assert total[1] / total[0] == pytest.approx(0.5, rel=0.02)
    assert total[2:].sum() / total[0] == pytest.approx(0.5, rel=0.05)
    starts, _ = spectra.bins.between(START, START + 7 * SECOND)
    assert (np.diff(starts) == spectra.bins.width).all()  # no empty columns
    shown = spectrogram(spectra, Axis(START, START + 7 * SECOND))
    assert shown is not None and shown.level.mean() == pytest.approx(-3.01, abs=0.1)


def test_depth_and_thermal_images_have_one_colour_scale_each_in_their_units() -> None:
    previews = SensorPreviews()
    for i, (metres, kelvin) in enumerate([(1.0, 290.0), (5.0, 310.0)]):
        for modality, count in ((DEPTH, metres * 1000), (THERMAL, kelvin * 100)):
            rows = np.full((4, 4), count).astype("<u2")
            data = Frame(np.frombuffer(rows.tobytes(), np.uint8), "16UC1", 4, 4)
            previews.add(Sample(modality, START + i * SECOND, data))
    axis = Axis(START, START + 10 * SECOND)
    depth, thermal = (image_strip(m, previews.images[m], axis) for m in (DEPTH, THERMAL))
    assert depth.scale[:2] == pytest.approx((1.0, 5.0), abs=0.01) and depth.scale[2] == "m"
    assert thermal.scale[:2] == pytest.approx((16.85, 36.85), abs=0.02) and thermal.scale[2] == "°C"
    near, far = (image.mean() for image in depth.images)
    cold, hot = (image.mean() for image in thermal.images)
    assert near > far and hot > cold
