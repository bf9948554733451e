"""Reads JSON. The library limits the digits of a number; here its recursion is an error as any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensebind.fusion.core.documents.bounded import MAX_BYTES, DocumentError, read_text


def parse_json(text: str, what: str = "the text") -> Any:
    """The value that a JSON text stands for. Raises `DocumentError`, which begins with `what`."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DocumentError(f"{what} is nested too deeply") from error
    except (ValueError, TypeError) as error:  # TypeError: no text
        raise DocumentError(f"{what} is not JSON: {error}") from error


def read_json(path: str | Path, limit: int = MAX_BYTES) -> Any:
    """The value in a JSON file. Raises the errors of `bounded.read_bytes`."""
    return parse_json(read_text(path, limit), f"'{path}'")
