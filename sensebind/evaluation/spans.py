"""Labelled time spans: of the truth, or of detections. `fusion.io.ground_truth` reads and writes their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensebind.fusion.io.ground_truth import FaultSpan

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spans:
    """N labelled time spans, sorted by onset, then offset and label. `onsets` and `offsets`: float64 (N,), s from the
    start of the recording; `labels`: N strings.

    Raises `ValueError` if their lengths differ, or if an offset is not after its onset.
    """

    onsets: Array
    offsets: Array
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.onsets.shape == self.offsets.shape == (len(self.labels),):
            raise ValueError(f"{self.onsets.shape} onsets, {self.offsets.shape} offsets, {len(self.labels)} labels")
        if not (self.offsets > self.onsets).all():
            raise ValueError("every offset must follow its onset")

    @classmethod
    def of(cls, rows: Iterable[tuple[float, float, str]]) -> Spans:
        """From rows (onset, offset, label), in any order."""
        ordered = sorted(rows)
        return cls(
            np.array([row[0] for row in ordered], np.float64),
            np.array([row[1] for row in ordered], np.float64),
            tuple(row[2] for row in ordered),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self) -> list[tuple[float, float, str]]:
        """The rows (onset, offset, label)."""
        return list(zip(self.onsets.tolist(), self.offsets.tolist(), self.labels, strict=True))

    def select(self, indices: Sequence[int]) -> Spans:
        """The spans at these indices."""
        return Spans.of([self.rows()[i] for i in indices])

    def with_labels(self, *labels: str) -> Spans:
        """The spans with one of these labels."""
        return self.select([i for i, label in enumerate(self.labels) if label in labels])


@dataclass(frozen=True)
class FaultSpans:
    """N sensor faults: `spans.labels` are the sensors, `causes` the N faults."""

    spans: Spans
    causes: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[FaultSpan]) -> FaultSpans:
        """From rows (onset, offset, sensor, cause), in any order."""
        ordered = sorted(rows, key=lambda row: row[:2])
        onsets, offsets = (np.array([row[i] for row in ordered], np.float64) for i in (0, 1))
        return cls(Spans(onsets, offsets, tuple(row[2] for row in ordered)), tuple(row[3] for row in ordered))
