"""The contract of a detector: other code uses only its declared members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.scripted_modalities import CONCEPTS, PROMPTS, SPACE, ScriptedModalities, embed_text, random_ticks
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, Score
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.events.change import ChangeDetector
from sensebind.fusion.events.detector import Detector, healthy_sensors, unfused_sensors
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.evidence import distance_from_mean
from sensebind.fusion.events.fault import FaultDetector
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.tracker import EventTracker


class Forwarding:
    """Wraps a detector and forwards only the declared members."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.kind = detector.kind

    @property
    def lifecycle_options(self) -> LifecycleOptions:
        return self._detector.lifecycle_options

    def lifecycle_options_for(self, label: str) -> LifecycleOptions:
        return self._detector.lifecycle_options_for(label)

    def kind_of(self, label: str) -> EventKind:
        return self._detector.kind_of(label)

    def has_label(self, label: str) -> bool:
        return self._detector.has_label(label)

    def initial_state(self) -> Any:
        return self._detector.initial_state()

    def migrate_state(self, old: Any, state: Any) -> Any:
        return self._detector.migrate_state(old._detector, state)

    def score(self, state: Any, tick: int, embeddings: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        return self._detector.score(state, tick, embeddings)


def all_detectors() -> list[Detector]:
    prompts = PromptDetector(PROMPTS, embed_text)
    return [prompts, NoveltyDetector(), DisagreementDetector(), ChangeDetector(), FaultDetector()]


def test_the_tracker_uses_only_declared_members() -> None:
    def run(wrap: Any) -> list[Event]:
        tracker, events = EventTracker([wrap(d) for d in all_detectors()], SPACE), []
        for number, (tick, present) in enumerate(random_ticks(3)):
            late = dict([present.popitem()]) if number % 20 == 7 and len(present) > 1 else {}
            events += tracker.step(tick, present) + tracker.add_late_embeddings(tick, late)
            if number == 150:
                tracker.replace_detectors([wrap(d) for d in all_detectors()])
        return events + tracker.finish()

    events = run(lambda detector: detector)
    assert events and events == run(Forwarding)


def test_a_detector_without_a_score_method_cannot_be_constructed() -> None:
    class WithoutScore(Detector):
        kind = EventKind.FAULT

        def has_label(self, label: str) -> bool:
            return False

    with pytest.raises(TypeError, match="score"):
        WithoutScore()  # type: ignore[abstract]


def test_a_detector_has_its_default_options_unless_others_are_given() -> None:
    for detector in all_detectors():
        assert detector.options == detector.default_options and detector.lifecycle_options is detector.options.lifecycle
    longer = replace(FaultDetector.default_options, timeout=9.0)
    assert FaultDetector(longer).options is longer
    assert {detector.kind for detector in all_detectors()} == set(EventKind) - {EventKind.UNKNOWN}


def test_fused_and_faulty_modalities_of_a_tick_are_left_out() -> None:
    world = ScriptedModalities()
    present = {m: world.perceive(m, {"room": 1.0}) for m in ("vision", FUSED, "audio")}
    present["depth"] = replace(present["vision"], modality="depth", symptoms=(SYMPTOMS[0],))
    assert unfused_sensors(present) == ["audio", "depth", "vision"]
    assert healthy_sensors(present) == ["audio", "vision"]


def test_distance_from_a_mean_does_not_depend_on_the_length_of_the_mean() -> None:
    dog, car = CONCEPTS["dog"], CONCEPTS["car"]
    assert distance_from_mean(0.1 * dog, dog) == pytest.approx(0.0, abs=1e-6)
    assert distance_from_mean(3.0 * dog, -dog) == pytest.approx(2.0, abs=1e-6)
    assert distance_from_mean(dog + car, dog) == pytest.approx(1 - np.sqrt(0.5), abs=1e-6)
    assert distance_from_mean(np.zeros_like(dog), dog) == 1.0
