"""The engine and its queues: every window is answered or counted, whatever the device does and however much comes."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import SPECS, START, image, motion, run, samples_of_robot, sound, table
from toy import ToySpace

from sensebind.benchmarks.harness import sensor_load as five
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Sample
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.engine import COMPARED_PREFIX_BYTES, Engine, Failure
from sensebind.fusion.stream.drivers import finish, process, process_turn
from sensebind.fusion.stream.pipeline import Pipeline


class CountingSpace(ToySpace):
    """Tells how many windows it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int]] = []

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append((modality, len(batch)))
        return super().embed(modality, batch)


class SmallMemorySpace(CountingSpace):
    """A device whose memory holds `room` windows."""

    room = 3

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        vectors = super().embed(modality, batch)
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return vectors


class FailingSpace(ToySpace):
    """A device that fails with one particular image."""

    def __init__(self, bad: torch.Tensor) -> None:
        super().__init__()
        self.bad = bad

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(row, self.bad) for row in batch):
            raise RuntimeError("device-side assertion")
        return super().embed(modality, batch)


def windows(count: int, seed: int = 0, frame_id: str = "camera") -> list[Window]:
    result = []
    for i in range(count):
        sample = image(START + i * SECOND, seed + i)
        sample = Sample(VISION, sample.stamp, sample.data, frame_id)
        result.append(Window(VISION, sample.stamp - 1, sample.stamp + 1, 1.0, (sample,)))
    return result


def test_batches_shrink_where_memory_runs_out_and_every_window_is_embedded(caplog: pytest.LogCaptureFixture) -> None:
    space = SmallMemorySpace()
    engine = Engine(space, batch_size=16)
    wanted = Engine(ToySpace()).embed(windows(16))
    for got, want in zip(engine.embed(windows(16)), wanted, strict=True):
        assert isinstance(got, Embedding) and isinstance(want, Embedding)
        assert got.tick == want.tick and got.vector @ want.vector > 0.9999
    assert engine.limit(VISION) <= 3 and "out of memory" in caplog.text and VISION in caplog.text
    space.batches.clear()
    engine.embed(windows(16, seed=50))
    assert max(count for _, count in space.batches) <= 3


def test_one_window_that_the_device_fails_with_spoils_no_other() -> None:
    some = windows(9)
    answers = Engine(FailingSpace(ToySpace().tensor(some[4]))).embed(some)
    assert [isinstance(a, Failure) for a in answers] == [i == 4 for i in range(9)]
    failure = answers[4]
    assert isinstance(failure, Failure) and failure.cause == "failure" and "device-side" in failure.message


def test_a_device_that_recovers_gets_its_batches_back() -> None:
    space = SmallMemorySpace()
    engine = Engine(space, batch_size=4)
    engine.embed(windows(4))
    space.room = 100
    assert engine.limit(VISION) == 2
    for i in range(1001):
        engine.embed(windows(1, seed=100 + i))
    assert engine.limit(VISION) == 4


def test_an_unchanged_frame_is_not_embedded_again_and_has_the_same_vector() -> None:
    space = CountingSpace()
    engine = Engine(space)
    one, other = windows(1)[0], windows(1, seed=9)[0]
    same = Window(VISION, one.start + SECOND, one.tick + SECOND, 0.5, (image(START + SECOND, 0),))
    for order in ([one, same], [same], [one], [other], [one]):
        answers = engine.embed(order)
        for window, answer in zip(order, answers, strict=True):
            assert isinstance(answer, Embedding)
            assert answer.tick == window.tick and answer.coverage == window.coverage
            truth = ToySpace().embed(VISION, ToySpace().tensor(window)[None])[0].numpy()
            assert answer.vector @ truth > 0.9999
    assert sum(count for _, count in space.batches) == 3 and engine.reused_count == 3


def test_images_that_differ_are_not_compared_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[int]()
    equal = np.array_equal
    monkeypatch.setattr(np, "array_equal", lambda a, b: compared.append(a.size) or equal(a, b))
    first, other, *_ = five.images(VISION)
    nearly = first.copy()
    nearly[-1] ^= 1
    space = CountingSpace()
    engine = Engine(space)
    for number, picture in enumerate((first, other, first.copy(), nearly, nearly.copy())):
        frame = Frame(picture, "rgb8", five.HEIGHT, five.WIDTH)
        engine.embed([Window(VISION, number, number + 1, 1.0, (Sample(VISION, number, frame, "camera"),))])
        assert number > 2 or sum(compared) <= number * COMPARED_PREFIX_BYTES
    assert len(space.batches) == 4 and engine.reused_count == 1


def test_an_unchanged_image_of_another_camera_or_layout_is_embedded() -> None:
    space = CountingSpace()
    engine = Engine(space)
    engine.embed(windows(1) + windows(1, frame_id="other"))
    (window,) = windows(1)
    data = window.samples[0].data
    assert isinstance(data, Frame)
    turned = Frame(data.data, "bgr8", data.height, data.width, data.step)
    engine.embed([Window(VISION, 0, 1, 1.0, (Sample(VISION, 1, turned, "camera"),))])
    assert sum(count for _, count in space.batches) == 3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["accept", "step", "drain"]), st.integers(1, 60)), max_size=20))
def test_however_it_is_stepped_through_every_window_is_embedded_or_counted(actions) -> None:
    pipeline = Pipeline(SPECS, Engine(ToySpace(), batch_size=2), queue_size=3)
    samples, outputs = samples_of_robot(), []
    for action, count in actions:
        if action == "accept":
            for sample in samples[:count]:
                pipeline.accept(sample)
            samples = samples[count:]
        else:
            outputs += process_turn(pipeline) if action == "step" else process(pipeline)
        assert all(pipeline.waiting(m) <= 3 for m in SPECS)
    outputs += finish(pipeline)
    assert pipeline.waiting() == 0
    got = Counter(o.modality for o in outputs if isinstance(o, Embedding))
    for modality, statistics in pipeline.statistics().items():
        counts = statistics.counts
        assert counts["windows"] == counts["embedded"] + sum(statistics.dropped().values())
        assert got[modality] == counts["embedded"]
    ticks = [o.tick for o in outputs if isinstance(o, Embedding) and o.modality == FUSED]
    assert ticks == sorted(set(ticks))


def test_steps_give_what_a_drain_gives() -> None:
    pipeline, outputs = Pipeline(SPECS, Engine(ToySpace(), batch_size=1)), []
    for sample in samples_of_robot():
        pipeline.accept(sample)
        while pipeline.waiting():
            outputs += process_turn(pipeline)
    got, want = table(outputs + finish(pipeline)), table(run(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot()))
    assert got.keys() == want.keys()
    assert all(e.vector @ want[k].vector > 0.9999 and e.sources == want[k].sources for k, e in got.items())


def test_a_slow_modality_loses_its_own_windows_and_starves_no_other() -> None:
    """A clock in the device: a window of vision takes a second of it, all others nothing."""
    space = CountingSpace()
    engine = Engine(space, batch_size=8)
    engine._batch_statistics[VISION].seconds_per_window = 1.0
    pipeline = Pipeline(SPECS, engine, queue_size=4)
    samples = [image(START + i * 100 * 10**6, i) for i in range(80)]
    samples += [sound(START + i * 100 * 10**6, i) for i in range(80)]
    samples += [motion(START + i * 100 * 10**6, i) for i in range(80)]
    embedded: Counter[str] = Counter()
    last: dict[str, int] = {}
    for i, sample in enumerate(sorted(samples, key=lambda s: s.end)):
        pipeline.accept(sample)
        if i % 30 == 29:  # a step now and then: two windows of each have closed
            engine._batch_statistics[VISION].seconds_per_window = 1.0
            for output in process_turn(pipeline):
                if isinstance(output, Embedding) and output.modality != FUSED:
                    embedded[output.modality] += 1
                    assert output.tick > last.get(output.modality, 0)
                    last[output.modality] = output.tick
            assert pipeline.waiting(AUDIO) == pipeline.waiting(IMU) == 0
    counts = pipeline.statistics()[VISION].counts
    assert counts["overload"] > 0 and pipeline.statistics()[AUDIO].counts["overload"] == 0
    assert embedded[VISION] == 8 and embedded[AUDIO] > 8
    assert last[VISION] > START + 4 * SECOND, "the newest are kept"


def test_a_restart_in_the_queue_is_passed_by_no_window() -> None:
    pipeline = Pipeline(SPECS, Engine(ToySpace(), batch_size=1), patience=10 * SECOND)
    for sample in samples_of_robot(3):
        pipeline.accept(sample)
    pipeline.restart()
    for sample in samples_of_robot(3):
        pipeline.accept(sample)
    outputs = []
    while pipeline.waiting():
        outputs += process_turn(pipeline)
    ticks = [o.tick for o in outputs + finish(pipeline) if isinstance(o, Embedding) and o.modality == FUSED]
    drops = [i for i in range(1, len(ticks)) if ticks[i] <= ticks[i - 1]]
    assert len(drops) == 1 and ticks[: drops[0]] == ticks[drops[0] :]


def test_cores_at_hand_are_no_more_than_the_affinity_allows() -> None:
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_the_simulated_robot_sends_what_it_says() -> None:
    samples = list(five.sample_stream(five.sensors(), 2.0))
    counts = Counter(s.modality for s in samples)
    assert counts == {m: round(2 * rate) for m, rate in five.MESSAGE_RATES.items()}
    assert all(np.diff([s.stamp for s in samples if s.modality == m]).min() > 0 for m in counts)
