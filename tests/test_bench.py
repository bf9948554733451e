"""The benchmarks run, count what they say they count, and write down where. How fast things are is not asked here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import ToySpace

from sensebind.cli import main
from sensebind.fusion.benchmarks import figures, robot
from sensebind.fusion.benchmarks.stream import live
from sensebind.fusion.config import FREE, embedder_parameters, resolve
from sensebind.fusion.pipeline import Pipeline


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
