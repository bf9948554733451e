"""Checks of single values: names, texts, times and numbers. Each raises `RefusedMessage` with a cause."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.errors import SensebindError, printable
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.topic_names import MAX_NAME_LENGTH, RECEIVED_NAME_PATTERN

MAX_TEXT_LENGTH = 1024  # characters of an id, a label or a frame: an id may contain the path of a checkpoint
MAX_SHOWN_LENGTH = 200  # characters of a foreign text in a line of the log
MAX_WINDOW = 3600 * SECOND  # ns, the longest window
MAX_DIMENSION = 65536  # numbers of a vector
CONTROL_CATEGORIES = ("Cc", "Zl", "Zp", "Cs")  # of Unicode: what ends a line or controls a terminal
SCORE_TOLERANCE = 1e-3  # of scores and shares, which others may compute in lower precision


class RefusedMessage(SensebindError, ValueError):  # noqa: N818, named by what it means
    """A message that cannot be used. `cause` is a word that names the field; the text says what is wrong with it."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def checked_name(value: Any, field: str, *, cause: str = "name") -> str:
    """A name of a sensor or a modality, which can be a part of a topic."""
    if not isinstance(value, str) or not RECEIVED_NAME_PATTERN.fullmatch(value):
        raise RefusedMessage(
            cause,
            f"{field} is '{printable(value, MAX_SHOWN_LENGTH)}', not a name of 1 to {MAX_NAME_LENGTH} letters, digits "
            "and underscores",
        )
    return value


def checked_text(value: Any, field: str, *, empty: bool = False, limit: int = MAX_TEXT_LENGTH) -> str:
    """A text of one line, of any language. `empty`: whether it may be empty."""
    if not isinstance(value, str) or len(value) > limit or not (value or empty) or not _is_one_line(value):
        wanted = f"a text of one line with {0 if empty else 1} to {limit} characters"
        raise RefusedMessage("text", f"{field} is '{printable(value, MAX_SHOWN_LENGTH)}', not {wanted}")
    return value


def _is_one_line(text: str) -> bool:
    return text.isprintable() or not any(unicodedata.category(c) in CONTROL_CATEGORIES for c in text)


def checked_stamp(time: Any, field: str, earliest: int = 0) -> int:
    """builtin_interfaces/Time → int nanoseconds since the epoch, `earliest` (ns) or more."""
    seconds, nanoseconds = int(time.sec), int(time.nanosec)
    stamp = seconds * SECOND + nanoseconds
    if stamp < earliest or not 0 <= nanoseconds < SECOND:
        raise RefusedMessage("time", f"{field} is {seconds} s and {nanoseconds} ns, not 0 s or more and under 10^9 ns")
    return stamp


def checked_window(start: Any, end: Any, field: str) -> tuple[int, int]:
    """Two stamps → the window [start, end) in ns, of at most an hour. The first windows of a simulation, whose clock
    begins at 0, begin before 0."""
    first = checked_stamp(start, f"the start of {field}", -MAX_WINDOW)
    last = checked_stamp(end, f"the end of {field}")
    if not 0 <= last - first <= MAX_WINDOW:
        raise RefusedMessage("time", f"{field} lasts {(last - first) / SECOND:g} s: a window lasts 0 to 3600 s")
    return first, last


def checked_share(value: Any, field: str) -> float:
    """A score, a competence or a coverage, 0 to 1."""
    number = float(value)
    if not -SCORE_TOLERANCE <= number <= 1 + SCORE_TOLERANCE:  # NaN too
        raise RefusedMessage("number", f"{field} is {number:g}, not 0 to 1")
    return min(1.0, max(0.0, number))


def checked_number(value: Any, field: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from `low` to `high`."""
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise RefusedMessage("number", f"{field} is {number:g}, not a number of {low:g} to {high:g}")
    return number


def checked_bearing(value: Any, field: str) -> float | None:
    """An angle in rad; None for NaN, which means that it is unknown."""
    number = float(value)
    return None if math.isnan(number) else checked_number(number, field, -2 * math.pi, 2 * math.pi)


def checked_count(values: Iterable[Any], field: str, limit: int) -> list[Any]:
    """The items of a list, of at most `limit`."""
    found = list(values)
    if len(found) > limit:
        raise RefusedMessage("size", f"{field} has {len(found)} items, more than {limit}")
    return found


def checked_vector(values: Any, dimension: int | None) -> npt.NDArray[np.float32]:
    """A vector of unit length as float32 (D,), a copy. `dimension`: D; None if it is not known."""
    vector = np.array(values, np.float32)
    if vector.ndim != 1 or not 1 <= vector.size <= MAX_DIMENSION or vector.size != (dimension or vector.size):
        wanted = dimension or f"1 to {MAX_DIMENSION}"
        raise RefusedMessage("dimension", f"vector has {vector.size} numbers, not {wanted}")
    if not np.isfinite(vector).all():
        count = int((~np.isfinite(vector)).sum())
        raise RefusedMessage("not_finite", f"vector has {count} numbers that are not finite")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if abs(length - 1) > 0.02:  # vectors of 16-bit numbers are off by less
        raise RefusedMessage("not_unit", f"vector has length {length:g}, not 1")
    return vector
