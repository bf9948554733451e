"""Events do not depend on how samples arrive: late within the lateness, in any chunks, or all at once from a bag."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pipelines import MS, SPECS, START, motion, push, sound
from helpers.toy_space import ToySpace
from sensebind.fusion.core.events import Event, EventKind
from sensebind.fusion.core.samples import AUDIO, IMU, SECOND, VISION, Frame, Sample
from sensebind.fusion.events.change import ChangeDetector, ChangeOptions
from sensebind.fusion.events.disagreement import DisagreementDetector, DisagreementOptions
from sensebind.fusion.events.fault import FaultDetector, FaultOptions
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.stream.drivers import finish, process
from sensebind.fusion.stream.pipeline import Output, Pipeline

SECONDS = 45
SPACE = ToySpace()


def scene_image(stamp: int, number: int) -> Sample:
    """An image of a scene; from 22 s to 34 s of another scene, which only vision perceives."""
    other = 22 * SECOND <= stamp - START < 34 * SECOND
    base = np.linspace(40, 200, 16 * 12 * 3).reshape(12, 16, 3)
    noise = np.random.default_rng(number).normal(0, 4, base.shape)
    pixels = np.clip((base[::-1, ::-1] if other else base) + noise, 0, 255).astype(np.uint8)
    return Sample(VISION, stamp, Frame(pixels.reshape(-1), "rgb8", 12, 16, 48), "camera")


def stream() -> list[Sample]:
    """The samples of three sensors in order of arrival. From 38 s on, the IMU repeats one reading."""
    samples = [scene_image(START + 13 * MS + i * 125 * MS, i) for i in range(SECONDS * 8)]
    samples += [sound(START + i * 100 * MS, i) for i in range(SECONDS * 10)]
    samples += [motion(START + 7 * MS + i * 40 * MS, min(i, 38 * 25)) for i in range(SECONDS * 25)]
    return sorted(samples, key=lambda s: s.end)


def embed_text(texts: Sequence[str]) -> np.ndarray:
    """A random unit vector for each phrase; for "the other scene" the vector of an image of it."""
    vectors = np.stack([np.random.default_rng(zlib.crc32(t.encode())).standard_normal(SPACE.dimension) for t in texts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if "the other scene" in texts:
        window = Pipeline(SPECS, Engine(SPACE))
        vectors[list(texts).index("the other scene")] = next(
            output for i in range(9) for output in push(window, scene_image(START + 25 * SECOND + i * 125 * MS, i))
        ).vector
    return vectors


PROMPTS = PromptDetector({"other": ["the other scene"]}, embed_text, PromptOptions(threshold=2.0, baseline_weight=0.0))


def make_pipeline() -> Pipeline:
    fault_options = FaultOptions(expected=(VISION, AUDIO, IMU, "thermal"))
    # One window in each batch: rounding depends on the size of the batch.
    detectors = [
        PROMPTS, NoveltyDetector(), DisagreementDetector(DisagreementOptions(threshold=3.0)),
        ChangeDetector(ChangeOptions(false_alarms_per_hour=60.0)), FaultDetector(fault_options),
    ]  # fmt: skip
    return Pipeline(SPECS, Engine(SPACE, batch_size=1), tracker=EventTracker(detectors, SPACE.id))


def events_of(outputs: Sequence[Output]) -> list[Event]:
    return [output for output in outputs if isinstance(output, Event)]


@pytest.fixture(scope="module")
def offline() -> list[Output]:
    """The outputs when all samples are accepted before the first window is embedded, as in a fast replay."""
    pipeline = make_pipeline()
    for sample in stream():
        pipeline.accept(sample)
    return process(pipeline) + finish(pipeline)


def test_the_stream_has_events_of_every_kind(offline: list[Output]) -> None:
    events = [e for e in offline if isinstance(e, Event)]
    assert {e.kind for e in events} == set(EventKind) - {EventKind.UNKNOWN}
    assert {e.label for e in events if e.kind is EventKind.FAULT} == {"fault:imu:frozen", "fault:thermal:unplugged"}


@settings(max_examples=4, deadline=None)
@given(
    random=st.randoms(use_true_random=False),
    lag=st.integers(0, 150),
    chunks=st.lists(st.integers(1, 400), min_size=1, max_size=4),
)
def test_events_do_not_depend_on_how_samples_arrive(offline, random, lag: int, chunks: list[int]) -> None:
    pipeline, outputs = make_pipeline(), list[Output]()
    waiting = sorted(stream(), key=lambda s: s.end + random.randint(0, lag * MS))
    while waiting:
        for size in chunks:
            for sample in waiting[:size]:
                pipeline.accept(sample)
            del waiting[:size]
            outputs += process(pipeline)
    assert events_of(outputs + finish(pipeline)) == events_of(offline)


def test_samples_one_by_one_give_the_same_events_and_none_before_its_tick(offline: list[Output]) -> None:
    pipeline, outputs, newest = make_pipeline(), list[Output](), 0
    for sample in stream():
        newest = max(newest, sample.end)
        found = push(pipeline, sample)
        assert all(o.tick <= newest for o in found if isinstance(o, Event))
        outputs += found
    assert events_of(outputs + finish(pipeline)) == events_of(offline)
