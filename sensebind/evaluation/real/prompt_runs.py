"""Runs samples through the normal pipeline with given prompts, and collects the events and scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensebind.evaluation.detection_runs import DetectionRun
from sensebind.evaluation.run_recordings import ScoreRecorder, detection_run
from sensebind.fusion.config.files import read_parameter_file, shipped_parameter_file
from sensebind.fusion.core.embeddings import FUSED, Embedding, sort_sensors
from sensebind.fusion.core.events import Event, EventInterval, EventKind, intervals_from_events
from sensebind.fusion.core.samples import Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Output
from sensebind.replay.session import DEFAULT_PARAMETER_FILE, Settings

Prompts = Mapping[str, Sequence[str]]  # label → phrases


@dataclass(frozen=True)
class PromptRun:
    """The events of one stream. `detections`: ended events of prompts, with their reports and scores, in s from the
    start. `intervals`: all events, of all kinds, in ns. `windows`: sensor → number of embedded windows, sorted."""

    detections: DetectionRun
    intervals: tuple[EventInterval, ...]
    windows: Mapping[str, int]

    def count(self, kind: EventKind) -> int:
        """Number of events of a kind."""
        return sum(interval.kind is kind for interval in self.intervals)

    @property
    def other_kinds(self) -> dict[str, int]:
        """Name → number of events, for the kinds other than PROMPT that have any."""
        counts = {kind.name: self.count(kind) for kind in EventKind if kind is not EventKind.PROMPT}
        return {name: number for name, number in counts.items() if number}


def settings_for(
    modalities: Sequence[str], prompts: Prompts, file: Path | None = None, device: str | None = None
) -> Settings:
    """The settings of a parameter file (None: the shipped one) with these modalities and prompts alone.

    Everything else has the file's value or the default. Raises `ConfigError`.
    """
    file = shipped_parameter_file(DEFAULT_PARAMETER_FILE) if file is None else file
    embedder, detector = read_parameter_file(file, "embedder"), read_parameter_file(file, "detector")
    unused = [name for name in embedder.get("modalities", ()) if name not in modalities]
    embedder = {name: v for name, v in embedder.items() if name.partition(".")[0] not in unused}
    embedder["modalities"] = list(modalities)
    if device:
        embedder["device"] = device
    return Settings.of(embedder, with_prompts(detector, prompts))


def with_prompts(detector: Mapping[str, Any], prompts: Prompts) -> dict[str, Any]:
    """Parameter values of the detector with these prompts instead of their own."""
    kept = {name: value for name, value in detector.items() if not name.startswith("prompts.")}
    return kept | {f"prompts.{label}": list(phrases) for label, phrases in prompts.items()}


def recording_tracker(settings: Settings, space: Space) -> tuple[EventTracker, dict[int, dict[str, float]]]:
    """The tracker of `settings`, and the scores of its prompts by tick (ns), which it fills as it runs."""
    detectors = [ScoreRecorder(d) if d.kind is EventKind.PROMPT else d for d in settings.detectors(space)]
    scores = next((d.scores for d in detectors if isinstance(d, ScoreRecorder)), {})
    return EventTracker(detectors, space.id), scores


def run_samples(samples: Iterable[Sample | Failure], start: int, settings: Settings, space: Space) -> PromptRun:
    """Detect events in the samples of one stream, which begins at `start` (ns), through the pipeline of `settings`."""
    tracker, scores = recording_tracker(settings, space)
    return collect(process_samples(settings.pipeline(space, tracker), samples), scores, start)


def collect(outputs: Iterable[Output], scores: dict[int, dict[str, float]], start: int) -> PromptRun:
    """The events among the outputs of a pipeline, whose tracker fills `scores` while the outputs are made."""
    events: list[Event] = []
    windows: Counter[str] = Counter()
    modalities: dict[str, str] = {}  # sensor → its modality
    for output in outputs:
        if isinstance(output, Event):
            events.append(output)
        elif isinstance(output, Embedding) and output.modality != FUSED:
            windows[output.source] += 1
            modalities[output.source] = output.modality
    counts = {sensor: windows[sensor] for sensor in sort_sensors(modalities)}
    return PromptRun(detection_run(events, scores, set(), start), tuple(intervals_from_events(events)), counts)
