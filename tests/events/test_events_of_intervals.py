"""Events of intervals keep their invariants for any activity, any similarities and any lost windows of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scripted_modalities import HOP, PROMPTS, SPACE, START, ScriptedModalities, assert_well_formed, embed_text
from sensebind.fusion.core.embeddings import Activity, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Score
from sensebind.fusion.core.samples import AUDIO, SECOND
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.events.proposals.naming import NamingCurve
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.io import wire

PERIOD = SECOND // 10
WINDOW_FRAMES = 10
NAMING = PromptCalibration(SPACE, 0.02, naming={AUDIO: NamingCurve(12.0, 60.0, -3.0, "test")})
SOUNDS: Mapping[str, Mapping[str, float]] = {
    "quiet": {"hum": 1.0},
    "dog": {"hum": 1.0, "dog": 1.5},
    "car": {"hum": 1.0, "car": 1.5},
    "dog and car": {"hum": 1.0, "dog": 1.0, "car": 0.9},
    "faint dog": {"hum": 1.0, "dog": 0.5},
    "other": {"hum": 1.0, "forest": 1.5},
}


def options(**lifecycle: float) -> PromptOptions:
    return PromptOptions(calibration=lambda _: NAMING, lifecycle=LifecycleOptions(**lifecycle))


def tracker(**lifecycle: float) -> EventTracker:
    chosen = options(**lifecycle) if lifecycle else PromptOptions(calibration=lambda _: NAMING)
    return EventTracker([PromptDetector(PROMPTS, embed_text, chosen)], SPACE)


def stream(script: Sequence[tuple[str, bool, int]], seed: int = 0, start: int = START) -> list[Embedding]:
    """Windows of 1 s each 0.5 s. `script`: (sound, whether it is loud, number of windows). 6 s of noise come first."""
    world, random = ScriptedModalities(seed), np.random.default_rng(seed)
    found, levels, tick = [], random.normal(40, 1, (60, 16)).astype(np.float32), start + 6 * SECOND
    for sound, loud, count in [("quiet", False, 12), *script]:
        for _ in range(count):
            new = random.normal(40, 1, (HOP // PERIOD, 16)).astype(np.float32)
            new[:, :6] += 15 if loud else 0
            levels, tick = np.concatenate([levels, new])[-60:], tick + HOP
            vector = world.perceive(AUDIO, SOUNDS[sound]).vector
            activity = Activity(levels[-WINDOW_FRAMES:], PERIOD)
            found.append(Embedding(AUDIO, tick - SECOND, tick, SPACE, 1.0, vector, activity=activity))
    return found


SCRIPTS = st.lists(st.tuples(st.sampled_from(sorted(SOUNDS)), st.booleans(), st.integers(1, 8)), max_size=16)


def is_open_at(events: Sequence[Event], label: str) -> bool:
    phases = [e.phase for e in events if e.label == label]
    return bool(phases) and phases[-1] is not EventPhase.OFFSET


@settings(max_examples=150, deadline=None)
@given(
    script=SCRIPTS,
    seed=st.integers(0, 99),
    times=st.tuples(*[st.sampled_from([0.0, 0.5, 2.0])] * 3),
    lost=st.sets(st.integers(0, 60), max_size=8),
)
def test_any_stream_gives_well_formed_events(
    script: list[tuple[str, bool, int]], seed: int, times: tuple[float, ...], lost: set[int]
) -> None:
    own = tracker(min_duration=times[0], hold_time=times[1], refractory=times[2], immediate_onset_threshold=0.95)
    windows = [e for number, e in enumerate(stream(script, seed)) if number not in lost]
    events = [event for e in windows for event in own.step(e.tick, {AUDIO: e})] + own.finish()
    assert_well_formed(events)
    onsets = {e.id: e for e in events if e.phase is EventPhase.ONSET}
    for event in onsets.values():
        if event.predecessor:
            assert onsets[event.predecessor].tick <= event.tick and event.predecessor != event.id
            assert onsets[event.predecessor].label != event.label


def in_one_interval(*scores: Mapping[str, float], interval: tuple[int, int] = (START, START + SECOND)) -> list[Event]:
    """The events of scripted scores at successive ticks, all of one interval."""

    class Scripted(PromptDetector):
        def score(self, state: object, tick: int, embeddings: Mapping[str, Embedding]) -> tuple:  # type: ignore[type-arg,override]
            return state, {label: Score(value, interval=interval) for label, value in next(script).items()}

    script = iter(scores)
    own = EventTracker(
        [Scripted(PROMPTS, embed_text, options(min_duration=1.0, immediate_onset_threshold=0.95))], SPACE
    )
    events = [event for number in range(len(scores)) for event in own.step(START + (number + 1) * HOP, {})]
    return [*events, *own.finish()]


def test_of_two_names_that_begin_at_once_the_weaker_one_is_not_reported() -> None:
    events = in_one_interval({"dog": 0.7}, {"dog": 0.4, "car": 0.97}, {"car": 0.97})
    assert_well_formed(events)
    assert {e.label for e in events} == {"car"} and {e.predecessor for e in events} == {""}
    both = in_one_interval({"dog": 0.7, "car": 0.7}, {"dog": 0.4, "car": 0.4}, {"dog": 0.4})
    assert_well_formed(both)
    assert len({e.id for e in both}) == 1


def test_an_event_that_resumes_in_its_interval_begins_after_its_end_and_is_not_its_own_predecessor() -> None:
    events = in_one_interval({"dog": 0.97}, *[{"dog": 0.1}] * 4, {"dog": 0.97}, {"dog": 0.97})
    assert_well_formed(events)
    first, second = [e for e in events if e.phase is EventPhase.ONSET]
    assert first.onset == START and second.onset == START + 6 * HOP and second.predecessor == ""


def test_a_recording_that_is_played_again_has_no_predecessors_of_the_first_time() -> None:
    own, windows = tracker(), stream([("dog", True, 6), ("quiet", False, 8)])
    for _ in range(2):
        events = [event for e in windows for event in own.step(e.tick, {AUDIO: e})] + own.restart()
        assert {e.label for e in events} == {"dog"} and {e.predecessor for e in events} == {""}


def reports(windows: Sequence[Embedding], images: Mapping[int, Embedding] | None = None) -> list[Event]:
    own, events = tracker(), list[Event]()
    for window in windows:
        present = {AUDIO: window} | ({"vision": images[window.tick]} if images else {})
        events += own.step(window.tick, present)
    return events + own.finish()


def test_an_interval_that_was_named_is_not_unknown_when_its_sound_pauses_or_becomes_another_one() -> None:
    for after in ("quiet", "faint dog", "other"):
        events = reports(stream([("dog", True, 5), (after, True, 12), ("quiet", False, 8)]))
        assert_well_formed(events)
        assert {e.kind for e in events} == {EventKind.PROMPT}, after
    # Another interval is named anew.
    again = reports(stream([("dog", True, 5), ("quiet", False, 10), ("other", True, 8), ("quiet", False, 8)]))
    assert {e.kind for e in again} == {EventKind.PROMPT, EventKind.UNKNOWN}


def test_a_sound_is_not_unknown_while_a_label_that_is_seen_is_reported() -> None:
    windows = stream([("quiet", False, 4), ("other", True, 14), ("quiet", False, 8)])
    world = ScriptedModalities(5)
    seen = range(windows[16].tick, windows[22].tick)  # ends long before the sound
    images = {
        w.tick: Embedding(
            "vision", w.tick - HOP, w.tick, SPACE, 1.0,
            world.perceive("vision", {"room": 0.6, "dog": 1.0} if w.tick in seen else {"room": 1.0}).vector,
        )
        for w in windows
    }  # fmt: skip
    assert {e.kind for e in reports(windows)} == {EventKind.UNKNOWN}
    events = reports(windows, images)
    assert {(e.kind, e.label) for e in events} == {(EventKind.PROMPT, "dog")}
    assert any(e.modality == AUDIO and e.coincides for event in events for e in event.evidence)


@pytest.mark.parametrize(
    ("sounds", "swap"),
    [
        pytest.param([("dog", True, 30)], 30, id="an interval"),
        pytest.param([("dog", False, 80)], 70, id="steady"),
    ],
)
@pytest.mark.parametrize("prompts", [PROMPTS, {**PROMPTS, "bell": ["a bell"]}, {"dog": PROMPTS["dog"]}])
def test_other_prompts_do_not_interrupt_an_open_event(
    sounds: list[tuple[str, bool, int]], swap: int, prompts: dict[str, list[str]]
) -> None:
    own, windows, events = tracker(), stream(sounds), list[Event]()
    for number, window in enumerate(windows):
        if number == swap:
            assert is_open_at(events, "dog")
            own.replace_detectors([PromptDetector(prompts, embed_text, PromptOptions(calibration=lambda _: NAMING))])
        events += own.step(window.tick, {AUDIO: window})
    events += own.finish()
    assert_well_formed(events)
    assert len({e.id for e in events}) == 1


def test_a_prompt_that_is_added_while_its_sound_lasts_is_detected() -> None:
    own, windows, events = EventTracker([only_car := PromptDetector({"car": ["a car"]}, embed_text, options())]), [], []
    windows = stream([("dog", True, 6), ("quiet", False, 8), ("dog", True, 8), ("quiet", False, 4)])
    for number, window in enumerate(windows):
        if number == 14:
            own.replace_detectors([PromptDetector(PROMPTS, embed_text, only_car.options)])
        events += own.step(window.tick, {AUDIO: window})
    events += own.finish()
    assert_well_formed(events)
    assert sum(e.phase is EventPhase.ONSET and e.label == "dog" for e in events) in (1, 2)


@settings(max_examples=30, deadline=None)
@given(script=SCRIPTS, seed=st.integers(0, 99), late=st.sets(st.integers(0, 60), max_size=10), delay=st.integers(1, 8))
def test_late_windows_keep_the_invariants_of_events(
    script: list[tuple[str, bool, int]], seed: int, late: set[int], delay: int
) -> None:
    """Images come in time; the audio of some ticks comes some ticks late. Late data may revise an onset, no more."""
    own, windows, events = tracker(), stream(script, seed), list[Event]()
    world, waiting = ScriptedModalities(seed + 1), list[tuple[int, Embedding]]()
    for number, window in enumerate(windows):
        world.tick = window.tick
        present = {"vision": world.perceive("vision", {"room": 1.0})}
        if number in late:
            waiting.append((number + delay, window))
        else:
            present[AUDIO] = window
        events += own.step(window.tick, present)
        for due, old in [w for w in waiting if w[0] <= number]:
            events += own.add_late_embeddings(old.tick, {AUDIO: old})
            waiting.remove((due, old))
    events += own.finish()
    onsets = [e.id for e in events if e.phase is EventPhase.ONSET]
    assert len(onsets) == len(set(onsets))
    ends: dict[str, int] = {}
    for event in (e for e in events if e.phase is EventPhase.OFFSET):
        assert event.onset <= event.offset <= event.tick
        assert event.onset > ends.get(event.label, 0)
        ends[event.label] = event.offset
    for name in onsets:
        phases = [e.phase for e in events if e.id == name]
        assert phases[0] is EventPhase.ONSET and phases[-1] is EventPhase.OFFSET
        assert set(phases[1:-1]) <= {EventPhase.UPDATE}
    assert {e.predecessor for e in events} - {""} <= set(onsets)
    if not waiting or not late:
        assert all(e.onset <= e.tick for e in events)


@settings(max_examples=20, deadline=None)
@given(script=SCRIPTS, seed=st.integers(0, 99), restart=st.integers(0, 60), back=st.sampled_from([0, 100 * SECOND]))
def test_after_a_restart_the_events_are_those_of_a_new_tracker(
    script: list[tuple[str, bool, int]], seed: int, restart: int, back: int
) -> None:
    windows = stream(script, seed)
    own = tracker()
    before = [event for e in windows[:restart] for event in own.step(e.tick, {AUDIO: e})] + own.restart()
    assert_well_formed(before)
    again = stream(script, seed, START - back)
    events = [event for e in again for event in own.step(e.tick, {AUDIO: e})] + own.finish()
    fresh = tracker()
    assert events == [event for e in again for event in fresh.step(e.tick, {AUDIO: e})] + fresh.finish()


@pytest.mark.filterwarnings("error")
def test_vectors_that_are_not_finite_are_ignored() -> None:
    windows = stream([("dog", True, 6), ("quiet", False, 12)])
    expected = reports(windows)
    broken = [replace(windows[0], vector=np.full_like(windows[0].vector, np.nan)), replace(windows[1], coverage=np.inf)]
    own, events = tracker(), list[Event]()
    for tick, window in ((START, broken[0]), (START + HOP, broken[1]), *((w.tick, w) for w in windows)):
        events += own.step(tick, {AUDIO: window})
    assert events + own.finish() == expected


@settings(max_examples=40, deadline=None)
@given(script=SCRIPTS, seed=st.integers(0, 99), data=st.data())
def test_an_activity_that_changes_its_features_or_period_or_is_missing_gives_well_formed_events(
    script: list[tuple[str, bool, int]], seed: int, data: st.DataObject
) -> None:
    def changed(window: Embedding) -> Embedding:
        activity = window.activity
        assert activity is not None
        kind = data.draw(st.sampled_from(["same", "same", "none", "fewer", "period", "one", "nan", "inf"]))
        values = {"fewer": activity.values[:, :5], "one": activity.values[-1:], "nan": np.nan * activity.values}
        of_kind = Activity(
            values.get(kind, activity.values + (np.inf if kind == "inf" else 0)),
            {"period": 2 * PERIOD, "one": 0}.get(kind, PERIOD),
        )
        return replace(window, activity=None if kind == "none" else of_kind)

    events = reports([changed(window) for window in stream(script, seed)])
    assert_well_formed(events)


def only_audio_recognises(phrases: Sequence[str]) -> dict[str, list[float]]:
    return {"depth": [0.0] * len(phrases), AUDIO: [1.0] * len(phrases)}


def with_depth(windows: Sequence[Embedding], changes: tuple[int, int]) -> list[tuple[int, dict[str, Embedding]]]:
    """Each window with one of depth, whose image changes from one window to another."""
    world, ticks = ScriptedModalities(9), []
    for number, window in enumerate(windows):
        near = 10.0 if changes[0] <= number < changes[1] else 0.0
        activity = Activity(np.full((1, 8), near, np.float32), 0)
        vector = world.perceive("depth", {"room": 1.0}).vector
        depth = Embedding("depth", window.tick - HOP, window.tick, SPACE, 1.0, vector, activity=activity)
        ticks.append((window.tick, {AUDIO: window, "depth": depth}))
    return ticks


@pytest.mark.parametrize(("begins", "coincides"), [(52, True), (48, True), (56, True), (12, False), (20, False)])
def test_a_modality_coincides_if_something_began_in_it_within_3_s(begins: int, coincides: bool) -> None:
    windows = stream([("quiet", False, 40), ("dog", True, 8), ("quiet", False, 8)])  # the dog begins at window 52
    chosen = PromptOptions(calibration=lambda _: NAMING)
    own = EventTracker([PromptDetector(PROMPTS, embed_text, chosen, only_audio_recognises)], SPACE)
    events = [e for tick, present in with_depth(windows, (begins, 62)) for e in own.step(tick, present)] + own.finish()
    assert {e.label for e in events} == {"dog"}
    of_depth = [item for e in events for item in e.evidence if item.modality == "depth"]
    assert any(item.coincides for item in of_depth) is coincides
    assert all(item.supports is item.coincides for item in of_depth)
    # The fields of the message are those of the evidence.
    for event in events:
        sent = wire.decode(*wire.encode(event))
        assert isinstance(sent, Event) and [(e.coincides, e.supports) for e in sent.evidence] == [
            (e.coincides, e.supports) for e in event.evidence
        ]


@pytest.mark.parametrize("competent", [True, False])
def test_a_modality_that_only_coincides_does_not_count_for_min_modalities(competent: bool) -> None:
    windows = stream([("quiet", False, 20), ("dog", True, 8), ("quiet", False, 8)])
    chosen = PromptOptions(calibration=lambda _: NAMING, min_modalities=2)
    detector = PromptDetector(PROMPTS, embed_text, chosen) if competent else PromptDetector(
        PROMPTS, embed_text, chosen, only_audio_recognises
    )  # fmt: skip
    own = EventTracker([detector], SPACE)
    events = [e for tick, present in with_depth(windows, (32, 42)) for e in own.step(tick, present)] + own.finish()
    assert not [e for e in events if e.kind is EventKind.PROMPT]


def test_without_a_calibration_sounds_are_scored_window_by_window() -> None:
    windows = stream([("quiet", False, 20), ("dog", True, 8), ("quiet", False, 8)])
    own = EventTracker([PromptDetector(PROMPTS, embed_text, PromptOptions(calibration="none"))], SPACE)
    events = [e for w in windows for e in own.step(w.tick, {AUDIO: w})] + own.finish()
    assert_well_formed(events)
    assert {(e.kind, e.label) for e in events} == {(EventKind.PROMPT, "dog")}
