"""The change detector reports each lasting change once, with the accepted rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.scripted_modalities import (
    CONCEPTS,
    HOP,
    ROOM,
    SIZE,
    SPACE,
    START,
    ScriptedModalities,
    assert_well_formed,
    play,
)
from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.change import ChangeDetector, ChangeOptions
from sensebind.fusion.events.tracker import EventTracker

FOREST = {"forest": 1.0}


def change_tracker(**options: float) -> EventTracker:
    return EventTracker([ChangeDetector(ChangeOptions(**options))], SPACE)  # type: ignore[arg-type]


def onsets(events: list[Event]) -> list[Event]:
    return [e for e in events if e.phase is EventPhase.ONSET]


def test_a_change_and_its_return_are_each_reported_once() -> None:
    tracker, world = change_tracker(), ScriptedModalities()
    scenes = [(120, {"vision": ROOM}), (120, {"vision": FOREST}), (120, {"vision": ROOM})]
    events = play(tracker, world, scenes) + tracker.finish()
    assert_well_formed(events)
    assert [(e.kind, e.label) for e in onsets(events)] == [(EventKind.CHANGE, "change")] * 2
    for event, at in zip(onsets(events), (121, 241), strict=True):
        begin = START + at * HOP
        assert begin <= event.tick <= begin + 3 * SECOND
        assert event.evidence[0].supports and abs(event.evidence[0].start - begin) <= HOP, "start of the excursion"


def test_modalities_that_change_together_support_one_change() -> None:
    tracker, world = change_tracker(), ScriptedModalities()
    before = dict.fromkeys(("vision", "audio", "depth"), ROOM)
    after = {"vision": FOREST, "audio": FOREST, "depth": ROOM}
    events = play(tracker, world, [(120, before), (60, after)]) + tracker.finish()
    assert_well_formed(events)
    (event,) = onsets(events)
    supporting = {e.modality for r in events if r.id == event.id for e in r.evidence if e.supports}
    assert supporting == {"vision", "audio"}


def test_a_slow_drift_is_not_a_change() -> None:
    tracker, world = change_tracker(), ScriptedModalities()
    scenes = [(1, {"vision": {"room": 1 - i / 1200, "forest": i / 1200}}) for i in range(1201)]
    assert play(tracker, world, scenes) == []


def test_a_short_deviation_is_not_a_change() -> None:
    tracker, world = change_tracker(), ScriptedModalities()
    assert (
        play(
            tracker,
            world,
            [(120, {"vision": ROOM}), (1, {"vision": {"room": 1.0, "dog": 0.7}}), (60, {"vision": ROOM})],
        )
        == []
    )


def false_alarms(seed: int, rate: float, hours: float, blend: int, memory: float) -> int:
    """Count the changes reported in a stream without changes.

    `blend`: length of a window in ticks. `memory`: correlation of the noise from tick to tick.
    """
    random, tracker, count = np.random.default_rng(seed), change_tracker(false_alarms_per_hour=rate), 0
    noise, held = np.zeros(SIZE), [random.standard_normal(SIZE) for _ in range(blend)]
    for number in range(round(hours * 3600 * SECOND / HOP)):
        tick = START + number * HOP
        noise = memory * noise + np.sqrt(1 - memory**2) * random.standard_normal(SIZE)
        held = [*held[1:], noise]
        vector = l2_normalize(CONCEPTS["room"] + 0.5 * np.mean(held, axis=0) / np.sqrt(SIZE))
        events = tracker.step(tick, {"vision": Embedding("vision", tick - blend * HOP, tick, SPACE, 1.0, vector)})
        count += len(onsets(events))
    return count


@pytest.mark.parametrize(("blend", "memory"), [(1, 0.0), (4, 0.0), (1, 0.5)])
def test_the_rate_of_false_alarms_is_the_accepted_one(blend: int, memory: float) -> None:
    frequent, rare = false_alarms(1, 20.0, 1.5, blend, memory), false_alarms(1, 1.0, 1.5, blend, memory)
    assert frequent <= 2 * 30 and rare <= 4
    assert blend > 1 or frequent >= 10, "the threshold is not too high"


def test_another_rate_takes_effect_on_the_next_tick() -> None:
    tracker, world = change_tracker(false_alarms_per_hour=0.001), ScriptedModalities()
    faint = {"vision": {"room": 1.0, "forest": 0.25}}
    assert play(tracker, world, [(120, {"vision": ROOM})]) == []
    tracker.replace_detectors([ChangeDetector(ChangeOptions(false_alarms_per_hour=1000.0))])
    assert play(tracker, world, [(20, faint)])
    with pytest.raises(ValueError, match="false_alarms_per_hour"):
        ChangeOptions(false_alarms_per_hour=0.0)
