"""The accounting identity: every sample, window and embedding is used, or counted by its cause, or still waits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import HOP, MS, START, image, motion, sound
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.stream.accounting.identity import (
    EMBEDDED_DROPS,
    SAMPLE_ENDS,
    Account,
    accounts,
    added,
    sensor_counts,
    unaccounted,
)
from sensebind.fusion.stream.drivers import finish
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.statistics import WINDOW_DROPS
from sensebind.fusion.stream.tick_fuser import TickFuser
from sensebind.fusion.stream.waiting_windows import WindowBatch
from sensebind.fusion.stream.windower import Windower

GAS = "gas"  # of which the space has no encoder
SPECS = {
    VISION: WindowSpec(VISION, 2 * HOP, HOP, lateness=200 * MS, frames=1),
    "rear": WindowSpec(VISION, SECOND, HOP, lateness=200 * MS, frames=3, sensor="rear"),
    AUDIO: WindowSpec(AUDIO, HOP // 2, HOP, lateness=200 * MS, max_gap=3 * SECOND),
    IMU: WindowSpec(IMU, 2 * SECOND, HOP, lateness=200 * MS, max_gap=3 * SECOND, max_rate=30),
    GAS: WindowSpec(GAS, SECOND, HOP, max_gap=3 * SECOND),
}


class FailingEngine(Engine):
    """An engine whose results are failures while `fails`."""

    fails = False

    def embed(self, windows):  # type: ignore[no-untyped-def]
        if not self.fails:
            return super().embed(windows)
        return [Failure(window.modality, "failure", "no device", window.sensor) for window in windows]


def make_pipeline(queue_size: int | None = 3, deadline: float | None = None) -> Pipeline:
    return Pipeline(SPECS, FailingEngine(ToySpace()), queue_size=queue_size, deadline=deadline)


def lines_of(pipeline: Pipeline) -> dict[str, list[Account]]:
    return {sensor: accounts(sensor_counts(own)) for sensor, own in pipeline.statistics().items()}


def assert_accounted(pipeline: Pipeline, *, at_end: bool = False) -> None:
    for sensor, lines in lines_of(pipeline).items():
        assert not unaccounted(lines), sensor
        assert all(min(line.total, line.waiting, *line.used.values(), *line.dropped.values()) >= 0 for line in lines)
        if at_end:
            assert not any(line.waiting for line in lines[1:]), (sensor, lines)


def made_sample(sensor: str, stamp: int, kind: str, seed: int) -> Sample:
    """A sample of a sensor; `kind`: sound, empty, nan, long (of a sound, longer than the largest gap)."""
    data: Frame | Sound | Reading
    if sensor in (VISION, "rear"):
        data = image(1, seed).data if kind != "empty" else Frame(np.empty(0, np.uint8), "rgb8", 0, 0, 0)
    elif sensor == AUDIO:
        noise = sound(1, seed).data.data  # type: ignore[union-attr]
        data = Sound(noise[:0] if kind == "empty" else noise, 100 if kind == "long" else 8000)
    else:
        values = motion(1, seed).data.values.copy()  # type: ignore[union-attr]
        data = Reading(values[:0] if kind == "empty" else values)
        if kind == "nan":
            values[0] = np.nan
    modality = VISION if sensor == "rear" else sensor
    return Sample(modality, stamp, data, sensor, sensor)


STEPS = st.one_of(
    st.sampled_from([0, 0, 1 * MS, 20 * MS, 66 * MS, 100 * MS, 300 * MS, HOP]),  # to the next sample
    st.sampled_from([-50 * MS, -400 * MS, -900 * MS, -2 * SECOND, -9 * SECOND, 2 * SECOND, 4 * SECOND, 60 * SECOND]),
)
SAMPLES = st.tuples(
    st.sampled_from(list(SPECS)),
    st.one_of(STEPS, st.sampled_from(["zero", "negative"])),
    st.sampled_from(["sound"] * 6 + ["empty", "nan", "long"]),
    st.integers(1, 12),  # how many, 20 ms apart
)
ACTIONS = st.sampled_from(
    ["process", "process", "quota", "submit", "complete", "skip", "flush", "restart", "fail", "mend", "interrupt"]
)


def perform(action: str, pipeline: Pipeline, submitted: list[WindowBatch]) -> Iterator[object]:
    """Drive the pipeline by one action. Yields after each step."""
    engine = pipeline.engine
    assert isinstance(engine, FailingEngine)
    if action in ("flush", "restart"):
        pipeline.flush() if action == "flush" else pipeline.restart()
    elif action in ("fail", "mend"):
        engine.fails = action == "fail"
    elif action == "submit":
        submitted.append(pipeline.dequeue())
    elif action == "skip":
        del submitted[:1]
    elif action == "complete":
        for batch in submitted:
            yield from pipeline.complete(batch, engine.embed(batch.windows))
        submitted.clear()
    else:  # a batch overtakes none that is submitted
        yield from perform("complete", pipeline, submitted)
        batch = pipeline.dequeue(dict.fromkeys((VISION, IMU, AUDIO, GAS), 1) if action == "quota" else None)
        outputs = pipeline.complete(batch, engine.embed(batch.windows))
        if action != "interrupt":
            yield from outputs
            return
        next(outputs, None)
        outputs.close()
    yield None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(SAMPLES, SAMPLES, SAMPLES, ACTIONS), max_size=60), st.booleans())
def test_the_identity_holds_at_each_moment_and_at_the_end(script: list[str | tuple], with_deadline: bool) -> None:  # type: ignore[type-arg]
    pipeline = make_pipeline(deadline=1e-9 if with_deadline else None)
    now, seed, submitted = dict.fromkeys(SPECS, START), 0, list[WindowBatch]()
    for entry in script:
        if isinstance(entry, str):
            for _ in perform(entry, pipeline, submitted):
                assert_accounted(pipeline)
            continue
        sensor, step, kind, count = entry
        for number in range(count):
            if isinstance(step, str):
                stamp = 0 if step == "zero" else -SECOND
            else:
                now[sensor] += step if not number else 20 * MS * bool(step)
                stamp = now[sensor]
            pipeline.accept(made_sample(sensor, stamp, kind, seed := seed + 1))
            assert_accounted(pipeline)
    for _ in perform("process", pipeline, submitted):
        assert_accounted(pipeline)
    finish(pipeline)
    assert_accounted(pipeline, at_end=True)


def dense_script(seed: int) -> list[str | tuple[str, int | str, str, int]]:
    """What a robot with faults does for a minute: long runs of samples, with jumps, repeated stamps and actions."""
    chance = np.random.default_rng(seed)
    actions = ["process", "quota", "submit", "complete", "skip", "flush", "restart", "fail", "mend", "interrupt"]
    script: list[str | tuple[str, int | str, str, int]] = []
    for _ in range(400):
        if chance.random() < 0.15:
            script.append(str(chance.choice(actions)))
        sensor, roll = str(chance.choice(list(SPECS))), chance.random()
        step: int | str = 50 * MS
        if roll < 0.15:
            step = int(chance.choice([-50, -400, -900, -1500, -4000, 2000, 3500, 60000])) * MS
        elif roll < 0.2:
            step = str(chance.choice(["zero", "negative"]))
        elif roll < 0.24:
            step = 0
        kind = str(chance.choice(["sound"] * 12 + ["empty", "nan", "long"]))
        script.append((sensor, step, kind, int(chance.integers(1, 30))))
    return script


def test_every_cause_occurs_and_the_identity_holds_with_each() -> None:
    found: set[str] = set()
    for seed in range(4):
        pipeline, now, number = make_pipeline(deadline=1e-9 if seed % 2 else None), dict.fromkeys(SPECS, START), 0
        submitted: list[WindowBatch] = []
        for entry in dense_script(seed):
            if isinstance(entry, str):
                for _ in perform(entry, pipeline, submitted):
                    assert_accounted(pipeline)
                continue
            sensor, step, kind, count = entry
            for index in range(count):
                stamp = {"zero": 0, "negative": -SECOND}.get(step) if isinstance(step, str) else None
                if stamp is None:
                    assert isinstance(step, int)
                    now[sensor] += step if not index else 20 * MS * bool(step)
                    stamp = now[sensor]
                pipeline.accept(made_sample(sensor, stamp, kind, number := number + 1))
            assert_accounted(pipeline)
        for _ in perform("process", pipeline, submitted):
            assert_accounted(pipeline)
        finish(pipeline)
        assert_accounted(pipeline, at_end=True)
        found |= {name for own in pipeline.statistics().values() for name, count in own.counts.items() if count}
    wanted = {"used", *SAMPLE_ENDS, *WINDOW_DROPS, "embedded", "fused", *EMBEDDED_DROPS}
    assert wanted - found == {"clock", "replaced"}, "these are below"


def test_the_sums_over_robots_are_accounted_for_and_none_hides_what_another_lacks() -> None:
    counts = []
    for seed in range(3):
        pipeline = make_pipeline()
        for number in range(40):
            pipeline.accept(made_sample(IMU, START + number * (1 + seed) * 20 * MS, "sound", number))
            pipeline.accept(
                made_sample(VISION, START + number * 66 * MS, "empty" if number % 4 == seed else "", number)
            )
        counts += [sensor_counts(own) for own in pipeline.statistics().values()]
    total = added(counts)
    assert total["samples"] == 3 * 80 and total["invalid"] == 3 * 10 and not unaccounted(accounts(total))
    for name in ("used", "invalid", "open_samples"):
        one_less = [{**counts[0], name: counts[0][name] - 1}, *counts[1:]]
        assert len(unaccounted(accounts(added(one_less)))) == 1
    assert added([]) == {} and added([{"used": 1}, {"late": 2, "used": 3}]) == {"used": 4, "late": 2}


def test_samples_of_a_wrong_clock_count_as_dropped_also_those_that_windows_used() -> None:
    windower = Windower(SPECS[IMU])
    for number in range(150):
        windower.accept(motion(START + number * 40 * MS, number))
    windower.accept(motion(START + 149 * 40 * MS, 1000))  # a burst
    windower.accept(motion(0, 1001))
    windower.accept(motion(START + 60 * SECOND, 1002))  # a jump to confirm
    assert windower.counts["used"] > 0 and windower.open_samples > 2
    windower.drop_for_clock()
    counts, ends = windower.counts, ("used", *SAMPLE_ENDS)
    assert windower.open_samples == 0 and counts["clock"] > 10
    assert counts["samples"] == sum(counts[name] for name in ends) == 154


def test_an_embedding_that_another_one_of_its_tick_replaces_is_counted() -> None:
    fuser, vector = TickFuser(), np.ones(4, np.float32) / 2
    embedding = Embedding(VISION, START - HOP, START, "toy@0", 1.0, vector)
    assert fuser.add(embedding) and fuser.add(embedding)
    assert fuser.replaced[VISION] == 1 and fuser.waiting[VISION] == 1
    list(fuser.fuse(START))
    assert fuser.fused[VISION] == 1 and not fuser.waiting
