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
        "is millimetres, set depth.unit to 0.001"
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
    ("encoding", "values", "remedy"),
    [
        ("mono16", 8000 + (KELVIN - 293.15) * 28, "thermal.radiometric to false"),
        ("mono16", 22_000 + (KELVIN - 293.15) * 110, "thermal.radiometric to false"),
        ("mono16", KELVIN * 10, "set thermal.unit and thermal.offset"),
        ("16UC1", KELVIN / 0.04, "set thermal.unit and thermal.offset"),
        ("mono16", (KELVIN - 273.15) * 10 + 1000, "set thermal.unit and thermal.offset"),
        ("32FC1", KELVIN - 273.15, "set thermal.unit to 1 and thermal.offset to 273.15"),
    ],
    ids=["14 bits", "16 bits", "tenths", "TLinear", "Optris", "Celsius"],
)  # fmt: skip
def test_values_that_cannot_be_temperatures_are_named(caplog, encoding: str, values: np.ndarray, remedy: str) -> None:
    pixels = values.astype(np.float32) if encoding == "32FC1" else np.round(values).astype(np.uint16)
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
    ):
        assert warnings_of(caplog, THERMAL, lambda i, e=encoding, p=pixels: image(e, p), **values) == []
