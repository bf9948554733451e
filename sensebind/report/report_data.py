"""What a report is made from: embeddings against prompts, events with their lives, and the figures of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, sort_modalities
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.ground_truth import LabelSpan, find_truth_file, read_faults, read_truth
from sensebind.report.sensor_previews import SensorPreviews


class Similarity(NamedTuple):
    """Cosines of one modality's N vectors with L labels: int64 ticks (N,) in ns that grow, and float32 (N, L)."""

    ticks: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    scores: npt.NDArray[np.float32]


def similarities(
    embeddings: Sequence[Embedding], prompts: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, Similarity]:
    """Modality (and `fused`) → its cosine with every label at every tick: that of the label's closest phrase.

    `prompts` is label → float32 (P, D) unit vectors; a label without a phrase is left out. Raises `ValueError`
    where embeddings and phrases are not of one dimension.
    """
    phrases = {label: np.atleast_2d(np.asarray(v, np.float32)) for label, v in prompts.items() if len(v)}
    if not phrases:
        return {}
    stacked = np.concatenate(list(phrases.values()))
    groups = np.cumsum([0, *(len(v) for v in phrases.values())])[:-1]
    result = {}
    for modality in sort_modalities({e.modality for e in embeddings}):
        own = sorted((e for e in embeddings if e.modality == modality), key=lambda e: e.tick)
        vectors = np.stack([e.vector for e in own])
        if vectors.shape[1] != stacked.shape[1]:
            raise ValueError(
                f"{modality} vectors have {vectors.shape[1]} numbers and the prompts' {stacked.shape[1]}: "
                "embed the prompts in the same space"
            )
        scores = np.maximum.reduceat(vectors @ stacked.T, groups, axis=1).astype(np.float32)
        result[modality] = Similarity(np.array([e.tick for e in own], np.int64), tuple(phrases), scores)
    return result


def report_truth(recording: Path, given: Path | None = None) -> list[LabelSpan] | None:
    """What a report shows as the truth of a recording, in seconds from its start; None where there is none.

    It holds the rows of the truth file (`given`, or the one beside the recording), then those of the file of faults
    beside the recording, labelled ``fault:<sensor>:<cause>``. Raises `TruthError`.
    """
    file, faults = given or find_truth_file(recording), find_truth_file(recording, "faults")
    if file is None and faults is None:
        return None
    rows = sorted(read_truth(file)) if file else []
    failures = sorted(read_faults(faults), key=lambda row: row[:2]) if faults else []
    return rows + [(onset, offset, f"fault:{sensor}:{cause}") for onset, offset, sensor, cause in failures]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. `start` and `end` are int nanoseconds, of the recording or of the run.

    `modalities` is name → `ModalityStatistics.summary()`; `similarities` is what the function of that name returns;
    `truth` holds (onset, offset, label), in seconds from `start`, faults as ``fault:<sensor>:<cause>``;
    `realtime_factor` is seconds of recording per second of work (None: it was not a race); `notes` are plain
    sentences for the reader.
    """

    title: str
    recording: str
    space: str
    licence: str
    start: int
    end: int
    modalities: Mapping[str, Mapping[str, Any]]
    similarities: Mapping[str, Similarity] = field(default_factory=dict)
    events: Sequence[Event] = ()
    media: SensorPreviews = field(default_factory=SensorPreviews)
    truth: Sequence[tuple[float, float, str]] | None = None
    realtime_factor: float | None = None
    notes: Sequence[str] = ()

    def time_range(self) -> tuple[int, int]:
        """The stretch of time that is shown, in int nanoseconds, at least a millisecond long.

        `start` to `end`, unless nothing that was measured lies in it, as where sensors stamp with a clock of
        their own: then from the first of that to the last.
        """
        stamps = [int(t) for s in self.similarities.values() for t in s.ticks] or self.media.stamps()
        if stamps and not any(self.start <= stamp <= self.end for stamp in stamps):
            return min(stamps), max(max(stamps), min(stamps) + SECOND // 1000)
        return self.start, max(self.end, self.start + SECOND // 1000)
