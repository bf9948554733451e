"""Text and numbers for the page. Strings from outside are escaped here."""

from __future__ import annotations

import html
import math
import unicodedata

MAX_LENGTH = 120  # characters of a string from outside
REMOVED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode: control, format, surrogate, line and paragraph break
JOINERS = "\u200c\u200d"  # format characters that some scripts need


def escape_text(value: object, length: int = MAX_LENGTH) -> str:
    """A string from outside as HTML: escaped, without control characters, cut to `length` characters."""
    plain = str(value).encode("utf-8", "replace").decode("utf-8")
    plain = "".join(c for c in plain if c in JOINERS or unicodedata.category(c) not in REMOVED_CATEGORIES)
    return html.escape(plain if len(plain) <= length else plain[: length - 1] + "…", quote=True)


def finite_or_zero(value: object) -> float:
    """`value` as a float; 0 if it is missing, not a number or not finite."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def format_score(value: float) -> str:
    """A score with two decimals, so that the digits of a column align."""
    return f"{round(finite_or_zero(value), 2) + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0


def count_noun(count: int, noun: str) -> str:
    """A count and its noun: 1 window, 2 windows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
