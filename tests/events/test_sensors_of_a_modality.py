"""Several sensors of one modality: they never outvote another modality, in events and in the fused vector."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensebind.fusion.core.embeddings import Embedding, Vector, fuse, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.change import ChangeDetector
from sensebind.fusion.events.detector import Detector
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.evidence import best_of_modality
from sensebind.fusion.events.fault import FaultDetector
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.tracker import EventTracker

DIMENSION = 64
START = 1_700_000_000 * SECOND
HOP = SECOND // 2
RNG = np.random.default_rng(7)
USUAL, OTHER, CAT = (l2_normalize(RNG.standard_normal(DIMENSION)) for _ in range(3))
CAMERAS = ("front", "left", "rear", "right")


def embedding(
    sensor: str, modality: str, tick: int, vector: Vector, coverage: float = 1.0, **extra: object
) -> Embedding:
    noisy = l2_normalize(
        vector + 0.02 * np.random.default_rng(tick + crc32(sensor.encode()) % 97).standard_normal(DIMENSION)
    )
    return Embedding(
        modality, tick - HOP, tick, "toy", coverage, noisy, frame_id=f"{sensor}_frame", sensor=sensor, **extra
    )


def run(detector: Detector, ticks: Sequence[Sequence[Embedding]]) -> list[Event]:
    tracker = EventTracker([detector])
    found: list[Event] = []
    for present in ticks:
        found += tracker.step(present[0].tick, {e.source: e for e in present})
    return found + tracker.finish()


def cameras(count: int, changed: str, since: int, vector: Vector) -> list[list[Embedding]]:
    """Ticks of four cameras and a microphone; one of them has another vector from tick number `since` on."""
    result = []
    for number in range(count):
        tick = START + number * HOP
        sensors = {**dict.fromkeys(CAMERAS, "vision"), "mic": "audio"}
        result.append(
            [
                embedding(name, modality, tick, vector if name == changed and number >= since else USUAL)
                for name, modality in sensors.items()
            ]
        )
    return result


def text(phrases: Sequence[str]) -> Vector:
    others = np.random.default_rng(3).standard_normal((len(phrases), DIMENSION))
    return l2_normalize(np.stack([CAT if p == "a cat" else own for p, own in zip(phrases, others, strict=True)]))


def test_an_event_says_which_camera_saw_it() -> None:
    detector = PromptDetector({"cat": ["a cat"], "dog": ["a dog"]}, text, PromptOptions(calibration="none"))
    events = run(detector, cameras(40, "rear", 20, CAT))
    (onset,) = (e for e in events if e.phase is EventPhase.ONSET)
    assert onset.label == "cat"
    assert [(e.sensor, e.frame_id) for e in onset.evidence if e.supports] == [("rear", "rear_frame")]
    # The other cameras see no cat, and that does not count against the one that does.
    weights = {e.sensor: e.weight for e in onset.evidence if e.modality == "vision"}
    assert weights["rear"] > 0 and set(weights.values()) == {0.0, weights["rear"]}


def test_more_cameras_with_the_same_images_do_not_change_the_score() -> None:
    detector = PromptDetector({"cat": ["a cat"], "dog": ["a dog"]}, text, PromptOptions(calibration="none"))
    scores = []
    for names in (("front",), CAMERAS):
        state, found = detector.initial_state(), {}
        for number in range(30):
            tick = START + number * HOP
            vector = CAT if number >= 20 else USUAL
            present = {name: Embedding("vision", tick - HOP, tick, "toy", 1.0, vector, sensor=name) for name in names}
            state, found = detector.score(state, tick, present)
        scores.append(found["cat"].score)
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)


@pytest.mark.parametrize(
    ("detector", "kind"), [(NoveltyDetector(), EventKind.NOVELTY), (ChangeDetector(), EventKind.CHANGE)]
)
def test_novelty_and_change_name_the_sensor_that_changed(detector: Detector, kind: EventKind) -> None:
    onsets = [e for e in run(detector, cameras(120, "left", 80, OTHER)) if e.phase is EventPhase.ONSET]
    assert onsets and all(e.kind is kind for e in onsets)
    assert {own.sensor for e in onsets for own in e.evidence if own.supports} == {"left"}


def test_disagreement_compares_sensors_of_different_modalities_only() -> None:
    onsets = [e for e in run(DisagreementDetector(), cameras(120, "left", 80, OTHER)) if e.phase is EventPhase.ONSET]
    assert {e.label for e in onsets} == {"audio+vision"}
    assert {own.sensor for e in onsets for own in e.evidence} == {"left", "mic"}


def test_a_fault_names_its_sensor_and_an_unplugged_camera_is_found_beside_others() -> None:
    ticks = cameras(40, "", 0, USUAL)
    for number, present in enumerate(ticks):
        if number >= 20:
            present[:] = [e for e in present if e.sensor != "right"]
            tick = present[0].tick
            present[0] = embedding("front", "vision", tick, USUAL, symptoms=("dark",))
    labels = {e.label for e in run(FaultDetector(), ticks) if e.phase is EventPhase.ONSET}
    assert labels == {"fault:front:dark", "fault:right:unplugged"}


coverages = st.floats(0.01, 1.0)


@given(st.lists(coverages, min_size=1, max_size=5), st.lists(coverages, min_size=1, max_size=5))
def test_a_modality_counts_by_its_weight_however_many_sensors_it_has(eyes: list[float], ears: list[float]) -> None:
    sensors = [(f"eye{i}", "vision", c) for i, c in enumerate(eyes)] + [
        (f"ear{i}", "audio", c) for i, c in enumerate(ears)
    ]
    fused = fuse([embedding(name, modality, START, USUAL, c) for name, modality, c in sensors], {"vision": 2.0})
    share = dict(zip(fused.sources, fused.weights, strict=True))
    assert sum(share.values()) == pytest.approx(1.0)
    seen = sum(w for name, w in share.items() if name.startswith("eye"))
    assert seen / (1 - seen) == pytest.approx(2.0 * max(eyes) / max(ears))
    for name, modality, own in sensors:
        total = sum(c for _, m, c in sensors if m == modality)
        of_modality = seen if modality == "vision" else 1 - seen
        assert share[name] == pytest.approx(of_modality * own / total)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_for_each_label_the_best_sensor_of_each_modality_counts(rows: list[tuple[str, float, float]]) -> None:
    modalities, scores = [m for m, *_ in rows], np.array([row[1:] for row in rows])
    counts = best_of_modality(modalities, scores)
    for label in range(2):
        for modality in set(modalities):
            own = [at for at, m in enumerate(modalities) if m == modality]
            chosen = [at for at in own if counts[at, label]]
            assert len(chosen) == 1 and scores[chosen[0], label] == scores[own, label].max()
