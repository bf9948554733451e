"""`sensebind bench events`: delays computed from received events, and the prompts of the detector."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sensebind.benchmarks import events
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.core.samples import SECOND
from sensebind.simulation.recorder import GroundTruthEvent


def test_the_delay_counts_from_the_players_clock_and_is_split_by_cause() -> None:
    def event(label: str, tick: float, phase: EventPhase = EventPhase.ONSET, modality: str = "audio") -> Event:
        evidence = (Evidence(modality, 0.9, True, 0, 0),)
        stamp = round(tick * SECOND)
        return Event("", EventKind.PROMPT, label, phase, stamp, 0, stamp, 0.9, "", evidence)

    clock = [(100.0 + i / 10, round(i / 10 * SECOND)) for i in range(300)]  # the player started at 100 s
    received = [
        (104.0, event("dog", 3.5)),  # before the dog: a false alarm
        (106.9, event("dog", 6.5)),
        (107.4, event("dog", 7.0, EventPhase.UPDATE)),
        (112.2, event("bell", 11.0, modality="imu")),
    ]
    truth = [
        GroundTruthEvent(6.0, 9.0, "dog"),
        GroundTruthEvent(11.0, 12.0, "bell"),
        GroundTruthEvent(20.0, 22.0, "cat"),
    ]
    found = events.combine_runs(events.onset_delays(received, clock, truth, 0))
    assert (found["events"], found["reported"]) == (3, 2)
    assert found["live_s"]["audio"]["p50"] == pytest.approx(0.9) and found["live_s"]["imu"]["p50"] == pytest.approx(1.2)
    assert found["design_delay_s"]["audio"]["p50"] == pytest.approx(0.5)
    assert found["added_s"]["imu"]["p50"] == pytest.approx(1.2)


def test_prompts_for_labels_of_the_scenario_are_added(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("detector: {ros__parameters: {prompts: {dog: [my dog]}}}\n")
    written = yaml.safe_load(events.parameters_with_prompts(file, {"dog", "bell", "somebody else's label"}))
    prompts = written["detector"]["ros__parameters"]["prompts"]
    assert prompts["dog"] == ["my dog"] and "a bell" in prompts["bell"] and len(prompts) == 2
