"""The demo: its result, its exit status, and the detection of its events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.report_examples import event, report
from sensebind.cli import main
from sensebind.commands import demo
from sensebind.simulation.messages import SIMULATION_START

TRUTH = [(2.0, 5.5, "cat"), (8.0, 9.0, "fire")]


def test_the_exit_status_is_1_if_a_true_event_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    known = {"truth": TRUTH, "onset_thresholds": {"cat": 0.6, "fire": 0.6}}
    missed = demo.print_result(report(**known))
    assert demo.exit_status(missed) == 1
    text = capsys.readouterr().out
    assert "missed" in text and "1 of 2 detected" in text and "smallest margin 0.30 (required: 0.1)" in text
    found = demo.print_result(report(**known, events=[*event("cat", 2, 5), *event("fire", 8.25, 9.5, score=0.75)]))
    assert demo.exit_status(found) == 0
    text = capsys.readouterr().out
    assert "fire       detected, onset +0.25 s, margin 0.15, names: vision" in text and "false alarms" not in text
    assert "2 of 2 detected, 0 of them by two modalities or more; smallest margin 0.15" in text


def test_an_event_without_a_true_event_of_its_label_is_a_false_alarm(capsys: pytest.CaptureFixture[str]) -> None:
    demo.print_result(report(truth=TRUTH, events=[*event("cat", 2, 5), *event("cat", 6.5, 8), *event("dog", 0.5, 2)]))
    assert "false alarms: cat at 6.5 s, dog at 0.5 s" in capsys.readouterr().out


def test_the_offline_demo_returns_the_exit_status_and_writes_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short.yaml"
    short.write_text("duration: 3\nevents: [{type: picture, photograph: chelsea.png, label: cat, at: 1.5, for: 1.5}]\n")
    monkeypatch.setattr(demo, "SCENARIO", str(short))
    status = main(["demo", "--offline", "--out", str(tmp_path / "out")])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (entry,) = summary["truth"]
    assert entry["label"] == "cat" and status == int(not entry["detected"])
    assert (tmp_path / "out" / "report.html").is_file() and summary["start_ns"] == SIMULATION_START


@pytest.mark.slow  # ten patrols: about ten minutes
def test_every_event_of_ten_patrols_is_named_by_a_modality_and_supported_by_another(tmp_path: Path) -> None:
    assert main(["demo", "--seeds", "10", "--out", str(tmp_path)]) == 0
    for seed in range(10):
        summary = json.loads((tmp_path / f"seed-{seed}" / "summary.json").read_text())
        assert [item["label"] for item in summary["truth"]] == ["person", "cat", "coffee", "rocket"]
        for item in summary["truth"]:
            roles = [own["role"] for own in item["modalities"]]
            assert "names" in roles and len(roles) >= 2, (seed, item)
            assert item["margin"] >= demo.REQUIRED_MARGIN and abs(item["onset_error_s"]) <= 0.5, (seed, item)
