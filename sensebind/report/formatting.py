"""Words and numbers for the page: whatever came from outside is escaped here."""

from __future__ import annotations

import html
import math
import unicodedata

MAX_LENGTH = 120  # characters of a string from outside
REMOVED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of controls, of what turns text around, of line breaks
JOINERS = "\u200c\u200d"  # controls that some scripts are spelt with


def escape_text(value: object, length: int = MAX_LENGTH) -> str:
    """A string from outside, as HTML: escaped, without control characters, `length` long at most."""
    plain = str(value).encode("utf-8", "replace").decode("utf-8")
    plain = "".join(c for c in plain if c in JOINERS or unicodedata.category(c) not in REMOVED_CATEGORIES)
    return html.escape(plain if len(plain) <= length else plain[: length - 1] + "…", quote=True)


def finite_or_zero(value: object) -> float:
    """A number from a dict of figures; what is missing or no finite number is 0."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def format_score(value: float) -> str:
    """Two digits, always: scores stand under each other."""
    return f"{round(finite_or_zero(value), 2) + 0.0:.2f}"  # + 0.0: no minus before what is nothing


def count_noun(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
