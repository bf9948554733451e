"""Decoding of images and audio: bytes to arrays in known units."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import MAX_PIXELS, Calibration, Frame

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

MAX_SIDE = 65_536  # pixels of a row or a column: a JPEG has at most 65,535
PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
MAX_PIXELS_PER_BYTE = 10_000  # of a compressed image; PNG and JPEG cannot compress more
MAX_RVL_PIXELS = 20_000_000  # of a depth image in RVL, which may describe any number of pixels with a few bytes
COMPRESSED_DEPTH_HEADER = 12  # bytes: int32 format, float32 A, float32 B (compressed_depth_image_transport)


class EncodingError(SensebindError):
    """Data cannot be decoded. The message names the encoding and the remedy."""

    cause = "encoding"  # the name under which what could not be decoded is counted


class PixelFormat(NamedTuple):
    """The layout of a raw encoding: the dtype of a value, the values of a pixel in a row, and, of an encoding with
    planes, the number of rows for two rows of the image."""

    dtype: type[np.generic]
    channels: int
    rows_per_two: int = 2


# Encoding (sensor_msgs/image_encodings.hpp) → layout.
PIXEL_FORMATS: dict[str, PixelFormat] = {
    "rgb8": PixelFormat(np.uint8, 3),
    "bgr8": PixelFormat(np.uint8, 3),
    "rgba8": PixelFormat(np.uint8, 4),
    "bgra8": PixelFormat(np.uint8, 4),
    "rgb16": PixelFormat(np.uint16, 3),
    "bgr16": PixelFormat(np.uint16, 3),
    "rgba16": PixelFormat(np.uint16, 4),
    "bgra16": PixelFormat(np.uint16, 4),
    "mono8": PixelFormat(np.uint8, 1),
    "8UC1": PixelFormat(np.uint8, 1),
    "8UC3": PixelFormat(np.uint8, 3),
    "8UC4": PixelFormat(np.uint8, 4),
    "mono16": PixelFormat(np.uint16, 1),
    "16UC1": PixelFormat(np.uint16, 1),
    "16UC3": PixelFormat(np.uint16, 3),
    "16UC4": PixelFormat(np.uint16, 4),
    "16SC1": PixelFormat(np.int16, 1),
    "32SC1": PixelFormat(np.int32, 1),
    "32FC1": PixelFormat(np.float32, 1),
    "32FC3": PixelFormat(np.float32, 3),
    "64FC1": PixelFormat(np.float64, 1),
    **{f"bayer_{order}8": PixelFormat(np.uint8, 1) for order in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{order}16": PixelFormat(np.uint16, 1) for order in ("rggb", "bggr", "gbrg", "grbg")},
    "yuv422": PixelFormat(np.uint8, 2),
    "uyvy": PixelFormat(np.uint8, 2),
    "yuv422_yuy2": PixelFormat(np.uint8, 2),
    "yuyv": PixelFormat(np.uint8, 2),
    "nv12": PixelFormat(np.uint8, 1, 3),  # brightness, then pairs of U and V for 2 × 2 pixels
    "nv21": PixelFormat(np.uint8, 1, 3),
    "i420": PixelFormat(np.uint8, 1, 3),  # brightness, then the planes of U and of V
    "nv24": PixelFormat(np.uint8, 1, 6),  # brightness, then pairs of U and V for each pixel
}
CANONICAL_NAMES = {name.lower(): name for name in PIXEL_FORMATS}  # drivers write names in any case
# OpenCV names a Bayer pattern by the second and third pixels of its second row.
BAYER_CONVERSIONS: dict[str, int] = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
RGB_CONVERSIONS: dict[str, int] = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "bgr16": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,  # channels without names are in OpenCV's order
    "16UC3": cv2.COLOR_BGR2RGB,
    "32FC3": cv2.COLOR_BGR2RGB,  # of 0..1
    "rgba8": cv2.COLOR_RGBA2RGB,
    "rgba16": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "bgra16": cv2.COLOR_BGRA2RGB,
    "8UC4": cv2.COLOR_BGRA2RGB,
    "16UC4": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "mono16": cv2.COLOR_GRAY2RGB,
    "16UC1": cv2.COLOR_GRAY2RGB,
    **{f"{pattern}{bits}": code for pattern, code in BAYER_CONVERSIONS.items() for bits in (8, 16)},
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "i420": cv2.COLOR_YUV2RGB_I420,
}
CAMERA_ENCODINGS = ("rgb8", "rgb16", *RGB_CONVERSIONS, "nv24")  # raw encodings of camera images
DEPTH_ENCODINGS = ("16UC1", "mono16", "16SC1", "32SC1", "32FC1", "64FC1")
THERMAL_VALUE_ENCODINGS = ("mono16", "16UC1", "16SC1", "mono8", "8UC1", "32FC1", "64FC1")
# Offsets of the brightness in the values of a pixel.
PACKED_BRIGHTNESS = {"yuv422": 1, "uyvy": 1, "yuv422_yuy2": 0, "yuyv": 0}
# ITU-R BT.601 in the studio range, as the conversions of OpenCV: (Y, U, V, 1) → red, green, blue.
STUDIO_YUV_TO_RGB = np.array(
    [
        [1.164383, 0.0, 1.596027, -222.921],
        [1.164383, -0.391762, -0.812968, 135.576],
        [1.164383, 2.017232, 0.0, -276.836],
    ]
)
# The begin of a file → the name of its format.
FILE_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (JPEG_SIGNATURE, "JPEG"),
    (PNG_SIGNATURE, "PNG"),
    (b"RIFF", "WebP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
FILE_FORMATS = tuple(dict.fromkeys(name for _, name in FILE_SIGNATURES))
# Formats of CompressedImage and of video packets → the codec. `fusion.io.video` decodes them.
VIDEO_FORMATS = {
    "h264": ("h264", "x264", "avc"),
    "hevc": ("h265", "hevc", "x265"),
    "av1": ("av1",),
    "vp9": ("vp9",),
}


def video_codec(name: str) -> str:
    """Return the codec that the format of a compressed image means: h264, hevc, av1 or vp9; empty for an image."""
    lower = name.lower().split(";")
    for codec, names in VIDEO_FORMATS.items():
        if any(own in part for part in lower[:2] for own in names):
            return codec
    return ""


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

    Raw encodings: `CAMERA_ENCODINGS`, in any case. Compressed: the files of `FILE_FORMATS`; a mosaic inside, which the
    format names (`bayer_rggb8; jpeg compressed`), becomes colours. Of 16 bits the upper 8 are kept, as in `cv_bridge`,
    or the upper 8 of `frame.bits`: scaling each image to its own range would change the brightness of the same scene
    from frame to frame. Raises `EncodingError`.
    """
    if frame.compressed:
        return _decode_camera_file(frame)
    name = canonical_encoding(frame.encoding)
    pixels: npt.NDArray[Any] = raw_pixels(frame)
    if name not in CAMERA_ENCODINGS:
        raise EncodingError(
            f"encoding '{frame.encoding}' is not a camera encoding; known: {', '.join(CAMERA_ENCODINGS)}"
        )
    if name == "rgb8":
        return pixels
    _check_subsampling(frame, name)
    if name.startswith("bayer"):
        return _demosaic(pixels, name, frame)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype == np.float32:
        pixels = np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8)
    if name == "rgb16":
        return pixels
    if name == "nv24":
        return _nv24_to_rgb(pixels, frame)
    return _convert(pixels, RGB_CONVERSIONS[name], frame)


def canonical_encoding(name: str) -> str:
    """Return a raw encoding as sensor_msgs/image_encodings.hpp spells it; an unknown name as it is."""
    return CANONICAL_NAMES.get(name.lower(), name)


def _convert(pixels: npt.NDArray[Any], code: int, frame: Frame) -> UInt8Array:
    try:
        return np.asarray(cv2.cvtColor(pixels, code))
    except cv2.error as error:
        raise EncodingError(f"'{frame.encoding}' of {frame.width} × {frame.height} pixels: {error}") from error


def _check_subsampling(frame: Frame, name: str) -> None:
    """Raise `EncodingError` for an image whose pixels share their colours, and whose sizes do not fit that."""
    if (name in PACKED_BRIGHTNESS or name in ("nv12", "nv21", "i420")) and frame.width % 2:
        raise EncodingError(f"the width of a '{frame.encoding}' image must be even, not {frame.width}")
    if name in ("nv12", "nv21", "i420") and frame.height % 2:
        raise EncodingError(f"the height of a '{frame.encoding}' image must be even, not {frame.height}")


def _demosaic(mosaic: npt.NDArray[Any], name: str, frame: Frame) -> UInt8Array:
    """A mosaic (H, W) of 8 or 16 bits → uint8 (H, W, 3). `name`: a Bayer encoding."""
    if min(mosaic.shape) < 3:
        raise EncodingError(
            f"a '{frame.encoding}' image must have at least 3 × 3 pixels, not {mosaic.shape[1]} × {mosaic.shape[0]}"
        )
    eight = mosaic if mosaic.dtype == np.uint8 else (mosaic >> 8).astype(np.uint8)
    return _convert(np.ascontiguousarray(eight), BAYER_CONVERSIONS[name.rstrip("0123456789")], frame)


def _nv24_to_rgb(planes: UInt8Array, frame: Frame) -> UInt8Array:
    height, width = frame.height, frame.width
    pairs = planes[height:].reshape(height, width, 2)
    return np.asarray(cv2.transform(np.dstack([planes[:height], pairs]), STUDIO_YUV_TO_RGB))


def decode_depth(frame: Frame, calibration: Calibration = Calibration()) -> Float32Array:
    """Decode a depth image to float32 (H, W) in metres, NaN for pixels without a reading (REP-118).

    Raw: `DEPTH_ENCODINGS`. Integers: counts × `depth_unit`; 0 and negative counts mean no reading, and so does 65535,
    which Kinect cameras send. Floats: values × `depth_unit`; NaN, infinite, zero and negative values mean no reading.
    Compressed: `compressedDepth` of both, PNG or RVL, and image files of 16 bits or floats. Raises `EncodingError`.
    """
    return depth_in_metres(depth_pixels(frame), calibration)


def depth_pixels(frame: Frame) -> npt.NDArray[np.generic]:
    """Decode a depth image to what it holds, (H, W): uint16 counts or float32 values, for `depth_in_metres`.

    A caller that needs fewer pixels selects them in between. Raises `EncodingError`.
    """
    if not frame.compressed:
        if canonical_encoding(frame.encoding) not in DEPTH_ENCODINGS:
            raise EncodingError(f"encoding '{frame.encoding}' is not a depth encoding; use 16UC1 (mm) or 32FC1 (m)")
        image = raw_pixels(frame)
    else:
        image = _decode_depth_file(frame)
    if image.dtype in (np.int16, np.int32):  # 65535 counts and more are no reading
        return np.clip(image, 0, 65535).astype(np.uint16)
    return image.astype(np.float32, copy=False) if image.dtype.kind == "f" else image


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
        pixels = _decode_file(frame, cv2.IMREAD_UNCHANGED)
        is_grey = pixels.ndim == 2
        if not is_grey:
            code = cv2.COLOR_BGRA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_BGR2GRAY
            pixels = _convert(pixels, code, frame)
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


def raw_pixels(frame: Frame) -> npt.NDArray[Any]:
    """Return the pixels of a raw frame, (H, W) or (H, W, C), without a copy if its layout allows it.

    An encoding with planes has their rows below each other, the brightness first: (1.5 H, W), or (3 H, W). The 16-bit
    values of a camera with fewer bits (`frame.bits`) are multiplied, so that its full scale is that of 16 bits. Raises
    `EncodingError` if the encoding is not known or the sizes do not fit the data.
    """
    name = canonical_encoding(frame.encoding)
    if name not in PIXEL_FORMATS:
        raise EncodingError(
            f"encoding '{frame.encoding}' is not known; known: {', '.join(PIXEL_FORMATS)}, and compressed "
            f"{', '.join(FILE_FORMATS)}"
        )
    kind, channels, rows_per_two = PIXEL_FORMATS[name]
    dtype = np.dtype(kind)
    height, width = frame.height, frame.width
    bytes_used = width * channels * dtype.itemsize
    step = frame.step or bytes_used
    if not _is_possible_size(width, height):
        raise EncodingError(
            f"a '{frame.encoding}' image cannot have {width} × {height} pixels: use 1 to {MAX_PIXELS:,} pixels, and "
            f"sides of at most {MAX_SIDE:,}"
        )
    if step < bytes_used:
        raise EncodingError(f"'{frame.encoding}' rows of {width} pixels need {bytes_used} bytes, but step is {step}")
    count = -(-height * rows_per_two // 2)  # rows of the data
    if frame.data.size < step * (count - 1) + bytes_used:
        raise EncodingError(
            f"a '{frame.encoding}' image of {width} × {height} pixels with step {step} needs "
            f"{step * count} bytes, but has {frame.data.size}"
        )
    rows: npt.NDArray[Any]
    if name == "nv24" and step > width and step * count <= frame.data.size:  # a row of colours is two steps long
        colours = frame.data[step * height : step * count].reshape(height, 2 * step)[:, : 2 * width]
        rows = frame.data[: step * height].reshape(height, step)[:, :width]
        rows = np.concatenate([rows, colours.reshape(2 * height, width)])
    elif step * count <= frame.data.size:
        rows = frame.data[: step * count].reshape(count, step)[:, :bytes_used]
    else:  # the last row may lack its padding
        rows = np.lib.stride_tricks.as_strided(frame.data, (count, bytes_used), (step, 1), writeable=False)
    if dtype.itemsize > 1:
        order = dtype.newbyteorder(">" if frame.big_endian else "<")
        rows = np.ascontiguousarray(rows).view(order).astype(dtype, copy=False)
        if dtype == np.uint16 and frame.bits:
            rows = full_scale(rows, frame.bits)
    return rows.reshape(count, width, channels) if channels > 1 else rows


def full_scale(values: npt.NDArray[np.uint16], bits: int) -> npt.NDArray[np.uint16]:
    """Multiply 16-bit values that use `bits` bits, so that their full scale is that of 16 bits. Higher values become
    full scale."""
    return values if not 0 < bits < 16 else np.minimum(values, (1 << bits) - 1) << np.uint16(16 - bits)


def brightness_pixels(frame: Frame) -> npt.NDArray[Any]:
    """Return `raw_pixels` without the colours of encodings that keep brightness and colours apart. Raises
    `EncodingError`."""
    name, pixels = canonical_encoding(frame.encoding), raw_pixels(frame)
    if name in PACKED_BRIGHTNESS:
        return pixels[..., PACKED_BRIGHTNESS[name]]
    return pixels[: frame.height]


def sixteen_bit_pixels(frame: Frame) -> npt.NDArray[np.uint16] | None:
    """Return the pixels of a camera image of 16 bits, as sent; None for an image of another kind. A PNG is decoded.
    Raises `EncodingError`."""
    if frame.compressed:
        if frame.data[:8].tobytes() != PNG_SIGNATURE or frame.data[24:25].tobytes() != b"\x10":  # bits of a channel
            return None
        pixels = _decode_file(frame, cv2.IMREAD_UNCHANGED)
    else:
        layout = PIXEL_FORMATS.get(canonical_encoding(frame.encoding))
        if layout is None or layout.dtype is not np.uint16:
            return None
        pixels = raw_pixels(replace(frame, bits=0))
    return pixels if pixels.dtype == np.uint16 else None


def decode_photograph(data: UInt8Array) -> UInt8Array:
    """Decode an image file, uint8 (N,), to uint8 (H, W, 3) in the order red, green, blue, turned upright as its EXIF
    says. Raises `EncodingError`."""
    return _decode_file(Frame(data, "", compressed=True), cv2.IMREAD_COLOR_RGB)


def decode_reduced(frame: Frame, flags: int = cv2.IMREAD_REDUCED_GRAYSCALE_4) -> npt.NDArray[Any]:
    """Decode an image file at a fraction of its size, with the checks of all decoders. Raises `EncodingError`."""
    return _decode_file(frame, flags)


def _decode_camera_file(frame: Frame) -> UInt8Array:
    """A compressed camera image → uint8 (H, W, 3). Its EXIF is ignored, because CameraInfo describes it as it is."""
    sent = canonical_encoding(frame.encoding.split(";")[0].strip())  # "bayer_rggb8; jpeg compressed "
    if not sent.startswith("bayer") and not frame.bits:
        return _decode_file(frame, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    pixels = _decode_file(frame, cv2.IMREAD_UNCHANGED)
    if pixels.dtype == np.uint16:
        pixels = (full_scale(pixels, frame.bits) >> 8).astype(np.uint8)
    if pixels.ndim == 2 and sent in RGB_CONVERSIONS and sent.startswith("bayer"):
        return _demosaic(pixels, sent, frame)
    if pixels.dtype != np.uint8:
        raise EncodingError(f"a '{frame.encoding}' image of {pixels.dtype} is not a camera image: send 8 or 16 bits")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return _convert(pixels, codes[channels], frame)


def _decode_file(frame: Frame, flags: int) -> npt.NDArray[Any]:
    """Decode an image file. Its format is that of its first bytes: the name in the message is often another one."""
    if video_codec(frame.encoding) and not _file_format(frame.data[:12].tobytes()):
        raise EncodingError(f"a '{frame.encoding}' message is a packet of a video, not an image: use a camera sensor")
    _check_declared_size(frame)
    try:
        image = cv2.imdecode(np.ascontiguousarray(frame.data), flags)
    except cv2.error as error:
        raise EncodingError(f"{_named(frame)} of {frame.data.size} bytes cannot be decoded: {error}") from error
    if image is None:
        raise EncodingError(f"{_named(frame)} of {frame.data.size} bytes cannot be decoded: it is damaged")
    return np.asarray(image)


def _file_format(start: bytes) -> str:
    """The name of the format of a file with these first 12 bytes or more; empty if it is none of `FILE_FORMATS`."""
    name = next((name for signature, name in FILE_SIGNATURES if start.startswith(signature)), "")
    return "" if name == "WebP" and start[8:12] != b"WEBP" else name  # other RIFF files are sounds and videos


def _named(frame: Frame) -> str:
    return f"a '{frame.encoding}' image" if frame.encoding else "an image"


def image_size(frame: Frame) -> tuple[int, int]:
    """Width and height in pixels; (0, 0) if a compressed image does not declare them, as a packet of a video. It is not
    decoded."""
    if not frame.compressed:
        return frame.width, frame.height
    start = frame.data[: COMPRESSED_DEPTH_HEADER + 8].tobytes()
    if start[COMPRESSED_DEPTH_HEADER:] == PNG_SIGNATURE:
        return _declared_size(frame.data[COMPRESSED_DEPTH_HEADER:])
    if "rvl" in frame.encoding.lower() and not _file_format(start) and len(start) == COMPRESSED_DEPTH_HEADER + 8:
        width, height = struct.unpack_from("<ii", start, COMPRESSED_DEPTH_HEADER)
        return width, height
    return _declared_size(frame.data)


def check_image_size(frame: Frame, most: int, parameter: str) -> None:
    """Raise `EncodingError`, which names `parameter`, for an image that declares more than `most` pixels."""
    width, height = image_size(frame)
    if width * height > most:
        raise EncodingError(
            f"{_named(frame)} declares {width} × {height} pixels, more than {parameter} ({most:,}): it is damaged, or "
            "the limit is too small for this camera"
        )


def _is_possible_size(width: int, height: int) -> bool:
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


def _declared_size(image: UInt8Array) -> tuple[int, int]:
    """Width and height in the header of an image file; (0, 0) if they are not found."""
    data = np.ascontiguousarray(image).data
    try:
        return _header_size(bytes(data[:64]), data)
    except struct.error:  # the file ends in its header
        return 0, 0


def _header_size(start: bytes, data: memoryview) -> tuple[int, int]:
    """As `_declared_size`. `start`: the first bytes of `data`. Raises `struct.error` if the file is too short."""
    width = height = 0
    if start[:8] == PNG_SIGNATURE:
        width, height, *_ = png_header(start)
    elif start[:2] == JPEG_SIGNATURE:
        width, height, _ = jpeg_header(data)
    elif start[:4] == b"GIF8":
        width, height = struct.unpack_from("<HH", start, 6)
    elif start[:2] == b"BM":
        width, height = (abs(size) for size in struct.unpack_from("<ii", start, 18))
    elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        width, height = _webp_size(start)
    elif start[:8] == b"\0\0\0\x0cjP  ":
        width, height = _jpeg_2000_size(bytes(data[:65536]))
    elif start[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data, "<" if start[:1] == b"I" else ">")
    return width, height


def _jpeg_2000_size(start: bytes) -> tuple[int, int]:
    """ISO/IEC 15444-1: the sizes in the segment SIZ of the codestream, which is decoded."""
    at = start.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return 0, 0
    right, bottom, left, top = struct.unpack_from(">IIII", start, at + 8)
    return right - left, bottom - top


def jpeg_header(data: memoryview) -> tuple[int, int, int]:
    """Width, height and number of channels in the frame header of a JPEG file (ITU-T T.81); 0 if there is none."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # a fill byte before a marker (ITU-T T.81, B.1.1.2)
            at += 1
            continue
        marker, size = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # a marker without a segment (ITU-T T.81, table B.1)
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the others are tables
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            return width, height, channels
        at += 2 + size
    return 0, 0, 0


def png_header(start: bytes | memoryview) -> tuple[int, int, int, bool]:
    """Width, height, bits of a channel, and whether there are colours, in the first chunk of a PNG file. Raises
    `struct.error` if it is cut off."""
    width, height, bits, colour_type = struct.unpack_from(">IIBB", start, 16)
    return width, height, bits, bool(colour_type & 2)


def _webp_size(start: bytes) -> tuple[int, int]:
    """RFC 9649: the first chunk is VP8 (lossy), VP8L (lossless) or VP8X (with more chunks)."""
    if start[12:16] == b"VP8 ":
        width, height = struct.unpack_from("<HH", start, 26)
        return width & 0x3FFF, height & 0x3FFF
    if start[12:16] == b"VP8L":
        (packed,) = struct.unpack_from("<I", start, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if start[12:16] == b"VP8X" and len(start) >= 30:
        return int.from_bytes(start[24:27], "little") + 1, int.from_bytes(start[27:30], "little") + 1
    return 0, 0


def _tiff_size(data: memoryview, order: str) -> tuple[int, int]:
    """TIFF 6.0: the tags 256 (width) and 257 (height) of the first directory, of 16 or 32 bits."""
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    found = dict[int, int]()
    for entry in range(count):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * entry)
        if tag in (256, 257):
            (size,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * entry)
            found[tag] = max(found.get(tag, 0), size)
    return found.get(256, 0), found.get(257, 0)


def _check_declared_size(frame: Frame) -> None:
    """Reject an image file that is cut off or declares more pixels than it can hold, before it is decoded."""
    start = frame.data[:12].tobytes()
    name = _file_format(start)
    if not name:
        raise EncodingError(f"{_named(frame)} of {frame.data.size} bytes is none of {', '.join(FILE_FORMATS)}")
    if name == "PNG" and frame.data.size >= 24:
        at = 8
        while at + 8 <= frame.data.size:  # chunks: length, name, content, checksum (PNG, third edition, 5.3)
            at += 12 + int.from_bytes(frame.data[at : at + 4].tobytes(), "big")
        if at > frame.data.size:
            raise EncodingError(f"{_named(frame)} of {frame.data.size} bytes is cut off or damaged")
    width, height = _declared_size(frame.data)
    if not width * height:  # a decoder that finds one may allocate any amount of memory for it
        raise EncodingError(
            f"{_named(frame)} ({name}) of {frame.data.size} bytes does not declare its size: it cannot be decoded, "
            "because it is damaged or cut off"
        )
    if not _is_possible_size(width, height) or width * height > MAX_PIXELS_PER_BYTE * frame.data.size:
        raise EncodingError(f"{_named(frame)} declares {width} × {height} pixels: it is damaged")


def depth_in_metres(image: npt.NDArray[np.generic], calibration: Calibration = Calibration()) -> Float32Array:
    """uint16 counts or float values (H, W) → float32 (H, W) in metres, NaN for pixels without a reading."""
    scale = np.float32(calibration.depth_scale(image.dtype.kind == "f"))
    if image.dtype == np.uint16:
        metres = image.astype(np.float32) * scale
        metres[(image == 0) | (image == 65535)] = np.nan
        return metres
    metres = np.array(image, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        if scale != 1.0:
            metres *= scale
        metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def _decode_depth_file(frame: Frame) -> npt.NDArray[np.generic]:
    """Decode `compressed_depth_image_transport` (a header, then a 16-bit PNG or RVL) or an image file.

    The header is missing in messages of some drivers: the image then begins at once. For 32FC1 the image holds
    A / metres + B, with A and B of the header; 0 means no reading.
    """
    start = frame.data[: COMPRESSED_DEPTH_HEADER + 8].tobytes()
    has_header = start[COMPRESSED_DEPTH_HEADER:] == PNG_SIGNATURE
    is_file = not has_header and bool(_file_format(start))
    if not is_file and "rvl" in frame.encoding.lower():
        image, has_header = _decode_rvl(frame), True
    elif not is_file and not has_header and "compresseddepth" in frame.encoding.lower():
        raise EncodingError(f"a '{frame.encoding}' message of {frame.data.size} bytes contains no PNG and no RVL image")
    else:
        content = frame.data[COMPRESSED_DEPTH_HEADER:] if has_header else frame.data
        image = _decode_file(replace(frame, data=content), cv2.IMREAD_UNCHANGED)
    if image.ndim != 2 or (image.dtype != np.uint16 and image.dtype.kind != "f"):
        raise EncodingError(
            f"a '{frame.encoding}' image of {image.dtype} {image.shape} is not a depth image: send a 16-bit PNG"
        )
    if not has_header or image.dtype != np.uint16 or "32fc1" not in frame.encoding.lower():
        return image
    _, a, b = struct.unpack_from("<iff", start)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        metres = np.float32(a) / (image.astype(np.float32) - np.float32(b))
    metres[image == 0] = np.nan
    return np.asarray(metres, np.float32)


def _decode_rvl(frame: Frame) -> npt.NDArray[np.uint16]:
    """Decode RVL (Wilson, "Fast lossless depth image compression", 2017) after the header: columns and rows as int32,
    then words of 32 bits with 8 nibbles, the highest first.

    A nibble holds 3 bits of a number, the lowest first, and a bit that is set if more follow. The numbers are: pixels
    without a reading, pixels with one, and for each of these the difference from the one before, with its sign in the
    lowest bit. This repeats to the end of the image.
    """
    at = COMPRESSED_DEPTH_HEADER + 8
    if frame.data.size < at:
        raise EncodingError(f"a '{frame.encoding}' message of {frame.data.size} bytes contains no image")
    columns, rows = struct.unpack("<ii", frame.data[at - 8 : at].tobytes())
    if not _is_possible_size(columns, rows) or columns * rows > MAX_RVL_PIXELS:
        raise EncodingError(f"a '{frame.encoding}' image declares {columns} × {rows} pixels: it is damaged")
    words = frame.data[at : at + (frame.data.size - at) // 4 * 4].reshape(-1, 4)[:, ::-1]
    nibbles = np.stack([words >> 4, words & 15], axis=2).reshape(-1)
    numbers = _rvl_numbers(nibbles).tolist() if nibbles.size else []
    image, places, parts, pixel, place = np.zeros(columns * rows, np.int64), [], list[Any](), 0, 0
    values = np.asarray(numbers, np.int64)
    while pixel < image.size and place + 2 <= len(numbers):
        pixel += numbers[place]
        count = numbers[place + 1]
        place += 2
        if pixel + count > image.size or place + count > len(numbers):
            raise EncodingError(f"a '{frame.encoding}' image of {columns} × {rows} pixels is cut off or damaged")
        places.append((pixel, count))
        parts.append(values[place : place + count])
        pixel, place = pixel + count, place + count
    if pixel < image.size:
        raise EncodingError(f"a '{frame.encoding}' image of {columns} × {rows} pixels is cut off or damaged")
    coded = np.concatenate(parts) if parts else np.empty(0, np.int64)
    readings = np.cumsum((coded >> 1) ^ -(coded & 1))
    done = 0
    for pixel, count in places:
        image[pixel : pixel + count] = readings[done : done + count]
        done += count
    return (image & 0xFFFF).astype(np.uint16).reshape(rows, columns)


def _rvl_numbers(nibbles: UInt8Array) -> npt.NDArray[np.int64]:
    """The numbers (N,) that nibbles hold, 3 bits in each. A last number without its end is left out."""
    ends = np.flatnonzero(nibbles < 8)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else np.empty(0, np.int64)
    numbers = np.zeros(len(ends), np.int64)
    for position in range(min(int((ends - starts).max(initial=-1)) + 1, 11)):  # a number has at most 32 bits
        within = starts + position <= ends
        numbers[within] |= (nibbles[starts[within] + position].astype(np.int64) & 7) << (3 * position)
    return numbers


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
