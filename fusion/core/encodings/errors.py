"""The error of data that cannot be decoded, and the limits of what is decoded."""

from __future__ import annotations

from sensebind.fusion.core.errors import SensebindError
from sensebind.fusion.core.samples import MAX_PIXELS

MAX_SIDE = 65_536  # pixels of a row or a column: a JPEG has at most 65,535


class EncodingError(SensebindError):
    """Data cannot be decoded. The message names the encoding and the remedy."""

    cause = "encoding"  # the name under which what could not be decoded is counted


def is_possible_size(width: int, height: int) -> bool:
    """Whether an image may have this size in pixels."""
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS
