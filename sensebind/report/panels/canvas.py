"""What all panels of one page share: the time axis, the colours, and the numbers that the cursor reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sensebind.fusion.core.embeddings import FUSED, ordered
from sensebind.fusion.core.events import occurrences
from sensebind.report.data import ReportData
from sensebind.report.panels.charts import Axis, number
from sensebind.report.style import LIGHT, OTHERS

Row = list[str]  # pieces of HTML


class Canvas:
    """One rendering of `data`."""

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.axis = Axis(*data.span())
        self.found = occurrences(data.events)
        self.series: list[dict[str, Any]] = []
        self.pictures_left = 80  # at onsets, of the whole page
        others = [m for m in ordered({*data.modalities, *data.similarities, *self._seen()}) if m not in (*LIGHT, FUSED)]
        self._others = {modality: f"s-other{i % len(OTHERS)}" for i, modality in enumerate(others)}

    def _seen(self) -> set[str]:
        media = self.data.media
        evidence = {e.modality for item in self.found for _, parts in item.course for e in parts}
        return {*media.pictures, *media.sounds, *media.traces, *evidence}

    def hue(self, modality: str) -> str:
        """The class that sets a modality's colour."""
        return f"s-{modality}" if modality in (*LIGHT, FUSED) else self._others.get(modality, "s-other0")

    def place(self, start: int, end: int) -> str:
        """The style attribute that puts an element at `[start, end)` ns of a plot."""
        left, right = self.axis.x(start), self.axis.x(end)
        return f'style="left:{number(left / 10, 3)}%;width:{number((right - left) / 10, 3)}%"'

    def follow(self, starts: Iterable[int], ends: Iterable[int], rows: Sequence[Any], unit: float, digits: int) -> int:
        """Register numbers for the cursor, in whole `unit`s. Returns their number."""
        self.series.append(
            {
                "t": [self.axis.milliseconds(int(s)) for s in starts],
                "e": [self.axis.milliseconds(int(e)) for e in ends],
                "v": [
                    np.round(np.nan_to_num(np.asarray(row, np.float64)) / unit).astype(np.int64).tolist()
                    for row in rows
                ],
                "unit": unit,
                "digits": digits,
            }
        )
        return len(self.series) - 1
