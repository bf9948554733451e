"""Labelled recordings as streams of ticks, for fitting calibrations and prompt classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.io.ground_truth import LabelSpan
from sensebind.replay.session import Settings, open_with_sensors
from sensebind.training.prompt_classifiers import LabelledStream, TickEmbeddings


def labelled_stream(
    path: Path,
    truth: Iterable[LabelSpan],
    settings: Settings,
    space: Space,
    progress: Callable[[float], None] = lambda seconds: None,
) -> LabelledStream:
    """The ticks of a recording as detectors receive them, and its ground truth in ns on the recording's clock.

    `truth` is in s from the start. Each tick has the embeddings that were fused, by sensor: those of all sensors that
    the recording has. `progress` is called with the seconds of the recording that are read so far. Raises
    `SensebindError`.
    """
    ticks: list[TickEmbeddings] = []
    waiting: dict[int, dict[str, Embedding]] = {}
    with open_with_sensors(path, settings) as (settings, replay):
        start = replay.start
        for output in replay.outputs(settings.pipeline(space), progress=progress):
            if not isinstance(output, Embedding):
                continue
            if output.modality != FUSED:
                waiting.setdefault(output.tick, {})[output.source] = output
                continue
            present = waiting.pop(output.tick, {})
            ticks.append((output.tick, {sensor: e for sensor, e in present.items() if sensor in output.sources}))
    spans = [(start + round(onset * SECOND), start + round(offset * SECOND), label) for onset, offset, label in truth]
    return ticks, spans
