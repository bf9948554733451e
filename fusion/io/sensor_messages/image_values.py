"""Compares the values of the first images of a sensor with its parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core import encodings
from sensebind.fusion.core.encodings import EncodingError, Pixels
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION, Calibration, Frame
from sensebind.fusion.io.sensor_options import SensorOptions

CHECKED_IMAGES = {VISION: 10, DEPTH: 3, THERMAL: 3}  # modality → images at the start whose values are checked
CHECKED_STRIDE = 3  # rows and columns; odd, so that all colours of a mosaic are seen
USUAL_BITS = (8, 10, 12, 14)  # of cameras that send 16-bit images and use fewer bits
MAX_SCENE_DEPTH, MIN_SCENE_DEPTH = 50.0, 0.01  # m: the median of a depth image that a robot can see
# m: the median and the 95th percentile of depth images that are nearer than those of most cameras, if nothing is set.
NEAR_SCENE_DEPTH, NEAR_SCENE_LIMIT = 0.3, 1.0
DEPTH_UNITS = {"millimetres": 0.001, "centimetres": 0.01, "tenths of a millimetre": 0.0001}  # m of the value 1
SCENE_KELVIN = (230.0, 400.0)  # K: the median of a thermal image of places where robots work
COLDEST_SCENE, PERCENT_COLDER = 150.0, 5  # K: colder than a clear sky; no more of an image's values than this are so
CELSIUS = 273.15  # K: 0 °C
PLAUSIBLE_CELSIUS = (-40.0, 120.0)  # °C: medians of floats that are degrees Celsius rather than kelvin
HOT_CELSIUS = 50.0  # °C: medians above it may be degrees Fahrenheit too
FAHRENHEIT = (0.555556, 255.372)  # K of a degree Fahrenheit, K of 0 °F
# What the counts of thermal cameras are → unit and offset in K.
THERMAL_UNITS = {
    "0.01 K": (0.01, 0.0),
    "0.1 K": (0.1, 0.0),
    "0.04 K": (0.04, 0.0),
    "1 K": (1.0, 0.0),
    "0.01 °C": (0.01, CELSIUS),
    "0.1 °C": (0.1, CELSIUS),
    "1 °C": (1.0, CELSIUS),
    "0.1 °C from -100 °C": (0.1, 173.15),  # Optris
}
ROOM_KELVIN = (268.0, 318.0)  # K: -5 to 45 °C, the medians for which a unit is proposed


class ImageValueCheck:
    """Compares the values of a sensor's first images with its parameters, and finds parameters that do not fit."""

    def __init__(self, options: SensorOptions) -> None:
        self._sensor, self._modality = options.sensor, options.modality
        self._left = CHECKED_IMAGES.get(options.modality, 0)
        if options.bits:
            self._left = 0
        self._found: list[float] = []  # of each image: the largest value of a camera, else the median
        self._high: list[float] = []  # of each depth image: the 95th percentile
        self._low: list[float] = []  # of each thermal image: the 5th percentile
        self._is_float = False

    def check(self, frame: Frame, calibration: Calibration) -> str:
        """Check one image. Returns a warning that names the parameter, empty in most cases, after the last image."""
        if not self._left:
            return ""
        try:
            values = self._values(frame, calibration)
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
        if self._modality == DEPTH:
            self._high.append(float(np.percentile(values, 95)))
        if self._modality == THERMAL:
            self._low.append(float(np.percentile(values, PERCENT_COLDER)))
        if self._modality == VISION and not self._is_float and self._found[-1] >= 1 << USUAL_BITS[-1]:
            self._left = 0  # it uses the highest bits
            return ""
        return "" if self._left else self._warning(calibration)

    def finish(self, calibration: Calibration) -> str:
        """End a recording with fewer images than are checked, of a slow sensor. Returns the same warning."""
        if not (self._left and self._found):
            return ""
        self._left = 0
        return self._warning(calibration)

    def _values(self, frame: Frame, calibration: Calibration) -> npt.NDArray[Any] | None:
        """The values, of every third row and column; None for a camera image of 8 bits and thermal levels."""
        if self._modality == DEPTH:
            return encodings.depth_pixels(frame)[::CHECKED_STRIDE, ::CHECKED_STRIDE]
        if self._modality == THERMAL:
            values, is_grey = encodings.thermal_pixels(frame)
            is_level = values.dtype == np.uint8 and not (is_grey and calibration.thermal_unit)
            return None if is_level else values[::CHECKED_STRIDE, ::CHECKED_STRIDE]
        if not frame.compressed and encodings.pixels_of(frame.encoding) is Pixels.VECTORS:
            return np.nan_to_num(encodings.raw_pixels(frame)[::CHECKED_STRIDE, ::CHECKED_STRIDE])
        pixels = encodings.sixteen_bit_pixels(frame)
        return None if pixels is None else pixels[::CHECKED_STRIDE, ::CHECKED_STRIDE]

    def _warning(self, calibration: Calibration) -> str:
        if self._modality == VISION:
            largest = max(self._found)
            return self._colour_warning(largest) if self._is_float else self._bits_warning(largest)
        middle = float(np.median(self._found))
        if self._modality == DEPTH:
            return self._depth_warning(middle, calibration)
        return self._thermal_warning(middle, calibration) if calibration.thermal_radiometric else ""

    def _colour_warning(self, largest: float) -> str:
        if largest <= 1:
            return ""
        return (
            f"the largest value of its 32FC3 images is {largest:.4g}, but colours are 0 to 1, and all above is white: "
            f"set the driver to 0 to 1 or to rgb8, or {self._sensor}.topic to another topic"
        )

    def _bits_warning(self, largest: float) -> str:
        choices = " or ".join(str(bits) for bits in USUAL_BITS if largest < 1 << bits)
        return (
            f"the largest value of its 16-bit images is {largest:.0f}, so they are nearly black: if the camera uses "
            f"fewer bits, set {self._sensor}.bits to their number, {choices}"
        )

    def _depth_warning(self, middle: float, calibration: Calibration) -> str:
        unit = calibration.depth_scale(self._is_float)
        metres, high = middle * unit, float(np.median(self._high)) * unit
        is_far, is_near = metres > MAX_SCENE_DEPTH, metres < MIN_SCENE_DEPTH
        # Integers in centimetres, read as millimetres. A unit that is set is the user's word for it.
        seems_near = not (is_far or is_near or self._is_float or calibration.depth_unit) and (
            metres < NEAR_SCENE_DEPTH and high < NEAR_SCENE_LIMIT
        )
        if not (is_far or is_near or seems_near):
            return ""
        units = {name: own for name, own in DEPTH_UNITS.items() if NEAR_SCENE_DEPTH <= middle * own <= MAX_SCENE_DEPTH}
        cures = [
            f"if the value {middle:.6g} is {name}, set {self._sensor}.unit to {own:g}" for name, own in units.items()
        ]
        if seems_near:
            cures.append(f"if it is millimetres, set {self._sensor}.unit to 0.001 to end this warning")
        elif not cures or not is_far:
            cures.append(
                f"set {self._sensor}.unit to the metres of the value 1; 0 means metres in floats, millimetres in "
                "integers"
            )
        near = ", nearer than most depth cameras measure" if seems_near else ""
        return (
            f"the median of its images is {metres:.4g} m, with {self._sensor}.unit {unit:g}{near}: {'; '.join(cures)}"
        )

    def _thermal_warning(self, middle: float, calibration: Calibration) -> str:
        unit = calibration.thermal_scale(self._is_float)
        kelvin = middle * unit + calibration.thermal_offset
        coldest = float(np.median(self._low)) * unit + calibration.thermal_offset
        if SCENE_KELVIN[0] <= kelvin <= SCENE_KELVIN[1]:
            if coldest >= COLDEST_SCENE:
                return ""
            return (
                f"{PERCENT_COLDER} % of the values of its images would be below {coldest:.1f} K "
                f"({coldest - CELSIUS:.0f} °C) with {self._sensor}.unit {unit:g} and {self._sensor}.offset "
                f"{calibration.thermal_offset:g}: if the camera stretches contrast (AGC), set "
                f"{self._sensor}.radiometric to false; if not, set unit and offset as its manual says"
            )
        return (
            f"the median of its images is {middle:.6g}, which would be {kelvin:.1f} K ({kelvin - CELSIUS:.0f} °C) with "
            f"{self._sensor}.unit {unit:g} and {self._sensor}.offset {calibration.thermal_offset:g}: "
            f"{self._thermal_cure(middle)}"
        )

    def _thermal_cure(self, middle: float) -> str:
        """What to set for thermal values that cannot be temperatures with the parameters."""
        name = self._sensor
        if self._is_float and PLAUSIBLE_CELSIUS[0] <= middle <= PLAUSIBLE_CELSIUS[1]:
            text = f"they are probably degrees Celsius: set {name}.unit to 1 and {name}.offset to {CELSIUS:g}"
            if middle <= HOT_CELSIUS:
                return text
            scale, zero = FAHRENHEIT
            return f"{text}; or Fahrenheit: set {name}.unit to {scale:g} and {name}.offset to {zero:g}"
        fitting = [
            f"{kind} (unit {unit:g}, offset {offset:g}) would be {middle * unit + offset - CELSIUS:.0f} °C"
            for kind, (unit, offset) in THERMAL_UNITS.items()
            if ROOM_KELVIN[0] <= middle * unit + offset <= ROOM_KELVIN[1]
        ]
        known = f" ({'; '.join(fitting)})" if fitting else ""
        return (
            f"set {name}.unit and {name}.offset as the manual of the camera says"
            f"{known}, or {name}.radiometric to false if its values are no "
            "temperatures"
        )
