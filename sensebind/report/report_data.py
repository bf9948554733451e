"""The data of a report: similarities of embeddings and prompts, events, and statistics of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, sort_sensors
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.ground_truth import LabelSpan, find_truth_file, read_faults, read_truth
from sensebind.replay.losses import ReplayLosses
from sensebind.report.score_series import ScoreSeries, empty_scores
from sensebind.report.sensor_previews import SensorPreviews


class Similarity(NamedTuple):
    """Cosine similarities of N vectors of one sensor to L labels: int64 ticks (N,), ns, ascending; scores (N, L)."""

    ticks: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    scores: npt.NDArray[np.float32]


def similarities(
    embeddings: Sequence[Embedding], prompts: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, Similarity]:
    """Sensor (and `fused`) → cosine similarity with each label at each tick: that of the label's closest phrase.

    `prompts` is label → float32 (P, D) unit vectors; labels without a phrase are left out. Raises `ValueError`
    if embeddings and phrases differ in dimension.
    """
    phrases = {label: np.atleast_2d(np.asarray(v, np.float32)) for label, v in prompts.items() if len(v)}
    if not phrases:
        return {}
    stacked = np.concatenate(list(phrases.values()))
    groups = np.cumsum([0, *(len(v) for v in phrases.values())])[:-1]
    result = {}
    for sensor in sort_sensors({e.source: e.modality for e in embeddings}):
        own = sorted((e for e in embeddings if e.source == sensor), key=lambda e: e.tick)
        vectors = np.stack([e.vector for e in own])
        if vectors.shape[1] != stacked.shape[1]:
            raise ValueError(
                f"{sensor} vectors have {vectors.shape[1]} dimensions, those of the prompts {stacked.shape[1]}: "
                "embed the prompts in the same space"
            )
        scores = np.maximum.reduceat(vectors @ stacked.T, groups, axis=1).astype(np.float32)
        result[sensor] = Similarity(np.array([e.tick for e in own], np.int64), tuple(phrases), scores)
    return result


def report_truth(recording: Path, given: Path | None = None, prompts: Iterable[str] = ()) -> list[LabelSpan] | None:
    """The truth of a recording, in seconds from its start; None if no file exists. `prompts`: see `read_truth`.

    First the rows of the truth file (`given`, or the file beside the recording), then those of the faults file beside
    the recording, with the label ``fault:<sensor>:<cause>``. Raises `TruthError`.
    """
    file, faults = given or find_truth_file(recording), find_truth_file(recording, "faults")
    if file is None and faults is None:
        return None
    rows = sorted(read_truth(file, prompts)) if file else []
    failures = sorted(read_faults(faults), key=lambda row: row[:2]) if faults else []
    return rows + [(onset, offset, f"fault:{sensor}:{cause}") for onset, offset, sensor, cause in failures]


@dataclass(frozen=True)
class ReportData:
    """All data of a report. `start` and `end` are those of the recording or of the run, in int nanoseconds.

    `modalities` is sensor → `SensorStatistics.summary()`; the only sensor of a modality has its name. `similarities` is
    the result of the function `similarities`;
    `scores` are those of the prompts at each tick;
    `truth` holds (onset, offset, label), in seconds from `start`, faults as ``fault:<sensor>:<cause>``;
    `onset_thresholds` is label → onset threshold, for prompts;
    `realtime_factor` is seconds of recording per second of processing (None: not measured); `notes` are sentences for
    the reader; `sensors` is sensor → its modality, for sensors with a name of their own; `topics` is sensor → topic.
    `losses`: what was not used.
    """

    title: str
    recording: str
    space: str
    licence: str
    start: int
    end: int
    modalities: Mapping[str, Mapping[str, Any]]
    similarities: Mapping[str, Similarity] = field(default_factory=dict)
    scores: ScoreSeries = field(default_factory=empty_scores)
    events: Sequence[Event] = ()
    previews: SensorPreviews = field(default_factory=SensorPreviews)
    truth: Sequence[tuple[float, float, str]] | None = None
    realtime_factor: float | None = None
    notes: Sequence[str] = ()
    onset_thresholds: Mapping[str, float] = field(default_factory=dict)
    sensors: Mapping[str, str] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    losses: ReplayLosses = field(default_factory=ReplayLosses)

    def modality_of(self, sensor: str) -> str:
        """The modality of a sensor: the sensor's own name if `sensors` lacks it, as for `fused`."""
        return self.sensors.get(sensor, sensor)

    def sort(self, sensors: Iterable[str]) -> list[str]:
        """Sort sensors (and `fused`) by their modalities, then by name."""
        return sort_sensors({sensor: self.modality_of(sensor) for sensor in sensors})

    @property
    def has_named_sensors(self) -> bool:
        """Whether any sensor has a name of its own: then a modality may have several."""
        return any(sensor != modality for sensor, modality in self.sensors.items())

    def time_range(self) -> tuple[int, int]:
        """Start and end of the time axis, in int nanoseconds, at least 1 ms apart.

        `start` and `end`, unless all stamps of data are outside. Then the sensors use another clock, and the axis goes
        from their first stamp to the last.
        """
        stamps = [int(t) for s in self.similarities.values() for t in s.ticks] or self.previews.stamps()
        if stamps and not any(self.start <= stamp <= self.end for stamp in stamps):
            return min(stamps), max(max(stamps), min(stamps) + SECOND // 1000)
        return self.start, max(self.end, self.start + SECOND // 1000)
