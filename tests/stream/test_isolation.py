"""What one sensor sends never costs another sensor its windows."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.pipelines import HOP, MS, SPECS, START, push, run, samples_of_robot, table
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Reading, Sample, Sound
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.health.checks import SensorHealthMonitor
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.stream.clocks.agreement import MAX_LEAD
from sensebind.fusion.stream.drivers import finish, process
from sensebind.fusion.stream.pipeline import Output, Pipeline

GAS = "gas"


class GasSpace(ToySpace):
    """A space that also embeds the mean of the numbers of a user-defined modality."""

    def __init__(self) -> None:
        super().__init__()
        self.modalities = (*self.modalities, GAS)

    def tensor(self, window):
        import torch

        if window.modality != GAS:
            return super().tensor(window)
        means = [np.mean(s.data.values) for s in window.samples if isinstance(s.data, Reading)]
        return torch.full((16,), float(np.mean(means)) + 1)

    def embed(self, modality, batch):
        import torch

        return torch.nn.functional.normalize(batch, dim=-1) if modality == GAS else super().embed(modality, batch)


def assert_same(found: list[Output], expected: list[Output], *sensors: str) -> None:
    """Assert that both have the same windows of these sensors, with the same vectors but for rounding in batches."""
    one, other = ({k: e.vector for k, e in table(outputs).items() if k[0] in sensors} for outputs in (found, expected))
    assert one.keys() == other.keys() and one
    for key, vector in one.items():
        np.testing.assert_allclose(vector, other[key], atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, -0.0, -16_000.0, float("nan"), float("inf"), 1e-300])
def test_a_sound_of_an_impossible_rate_is_counted_and_costs_the_others_nothing(rate: float) -> None:
    samples = samples_of_robot(3)
    sound = Sample(AUDIO, START + 100 * MS, Sound(np.zeros((100, 1), np.int16), rate))
    pipeline = Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND)
    found = run(pipeline, [samples[0], sound, *samples[1:]])
    assert pipeline.statistics()[AUDIO].counts["invalid"] == 1
    assert_same(found, run(Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND), samples), VISION, IMU)


def test_no_sensor_restarts_another() -> None:
    """The stamps of an IMU jump by 2 s, back and forth, in blocks of 0.3 s: it restarts again and again, and loses its
    own windows only."""
    samples = samples_of_robot(8)
    jittered = [
        Sample(IMU, s.stamp - 2 * SECOND * (s.stamp // (300 * MS) % 2), s.data, s.frame_id) if s.modality == IMU else s
        for s in samples
    ]
    pipeline = Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND)
    found = run(pipeline, jittered)
    counts = {sensor: s.counts for sensor, s in pipeline.statistics().items()}
    assert counts[IMU]["restarts"] > 3
    assert counts[VISION]["restarts"] == counts[AUDIO]["restarts"] == 0
    expected = run(Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND), samples)
    assert_same(found, expected, VISION, AUDIO)


@pytest.mark.parametrize("ahead", [1.5, 2.9])
def test_a_sensor_whose_clock_is_ahead_leaves_the_others_fused(ahead: float) -> None:
    """The time of arrival is not known, so nothing but the stamps of the others shows that this clock is wrong."""
    samples = [
        Sample(IMU, s.stamp + round(ahead * SECOND), s.data) if s.modality == IMU else s for s in samples_of_robot(8)
    ]
    pipeline = Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND)
    run(pipeline, samples)
    assert {sensor: s.counts["unfused"] for sensor, s in pipeline.statistics().items()} == {VISION: 0, AUDIO: 0, IMU: 0}


def test_the_stamps_of_one_sensor_that_jitter_leave_most_windows_of_the_others_fused() -> None:
    random = np.random.default_rng(0)
    samples = [
        Sample(IMU, s.stamp + int(random.uniform(-2, 2) * SECOND), s.data) if s.modality == IMU else s
        for s in samples_of_robot(12)
    ]
    pipeline = Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND)
    run(pipeline, samples)
    counts = {sensor: s.counts for sensor, s in pipeline.statistics().items()}
    assert counts[VISION]["restarts"] == counts[AUDIO]["restarts"] == 0
    for sensor in (VISION, AUDIO):
        assert counts[sensor]["unfused"] < 0.2 * counts[sensor]["embedded"], counts[sensor]


def test_a_sensor_that_goes_on_alone_is_fused_alone_after_a_bounded_time() -> None:
    samples = [s for s in samples_of_robot(12) if s.modality == IMU or s.stamp < START + 3 * SECOND]
    pipeline = Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND)
    for sample in samples:
        for output in push(pipeline, sample):
            if isinstance(output, Embedding) and output.source == FUSED:
                assert sample.end - output.tick <= SECOND + MAX_LEAD + HOP + 200 * MS
    assert pipeline.statistics()[IMU].counts["unfused"] == 0


def test_one_sensor_that_jumps_back_for_good_restarts_alone_and_the_others_are_fused() -> None:
    samples = [
        Sample(IMU, s.stamp - 5 * SECOND, s.data) if s.modality == IMU and s.stamp > START + 4 * SECOND else s
        for s in samples_of_robot(10)
    ]
    pipeline = Pipeline(SPECS, Engine(ToySpace()), fusion_timeout=SECOND)
    fused = [o for s in samples for o in push(pipeline, s) if isinstance(o, Embedding) and o.source == FUSED]
    counts = {sensor: s.counts for sensor, s in pipeline.statistics().items()}
    assert {sensor: c["restarts"] for sensor, c in counts.items()} == {VISION: 0, AUDIO: 0, IMU: 1}
    assert counts[IMU]["unfused"] > 0
    late = [o for o in fused if o.tick > START + 7 * SECOND]
    assert late and all(o.sources == (AUDIO, VISION) for o in late)


@pytest.mark.parametrize("lengths", [[1, 3], [1, 2, 3, 4, 5, 6, 7], [2, 0]], ids=["two", "many", "empty"])
def test_messages_of_varying_length_of_one_sensor_cost_no_other_sensor_a_window(lengths: list[int]) -> None:
    noise = np.random.default_rng(0)
    gas = [
        Sample(GAS, START + i * 20 * MS, Reading(noise.standard_normal(lengths[i // 7 % len(lengths)])))
        for i in range(300)
    ]
    samples = sorted([*samples_of_robot(6), *gas], key=lambda s: s.end)
    pipeline = Pipeline({**SPECS, GAS: WindowSpec(GAS, SECOND, HOP)}, Engine(GasSpace()))
    found = run(pipeline, samples)
    expected = run(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot(6))
    assert_same(found, expected, VISION, AUDIO, IMU)
    counts = pipeline.statistics()[GAS].counts
    assert counts["windows"] == counts["embedded"] + counts["encoding"] + counts["coverage"] + counts["failure"]
    assert counts["samples"] == 300


def test_a_health_check_that_fails_is_counted_named_and_costs_no_window(monkeypatch) -> None:
    original = SensorHealthMonitor.inspect

    def inspect(self, window):
        if window.modality == IMU:
            raise IndexError("of a check")
        return original(self, window)

    monkeypatch.setattr(SensorHealthMonitor, "inspect", inspect)
    pipeline = Pipeline(SPECS, Engine(ToySpace()))
    for sample in samples_of_robot(4):
        pipeline.accept(sample)
    outputs = process(pipeline) + finish(pipeline)
    counts = pipeline.statistics()[IMU].counts
    assert counts["embedded"] == counts["unchecked"] == counts["windows"] - counts["coverage"] > 0
    failures = [o for o in outputs if isinstance(o, Failure)]
    assert {(f.sensor, f.cause) for f in failures} == {(IMU, "unchecked")} and "of a check" in failures[0].message
    monkeypatch.setattr(SensorHealthMonitor, "inspect", original)
    expected = run(Pipeline(SPECS, Engine(ToySpace())), samples_of_robot(4))
    assert_same(outputs, expected, VISION, AUDIO, IMU)
