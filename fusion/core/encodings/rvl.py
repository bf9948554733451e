"""Decodes depth images in RVL, the run-length code of compressed_depth_image_transport."""

from __future__ import annotations

import struct
from array import array

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.errors import EncodingError, is_possible_size
from sensebind.fusion.core.encodings.file_headers import COMPRESSED_DEPTH_HEADER
from sensebind.fusion.core.samples import Frame

UInt8Array = npt.NDArray[np.uint8]
MAX_RVL_PIXELS = 4_000_000  # of a depth image in RVL, which may describe any number of pixels with a few bytes
# Of an image: a pixel has a difference of 17 bits at most, and before it the lengths of two runs, mostly short ones.
MAX_NIBBLES_PER_PIXEL, MIN_NIBBLES = 8, 64


def decode_rvl(frame: Frame) -> npt.NDArray[np.uint16]:
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
    if not is_possible_size(columns, rows) or columns * rows > MAX_RVL_PIXELS:
        raise EncodingError(f"a '{frame.encoding}' image declares {columns} × {rows} pixels: it is damaged")
    used = min(frame.data.size - at, (MAX_NIBBLES_PER_PIXEL * columns * rows + MIN_NIBBLES) // 2) // 4 * 4
    words = frame.data[at : at + used].reshape(-1, 4)[:, ::-1]
    nibbles = np.stack([words >> 4, words & 15], axis=2).reshape(-1)
    values = _rvl_numbers(nibbles)
    numbers, pixels = values.data, columns * rows
    runs = array("q")  # of pixels with a reading: the first pixel, how many, and the place of the first difference
    pixel = place = 0
    while pixel < pixels and place + 2 <= len(numbers):
        pixel += numbers[place]
        count = numbers[place + 1]
        place += 2
        if pixel + count > pixels or place + count > len(numbers):
            raise EncodingError(f"a '{frame.encoding}' image of {columns} × {rows} pixels is cut off or damaged")
        runs.extend((pixel, count, place))
        pixel, place = pixel + count, place + count
    if pixel < pixels:
        raise EncodingError(f"a '{frame.encoding}' image of {columns} × {rows} pixels is cut off or damaged")
    firsts, counts, places = np.frombuffer(runs, np.int64).reshape(-1, 3).T
    before = np.cumsum(counts) - counts  # readings in the runs before each
    order = np.arange(int(counts.sum()))
    coded = values[np.repeat(places - before, counts) + order]
    image = np.zeros(pixels, np.uint16)
    image[np.repeat(firsts - before, counts) + order] = np.cumsum((coded >> 1) ^ -(coded & 1)) & 0xFFFF
    return image.reshape(rows, columns)


def _rvl_numbers(nibbles: UInt8Array) -> npt.NDArray[np.int64]:
    """The numbers (N,) that nibbles hold, 3 bits in each. A last number without its end is left out."""
    ends = np.flatnonzero(nibbles < 8)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else np.empty(0, np.int64)
    numbers = np.zeros(len(ends), np.int64)
    for position in range(min(int((ends - starts).max(initial=-1)) + 1, 11)):  # a number has at most 32 bits
        within = starts + position <= ends
        numbers[within] |= (nibbles[starts[within] + position].astype(np.int64) & 7) << (3 * position)
    return numbers
