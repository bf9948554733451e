"""Sensors whose clocks differ are named, and stop no other sensor: by stamps and times of arrival."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import SPECS, START, image, motion, push, sound
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import SECOND, Sample
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.stream.clocks.agreement import SensorClocks
from sensebind.fusion.stream.drivers import finish
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.stamp_warnings import clock_text

MS = SECOND // 1000


def arrivals(offsets: dict[str, float], seconds: float = 8.0, latency: float = 0.02) -> list[Sample]:
    """The samples of a robot, received `latency` s after their ends. `offsets`: s added to the stamps of a modality."""
    samples = [image(START + i * 100 * MS, i) for i in range(int(seconds * 10))]
    samples += [motion(START + 3 * MS + i * 20 * MS, i) for i in range(int(seconds * 50))]
    samples += [sound(START + i * 100 * MS, i) for i in range(int(seconds * 10))]
    found = []
    for sample in sorted(samples, key=lambda s: s.end):
        received = sample.end + round(latency * SECOND)
        stamp = sample.stamp + round(offsets.get(sample.modality, 0.0) * SECOND)
        found.append(replace(sample, stamp=stamp, received=received))
    return found


def run(samples: list[Sample]) -> tuple[Pipeline, list[Embedding]]:
    pipeline = Pipeline(SPECS, Engine(ToySpace()))
    outputs = [output for sample in samples for output in push(pipeline, sample)]
    outputs += finish(pipeline)
    return pipeline, [output for output in outputs if isinstance(output, Embedding)]


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from(["vision", "imu", "audio"]),
    st.one_of(st.floats(11.0, 1e4), st.floats(-1.6e9, -11.0), st.just(37.0)),
)
def test_one_wrong_clock_is_named_with_its_offset_and_the_others_are_fused_as_without_it(
    wrong: str, offset: float
) -> None:
    pipeline, embeddings = run(arrivals({wrong: offset}))
    statistics = pipeline.statistics()
    assert {name for name, own in statistics.items() if own.clock_differs} == {wrong}
    assert statistics[wrong].behind_others == pytest.approx(-offset, abs=0.05)
    assert statistics[wrong].clock_offset == pytest.approx(0.02 - offset, abs=0.05), "arrival minus stamp"
    assert statistics[wrong].counts["clock"] == statistics[wrong].counts["samples"], "all are counted"
    _, expected = run([sample for sample in arrivals({}) if sample.modality != wrong])
    fused = [(e.tick, e.sources) for e in embeddings if e.modality == "fused"]
    assert fused == [(e.tick, e.sources) for e in expected if e.modality == "fused"]
    assert all(START <= e.tick <= START + 9 * SECOND for e in embeddings), "no output has the time of the wrong clock"


@pytest.mark.parametrize("ahead", [1.5, 3.0, 9.0])
def test_a_clock_that_is_ahead_by_seconds_is_named_after_seconds(ahead: float) -> None:
    pipeline, embeddings = run(arrivals({"imu": ahead}, 12.0))
    own = pipeline.statistics()["imu"]
    assert own.clock_differs and own.counts["clock"] > 0.8 * own.counts["samples"]
    assert sum(e.modality == "fused" and len(e.sources) == 2 for e in embeddings) > 10


def test_under_load_samples_that_are_received_late_are_of_no_wrong_clock() -> None:
    """For two seconds, the messages of two sensors wait in a queue, and those of a third do not."""
    samples = [
        replace(s, received=max(s.received or 0, START + 3 * SECOND))
        if s.modality != "vision" and s.end < START + 3 * SECOND
        else s
        for s in arrivals({})
    ]
    for delay in (0.0, 1.2):  # of all messages
        late = [replace(s, received=(s.received or 0) + round(delay * SECOND)) for s in samples]
        pipeline, _ = run(sorted(late, key=lambda s: s.received or 0))
        assert not any(own.counts["clock"] for own in pipeline.statistics().values())


@settings(deadline=None, max_examples=8)
@given(st.floats(-1.6e9, 1e9))
def test_stamps_of_all_sensors_of_another_time_are_one_clock(offset: float) -> None:
    """A recording of another recording, or a simulation: no stamp agrees with the times of arrival."""
    pipeline, embeddings = run(arrivals(dict.fromkeys(("vision", "imu", "audio"), offset)))
    assert not any(own.clock_differs or own.counts["clock"] for own in pipeline.statistics().values())
    assert any(e.modality == "fused" and len(e.sources) == 3 for e in embeddings)


@pytest.mark.parametrize("late", [0.0, 0.3, 1.5, 5.0])
def test_a_late_sensor_with_right_stamps_is_used(late: float) -> None:
    samples = [
        replace(s, received=(s.received or 0) + round(late * SECOND)) if s.modality == "vision" else s
        for s in arrivals({})
    ]
    pipeline, _ = run(sorted(samples, key=lambda s: s.received or 0))
    statistics = pipeline.statistics()
    assert not any(own.clock_differs for own in statistics.values())
    assert statistics["vision"].behind_others == pytest.approx(late, abs=0.05)
    assert statistics["vision"].counts["embedded"] == statistics["vision"].counts["windows"] > 10


def test_samples_without_a_time_of_arrival_have_no_clock() -> None:
    pipeline, _ = run([replace(s, received=None) for s in arrivals({"vision": 2.0})])
    assert all(
        own.clock_offset is own.behind_others is None and not own.clock_differs
        for own in pipeline.statistics().values()
    )


def test_a_clock_that_is_set_for_all_sensors_excludes_none() -> None:
    before, after = arrivals(dict.fromkeys(("vision", "imu", "audio"), -1000.0), 4.0), arrivals({}, 8.0)
    samples = before + [s for s in after if s.stamp > START + 4 * SECOND]
    pipeline, _ = run(samples)
    assert not any(own.counts["clock"] for own in pipeline.statistics().values())


def test_a_sensor_whose_clock_becomes_right_is_used_again() -> None:
    wrong, right = arrivals({"vision": 60.0}, 4.0), arrivals({}, 12.0)
    pipeline, _ = run(wrong + [s for s in right if s.stamp > START + 4 * SECOND])
    own = pipeline.statistics()["vision"]
    assert not own.clock_differs and own.counts["clock"] >= 40 and own.counts["embedded"] > 5


def test_a_clock_that_is_right_again_is_used_after_a_second_and_a_half() -> None:
    wrong, right = arrivals({"imu": 60.0}, 4.0), arrivals({}, 12.0)
    _, embeddings = run(wrong + [s for s in right if s.stamp > START + 4 * SECOND])
    used = [e.tick for e in embeddings if e.modality == "imu" and e.tick <= START + 12 * SECOND]
    # A window of 2 s is embedded when half of it has data.
    assert used and min(used) <= START + 4 * SECOND + 3 * SECOND


@pytest.mark.parametrize("modality", ["vision", "audio", "imu"])
def test_samples_without_a_stamp_are_of_no_wrong_clock(modality: str) -> None:
    samples = arrivals({}, 12.0)
    without = [s for s in samples if s.modality == modality and 4 * SECOND < s.stamp - START < 8 * SECOND]
    pipeline, embeddings = run([replace(s, stamp=0) if s in without else s for s in samples])
    own = pipeline.statistics()[modality]
    assert own.counts["unstamped"] == len(without) and not own.counts["clock"] and not own.clock_differs
    assert any(
        e.source == modality and e.tick <= START + 10 * SECOND for e in embeddings if e.tick > START + 8 * SECOND
    )


def test_a_slow_sensor_keeps_its_clock() -> None:
    clocks = SensorClocks(SECOND)
    for i in range(3000):
        now = START + i * 10 * MS
        assert clocks.agrees("imu", now, now + 5 * MS)
        if i % 500 == 0:
            assert clocks.agrees("vision", now, now + 30 * MS)


def test_the_remedies_are_in_the_message() -> None:
    text = clock_text("rear", -37.0)
    assert "37.000 s ahead" in text and "TAI" in text and "rear.time_offset: -37.000" in text
    assert "rear.stamps: received" in text and "behind" in clock_text("imu", 1.7e9)
    assert "as the time of GPS does" in clock_text("imu", 315964782.0)


@settings(deadline=None, max_examples=5)
@given(st.sampled_from(["vision", "imu", "audio"]), st.floats(3.1, 1e6), st.integers(2500, 3500))
def test_a_clock_that_is_set_far_ahead_while_the_robot_runs_costs_the_other_sensors_nothing(
    wrong: str, ahead: float, at: int
) -> None:
    """Also in the seconds in which it is not known yet whether all clocks were set."""
    right = arrivals({}, 7.0)
    step = START + at * MS
    moved = [
        replace(s, stamp=s.stamp + round(ahead * SECOND)) if s.modality == wrong and s.stamp >= step else s
        for s in right
    ]
    pipeline, embeddings = run(moved)
    counts = {name: own.counts for name, own in pipeline.statistics().items()}
    assert not any(own["restarts"] or (own["unfused"] and name != wrong) for name, own in counts.items())
    assert counts[wrong]["clock"] >= sum(s.modality == wrong and s.stamp >= step for s in right)
    assert all(e.tick <= START + 8 * SECOND for e in embeddings), "no output has the time of the wrong clock"
    others = {name for name in counts if name != wrong}
    _, expected = run([s for s in right if s.modality != wrong or s.stamp < step])
    found, without = ({(e.tick, e.source) for e in outputs if e.source in others} for outputs in (embeddings, expected))
    assert found == without
    ticks = {e.tick: set(e.sources) for e in embeddings if e.modality == "fused"}
    assert all(others <= ticks[tick] for tick in ticks if START + 2 * SECOND <= tick <= START + 6 * SECOND)


def test_a_stamp_that_stands_still_is_of_no_wrong_clock() -> None:
    stuck = [
        replace(s, stamp=START + 3 * SECOND) if s.modality == "audio" and 3 <= (s.stamp - START) / SECOND < 14 else s
        for s in arrivals({}, 17.0)
    ]
    pipeline, embeddings = run(stuck)
    assert not any(own.counts["clock"] for own in pipeline.statistics().values())
    assert any(START + 14 * SECOND < e.tick <= START + 16 * SECOND for e in embeddings if e.source == "audio")


def paused(seconds: float, late: float = 0.0, step: float = 0.0) -> list[Sample]:
    """The samples of a robot that sends nothing from 2.5 s on, for some seconds. `late` (s): of what arrives in the
    second before that, and in the second after it, because the receiver does not run. `step` (s): by which the clock
    of the sensors is set forward in it."""
    begin, end = START + 5 * SECOND // 2, START + round((2.5 + seconds) * SECOND)
    found = []
    for sample in arrivals({}, 4.0 + seconds):
        received = sample.received or 0
        if begin <= received < end:
            continue
        if begin - SECOND <= received < end + SECOND:
            received += round(late * SECOND)
        found.append(replace(sample, received=received, stamp=sample.stamp + (received > begin) * round(step * SECOND)))
    return sorted(found, key=lambda s: s.received or 0)


@pytest.mark.parametrize(("seconds", "late"), [(0.7, 0.0), (0.7, 0.9), (2.5, 0.4)])
def test_a_pause_of_all_sensors_may_be_one_however_late_their_samples_arrive(seconds: float, late: float) -> None:
    pipeline, _ = run(paused(seconds, late))
    assert all(step.may_be_pause for step in pipeline.clock_steps())


@pytest.mark.parametrize("seconds", [0.0, 0.7])
def test_a_clock_that_is_set_forward_is_no_pause(seconds: float) -> None:
    """A sample is never received early: after a pause, the latency is not less than before."""
    pipeline, _ = run(paused(seconds, step=2.0))
    (step,) = pipeline.clock_steps()
    assert step.shared and not step.may_be_pause and abs(step.step - (2 + seconds) * SECOND) < SECOND // 4
