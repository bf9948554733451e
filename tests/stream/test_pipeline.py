"""The pipeline: the same samples give the same outputs, in any order of arrival, at any rate and in any chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import HOP, MS, SPECS, START, image, motion, push, run, samples_of_robot, table
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, Embedding, fuse, l2_normalize
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Sample, Sound
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.stream.drivers import finish, process, process_samples
from sensebind.fusion.stream.pipeline import Output, Pipeline


def make_pipeline(space: ToySpace | None = None, **options) -> Pipeline:
    return Pipeline(SPECS, Engine(space or ToySpace()), **options)


def assert_same(got: list[Output], expected: list[Output]) -> None:
    a, b = table(got), table(expected)
    assert a.keys() == b.keys()
    for key, embedding in a.items():
        assert embedding.vector @ b[key].vector > 0.9999, key
        assert embedding.sources == b[key].sources
        assert embedding.coverage == pytest.approx(b[key].coverage)


REFERENCE = run(make_pipeline(), samples_of_robot())


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_messages_out_of_order_give_the_same_embeddings(random) -> None:
    samples = sorted(samples_of_robot(), key=lambda s: s.end + random.randint(0, 100 * MS))
    assert_same(run(make_pipeline(), samples), REFERENCE)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 120), min_size=1, max_size=10))
def test_the_outputs_do_not_depend_on_how_often_windows_are_processed(chunks) -> None:
    pipeline, samples, outputs = make_pipeline(), samples_of_robot(), []
    while samples:
        for size in chunks:
            for sample in samples[:size]:
                pipeline.accept(sample)
            samples = samples[size:]
            outputs += process(pipeline)
    assert_same(outputs + finish(pipeline), REFERENCE)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.sets(st.integers(0, 200), max_size=5))
def test_process_samples_equals_processing_each_sample_and_yields_unreadable_messages(batch, unread) -> None:
    samples: list[Sample | Failure] = [*samples_of_robot()]
    failures = [Failure(AUDIO, "encoding", str(number)) for number in sorted(unread)]
    for number, failure in zip(sorted(unread, reverse=True), reversed(failures), strict=True):
        samples.insert(number, failure)
    outputs = list(process_samples(make_pipeline(), samples, batch))
    assert [o for o in outputs if isinstance(o, Failure)] == failures
    assert_same(outputs, REFERENCE)
    fused = [o.tick for o in outputs if isinstance(o, Embedding) and o.modality == FUSED]
    assert fused == sorted(fused)


def test_windows_of_all_modalities_end_on_the_same_grid_and_vectors_are_of_unit_length() -> None:
    for (modality, tick), embedding in table(REFERENCE).items():
        assert tick % HOP == 0
        assert np.linalg.norm(embedding.vector) == pytest.approx(1, abs=1e-6)
        assert embedding.vector.dtype == np.float32 and embedding.space == "toy@0"
        assert modality == FUSED or embedding.frame_id


def test_a_tick_is_fused_once_from_all_its_modalities_after_their_own_embeddings() -> None:
    seen: set[tuple[str, int]] = set()
    last = 0
    for output in REFERENCE:
        assert isinstance(output, Embedding)
        if output.modality == FUSED:
            assert output.tick > last
            last = output.tick
            assert {(m, output.tick) for m in output.sources} == {(m, t) for m, t in seen if t == output.tick}
            assert sum(output.weights) == pytest.approx(1)
        else:
            seen.add((output.modality, output.tick))
    full = table(REFERENCE)[FUSED, START + 4 * SECOND]
    assert full.sources == (AUDIO, IMU, VISION)


def test_the_fused_vector_is_the_normalized_sum_of_its_sources_by_weight_and_coverage() -> None:
    one, other = l2_normalize(np.eye(4)[:2])
    parts = [Embedding("a", 0, 1, "s", 1.0, one), Embedding("b", 0, 1, "s", 0.5, other)]
    fused = fuse(parts, {"a": 1, "b": 4})
    assert fused.weights == pytest.approx((1 / 3, 2 / 3))
    np.testing.assert_allclose(fused.vector, l2_normalize([1, 2, 0, 0]), atol=1e-6)
    assert fuse(parts[::-1], {"a": 1, "b": 4}).vector.tobytes() == fused.vector.tobytes()
    for wrong in (
        [],
        [parts[0], Embedding("b", 0, 2, "s", 1.0, other)],
        [parts[0], Embedding("b", 0, 1, "t", 1, other)],
    ):
        with pytest.raises(ValueError):
            fuse(wrong)


def test_a_stopped_sensor_delays_fusion_by_the_timeout_at_most() -> None:
    samples = [s for s in samples_of_robot(8) if s.modality != VISION or s.stamp < START + 3 * SECOND]
    pipeline = make_pipeline(fusion_timeout=SECOND)
    for sample in samples:
        for output in push(pipeline, sample):
            if isinstance(output, Embedding) and output.modality == FUSED:
                assert sample.end - output.tick <= SECOND + HOP + 200 * MS
    fused = [k for k in table(run(make_pipeline(), samples)) if k[0] == FUSED]
    assert len(fused) == len([k for k in table(run(make_pipeline(), samples_of_robot(8))) if k[0] == FUSED])


def test_a_sensor_without_samples_does_not_delay_the_others() -> None:
    pipeline = make_pipeline()
    outputs = [o for s in samples_of_robot() if s.modality == IMU for o in push(pipeline, s)]
    assert [o for o in outputs if isinstance(o, Embedding) and o.modality == FUSED]


def test_a_looped_recording_gives_the_same_outputs_each_time() -> None:
    samples = samples_of_robot(6)
    pipeline = make_pipeline()
    outputs = [o for _ in range(3) for s in samples for o in push(pipeline, s)] + finish(pipeline)
    ticks = [o.tick for o in outputs if isinstance(o, Embedding) and o.modality == FUSED]
    once = [o.tick for o in REFERENCE if isinstance(o, Embedding) and o.modality == FUSED]
    assert ticks == once * 3
    assert all(s.counts["restarts"] == 2 for s in pipeline.statistics().values())


def test_after_a_restart_the_outputs_are_those_of_a_new_pipeline() -> None:
    pipeline = make_pipeline()
    first = [o for s in samples_of_robot(3) for o in push(pipeline, s)]
    pipeline.restart()
    first += process(pipeline)
    again = run(pipeline, samples_of_robot(6))
    assert_same(again, REFERENCE)
    assert first


def test_an_unknown_encoding_is_a_failure_and_other_windows_are_embedded() -> None:
    samples = [
        image(s.stamp, 0, "klingon8") if s.modality == VISION and s.stamp > START + 2 * SECOND else s
        for s in samples_of_robot()
    ]
    pipeline = make_pipeline()
    outputs = run(pipeline, samples)
    failures = [o for o in outputs if isinstance(o, Failure)]
    assert failures and all("klingon8" in f.message and f.cause == "encoding" for f in failures)
    assert pipeline.statistics()[VISION].counts["encoding"] == len(failures)
    assert (AUDIO, START + 5 * SECOND) in table(outputs) and (FUSED, START + 5 * SECOND) in table(outputs)


def test_a_device_error_is_a_failure_and_other_windows_are_embedded() -> None:
    class OutOfMemory(ToySpace):
        def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
            if modality == VISION:
                raise torch.OutOfMemoryError("out of memory")
            return super().embed(modality, batch)

    pipeline = make_pipeline(OutOfMemory())
    outputs = run(pipeline, samples_of_robot())
    assert {o.cause for o in outputs if isinstance(o, Failure)} == {"failure"}
    assert table(outputs)[FUSED, START + 5 * SECOND].sources == (AUDIO, IMU)


def test_windows_of_a_modality_without_an_encoder_are_counted_and_not_published() -> None:
    pipeline = make_pipeline(ToySpace(modalities=(VISION,)))
    outputs = run(pipeline, samples_of_robot())
    assert {m for m, _ in table(outputs)} == {VISION, FUSED}
    assert pipeline.statistics()[IMU].counts["windows"] > 5 and pipeline.statistics()[IMU].counts["embedded"] == 0


def test_under_overload_the_oldest_windows_of_that_modality_are_dropped_and_counted() -> None:
    pipeline = make_pipeline(queue_size=2)
    for sample in samples_of_robot():
        pipeline.accept(sample)
    assert pipeline.waiting(VISION) == pipeline.waiting(AUDIO) == 2
    kept = [o.tick for o in process(pipeline) if isinstance(o, Embedding) and o.modality == VISION]
    every = [t for m, t in table(REFERENCE) if m == VISION]
    assert kept == sorted(every)[-3:-1] or kept == sorted(every)[-2:]
    statistics = pipeline.statistics()[VISION]
    assert statistics.counts["overload"] == statistics.counts["windows"] - 2


@pytest.mark.parametrize(
    ("samples", "modality", "symptom"),
    [
        ([image(START + i * 50 * MS, 7) for i in range(60)], VISION, "frozen"),
        (
            [
                Sample(VISION, START + i * 50 * MS, Frame(np.full(9, 255, np.uint8), "mono8", 3, 3, 3))
                for i in range(60)
            ],
            VISION,
            "blinded",
        ),
        (
            [Sample(VISION, START + i * 50 * MS, Frame(np.full(9, 0, np.uint8), "mono8", 3, 3, 3)) for i in range(60)],
            VISION,
            "dark",
        ),
        (
            [Sample(AUDIO, START + i * 100 * MS, Sound(np.zeros((800, 1), np.int16), 8000)) for i in range(40)],
            AUDIO,
            "muted",
        ),
        (
            [
                Sample(
                    AUDIO, START + i * 100 * MS, Sound(np.tile(np.array([[32767], [-32768]], np.int16), (400, 1)), 8000)
                )
                for i in range(40)
            ],
            AUDIO,
            "saturated",
        ),
        ([motion(START + i * 10 * MS, 3) for i in range(400)], IMU, "frozen"),
    ],
)
def test_symptoms_of_a_sensor_are_counted(samples, modality, symptom) -> None:
    pipeline = make_pipeline()
    run(pipeline, samples)
    assert pipeline.statistics()[modality].counts[symptom] >= 3


def test_a_healthy_sensor_shows_no_symptom() -> None:
    pipeline = make_pipeline()
    run(pipeline, samples_of_robot())
    for statistics in pipeline.statistics().values():
        assert not statistics.summary()["symptoms"], statistics
        assert statistics.counts["windows"] == statistics.counts["embedded"] + sum(statistics.dropped().values())


def test_any_exception_of_a_space_is_a_counted_failure_and_the_pipeline_continues() -> None:
    class FailsOnce(ToySpace):
        calls = 0

        def embed(self, modality: str, batch: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 3:
                raise TypeError("once")
            return super().embed(modality, batch)

    pipeline = make_pipeline(FailsOnce())
    outputs = run(pipeline, samples_of_robot())
    (failure,) = [output for output in outputs if isinstance(output, Failure)]
    assert failure.cause == "failure" and "once" in failure.message
    counts = pipeline.statistics()[failure.modality].counts
    assert counts["failure"] == 1 and counts["windows"] == counts["embedded"] + counts["coverage"] + 1


def test_a_skipped_batch_does_not_stop_later_batches() -> None:
    pipeline, samples = make_pipeline(), iter(samples_of_robot())
    while pipeline.waiting() < 4:
        pipeline.accept(next(samples))
    lost = pipeline.dequeue()
    outputs = list(process_samples(pipeline, samples, 2))
    assert len(table(outputs)) > 8
    with pytest.raises(ValueError, match="complete in order"):
        next(pipeline.complete(lost, []))


def test_an_interrupted_recording_does_not_affect_the_next() -> None:
    pipeline = make_pipeline()
    outputs = process_samples(pipeline, samples_of_robot(), 2)
    for _ in range(40):
        next(outputs)
    outputs.close()
    pipeline.restart()
    later = list(process_samples(pipeline, samples_of_robot(), 2))
    assert len(table([o for o in later if isinstance(o, Embedding) and o.modality == AUDIO])) > 8


def test_statistics_never_count_more_embeddings_than_windows_while_windows_are_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = make_pipeline()
    windowing = pipeline._queue.windowing_states

    def meanwhile() -> object:
        found = windowing()
        run(pipeline, samples_of_robot())  # as other threads may, between the two steps of `statistics`
        return found

    monkeypatch.setattr(pipeline._queue, "windowing_states", meanwhile)
    for statistics in pipeline.statistics().values():
        assert statistics.counts["embedded"] <= statistics.counts["windows"]
