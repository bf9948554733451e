"""Errors that the user can correct: wrong parameters, files or data."""

from __future__ import annotations

import re

# Characters that a terminal obeys instead of showing them: control characters (newlines too), line and paragraph
# breaks, and marks that reverse the direction of text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Text from outside for one line of a terminal or a log: control characters as escapes, such as \\n and \\x1b."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


class SensebindError(Exception):
    """Base class. The message names the topic, file or parameter and the remedy, so no traceback is needed. It may
    quote text from outside, so `str` makes it `printable`."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SensebindError, ValueError):
    """A parameter or a parameter file is invalid."""


class RecipeError(SensebindError, ValueError):
    """The preprocessing in the files of a model cannot be followed. The message names the setting."""
