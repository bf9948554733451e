"""The engine and its queues: every window is embedded, failed or counted as dropped, under every load and fault."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import SPECS, START, image, motion, run, samples_of_robot, sound, table
from helpers.toy_space import CountingSpace, ToySpace
from sensebind.benchmarks.harness import sensor_load
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Sample
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.engine import COMPARED_PREFIX_BYTES, Engine, Failure
from sensebind.fusion.stream.drivers import finish, process, process_turn
from sensebind.fusion.stream.pipeline import Pipeline


class SmallMemorySpace(CountingSpace):
    """A device whose memory holds `capacity` windows."""

    capacity = 3

    def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
        vectors = super().embed(modality, batch)
        if len(batch) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return vectors


class FailingSpace(ToySpace):
    """A device that fails for the image `bad`."""

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


def test_batches_shrink_if_memory_runs_out_and_every_window_is_embedded(caplog: pytest.LogCaptureFixture) -> None:
    space = SmallMemorySpace()
    engine = Engine(space, batch_size=16)
    expected = Engine(ToySpace()).embed(windows(16))
    for result, want in zip(engine.embed(windows(16)), expected, strict=True):
        assert isinstance(result, Embedding) and isinstance(want, Embedding)
        assert result.tick == want.tick and result.vector @ want.vector > 0.9999
    assert engine.batches.limit(VISION) <= 3 and "out of memory" in caplog.text and VISION in caplog.text
    space.batches.clear()
    engine.embed(windows(16, seed=50))
    assert max(count for _, count in space.batches) <= 3


def test_one_failing_window_does_not_fail_the_others_of_its_batch() -> None:
    some = windows(9)
    results = Engine(FailingSpace(ToySpace().tensor(some[4]))).embed(some)
    assert [isinstance(r, Failure) for r in results] == [i == 4 for i in range(9)]
    failure = results[4]
    assert isinstance(failure, Failure) and failure.cause == "failure" and "device-side" in failure.message


def test_the_batch_size_recovers_after_a_lack_of_memory() -> None:
    space = SmallMemorySpace()
    engine = Engine(space, batch_size=4)
    engine.embed(windows(4))
    space.capacity = 100
    assert engine.batches.limit(VISION) == 2
    for i in range(1001):
        engine.embed(windows(1, seed=100 + i))
    assert engine.batches.limit(VISION) == 4


def test_an_unchanged_frame_reuses_its_vector() -> None:
    space = CountingSpace()
    engine = Engine(space)
    one, other = windows(1)[0], windows(1, seed=9)[0]
    same = Window(VISION, one.start + SECOND, one.tick + SECOND, 0.5, (image(START + SECOND, 0),))
    for order in ([one, same], [same], [one], [other], [one]):
        results = engine.embed(order)
        for window, result in zip(order, results, strict=True):
            assert isinstance(result, Embedding)
            assert result.tick == window.tick and result.coverage == window.coverage
            expected = ToySpace().embed(VISION, ToySpace().tensor(window)[None])[0].numpy()
            assert result.vector @ expected > 0.9999
    assert sum(count for _, count in space.batches) == 3 and engine.reused_count == 3


def test_of_images_that_differ_only_a_prefix_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[int]()
    equal = np.array_equal
    monkeypatch.setattr(np, "array_equal", lambda a, b: compared.append(a.size) or equal(a, b))
    first, other, *_ = sensor_load.images(VISION)
    nearly_equal = first.copy()
    nearly_equal[-1] ^= 1
    space = CountingSpace()
    engine = Engine(space)
    for number, pixels in enumerate((first, other, first.copy(), nearly_equal, nearly_equal.copy())):
        frame = Frame(pixels, "rgb8", sensor_load.HEIGHT, sensor_load.WIDTH)
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
    bgr = Frame(data.data, "bgr8", data.height, data.width, data.step)
    engine.embed([Window(VISION, 0, 1, 1.0, (Sample(VISION, 1, bgr, "camera"),))])
    assert sum(count for _, count in space.batches) == 3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["accept", "step", "drain"]), st.integers(1, 60)), max_size=20))
def test_in_every_order_of_actions_each_window_is_embedded_or_counted_as_dropped(actions) -> None:
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


def test_processing_in_steps_gives_the_results_of_processing_at_once() -> None:
    pipeline, outputs = Pipeline(SPECS, Engine(ToySpace(), batch_size=1)), []
    for sample in samples_of_robot():
        pipeline.accept(sample)
        while pipeline.waiting():
            outputs += process_turn(pipeline)
    got, want = table(outputs + finish(pipeline)), table(run(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot()))
    assert got.keys() == want.keys()
    assert all(e.vector @ want[k].vector > 0.9999 and e.sources == want[k].sources for k, e in got.items())


def test_a_slow_modality_drops_only_its_own_windows() -> None:
    """A window of vision is set to take one second of the device; all others take almost none."""
    space = CountingSpace()
    engine = Engine(space, batch_size=8)
    engine.batches.assume_speed(VISION, 1.0)
    pipeline = Pipeline(SPECS, engine, queue_size=4)
    samples = [image(START + i * 100 * 10**6, i) for i in range(80)]
    samples += [sound(START + i * 100 * 10**6, i) for i in range(80)]
    samples += [motion(START + i * 100 * 10**6, i) for i in range(80)]
    embedded: Counter[str] = Counter()
    last: dict[str, int] = {}
    for i, sample in enumerate(sorted(samples, key=lambda s: s.end)):
        pipeline.accept(sample)
        if i % 30 == 29:  # two windows of each modality have closed
            engine.batches.assume_speed(VISION, 1.0)
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


def test_windows_before_a_restart_are_fused_before_windows_after_it() -> None:
    pipeline = Pipeline(SPECS, Engine(ToySpace(), batch_size=1), fusion_timeout=10 * SECOND)
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


def test_available_cores_respect_the_cpu_affinity() -> None:
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_the_simulated_sensor_load_has_the_documented_rates() -> None:
    samples = list(sensor_load.sample_stream(sensor_load.sensors(), 2.0))
    counts = Counter(s.modality for s in samples)
    assert counts == {m: round(2 * rate) for m, rate in sensor_load.MESSAGE_RATES.items()}
    assert all(np.diff([s.stamp for s in samples if s.modality == m]).min() > 0 for m in counts)
