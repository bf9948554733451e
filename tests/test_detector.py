"""The contract of a detector: what is declared is all that others ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_events import CONCEPTS, PROMPTS, SPACE, ScriptedModalities, embed_text, random_ticks

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event, EventKind, Score
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.events.change import ChangeDetector
from sensebind.fusion.events.detector import Detector, healthy_modalities, unfused_modalities
from sensebind.fusion.events.disagreement import DisagreementDetector
from sensebind.fusion.events.evidence import distance_from_mean
from sensebind.fusion.events.fault import FaultDetector
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.events.novelty import NoveltyDetector
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.tracker import EventTracker


class Forwarding:
    """Another detector, of which only the declared members can be reached."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.kind = detector.kind

    @property
    def lifecycle_options(self) -> LifecycleOptions:
        return self._detector.lifecycle_options

    def has_label(self, label: str) -> bool:
        return self._detector.has_label(label)

    def initial_state(self) -> Any:
        return self._detector.initial_state()

    def migrate_state(self, old: Any, state: Any) -> Any:
        return self._detector.migrate_state(old._detector, state)

    def score(self, state: Any, tick: int, embeddings: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        return self._detector.score(state, tick, embeddings)


def made() -> list[Detector]:
    prompts = PromptDetector(PROMPTS, embed_text)
    return [prompts, NoveltyDetector(), DisagreementDetector(), ChangeDetector(), FaultDetector()]


def test_the_tracker_asks_for_nothing_that_is_not_declared() -> None:
    def run(wrap: Any) -> list[Event]:
        line, events = EventTracker([wrap(d) for d in made()], SPACE), []
        for number, (tick, present) in enumerate(random_ticks(3)):
            late = dict([present.popitem()]) if number % 20 == 7 and len(present) > 1 else {}
            events += line.step(tick, present) + line.add_late_embeddings(tick, late)
            if number == 150:
                line.replace_detectors([wrap(d) for d in made()])
        return events + line.finish()

    events = run(lambda detector: detector)
    assert events and events == run(Forwarding)


def test_a_detector_without_a_score_cannot_be_made() -> None:
    class Mute(Detector):
        kind = EventKind.FAULT

        def has_label(self, label: str) -> bool:
            return False

    with pytest.raises(TypeError, match="score"):
        Mute()  # type: ignore[abstract]


def test_a_detector_has_its_default_options_unless_others_are_given() -> None:
    for detector in made():
        assert detector.options == detector.default_options and detector.lifecycle_options is detector.options.life
    longer = replace(FaultDetector.default_options, timeout=9.0)
    assert FaultDetector(longer).options is longer
    assert {detector.kind for detector in made()} == set(EventKind) - {EventKind.UNKNOWN}


def test_modalities_of_a_tick_leave_out_what_is_fused_and_what_is_faulty() -> None:
    world = ScriptedModalities()
    present = {m: world.perceive(m, {"room": 1.0}) for m in ("vision", FUSED, "audio")}
    present["depth"] = replace(present["vision"], modality="depth", symptoms=(SYMPTOMS[0],))
    assert unfused_modalities(present) == ["audio", "depth", "vision"]
    assert healthy_modalities(present) == ["audio", "vision"]


def test_distance_from_a_mean_does_not_depend_on_its_length() -> None:
    dog, car = CONCEPTS["dog"], CONCEPTS["car"]
    assert distance_from_mean(0.1 * dog, dog) == pytest.approx(0.0, abs=1e-6)
    assert distance_from_mean(3.0 * dog, -dog) == pytest.approx(2.0, abs=1e-6)
    assert distance_from_mean(dog + car, dog) == pytest.approx(1 - np.sqrt(0.5), abs=1e-6)
    assert distance_from_mean(np.zeros_like(dog), dog) == 1.0
