"""The objects that an encoder located in a window, in pixels of the received image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import DetectedObject
from sensebind.fusion.core.encodings import image_size
from sensebind.fusion.core.samples import Calibration, Frame
from sensebind.fusion.core.windows import Window

MIN_OBJECT_SCORE = 0.3  # of the objects that an embedding lists


def detected_objects(
    names: Sequence[str], found: npt.NDArray[np.float32], window: Window
) -> tuple[DetectedObject, ...]:
    """Return the objects with a score of `MIN_OBJECT_SCORE` or more, the highest score first.

    `found` (K, 5), for the K `names`: score, and left, top, right and bottom edge as fractions of the size of the
    newest image of `window`. Regions have at least one pixel. The result is empty if this size is not known.
    """
    frame = window.samples[-1].data
    width, height = image_size(frame) if isinstance(frame, Frame) else (0, 0)
    if not width or not height:
        return ()
    objects = []
    for index in np.argsort(-found[:, 0], kind="stable"):
        score, *edges = (float(value) for value in found[index])
        if not score >= MIN_OBJECT_SCORE:
            break
        left, right = _pixels(edges[0], edges[2], width)
        top, bottom = _pixels(edges[1], edges[3], height)
        region = (left, top, right - left, bottom - top)
        bearing = bearing_of((left + right) / 2, width, window.calibration)
        objects.append(DetectedObject(names[index], score, region, bearing))
    return tuple(objects)


def bearing_of(column: float, width: int, calibration: Calibration) -> float | None:
    """Return the horizontal angle of a column of an image in rad, positive to the left of the forward axis.

    `column` is in px from the left edge of an image `width` wide. A pinhole camera is assumed: lens distortion is not
    corrected. None if the focal length or the column of the forward axis is not known.
    """
    if not calibration.focal_length or calibration.principal_x is None:
        return None
    centre = column * calibration.focal_width / width - 0.5  # the centre of the first pixel is at 0
    offset = calibration.principal_x - centre
    return math.atan2(offset, calibration.focal_length)


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the first pixel of an interval and the one after its last, of `size`. `low` and `high` are 0 to 1."""
    first = min(max(math.floor(low * size), 0), size - 1)
    return first, min(max(math.ceil(high * size), first + 1), size)
