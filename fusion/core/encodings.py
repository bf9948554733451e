"""Decoding of images and audio: bytes to arrays in known units."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import Calibration, Frame

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

MAX_PIXELS = 100_000_000  # of an image; an image that declares more is rejected
PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
MAX_PIXELS_PER_BYTE = 10_000  # of a compressed image; PNG and JPEG cannot compress more


class EncodingError(SensebindError):
    """Data cannot be decoded. The message names the encoding and the remedy."""


# Encoding (sensor_msgs/image_encodings.hpp) → dtype, and number of values of a pixel.
PIXEL_FORMATS: dict[str, tuple[type[np.generic], int]] = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "8UC1": (np.uint8, 1),
    "8UC3": (np.uint8, 3),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
    "bayer_rggb8": (np.uint8, 1),
    "bayer_bggr8": (np.uint8, 1),
    "bayer_gbrg8": (np.uint8, 1),
    "bayer_grbg8": (np.uint8, 1),
    "yuv422": (np.uint8, 2),
    "uyvy": (np.uint8, 2),
    "yuv422_yuy2": (np.uint8, 2),
    "yuyv": (np.uint8, 2),
}
# OpenCV names a Bayer pattern by the second and third pixels of its second row.
RGB_CONVERSIONS: dict[str, int] = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,  # channels without names are in OpenCV's order
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
}
CAMERA_ENCODINGS = ("rgb8", *RGB_CONVERSIONS, "mono16", "16UC1")  # raw encodings of camera images
COMPRESSED_FORMATS = ("jpeg", "jpg", "png")


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


def decode_rgb(frame: Frame) -> UInt8Array:
    """Decode a camera frame to uint8 (H, W, 3) in the order red, green, blue.

    Raw encodings: those of `RGB_CONVERSIONS`, `rgb8`, `mono16` and `16UC1`. Compressed: JPEG and PNG. Of 16 bits the
    upper 8 are kept, as in `cv_bridge`: scaling each image to its own range would change the brightness of the same
    scene from frame to frame. Raises `EncodingError`.
    """
    if frame.compressed:
        return _decode_compressed(frame, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    pixels = raw_pixels(frame)
    if frame.encoding == "rgb8":
        return pixels
    if frame.encoding in ("mono16", "16UC1"):
        return np.asarray(cv2.cvtColor((pixels >> 8).astype(np.uint8), cv2.COLOR_GRAY2RGB))
    if frame.encoding not in RGB_CONVERSIONS:
        raise EncodingError(
            f"encoding '{frame.encoding}' is not a camera encoding; known: {', '.join(CAMERA_ENCODINGS)}"
        )
    if ("yuv" in frame.encoding or "uy" in frame.encoding) and frame.width % 2:
        raise EncodingError(f"the width of a '{frame.encoding}' image must be even, not {frame.width}")
    if frame.encoding.startswith("bayer") and min(pixels.shape[:2]) < 3:
        raise EncodingError(
            f"a '{frame.encoding}' image must have at least 3 × 3 pixels, not {frame.width} × {frame.height}"
        )
    try:
        return np.asarray(cv2.cvtColor(pixels, RGB_CONVERSIONS[frame.encoding]))
    except cv2.error as error:
        raise EncodingError(f"'{frame.encoding}' of {frame.width} × {frame.height} pixels: {error}") from error


def decode_depth(frame: Frame, calibration: Calibration = Calibration()) -> Float32Array:
    """Decode a depth image to float32 (H, W) in metres, NaN for pixels without a reading (REP-118).

    `16UC1`, `mono16`: counts × `depth_unit`; 0 means no reading, and so does 65535, which Kinect cameras send.
    `32FC1`: metres; NaN, infinite, zero and negative values mean no reading. Compressed: `compressedDepth` PNG of both,
    and a plain 16-bit PNG. Raises `EncodingError`.
    """
    return depth_in_metres(depth_pixels(frame), calibration)


def depth_pixels(frame: Frame) -> npt.NDArray[np.generic]:
    """Decode a depth image to what it holds, (H, W): uint16 counts or float32 metres, for `depth_in_metres`.

    A caller that needs fewer pixels selects them in between. Raises `EncodingError`.
    """
    if not frame.compressed:
        if frame.encoding not in ("16UC1", "mono16", "32FC1"):
            raise EncodingError(f"encoding '{frame.encoding}' is not a depth encoding; use 16UC1 (mm) or 32FC1 (m)")
        return raw_pixels(frame)
    if "compresseddepth" in frame.encoding.lower():
        return _decode_compressed_depth(frame)
    image = _decode_compressed(frame, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise EncodingError(
            f"a '{frame.encoding}' image of {image.dtype} {image.shape} is not a depth image: send a 16-bit PNG"
        )
    return image


def decode_thermal(frame: Frame, calibration: Calibration = Calibration()) -> ThermalImage:
    """Decode a thermal frame to kelvin or levels.

    16 bits (`mono16`, `16UC1`, 16-bit PNG): kelvin = counts × `thermal_unit` + `thermal_offset`. `32FC1`: kelvin.
    8 bits: levels, value / 255. Colours: levels by luminance (ITU-R BT.601). If the luminance of a colour map does not
    increase with temperature, the order of the temperatures is lost: publish the grey or the radiometric image instead.
    Raises `EncodingError`.
    """
    if frame.compressed:
        pixels = _decode_compressed(frame, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3:
            code = cv2.COLOR_BGRA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_BGR2GRAY
            pixels = np.asarray(cv2.cvtColor(pixels, code))
            if pixels.dtype == np.uint16:  # 16-bit colours are not temperature counts
                pixels = (pixels >> 8).astype(np.uint8)
    elif frame.encoding in ("mono16", "16UC1", "mono8", "8UC1", "32FC1"):
        pixels = raw_pixels(frame)
    else:
        pixels = np.asarray(cv2.cvtColor(decode_rgb(frame), cv2.COLOR_RGB2GRAY))
    if pixels.dtype == np.uint8:
        return ThermalImage(pixels.astype(np.float32) / np.float32(255), False)
    if pixels.dtype == np.uint16:
        return ThermalImage(None, True, pixels, calibration.thermal_unit, calibration.thermal_offset)
    return ThermalImage(np.array(pixels, np.float32), True)


def raw_pixels(frame: Frame) -> npt.NDArray[Any]:
    """Return the pixels of a raw frame, (H, W) or (H, W, C), without a copy if its layout allows it.

    Raises `EncodingError` if the encoding is not known or the sizes do not fit the data.
    """
    if frame.encoding not in PIXEL_FORMATS:
        raise EncodingError(f"encoding '{frame.encoding}' is not known; known: {_known_encodings()}, jpeg, png")
    kind, channels = PIXEL_FORMATS[frame.encoding]
    dtype = np.dtype(kind)
    height, width = frame.height, frame.width
    bytes_used = width * channels * dtype.itemsize
    step = frame.step or bytes_used
    if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
        raise EncodingError(
            f"a '{frame.encoding}' image cannot have {width} × {height} pixels: use 1 to {MAX_PIXELS:,} pixels"
        )
    if step < bytes_used:
        raise EncodingError(f"'{frame.encoding}' rows of {width} pixels need {bytes_used} bytes, but step is {step}")
    if frame.data.size < step * (height - 1) + bytes_used:
        raise EncodingError(
            f"a '{frame.encoding}' image of {width} × {height} pixels with step {step} needs "
            f"{step * height} bytes, but has {frame.data.size}"
        )
    if step * height <= frame.data.size:
        rows = frame.data[: step * height].reshape(height, step)[:, :bytes_used]
    else:  # the last row may lack its padding
        rows = np.lib.stride_tricks.as_strided(frame.data, (height, bytes_used), (step, 1), writeable=False)
    if dtype.itemsize > 1:
        order = dtype.newbyteorder(">" if frame.big_endian else "<")
        rows = np.ascontiguousarray(rows).view(order).astype(dtype, copy=False)
    return rows.reshape(height, width, channels) if channels > 1 else rows


def _known_encodings() -> str:
    return ", ".join(PIXEL_FORMATS)


def _decode_compressed(frame: Frame, flags: int) -> npt.NDArray[Any]:
    # Examples of formats: "jpeg", "png", "rgb8; jpeg compressed bgr8".
    if frame.encoding and not any(name in frame.encoding.lower() for name in COMPRESSED_FORMATS):
        raise EncodingError(f"compressed format '{frame.encoding}' is not known; use jpeg or png")
    _check_declared_size(frame)
    try:
        image = cv2.imdecode(np.ascontiguousarray(frame.data), flags)
    except cv2.error as error:
        raise EncodingError(
            f"a '{frame.encoding}' image of {frame.data.size} bytes cannot be decoded: {error}"
        ) from error
    if image is None:
        raise EncodingError(f"a '{frame.encoding}' image of {frame.data.size} bytes cannot be decoded: it is damaged")
    return np.asarray(image)


def image_size(frame: Frame) -> tuple[int, int]:
    """Width and height in pixels; (0, 0) if a compressed image does not declare them. It is not decoded."""
    return _declared_size(frame.data) if frame.compressed else (frame.width, frame.height)


def _declared_size(image: UInt8Array) -> tuple[int, int]:
    """Width and height in the header of a PNG or JPEG; (0, 0) if they are not found."""
    data = np.ascontiguousarray(image).data
    if data[:8] == PNG_SIGNATURE and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    at = 2 if data[:2] == JPEG_SIGNATURE else len(data)
    while at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # a fill byte before a marker (ITU-T T.81, B.1.1.2)
            at += 1
            continue
        marker, size = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header (ITU-T T.81)
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + size
    return 0, 0


def _check_declared_size(frame: Frame) -> None:
    """Reject a PNG or JPEG that is cut off or declares more pixels than it can hold, before it is decoded."""
    start = frame.data[:8].tobytes()
    if start == PNG_SIGNATURE and frame.data.size >= 24:
        at = 8
        while at + 8 <= frame.data.size:  # chunks: length, name, content, checksum (PNG, third edition, 5.3)
            at += 12 + int.from_bytes(frame.data[at : at + 4].tobytes(), "big")
        if at > frame.data.size:
            raise EncodingError(f"a '{frame.encoding}' image of {frame.data.size} bytes is cut off or damaged")
    elif start[:2] != JPEG_SIGNATURE:
        raise EncodingError(f"a '{frame.encoding}' image of {frame.data.size} bytes is neither JPEG nor PNG")
    width, height = _declared_size(frame.data)
    if width * height > min(MAX_PIXELS, MAX_PIXELS_PER_BYTE * frame.data.size):
        raise EncodingError(f"a '{frame.encoding}' image declares {width} × {height} pixels: it is damaged")


def depth_in_metres(image: npt.NDArray[np.generic], calibration: Calibration = Calibration()) -> Float32Array:
    """uint16 counts or float metres (H, W) → float32 (H, W) in metres, NaN for pixels without a reading."""
    if image.dtype == np.uint16:
        metres = image.astype(np.float32) * np.float32(calibration.depth_unit)
        metres[(image == 0) | (image == 65535)] = np.nan
        return metres
    metres = np.array(image, np.float32)
    with np.errstate(invalid="ignore"):
        metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def _decode_compressed_depth(frame: Frame) -> npt.NDArray[np.generic]:
    """Decode `compressed_depth_image_transport`: 12 bytes (int32 format, float32 A, float32 B), then a 16-bit PNG.

    For 32FC1 the PNG holds A / metres + B; 0 means no reading.
    """
    if "rvl" in frame.encoding.lower():
        raise EncodingError(
            f"format '{frame.encoding}' is not known: set the publisher's compressedDepth format to png"
        )
    if frame.data.size <= 12:
        raise EncodingError(f"a '{frame.encoding}' message of {frame.data.size} bytes contains no image")
    _, a, b = struct.unpack("<iff", frame.data[:12].tobytes())
    image = _decode_compressed(Frame(frame.data[12:], "png", compressed=True), cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        raise EncodingError(f"'{frame.encoding}' contains {image.dtype} {image.shape}, not a 16-bit PNG")
    if "32FC1" not in frame.encoding:
        return image
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        metres = np.float32(a) / (image.astype(np.float32) - np.float32(b))
    metres[image == 0] = np.nan
    return np.asarray(metres, np.float32)


def _pcm_int24(data: UInt8Array) -> npt.NDArray[np.generic]:
    """Convert little-endian 24-bit samples to int32 at full scale."""
    wide = np.zeros((data.size // 3, 4), np.uint8)
    wide[:, 1:] = data.reshape(-1, 3)
    return np.asarray(wide.view("<i4").reshape(-1), np.int32)


def _pcm_int24_be(data: UInt8Array) -> npt.NDArray[np.generic]:
    """Convert big-endian 24-bit samples to int32 at full scale."""
    return _pcm_int24(data.reshape(-1, 3)[:, ::-1].reshape(-1))


def _pcm_int24_in_32(dtype: str) -> Callable[[UInt8Array], npt.NDArray[np.generic]]:
    """A reader of 24-bit samples in the lower bytes of 32 bits, to int32 at full scale."""
    return lambda data: data.view(dtype).astype(np.int32) << 8


def _unsigned(read: Callable[[UInt8Array], npt.NDArray[np.generic]]) -> Callable[[UInt8Array], npt.NDArray[np.generic]]:
    """A reader of unsigned samples, whose zero is the middle of the range, to signed ones. `read`: of signed samples
    of this size at full scale."""

    def convert(data: UInt8Array) -> npt.NDArray[np.generic]:
        values: Any = read(data)
        return np.asarray(values ^ np.iinfo(values.dtype).min)  # the highest bit is inverted

    return convert


def _pcm_reader(dtype: str, kind: type[np.generic]) -> Callable[[UInt8Array], npt.NDArray[np.generic]]:
    return lambda data: data.view(dtype).astype(kind, copy=False)


PCM_INTEGERS = ("S16", "S24", "S32")  # signed formats that have an unsigned form
# Sample format → bytes of a sample, and the function that reads samples.
PCM_FORMATS: dict[str, tuple[int, Callable[[UInt8Array], npt.NDArray[np.generic]]]] = {
    "S8": (1, _pcm_reader("i1", np.int8)),
    "U8": (1, lambda data: (data.astype(np.int16) - 128).astype(np.int8)),
    "S16LE": (2, _pcm_reader("<i2", np.int16)),
    "S16BE": (2, _pcm_reader(">i2", np.int16)),
    "S24LE": (3, _pcm_int24),
    "S24BE": (3, _pcm_int24_be),
    "S24_32LE": (4, _pcm_int24_in_32("<i4")),
    "S24_32BE": (4, _pcm_int24_in_32(">i4")),
    "S32LE": (4, _pcm_reader("<i4", np.int32)),
    "S32BE": (4, _pcm_reader(">i4", np.int32)),
    "F32LE": (4, _pcm_reader("<f4", np.float32)),
    "F32BE": (4, _pcm_reader(">f4", np.float32)),
    "F64LE": (8, _pcm_reader("<f8", np.float32)),
    "F64BE": (8, _pcm_reader(">f8", np.float32)),
}
PCM_FORMATS |= {  # the unsigned forms
    f"U{name[1:]}": (size, _unsigned(read)) for name, (size, read) in PCM_FORMATS.items() if name[:3] in PCM_INTEGERS
}
PCM_FORMAT_ALIASES = {
    "S24_3LE": "S24LE",  # ALSA's names of three bytes
    "S24_3BE": "S24BE",
    "U24_3LE": "U24LE",
    "U24_3BE": "U24BE",
    "S24_LE": "S24_32LE",  # ALSA's names of three bytes in four
    "S24_BE": "S24_32BE",
    "U24_LE": "U24_32LE",
    "U24_BE": "U24_32BE",
    "U16": "U16LE",
    "U24": "U24LE",
    "U32": "U32LE",
    "F64": "F64LE",
    "FLOAT": "F32LE",
    "FLOAT64": "F64LE",
    "INT8": "S8",
    "UINT8": "U8",
    "INT32": "S32LE",
    "S16": "S16LE",
    "S24": "S24LE",
    "S32": "S32LE",
    "F32": "F32LE",
    "FLOAT32": "F32LE",
    "INT16": "S16LE",
}


def decode_pcm(data: bytes | memoryview, sample_format: str, channels: int) -> npt.NDArray[np.generic]:
    """Decode interleaved PCM to (samples, channels), signed integers at full scale or float32.

    `sample_format` is a name as in GStreamer and audio_common (`S16LE`, `S24_32LE`, `F32LE`, …) or ALSA (`S16_LE`,
    `S24_3LE`; `S24_LE` has four bytes); case is ignored. Raises `EncodingError` for an unknown format, or if the bytes
    are not a whole number of samples.
    """
    name = sample_format.upper()
    for known in (name, name.replace("_", "")):
        name = PCM_FORMAT_ALIASES.get(known, known)
        if name in PCM_FORMATS:
            break
    else:
        raise EncodingError(f"sample format '{sample_format}' is not known; known: {', '.join(PCM_FORMATS)}")
    size, read = PCM_FORMATS[name]
    raw = np.frombuffer(data, np.uint8)
    if channels < 1 or raw.size % (size * channels):
        raise EncodingError(
            f"{raw.size} bytes are not a whole number of {name} samples of {channels} channels: check "
            "audio.sample_format and audio.channels"
        )
    return read(raw).reshape(-1, channels)


def pcm_to_float(data: npt.NDArray[np.generic]) -> Float32Array:
    """Convert PCM of any dtype to float32 of the same shape. Integers are divided by their full scale: −1..1."""
    if data.dtype.kind == "f":
        return data.astype(np.float32, copy=False)
    return data.astype(np.float32) / np.float32(2.0 ** (8 * data.dtype.itemsize - 1))
