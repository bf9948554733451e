"""A recording through the line once, and what each way of telling events makes of it."""

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
from sensebind.fusion.io.recordings import Recording
from sensebind.replay.session import Settings, open_replay

MAX_TICK_GAP = 4  # usual steps between ticks, beyond which nothing was scored in between


ScoresByTick = dict[int, dict[str, float]]  # tick in ns → label → score


class ScoreRecorder(Detector[Any]):
    """A detector that passes every call on to another one and keeps its scores: of each tick, the last ones."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector.options)
        self.kind = detector.kind
        self.detector = detector
        self.scores: ScoresByTick = {}

    def has_label(self, label: str) -> bool:
        return self.detector.has_label(label)

    def initial_state(self) -> Any:
        return self.detector.initial_state()

    def migrate_state(self, old: Detector, state: Any) -> Any:
        return self.detector.migrate_state(old.detector if isinstance(old, ScoreRecorder) else old, state)

    def score(self, state: Any, tick: int, embeddings: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        state, scores = self.detector.score(state, tick, embeddings)
        self.scores[tick] = {label: float(s.score) for label, s in scores.items()}
        return state, scores


@dataclass(frozen=True, slots=True)
class TrackerStep:
    """What an event tracker was asked to do: to take a tick, or, if `late`, to mend one that has passed."""

    tick: int
    embeddings: dict[str, Embedding]
    late: bool = False


class StepRecorder(EventTracker):
    """An event tracker that keeps the steps that it was asked to take; None where time started afresh."""

    def __init__(self, detectors: Sequence[Detector], space: str) -> None:
        super().__init__(detectors, space)
        self.steps: list[TrackerStep | None] = []

    def step(self, tick: int, embeddings: Mapping[str, Embedding]) -> list[Event]:
        self.steps.append(TrackerStep(tick, {m: e for m, e in embeddings.items() if m != FUSED}))
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
    """Replay `path` through the whole line with all senses; then tell again from the same vectors, sense by sense.

    `truth` is the truth file, that beside the recording where None; faults are always those beside it. `progress` is
    told the seconds that are done. Raises `TruthError` where there is no truth, and what reading raises.
    """
    spans = Spans.of(read_truth(require_truth_file(path, truth)))
    faults = find_truth_file(path, "faults")
    all_detectors = [ScoreRecorder(d) if d.kind is EventKind.PROMPT else d for d in settings.detectors(space)]
    scores = next((d.scores for d in all_detectors if isinstance(d, ScoreRecorder)), {})
    tracker = StepRecorder(all_detectors, space.id)
    activity = SignalActivity()
    with open_replay(path, settings.embedder) as replay:
        start, end, seconds = replay.start, replay.end, replay.seconds
        outputs = replay.outputs(settings.pipeline(space, tracker), on_sample=activity.add, progress=progress)
        events = [output for output in outputs if isinstance(output, Event)]
    known = {*settings.prompts, *spans.labels}
    ways = {
        ALL: _detection_run(events, scores, known, start),
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
        runs=ways,
        activity=activity.z_scores(start, end),
        fault_reports=fault_reports(events, start),
        unscored_events=counted,
    )


def _single_modality_runs(
    steps: Sequence[TrackerStep | None], settings: Settings, space: Space, known: set[str], start: int
) -> dict[str, DetectionRun]:
    """What the prompt detector reports from each modality alone, and `LATE`; empty where no prompt is set."""
    prompting = settings.with_detector({"detectors": ["prompt"]}).detectors(space)
    if not prompting:
        return {}
    ways, alone = {}, []
    for modality in sort_modalities({m for step in steps if step for m in step.embeddings}):
        detector = ScoreRecorder(prompting[0])
        events = _rerun_steps(steps, EventTracker([detector], space.id), modality)
        ways[modality] = _detection_run(events, detector.scores, known, start)
        alone.append(detector.scores)
    if alone:
        best = _max_scores(alone)
        ways[LATE] = _detection_run(
            _events_from_scores(best, steps, prompting[0].lifecycle_options, space.id), best, known, start
        )
    return ways


def _rerun_steps(steps: Iterable[TrackerStep | None], line: EventTracker, modality: str) -> list[Event]:
    """The steps once more, with what one sense perceived alone."""
    events: list[Event] = []
    for step in steps:
        if step is None:
            events += line.restart()
            continue
        own = {m: e for m, e in step.embeddings.items() if m == modality}
        events += line.add_late_embeddings(step.tick, own) if step.late else line.step(step.tick, own)
    return events + line.finish()


def _max_scores(courses: Sequence[ScoresByTick]) -> ScoresByTick:
    """Of several courses, the greatest score of each label at each tick."""
    result: ScoresByTick = {}
    for tick in sorted({tick for course in courses for tick in course}):
        best = result.setdefault(tick, {})
        for course in courses:
            for label, score in course.get(tick, {}).items():
                best[label] = max(best.get(label, 0.0), score)
    return result


def _events_from_scores(
    scores: ScoresByTick, steps: Iterable[TrackerStep | None], life: LifecycleOptions, space: str
) -> list[Event]:
    """Scores to events, by the same thresholds and times as the detector's own."""
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
                one = lifecycles.setdefault(label, EventLifecycle(EventKind.PROMPT, label, space, life))
                events += one.step(last, Score(own[label]))
    return events


def _detection_run(events: Sequence[Event], scores: ScoresByTick, known: set[str], start: int) -> DetectionRun:
    """Prompts' events, and those of other kinds whose label the truth knows, with seconds from `start` ns."""
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
    """A tick's scores stand until the next tick, as events do: one begins at the tick that it is first seen at."""
    ticks = sorted(scores)
    if not ticks:
        return ScoreTimeline(np.zeros(1), (), np.zeros((0, 0)))
    labels = tuple(sorted({label for own in scores.values() for label in own}))
    hop = int(np.median(np.diff(ticks))) if len(ticks) > 1 else SECOND // 2
    edges, rows = [], []
    for tick, after in zip(ticks, [*ticks[1:], ticks[-1] + hop], strict=True):
        edges.append(tick)
        rows.append([scores[tick].get(label, 0.0) for label in labels])
        if after - tick > MAX_TICK_GAP * hop:
            edges.append(tick + hop)
            rows.append([0.0] * len(labels))
    edges.append(ticks[-1] + hop)
    return ScoreTimeline((np.array(edges, np.int64) - start) / SECOND, labels, np.array(rows, np.float64))


def fault_reports(events: Sequence[Event], start: int) -> tuple[FaultReport, ...]:
    """What events tell of faulty sensors, in seconds from `start` (ns)."""
    found = []
    for item in intervals_from_events(events):
        if item.offset is None or not item.evidence_by_tick:
            continue
        times = [(t - start) / SECOND for t in (item.onset, item.offset, item.evidence_by_tick[0][0])]
        if (named := parse_fault_label(item.label, *times)) is not None:
            found.append(named)
    return tuple(found)


# What a worker process holds: set once, when it starts.
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
    """Not at each message: once for each second of the recording."""
    told = 0

    def report(seconds: float) -> None:
        nonlocal told
        if int(seconds) > told:
            told = int(seconds)
            progress(seconds)

    return report


def run_recordings(
    recordings: Sequence[tuple[Path, Path | None]], settings: Settings, jobs: int = 1
) -> list[RecordingRuns]:
    """`run_recording` of (recording, truth or None) each, in their order, `jobs` at once, with a bar of the seconds
    done.

    The result does not depend on `jobs`: every recording has a line of its own. Raises what `run_recording` raises;
    that a truth is missing, before anything is replayed.
    """
    from tqdm import tqdm

    work = []
    lengths = []
    for path, given in recordings:
        with Recording(path) as recording:
            lengths.append((recording.end - recording.start) / SECOND)
        file = require_truth_file(path, given)
        read_truth(file)
        work.append((path, file))
    done = [0.0] * len(work)
    with tqdm(total=round(sum(lengths)), unit="s", disable=None) as bar:

        def show(number: int, seconds: float) -> None:
            done[number] = min(seconds, lengths[number])
            bar.update(int(sum(done)) - bar.n)

        if jobs <= 1 or len(work) == 1:
            space = settings.space()
            seen = []
            for number, (path, file) in enumerate(work):
                bar.set_postfix_str(path.name)
                seen.append(run_recording(path, settings, space, file, _once_per_second(partial(show, number))))
            return seen
        return _in_parallel(work, settings, min(jobs, len(work)), show)


def _in_parallel(
    work: Sequence[tuple[Path, Path]], settings: Settings, jobs: int, show: Callable[[int, float], None]
) -> list[RecordingRuns]:
    context = get_context("spawn")  # a fork would copy torch's threads in whatever state they are
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
