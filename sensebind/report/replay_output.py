"""Writes the results of a replay: the output bag, the summary and the report."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple

from sensebind.evaluation.run_recordings import StepRecorder, TrackerStep
from sensebind.fusion.config.parameters import sensors_of
from sensebind.fusion.core.atomic import require_apart, staged, staged_file
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Score, intervals_from_events
from sensebind.fusion.core.samples import SECOND, Calibration, Sample
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.io import messages
from sensebind.fusion.io.ground_truth import LabelSpan
from sensebind.fusion.io.recordings import BagWriter, RecordingError, require_writable_bag
from sensebind.fusion.stream.clocks.steps import step_texts
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.stamp_warnings import stamp_warnings
from sensebind.replay.reader import MAX_LATENCY
from sensebind.replay.session import Replay, Settings, prompt_warnings
from sensebind.report.annotated_images import AnnotatedImages
from sensebind.report.foxglove_layout import write_foxglove_layout
from sensebind.report.page import write_report
from sensebind.report.report_data import ReportData, similarities
from sensebind.report.rerun_file import RerunFile
from sensebind.report.score_series import ScoreCollector, ScoreSeries
from sensebind.report.sensor_previews import SensorPreviews
from sensebind.report.summary import write_summary

# The views of a replay, and the bytes near their beginning by which a file of this program is known.
VIEWS = {
    "foxglove_layout.json": b'"configById"',
    "summary.json": b'"recording"',
    "report.html": "· Sensebind</title>".encode(),
}
VIEW_HEAD = 4096  # bytes
NUMBER = re.compile(r"\d+")


class ReplayResult(NamedTuple):
    """The data of the report, and those of its notes that ask the user for a change on the robot."""

    data: ReportData
    warnings: list[str]
    steps: list[TrackerStep | None]  # of the event tracker; None is a restart


class ReplayWriter:
    """Writes the outputs of a run and small copies of its images to a bag, and keeps the data of the report.

    `topics` is sensor → topic. `warn` is called with each problem, the first time that it occurs. `thresholds` is
    label → onset and offset threshold of each prompt.
    """

    def __init__(
        self,
        bag: BagWriter,
        topics: Mapping[str, str],
        rerun_file: RerunFile | None = None,
        warn: Callable[[str], None] = lambda text: None,
        thresholds: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.previews = SensorPreviews()
        self.embeddings: list[Embedding] = []
        self.events: list[Event] = []
        self.problems: Counter[str] = Counter()  # text → number of times
        self._first_texts: dict[tuple[str, str], str] = {}  # sensor and message without numbers → the first such text
        self._sequences: defaultdict[str, Iterator[int]] = defaultdict(count)  # topic → sequence numbers
        self._bag, self._topics, self._rerun_file, self._warn = bag, topics, rerun_file, warn
        self._annotated_images = AnnotatedImages(bag.message_factory)
        self._scores = ScoreCollector(thresholds or {})

    @property
    def scores(self) -> ScoreSeries:
        """The scores of the prompts so far."""
        return self._scores.series()

    @property
    def cameras(self) -> list[str]:
        """The sensors with annotated images so far."""
        return self._annotated_images.sensors

    def add_sample(self, sample: Sample, calibration: Calibration | None = None) -> None:
        """Keep the preview of a sample; if it is an image, write a small copy of it."""
        self.previews.add(sample, calibration)
        if (written := self._annotated_images.add(sample, calibration)) is not None:
            self._bag.write(*written)
        if self._rerun_file:
            self._rerun_file.add(sample, calibration)

    def add_output(self, output: Output) -> None:
        """Write an embedding or an event to the bag, and keep it for the report. Count a `Failure`, and warn the first
        time."""
        types = self._bag.message_factory
        if isinstance(output, Embedding):
            self.embeddings.append(output)
            topic = f"/embeddings/{output.source}"
            message = messages.embedding_message(types, output, next(self._sequences[topic]))
            self._bag.write(topic, messages.EMBEDDING_TYPE, output.tick, message)
        elif isinstance(output, Event):
            self.events.append(output)
            if self._rerun_file:
                self._rerun_file.add_event(output)
            if output.phase is EventPhase.ONSET:
                self.previews.keep_images(output.onset)
            message = messages.event_message(types, output, next(self._sequences["/events"]))
            self._bag.write("/events", messages.EVENT_TYPE, output.tick, message, latched=True)
        else:
            text = f"{output.sensor}: topic '{self._topics[output.sensor]}': {output.message}"
            # Damaged images differ in their numbers of bytes: one problem, not one for each image.
            text = self._first_texts.setdefault((output.sensor, NUMBER.sub("", output.message)), text)
            if text not in self.problems:
                self._warn(text)
            self.problems[text] += 1

    def add_scores(self, tick: int, space: str, scores: Mapping[str, Score]) -> None:
        """Write the scores of all prompts at one tick (ns) to the bag, and keep them for the report."""
        self._scores.add(tick, scores)
        if self._rerun_file:
            self._rerun_file.add_scores(tick, scores)
        sequence = next(self._sequences["/prompt_scores"])
        message = messages.scores_message(self._bag.message_factory, tick, space, scores, sequence)
        self._bag.write("/prompt_scores", messages.PROMPT_SCORES, tick, message)

    def annotate(self) -> None:
        """Write the annotations of all images. Call it when all events are known."""
        for annotation in self._annotated_images.annotations(intervals_from_events(self.events)):
            self._bag.write(*annotation)


class ScoreReportingTracker(StepRecorder):
    """An event tracker that keeps its steps and, after each tick, calls `on_scores` with the tick, the space and the
    scores of all prompts: what the detector node publishes as `prompt_scores`."""

    def __init__(
        self, detectors: Sequence[Detector], space: str, on_scores: Callable[[int, str, Mapping[str, Score]], None]
    ) -> None:
        super().__init__(detectors, space)
        self._on_scores = on_scores

    def step(self, tick: int, embeddings: Mapping[str, Embedding]) -> list[Event]:
        events = super().step(tick, embeddings)
        if EventKind.PROMPT in self.scores:
            self._on_scores(tick, self.space, self.scores[EventKind.PROMPT])
        return events


def write_replay(
    replay: Replay,
    settings: Settings,
    space: Space,
    out: Path,
    *,
    overwrite: bool = False,
    truth: Sequence[LabelSpan] | None = None,
    rerun: Path | None = None,
    rerun_viewer: str | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
    warn: Callable[[str], None] = lambda text: None,
) -> ReplayResult:
    """Run an open recording through the pipeline. Write `out`/outputs (MCAP), `out`/foxglove_layout.json,
    `out`/summary.json, `out`/report.html and, if given, the file `rerun` for the Rerun viewer. `rerun_viewer`: the
    address of a viewer that gets the same live (see `viewer_address`).

    All files appear at the end, together: an error or Ctrl-C leaves what was there before. `overwrite` replaces an
    earlier bag and views of this program. `progress` is called with the seconds of the recording read so far, `warn`
    with each new problem. Raises `RecordingError`, `RerunError`, `WriteError`, `ConfigError` if the bag would replace
    the recording, and the errors of building the detectors.
    """
    require_apart(out / "outputs", [replay.recording.path])
    require_writable_bag(out / "outputs", overwrite=overwrite)
    _require_writable_views(out, overwrite)
    with ExitStack() as stack:
        files = stack.enter_context(staged(out))
        file = stack.enter_context(staged_file(rerun)) if rerun else None
        name = replay.recording.path.resolve().name
        rerun_file = RerunFile(file, name, rerun_viewer) if rerun or rerun_viewer else None
        return _write_files(replay, settings, space, files, truth, rerun_file, progress, warn)


def _require_writable_views(out: Path, overwrite: bool) -> None:
    """Raises `RecordingError` for a file that would be replaced unasked, or that this program did not write."""
    for name, mark in VIEWS.items():
        path = out / name
        if not path.is_file():  # a folder is an error when the files move
            continue
        if not overwrite:
            raise RecordingError(f"'{path}' exists already: name another folder, or use --overwrite")
        with path.open("rb") as file:
            if mark not in file.read(VIEW_HEAD):
                raise RecordingError(
                    f"'{path}' is of another program, so it is not overwritten: name another folder, or move it away"
                )


def _write_files(
    replay: Replay,
    settings: Settings,
    space: Space,
    out: Path,
    truth: Sequence[LabelSpan] | None,
    rerun_file: RerunFile | None,
    progress: Callable[[float], None],
    warn: Callable[[str], None],
) -> ReplayResult:
    """Run the recording and write the files to the folder `out`, which has none of them yet."""
    detectors = settings.detectors(space)
    started = time.perf_counter()
    with BagWriter(out / "outputs") as bag:
        writer = ReplayWriter(bag, replay.topics, rerun_file, warn, prompt_thresholds(detectors))
        tracker = ScoreReportingTracker(detectors, space.id, writer.add_scores)
        pipeline = settings.pipeline(space, tracker)
        for output in replay.outputs(pipeline, on_sample=writer.add_sample, progress=progress):
            writer.add_output(output)
        start, end = stamp_range(replay, pipeline)
        described = messages.space_message(bag.message_factory, space, pipeline.specs, start)
        bag.write("/embedding_space", messages.EMBEDDING_SPACE_TYPE, start, described, latched=True)
        writer.annotate()
    elapsed, statistics = time.perf_counter() - started, pipeline.statistics()
    sensors = sensors_of(settings.embedder)
    present = {embedding.modality for embedding in writer.embeddings}
    losses = replay.losses(pipeline)
    timeout = float(settings.embedder["fusion_timeout"])
    warnings = [
        f"{sensor}: {text}"
        for sensor, own in statistics.items()
        for text in stamp_warnings(sensor, own.counts, own.behind_others, timeout)
    ]
    warnings += step_texts(pipeline.clock_steps(), {name: own.counts for name, own in statistics.items()}, start)
    warnings += prompt_warnings(detectors, space, present)
    data = ReportData(
        title=replay.recording.path.resolve().name,
        recording=replay.recording.path.resolve().name,
        space=space.id,
        licence=space.licence,
        start=start,
        end=end,
        # Windows wait for a batch, so their time in the pipeline says nothing about the latency on a robot.
        modalities={sensor: {**own.summary(), "latency_ms": None} for sensor, own in statistics.items()},
        similarities=similarities(
            writer.embeddings, {label: space.embed_text(phrases).numpy() for label, phrases in settings.prompts.items()}
        ),
        scores=writer.scores,
        events=writer.events,
        previews=writer.previews,
        truth=truth,
        realtime_factor=round(replay.seconds / elapsed, 2),
        notes=[*_topic_notes(replay, space, sensors), *losses.lines(), *_message_notes(replay, writer), *warnings],
        onset_thresholds=settings.onset_thresholds,
        sensors=sensors,
        topics=replay.topics,
        losses=losses,
    )
    _write_views(out, data, writer, rerun_file)
    return ReplayResult(data, warnings, tracker.steps)


def _message_notes(replay: Replay, writer: ReplayWriter) -> list[str]:
    """What was wrong with the messages of the sensors."""
    errors = [f"{text} ({n} times)" for text, n in writer.problems.items()]
    warned = replay.reader.warnings.items()
    return errors + [f"{sensor}: {text}" for sensor, texts in warned for text in texts]


def _write_views(out: Path, data: ReportData, writer: ReplayWriter, rerun_file: RerunFile | None) -> None:
    """Write the report page, the summary, the layout for Foxglove, and the rest of the file for the Rerun viewer."""
    if rerun_file:
        stamps = [
            (data.start + round(onset * SECOND), data.start + round(offset * SECOND), label)
            for onset, offset, label in data.truth or ()
        ]
        rerun_file.finish(writer.embeddings, data.similarities, intervals_from_events(data.events), stamps, data.scores)
    layout, scores = out / "foxglove_layout.json", data.scores
    write_foxglove_layout(layout, scores.thresholds, list(scores.sensors), writer.cameras, data.sensors)
    write_report(out / "report.html", data)
    write_summary(out / "summary.json", data)


def prompt_thresholds(detectors: Sequence[Detector]) -> dict[str, tuple[float, float]]:
    """Label → onset and offset threshold, for each prompt."""
    return {
        label: (options.onset_threshold, options.offset_threshold)
        for detector in detectors
        if isinstance(detector, PromptDetector)
        for label in detector.prompts
        for options in [detector.lifecycle_options_for(label)]
    }


def _topic_notes(replay: Replay, space: Space, modalities: Mapping[str, str]) -> list[str]:
    """The topic of each sensor and the reason for the choice; then the modalities without an encoder in `space`.
    `modalities` is sensor → its modality."""
    topics, reasons = replay.topics, replay.reader.topic_reasons
    return [f"{sensor}: {topics[sensor]} ({reasons[sensor]})" for sensor in topics] + [
        f"This space has no encoder for {modality}: its windows are counted, but not embedded."
        for modality in dict.fromkeys(modalities[sensor] for sensor in topics)
        if modality not in space.modalities
    ]


def stamp_range(replay: Replay, pipeline: Pipeline) -> tuple[int, int]:
    """Start and end of a replay by the clock of the stamps, in int nanoseconds. Call it when all samples are read.

    They are the log times of the first and the last message. If the stamps are of another clock than the log times,
    they are the first stamp, and as many seconds after it as the recording has.
    """
    first = pipeline.first_stamp()
    if first is None or abs(first - replay.start) <= MAX_LATENCY:
        return replay.start if first is None else min(first, replay.start), replay.end
    if abs(pipeline.reference_offset() or 0) <= MAX_LATENCY:  # the first sensor started later than the recording
        return replay.start, replay.end
    return first, first + replay.end - replay.start
