"""The data that all panels of a page share: the time axis, the colours, and the values that the cursor shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sensebind.fusion.core.events import intervals_from_events
from sensebind.report.formatting import escape_text
from sensebind.report.panels.charts import Axis, format_number
from sensebind.report.report_data import ReportData
from sensebind.report.style import colour_class, colour_names

Row = list[str]  # pieces of HTML
MAX_MODALITY_LENGTH, MAX_SENSOR_LENGTH = 24, 40  # characters of a name


class PageContext:
    """What the panels share while one page of `data` is rendered."""

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.axis = Axis(*data.time_range())
        self.intervals = intervals_from_events(data.events)
        self.series: list[dict[str, Any]] = []
        self.images_left = 80  # number of images at onsets that the page may still add
        shown = data.sort({*data.modalities, *data.similarities, *self._sensors_shown()})
        self._colours = colour_names({sensor: data.modality_of(sensor) for sensor in shown}, shown)

    def _sensors_shown(self) -> set[str]:
        previews = self.data.previews
        evidence = {sensor for item in self.intervals for sensor in item.modality_by_sensor}
        return {*previews.images, *previews.spectra, *previews.traces, *evidence}

    @property
    def shades(self) -> set[tuple[str, int]]:
        """The names and shades of the colours that the page may use."""
        return set(self._colours.values())

    def colour_class(self, sensor: str) -> str:
        """The CSS class that sets the colour of a sensor: a shade of the colour of its modality."""
        return colour_class(*self._colours.get(sensor, ("other0", 0)))

    def name(self, sensor: str) -> str:
        """The name of a sensor as HTML, cut if it is long."""
        is_own = self.data.modality_of(sensor) != sensor
        return escape_text(sensor, MAX_SENSOR_LENGTH if is_own else MAX_MODALITY_LENGTH)

    def heading(self, sensor: str) -> str:
        """The name of a sensor as HTML, and its modality if that has another name."""
        modality = self.data.modality_of(sensor)
        return self.name(sensor) + ("" if modality == sensor else f" ({escape_text(modality, MAX_MODALITY_LENGTH)})")

    @property
    def noun(self) -> str:
        """What the page calls a stream of data: a sensor if any has a name of its own, else a modality."""
        return "sensor" if self.data.has_named_sensors else "modality"

    @property
    def nouns(self) -> str:
        """The plural of `noun`."""
        return "sensors" if self.data.has_named_sensors else "modalities"

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
