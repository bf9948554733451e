"""The data that all panels of a page share: the time axis, the colours, and the values that the cursor shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sensebind.fusion.core.embeddings import FUSED, sort_modalities
from sensebind.fusion.core.events import intervals_from_events
from sensebind.report.panels.charts import Axis, format_number
from sensebind.report.report_data import ReportData
from sensebind.report.style import EXTRA_COLOURS, LIGHT_COLOURS

Row = list[str]  # pieces of HTML


class PageContext:
    """What the panels share while one page of `data` is rendered."""

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.axis = Axis(*data.time_range())
        self.intervals = intervals_from_events(data.events)
        self.series: list[dict[str, Any]] = []
        self.images_left = 80  # number of images at onsets that the page may still add
        others = [
            m
            for m in sort_modalities({*data.modalities, *data.similarities, *self._modalities_shown()})
            if m not in (*LIGHT_COLOURS, FUSED)
        ]
        self._extra_classes = {modality: f"s-other{i % len(EXTRA_COLOURS)}" for i, modality in enumerate(others)}

    def _modalities_shown(self) -> set[str]:
        previews = self.data.previews
        evidence = {e.modality for item in self.intervals for _, parts in item.evidence_by_tick for e in parts}
        return {*previews.images, *previews.spectra, *previews.traces, *evidence}

    def colour_class(self, modality: str) -> str:
        """The CSS class that sets the colour of a modality."""
        return f"s-{modality}" if modality in (*LIGHT_COLOURS, FUSED) else self._extra_classes.get(modality, "s-other0")

    def position_style(self, start: int, end: int) -> str:
        """The style attribute of an element that spans `[start, end)` ns of a plot."""
        left, right = self.axis.x(start), self.axis.x(end)
        return f'style="left:{format_number(left / 10, 3)}%;width:{format_number((right - left) / 10, 3)}%"'

    def add_cursor_series(
        self, starts: Iterable[int], ends: Iterable[int], rows: Sequence[Any], unit: float, digits: int
    ) -> int:
        """Register K rows of N values for the cursor, with their times `[starts, ends)` in ns, and return the index.

        Values are stored as multiples of `unit` and shown with `digits` decimals.
        """
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
