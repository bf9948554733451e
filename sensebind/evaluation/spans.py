"""What was there, or was reported, and when. `fusion.io.ground_truth` reads and writes the files that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensebind.fusion.io.ground_truth import FaultSpan

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spans:
    """N things with a beginning, an end and a label. `onsets` and `offsets` are float64 (N,), seconds from the start
    of the recording; `labels` are N strings. Sorted by onset, then offset and label.

    Raises `ValueError` where the three are not of one length, or something does not end after it began.
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
        """From (onset, offset, label), in any order."""
        ordered = sorted(rows)
        return cls(
            np.array([row[0] for row in ordered], np.float64),
            np.array([row[1] for row in ordered], np.float64),
            tuple(row[2] for row in ordered),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self) -> list[tuple[float, float, str]]:
        """As (onset, offset, label)."""
        return list(zip(self.onsets.tolist(), self.offsets.tolist(), self.labels, strict=True))

    def select(self, indices: Sequence[int]) -> Spans:
        """Those at these places."""
        return Spans.of([self.rows()[i] for i in indices])

    def with_labels(self, *labels: str) -> Spans:
        """Those of these labels."""
        return self.select([i for i, label in enumerate(self.labels) if label in labels])


@dataclass(frozen=True)
class FaultSpans:
    """N failures of a sensor: `spans.labels` name the sensors, `causes` how they failed, N strings."""

    spans: Spans
    causes: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[FaultSpan]) -> FaultSpans:
        """From (onset, offset, sensor, cause), in any order."""
        ordered = sorted(rows, key=lambda row: row[:2])
        onsets, offsets = (np.array([row[i] for row in ordered], np.float64) for i in (0, 1))
        return cls(Spans(onsets, offsets, tuple(row[2] for row in ordered)), tuple(row[3] for row in ordered))
