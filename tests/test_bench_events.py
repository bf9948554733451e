"""`sensebind bench events`: what it makes of what it heard."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sensebind.benchmarks import events
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence
from sensebind.fusion.core.samples import SECOND
from sensebind.simulation.recorder import GroundTruthEvent


def test_bench_events_tells_the_wait_from_the_players_clock_and_what_of_it_is_by_design() -> None:
    def event(label: str, tick: float, phase: EventPhase = EventPhase.ONSET, sense: str = "audio") -> Event:
        evidence = (Evidence(sense, 0.9, True, 0, 0),)
        stamp = round(tick * SECOND)
        return Event("", EventKind.PROMPT, label, phase, stamp, 0, stamp, 0.9, "", evidence)

    clock = [(100.0 + i / 10, round(i / 10 * SECOND)) for i in range(300)]  # the player began at 100 s
    heard = [
        (104.0, event("dog", 3.5)),  # before the dog: false
        (106.9, event("dog", 6.5)),
        (107.4, event("dog", 7.0, EventPhase.UPDATE)),
        (112.2, event("bell", 11.0, sense="imu")),
    ]
    truth = [
        GroundTruthEvent(6.0, 9.0, "dog"),
        GroundTruthEvent(11.0, 12.0, "bell"),
        GroundTruthEvent(20.0, 22.0, "cat"),
    ]
    found = events.combine_runs(events.onset_delays(heard, clock, truth, 0))
    assert (found["events"], found["told"]) == (3, 2)
    assert found["live_s"]["audio"]["p50"] == pytest.approx(0.9) and found["live_s"]["imu"]["p50"] == pytest.approx(1.2)
    assert found["told_s"]["audio"]["p50"] == pytest.approx(0.5)
    assert found["added_s"]["imu"]["p50"] == pytest.approx(1.2)


def test_bench_events_asks_for_what_the_scenario_holds(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("detector: {ros__parameters: {prompts: {dog: [my dog]}}}\n")
    asked = yaml.safe_load(events.parameters_with_prompts(file, {"dog", "bell", "somebody else's label"}))
    prompts = asked["detector"]["ros__parameters"]["prompts"]
    assert prompts["dog"] == ["my dog"] and "a bell" in prompts["bell"] and len(prompts) == 2
