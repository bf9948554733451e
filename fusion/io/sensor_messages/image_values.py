"""Compares the values of the first images of a sensor with its parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core import encodings
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION, Calibration, Frame
from sensebind.fusion.io.sensor_options import SensorOptions

CHECKED_IMAGES = {VISION: 10, DEPTH: 3, THERMAL: 3}  # modality → images at the start whose values are checked
CHECKED_STRIDE = 3  # rows and columns; odd, so that all colours of a mosaic are seen
USUAL_BITS = (8, 10, 12, 14)  # of cameras that send 16-bit images and use fewer bits
MAX_SCENE_DEPTH, MIN_SCENE_DEPTH = 100.0, 0.01  # m: the median of a depth image that a robot can see
SCENE_KELVIN = (230.0, 400.0)  # K: the median of a thermal image of places where robots work
CELSIUS = 273.15  # K: 0 °C
PLAUSIBLE_CELSIUS = (-40.0, 120.0)  # °C: medians of floats that are degrees Celsius rather than kelvin


class ImageValueCheck:
    """Compares the values of a sensor's first images with its parameters, and finds parameters that do not fit."""

    def __init__(self, options: SensorOptions) -> None:
        self._sensor, self._modality = options.sensor, options.modality
        self._left = CHECKED_IMAGES.get(options.modality, 0)
        if options.bits:
            self._left = 0
        self._found: list[float] = []  # of each image: the largest value of a camera, else the median
        self._is_float = False

    def check(self, frame: Frame, calibration: Calibration) -> str:
        """Check one image. Returns a warning that names the parameter, empty in most cases, after the last image."""
        if not self._left:
            return ""
        try:
            values = self._values(frame)
        except EncodingError:  # it is reported when the image is decoded for a window
            return ""
        if values is None:
            return ""
        self._is_float = values.dtype.kind == "f"
        if self._modality != VISION:
            values = values[np.isfinite(values) & (values > 0)] if self._modality == DEPTH else values
            values = values[values < 65535] if values.dtype == np.uint16 else values
        if not values.size:
            return ""
        self._left -= 1
        self._found.append(float(values.max() if self._modality == VISION else np.median(values)))
        if self._modality == VISION and self._found[-1] >= 1 << USUAL_BITS[-1]:
            self._left = 0  # it uses the highest bits
            return ""
        return "" if self._left else self._warning(calibration)

    def _values(self, frame: Frame) -> npt.NDArray[Any] | None:
        """The values, of every third row and column; None for a camera image of 8 bits and thermal levels."""
        if self._modality == DEPTH:
            return encodings.depth_pixels(frame)[::CHECKED_STRIDE, ::CHECKED_STRIDE]
        if self._modality == THERMAL:
            values, _ = encodings.thermal_pixels(frame)
            return None if values.dtype == np.uint8 else values[::CHECKED_STRIDE, ::CHECKED_STRIDE]
        pixels = encodings.sixteen_bit_pixels(frame)
        return None if pixels is None else pixels[::CHECKED_STRIDE, ::CHECKED_STRIDE]

    def _warning(self, calibration: Calibration) -> str:
        if self._modality == VISION:
            return self._bits_warning(max(self._found))
        middle = float(np.median(self._found))
        if self._modality == DEPTH:
            return self._depth_warning(middle, calibration)
        return self._thermal_warning(middle, calibration) if calibration.thermal_radiometric else ""

    def _bits_warning(self, largest: float) -> str:
        choices = " or ".join(str(bits) for bits in USUAL_BITS if largest < 1 << bits)
        return (
            f"the largest value of its 16-bit images is {largest:.0f}, so they are nearly black: if the camera uses "
            f"fewer bits, set {self._sensor}.bits to their number, {choices}"
        )

    def _depth_warning(self, middle: float, calibration: Calibration) -> str:
        metres = middle * calibration.depth_scale(self._is_float)
        if MIN_SCENE_DEPTH <= metres <= MAX_SCENE_DEPTH:
            return ""
        unit = f"{calibration.depth_scale(self._is_float):g}"
        if metres > MAX_SCENE_DEPTH:
            cure = f"if the value {middle:.6g} is millimetres, set {self._sensor}.unit to 0.001"
        else:
            cure = (
                f"set {self._sensor}.unit to the metres of the value 1; 0 means metres in floats, millimetres in "
                "integers"
            )
        return f"the median of its images is {metres:.4g} m, with {self._sensor}.unit {unit}: {cure}"

    def _thermal_warning(self, middle: float, calibration: Calibration) -> str:
        unit = calibration.thermal_scale(self._is_float)
        kelvin = middle * unit + calibration.thermal_offset
        if SCENE_KELVIN[0] <= kelvin <= SCENE_KELVIN[1]:
            return ""
        name = self._sensor
        cure = (
            f"set {name}.unit and {name}.offset as the manual of the camera says, or {name}.radiometric to false if "
            "its values are no temperatures"
        )
        if self._is_float and PLAUSIBLE_CELSIUS[0] <= middle <= PLAUSIBLE_CELSIUS[1]:
            cure = f"they are probably degrees Celsius: set {name}.unit to 1 and {name}.offset to {CELSIUS:g}"
        return (
            f"the median of its images is {middle:.6g}, which would be {kelvin:.1f} K ({kelvin - CELSIUS:.0f} °C) with "
            f"{name}.unit {unit:g} and {name}.offset {calibration.thermal_offset:g}: {cure}"
        )
