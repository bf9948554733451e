"""Writes the results of a replay: the output bag, the summary and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, Phase, occurrences
from sensebind.fusion.core.samples import SECOND, Calibration, Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.fusion.io.truth import LabelSpan
from sensebind.fusion.stream.pipeline import Output
from sensebind.fusion.stream.statistics import Statistics
from sensebind.replay.session import Replay, Settings
from sensebind.report.annotated import AnnotatedPictures
from sensebind.report.data import ReportData, similarities
from sensebind.report.media import Media
from sensebind.report.page import write
from sensebind.report.summary import write_summary
from sensebind.report.viewer import RerunFile


class Replayed(NamedTuple):
    """The data of the report, and those of its notes that ask for a change on the robot."""

    data: ReportData
    warnings: list[str]


class ReplayWriter:
    """Writes the outputs of a run and small pictures of its images to a bag, and keeps what the report needs.

    `topics` is modality → topic. `warn` is called with each problem, the first time that it occurs.
    """

    def __init__(
        self,
        bag: BagWriter,
        topics: Mapping[str, str],
        viewer: RerunFile | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.media = Media()
        self.embeddings: list[Embedding] = []
        self.events: list[Event] = []
        self.problems: Counter[str] = Counter()  # text → how often
        self._sequences: Counter[str] = Counter()  # topic → number of its next message
        self._bag, self._topics, self._viewer, self._warn = bag, topics, viewer, warn
        self._pictures = AnnotatedPictures(bag.types)

    def add_sample(self, sample: Sample, calibration: Calibration | None = None) -> None:
        """Keep what the report shows of a sample; if it is an image, write a small picture of it."""
        self.media.add(sample, calibration)
        if (written := self._pictures.add(sample, calibration)) is not None:
            self._bag.write(*written)
        if self._viewer:
            self._viewer.add(sample, calibration)

    def add_output(self, output: Output) -> None:
        """Write an embedding or an event; count a failure."""
        types = self._bag.types
        if isinstance(output, Embedding):
            self.embeddings.append(output)
            topic = f"/embeddings/{output.modality}"
            message = messages.embedding_message(types, output, self._sequence(topic))
            self._bag.write(topic, messages.EMBEDDING, output.tick, message)
        elif isinstance(output, Event):
            self.events.append(output)
            if output.phase is Phase.ONSET:
                self.media.keep(output.onset)
            message = messages.event_message(types, output, self._sequence("/events"))
            self._bag.write("/events", messages.EVENT, output.tick, message)
        else:
            text = f"{output.modality}: topic '{self._topics[output.modality]}': {output.message}"
            if text not in self.problems:
                self._warn(text)
            self.problems[text] += 1

    def _sequence(self, topic: str) -> int:
        self._sequences[topic] += 1
        return self._sequences[topic] - 1

    def annotate(self) -> None:
        """Write the annotations of all pictures, once all events are known."""
        for annotation in self._pictures.annotations(occurrences(self.events)):
            self._bag.write(*annotation)


def write_replay(
    replay: Replay,
    settings: Settings,
    space: Space,
    out: Path,
    *,
    overwrite: bool = False,
    truth: Sequence[LabelSpan] | None = None,
    rerun: Path | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Replayed:
    """Run an open recording through the pipeline. Write `out`/outputs (MCAP), `out`/summary.json, `out`/report.html
    and, if given, the file `rerun` for the Rerun viewer.

    `overwrite` replaces an earlier bag. `progress` is called with the seconds of the recording read so far, `warn` with
    each new problem. Raises `RecordingError`, `ViewerError`, and what building the detectors raises.
    """
    name = replay.recording.path
    pipeline = settings.pipeline(space, settings.events(space))
    vectors = {label: space.embed_text(phrases).numpy() for label, phrases in settings.prompts.items()}
    started = time.perf_counter()
    with BagWriter(out / "outputs", overwrite=overwrite) as bag:
        viewer = RerunFile(rerun, name.name) if rerun else None
        writer = ReplayWriter(bag, replay.topics, viewer, warn)
        described = messages.space_message(bag.types, space, pipeline.specs, replay.start)
        bag.write("/embedding_space", messages.EMBEDDING_SPACE, replay.start, described)
        for output in replay.outputs(pipeline, on_sample=writer.add_sample, progress=progress):
            writer.add_output(output)
        writer.annotate()
    took = time.perf_counter() - started
    statistics = pipeline.statistics()
    warnings = _unstamped(statistics)
    data = ReportData(
        title=name.resolve().name,
        recording=name.resolve().name,
        space=space.id,
        licence=space.licence,
        start=replay.start,
        end=replay.end,
        modalities={m: s.summary() for m, s in statistics.items()},
        similarities=similarities(writer.embeddings, vectors),
        events=writer.events,
        media=writer.media,
        truth=truth,
        realtime_factor=round(replay.seconds / took, 2),
        notes=[*_sources(replay, space), *(f"{text} ({n} times)" for text, n in writer.problems.items()), *warnings],
    )
    if viewer:
        start = data.start
        spans = [(start + round(on * SECOND), start + round(off * SECOND), label) for on, off, label in truth or ()]
        viewer.finish(writer.embeddings, data.similarities, occurrences(data.events), spans)
    write(out / "report.html", data)
    write_summary(out / "summary.json", data)
    return Replayed(data, warnings)


def _sources(replay: Replay, space: Space) -> list[str]:
    """Which topic each modality was read from and why; and the modalities that `space` has no encoder for."""
    topics, reasons = replay.topics, replay.reader.reasons
    return [f"{m}: {topics[m]} ({reasons[m]})" for m in topics] + [
        f"This space has no encoder for {m} yet: windowed and counted, not embedded."
        for m in topics
        if m not in space.modalities
    ]


def _unstamped(statistics: Mapping[str, Statistics]) -> list[str]:
    return [
        f"{modality}: {unstamped} of {own.counts['samples']} messages have no stamp in their header "
        "and were left out: let the driver stamp them"
        for modality, own in statistics.items()
        if (unstamped := own.counts["unstamped"])
    ]
