"""The memory of samples and windows stays within its shares, for any stream, and what is dropped is counted."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import MS, SPECS, START
from helpers.toy_space import ToySpace
from sensebind.fusion.config import build
from sensebind.fusion.config.parameters import embedder_parameters
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.core.windows import WindowSpec
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.stream.drivers import finish, process
from sensebind.fusion.stream.memory.budget import MemoryBudget, divide_memory
from sensebind.fusion.stream.memory.sizes import MEGABYTE, resident_bytes
from sensebind.fusion.stream.pipeline import Pipeline
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.fusion.stream.statistics import SAMPLE_DROPS, SAMPLES_WITHOUT_WINDOW, WINDOW_DROPS
from sensebind.fusion.stream.windower import Windower

KB = 1000
SHARES = {VISION: 60 * KB, AUDIO: 40 * KB, IMU: 30 * KB}
CACHE = 30 * KB


def image(stamp: int, size: int, frame_id: str = "camera") -> Sample:
    """A grey image of `size` bytes."""
    return Sample(VISION, stamp, Frame(np.full(size, 99, np.uint8), "mono8", 1, size, size), frame_id)


def sample(sensor: str, stamp: int, size: int) -> Sample:
    if sensor == VISION:
        return image(stamp, size)
    if sensor == AUDIO:
        return Sample(AUDIO, stamp, Sound(np.zeros((size // 2, 1), np.int16), 8000))
    return Sample(IMU, stamp, Reading(np.full(max(6, size // 8), 9.81)))


def array_of(given: Sample) -> np.ndarray:
    return given.data.values if isinstance(given.data, Reading) else given.data.data


steps = st.tuples(
    st.sampled_from([VISION, VISION, AUDIO, IMU, "dequeue", "complete"]),
    st.sampled_from([1, 5, 20, 100, 250, 700, -300, 30_000]),  # ms from the newest stamp of the sensor
    st.integers(100, 40 * KB),  # bytes
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=150))
def test_what_is_held_never_exceeds_the_shares_and_every_window_is_counted(stream) -> None:
    """Measured from outside: the bytes of all arrays that something still refers to."""
    engine = Engine(ToySpace())
    engine.limit_cache(CACHE)
    pipeline = Pipeline(SPECS, engine, queue_size=16, memory=MemoryBudget(shares=SHARES))
    newest, given_arrays, batches = dict.fromkeys(SPECS, START), [], []
    for action, milliseconds, size in stream:
        if action == "dequeue" and len(batches) < 2:
            batches.append(pipeline.dequeue({VISION: 2, AUDIO: 2, IMU: 2}))
        elif action == "complete" and batches:
            batch = batches.pop(0)
            list(pipeline.complete(batch, engine.embed(batch.windows)))
            del batch
        elif action in SPECS:
            stamp = newest[action] + milliseconds * MS
            newest[action] = max(newest[action], stamp)
            new = sample(action, stamp, size)
            given_arrays.append(weakref.ref(array_of(new)))
            pipeline.accept(new)
            del new
        for sensor, held in pipeline.memory().items():
            assert held.samples <= SHARES[sensor] and held.windows <= SHARES[sensor]
        alive = sum(array.nbytes for found in given_arrays if (array := found()) is not None)
        assert alive <= 2 * sum(SHARES.values()) + CACHE
    while batches:
        batch = batches.pop(0)
        list(pipeline.complete(batch, engine.embed(batch.windows)))
    finish(pipeline)
    for statistics in pipeline.statistics().values():
        counts = statistics.counts
        assert counts["windows"] == counts["embedded"] + sum(counts[cause] for cause in WINDOW_DROPS)
    assert all(held.windows == 0 for held in pipeline.memory().values()), "all batches are complete"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 20, 400, 30_000]), st.integers(6, 1500)), max_size=150))
def test_every_sample_is_in_a_window_or_counted_by_its_cause(stream) -> None:
    windower = Windower(WindowSpec(IMU, SECOND // 2, SECOND // 2, min_coverage=0), max_bytes=40 * KB)
    used, stamp = 0, START
    for milliseconds, numbers in stream:
        stamp += milliseconds * MS
        new = Sample(IMU, stamp, Reading(np.full(numbers, float(len(used_values(stamp, numbers))))))
        used += sum(len(window.samples) for window in windower.accept(new))
        assert windower.held_bytes <= 40 * KB
    used += sum(len(window.samples) for window in windower.flush())
    counts = windower.counts
    dropped = sum(counts[cause] for cause in (*SAMPLE_DROPS, *SAMPLES_WITHOUT_WINDOW) if cause != "late")
    assert len(stream) == counts["samples"] == used + dropped + windower.open_samples


def used_values(stamp: int, numbers: int) -> range:
    """Values that differ, so that readings of one stamp are a burst."""
    return range((stamp // MS + numbers) % 97)


def test_a_sample_that_is_too_large_is_dropped_and_the_limit_that_it_needs_is_known() -> None:
    specs = {VISION: SPECS[VISION], IMU: SPECS[IMU]}
    budget = divide_memory(900 * MEGABYTE, 500 * MEGABYTE, specs)
    size = 40 * MEGABYTE
    windower = Windower(SPECS[VISION], max_bytes=budget.share(VISION))
    windower.accept(image(START, size))
    assert windower.counts["overflow"] == 1 and windower.largest_refused > size
    needed = budget.limit_for(VISION, windower.largest_refused)
    for limit, refused in ((needed, 0), (round(0.99 * needed), 1)):
        windower = Windower(SPECS[VISION], max_bytes=divide_memory(limit, 500 * MEGABYTE, specs).share(VISION))
        windower.accept(image(START, size))
        assert windower.counts["overflow"] == refused


@pytest.mark.parametrize("robots", [1, 4])
def test_a_limit_that_is_too_small_is_an_error_with_the_least_one(robots: int) -> None:
    specs = {f"camera{number}": replace(SPECS[VISION], sensor=f"camera{number}") for number in range(8)}
    with pytest.raises(ConfigError) as caught:
        divide_memory(520 * MEGABYTE, 500 * MEGABYTE, specs, robots=robots)
    text = str(caught.value)
    assert text.startswith("memory_limit_mb is 520 MB, and the least is ") and "\n" not in text
    least = int(text.partition("the least is ")[2].partition(" MB")[0])
    budget = divide_memory(least * MEGABYTE, 500 * MEGABYTE, specs, robots=robots)
    held = robots * sum(2 * budget.share(sensor) for sensor in specs)
    images = 8 * robots * budget.transport
    assert 500 * MEGABYTE + held + budget.cache + images < least * MEGABYTE
    with pytest.raises(ConfigError):
        divide_memory((least - 1) * MEGABYTE, 500 * MEGABYTE, specs, robots=robots)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_part_of_a_worker_that_is_too_small_is_an_error_with_the_least_limit_of_all_processes(workers: int) -> None:
    specs = {VISION: SPECS[VISION], IMU: SPECS[IMU]}
    used, used_by_worker = 500 * MEGABYTE, 300 * MEGABYTE

    def budget_of_worker(limit_mb: int) -> MemoryBudget:
        part = divide_memory(limit_mb * MEGABYTE, used, specs, robots=0).part_of(workers)
        return divide_memory(part.limit, used_by_worker, specs, robots=2, part=part)

    with pytest.raises(ConfigError, match=r"leaves \d+ MB to a worker, and the least is") as caught:
        budget_of_worker(700)
    least = int(str(caught.value).partition("Set memory_limit_mb to at least ")[2].partition(",")[0])
    budget = budget_of_worker(least)
    assert used + workers * budget.limit <= least * MEGABYTE
    with pytest.raises(ConfigError):
        budget_of_worker(least - 1)
    size = 40 * MEGABYTE
    needed = budget.limit_for(VISION, size)  # of all processes
    assert budget_of_worker(needed // MEGABYTE + 1).limit_for(VISION, size) == needed
    assert budget_of_worker(needed // MEGABYTE + 1).share(VISION) >= 3 * size > budget.share(VISION)
    assert divide_memory(0, used, specs, robots=0).part_of(workers).limit == 0, "no limit has no parts"


def test_the_limit_of_the_parameters_is_divided_once_the_space_is_loaded() -> None:
    values = {p.name: p.default for p in embedder_parameters()} | {"modalities": [VISION, AUDIO, IMU]}
    assert build.memory_budget(values, ToySpace()) == MemoryBudget(), "0: no limit"
    with pytest.raises(ConfigError, match="memory_limit_mb is 1 MB"):
        build.memory_budget(values | {"memory_limit_mb": 1}, ToySpace())
    limit = resident_bytes() // MEGABYTE + 1000
    budget = build.memory_budget(values | {"memory_limit_mb": limit}, ToySpace())
    assert budget.share(VISION) > budget.share(AUDIO) > budget.share(IMU) > MEGABYTE
    pipeline = build.make_pipeline(values, ToySpace(), live=True, memory=budget)
    assert pipeline.memory()[VISION].share == budget.share(VISION)


def test_the_cache_of_the_engine_is_bounded_in_bytes() -> None:
    """A camera driver with a new `frame_id` in each message made it grow to 256 images."""
    engine, arrays = Engine(ToySpace()), []
    engine.limit_cache(10 * MEGABYTE)
    pipeline = Pipeline({VISION: SPECS[VISION]}, engine)
    for number in range(40):
        new = image(START + number * SECOND // 2, MEGABYTE, f"frame{number}")
        arrays.append(weakref.ref(new.data.data))
        pipeline.accept(new)
        process(pipeline)
    del new
    finish(pipeline)
    assert engine.cached_bytes <= 10 * MEGABYTE
    assert sum(array() is not None for array in arrays) <= 12, "those of the cache, and of the newest window"


class StalledSpace(ToySpace):
    """A space whose encoders give no result until `release`."""

    def __init__(self) -> None:
        super().__init__([VISION])
        self.release = threading.Event()

    def embed(self, modality: str, batch):
        self.release.wait(60)
        return super().embed(modality, batch)


def peak_growth(memory: MemoryBudget) -> tuple[float, Pipeline]:
    """How many MB a flood of images of 11 MB with a stalled space needs at most."""
    space = StalledSpace()
    engine = Engine(space)
    engine.limit_cache(memory.cache)
    pipeline = Pipeline({VISION: SPECS[VISION]}, engine, queue_size=16, memory=memory)
    scheduler = Scheduler(engine)
    scheduler.add(pipeline)
    before = peak = resident_bytes()
    for number in range(100):
        pixels = np.full(2560 * 1440 * 3, number, np.uint8)
        frame = Frame(pixels, "rgb8", 1440, 2560, 2560 * 3)
        if pipeline.accept(Sample(VISION, START + number * SECOND // 4, frame)):
            scheduler.notify()
        peak = max(peak, resident_bytes())
    space.release.set()
    scheduler.close()
    return (peak - before) / MEGABYTE, pipeline


def test_a_flood_of_large_images_stays_within_the_limit_and_is_counted() -> None:
    resident = resident_bytes()
    budget = divide_memory(resident + 200 * MEGABYTE, resident, {VISION: SPECS[VISION]})
    limited, pipeline = peak_growth(budget)
    assert limited < 200
    counts = pipeline.statistics()[VISION].counts
    assert counts["overload"] > 30 and counts["overflow"] == 0
    assert counts["windows"] == counts["embedded"] + counts["overload"] + counts["expired"] and counts["embedded"] > 2
    unlimited, _ = peak_growth(MemoryBudget())
    assert unlimited > limited + 50, "the flood needs more without a limit"
