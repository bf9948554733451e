"""Decodes camera images to colours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.errors import EncodingError
from sensebind.fusion.core.encodings.file_headers import PNG_SIGNATURE
from sensebind.fusion.core.encodings.image_files import decode_file, is_grey
from sensebind.fusion.core.encodings.pixel_formats import (
    AS_IT_IS,
    FROM_NV24,
    PIXEL_FORMATS,
    PixelFormat,
    Pixels,
    canonical_encoding,
    why_not_decoded,
)
from sensebind.fusion.core.encodings.raw_images import full_scale, raw_pixels
from sensebind.fusion.core.samples import VISION, Frame

UInt8Array = npt.NDArray[np.uint8]

# ITU-R BT.601 in the studio range, as the conversions of OpenCV: (Y, U, V, 1) → red, green, blue.
STUDIO_YUV_TO_RGB = np.array(
    [
        [1.164383, 0.0, 1.596027, -222.921],
        [1.164383, -0.391762, -0.812968, 135.576],
        [1.164383, 2.017232, 0.0, -276.836],
    ]
)


def decode_rgb(frame: Frame) -> UInt8Array:
    """Decode a camera frame to uint8 (H, W, 3) in the order red, green, blue.

    Raw encodings: `CAMERA_ENCODINGS`, in any case. Compressed: the files of `FILE_FORMATS`; a mosaic inside, which the
    format names (`bayer_rggb8; jpeg compressed`), becomes colours. Of 16 bits the upper 8 are kept, as in `cv_bridge`,
    or the upper 8 of `frame.bits`: scaling each image to its own range would change the brightness of the same scene
    from frame to frame. Raises `EncodingError`.
    """
    if frame.compressed:
        return _decode_camera_file(frame)
    if problem := why_not_decoded(frame.encoding, VISION):
        raise EncodingError(problem)
    pixels: npt.NDArray[Any] = raw_pixels(frame)
    layout = PIXEL_FORMATS[canonical_encoding(frame.encoding)]
    if frame.width % 2 and layout.shares_colours_in_rows:
        raise _odd_size(frame, "width", frame.width)
    if frame.height % 2 and layout.shares_colours_in_columns:
        raise _odd_size(frame, "height", frame.height)
    if layout.pixels is Pixels.MOSAIC:
        return _demosaic(pixels, layout, frame)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype == np.float32:
        pixels = np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8)
    if layout.to_rgb == AS_IT_IS:
        return pixels
    if layout.to_rgb == FROM_NV24:
        return _nv24_to_rgb(pixels, frame)
    assert layout.to_rgb is not None
    return convert_colours(pixels, layout.to_rgb, frame)


def sixteen_bit_pixels(frame: Frame) -> npt.NDArray[np.uint16] | None:
    """Return the pixels of a camera image of 16 bits, as sent; None for an image of another kind. A PNG is decoded.
    Raises `EncodingError`."""
    if frame.compressed:
        if frame.data[:8].tobytes() != PNG_SIGNATURE or frame.data[24:25].tobytes() != b"\x10":  # bits of a channel
            return None
        pixels = decode_file(frame, cv2.IMREAD_UNCHANGED)
    else:
        layout = PIXEL_FORMATS.get(canonical_encoding(frame.encoding))
        if layout is None or layout.dtype is not np.uint16:
            return None
        pixels = raw_pixels(replace(frame, bits=0))
    return pixels if pixels.dtype == np.uint16 else None


def _decode_camera_file(frame: Frame) -> UInt8Array:
    """A compressed camera image → uint8 (H, W, 3). Its EXIF is ignored, because CameraInfo describes it as it is."""
    # "bayer_rggb8; jpeg compressed "
    sent = PIXEL_FORMATS.get(canonical_encoding(frame.encoding.split(";")[0]))
    is_mosaic = sent is not None and sent.pixels is Pixels.MOSAIC
    if not is_mosaic and not frame.bits:
        return decode_file(frame, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    pixels = decode_file(frame, cv2.IMREAD_UNCHANGED)
    if pixels.dtype == np.uint16:
        pixels = (full_scale(pixels, frame.bits) >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise EncodingError(f"a '{frame.encoding}' image of {pixels.dtype} is not a camera image: send 8 or 16 bits")
    if is_mosaic and is_grey(pixels):
        assert sent is not None
        return _demosaic(pixels if pixels.ndim == 2 else pixels[..., 1], sent, frame)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    return convert_colours(pixels, codes[channels], frame)


def convert_colours(pixels: npt.NDArray[Any], code: int, frame: Frame) -> UInt8Array:
    """A conversion of OpenCV. Raises `EncodingError` for pixels that it does not accept."""
    try:
        return np.asarray(cv2.cvtColor(pixels, code))
    except cv2.error as error:
        raise EncodingError(
            f"'{frame.encoding}' of {frame.width} × {frame.height} pixels: {str(error).strip()}"
        ) from error


def _odd_size(frame: Frame, name: str, size: int) -> EncodingError:
    return EncodingError(
        f"the {name} of a '{frame.encoding}' image must be even, not {size}: set the driver to an even {name}, "
        "or to rgb8"
    )


def _demosaic(mosaic: npt.NDArray[Any], layout: PixelFormat, frame: Frame) -> UInt8Array:
    """A mosaic (H, W) of 8 or 16 bits → uint8 (H, W, 3)."""
    if min(mosaic.shape) < 3:
        raise EncodingError(
            f"a '{frame.encoding}' image must have at least 3 × 3 pixels, not {mosaic.shape[1]} × {mosaic.shape[0]}"
        )
    eight = mosaic if mosaic.dtype == np.uint8 else (mosaic >> 8).astype(np.uint8)
    assert layout.to_rgb is not None
    return convert_colours(np.ascontiguousarray(eight), layout.to_rgb, frame)


def _nv24_to_rgb(planes: UInt8Array, frame: Frame) -> UInt8Array:
    height, width = frame.height, frame.width
    pairs = planes[height:].reshape(height, width, 2)
    return np.asarray(cv2.transform(np.dstack([planes[:height], pairs]), STUDIO_YUV_TO_RGB))
