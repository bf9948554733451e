"""Disagreement and fault are distinct: a scene seen by one modality only, and a faulty sensor."""

from __future__ import annotations

import pytest

from helpers.pipelines import push
from sensebind.evaluation.simulated_faults import SimulatedScene
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.space import Space
from sensebind.fusion.stream.drivers import finish
from sensebind.replay.session import Settings
from sensebind.simulation import scenario
from sensebind.simulation.messages import SIMULATION_START
from sensebind.simulation.sensor_faults import Fault

FAULT_ONSET = 24.0  # s


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.read(device="cpu").with_detector({"detectors": ["disagreement", "fault"]})


@pytest.fixture(scope="module")
def space(settings: Settings) -> Space:
    return settings.space()


def onsets(scene: SimulatedScene, settings: Settings, space: Space, fault: Fault | None = None) -> list[Event]:
    pipeline = settings.pipeline(space, settings.events(space))
    outputs = [output for sample in scene.samples(fault) for output in push(pipeline, sample)] + finish(pipeline)
    return [e for e in outputs if isinstance(e, Event) and e.phase is EventPhase.ONSET]


def test_heat_without_a_visible_cause_is_a_disagreement_of_the_thermal_camera(settings: Settings, space: Space) -> None:
    content = {"duration": 32.0, "events": [{"type": "hot_spot", "at": FAULT_ONSET, "for": 7}]}
    events = onsets(SimulatedScene(scenario.parse_scenario(content, "spot", 20)), settings, space)
    assert events and {e.kind for e in events} == {EventKind.DISAGREEMENT}
    for event in events:
        assert "thermal" in event.label and abs(event.onset - SIMULATION_START - FAULT_ONSET * 1e9) < 2e9
        assert [e.modality for e in event.evidence if e.supports] == ["thermal"]


def test_a_faulty_sensor_is_a_fault_and_not_a_disagreement(settings: Settings, space: Space) -> None:
    calm = SimulatedScene(scenario.parse_scenario({"duration": 30.0}, "calm", 20))
    for sensor, cause in (("thermal", "frozen"), ("vision", "dark")):
        events = onsets(calm, settings, space, Fault(sensor, cause, FAULT_ONSET, 30.0))
        assert [(e.kind, e.label) for e in events] == [(EventKind.FAULT, f"fault:{sensor}:{cause}")]
