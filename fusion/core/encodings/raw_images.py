"""Raw rows of an image message to arrays of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings.errors import MAX_SIDE, EncodingError, is_possible_size
from sensebind.fusion.core.encodings.pixel_formats import PIXEL_FORMATS, canonical_encoding, why_not_decoded
from sensebind.fusion.core.samples import MAX_PIXELS, Frame


def raw_pixels(frame: Frame) -> npt.NDArray[Any]:
    """Return the pixels of a raw frame, (H, W) or (H, W, C), without a copy if its layout allows it.

    An encoding with planes has their rows below each other, the brightness first: (1.5 H, W), or (3 H, W). The 16-bit
    values of a camera with fewer bits (`frame.bits`) are multiplied, so that its full scale is that of 16 bits. Bytes
    after the last row are ignored. Raises `EncodingError` if the encoding is not known, or the sizes do not fit.
    """
    if problem := why_not_decoded(frame.encoding):
        raise EncodingError(problem)
    name = canonical_encoding(frame.encoding)
    layout = PIXEL_FORMATS[name]
    dtype, channels = np.dtype(layout.dtype), layout.channels
    height, width = frame.height, frame.width
    bytes_used = width * channels * dtype.itemsize
    if not is_possible_size(width, height):
        raise EncodingError(
            f"a '{frame.encoding}' image cannot have {width} × {height} pixels: the driver must set 1 to "
            f"{MAX_PIXELS:,} pixels, and sides of at most {MAX_SIDE:,}"
        )
    count = -(-height * layout.rows_per_two // 2)  # rows of the data
    step = _step(frame, bytes_used, count, has_planes=layout.rows_per_two > 2)
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


def _step(frame: Frame, bytes_used: int, count: int, *, has_planes: bool) -> int:
    """The bytes from one row of the data to the next. Raises `EncodingError` if `count` rows of `bytes_used` bytes do
    not fit.

    Drivers count the bytes of an encoding with planes in different ways: 1.5 or 2 for a pixel. If the data are as long
    as rows without padding, they have none.
    """
    step = frame.step or bytes_used
    if has_planes and step != bytes_used and frame.data.size == bytes_used * count:
        return bytes_used
    if step < bytes_used:
        raise EncodingError(
            f"'{frame.encoding}' rows of {frame.width} pixels need {bytes_used} bytes, but step is {step}: the driver "
            "must set the width, the step and the encoding of the same image"
        )
    if frame.data.size < step * (count - 1) + bytes_used:
        raise EncodingError(
            f"a '{frame.encoding}' image of {frame.width} × {frame.height} pixels with step {step} needs "
            f"{step * count} bytes, but has {frame.data.size}: it is cut off, or of another size or encoding"
        )
    return step


def full_scale(values: npt.NDArray[np.uint16], bits: int) -> npt.NDArray[np.uint16]:
    """Multiply 16-bit values that use `bits` bits, so that their full scale is that of 16 bits. Higher values become
    full scale."""
    return values if not 0 < bits < 16 else np.minimum(values, (1 << bits) - 1) << np.uint16(16 - bits)


def brightness_pixels(frame: Frame) -> npt.NDArray[Any]:
    """Return `raw_pixels` without the colours of encodings that keep brightness and colours apart. Raises
    `EncodingError`."""
    pixels = raw_pixels(frame)
    offset = PIXEL_FORMATS[canonical_encoding(frame.encoding)].brightness
    return pixels[: frame.height] if offset is None else pixels[..., offset]
