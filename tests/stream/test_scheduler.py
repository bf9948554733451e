"""The scheduler: windows of several robots share batches, and each robot gets the same outputs as alone."""

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

from helpers.pipelines import SPECS, START, image, run, samples_of_robot, table
from helpers.toy_space import CountingSpace, ToySpace
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
    """A device that accepts a batch at once, and returns its vectors only while its gate is open."""

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


class UnlimitedEngine(Engine):
    """An engine that embeds all waiting windows in one turn, without a time limit."""

    def windows_per_time_slice(self, modality: str) -> int:
        return 1000


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.002)


def feed_and_close(scheduler: Scheduler, *pipelines: Pipeline) -> None:
    """Feed the samples of a robot to each pipeline, then close the scheduler."""
    for sample in samples_of_robot():
        for pipeline in pipelines:
            pipeline.accept(sample)
        scheduler.notify()
        time.sleep(0.0005)
    scheduler.close()


def test_robots_share_batches_and_each_gets_its_own_vectors() -> None:
    space = Gated()
    engine = UnlimitedEngine(space, batch_size=64)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine) for _ in range(3)]
    outputs: list[list[Output]] = [[] for _ in pipelines]
    space.gate.clear()
    busy = Pipeline(SPECS, engine)  # it keeps the device busy while the other three wait
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


def test_windows_that_close_during_a_turn_are_begun_before_it_ends_and_completed_in_order() -> None:
    space = Slow()
    engine = Engine(space)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine) for _ in range(MAX_TURNS_IN_PROGRESS + 1)]
    published: list[int] = []
    for number, pipeline in enumerate(pipelines):
        scheduler.add(pipeline, lambda outputs, number=number: published.append(number))
    for number, pipeline in enumerate(pipelines):
        pipeline.accept(image(START, seed=number))
        pipeline.accept(image(START + SECOND, seed=number))
        scheduler.notify()
        if number < MAX_TURNS_IN_PROGRESS:
            until(lambda number=number: len(space.begun) > number)
    time.sleep(0.05)
    assert len(space.begun) == MAX_TURNS_IN_PROGRESS and not published, "too many turns are in progress"
    space.gate.set()
    scheduler.close()
    assert list(dict.fromkeys(published)) == list(range(MAX_TURNS_IN_PROGRESS + 1))


def test_an_exception_while_completing_a_batch_does_not_stop_other_pipelines(caplog: pytest.LogCaptureFixture) -> None:
    class FailsToComplete(Pipeline):
        def complete(self, batch, results):
            raise ZeroDivisionError("a bug")

    engine = Engine(ToySpace())
    scheduler = Scheduler(engine)
    good, bad = Pipeline(SPECS, engine), FailsToComplete(SPECS, engine)
    scheduler.add(bad)
    scheduler.add(good)
    feed_and_close(scheduler, good, bad)
    assert good.statistics()[VISION].counts["embedded"] == good.statistics()[VISION].counts["windows"] > 2
    assert "a bug" in caplog.text


def test_a_window_waits_for_others_for_a_limited_time() -> None:
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
    """An engine whose device works while the host does other work, as a GPU does; two windows fill a batch."""

    @property
    def is_asynchronous(self) -> bool:
        return True

    def windows_per_time_slice(self, modality: str) -> int:
        return 2


def test_on_a_gpu_a_single_robot_does_not_wait_and_two_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert first.waiting(VISION) == 1, "it did not wait for the other robot's window"
    for k in range(2):
        second.accept(image(START + k * SECOND, seed=10 + k))
    scheduler.notify()
    until(lambda: second.statistics()[VISION].counts["embedded"] == 1)
    scheduler.close()
    assert space.batches == [(VISION, 1), (VISION, 2)]


def test_under_overload_the_newest_windows_are_embedded_and_the_others_counted() -> None:
    space = Gated()
    engine = Engine(space, batch_size=2)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine, queue_size=3) for _ in range(2)]
    newest: dict[int, int] = {}

    def publish_to(number: int) -> Callable[[list[Output]], None]:
        def keep_newest(outputs: list[Output]) -> None:
            for o in outputs:
                if isinstance(o, Embedding) and o.modality == VISION:
                    assert o.tick > newest.get(number, 0)
                    newest[number] = o.tick

        return keep_newest

    space.gate.clear()
    for number, pipeline in enumerate(pipelines):
        scheduler.add(pipeline, publish_to(number))
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


def test_windows_past_their_deadline_are_dropped_except_the_newest() -> None:
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
    """Some windows are past the deadline: the two newest of all windows are embedded, the others counted."""
    engine = Engine(ToySpace(), batch_size=2)
    pipeline = Pipeline(SPECS, engine, deadline=0.3)

    def accept_images(first: int, last: int) -> None:
        for k in range(first, last):
            pipeline.accept(image(START + k * SECOND // 2, seed=k))

    accept_images(0, 5)
    early = pipeline.waiting(VISION)
    time.sleep(0.35)
    accept_images(5, 12)
    waiting = pipeline.waiting(VISION)
    got = [o.tick for o in process_turn(pipeline) if isinstance(o, Embedding) and o.modality == VISION]
    assert early >= 2 and waiting > early + 2
    assert len(got) == 2 and pipeline.waiting(VISION) == 0
    assert pipeline.statistics()[VISION].counts["expired"] == waiting - 2
    assert min(got) > START + 4 * SECOND


def test_a_replay_drops_no_windows_past_the_deadline() -> None:
    pipeline = Pipeline(SPECS, Engine(ToySpace()), deadline=1e-9)
    for sample in samples_of_robot():
        pipeline.accept(sample)
    outputs = finish(pipeline)
    assert table(outputs).keys() == table(run(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot())).keys()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 40), st.integers(0, 9))
def test_batch_slots_are_shared_evenly(waiting: list[int], capacity: int, first: int) -> None:
    shares = fair_shares(waiting, capacity, first)
    assert sum(shares) == min(capacity, sum(waiting))
    assert all(g <= w for g, w in zip(shares, waiting, strict=True))
    short = [g for g, w in zip(shares, waiting, strict=True) if g < w]
    assert not short or max(shares) <= min(short) + 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["accept", "restart", "pause"])), max_size=40))
def test_every_window_is_embedded_or_counted_as_dropped(actions) -> None:
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


def test_removing_a_pipeline_does_not_affect_the_others() -> None:
    engine = Engine(ToySpace())
    scheduler = Scheduler(engine)
    timeout = 3600 * SECOND  # samples arrive faster than in real time: fusion must not skip a modality
    first, second = (Pipeline(SPECS, engine, fusion_timeout=timeout) for _ in range(2))
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
    """A space that raises an unexpected exception for windows of the IMU."""

    def tensor(self, window):
        if window.modality == IMU:
            raise TypeError("a bug")
        return super().tensor(window)


def test_exceptions_of_a_space_or_a_subscriber_do_not_stop_other_windows(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(FailingSpace())
    scheduler = Scheduler(engine)
    good, bad = Pipeline(SPECS, engine), Pipeline(SPECS, engine)
    got: list[Output] = []

    def fail_to_publish(outputs: list[Output]) -> None:
        raise OSError("no subscriber")

    scheduler.add(good, got.extend)
    scheduler.add(bad, fail_to_publish)
    feed_and_close(scheduler, good, bad)
    assert any(isinstance(o, Embedding) and o.modality == AUDIO for o in got)
    assert any(isinstance(o, Failure) and o.modality == IMU for o in got)
    assert any(isinstance(o, Embedding) and o.modality == FUSED for o in got)
    assert "no subscriber" in caplog.text and np.isfinite(scheduler.turn_count)


def test_a_pipeline_of_another_engine_is_refused() -> None:
    scheduler = Scheduler(Engine(ToySpace()))
    with pytest.raises(ValueError, match="one engine"):
        scheduler.add(Pipeline(SPECS, Engine(ToySpace())))
    scheduler.close()


def test_a_stuck_device_blocks_neither_removal_nor_the_end(monkeypatch, caplog) -> None:
    monkeypatch.setattr(schedulers, "STOP_TIMEOUT", 0.3)
    space = Gated()
    engine = Engine(space)
    scheduler = Scheduler(engine)
    pipelines = [Pipeline(SPECS, engine, queue_size=16) for _ in range(3)]
    for pipeline in pipelines:
        scheduler.add(pipeline)
    space.gate.clear()
    try:
        for sample in samples_of_robot(3):
            if pipelines[0].accept(sample):
                scheduler.notify()
        assert space.begun.wait(10)
        for pipeline in pipelines:
            scheduler.remove(pipeline)  # would wait for ever
        scheduler.close()
        assert scheduler.is_stuck
        assert sum("gave no result" in record.message for record in caplog.records) == 1
    finally:
        space.gate.set()
    for thread in scheduler._threads:
        thread.join(30)


def test_a_slow_device_that_gives_results_is_awaited(monkeypatch) -> None:
    """All windows are embedded, although this takes longer than `STOP_TIMEOUT`."""
    monkeypatch.setattr(schedulers, "STOP_TIMEOUT", 1.0)

    class SlowSpace(ToySpace):
        def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
            time.sleep(0.1)
            return super().embed(modality, batch)

    engine = Engine(SlowSpace(), batch_size=1)
    scheduler, outputs = Scheduler(engine), list[Output]()
    pipeline = Pipeline(SPECS, engine, queue_size=100)
    scheduler.add(pipeline, outputs.extend)
    for sample in samples_of_robot(4):
        pipeline.accept(sample)
    scheduler.remove(pipeline)
    scheduler.close()
    assert not scheduler.is_stuck
    counts = [s.counts for s in pipeline.statistics().values()]
    assert sum(c["embedded"] for c in counts) == sum(c["windows"] - c["coverage"] for c in counts) > 15
