"""Samples: stamped measurements of one modality.

Images are decoded (`encodings`) only as part of a closed window, so a frame that no window uses is not decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.parameters import parameter

VISION = "vision"
TEXT = "text"
AUDIO = "audio"
DEPTH = "depth"
THERMAL = "thermal"
IMU = "imu"

IMAGE_MODALITIES = (VISION, DEPTH, THERMAL)
SENSOR_MODALITIES = (VISION, DEPTH, THERMAL, AUDIO, IMU)

SECOND = 1_000_000_000  # nanoseconds
MAX_DURATION = 10**18  # ns, 30 years: longer than any sound, and still a number of 64 bits
MAX_PIXELS = 100_000_000  # of an image; an image that declares more is undecodable
MAX_FOCAL_LENGTH, MAX_BASELINE = 1e5, 10.0  # px, m: of a camera
REP118_DEPTH_UNIT = 0.001  # m of a count of an integer depth image
COMMON_THERMAL_UNIT = 0.01  # K of a count of a 16-bit thermal image


def to_ns(seconds: float) -> int:
    """Convert seconds to int nanoseconds."""
    return round(seconds * SECOND)


@dataclass(frozen=True, slots=True)
class Frame:
    """One image as it was sent: raw rows, or a compressed file.

    `data` is uint8 (N,). For raw rows, `encoding` is a name from `sensor_msgs/image_encodings.hpp`. For a compressed
    image, `encoding` is the `format` field of `sensor_msgs/CompressedImage`, and `height`, `width` and `step` are 0.
    `bits`: how many bits a camera's 16-bit values use, from the lowest; 0: all.
    """

    data: npt.NDArray[np.uint8]
    encoding: str
    height: int = 0
    width: int = 0
    step: int = 0  # bytes from the start of one row to the next; 0: rows without padding
    big_endian: bool = False
    compressed: bool = False
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Sound:
    """A block of PCM audio. `data` is (samples, channels): float32 in −1..1, or signed integers at full scale."""

    data: npt.NDArray[np.generic]
    sample_rate: float  # Hz

    @property
    def duration(self) -> int:
        """Duration in nanoseconds, at most `MAX_DURATION`; 0 if the rate is not over 0. `WindowSpec.accepts` is false
        for both."""
        return round(min(len(self.data) * SECOND / self.sample_rate, MAX_DURATION)) if self.sample_rate > 0 else 0


@dataclass(frozen=True, slots=True)
class Reading:
    """The numbers of one message, float64 (C,). For `imu`: acceleration x y z in m/s², gravity included, then
    angular velocity x y z in rad/s (REP-145)."""

    values: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Focal length, stereo baseline and units of a sensor, from parameters and CameraInfo.

    `principal_x` is the column of the forward axis in px, in images `focal_width` wide; None if it is not known. A
    depth image holds metres / `depth_scale`; a thermal image holds (kelvin − `thermal_offset`) / `thermal_scale`, if
    the camera is `thermal_radiometric`.
    """

    focal_length: float = parameter(
        0.0,
        "Focal length. 0: from CameraInfo, else the default of the space",
        bounds=(0.0, MAX_FOCAL_LENGTH),
        unit="px",
        modalities=(DEPTH,),
    )
    focal_width: int = parameter(
        640,
        "Image width that `focal_length` belongs to. No effect if that is 0",
        bounds=(1, 65536),
        unit="px",
        name="focal_width",
        modalities=(DEPTH,),
    )
    baseline: float = parameter(
        0.0,
        "Stereo baseline. 0: from CameraInfo, else the default of the space",
        bounds=(0.0, MAX_BASELINE),
        unit="m",
        modalities=(DEPTH,),
    )
    depth_unit: float = parameter(
        0.0,
        "Length of the value 1 in a depth image. 0: as in REP-118, 0.001 for integers and 1 for floats (32FC1)",
        bounds=(0.0, 1.0),
        unit="m",
        name="unit",
        modalities=(DEPTH,),
    )
    thermal_unit: float = parameter(
        0.0,
        "Temperature step of the value 1 in a thermal image. 0: 0.01 for 16 bits and 1 for floats; images of 8 bits "
        "are then levels without a temperature",
        bounds=(0.0, 1000.0),
        unit="K",
        name="unit",
        modalities=(THERMAL,),
    )
    thermal_offset: float = parameter(
        0.0,
        "Temperature of the value 0 in a thermal image. 273.15 if the value 0 means 0 °C",
        bounds=(-1000.0, 1000.0),
        unit="K",
        name="offset",
        modalities=(THERMAL,),
    )
    thermal_radiometric: bool = parameter(
        True,
        "Whether the values of a thermal image of 16 bits or floats are temperatures. False: raw counts, or an image "
        "with automatic gain: its contrast is used",
        name="radiometric",
        modalities=(THERMAL,),
    )
    principal_x: float | None = None

    def depth_scale(self, is_float: bool) -> float:
        """Metres of the value 1 in a depth image of floats or of integers."""
        return self.depth_unit or (1.0 if is_float else REP118_DEPTH_UNIT)

    def thermal_scale(self, is_float: bool) -> float:
        """Kelvin of the value 1 in a thermal image of floats or of integers."""
        return self.thermal_unit or (1.0 if is_float else COMMON_THERMAL_UNIT)


@dataclass(frozen=True, slots=True)
class Sample:
    """One stamped measurement.

    `stamp` is the time in the message header in int nanoseconds: of the exposure, or of the first sample of a sound.
    `sensor` is the name of the sensor; empty: that of the modality, which has only one sensor. `received` is the time
    of arrival in int nanoseconds (in a recording: the log time); None: not known.
    """

    modality: str
    stamp: int
    data: Frame | Sound | Reading
    frame_id: str = ""
    sensor: str = ""
    received: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.sensor:
            object.__setattr__(self, "sensor", self.modality)

    @property
    def end(self) -> int:
        """End of the sample (exclusive) in int nanoseconds. Equal to `stamp` for images and readings."""
        return self.stamp + (self.data.duration if isinstance(self.data, Sound) else 0)
