"""The error of data that cannot be decoded, and the limits of what is decoded."""

from __future__ import annotations

from sensebind.fusion.core.errors import SensebindError

MAX_PIXELS = 100_000_000  # of an image; an image that declares more is rejected


class EncodingError(SensebindError):
    """Data cannot be decoded. The message names the encoding and the remedy."""

    cause = "encoding"  # the name under which what could not be decoded is counted
