"""Onset thresholds of single labels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.scripted_modalities import DOG, PROMPTS, ROOM, SPACE, ScriptedModalities, embed_text, play
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventPhase
from sensebind.fusion.events.lifecycle import LifecycleOptions, with_onset_threshold
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.tracker import EventTracker

LIFECYCLE = LifecycleOptions(onset_threshold=0.6, offset_threshold=0.3, immediate_onset_threshold=0.8)
SCENES = [(8, {"vision": ROOM}), (8, {"vision": DOG}), (8, {"vision": ROOM})]


def labels(options: PromptOptions) -> list[str]:
    """The labels of the events of a scene with a dog."""
    tracker = EventTracker([PromptDetector(PROMPTS, embed_text, options)], SPACE)
    events = play(tracker, ScriptedModalities(), SCENES) + tracker.finish()
    return [event.label for event in events if event.phase is EventPhase.ONSET]


def test_the_other_thresholds_move_along() -> None:
    low, high = with_onset_threshold(LIFECYCLE, 0.2), with_onset_threshold(LIFECYCLE, 0.9)
    assert (low.onset_threshold, low.offset_threshold, low.immediate_onset_threshold) == pytest.approx((0.2, 0.1, 0.8))
    assert (high.offset_threshold, high.immediate_onset_threshold) == pytest.approx((0.45, 0.9))
    assert with_onset_threshold(LIFECYCLE, 0.01).offset_threshold == 0.01
    assert replace(low, onset_threshold=0.6, offset_threshold=0.3) == LIFECYCLE, "nothing else changes"
    with pytest.raises(ConfigError, match="onset_threshold"):
        with_onset_threshold(LIFECYCLE, 1.0)


def test_a_threshold_of_one_label_changes_that_label_alone() -> None:
    options = PromptOptions(lifecycle=LifecycleOptions(onset_threshold=0.6), calibration="none")
    assert labels(options) == ["dog"]
    strict = replace(options.lifecycle, onset_threshold=0.99, immediate_onset_threshold=1.0)
    assert labels(replace(options, lifecycle=strict)) == []
    assert labels(replace(options, lifecycle=strict, onset_thresholds={"dog": 0.6})) == ["dog"]
    assert labels(replace(options, onset_thresholds={"car": 0.99})) == ["dog"]


def test_an_event_with_a_low_threshold_has_support_and_ends() -> None:
    options = PromptOptions(calibration="none", onset_thresholds={"dog": 0.06})
    tracker, world = EventTracker([PromptDetector(PROMPTS, embed_text, options)], SPACE), ScriptedModalities()
    events = play(tracker, world, [(8, {"vision": ROOM}), (8, {"vision": {"room": 1.0, "dog": 0.3}})])
    events += play(tracker, world, [(20, {"vision": {"room": 1.0, "forest": 1.0}})])
    dog = [event for event in events if event.label == "dog"]
    assert dog[0].phase is EventPhase.ONSET and dog[-1].phase is EventPhase.OFFSET
    assert all(item.supports for event in dog if event.score >= 0.06 for item in event.evidence)


def test_a_threshold_out_of_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'onset_threshold' must be 0\.01 to 0\.99"):
        PromptOptions(onset_thresholds={"dog": 0.0})
