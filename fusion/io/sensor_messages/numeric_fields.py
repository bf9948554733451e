"""Converts the numeric fields of any message to readings, so that a user-defined modality needs no code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import Reading, Sample
from sensebind.fusion.io.messages import stamp_to_ns

PATH_PART = re.compile(r"([A-Za-z_]\w*)((?:\[[\d:]*\])*)")
ARRAY_INDEX = re.compile(r"\[(\d*)(:?)(\d*)\]")


def numeric_sample_converter(modality: str, fields: Sequence[str], fill: float = 0.0) -> Callable[[Any, int], Sample]:
    """A function (message, time of arrival in ns) → sample. Its reading contains the numbers of `fields`, in order.

    A field is a path, for example `range`, `wrench.force.x`, `data`, `ranges[0:360]` or `cells[2].voltage`. An array
    gives all its elements. Numbers that are not finite (a laser beam without an echo) become `fill`, unless no number
    is finite. The stamp is the header's, or the time of arrival if the message has no header. Raises `ValueError` for a
    wrong path. The function raises `EncodingError` for a message that lacks a field, or has no numbers in it.
    """
    paths = [(field, _parse_field_path(field)) for field in fields]
    if not paths:
        raise ValueError(f"{modality}.fields is empty")

    def read(message: Any, received_ns: int) -> Sample:
        values = np.concatenate([_read_field(modality, message, field, steps) for field, steps in paths])
        finite = np.isfinite(values)
        if finite.any():
            values[~finite] = fill
        header = getattr(message, "header", None)
        stamp = received_ns if header is None else stamp_to_ns(header.stamp)
        return Sample(modality, stamp, Reading(values), "" if header is None else header.frame_id)

    return read


def _parse_field_path(field: str) -> list[str | int | slice]:
    steps: list[str | int | slice] = []
    for part in field.split("."):
        match = PATH_PART.fullmatch(part)
        if match is None:
            raise ValueError(f"field '{field}' is not a path like data, wrench.force.x or ranges[0:360]")
        steps.append(match[1])
        for first, colon, last in ARRAY_INDEX.findall(match[2]):
            if colon:
                steps.append(slice(int(first) if first else None, int(last) if last else None))
            elif first:
                steps.append(int(first))
            else:
                raise ValueError(f"field '{field}': [] must contain a number")
    return steps


def _read_field(modality: str, message: Any, field: str, steps: Sequence[str | int | slice]) -> npt.NDArray[np.float64]:
    value = message
    for step in steps:
        try:
            value = getattr(value, step) if isinstance(step, str) else value[step]
        except (AttributeError, IndexError, TypeError) as error:
            raise EncodingError(
                f"a message has no field '{field}' ('{step}' is missing): set {modality}.fields to fields that it has"
            ) from error
    try:
        return np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise EncodingError(
            f"field '{field}' contains {type(value).__name__}, not numbers: name other fields in {modality}.fields"
        ) from error
