"""The scheduler: windows of several robots share batches, and each robot gets what it would have got alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import CountingSpace
from test_pipeline import SPECS, START, image, run, samples_of_robot, table
from toy import ToySpace

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.futures import DeferredFuture, EmbeddingFuture
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.stream import scheduler as schedulers
from sensebind.fusion.stream.drivers import finish, process_turn
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.scheduler import MAX_TURNS_IN_PROGRESS, Scheduler, fair_shares


class Gated(CountingSpace):
    """A device that works only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        self.begun.set()
        assert self.gate.wait(30)
        return super().embed(modality, batch)


class Slow(ToySpace):
    """A device that takes a batch at once, and answers while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun: list[str] = []

    def embed_async(self, modality: str, batch: torch.Tensor) -> EmbeddingFuture:
        self.begun.append(modality)

        def finish() -> torch.Tensor:
            assert self.gate.wait(30)
            return self.embed(modality, batch)

        return DeferredFuture(finish)


class SlowEngine(Engine):
    """All that waits has its turn, however long the device took before."""

    def windows_per_time_slice(self, modality: str) -> int:
        return 1000


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def collect_outputs(scheduler: Scheduler, *pipelines: Pipeline) -> None:
    """A robot's samples, to each pipeline at the same time; then the end."""
    for sample in samples_of_robot():
        for pipeline in pipelines:
            pipeline.accept(sample)
        scheduler.notify()
        time.sleep(0.0005)
    scheduler.close()


def test_robots_share_batches_and_each_gets_its_own_vectors() -> None:
    space = Gated()
    engine = SlowEngine(space, batch_size=64)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine) for _ in range(3)]
    outputs: list[list[Output]] = [[] for _ in pipelines]
    space.gate.clear()
    busy = Pipeline(SPECS, engine)  # the device is held by another while the three wait
    scheduler.add(busy)
    for k in range(3):
        busy.accept(image(START + k * SECOND, seed=90 + k))
    scheduler.notify()
    assert space.begun.wait(30)
    samples = [samples_of_robot(seed) for seed in (1, 2, 3)]
    for pipeline, own, mine in zip(pipelines, outputs, samples, strict=True):
        for sample in mine:
            pipeline.accept(sample)
        scheduler.add(pipeline, own.extend)
    space.gate.set()
    scheduler.close()
    for own, mine in zip(outputs, samples, strict=True):
        got, want = table(own), table(run(Pipeline(SPECS, Engine(ToySpace())), mine))
        assert got.keys() == want.keys()
        assert all(e.vector @ want[k].vector > 0.9999 and e.sources == want[k].sources for k, e in got.items())
    largest = max(count for modality, count in space.batches if modality == VISION)
    alone = max(pipeline.statistics()[VISION].counts["embedded"] for pipeline in pipelines)
    assert largest > alone, "no batch held windows of two robots"


def test_what_closes_during_a_turn_is_begun_before_the_turn_ends_and_answered_in_order() -> None:
    space = Slow()
    engine = Engine(space)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine) for _ in range(MAX_TURNS_IN_PROGRESS + 1)]
    told: list[int] = []
    for number, pipeline in enumerate(pipelines):
        scheduler.add(pipeline, lambda outputs, number=number: told.append(number))
    for number, pipeline in enumerate(pipelines):
        pipeline.accept(image(START, seed=number))
        pipeline.accept(image(START + SECOND, seed=number))
        scheduler.notify()
        if number < MAX_TURNS_IN_PROGRESS:
            until(lambda number=number: len(space.begun) > number)
    time.sleep(0.05)
    assert len(space.begun) == MAX_TURNS_IN_PROGRESS and not told, "turns under way have no bound"
    space.gate.set()
    scheduler.close()
    assert list(dict.fromkeys(told)) == list(range(MAX_TURNS_IN_PROGRESS + 1))


def test_a_bug_in_what_follows_an_answer_does_not_stop_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    class Fallible(Pipeline):
        def complete(self, batch, results):
            raise ZeroDivisionError("a bug")

    engine = Engine(ToySpace())
    scheduler = Scheduler(engine)
    good, bad = Pipeline(SPECS, engine), Fallible(SPECS, engine)
    scheduler.add(bad)
    scheduler.add(good)
    collect_outputs(scheduler, good, bad)
    assert good.statistics()[VISION].counts["embedded"] == good.statistics()[VISION].counts["windows"] > 2
    assert "a bug" in caplog.text


def test_a_window_waits_for_others_and_not_for_ever() -> None:
    space = CountingSpace()
    engine = Engine(space, batch_size=4)
    scheduler = Scheduler(engine, batch_wait=0.2)
    pipelines = [Pipeline(SPECS, engine) for _ in range(2)]
    for i, pipeline in enumerate(pipelines):
        scheduler.add(pipeline)
        for k in range(3):
            pipeline.accept(image(START + k * SECOND, seed=10 * i + k))
        scheduler.notify()
    until(lambda: all(p.waiting() == 0 and p.statistics()[VISION].counts["embedded"] for p in pipelines))
    scheduler.close()
    assert max(count for _, count in space.batches) >= 2, "they did not wait for each other"


def test_a_full_batch_does_not_wait() -> None:
    space = CountingSpace()
    engine = Engine(space, batch_size=1)
    scheduler = Scheduler(engine, batch_wait=3600.0)
    pipeline = Pipeline(SPECS, engine)
    scheduler.add(pipeline)
    for k in range(3):
        pipeline.accept(image(START + k * SECOND, seed=k))
    scheduler.notify()
    until(lambda: pipeline.waiting() == 0)
    scheduler.close()
    assert pipeline.statistics()[VISION].counts["embedded"] >= 1


class Overlapping(Engine):
    """An engine whose device works while the host does other things, as a GPU does; two windows fill a batch."""

    @property
    def is_asynchronous(self) -> bool:
        return True

    def windows_per_time_slice(self, modality: str) -> int:
        return 2


def test_on_a_gpu_one_robot_waits_for_nobody_and_two_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "GPU_BATCH_WAIT", 3600.0)
    space = CountingSpace()
    engine = Overlapping(space)
    scheduler = Scheduler(engine)
    first, second = (Pipeline(SPECS, engine) for _ in range(2))
    scheduler.add(first)
    for k in range(2):  # one window closes
        first.accept(image(START + k * SECOND, seed=k))
    scheduler.notify()
    until(lambda: first.statistics()[VISION].counts["embedded"] == 1)
    scheduler.add(second)
    first.accept(image(START + 2 * SECOND, seed=2))
    scheduler.notify()
    time.sleep(0.1)
    assert first.waiting(VISION) == 1, "it did not wait for the other robot's"
    for k in range(2):
        second.accept(image(START + k * SECOND, seed=10 + k))
    scheduler.notify()
    until(lambda: second.statistics()[VISION].counts["embedded"] == 1)
    scheduler.close()
    assert space.batches == [(VISION, 1), (VISION, 2)]


def test_under_overload_the_newest_are_embedded_and_the_rest_is_counted() -> None:
    space = Gated()
    engine = Engine(space, batch_size=2)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine, queue_size=3) for _ in range(2)]
    newest: dict[int, int] = {}

    def keep(number: int) -> Callable[[list[Output]], None]:
        def take(outputs: list[Output]) -> None:
            for o in outputs:
                if isinstance(o, Embedding) and o.modality == VISION:
                    assert o.tick > newest.get(number, 0)
                    newest[number] = o.tick

        return take

    space.gate.clear()
    for number, pipeline in enumerate(pipelines):
        scheduler.add(pipeline, keep(number))
    for k in range(40):
        for number, pipeline in enumerate(pipelines):
            pipeline.accept(image(START + k * SECOND, seed=100 * number + k))
            scheduler.notify()
        if k == 2:
            assert space.begun.wait(30)
        assert all(p.waiting(VISION) <= 3 for p in pipelines)
    space.gate.set()
    scheduler.close()
    for number, pipeline in enumerate(pipelines):
        counts = pipeline.statistics()[VISION].counts
        assert counts["overload"] > 20 and counts["windows"] == counts["embedded"] + counts["overload"]
        assert newest[number] > START + 37 * SECOND


def test_windows_past_their_deadline_are_dropped_but_for_the_newest() -> None:
    pipeline = Pipeline(SPECS, Engine(ToySpace()), deadline=0.05)
    for k in range(8):
        pipeline.accept(image(START + k * SECOND, seed=k))
    waiting = pipeline.waiting(VISION)
    assert waiting > 2
    time.sleep(0.1)
    got = [o for o in process_turn(pipeline) if isinstance(o, Embedding) and o.modality == VISION]
    counts = pipeline.statistics()[VISION].counts
    assert len(got) == 1 and counts["expired"] == waiting - 1
    assert got[0].tick == max(o.tick for o in got) > START + 5 * SECOND
    assert pipeline.statistics()[VISION].dropped()["expired"] == waiting - 1


def test_a_slow_scheduler_continues_with_the_newest_windows() -> None:
    """Some windows have waited too long: of those and the newer ones the two newest are embedded, the rest counted."""
    engine = Engine(ToySpace(), batch_size=2)
    pipeline = Pipeline(SPECS, engine, deadline=0.3)

    def hear(first: int, last: int) -> None:
        for k in range(first, last):
            pipeline.accept(image(START + k * SECOND // 2, seed=k))

    hear(0, 5)
    early = pipeline.waiting(VISION)
    time.sleep(0.35)
    hear(5, 12)
    waiting = pipeline.waiting(VISION)
    got = [o.tick for o in process_turn(pipeline) if isinstance(o, Embedding) and o.modality == VISION]
    assert early >= 2 and waiting > early + 2
    assert len(got) == 2 and pipeline.waiting(VISION) == 0
    assert pipeline.statistics()[VISION].counts["expired"] == waiting - 2
    assert min(got) > START + 4 * SECOND


def test_a_replay_drops_nothing_for_having_waited() -> None:
    pipeline = Pipeline(SPECS, Engine(ToySpace()), deadline=1e-9)
    for sample in samples_of_robot():
        pipeline.accept(sample)
    outputs = finish(pipeline)
    assert table(outputs).keys() == table(run(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot())).keys()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 40), st.integers(0, 9))
def test_batch_slots_are_shared_evenly(waiting: list[int], room: int, first: int) -> None:
    given_ = fair_shares(waiting, room, first)
    assert sum(given_) == min(room, sum(waiting))
    assert all(g <= w for g, w in zip(given_, waiting, strict=True))
    short = [g for g, w in zip(given_, waiting, strict=True) if g < w]
    assert not short or max(given_) <= min(short) + 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["accept", "restart", "pause"])), max_size=40))
def test_whatever_happens_every_window_is_answered_or_counted(actions) -> None:
    engine = Engine(ToySpace(), batch_size=2)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine, queue_size=3) for _ in range(3)]
    outputs: list[list[Output]] = [[] for _ in pipelines]
    for pipeline, own in zip(pipelines, outputs, strict=True):
        scheduler.add(pipeline, own.extend)
    streams = [iter(samples_of_robot(seed)) for seed in range(3)]
    for number, action in actions:
        if action == "pause":
            time.sleep(0.001)
        elif action == "restart":
            pipelines[number].restart()
        else:
            for _, sample in zip(range(40), streams[number], strict=False):
                pipelines[number].accept(sample)
        scheduler.notify()
    scheduler.close()
    for pipeline, own in zip(pipelines, outputs, strict=True):
        got = Counter(o.modality for o in own if isinstance(o, Embedding))
        assert pipeline.waiting() == 0
        for modality, statistics in pipeline.statistics().items():
            counts = statistics.counts
            assert counts["windows"] == counts["embedded"] + sum(statistics.dropped().values())
            assert got[modality] == counts["embedded"]


def test_a_pipeline_may_come_and_go_and_the_others_do_not_notice() -> None:
    engine = Engine(ToySpace())
    scheduler = Scheduler(engine)
    patient = 3600 * SECOND  # the samples come faster than any robot's, and none is to be given up for being late
    first, second = (Pipeline(SPECS, engine, patience=patient) for _ in range(2))
    got: dict[str, list[Output]] = {"first": [], "second": []}
    scheduler.add(first, got["first"].extend)
    scheduler.add(second, got["second"].extend)
    samples = samples_of_robot()
    half = len(samples) // 2
    for sample in samples[:half]:
        first.accept(sample)
        second.accept(sample)
        scheduler.notify()
    scheduler.remove(second)
    ended = len(got["second"])
    assert ended and second.waiting() == 0
    for sample in samples[half:]:
        first.accept(sample)
        scheduler.notify()
    scheduler.close()
    assert len(got["second"]) == ended
    assert table(got["first"]).keys() == table(run(Pipeline(SPECS, Engine(ToySpace())), samples)).keys()


class FailingSpace(ToySpace):
    """Raises what no space should."""

    def tensor(self, window):
        if window.modality == IMU:
            raise TypeError("a bug")
        return super().tensor(window)


def test_neither_a_bug_of_a_space_nor_one_of_a_subscriber_stops_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(FailingSpace())
    scheduler = Scheduler(engine)
    good, bad = Pipeline(SPECS, engine), Pipeline(SPECS, engine)
    got: list[Output] = []

    def refuse(outputs: list[Output]) -> None:
        raise OSError("nobody there")

    scheduler.add(good, got.extend)
    scheduler.add(bad, refuse)
    collect_outputs(scheduler, good, bad)
    assert any(isinstance(o, Embedding) and o.modality == AUDIO for o in got)
    assert any(isinstance(o, Failure) and o.modality == IMU for o in got)
    assert any(isinstance(o, Embedding) and o.modality == FUSED for o in got)
    assert "nobody there" in caplog.text and np.isfinite(scheduler.turn_count)


def test_a_pipeline_of_another_engine_is_refused() -> None:
    scheduler = Scheduler(Engine(ToySpace()))
    with pytest.raises(ValueError, match="one engine"):
        scheduler.add(Pipeline(SPECS, Engine(ToySpace())))
    scheduler.close()
