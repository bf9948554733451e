"""Decodes image files (JPEG, PNG, …), after a check of what they declare."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.errors import EncodingError, is_possible_size
from sensebind.fusion.core.encodings.file_headers import (
    COMPRESSED_DEPTH_HEADER,
    FILE_FORMATS,
    PNG_SIGNATURE,
    declared_size,
    file_format,
    pixel_bytes,
)
from sensebind.fusion.core.encodings.video_formats import Video, find_video
from sensebind.fusion.core.samples import Frame

UInt8Array = npt.NDArray[np.uint8]
LOOKED_AT = 1000  # first bytes of a message that are looked at to find out what it is
MAX_GREY_SPREAD = 12  # of the values of a pixel whose colour is grey: JPEG does not keep them equal
MAX_PIXELS_PER_BYTE = 10_000  # of a compressed image; PNG and JPEG cannot compress more
MAX_DECODED_BYTES = 400_000_000  # of the pixels of a file, as they are in it; a decoder has up to three copies of them
# Pixels times the scans of a JPEG file. A decoder goes through all pixels in each scan, at 2.5 ns for each on an old
# core; a progressive file has about ten.
MAX_SCANNED_PIXELS = 2_000_000_000
DENSER_FORMATS = ("WebP", "JPEG 2000")  # a dark image of any size has some hundred bytes


def decode_file(frame: Frame, flags: int) -> npt.NDArray[Any]:
    """Decode an image file. Its format is that of its first bytes: the name in the message is often another one.
    Raises `EncodingError`."""
    if video := video_in(frame):
        raise EncodingError(
            video.problem
            or f"a '{frame.encoding}' message is a packet of {video.codec} video, not an image: use a camera sensor"
        )
    _check_declared_size(frame)
    try:
        image = cv2.imdecode(np.ascontiguousarray(frame.data), flags)
    except cv2.error as error:
        text = str(error).strip()
        raise EncodingError(f"{named(frame)} of {frame.data.size} bytes cannot be decoded: {text}") from error
    if image is None:
        kind = file_format(frame.data[:12].tobytes())
        other = ", or a TIFF of floats or of 32 bits with colours: save it with 8 or 16 bits" if kind == "TIFF" else ""
        raise EncodingError(f"{named(frame)} of {frame.data.size} bytes cannot be decoded: it is damaged{other}")
    return np.asarray(image)


def decode_photograph(data: UInt8Array) -> UInt8Array:
    """Decode an image file, uint8 (N,), to uint8 (H, W, 3) in the order red, green, blue, turned upright as its EXIF
    says. Raises `EncodingError`."""
    return decode_file(Frame(data, "", compressed=True), cv2.IMREAD_COLOR_RGB)


def decode_reduced(frame: Frame, flags: int = cv2.IMREAD_REDUCED_GRAYSCALE_4) -> npt.NDArray[Any]:
    """Decode an image file at a fraction of its size, with the checks of all decoders. Raises `EncodingError`."""
    return decode_file(frame, flags)


def _check_declared_size(frame: Frame) -> None:
    """Reject an image file that is cut off or declares more pixels than it can hold, before it is decoded."""
    start = frame.data[:12].tobytes()
    name = file_format(start)
    if not name:
        raise EncodingError(f"{named(frame)} of {frame.data.size} bytes is none of {', '.join(FILE_FORMATS)}")
    if name == "PNG" and frame.data.size >= 24:
        at = 8
        chunk = b""  # length, name, content, checksum (PNG, third edition, 5.3)
        while at + 8 <= frame.data.size and chunk[4:] != b"IEND":  # what follows the last chunk is ignored
            chunk = frame.data[at : at + 8].tobytes()
            at += 12 + int.from_bytes(chunk[:4], "big")
        if at > frame.data.size:
            raise EncodingError(f"{named(frame)} of {frame.data.size} bytes is cut off or damaged")
    width, height = declared_size(frame.data)
    if not width * height:  # a decoder that finds one may allocate any amount of memory for it
        raise EncodingError(
            f"{named(frame)} ({name}) of {frame.data.size} bytes does not declare its size: it cannot be decoded, "
            "because it is damaged or cut off"
        )
    is_too_dense = width * height > MAX_PIXELS_PER_BYTE * frame.data.size and name not in DENSER_FORMATS
    if not is_possible_size(width, height) or is_too_dense:
        raise EncodingError(f"{named(frame)} declares {width} × {height} pixels: it is damaged")
    if width * height * (size := pixel_bytes(frame.data)) > MAX_DECODED_BYTES:
        raise EncodingError(
            f"{named(frame)} declares {width} × {height} pixels of {size} bytes, and the limit is "
            f"{MAX_DECODED_BYTES / 1e6:.0f} MB: save it with fewer pixels or bits"
        )
    if name == "JPEG" and width * height * (scans := frame.data.tobytes().count(b"\xff\xda")) > MAX_SCANNED_PIXELS:
        raise EncodingError(f"{named(frame)} of {width} × {height} pixels has {scans} scans: it is damaged")


def video_in(frame: Frame) -> Video | None:
    """The video that a compressed frame contains; None for an image file, and for what is neither."""
    start = frame.data[:LOOKED_AT].tobytes()
    return None if file_format(start) else find_video(frame.encoding, start, frame.data.size)


def is_grey(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether an image (H, W) or (H, W, C) of a file has no colours: grey images are often sent in three channels."""
    return pixels.ndim == 2 or bool(np.max(np.ptp(pixels[..., :3].astype(np.int16), axis=2)) <= MAX_GREY_SPREAD)


def named(frame: Frame) -> str:
    """What an error calls a compressed image."""
    return f"a '{frame.encoding}' image" if frame.encoding else "an image"


def image_size(frame: Frame) -> tuple[int, int]:
    """Width and height in pixels; (0, 0) if a compressed image does not declare them, as a packet of a video. It is not
    decoded."""
    if not frame.compressed:
        return frame.width, frame.height
    start = frame.data[: COMPRESSED_DEPTH_HEADER + 8].tobytes()
    if start[COMPRESSED_DEPTH_HEADER:] == PNG_SIGNATURE:
        return declared_size(frame.data[COMPRESSED_DEPTH_HEADER:])
    if "rvl" in frame.encoding.lower() and not file_format(start) and len(start) == COMPRESSED_DEPTH_HEADER + 8:
        width, height = struct.unpack_from("<ii", start, COMPRESSED_DEPTH_HEADER)
        return width, height
    return declared_size(frame.data)


def check_image_size(frame: Frame, most: int, parameter: str) -> None:
    """Raise `EncodingError`, which names `parameter`, for an image that declares more than `most` pixels."""
    width, height = image_size(frame)
    if width * height > most:
        raise EncodingError(
            f"{named(frame)} declares {width} × {height} pixels, more than {parameter} ({most:,}): it is damaged, or "
            "the limit is too small for this camera"
        )
