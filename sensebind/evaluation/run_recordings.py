"""Runs each recording through the pipeline once and collects the output of all compared detectors."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from sensebind.evaluation.activity_baseline import SignalActivity
from sensebind.evaluation.detection_runs import ALL, LATE, DetectionRun, RecordingRuns
from sensebind.evaluation.fault_metrics import FaultReport, parse_fault_label
from sensebind.evaluation.psds import ScoreTimeline
from sensebind.evaluation.spans import FaultSpans, Spans
from sensebind.fusion.core.embeddings import FUSED, Embedding, sort_modalities
from sensebind.fusion.core.events import Event, EventKind, Score, intervals_from_events
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.lifecycle import EventLifecycle, LifecycleOptions
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.io.ground_truth import find_truth_file, read_faults, read_truth, require_truth_file
from sensebind.fusion.io.recordings import duration
from sensebind.replay.progress import progress
from sensebind.replay.session import Settings, open_with_sensors, prompt_warnings

MAX_TICK_GAP_STEPS = 4  # in usual steps between ticks: a longer gap has score 0


ScoresByTick = dict[int, dict[str, float]]  # tick in ns → label → score


class ScoreRecorder(Detector[Any]):
    """A detector that passes every call on to another detector and keeps the last scores of each tick."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector.options)
        self.kind = detector.kind
        self.detector = detector
        self.scores: ScoresByTick = {}

    def lifecycle_options_for(self, label: str) -> LifecycleOptions:
        return self.detector.lifecycle_options_for(label)

    def kind_of(self, label: str) -> EventKind:
        return self.detector.kind_of(label)

    def has_label(self, label: str) -> bool:
        return self.detector.has_label(label)

    def initial_state(self) -> Any:
        return self.detector.initial_state()

    def migrate_state(self, old: Detector, state: Any) -> Any:
        return self.detector.migrate_state(old.detector if isinstance(old, ScoreRecorder) else old, state)

    def score(self, state: Any, tick: int, embeddings: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        state, scores = self.detector.score(state, tick, embeddings)
        self.scores[tick] = {label: float(s.score) for label, s in scores.items() if self.kind_of(label) is self.kind}
        return state, scores


@dataclass(frozen=True, slots=True)
class TrackerStep:
    """A step of an event tracker: a new tick (ns) and its embeddings by sensor, or, if `late`, embeddings that came
    late for an earlier tick."""

    tick: int
    embeddings: dict[str, Embedding]
    late: bool = False


class StepRecorder(EventTracker):
    """An event tracker that keeps its steps. None is a restart."""

    def __init__(self, detectors: Sequence[Detector], space: str) -> None:
        super().__init__(detectors, space)
        self.steps: list[TrackerStep | None] = []

    def step(self, tick: int, embeddings: Mapping[str, Embedding]) -> list[Event]:
        self.steps.append(TrackerStep(tick, {sensor: e for sensor, e in embeddings.items() if sensor != FUSED}))
        return super().step(tick, embeddings)

    def add_late_embeddings(self, tick: int, late: Mapping[str, Embedding]) -> list[Event]:
        self.steps.append(TrackerStep(tick, dict(late), late=True))
        return super().add_late_embeddings(tick, late)

    def restart(self) -> list[Event]:
        self.steps.append(None)
        return super().restart()


def run_recording(
    path: Path,
    settings: Settings,
    space: Space,
    truth: Path | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> RecordingRuns:
    """Replay `path` through the pipeline with all sensors, then detect events again in the vectors of each modality.

    `truth`: the truth file; None is the one beside the recording. The faults file is always the one beside it.
    `progress` is called with the seconds done. Raises `TruthError` without a truth, and the errors of reading.
    """
    spans = Spans.of(read_truth(require_truth_file(path, truth), settings.prompts))
    faults = find_truth_file(path, "faults")
    activity = SignalActivity()
    with open_with_sensors(path, settings) as (settings, replay):
        plain_detectors = settings.detectors(space)
        all_detectors = [ScoreRecorder(d) if d.kind is EventKind.PROMPT else d for d in plain_detectors]
        scores = next((d.scores for d in all_detectors if isinstance(d, ScoreRecorder)), {})
        tracker = StepRecorder(all_detectors, space.id)
        start, end, seconds = replay.start, replay.end, replay.seconds
        outputs = replay.outputs(settings.pipeline(space, tracker), on_sample=activity.add, progress=progress)
        events = [output for output in outputs if isinstance(output, Event)]
    known = {*settings.prompts, *spans.labels}
    runs = {
        ALL: detection_run(events, scores, known, start),
        **_single_modality_runs(tracker.steps, settings, space, known, start),
    }
    counted = Counter(
        o.kind.name for o in intervals_from_events(events) if o.kind is not EventKind.PROMPT and o.label not in known
    )
    return RecordingRuns(
        name=path.name,
        seconds=max(seconds, 1e-3),
        space=space.id,
        prompts=tuple(sorted(settings.prompts)),
        truth=spans,
        faults=FaultSpans.of(read_faults(faults)) if faults else None,
        runs=runs,
        activity=activity.z_scores(start, end),
        fault_reports=fault_reports(events, start),
        unscored_events=counted,
        warnings=tuple(prompt_warnings(plain_detectors, space, runs.keys() - {ALL, LATE})),
    )


def _single_modality_runs(
    steps: Sequence[TrackerStep | None], settings: Settings, space: Space, known: set[str], start: int
) -> dict[str, DetectionRun]:
    """The output of the prompt detector with each modality alone, and `LATE`. Empty without prompts."""
    prompt_detectors = settings.with_detector({"detectors": ["prompt"]}).detectors(space)
    if not prompt_detectors:
        return {}
    runs, timelines = {}, []
    for modality in sort_modalities({e.modality for step in steps if step for e in step.embeddings.values()}):
        detector = ScoreRecorder(prompt_detectors[0])
        events = _rerun_steps(steps, EventTracker([detector], space.id), modality)
        runs[modality] = detection_run(events, detector.scores, known, start)
        timelines.append(detector.scores)
    if timelines:
        best = _max_scores(timelines)
        runs[LATE] = detection_run(
            _events_from_scores(best, steps, prompt_detectors[0].lifecycle_options_for, space.id), best, known, start
        )
    return runs


def _rerun_steps(steps: Iterable[TrackerStep | None], tracker: EventTracker, modality: str) -> list[Event]:
    """Run the steps again with the embeddings of one modality: those of all its sensors."""
    events: list[Event] = []
    for step in steps:
        if step is None:
            events += tracker.restart()
            continue
        own = {sensor: e for sensor, e in step.embeddings.items() if e.modality == modality}
        events += tracker.add_late_embeddings(step.tick, own) if step.late else tracker.step(step.tick, own)
    return events + tracker.finish()


def _max_scores(timelines: Sequence[ScoresByTick]) -> ScoresByTick:
    """The highest score of each label at each tick in several timelines."""
    result: ScoresByTick = {}
    for tick in sorted({tick for timeline in timelines for tick in timeline}):
        best = result.setdefault(tick, {})
        for timeline in timelines:
            for label, score in timeline.get(tick, {}).items():
                best[label] = max(best.get(label, 0.0), score)
    return result


def _events_from_scores(
    scores: ScoresByTick, steps: Iterable[TrackerStep | None], options: Callable[[str], LifecycleOptions], space: str
) -> list[Event]:
    """Events from scores, with the event lifecycle of the detector, `options(label)`."""
    events: list[Event] = []
    lifecycles: dict[str, EventLifecycle] = {}
    last = 0
    for step in (*steps, None):
        if step is None:
            events += [e for label in sorted(lifecycles) for e in lifecycles[label].close(last, last)]
            lifecycles = {}
        elif not step.late:
            last = step.tick
            own = scores.get(last, {})
            for label in sorted(own):
                lifecycle = lifecycles.setdefault(label, EventLifecycle(EventKind.PROMPT, label, space, options(label)))
                events += lifecycle.step(last, Score(own[label]))
    return events


def detection_run(events: Sequence[Event], scores: ScoresByTick, known: set[str], start: int) -> DetectionRun:
    """The ended events of prompts, and of other kinds with a label in `known`. Times in s from `start` (ns)."""
    rows = []
    for item in intervals_from_events(events):
        if (
            item.offset is None
            or not item.evidence_by_tick
            or (item.kind is not EventKind.PROMPT and item.label not in known)
        ):
            continue
        onset, offset = (item.onset - start) / SECOND, (item.offset - start) / SECOND
        rows.append((onset, max(offset, onset + 1e-3), item.label, (item.evidence_by_tick[0][0] - start) / SECOND))
    rows.sort()
    spans = Spans.of(row[:3] for row in rows)
    return DetectionRun(spans, np.array([row[3] for row in rows], np.float64), _score_timeline(scores, start))


def _score_timeline(scores: ScoresByTick, start: int) -> ScoreTimeline:
    """The timeline of scores, in s from `start` (ns). The scores of a tick hold until the next tick."""
    ticks = sorted(scores)
    if not ticks:
        return ScoreTimeline(np.zeros(1), (), np.zeros((0, 0)))
    labels = tuple(sorted({label for own in scores.values() for label in own}))
    hop = int(np.median(np.diff(ticks))) if len(ticks) > 1 else SECOND // 2
    edges, rows = [], []
    for tick, after in zip(ticks, [*ticks[1:], ticks[-1] + hop], strict=True):
        edges.append(tick)
        rows.append([scores[tick].get(label, 0.0) for label in labels])
        if after - tick > MAX_TICK_GAP_STEPS * hop:
            edges.append(tick + hop)
            rows.append([0.0] * len(labels))
    edges.append(ticks[-1] + hop)
    return ScoreTimeline((np.array(edges, np.int64) - start) / SECOND, labels, np.array(rows, np.float64))


def fault_reports(events: Sequence[Event], start: int) -> tuple[FaultReport, ...]:
    """The fault reports in `events`, with times in s from `start` (ns)."""
    found = []
    for item in intervals_from_events(events):
        if item.offset is None or not item.evidence_by_tick:
            continue
        times = [(t - start) / SECOND for t in (item.onset, item.offset, item.evidence_by_tick[0][0])]
        if (report := parse_fault_label(item.label, *times)) is not None:
            found.append(report)
    return tuple(found)


# The state of a worker process, set when it starts.
_worker_state: dict[str, Any] = {}


def _init_worker(settings: Settings, threads: int, done: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    _worker_state.update(settings=settings, space=settings.space(), done=done)


def _run_in_worker(number: int, path: Path, truth: Path) -> RecordingRuns:
    def progress(seconds: float) -> None:
        _worker_state["done"].put((number, seconds))

    return run_recording(path, _worker_state["settings"], _worker_state["space"], truth, _once_per_second(progress))


def _once_per_second(progress: Callable[[float], None]) -> Callable[[float], None]:
    """Limit the calls of `progress` to one for each second of the recording."""
    last = 0

    def report(seconds: float) -> None:
        nonlocal last
        if int(seconds) > last:
            last = int(seconds)
            progress(seconds)

    return report


def run_recordings(
    recordings: Sequence[tuple[Path, Path | None]], settings: Settings, jobs: int = 1
) -> list[RecordingRuns]:
    """`run_recording` for each (recording, truth or None), in order, `jobs` at once, with a progress bar in seconds.

    The result does not depend on `jobs`: every recording has its own pipeline. Raises the errors of `run_recording`.
    A missing truth is an error before any replay starts.
    """
    work = []
    lengths = []
    for path, given in recordings:
        lengths.append(duration(path))
        file = require_truth_file(path, given)
        read_truth(file)
        work.append((path, file))
    done = [0.0] * len(work)
    with progress("recordings", sum(lengths)) as shown:

        def show(number: int, seconds: float) -> None:
            done[number] = min(seconds, lengths[number])
            shown.reach(sum(done))

        if jobs <= 1 or len(work) == 1:
            space = settings.space()
            results = []
            for number, (path, file) in enumerate(work):
                shown.note(path.name)
                results.append(run_recording(path, settings, space, file, _once_per_second(partial(show, number))))
            return results
        return _in_parallel(work, settings, min(jobs, len(work)), show)


def _in_parallel(
    work: Sequence[tuple[Path, Path]], settings: Settings, jobs: int, show: Callable[[int, float], None]
) -> list[RecordingRuns]:
    context = get_context("spawn")  # a fork would copy torch's threads in an undefined state
    queue = context.Queue()
    threads = max((os.cpu_count() or 1) // jobs, 1)
    with ProcessPoolExecutor(jobs, context, _init_worker, (settings, threads, queue)) as pool:
        futures = [pool.submit(_run_in_worker, number, path, file) for number, (path, file) in enumerate(work)]
        try:
            while not all(future.done() for future in futures):
                with suppress(Empty):
                    show(*queue.get(timeout=0.2))
                if any(future.done() and future.exception() for future in futures):
                    break
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
