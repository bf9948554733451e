"""The scores of all prompts over time: of all modalities together, and of each sensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import sort_sensors
from sensebind.fusion.core.events import Score

Table = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SensorScores:
    """What one sensor says about L labels at N ticks: int64 `ticks` (N,), ns, ascending; the tables are (N, L).

    `similarity`: cosine of the window and the best phrase of the label. `score`: calibrated score of the sensor
    alone, 0 to 1. `weight`: weight of this score in the score of the label.
    """

    ticks: npt.NDArray[np.int64]
    similarity: Table
    score: Table
    weight: Table


@dataclass(frozen=True)
class ScoreSeries:
    """The scores of L labels at T ticks: int64 `ticks` (T,), ns, ascending; `scores` (T, L), 0 to 1.

    `sensors`: sensor → its scores, at the ticks at which it has any. `thresholds`: label → onset and offset
    threshold.
    """

    ticks: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    scores: Table
    sensors: Mapping[str, SensorScores] = field(default_factory=dict)
    thresholds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (len(self.ticks) and self.labels)


class ScoreCollector:
    """Collects the scores of each tick. `thresholds`: label → onset and offset threshold."""

    def __init__(self, thresholds: Mapping[str, tuple[float, float]]) -> None:
        self._thresholds = dict(thresholds)
        self._labels = tuple(sorted(thresholds))
        self._rows: list[tuple[int, list[float]]] = []
        self._modalities: dict[str, str] = {}  # sensor → its modality
        # Sensor → (tick, similarity, score and weight of each label).
        self._sensor_rows: dict[str, list[tuple[int, list[tuple[float, float, float]]]]] = {}

    def add(self, tick: int, scores: Mapping[str, Score]) -> None:
        """Add the scores of the labels at one tick (ns). A label without a score has 0."""
        found = [scores.get(label, Score(0.0)) for label in self._labels]
        self._rows.append((tick, [score.score for score in found]))
        blank = (float("nan"),) * 3
        of_labels = [
            {
                item.source: (similarity, item.score, item.weight)
                for item, similarity in zip(score.evidence, score.similarities, strict=True)
            }
            for score in found
        ]
        self._modalities |= {item.source: item.modality for score in found for item in score.evidence}
        for sensor in {sensor for own in of_labels for sensor in own}:
            rows = self._sensor_rows.setdefault(sensor, [])
            rows.append((tick, [own.get(sensor, blank) for own in of_labels]))

    def series(self) -> ScoreSeries:
        """All scores so far, in order of time."""
        rows = sorted(self._rows, key=lambda row: row[0])
        sensors = {}
        for sensor in sort_sensors(self._modalities):
            own = sorted(self._sensor_rows[sensor], key=lambda row: row[0])
            table = np.array([values for _, values in own], np.float32)
            ticks = np.array([tick for tick, _ in own], np.int64)
            sensors[sensor] = SensorScores(ticks, table[..., 0], table[..., 1], table[..., 2])
        return ScoreSeries(
            np.array([tick for tick, _ in rows], np.int64),
            self._labels,
            np.array([values for _, values in rows], np.float32).reshape(len(rows), len(self._labels)),
            sensors,
            self._thresholds,
        )


def empty_scores() -> ScoreSeries:
    """The series of a run without prompts."""
    return ScoreCollector({}).series()
