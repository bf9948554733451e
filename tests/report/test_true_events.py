"""The truth in `summary.json`: which true events were detected, and by which modalities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.report_examples import START, event, report
from sensebind.fusion.core.events import Event, EventKind, Evidence
from sensebind.report import true_events, write_summary


def with_evidence(events: list[Event], *evidence: tuple[str, bool, bool]) -> list[Event]:
    """The same reports with other evidence: (modality, supports, coincides)."""
    own = tuple(
        Evidence(modality, 0.5, supports, START, START, coincides=coincides)
        for modality, supports, coincides in evidence
    )
    return [replace(e, evidence=own) for e in events]


def test_a_detected_event_has_its_onset_error_its_margin_and_the_modalities_that_name_it_or_coincide() -> None:
    events = event("cat", 2.3, 5.0, score=0.85)
    events[0] = with_evidence(events[:1], ("vision", True, False), ("depth", True, True), ("audio", False, True))[0]
    events[1] = with_evidence(events[1:2], ("vision", False, True), ("audio", True, False), ("imu", False, False))[0]
    (found,) = true_events([(2.0, 5.5, "cat")], events, START, {"cat": 0.6})
    assert found.detected and found.onset_error == pytest.approx(0.3) and found.margin == pytest.approx(0.25)
    assert found.modalities == (("vision", "names"), ("depth", "coincides"), ("audio", "names"))
    assert found.corroborated


def test_an_event_that_one_modality_alone_supports_or_that_none_names_is_not_corroborated() -> None:
    for evidence in ([("vision", True, False)], [("depth", True, True), ("imu", True, True)]):
        (found,) = true_events([(2.0, 5.0, "cat")], with_evidence(event("cat", 2, 5), *evidence), START, {"cat": 0.6})
        assert found.detected and not found.corroborated


@pytest.mark.parametrize(
    "events",
    [
        [],
        event("dog", 2, 5),  # another label
        event("cat", 0.5, 5),  # begins too early
        event("cat", 6, 8),  # begins after the end
        event("cat", 2, 5, EventKind.UNKNOWN),
    ],
)
def test_an_event_without_a_detection_of_its_label_at_its_time_is_missed(events: list[Event]) -> None:
    (found,) = true_events([(2.0, 5.5, "cat")], events, START, {"cat": 0.6})
    assert not found.detected and found.onset_error is found.margin is None and not found.modalities


def test_a_detection_counts_for_one_true_event() -> None:
    truth = [(2.0, 3.0, "cat"), (2.5, 6.0, "cat")]
    assert [t.detected for t in true_events(truth, event("cat", 2, 5), START)] == [True, False]


def test_the_summary_has_an_entry_for_each_true_event(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.json", report(onset_thresholds={"cat": 0.6}))
    truth = json.loads((tmp_path / "summary.json").read_text())["truth"]
    names = [{"modality": "vision", "role": "names"}]
    assert truth == [
        {"onset": 2.0, "offset": 5.5, "label": "cat", "detected": True, "onset_error_s": 0.0, "margin": 0.3,
         "modalities": names},
        {"onset": 8.0, "offset": 9.0, "label": "fire", "detected": False, "onset_error_s": None, "margin": None,
         "modalities": []},
    ]  # fmt: skip
