"""Detectors, event lifecycle and event tracker, on scripted streams of embeddings."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scripted_modalities import (
    CONCEPTS,
    DOG,
    HOP,
    PROMPTS,
    ROOM,
    SIZE,
    SPACE,
    START,
    ScriptedModalities,
    assert_well_formed,
    embed_text,
    play,
    random_ticks,
    same_scene,
)
from sensebind.fusion.core.embeddings import FUSED, Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.disagreement import DisagreementDetector, DisagreementOptions
from sensebind.fusion.events.evidence import RunningBaseline, pool_scores
from sensebind.fusion.events.lifecycle import EventLifecycle, LifecycleOptions
from sensebind.fusion.events.novelty import NoveltyDetector, NoveltyOptions, add_prototype, nearest_neighbour_distance
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions, background_z_score
from sensebind.fusion.events.proposals.naming import best_similarities
from sensebind.fusion.events.tracker import MAX_CHECKPOINTS, EventTracker


def prompt_tracker(**options: object) -> EventTracker:
    return EventTracker([PromptDetector(PROMPTS, embed_text, PromptOptions(**options))], SPACE)  # type: ignore[arg-type]


def test_constants_are_those_of_the_message() -> None:
    assert [k.value for k in EventKind] == [0, 1, 2, 3, 4, 5] and [p.value for p in EventPhase] == [0, 1, 2]
    assert EventKind.FAULT.value == 3 and EventKind.CHANGE.value == 4 and EventPhase.OFFSET.value == 2


# event lifecycle


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(st.floats(0, 1), max_size=80),
    steps=st.lists(st.sampled_from([HOP, 2 * HOP, 7 * HOP]), min_size=80, max_size=80),
    thresholds=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).map(sorted),
    times=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 4),
)
def test_any_scores_give_well_formed_events_without_overlap(
    scores: list[float], steps: list[int], thresholds: list[float], times: tuple[float, ...]
) -> None:
    lifecycle = EventLifecycle(EventKind.PROMPT, "x", SPACE, LifecycleOptions(thresholds[1], thresholds[0], *times))
    tick, events = START, []
    for score, step in zip(scores, steps, strict=False):
        tick += step
        events += lifecycle.step(tick, Score(score))
    events += lifecycle.close(tick, tick)
    assert_well_formed(events)
    assert lifecycle.close(tick, tick) == []


def run_lifecycle(scores: Sequence[float], **options: float) -> list[Event]:
    lifecycle = EventLifecycle(EventKind.PROMPT, "x", SPACE, LifecycleOptions(**options))
    return [e for i, s in enumerate(scores) for e in lifecycle.step(START + i * HOP, Score(s))]


def test_immediate_onset_threshold_skips_the_minimum_duration() -> None:
    events = run_lifecycle([0, 0.7, 0.96, 0.9, 0.9], min_duration=2.0, immediate_onset_threshold=0.95)
    assert events[0].phase is EventPhase.ONSET and (events[0].onset, events[0].tick) == (START + HOP, START + 2 * HOP)
    assert run_lifecycle([0, 0.7, 0.94, 0.9, 0.1], min_duration=2.0, immediate_onset_threshold=0.95) == []
    with pytest.raises(ValueError, match="immediate_onset_threshold"):
        LifecycleOptions(onset_threshold=0.6, immediate_onset_threshold=0.5)


def test_onset_and_offset_are_the_first_ticks_above_and_below_the_thresholds() -> None:
    events = run_lifecycle([0, 0, 0.9, 0.9, 0.9, 0.5, 0.5, 0.1, 0.1, 0.1, 0], update_period=1.0)
    assert [e.phase for e in events] == [EventPhase.ONSET, EventPhase.UPDATE, EventPhase.UPDATE, EventPhase.OFFSET]
    assert {e.id for e in events} == {f"prompt/x/{START + 2 * HOP}"}
    assert events[0].tick == START + 4 * HOP and events[-1].offset == START + 7 * HOP
    assert events[-1].tick == START + 9 * HOP


def test_high_scores_shorter_than_min_duration_are_not_reported() -> None:
    assert run_lifecycle([0, 0.9, 0.9, 0, 0.9, 0, 0, 0], min_duration=1.0) == []


def test_a_dip_shorter_than_the_hold_time_does_not_end_an_event() -> None:
    events = run_lifecycle([0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9], hold_time=1.0, update_period=3600)
    assert [e.phase for e in events] == [EventPhase.ONSET]


def test_no_event_begins_in_the_refractory_period() -> None:
    scores = [0.9] * 4 + [0.0] * 3 + [0.9] * 20
    onsets = [e.onset for e in run_lifecycle(scores, refractory=5.0) if e.phase is EventPhase.ONSET]
    assert onsets == [START, START + 14 * HOP]


@pytest.mark.parametrize(
    "options",
    [
        {"onset_threshold": 0.3, "offset_threshold": 0.5},
        {"offset_threshold": 0.0},
        {"onset_threshold": 1.0},
        {"hold_time": -1.0},
    ],
)
def test_inconsistent_lifecycle_options_are_rejected(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LifecycleOptions(**options)


def test_a_prior_above_half_of_the_offset_threshold_is_rejected() -> None:
    with pytest.raises(ValueError, match="prior"):
        PromptOptions(prior=0.4)


# evidence


def test_pooling_one_modality_gives_its_score_and_pooling_none_gives_the_prior() -> None:
    assert pool_scores([[0.7, 0.05]], [1.0], 0.02) == pytest.approx([0.7, 0.05], abs=1e-6)
    assert pool_scores(np.zeros((0, 2)), [], 0.02) == pytest.approx([0.02, 0.02])
    assert pool_scores([[0.9]], [0.0], 0.02) == pytest.approx([0.02])


def test_positive_evidence_is_added_and_negative_evidence_is_limited() -> None:
    both, only_one = pool_scores([[0.5], [0.5]], [1, 1], 0.02)[0], pool_scores([[0.9], [0.001]], [1, 1], 0.02)[0]
    assert both > 0.9
    assert 0.7 < only_one < 0.9
    assert pool_scores([[0.9]], [0.5], 0.02)[0] < 0.5 < pool_scores([[0.9]], [1.0], 0.02)[0]


def test_a_running_baseline_is_robust_to_outliers_and_can_be_held() -> None:
    baseline = RunningBaseline.empty(1)
    random = np.random.default_rng(1)
    for value in random.normal(5, 2, 1000):
        baseline = baseline.updated(np.array([value]), 0.5, 60.0, 0.1)
    assert baseline.mean[0] == pytest.approx(5, abs=0.6) and baseline.deviation[0] == pytest.approx(2, abs=0.5)
    with_outlier = baseline.updated(np.array([1e6]), 0.5, 60.0, 0.1)
    assert abs(with_outlier.mean[0] - baseline.mean[0]) < 0.1
    held = baseline.updated(np.array([9.0]), 0.5, 60.0, 0.1, np.array([True]))
    assert held.mean[0] == baseline.mean[0] and held.observed_time[0] == baseline.observed_time[0]


def test_background_z_score_is_invariant_to_scale_and_shift() -> None:
    random = np.random.default_rng(3)
    phrases, background = l2_normalize(random.normal(size=(3, SIZE))), l2_normalize(random.normal(size=(40, SIZE)))
    vector = l2_normalize(phrases[0] + random.normal(size=SIZE) / 8)
    label_starts = np.array([0, 2])
    plain = background_z_score(best_similarities(vector, phrases, label_starts), vector, background)
    assert plain[0] > 3 > plain[1]
    common = np.full((1, 1), 3.0, np.float32)  # an additional component that all vectors share

    def with_common(v: np.ndarray) -> np.ndarray:
        return l2_normalize(np.concatenate((v, np.repeat(common, len(v), axis=0)), axis=1))

    (shifted,) = with_common(vector[None])
    similarities = best_similarities(shifted, with_common(phrases), label_starts)
    narrow = background_z_score(similarities, shifted, with_common(background))
    assert narrow == pytest.approx(plain, rel=0.02, abs=0.02)


# prompts


def test_a_prompt_is_detected_from_its_first_tick_to_its_last() -> None:
    tracker, world = prompt_tracker(), ScriptedModalities()
    events = play(tracker, world, [(60, {"vision": ROOM}), (20, {"vision": DOG}), (40, {"vision": ROOM})])
    events += tracker.finish()
    assert_well_formed(events)
    assert {e.label for e in events} == {"dog"} and len({e.id for e in events}) == 1
    assert abs(events[0].onset - (START + 61 * HOP)) <= HOP
    assert abs(events[-1].offset - (START + 81 * HOP)) <= HOP
    assert events[0].evidence[0].supports and events[0].evidence[0].modality == "vision"


@pytest.mark.parametrize("modalities", [["vision"], ["vision", "audio"]])
def test_a_single_window_of_one_modality_makes_no_event_and_two_modalities_are_reported_at_once(
    modalities: list[str],
) -> None:
    world, what = ScriptedModalities(), {"dog": 1.0}
    scenes = [(20, same_scene(ROOM)), (1, {**same_scene(ROOM), **dict.fromkeys(modalities, what)})]
    events = play(prompt_tracker(), world, [*scenes, (10, same_scene(ROOM))])
    assert [e.phase for e in events if e.phase is EventPhase.ONSET] == [EventPhase.ONSET] * (len(modalities) - 1)


def test_an_event_present_from_the_first_tick_stays_detected() -> None:
    tracker, world = prompt_tracker(), ScriptedModalities()
    events = play(tracker, world, [(1000, {"vision": DOG}), (10, {"vision": ROOM})])
    assert [e.phase for e in events if e.phase is not EventPhase.UPDATE] == [EventPhase.ONSET, EventPhase.OFFSET]
    assert events[0].onset == START + HOP and abs(events[-1].offset - (START + 1001 * HOP)) <= HOP


@pytest.mark.parametrize("noise", [0.0, 1.0, 10.0])
def test_a_scene_without_changes_gives_no_events(noise: float) -> None:
    tracker = EventTracker([PromptDetector(PROMPTS, embed_text), NoveltyDetector(), DisagreementDetector()])
    scene = {"vision": ROOM, "audio": {"hum": 1.0, "room": 1.0}}
    assert play(tracker, ScriptedModalities(noise=noise), [(2000, scene)]) + tracker.finish() == []


def test_weak_evidence_gives_an_event_for_two_modalities_but_not_for_one() -> None:
    faint = {"room": 1.0, "dog": 0.34}

    def onsets(modalities: Sequence[str]) -> int:
        tracker, world = prompt_tracker(), ScriptedModalities(noise=0.1)
        events = play(tracker, world, [(40, dict.fromkeys(modalities, ROOM)), (20, dict.fromkeys(modalities, faint))])
        return sum(e.phase is EventPhase.ONSET for e in events)

    assert onsets(["vision"]) == 0 and onsets(["audio"]) == 0
    assert onsets(["audio", "vision"]) == 1


def test_a_label_with_min_modalities_of_two_waits_for_the_second() -> None:
    tracker, world = prompt_tracker(min_modalities={"dog": 2}), ScriptedModalities()
    assert play(tracker, world, [(10, {"vision": ROOM, "audio": ROOM}), (20, {"vision": DOG, "audio": ROOM})]) == []
    events = play(tracker, world, [(20, {"vision": DOG, "audio": DOG})])
    assert events[0].phase is EventPhase.ONSET and abs(events[0].onset - (START + 31 * HOP)) <= HOP
    assert all(e.supports for e in events[0].evidence) and len(events[0].evidence) == 2
    assert play(tracker, world, [(10, {"vision": DOG, "audio": ROOM})])[-1].phase is EventPhase.OFFSET


def test_evidence_older_than_max_age_ends_the_event() -> None:
    tracker, world = prompt_tracker(max_age=3.0), ScriptedModalities()
    events = play(tracker, world, [(40, {"vision": ROOM, "audio": ROOM}), (10, {"vision": DOG, "audio": ROOM})])
    assert events[0].phase is EventPhase.ONSET
    events = play(tracker, world, [(30, {"audio": ROOM})])
    assert events[-1].phase is EventPhase.OFFSET and events[-1].offset == START + (50 + 7) * HOP
    assert [e.modality for e in events[-1].evidence] == ["audio"]


def test_modalities_with_different_hops_and_empty_ticks_give_one_event() -> None:
    tracker, world = prompt_tracker(min_modalities=2), ScriptedModalities()
    events = []
    for i, tick in enumerate(world.ticks(150)):
        what = DOG if 60 <= i < 100 else ROOM
        present = {"audio": world.perceive("audio", what)} if i % 4 == 3 else {}
        if i % 2:
            present["vision"] = world.perceive("vision", what)
        events += tracker.step(tick, present)
    assert_well_formed(events)
    assert len({e.id for e in events}) == 1
    assert abs(events[0].onset - (START + 64 * HOP)) <= HOP


def test_competition_keeps_the_best_of_similar_labels() -> None:
    prompts = {"dog": ["a dog"], "car": ["a car"], "puppy": ["a puppy"]}
    tracker, world = EventTracker([PromptDetector(prompts, embed_text)]), ScriptedModalities()
    labels = {e.label for e in play(tracker, world, [(40, {"vision": DOG})])}
    assert labels and "car" not in labels


def test_prompts_changed_at_run_time_take_effect_on_the_next_tick_and_keep_open_events() -> None:
    tracker, world = prompt_tracker(), ScriptedModalities()
    both = {"room": 0.5, "dog": 1.0, "car": 1.0}
    events = play(tracker, world, [(20, {"vision": ROOM}), (10, {"vision": both})])
    opened = {e.label: e.id for e in events if e.phase is EventPhase.ONSET}
    assert set(opened) == {"dog", "car"}
    tracker.replace_detectors([PromptDetector({"dog": PROMPTS["dog"]}, embed_text)])
    events = play(tracker, world, [(10, {"vision": both})])
    assert (events[0].phase, events[0].id, events[0].offset) == (EventPhase.OFFSET, opened["car"], START + 31 * HOP)
    assert {(e.phase, e.id) for e in events[1:]} == {(EventPhase.UPDATE, opened["dog"])}
    tracker.replace_detectors([])
    assert [e.phase for e in play(tracker, world, [(2, {"vision": both})])] == [EventPhase.OFFSET]


def test_prompts_without_phrases_and_too_small_backgrounds_are_rejected() -> None:
    with pytest.raises(ValueError, match="prompt 'dog'"):
        PromptDetector({"dog": []}, embed_text)
    with pytest.raises(ValueError, match="background"):
        PromptOptions(background=("a", "b"))


# novelty


def novelty_tracker(**options: object) -> EventTracker:
    return EventTracker([NoveltyDetector(NoveltyOptions(**options))], SPACE)  # type: ignore[arg-type]


def test_a_novelty_is_reported_once() -> None:
    tracker, world = novelty_tracker(), ScriptedModalities()
    forest = {"vision": {"forest": 1.0}}
    events = play(tracker, world, [(100, {"vision": ROOM}), (60, forest), (60, {"vision": ROOM}), (60, forest)])
    events += tracker.finish()
    assert_well_formed(events)
    assert [e.phase for e in events if e.phase is not EventPhase.UPDATE] == [EventPhase.ONSET, EventPhase.OFFSET]
    assert events[0].onset == START + 101 * HOP
    assert 2 * SECOND <= events[-1].offset - events[-1].onset <= 8 * SECOND
    assert events[0].label == "unusual" and events[0].evidence[0].supports


def test_a_slow_change_of_the_scene_is_not_novel() -> None:
    tracker, world = novelty_tracker(), ScriptedModalities()
    scenes = [(1, {"vision": {"room": 1 - i / 600, "forest": i / 600}}) for i in range(601)]
    assert play(tracker, world, scenes) == []


def test_a_novelty_does_not_hide_the_next_one() -> None:
    tracker, world = novelty_tracker(), ScriptedModalities()
    new_scenes = [(10, {"vision": {"room": 1.0, name: 1.0}}) for name in ("dog", "car", "forest", "hum")]
    events = play(
        tracker, world, [(40, {"vision": ROOM}), *(s for n in new_scenes for s in (n, (16, {"vision": ROOM})))]
    )
    assert len({e.id for e in events}) == 4


def test_the_novelty_baseline_adapts_to_more_variation() -> None:
    tracker, world = novelty_tracker(), ScriptedModalities()
    events = play(tracker, world, [(60, {"vision": ROOM})])
    world.noise = 3.0
    events += play(tracker, world, [(600, {"vision": ROOM})])
    assert {e.phase for e in events[:1]} == {EventPhase.ONSET} and events[-1].phase is EventPhase.OFFSET
    assert events[-1].offset - events[0].onset < 120 * SECOND


def test_nothing_is_novel_during_the_warm_up() -> None:
    tracker, world = novelty_tracker(warm_up=10.0), ScriptedModalities()
    assert play(tracker, world, [(5, {"vision": ROOM}), (5, {"vision": {"forest": 1.0}}), (5, {"vision": ROOM})]) == []


def test_the_novelty_distance_covers_the_nearest_seconds_of_the_past() -> None:
    axes = np.eye(3, dtype=np.float32)
    vector = l2_normalize([3.0, 1.0, 0.0])
    assert nearest_neighbour_distance(vector, axes, np.array([5.0, 5.0, 5.0]), 4.0) == pytest.approx(1 - vector[0])
    assert nearest_neighbour_distance(vector, axes, np.array([1.0, 5.0, 5.0]), 4.0) == pytest.approx(1 - vector[1])
    assert nearest_neighbour_distance(vector, axes, np.array([1.0, 1.0, 1.0]), 4.0) == pytest.approx(1.0)


def test_above_the_capacity_the_nearest_prototypes_are_merged() -> None:
    random = np.random.default_rng(5)
    prototypes, seconds = (CONCEPTS["forest"],), np.array([1.0])
    known = set(map(id, prototypes))
    for _ in range(500):
        vector = l2_normalize(CONCEPTS["room"] + 0.02 * random.normal(size=SIZE))
        prototypes, seconds = add_prototype(prototypes, seconds, vector, 1.0, 16)
        assert len(set(map(id, prototypes)) - known) <= 2, "each tick keeps a state: they must share their vectors"
        known = set(map(id, prototypes))
    assert len(prototypes) == 16 and seconds.sum() == pytest.approx(501)
    assert (np.stack(prototypes) @ CONCEPTS["forest"]).max() == pytest.approx(1.0)


# disagreement


def disagreement_tracker(**options: object) -> EventTracker:
    return EventTracker([DisagreementDetector(DisagreementOptions(**options))], SPACE)  # type: ignore[arg-type]


def test_a_modality_that_changes_alone_supports_a_disagreement() -> None:
    tracker, world = disagreement_tracker(), ScriptedModalities()
    alone = {"vision": ROOM, "audio": {"forest": 1.0, "hum": 0.8}}
    events = play(tracker, world, [(60, same_scene(ROOM)), (20, alone), (60, same_scene(ROOM))]) + tracker.finish()
    assert_well_formed(events)
    assert {e.label for e in events} == {"audio+vision"} and len({e.id for e in events}) == 1
    assert events[0].onset == START + 61 * HOP and abs(events[-1].offset - (START + 81 * HOP)) <= HOP
    assert {e.modality: e.supports for e in events[0].evidence} == {"audio": True, "vision": False}


def test_modalities_that_change_together_do_not_disagree() -> None:
    tracker, world = disagreement_tracker(), ScriptedModalities()
    assert (
        play(tracker, world, [(60, same_scene(ROOM)), (60, same_scene({"forest": 1.0})), (30, same_scene(DOG))]) == []
    )


def test_a_lasting_disagreement_becomes_the_baseline() -> None:
    tracker, world = disagreement_tracker(), ScriptedModalities()
    alone = {"vision": ROOM, "audio": {"forest": 1.0, "hum": 0.8}}
    events = play(tracker, world, [(60, same_scene(ROOM)), (600, alone)])
    assert [e.phase for e in events if e.phase is not EventPhase.UPDATE] == [EventPhase.ONSET, EventPhase.OFFSET]


def test_only_the_given_pairs_are_compared() -> None:
    tracker, world = disagreement_tracker(pairs=(("vision", "depth"),)), ScriptedModalities()
    alone = {"vision": ROOM, "audio": {"forest": 1.0}}
    assert play(tracker, world, [(60, same_scene(ROOM)), (20, alone)]) == []


# event tracker


def all_detectors() -> EventTracker:
    return EventTracker([DisagreementDetector(), PromptDetector(PROMPTS, embed_text), NoveltyDetector()], SPACE)


@settings(max_examples=4, deadline=None)  # each has hundreds of random ticks
@given(seed=st.integers(0, 10_000))
def test_the_same_ticks_give_the_same_well_formed_events(seed: int) -> None:
    def run(order: Callable[[Mapping[str, Embedding]], Mapping[str, Embedding]]) -> list[Event]:
        tracker = all_detectors()
        return [
            e for tick, present in random_ticks(seed) for e in tracker.step(tick, order(present))
        ] + tracker.finish()

    first = run(lambda present: present)
    assert_well_formed(first)
    assert first == run(lambda present: dict(reversed(list(present.items()))))


def test_the_memory_of_the_tracker_is_bounded() -> None:
    tracker, world, sizes = all_detectors(), ScriptedModalities(noise=5.0), []
    for count in (600, 1800):
        play(tracker, world, [(count, same_scene(ROOM))])
        sizes.append(len(pickle.dumps(tracker._detector_states)))
    assert sizes[1] <= 1.02 * sizes[0]
    assert len(tracker._lifecycles) <= len(PROMPTS) + 2  # one for each label: prompts, one novelty, one pair


def test_the_fused_vector_gives_no_evidence() -> None:
    tracker, world = all_detectors(), ScriptedModalities()
    for tick in world.ticks(30):
        tracker.step(tick, {"vision": world.perceive("vision", ROOM), FUSED: world.perceive(FUSED, DOG)})
    assert tracker.finish() == []


def test_a_long_gap_between_ticks_ends_open_events() -> None:
    tracker, world = prompt_tracker(), ScriptedModalities()
    play(tracker, world, [(20, {"vision": DOG})])
    world.tick += 60 * SECOND
    events = play(tracker, world, [(10, {"vision": DOG})])
    assert events[0].phase is EventPhase.OFFSET and events[0].offset == START + 20 * HOP
    assert events[1].phase is EventPhase.ONSET and events[1].onset == START + 21 * HOP + 60 * SECOND


def test_an_earlier_tick_is_rejected_until_the_tracker_restarts() -> None:
    tracker, world = prompt_tracker(), ScriptedModalities()
    play(tracker, world, [(20, {"vision": DOG})])
    with pytest.raises(ValueError, match="restart"):
        tracker.step(START, {})
    (event,) = tracker.restart()
    assert event.phase is EventPhase.OFFSET and event.offset == START + 20 * HOP
    again = play(tracker, ScriptedModalities(start=START - 50 * HOP), [(5, {"vision": DOG})])
    assert again[0].phase is EventPhase.ONSET and again[0].onset == START - 49 * HOP
    assert tracker.finish()[0].phase is EventPhase.OFFSET and tracker.finish() == []


def test_embeddings_of_another_space_are_rejected() -> None:
    tracker, world = prompt_tracker(), ScriptedModalities()
    other = world.perceive("vision", ROOM)
    with pytest.raises(ValueError, match="space"):
        tracker.step(START, {"vision": Embedding("vision", 0, START, "toy@2", 1.0, other.vector)})


def test_the_score_of_a_prompt_follows_from_the_evidence_and_its_weights() -> None:
    options = PromptOptions(reliability={"audio": 0.5, "vision": 0.25}, calibration="none")
    detector, world = PromptDetector(PROMPTS, embed_text, options), ScriptedModalities()
    embeddings = {
        m: world.perceive(m, DOG, coverage) for m, coverage in (("vision", 0.75), ("audio", 0.5), ("imu", 1.0))
    }
    _, scores = detector.score(detector.initial_state(), world.tick, embeddings)
    for score in scores.values():
        assert {e.modality: e.weight for e in score.evidence} == {"audio": 0.25, "imu": 1.0, "vision": 0.1875}
        pooled = pool_scores([[e.score] for e in score.evidence], [e.weight for e in score.evidence], options.prior)
        assert score.score == pytest.approx(pooled[0])


def test_however_near_ticks_are_a_late_embedding_repeats_the_work_of_a_bounded_number() -> None:
    """Stamps of others may be a nanosecond apart: seconds of them would be any number of ticks."""
    tracker, world = EventTracker([NoveltyDetector()]), ScriptedModalities()
    ticks = [START + 2 * number for number in range(2 * MAX_CHECKPOINTS)]
    perceived = world.perceive("vision", ROOM)
    for tick in ticks:
        tracker.step(tick, {"vision": replace(perceived, tick=tick)})
    for tick in ticks[-50:]:  # between the others
        tracker.add_late_embeddings(tick - 1, {"audio": replace(perceived, modality="audio", tick=tick - 1)})
    accepted = [tick for tick in range(ticks[0], ticks[-1] + 1) if tracker.accepts_late(tick)]
    assert tracker.last_tick == ticks[-1] and ticks[-MAX_CHECKPOINTS // 2] in accepted
    assert len([tick for tick in accepted if tick in ticks]) <= MAX_CHECKPOINTS
