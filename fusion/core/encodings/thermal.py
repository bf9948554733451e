"""Decodes thermal images to kelvin or levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.camera import convert_colours, decode_rgb
from sensebind.fusion.core.encodings.image_files import decode_file
from sensebind.fusion.core.encodings.pixel_formats import THERMAL_VALUE_ENCODINGS, canonical_encoding
from sensebind.fusion.core.encodings.raw_images import raw_pixels
from sensebind.fusion.core.samples import Calibration, Frame

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ThermalImage:
    """A decoded thermal image.

    `known_values` float32 (H, W): kelvin if `radiometric`, else levels 0..1 of an unknown scale; None if `counts` are
    given. `counts` uint16 (H, W): the values of a 16-bit image as sent; kelvin = counts · `kelvin_per_count` +
    `kelvin_offset`.
    """

    known_values: Float32Array | None
    radiometric: bool
    counts: npt.NDArray[np.uint16] | None = None
    kelvin_per_count: float = 1.0
    kelvin_offset: float = 0.0

    @property
    def values(self) -> Float32Array:
        """`known_values`, or kelvin from the counts. Each call converts them, so keep the result."""
        if self.known_values is not None:
            return self.known_values
        assert self.counts is not None
        return self.counts.astype(np.float32) * np.float32(self.kelvin_per_count) + np.float32(self.kelvin_offset)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        held = self.counts if self.known_values is None else self.known_values
        assert held is not None
        return held.shape


def decode_thermal(frame: Frame, calibration: Calibration = Calibration()) -> ThermalImage:
    """Decode a thermal frame to kelvin or levels.

    16 bits (`mono16`, `16UC1`, 16-bit files) and floats: kelvin = values × unit + `thermal_offset`, with
    `Calibration.thermal_scale`. If the camera is not `thermal_radiometric`: levels from the 1st to the 99th percentile
    of this image. 8 bits: levels, value / 255; kelvin if `thermal_unit` is set. Colours: levels by luminance (ITU-R
    BT.601). If the luminance of a colour map does not increase with temperature, the order of the temperatures is lost:
    publish the grey or the radiometric image instead. Raises `EncodingError`.
    """
    pixels, is_grey = thermal_pixels(frame)
    if pixels.dtype == np.uint8 and not (is_grey and calibration.thermal_radiometric and calibration.thermal_unit):
        return ThermalImage(pixels.astype(np.float32) / np.float32(255), False)
    if not calibration.thermal_radiometric:
        return ThermalImage(contrast_levels(pixels), False)
    scale = calibration.thermal_scale(pixels.dtype.kind == "f")
    if pixels.dtype == np.uint16:
        return ThermalImage(None, True, pixels, scale, calibration.thermal_offset)
    kelvin = np.array(pixels, np.float32)
    if scale != 1.0:
        kelvin *= np.float32(scale)
    if calibration.thermal_offset:
        kelvin += np.float32(calibration.thermal_offset)
    return ThermalImage(kelvin, True)


def thermal_pixels(frame: Frame) -> tuple[npt.NDArray[Any], bool]:
    """Decode a thermal image to what it holds, (H, W), uint8, uint16 or floats; and whether it is grey, so that its
    values may be temperatures. Raises `EncodingError`."""
    if frame.compressed:
        pixels = decode_file(frame, cv2.IMREAD_UNCHANGED)
        is_grey = pixels.ndim == 2
        if not is_grey:
            code = cv2.COLOR_BGRA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_BGR2GRAY
            pixels = convert_colours(pixels, code, frame)
            if pixels.dtype == np.uint16:  # 16-bit colours are not temperature counts
                pixels = (pixels >> 8).astype(np.uint8)
    elif canonical_encoding(frame.encoding) in THERMAL_VALUE_ENCODINGS:
        pixels, is_grey = raw_pixels(frame), True
    else:
        pixels, is_grey = np.asarray(cv2.cvtColor(decode_rgb(frame), cv2.COLOR_RGB2GRAY)), False
    if pixels.dtype.kind == "i":
        pixels = pixels.astype(np.float32)
    return pixels, is_grey


MIN_COUNT_SPAN = 100.0  # counts: smallest range of raw counts that is spread over all levels; noise has less


def contrast_levels(values: npt.NDArray[Any]) -> Float32Array:
    """Values of an unknown scale (H, W) → float32 levels 0..1, from their 1st to their 99th percentile. NaN becomes 0.

    A range of less than `MIN_COUNT_SPAN` counts is widened to it, so that noise is not amplified.
    """
    finite = values if values.dtype.kind == "u" else values[np.isfinite(values)]
    if not finite.size:
        return np.zeros(values.shape, np.float32)
    low, high = (float(v) for v in np.percentile(finite, (1, 99)))
    spare = max(MIN_COUNT_SPAN - (high - low), 0.0) / 2 if values.dtype.kind == "u" else 0.0
    span = high - low + 2 * spare
    if span <= 0:
        return np.zeros(values.shape, np.float32)
    levels = (values.astype(np.float32) - np.float32(low - spare)) / np.float32(span)
    return np.clip(np.nan_to_num(levels, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
