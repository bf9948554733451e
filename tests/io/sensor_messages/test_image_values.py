"""Values of images that do not fit the parameters are warned about once, with the topic and the parameter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.sensor_messages import BAG, START, image
from sensebind.fusion.config.parameters import embedder_parameters, resolve_values, sensor_options
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, VISION
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder

Y, X = np.mgrid[0:48, 0:64]
KELVIN = 293.15 + 1.5 * np.sin(X / 10) + Y / 48
METRES = 0.5 + 0.01 * X


def png(values: np.ndarray, name: str) -> Any:
    data = cv2.imencode(".png", values)[1].reshape(-1)
    return BAG.make(m.COMPRESSED_IMAGE_TYPE, header=m.header_message(BAG, START, "camera"), format=name, data=data)


def warnings_of(
    caplog: pytest.LogCaptureFixture, modality: str, make: Callable[[int], Any], count: int = 30, **values: Any
) -> list[str]:
    """The warnings about `count` messages of a sensor with these parameters."""
    parameters = {f"{modality}.{name}": value for name, value in values.items()}
    options = sensor_options(resolve_values(embedder_parameters([modality]), parameters), modality)
    first = make(0)
    type_name = m.COMPRESSED_IMAGE_TYPE if hasattr(first, "format") else m.IMAGE_TYPE
    decoder = SampleDecoder(options, type_name, "/the/topic")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for number in range(count):
            decoder.decode(make(number), 0)
        decoder.finish()
    return [record.getMessage() for record in caplog.records]


def grey(number: int, bits: int) -> np.ndarray:
    values = (X * 4 + number) % 250 + np.random.default_rng(number).integers(0, 6, X.shape)
    return (values << (bits - 8)).astype(np.uint16)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "bayer_rggb16"])
@pytest.mark.parametrize(("bits", "choices"), [(10, "10 or 12 or 14"), (12, "12 or 14"), (14, "14")])
def test_a_camera_that_never_uses_its_highest_bits_is_named(caplog, encoding: str, bits: int, choices: str) -> None:
    (text,) = warnings_of(caplog, VISION, lambda i: image(encoding, grey(i, bits), START + i * SECOND))
    assert text.startswith("sensor 'vision' (topic '/the/topic'): the largest value of its 16-bit images is ")
    assert text.endswith(f"set vision.bits to their number, {choices}")
    assert warnings_of(caplog, VISION, lambda i: image(encoding, grey(i, bits)), bits=bits) == []


def test_a_png_of_a_camera_with_12_bits_is_named_too(caplog) -> None:
    (text,) = warnings_of(caplog, VISION, lambda i: png(grey(i, 12), "mono16; png compressed "))
    assert "set vision.bits to their number, 12 or 14" in text


@pytest.mark.parametrize("count", [1, 9, 10])
def test_a_recording_with_few_images_is_checked_at_its_end(caplog, count: int) -> None:
    (text,) = warnings_of(caplog, VISION, lambda i: image("mono16", grey(i, 12)), count)
    assert "set vision.bits" in text


def test_thermal_counts_with_stretched_contrast_are_named_though_their_median_could_be_a_temperature(caplog) -> None:
    stretched = np.linspace(0, 60000, X.size).reshape(X.shape).astype(np.uint16)
    (text,) = warnings_of(caplog, THERMAL, lambda i: image("mono16", stretched))
    assert "5 % of the values of its images would be below" in text
    assert "set thermal.radiometric to false" in text
    assert warnings_of(caplog, THERMAL, lambda i: image("mono16", stretched), radiometric=False) == []
    sky = np.where(Y < 24, 20500, 29000).astype(np.uint16)
    assert warnings_of(caplog, THERMAL, lambda i: image("mono16", sky)) == []


def test_a_camera_that_uses_its_highest_bits_now_and_then_is_not_named(caplog) -> None:
    assert warnings_of(caplog, VISION, lambda i: image("mono16", grey(i, 16 if i == 5 else 12))) == []
    assert warnings_of(caplog, VISION, lambda i: image("mono8", grey(i, 8).astype(np.uint8))) == []
    assert warnings_of(caplog, VISION, lambda i: png(grey(i, 8).astype(np.uint8), "png")) == []


@pytest.mark.parametrize("encoding", ["32FC1", "64FC1"])
def test_depth_of_floats_in_millimetres_is_named_with_parameter_and_value(caplog, encoding: str) -> None:
    kind = np.float32 if encoding == "32FC1" else np.float64
    millimetres = (METRES * 1000).astype(kind)
    (text,) = warnings_of(caplog, DEPTH, lambda i: image(encoding, millimetres))
    assert text == (
        "sensor 'depth' (topic '/the/topic'): the median of its images is 815 m, with depth.unit 1: if the value 815 "
        "is millimetres, set depth.unit to 0.001; if the value 815 is centimetres, set depth.unit to 0.01"
    )
    assert warnings_of(caplog, DEPTH, lambda i: image(encoding, millimetres), unit=0.001) == []
    assert warnings_of(caplog, DEPTH, lambda i: image(encoding, METRES.astype(kind))) == []
    (text,) = warnings_of(caplog, DEPTH, lambda i: image(encoding, METRES.astype(kind)), unit=0.001)
    assert "0.000815 m, with depth.unit 0.001" in text and "0 means metres in floats" in text


def test_integer_depth_in_its_usual_units_is_not_named(caplog) -> None:
    counts = np.round(METRES * 1000).astype(np.uint16)
    assert warnings_of(caplog, DEPTH, lambda i: image("16UC1", counts)) == []
    assert warnings_of(caplog, DEPTH, lambda i: image("16UC1", counts * 10), unit=0.0001) == []
    assert warnings_of(caplog, DEPTH, lambda i: image("16UC1", np.zeros_like(counts))) == []  # no reading


@pytest.mark.parametrize(
    ("encoding", "values", "unit"),
    [("16UC1", METRES * 300, "0.01"), ("16UC1", METRES * 100, "0.01"), ("32SC1", METRES * 250, "0.01"),
     ("32FC1", METRES * 100, "0.01"), ("32FC1", METRES * 10_000, "0.0001"), ("16UC1", METRES * 3, "the metres of")],
    ids=["2.4 m", "0.8 m", "32SC1", "floats", "tenths of mm", "metres in integers"],
)  # fmt: skip
def test_depth_in_a_unit_that_cannot_be_right_is_named(caplog, encoding: str, values: np.ndarray, unit: str) -> None:
    kinds: dict[str, type[np.generic]] = {"16UC1": np.uint16, "32SC1": np.int32, "32FC1": np.float32}
    pixels = np.round(values).astype(kinds[encoding])
    (text,) = warnings_of(caplog, DEPTH, lambda i: image(encoding, pixels))
    assert f"set depth.unit to {unit}" in text and "topic '/the/topic'" in text


def test_a_near_scene_in_millimetres_is_named_until_the_unit_is_set(caplog) -> None:
    near = np.round(METRES * 250).astype(np.uint16)  # 0.13 to 0.28 m, as of a camera on an arm
    (text,) = warnings_of(caplog, DEPTH, lambda i: image("16UC1", near))
    assert text.endswith("if it is millimetres, set depth.unit to 0.001 to end this warning")
    assert warnings_of(caplog, DEPTH, lambda i: image("16UC1", near), unit=0.001) == []
    far_behind = np.where(X < 40, near, 2500).astype(np.uint16)  # something near before a room
    assert warnings_of(caplog, DEPTH, lambda i: image("16UC1", far_behind)) == []


def test_three_floats_above_one_are_named_as_no_colours(caplog) -> None:
    colours = np.dstack([X * 4 / 255] * 3).astype(np.float32)
    assert warnings_of(caplog, VISION, lambda i: image("32FC3", colours)) == []
    (text,) = warnings_of(caplog, VISION, lambda i: image("32FC3", colours * 255))
    assert "the largest value of its 32FC3 images is 252" in text and "set the driver to 0 to 1" in text


@pytest.mark.parametrize(
    ("encoding", "values", "remedy"),
    [
        ("mono16", 8000 + (KELVIN - 293.15) * 28, "thermal.radiometric to false"),
        ("mono16", 22_000 + (KELVIN - 293.15) * 110, "thermal.radiometric to false"),
        ("mono16", KELVIN * 10, "set thermal.unit and thermal.offset"),
        ("16UC1", KELVIN / 0.04, "set thermal.unit and thermal.offset"),
        ("mono16", (KELVIN - 273.15) * 10 + 1000, "set thermal.unit and thermal.offset"),
        ("mono16", KELVIN * 10, "0.1 K (unit 0.1, offset 0) would be 20 °C"),
        ("16UC1", KELVIN / 0.04, "0.04 K (unit 0.04, offset 0) would be 20 °C"),
        ("mono16", (KELVIN - 273.15) * 10 + 1000, "(unit 0.1, offset 173.15) would be 20 °C"),
        ("16SC1", (KELVIN - 273.15) * 100, "0.01 °C (unit 0.01, offset 273.15) would be 20 °C"),
        ("mono16", KELVIN, "1 K (unit 1, offset 0) would be 21 °C"),
        ("32FC1", KELVIN - 273.15, "set thermal.unit to 1 and thermal.offset to 273.15"),
        ("32FC1", (KELVIN - 273.15) * 1.8 + 32, "Fahrenheit: set thermal.unit to 0.555556"),
        ("32FC1", KELVIN * 100, "0.01 K (unit 0.01, offset 0) would be 20 °C"),
    ],
    ids=["14 bits", "16 bits", "tenths", "TLinear", "Optris", "tenths named", "TLinear named", "Optris named",
         "hundredths of Celsius", "kelvin in integers", "Celsius", "Fahrenheit", "hundredths in floats"],
)  # fmt: skip
def test_values_that_cannot_be_temperatures_are_named(caplog, encoding: str, values: np.ndarray, remedy: str) -> None:
    kinds: dict[str, type[np.generic]] = {"32FC1": np.float32, "16SC1": np.int16}
    pixels = (values if encoding == "32FC1" else np.round(values)).astype(kinds.get(encoding, np.uint16))
    (text,) = warnings_of(caplog, THERMAL, lambda i: image(encoding, pixels))
    assert "topic '/the/topic'" in text and remedy in text
    assert f"the median of its images is {np.median(pixels[::3, ::3]):.6g}" in text
    assert warnings_of(caplog, THERMAL, lambda i: image(encoding, pixels), radiometric=False) == []


def test_temperatures_are_not_named(caplog) -> None:
    for encoding, pixels, values in (
        ("mono16", np.round(KELVIN * 100).astype(np.uint16), {}),
        ("32FC1", KELVIN.astype(np.float32), {}),
        ("32FC1", (KELVIN - 273.15).astype(np.float32), {"offset": 273.15}),
        ("mono16", np.round(KELVIN * 10).astype(np.uint16), {"unit": 0.1}),
        ("mono8", (X * 4 % 256).astype(np.uint8), {}),
        ("mono8", ((KELVIN - 273.15) * 4).astype(np.uint8), {"unit": 0.25, "offset": 273.15}),
    ):
        assert warnings_of(caplog, THERMAL, lambda i, e=encoding, p=pixels: image(e, p), **values) == []
