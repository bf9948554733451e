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
        width, height = _jpeg_2000_size(data)
    elif start[:4] in (b"II*\0", b"MM\0*"):
        width, height, _ = _tiff_header(data)
    return width, height


def pixel_bytes(image: UInt8Array) -> int:
    """The bytes of a pixel of a PNG or TIFF file, by its header; 3, as of colours of 8 bits, for other files."""
    data = np.ascontiguousarray(image).data
    start = bytes(data[:64])
    try:
        if start[:8] == PNG_SIGNATURE:
            _, _, bits, _ = png_header(start)
            channels = {0: 1, 4: 2, 6: 4}.get(start[25], 3)
            return channels * max(bits, 8) // 8
        if start[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_header(data)[2]
    except struct.error:
        pass
    return 3


def _jpeg_2000_size(data: memoryview) -> tuple[int, int]:
    """ISO/IEC 15444-1: the sizes in the segment SIZ at the begin of the codestream, which has a box of its own; (0, 0)
    for more components than colours and transparency."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 16 if length == 1 else 8
        length = struct.unpack_from(">Q", data, at + 8)[0] if length == 1 else length
        if kind == b"jp2c":
            codestream = at + head
            marker, right, bottom, left, top = struct.unpack_from(">4s4xIIII", data, codestream)
            (components,) = struct.unpack_from(">H", data, codestream + 40)
            is_usual = marker == b"\xff\x4f\xff\x51" and components <= 4
            return (right - left, bottom - top) if is_usual else (0, 0)
        if length < head:
            break
        at += length
    return 0, 0


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


TIFF_KINDS = {3: "H", 4: "I"}  # numbers of 16 and 32 bits
WIDTH, HEIGHT, BITS, CHANNELS = 256, 257, 258, 277  # tags of TIFF


def _tiff_header(data: memoryview) -> tuple[int, int, int]:
    """TIFF 6.0: width, height, and the bytes of a pixel by the first directory; all 0 if one of its tags is of another
    kind, in which libtiff would read other numbers. Raises `struct.error`."""
    order = "<" if bytes(data[:1]) == b"I" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    found = {BITS: 1, CHANNELS: 1}
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, numbers = struct.unpack_from(order + "HHI", data, place)
        if tag not in (WIDTH, HEIGHT, BITS, CHANNELS):
            continue
        if kind not in TIFF_KINDS or not 1 <= numbers <= (16 if tag == BITS else 1):
            return 0, 0, 0
        size = numbers * struct.calcsize(TIFF_KINDS[kind])
        begin = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
        values = struct.unpack_from(order + numbers * TIFF_KINDS[kind], data, begin)
        found[tag] = max(found.get(tag, 0), *values)
    return found.get(WIDTH, 0), found.get(HEIGHT, 0), found[CHANNELS] * -(-found[BITS] // 8)
