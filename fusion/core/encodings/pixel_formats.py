"""Every raw encoding that is decoded: the layout of its values, what they are, and how they become colours."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import cv2
import numpy as np

from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION

AS_IT_IS, FROM_NV24 = -1, -2  # in place of a conversion of OpenCV: red, green, blue already; `camera` converts it


class Pixels(Enum):
    """What the pixels of an image are. The value is the word for it."""

    COLOUR = "colour"
    MOSAIC = "colour, as a Bayer mosaic"
    GREY = "grey"
    GREY16 = "grey of 16 bits"
    COUNTS = "counts of 16 bits or more"
    FLOAT = "floating-point numbers"
    VECTORS = "three floating-point numbers"  # colours of 0..1, but also points or normals
    COMPRESSED_DEPTH = "compressed depth"
    VIDEO = "video"
    OTHER = "no image"
    UNKNOWN = "unknown"


class PixelFormat(NamedTuple):
    """A raw encoding: the dtype of a value, the values of a pixel in a row, and what the pixels are.

    `to_rgb`: the conversion of OpenCV to red, green, blue; `AS_IT_IS` or `FROM_NV24`; None: it is no encoding of
    cameras. `rows_per_two`: of an encoding with planes, the number of rows for two rows of the image. `brightness`: of
    an encoding that keeps it apart in each pixel, its offset in the values of the pixel.
    """

    dtype: type[np.generic]
    channels: int
    pixels: Pixels
    to_rgb: int | None = None
    rows_per_two: int = 2
    brightness: int | None = None

    @property
    def shares_colours_in_rows(self) -> bool:
        """Whether two pixels of a row share their colours."""
        return self.brightness is not None or self.rows_per_two == 3

    @property
    def shares_colours_in_columns(self) -> bool:
        """Whether two pixels of a column share their colours."""
        return self.rows_per_two == 3


def _colour(dtype: type[np.generic], channels: int, to_rgb: int, **more: int) -> PixelFormat:
    return PixelFormat(dtype, channels, Pixels.COLOUR, to_rgb, **more)


# OpenCV names a Bayer pattern by the second and third pixels of its second row.
BAYER_CONVERSIONS = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
# Encoding (sensor_msgs/image_encodings.hpp) → layout.
PIXEL_FORMATS: dict[str, PixelFormat] = {
    "rgb8": _colour(np.uint8, 3, AS_IT_IS),
    "bgr8": _colour(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _colour(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _colour(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "rgb16": _colour(np.uint16, 3, AS_IT_IS),
    "bgr16": _colour(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": _colour(np.uint16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": _colour(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "8UC3": _colour(np.uint8, 3, cv2.COLOR_BGR2RGB),  # channels without names are in OpenCV's order
    "8UC4": _colour(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "16UC3": _colour(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "16UC4": _colour(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "32FC3": PixelFormat(np.float32, 3, Pixels.VECTORS, cv2.COLOR_BGR2RGB),  # of 0..1
    **{
        f"bayer_{order}{bits}": PixelFormat(dtype, 1, Pixels.MOSAIC, code)
        for order, code in BAYER_CONVERSIONS.items()
        for bits, dtype in ((8, np.uint8), (16, np.uint16))
    },
    "yuv422": _colour(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY, brightness=1),
    "uyvy": _colour(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY, brightness=1),
    "yuv422_yuy2": _colour(np.uint8, 2, cv2.COLOR_YUV2RGB_YUYV, brightness=0),
    "yuyv": _colour(np.uint8, 2, cv2.COLOR_YUV2RGB_YUYV, brightness=0),
    # Brightness, then pairs of U and V for 2 × 2 pixels.
    "nv12": _colour(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12, rows_per_two=3),
    "nv21": _colour(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21, rows_per_two=3),
    "i420": _colour(np.uint8, 1, cv2.COLOR_YUV2RGB_I420, rows_per_two=3),  # brightness, then the planes of U and of V
    "nv24": _colour(np.uint8, 1, FROM_NV24, rows_per_two=6),  # brightness, then pairs of U and V for each pixel
    "mono8": PixelFormat(np.uint8, 1, Pixels.GREY, cv2.COLOR_GRAY2RGB),
    "8UC1": PixelFormat(np.uint8, 1, Pixels.GREY, cv2.COLOR_GRAY2RGB),
    "mono16": PixelFormat(np.uint16, 1, Pixels.GREY16, cv2.COLOR_GRAY2RGB),
    "16UC1": PixelFormat(np.uint16, 1, Pixels.COUNTS, cv2.COLOR_GRAY2RGB),
    "16SC1": PixelFormat(np.int16, 1, Pixels.COUNTS),
    "32SC1": PixelFormat(np.int32, 1, Pixels.COUNTS),
    "32FC1": PixelFormat(np.float32, 1, Pixels.FLOAT),
    "64FC1": PixelFormat(np.float64, 1, Pixels.FLOAT),
}
# Names of other software, in lower-case letters → the same encoding.
SYNONYMS = {
    "yuy2": "yuyv",
    "yuyv422": "yuyv",
    "uyvy422": "uyvy",
    "yuv420p": "i420",
    "iyuv": "i420",
    "y8": "mono8",
    "gray8": "mono8",
    "y16": "mono16",
    "gray16": "mono16",
    "z16": "16UC1",
}
CANONICAL_NAMES = {name.lower(): name for name in PIXEL_FORMATS} | SYNONYMS  # drivers write names in any case
CAMERA_ENCODINGS = tuple(name for name, own in PIXEL_FORMATS.items() if own.to_rgb is not None)
NUMBERS = (Pixels.GREY16, Pixels.COUNTS, Pixels.FLOAT)
DEPTH_ENCODINGS = tuple(name for name, own in PIXEL_FORMATS.items() if own.pixels in NUMBERS)
THERMAL_VALUE_ENCODINGS = (*DEPTH_ENCODINGS, "mono8", "8UC1")  # others are colours, of which the brightness is used
# Modality → the raw encodings that its images may have.
RAW_ENCODINGS = {
    VISION: CAMERA_ENCODINGS,
    DEPTH: DEPTH_ENCODINGS,
    THERMAL: tuple(dict.fromkeys((*THERMAL_VALUE_ENCODINGS, *CAMERA_ENCODINGS))),
}


def canonical_encoding(name: str) -> str:
    """Return a raw encoding as sensor_msgs/image_encodings.hpp spells it; an unknown name as it is."""
    return CANONICAL_NAMES.get(name.strip().lower(), name)


def pixels_of(encoding: str) -> Pixels:
    """What the pixels of a raw encoding are. `OTHER`: an encoding of numbers that are no image; `UNKNOWN`: it cannot be
    decoded."""
    layout = PIXEL_FORMATS.get(canonical_encoding(encoding))
    if layout is not None:
        return layout.pixels
    kind, _, channels = encoding.strip().upper().rpartition("C")
    return Pixels.OTHER if kind.rstrip("USF").isdecimal() and channels.isdecimal() else Pixels.UNKNOWN


def why_not_decoded(encoding: str, modality: str = "") -> str:
    """Why images with this raw encoding cannot be those of a modality, or of none if it is empty, and what to do.
    Empty: they can be."""
    name = canonical_encoding(encoding)
    if name in (RAW_ENCODINGS[modality] if modality else PIXEL_FORMATS):
        return ""
    if not encoding.strip():
        return f"its images name no encoding: set the driver to {_alternatives('', modality)}"
    if name in PIXEL_FORMATS:
        what = f"encoding '{encoding}' is no encoding of {modality} images"
    else:
        what = f"encoding '{encoding}' is not known"
    return f"{what}: set the driver to {_alternatives(name.lower(), modality)}"


def _alternatives(name: str, modality: str) -> str:
    """Encodings to send in place of one that is not decoded."""
    if modality == DEPTH:
        return "16UC1 (millimetres) or 32FC1 (metres)"
    if modality == THERMAL:
        return "mono16 or 32FC1 (temperatures), or mono8"
    if name.startswith("bayer"):
        order = next((order for order in BAYER_CONVERSIONS if order in name), "rggb")
        return f"bayer_{order}8, bayer_{order}16 (with the parameter `bits`, if it uses fewer) or rgb8"
    if name.startswith(("mono", "y1", "gray", "grey")):
        return "mono8, or mono16 (with the parameter `bits`, if it uses fewer)"
    if name.startswith(("yuv", "yuy", "uyv", "nv", "i4", "yv")):
        return "yuyv, uyvy, nv12, i420 or rgb8"
    return "rgb8 or mono8; for depth 16UC1 or 32FC1"
