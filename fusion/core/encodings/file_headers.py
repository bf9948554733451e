"""What the first bytes of an image file say: its format, its size and its channels. Nothing is decoded."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
COMPRESSED_DEPTH_HEADER = 12  # bytes: int32 format, float32 A, float32 B (compressed_depth_image_transport)
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


def file_format(start: bytes) -> str:
    """The name of the format of a file with these first 12 bytes or more; empty if it is none of `FILE_FORMATS`."""
    name = next((name for signature, name in FILE_SIGNATURES if start.startswith(signature)), "")
    return "" if name == "WebP" and start[8:12] != b"WEBP" else name  # other RIFF files are sounds and videos


def declared_size(image: UInt8Array) -> tuple[int, int]:
    """Width and height in the header of an image file; (0, 0) if they are not found."""
    data = np.ascontiguousarray(image).data
    try:
        return _header_size(bytes(data[:64]), data)
    except struct.error:  # the file ends in its header
        return 0, 0


def _header_size(start: bytes, data: memoryview) -> tuple[int, int]:
    """As `declared_size`. `start`: the first bytes of `data`. Raises `struct.error` if the file is too short."""
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
