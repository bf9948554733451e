"""The benchmarks run, count what they say they count, and write down where. How fast things are is not asked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from toy import ToySpace

from sensebind.cli import main
from sensebind.fusion.benchmarks import events, figures, robot
from sensebind.fusion.benchmarks.stream import live
from sensebind.fusion.config import FREE, embedder_parameters, resolve
from sensebind.fusion.events.event import Event, Evidence, Kind, Phase
from sensebind.fusion.pipeline import Pipeline
from sensebind.fusion.samples import SECOND
from sensebind.fusion.simulation.patrol import Truth


def test_a_live_robot_loses_no_window_uncounted() -> None:
    senses = ("vision", "audio", "imu")
    values = resolve(embedder_parameters(senses), {f"{m}.hop": 0.2 for m in senses}, free=FREE)
    pipelines = [Pipeline.of(values, ToySpace(), queue_size=16) for _ in range(2)]
    assert live(pipelines, robot.sensors(senses), 1.0) > 0
    for pipeline in pipelines:
        for modality, statistics in pipeline.statistics.items():
            assert statistics.counts["samples"] == robot.RATES[modality]
        vision = pipeline.statistics["vision"].counts
        assert vision["embedded"] + vision["overload"] == vision["windows"] >= 3


def test_a_report_says_where_and_how_it_was_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / "figures.json"
    figures.write(target, figures.report("line", {"a": 1.0}))
    report = json.loads(target.read_text())
    assert report["figures"] == {"a": 1.0} and report["machine"]["cores"] >= 1
    assert "torch" in report["versions"] and report["command"].startswith("sensebind")


def test_quantiles_are_those_of_the_values() -> None:
    assert figures.quantiles(list(range(101)))["p95"] == 95
    assert figures.quantiles([])["count"] == 0


@pytest.mark.parametrize("name", ["line", "stream", "ros", "imagebind"])
def test_every_bench_tells_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", name, "--help"])
    assert ended.value.code == 0 and name in capsys.readouterr().out


def test_bench_events_tells_the_wait_from_the_players_clock_and_what_of_it_is_by_design() -> None:
    def event(label: str, tick: float, phase: Phase = Phase.ONSET, sense: str = "audio") -> Event:
        evidence = (Evidence(sense, 0.9, True, 0, 0),)
        stamp = round(tick * SECOND)
        return Event("", Kind.PROMPT, label, phase, stamp, 0, stamp, 0.9, "", evidence)

    clock = [(100.0 + i / 10, round(i / 10 * SECOND)) for i in range(300)]  # the player began at 100 s
    heard = [
        (104.0, event("dog", 3.5)),  # before the dog: false
        (106.9, event("dog", 6.5)),
        (107.4, event("dog", 7.0, Phase.UPDATE)),
        (112.2, event("bell", 11.0, sense="imu")),
    ]
    truth = [Truth(6.0, 9.0, "dog"), Truth(11.0, 12.0, "bell"), Truth(20.0, 22.0, "cat")]
    found = events.told(heard, clock, truth, 0)
    assert (found["events"], found["told"]) == (3, 2)
    assert found["live_s"]["audio"]["p50"] == pytest.approx(0.9) and found["live_s"]["imu"]["p50"] == pytest.approx(1.2)
    assert found["told_s"]["audio"]["p50"] == pytest.approx(0.5)
    assert found["added_s"]["imu"]["p50"] == pytest.approx(1.2)


def test_bench_events_asks_for_what_the_scenario_holds(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("detector: {ros__parameters: {prompts: {dog: [my dog]}}}\n")
    asked = yaml.safe_load(events.asking_for(file, {"dog", "bell", "somebody else's label"}))
    prompts = asked["detector"]["ros__parameters"]["prompts"]
    assert prompts["dog"] == ["my dog"] and "a bell" in prompts["bell"] and len(prompts) == 2
