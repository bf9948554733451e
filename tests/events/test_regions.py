"""Evidence has the region and the bearing of the object that a label means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.scripted_modalities import DOG, HOP, PROMPTS, ScriptedModalities, embed_text
from sensebind.fusion.core.embeddings import DetectedObject
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.tracker import EventTracker

MEANT = {"a dog": "Dog", "a puppy": "Dog", "a car": "Vehicle"}
FIRST, SECOND_DOG = DetectedObject("Cat", 0.9, (1, 2, 3, 4), 0.1), DetectedObject("Dog", 0.6, (5, 6, 7, 8), -0.2)


def detector(meant: dict[str, str]) -> PromptDetector:
    return PromptDetector(
        PROMPTS,
        embed_text,
        PromptOptions(calibration="none"),
        named_objects=lambda phrases: [meant.get(phrase, "") for phrase in phrases],
    )


def test_the_region_is_that_of_the_best_object_that_a_phrase_of_the_label_means() -> None:
    world, found = ScriptedModalities(), detector(MEANT)
    tick = next(world.ticks(1))
    seen = replace(world.perceive("vision", DOG), objects=(FIRST, SECOND_DOG))
    heard = world.perceive("audio", DOG)
    scores = found.score(found.initial_state(), tick, {"vision": seen, "audio": heard})[1]
    by_modality = {label: {e.modality: (e.region, e.bearing) for e in s.evidence} for label, s in scores.items()}
    assert by_modality["dog"] == {"vision": ((5, 6, 7, 8), -0.2), "audio": (None, None)}
    assert by_modality["car"]["vision"] == (None, None), "the image shows no vehicle"
    nothing = detector({})
    scores = nothing.score(nothing.initial_state(), tick, {"vision": seen})[1]
    assert scores["dog"].evidence[0].region is None, "the phrases mean no object"


def test_several_phrases_of_a_label_may_mean_different_objects() -> None:
    world, found = ScriptedModalities(), detector({"a dog": "Dog", "a puppy": "Cat"})
    tick = next(world.ticks(1))
    seen = replace(world.perceive("vision", DOG), objects=(FIRST, SECOND_DOG))
    (own,) = found.score(found.initial_state(), tick, {"vision": seen})[1]["dog"].evidence
    assert own.region == FIRST.region


def test_the_region_in_a_report_is_of_the_window_of_the_evidence() -> None:
    world, tracker = ScriptedModalities(), EventTracker([detector(MEANT)])
    reports = []
    for number, tick in enumerate(world.ticks(8)):
        where = DetectedObject("Dog", 0.6, (number, 0, 10, 10), 0.01 * number)
        seen = {"vision": replace(world.perceive("vision", DOG), objects=(where,))} if number < 4 else {}
        seen["audio"] = world.perceive("audio", DOG)
        reports += tracker.step(tick, seen)
    start = world.tick - 8 * HOP
    regions = {
        e.region[0]: (e.tick - start) // HOP - 1
        for r in reports
        for e in r.evidence
        if e.modality == "vision" and e.region
    }
    assert len(regions) >= 2 and all(number == at for number, at in regions.items())
    assert {e.sensor for r in reports for e in r.evidence if e.region} == {""}


def test_a_wrong_number_of_names_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 names for 3 phrases"):
        PromptDetector(PROMPTS, embed_text, named_objects=lambda phrases: ["", ""])
