"""Decodes depth images to metres."""

from __future__ import annotations

import struct
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.errors import EncodingError
from sensebind.fusion.core.encodings.file_headers import COMPRESSED_DEPTH_HEADER, PNG_SIGNATURE, file_format
from sensebind.fusion.core.encodings.image_files import decode_file
from sensebind.fusion.core.encodings.pixel_formats import why_not_decoded
from sensebind.fusion.core.encodings.raw_images import raw_pixels
from sensebind.fusion.core.encodings.rvl import decode_rvl
from sensebind.fusion.core.samples import DEPTH, Calibration, Frame

Float32Array = npt.NDArray[np.float32]


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
        if problem := why_not_decoded(frame.encoding, DEPTH):
            raise EncodingError(problem)
        image = raw_pixels(frame)
    else:
        image = _decode_depth_file(frame)
    if image.dtype in (np.int16, np.int32):  # 65535 counts and more are no reading
        return np.clip(image, 0, 65535).astype(np.uint16)
    return image.astype(np.float32, copy=False) if image.dtype.kind == "f" else image


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
    is_file = not has_header and bool(file_format(start))
    if not is_file and "rvl" in frame.encoding.lower():
        image, has_header = decode_rvl(frame), True
    elif not is_file and not has_header and "compresseddepth" in frame.encoding.lower():
        raise EncodingError(f"a '{frame.encoding}' message of {frame.data.size} bytes contains no PNG and no RVL image")
    else:
        content = frame.data[COMPRESSED_DEPTH_HEADER:] if has_header else frame.data
        image = decode_file(replace(frame, data=content), cv2.IMREAD_UNCHANGED)
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
