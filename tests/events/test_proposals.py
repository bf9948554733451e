"""Intervals are proposed by what changes in the raw data, and named by the similarities of all their windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scripted_modalities import (
    HOP,
    PROMPTS,
    SIZE,
    SPACE,
    START,
    ScriptedModalities,
    assert_well_formed,
    embed_text,
)
from sensebind.fusion.core.embeddings import Activity, Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import AUDIO, SECOND
from sensebind.fusion.events.prompt import UNKNOWN_LABEL, PromptDetector, PromptOptions
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.events.proposals.intervals import (
    HISTORY,
    MAX_PAUSE,
    Proposal,
    ProposalState,
    column_quantiles,
    updated_proposals,
)
from sensebind.fusion.events.proposals.naming import (
    Competition,
    NamingCurve,
    NamingState,
    PooledSimilarities,
    naming_scores,
    steady_scores,
)
from sensebind.fusion.events.tracker import EventTracker

PERIOD = SECOND // 10
BANDS = 16
WINDOW = SECOND
CURVE = NamingCurve(12.0, 60.0, -3.0, "test")
QUIET: Mapping[str, float] = {"hum": 1.0}


def noise(frames: int, seed: int = 0, level: float = 40.0, spread: float = 1.5) -> np.ndarray:
    """Levels of steady noise in dB, float32 (frames, BANDS)."""
    return (level + spread * np.random.default_rng(seed).normal(size=(frames, BANDS))).astype(np.float32)


def with_sounds(levels: np.ndarray, *sounds: tuple[float, float], gain: float = 15.0, bands: int = 6) -> np.ndarray:
    """Raise the levels of some bands from one time to another, in s."""
    result = levels.copy()
    for start, end in sounds:
        result[round(start * 10) : round(end * 10), :bands] += gain
    return result


def states(levels: np.ndarray, start: int = START, window: int = WINDOW, hop: int = HOP) -> list[ProposalState]:
    """The state after each window of a stream of frames that begins at `start`."""
    found, state = [], None
    frames = window // PERIOD
    for end in range(frames, len(levels) + 1, hop // PERIOD):
        state = updated_proposals(state, Activity(levels[end - frames : end], PERIOD), start + end * PERIOD)
        assert state is not None
        found.append(state)
    return found


def proposals(found: list[ProposalState]) -> list[Proposal]:
    """The confirmed proposals, as they were at last."""
    by_start = {s.latest.start: s.latest for s in found if s.latest is not None}
    return list(by_start.values())


# The same examples each time: in rare ones, noise stands out by chance just after the sound and lengthens the interval.
@settings(max_examples=40, deadline=None, derandomize=True)
@given(onset=st.integers(60, 250), length=st.integers(3, 60), gain=st.floats(12, 40), seed=st.integers(0, 99))
def test_a_sound_is_proposed_with_its_onset_and_offset_wherever_it_falls_on_the_grid(
    onset: int, length: int, gain: float, seed: int
) -> None:
    levels = with_sounds(noise(400, seed), (onset / 10, (onset + length) / 10), gain=gain)
    (found,) = proposals(states(levels))
    assert abs(found.start - (START + onset * PERIOD)) <= PERIOD
    assert abs(found.end - (START + (onset + length) * PERIOD)) <= PERIOD
    assert not found.is_open


@pytest.mark.parametrize(("level", "spread"), [(40.0, 3.0), (-90.0, 6.0), (10.0, 0.5), (0.0, 0.0)])
def test_steady_noise_of_any_level_is_hardly_ever_proposed(level: float, spread: float) -> None:
    assert sum(len(proposals(states(noise(3000, seed, level, spread)))) for seed in range(4)) <= 1  # in 20 minutes


def test_a_pause_belongs_to_the_interval_and_a_longer_one_separates_two() -> None:
    short, long = MAX_PAUSE / SECOND - 0.3, MAX_PAUSE / SECOND + 0.5
    together = with_sounds(noise(300), (10, 11), (11 + short, 12 + short))
    assert len(proposals(states(together))) == 1
    apart = with_sounds(noise(300), (10, 11), (11 + long, 12 + long))
    assert len(proposals(states(apart))) == 2


def test_noise_that_begins_and_stays_becomes_usual() -> None:
    levels = with_sounds(noise(1200), (20, 120))
    found = states(levels)
    assert len(proposals(found)) == 1 and found[-1].current is None
    # It is open while it fills less than two thirds of the history.
    (one,) = proposals(found)
    assert 0.5 * HISTORY < one.end - one.start < HISTORY


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), lost=st.sets(st.integers(0, 77), max_size=20))
def test_lost_windows_that_others_overlap_change_nothing(seed: int, lost: set[int]) -> None:
    levels = with_sounds(noise(400, seed), (12, 15), (25, 26))
    expected = proposals(states(levels))
    state, found = None, []
    last_lost = -2
    for number, end in enumerate(range(10, len(levels) + 1, 5)):
        if number in lost and number - last_lost > 1:  # its neighbours hold its frames
            last_lost = number
            continue
        state = updated_proposals(state, Activity(levels[end - 10 : end], PERIOD), START + end * PERIOD)
        assert state is not None
        found.append(state)
    assert [(p.start, p.end) for p in proposals(found)] == [(p.start, p.end) for p in expected]


def test_frames_without_a_reading_and_other_numbers_of_features_are_no_activity() -> None:
    levels = noise(300)
    levels[150:160, :4] = np.nan
    levels[:, 15] = np.nan
    assert proposals(states(levels)) == []
    state = states(noise(100))[-1]
    other = updated_proposals(state, Activity(np.zeros((1, 3), np.float32), 0), START + 20 * SECOND)
    assert other is not None and other.frames.shape == (1, 3)
    unchanged = updated_proposals(state, None, START + 20 * SECOND)
    assert unchanged is not None and unchanged.frames is state.frames


def test_single_frames_of_images_are_an_interval_from_one_image_to_the_next() -> None:
    state, found = None, []
    for number in range(80):
        grey = np.zeros((1, 8), np.float32)
        grey[0, :3] = 8.0 if 40 <= number < 48 else 0.0
        state = updated_proposals(state, Activity(grey, 0), START + number * HOP)
        assert state is not None
        found.append(state)
    (one,) = proposals(found)
    assert one.start == START + 40 * HOP - HOP // 2 and one.end == START + 47 * HOP - HOP // 2


def test_quantiles_of_columns_ignore_missing_readings() -> None:
    table = np.array([[1, np.nan], [2, np.nan], [3, 7], [4, np.nan]], np.float32)
    (low,) = column_quantiles(table, (0.0,))
    (high,) = column_quantiles(table, (1.0,))
    assert low.tolist() == [1, 7] and high.tolist() == [4, 7]
    assert np.isnan(column_quantiles(np.full((3, 1), np.nan, np.float32), (0.5,))[0]).all()


def directions(*cosines: float) -> np.ndarray:
    """Unit vectors (N, N + 1), each with its cosine to (1, 0, 0, …)."""
    rows = np.eye(len(cosines), len(cosines) + 1, 1) * np.sqrt(1 - np.square(cosines))[:, None]
    rows[:, 0] = cosines
    return rows.astype(np.float32)


def test_a_related_phrase_competes_and_one_that_means_the_same_or_something_else_does_not() -> None:
    dog, car, puppy, wolf, *others = directions(1.0, 0.0, 0.9, 0.4, 0.0, 0.0, 0.0, 0.0)
    competition = Competition.of(np.stack([dog, car]), np.array([0, 1]), np.stack([puppy, wolf, *others]))
    assert competition.with_phrases.tolist() == [[False, True, *[False] * 4], [False] * 6]
    assert competition.between_labels.tolist() == [[False, True], [True, False]]
    margins = competition.margins(np.array([0.5, 0.1]), np.array([0.9, 0.6, 0.8, 0.0, 0.0, 0.0]))
    assert margins == pytest.approx([0.5 - 0.6, 0.1 - 0.5])


def test_a_naming_curve_may_compare_a_part_of_the_vectors() -> None:
    """What is outside of this part changes no score, however similar it is to the phrases."""

    def embed_twice(texts: Sequence[str]) -> np.ndarray:
        once = embed_text(texts)
        return np.concatenate([once, 2 * once], axis=1)

    def scores(rest: str, part: tuple[int, int] | None) -> list[dict[str, float]]:
        curve = NamingCurve(12.0, 60.0, -3.0, "test", part)
        calibration = PromptCalibration(SPACE, 0.02, naming={AUDIO: curve})
        detector = PromptDetector(PROMPTS, embed_twice, PromptOptions(calibration=lambda _: calibration))
        state, found = detector.initial_state(), []
        for e in ScriptedMicrophone().stream(with_sounds(noise(200), (15, 19)), {(15, 19): "dog"}):
            vector = np.concatenate([e.vector, 2 * embed_text(PROMPTS[rest])[0]]).astype(np.float32)
            state, scored = detector.score(state, e.tick, {AUDIO: replace(e, vector=vector)})
            found.append({label: score.score for label, score in scored.items() if label in PROMPTS})
        return found

    assert scores("dog", (0, SIZE)) == scores("car", (0, SIZE))
    assert max(s["dog"] for s in scores("car", (0, SIZE))) > 0.6
    assert scores("dog", None) != scores("car", None)


# events


class ScriptedMicrophone:
    """Windows of 1 s each 0.5 s: levels of bands, and the concepts that the window is similar to."""

    def __init__(self, seed: int = 0) -> None:
        self.world = ScriptedModalities(seed)

    def stream(self, levels: np.ndarray, names: Mapping[tuple[float, float], str]) -> list[Embedding]:
        """The embeddings of a stream. `names`: (onset, offset) in s → the concept that is audible."""
        found = []
        for end in range(10, len(levels) + 1, 5):
            seconds = end / 10
            shares = {n: min(seconds, b) - max(seconds - 1, a) for (a, b), n in names.items()}
            what = {"hum": 1.0} | {n: 1.5 * share for n, share in shares.items() if share > 0}
            tick = START + end * PERIOD
            vector = self.world.perceive(AUDIO, what).vector
            activity = Activity(levels[end - 10 : end], PERIOD)
            found.append(Embedding(AUDIO, tick - WINDOW, tick, SPACE, 1.0, vector, activity=activity))
        return found


def naming_tracker() -> EventTracker:
    calibration = PromptCalibration(SPACE, 0.02, naming={AUDIO: CURVE})
    return EventTracker([PromptDetector(PROMPTS, embed_text, PromptOptions(calibration=lambda _: calibration))], SPACE)


def reports(stream: list[Embedding]) -> list[Event]:
    tracker = naming_tracker()
    events = [event for e in stream for event in tracker.step(e.tick, {AUDIO: e})]
    return [*events, *tracker.finish()]


def test_a_sound_becomes_an_event_with_the_times_of_its_interval() -> None:
    levels = with_sounds(noise(400), (15, 19))
    events = reports(ScriptedMicrophone().stream(levels, {(15, 19): "dog"}))
    assert_well_formed(events)
    (onset,) = [e for e in events if e.phase is EventPhase.ONSET]
    (offset,) = [e for e in events if e.phase is EventPhase.OFFSET]
    assert (onset.kind, onset.label, onset.predecessor) == (EventKind.PROMPT, "dog", "")
    assert abs(onset.onset - (START + 15 * SECOND)) <= PERIOD and onset.tick <= START + 16 * SECOND
    assert abs(offset.offset - (START + 19 * SECOND)) <= PERIOD
    (evidence,) = onset.evidence
    assert evidence.supports and not evidence.coincides


def test_a_sound_that_no_label_explains_is_unknown() -> None:
    levels = with_sounds(noise(400), (15, 19))
    events = reports(ScriptedMicrophone().stream(levels, {(15, 19): "forest"}))
    assert_well_formed(events)
    assert {(e.kind, e.label) for e in events} == {(EventKind.UNKNOWN, UNKNOWN_LABEL)}
    assert abs(events[0].onset - (START + 15 * SECOND)) <= PERIOD
    assert abs(events[-1].offset - (START + 19 * SECOND)) <= PERIOD


def test_a_name_that_changes_ends_the_event_and_begins_one_that_names_its_predecessor() -> None:
    levels = with_sounds(noise(500), (15, 27))
    events = reports(ScriptedMicrophone().stream(levels, {(15, 18): "dog", (18, 27): "car"}))
    assert_well_formed(events)
    onsets = {e.label: e for e in events if e.phase is EventPhase.ONSET and e.kind is EventKind.PROMPT}
    offsets = {e.label: e for e in events if e.phase is EventPhase.OFFSET and e.kind is EventKind.PROMPT}
    assert set(onsets) == {"dog", "car"}
    successor = onsets["car"].predecessor
    between = [e for e in events if e.id == successor]
    assert between, "the second event names its predecessor"
    assert onsets["dog"].id in (successor, between[0].predecessor)
    assert offsets["dog"].tick <= onsets["car"].tick + 2 * SECOND
    assert START + 18 * SECOND <= onsets["car"].onset <= START + 22 * SECOND, "the second name begins with the change"
    assert all(e.predecessor == successor for e in events if e.id == onsets["car"].id)


def test_what_is_audible_from_the_start_and_steady_is_detected_without_an_interval() -> None:
    events = reports(ScriptedMicrophone().stream(noise(300), {(0, 30): "dog"}))
    assert [e.label for e in events if e.phase is EventPhase.ONSET] == ["dog"]
    assert events[0].tick <= START + 10 * SECOND


def test_a_quiet_stream_has_no_event() -> None:
    assert reports(ScriptedMicrophone().stream(noise(900), {})) == []


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), late=st.sets(st.integers(30, 70), max_size=10))
def test_late_windows_give_the_events_of_windows_in_time(seed: int, late: set[int]) -> None:
    """The audio of some ticks comes one tick late; another modality has all ticks in time."""
    levels = with_sounds(noise(400, seed), (15, 19), (26, 28))
    stream = ScriptedMicrophone(seed).stream(levels, {(15, 19): "dog", (26, 28): "car"})
    camera = ScriptedModalities(seed + 1)
    images = {e.tick: Embedding("vision", e.tick, e.tick, SPACE, 1.0, camera.perceive("vision", {"room": 1.0}).vector)
              for e in stream}  # fmt: skip

    def run(delayed: set[int]) -> list[tuple[str, int, int]]:
        tracker, waiting, events = naming_tracker(), list[Embedding](), list[Event]()
        for number, embedding in enumerate(stream):
            present = {"vision": images[embedding.tick]}
            if number in delayed:
                events += tracker.step(embedding.tick, present)
                waiting.append(embedding)
                continue
            events += tracker.step(embedding.tick, {**present, AUDIO: embedding})
            for old in waiting:
                events += tracker.add_late_embeddings(old.tick, {AUDIO: old})
            waiting.clear()
        events += tracker.finish()
        last = {e.id: e for e in events}
        return sorted((e.label, e.onset, e.offset) for e in last.values() if e.kind is EventKind.PROMPT)

    expected = run(set())
    assert {label for label, _, _ in expected} == {"dog", "car"}
    alone = {n for n in late if n - 1 not in late}
    found = run(alone)
    assert {label for label, _, _ in found} == {"dog", "car"}


def test_an_interval_ends_when_no_frames_come_any_more() -> None:
    found = states(with_sounds(noise(200), (15, 20)))
    assert found[-1].current is not None
    late = START + 25 * SECOND
    assert (ended := updated_proposals(found[-1], None, late)) is not None and ended.current is None
    repeated = Activity(noise(1), 0)
    assert (ended := updated_proposals(found[-1], repeated, int(found[-1].ends[-1]))) is not None
    assert ended.current is not None  # at once it is open


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_values_out_of_range_are_no_activity_and_do_not_hide_the_next_one(value: float) -> None:
    levels = with_sounds(noise(500), (35, 38))
    levels[50:60] = value
    levels[70:80:2, :8] = value
    found = [p for p in proposals(states(levels)) if p.start > START + 12 * SECOND]
    assert [round((p.start - START) / SECOND) for p in found] == [35]


def test_what_is_steady_needs_more_similarity_than_an_interval() -> None:
    competition = Competition.of(embed_text(["a dog"]), np.array([0]), embed_text(["a drum"]))
    weak = PooledSimilarities(np.array([0.32]), np.array([0.0]), 1.0)
    strong = PooledSimilarities(np.array([0.9]), np.array([0.0]), 1.0)
    in_interval = naming_scores(weak, competition, CURVE, 0.0)
    assert in_interval > 0.6 and steady_scores(NamingState(weak, weak, None, 9.0), competition, CURVE) < 0.2
    assert steady_scores(NamingState(weak, strong, None, 9.0), competition, CURVE) > 0.9
    assert steady_scores(NamingState(weak, strong, None, 1.5), competition, CURVE) == 0.0
