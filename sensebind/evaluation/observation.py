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

from sensebind.evaluation.energy import Activity
from sensebind.evaluation.faults import Naming, naming
from sensebind.evaluation.observed import ALL, LATE, Observation, Telling
from sensebind.evaluation.psds import Course
from sensebind.evaluation.spans import Faults, Spans
from sensebind.fusion.core.embeddings import FUSED, Embedding, ordered
from sensebind.fusion.core.events import Event, Kind, Score, occurrences
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.lifecycle import Life, LifeOptions
from sensebind.fusion.events.tracker import EventLine
from sensebind.fusion.io.recordings import Recording
from sensebind.fusion.io.truth import read_faults, read_truth, truth_beside, truth_file
from sensebind.replay.session import Settings, open_replay

LONGEST = 4  # usual steps between ticks, beyond which nothing was scored in between


Scores = dict[int, dict[str, float]]  # tick in ns → label → score


class ScoreLog(Detector[Any]):
    """A detector that passes every call on to another one and keeps its scores: of each tick, the last ones."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector.options)
        self.kind = detector.kind
        self.detector = detector
        self.scores: Scores = {}

    def knows(self, label: str) -> bool:
        return self.detector.knows(label)

    def start(self) -> Any:
        return self.detector.start()

    def adopt(self, old: Detector, state: Any) -> Any:
        return self.detector.adopt(old.detector if isinstance(old, ScoreLog) else old, state)

    def score(self, state: Any, tick: int, present: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        state, scores = self.detector.score(state, tick, present)
        self.scores[tick] = {label: float(s.score) for label, s in scores.items()}
        return state, scores


@dataclass(frozen=True, slots=True)
class Step:
    """What an event line was asked to do: to take a tick, or, if `late`, to mend one that has passed."""

    tick: int
    senses: dict[str, Embedding]
    late: bool = False


class Remembering(EventLine):
    """An event line that keeps the steps that it was asked to take; None where time started afresh."""

    def __init__(self, detectors: Sequence[Detector], space: str) -> None:
        super().__init__(detectors, space)
        self.steps: list[Step | None] = []

    def step(self, tick: int, present: Mapping[str, Embedding]) -> list[Event]:
        self.steps.append(Step(tick, {m: e for m, e in present.items() if m != FUSED}))
        return super().step(tick, present)

    def amend(self, tick: int, late: Mapping[str, Embedding]) -> list[Event]:
        self.steps.append(Step(tick, dict(late), late=True))
        return super().amend(tick, late)

    def restart(self) -> list[Event]:
        self.steps.append(None)
        return super().restart()


def observe(
    path: Path,
    settings: Settings,
    space: Space,
    truth: Path | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Observation:
    """Replay `path` through the whole line with all senses; then tell again from the same vectors, sense by sense.

    `truth` is the truth file, that beside the recording where None; faults are always those beside it. `progress` is
    told the seconds that are done. Raises `TruthError` where there is no truth, and what reading raises.
    """
    spans = Spans.of(read_truth(truth_file(path, truth)))
    faults = truth_beside(path, "faults")
    all_detectors = [ScoreLog(d) if d.kind is Kind.PROMPT else d for d in settings.detectors(space)]
    scores = next((d.scores for d in all_detectors if isinstance(d, ScoreLog)), {})
    line = Remembering(all_detectors, space.id)
    activity = Activity()
    with open_replay(path, settings.embedder) as replay:
        start, end, seconds = replay.start, replay.end, replay.seconds
        outputs = replay.outputs(settings.pipeline(space, line), on_sample=activity.add, progress=progress)
        events = [output for output in outputs if isinstance(output, Event)]
    known = {*settings.prompts, *spans.labels}
    ways = {ALL: _telling(events, scores, known, start), **_ways_alone(line.steps, settings, space, known, start)}
    counted = Counter(o.kind.name for o in occurrences(events) if o.kind is not Kind.PROMPT and o.label not in known)
    return Observation(
        name=path.name,
        seconds=max(seconds, 1e-3),
        space=space.id,
        prompts=tuple(sorted(settings.prompts)),
        truth=spans,
        faults=Faults.of(read_faults(faults)) if faults else None,
        ways=ways,
        activity=activity.course(start, end),
        namings=namings(events, start),
        others=counted,
    )


def _ways_alone(
    steps: Sequence[Step | None], settings: Settings, space: Space, known: set[str], start: int
) -> dict[str, Telling]:
    """What the prompt detector reports from each modality alone, and `LATE`; empty where no prompt is set."""
    prompting = settings.with_detector({"detectors": ["prompt"]}).detectors(space)
    if not prompting:
        return {}
    ways, alone = {}, []
    for modality in ordered({m for step in steps if step for m in step.senses}):
        detector = ScoreLog(prompting[0])
        events = _again(steps, EventLine([detector], space.id), modality)
        ways[modality] = _telling(events, detector.scores, known, start)
        alone.append(detector.scores)
    if alone:
        best = _greatest(alone)
        ways[LATE] = _telling(_lives(best, steps, prompting[0].life, space.id), best, known, start)
    return ways


def _again(steps: Iterable[Step | None], line: EventLine, modality: str) -> list[Event]:
    """The steps once more, with what one sense perceived alone."""
    events: list[Event] = []
    for step in steps:
        if step is None:
            events += line.restart()
            continue
        own = {m: e for m, e in step.senses.items() if m == modality}
        events += line.amend(step.tick, own) if step.late else line.step(step.tick, own)
    return events + line.finish()


def _greatest(courses: Sequence[Scores]) -> Scores:
    """Of several courses, the greatest score of each label at each tick."""
    result: Scores = {}
    for tick in sorted({tick for course in courses for tick in course}):
        best = result.setdefault(tick, {})
        for course in courses:
            for label, score in course.get(tick, {}).items():
                best[label] = max(best.get(label, 0.0), score)
    return result


def _lives(course: Scores, steps: Iterable[Step | None], life: LifeOptions, space: str) -> list[Event]:
    """Scores to events, by the same thresholds and times as the detector's own."""
    events: list[Event] = []
    lives: dict[str, Life] = {}
    last = 0
    for step in (*steps, None):
        if step is None:
            events += [e for label in sorted(lives) for e in lives[label].close(last, last)]
            lives = {}
        elif not step.late:
            last = step.tick
            own = course.get(last, {})
            for label in sorted(own):
                one = lives.setdefault(label, Life(Kind.PROMPT, label, space, life))
                events += one.step(last, Score(own[label]))
    return events


def _telling(events: Sequence[Event], course: Scores, known: set[str], start: int) -> Telling:
    """Prompts' events, and those of other kinds whose label the truth knows, with seconds from `start` ns."""
    rows = []
    for item in occurrences(events):
        if item.offset is None or not item.course or (item.kind is not Kind.PROMPT and item.label not in known):
            continue
        onset, offset = (item.onset - start) / SECOND, (item.offset - start) / SECOND
        rows.append((onset, max(offset, onset + 1e-3), item.label, (item.course[0][0] - start) / SECOND))
    rows.sort()
    spans = Spans.of(row[:3] for row in rows)
    return Telling(spans, np.array([row[3] for row in rows], np.float64), _course(course, start))


def _course(scores: Scores, start: int) -> Course:
    """A tick's scores stand until the next tick, as events do: one begins at the tick that it is first seen at."""
    ticks = sorted(scores)
    if not ticks:
        return Course(np.zeros(1), (), np.zeros((0, 0)))
    labels = tuple(sorted({label for own in scores.values() for label in own}))
    hop = int(np.median(np.diff(ticks))) if len(ticks) > 1 else SECOND // 2
    edges, rows = [], []
    for tick, after in zip(ticks, [*ticks[1:], ticks[-1] + hop], strict=True):
        edges.append(tick)
        rows.append([scores[tick].get(label, 0.0) for label in labels])
        if after - tick > LONGEST * hop:
            edges.append(tick + hop)
            rows.append([0.0] * len(labels))
    edges.append(ticks[-1] + hop)
    return Course((np.array(edges, np.int64) - start) / SECOND, labels, np.array(rows, np.float64))


def namings(events: Sequence[Event], start: int) -> tuple[Naming, ...]:
    """What events tell of faulty sensors, in seconds from `start` (ns)."""
    found = []
    for item in occurrences(events):
        if item.offset is None or not item.course:
            continue
        times = [(t - start) / SECOND for t in (item.onset, item.offset, item.course[0][0])]
        if (named := naming(item.label, *times)) is not None:
            found.append(named)
    return tuple(found)


# What a worker process holds: set once, when it starts.
_held: dict[str, Any] = {}


def _start(settings: Settings, threads: int, done: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    _held.update(settings=settings, space=settings.space(), done=done)


def _work(number: int, path: Path, truth: Path) -> Observation:
    def progress(seconds: float) -> None:
        _held["done"].put((number, seconds))

    return observe(path, _held["settings"], _held["space"], truth, _rarely(progress))


def _rarely(progress: Callable[[float], None]) -> Callable[[float], None]:
    """Not at each message: once for each second of the recording."""
    told = 0

    def tell(seconds: float) -> None:
        nonlocal told
        if int(seconds) > told:
            told = int(seconds)
            progress(seconds)

    return tell


def observe_all(recordings: Sequence[tuple[Path, Path | None]], settings: Settings, jobs: int = 1) -> list[Observation]:
    """`observe` of (recording, truth or None) each, in their order, `jobs` at once, with a bar of the seconds done.

    The result does not depend on `jobs`: every recording has a line of its own. Raises what `observe` raises; that a
    truth is missing, before anything is replayed.
    """
    from tqdm import tqdm

    work = []
    lengths = []
    for path, given in recordings:
        with Recording(path) as recording:
            lengths.append((recording.end - recording.start) / SECOND)
        file = truth_file(path, given)
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
                seen.append(observe(path, settings, space, file, _rarely(partial(show, number))))
            return seen
        return _in_parallel(work, settings, min(jobs, len(work)), show)


def _in_parallel(
    work: Sequence[tuple[Path, Path]], settings: Settings, jobs: int, show: Callable[[int, float], None]
) -> list[Observation]:
    context = get_context("spawn")  # a fork would copy torch's threads in whatever state they are
    queue = context.Queue()
    threads = max((os.cpu_count() or 1) // jobs, 1)
    with ProcessPoolExecutor(jobs, context, _start, (settings, threads, queue)) as pool:
        futures = [pool.submit(_work, number, path, file) for number, (path, file) in enumerate(work)]
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
