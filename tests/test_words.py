"""Words that were taught: what a phrase means, where that holds, and how much each sense counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_events import DOG, HOP, PROMPTS, ROOM, SIZE, SPACE, World, embed_text

from sensebind.cli import main
from sensebind.fusion.core.embeddings import Vector, unit
from sensebind.fusion.events.calibration import Calibration, CalibrationError, load
from sensebind.fusion.events.probes import Words, ranked
from sensebind.fusion.events.prompts import PromptDetector
from sensebind.training.calibration import calibrated
from sensebind.training.probes import Span, Stream, Tick, teach

LABELS = {label: embed_text(phrases) for label, phrases in PROMPTS.items()}
HUM = {"room": 1.0, "hum": 1.0}  # what a dog looks like to the camera: nothing that a phrase is near
RANKS = (1.0, 0.5, 0.25)
GAINS = st.lists(st.floats(-4, 8), min_size=0, max_size=6)


def lesson(seed: int) -> Stream:
    """A dog is heard as one, seen as a hum, and not felt at all; of cars, nothing is told."""
    world, random = World(seed, noise=0.6), np.random.default_rng(seed)
    ticks: list[Tick] = []
    spans: list[Span] = []
    there = False
    for number, tick in enumerate(world.ticks(240)):
        if number % 8 == 0:
            there = bool(random.random() < 0.4)
        if there:
            spans.append((tick - HOP, tick, "dog"))
        ticks.append((tick, {"audio": world.perceive("audio", DOG if there else ROOM),
                             "imu": world.perceive("imu", ROOM),
                             "vision": world.perceive("vision", HUM if there else ROOM)}))  # fmt: skip
    return ticks, spans


@pytest.fixture(scope="module")
def taught() -> Calibration:
    words, doubt = teach(LABELS, [lesson(seed) for seed in range(5)])
    assert words is not None
    return Calibration(SPACE, 0.02, {}, words, doubt)


def words_of(calibration: Calibration) -> Words:
    assert calibration.words is not None
    return calibration.words


def means(words: Words, *phrases: Vector) -> list[str]:
    flags = words.meanings(unit(np.stack(phrases)), np.array([0], np.intp))[0]
    return [name for name, flag in zip(words.names, flags, strict=True) if flag]


def ratios(words: Words, modality: str, vectors: Sequence[Vector]) -> np.ndarray:
    """Of the dog, (N,)."""
    dog = np.array([[name == "dog" for name in words.names]])
    return np.array([float(words.ratios(modality, vector, dog)[0]) for vector in vectors])


def perceived(modality: str, what: dict[str, float], count: int = 40, seed: int = 99) -> list[Vector]:
    world = World(seed, noise=0.6)
    return [world.perceive(modality, what).vector for _ in world.ticks(count)]


def test_a_phrase_means_the_nearest_taught_word_or_none(taught: Calibration) -> None:
    words = words_of(taught)
    aside = np.random.default_rng(3).normal(size=SIZE) / np.sqrt(SIZE)
    for label, (phrase, *_) in LABELS.items():
        assert means(words, phrase) == [label]
        assert means(words, (phrase + 0.3 * aside).astype(np.float32)) == [label]
    assert means(words, aside.astype(np.float32)) == []


def test_a_label_with_phrases_of_two_words_means_both(taught: Calibration) -> None:
    assert sorted(means(words_of(taught), LABELS["dog"][1], LABELS["car"][0])) == ["car", "dog"]


def test_a_sense_is_taught_what_no_phrase_is_near_and_says_nothing_of_what_it_cannot_perceive(
    taught: Calibration,
) -> None:
    words = words_of(taught)
    for modality, dog in (("audio", DOG), ("vision", HUM)):
        assert np.nanmedian(ratios(words, modality, perceived(modality, dog))) > 1
        assert np.nanmedian(ratios(words, modality, perceived(modality, ROOM))) < -1
    assert np.nanmax(np.abs(ratios(words, "imu", perceived("imu", ROOM)))) < 0.5


def test_what_was_taught_makes_an_event_of_what_similarity_does_not_find(taught: Calibration) -> None:
    plain = PromptDetector(PROMPTS, embed_text)
    world = World(5, noise=0.6)
    tick = next(world.ticks(1))
    present = {"vision": world.perceive("vision", HUM)}
    by_similarity = plain.score(plain.start(), tick, present)[1]["dog"].score
    prior = plain.options.prior  # the score of no evidence is the same
    told = calibrated(plain, replace(taught, words=replace(words_of(taught), prior=prior)))
    by_lessons = told.score(told.start(), tick, present)[1]["dog"].score
    assert by_similarity < plain.life.offset_threshold < told.life.onset_threshold < by_lessons


def test_what_was_taught_is_not_believed_of_vectors_unlike_the_lessons(taught: Calibration) -> None:
    words = words_of(taught)
    strange = perceived("vision", {"forest": 1.0})
    assert np.isnan(ratios(words, "vision", strange)).all()
    assert not np.isnan(ratios(words, "vision", perceived("vision", HUM))).any()
    assert np.isnan(ratios(words, "thermal", strange)).all()  # a sense that had no lesson

    plain = PromptDetector(PROMPTS, embed_text)
    narrow = replace(taught, words=replace(words_of(taught), prior=plain.options.prior))  # as without
    told, world = calibrated(plain, narrow), World(5)
    tick = next(world.ticks(1))
    present = {"vision": replace(world.perceive("vision", ROOM), vector=strange[0])}
    scores = [d.score(d.start(), tick, present)[1]["dog"].score for d in (plain, told)]
    assert scores[0] == pytest.approx(scores[1])


def total(gains: Sequence[float], ranks: tuple[float, ...] = RANKS) -> float:
    return float(ranked(np.array(gains, np.float64).reshape(-1, 1), ranks)[0])


@given(gain=st.floats(0, 8), silent=st.integers(0, 4))
def test_the_surest_sense_counts_in_full_whichever_it_is(gain: float, silent: int) -> None:
    for place in range(silent + 1):
        gains = [0.0] * silent
        gains.insert(place, gain)
        assert total(gains) == pytest.approx(gain)


@given(gains=GAINS, more=st.floats(-2, 8))
@settings(max_examples=300)
def test_one_more_sense_never_takes_more_than_its_doubt_and_never_lowers_where_it_speaks_for(
    gains: list[float], more: float
) -> None:
    change = total([*gains, more]) - total(gains)
    assert change >= min(more, 0.0) - 1e-9


def test_in_the_detector_one_sense_takes_no_more_than_the_doubt(taught: Calibration) -> None:
    full = replace(taught, doubt=0.5, words=replace(words_of(taught), ranks=RANKS))
    detector, world = calibrated(PromptDetector(PROMPTS, embed_text), full), World(5, noise=0.6)
    tick = next(world.ticks(1))
    heard = {"audio": world.perceive("audio", DOG)}
    blind = world.perceive("vision", ROOM)
    assert ratios(words_of(full), "vision", [blind.vector])[0] < -0.5
    alone, both = (
        detector.score(detector.start(), tick, present)[1]["dog"].score
        for present in (heard, {**heard, "vision": blind})
    )
    assert 0 < np.log(alone / (1 - alone)) - np.log(both / (1 - both)) <= 0.5 + 1e-9


def test_what_is_kept_in_a_file_decides_as_before(taught: Calibration, tmp_path: Path) -> None:
    taught.save(tmp_path / "taught.safetensors")
    kept = load(tmp_path / "taught.safetensors")
    before, after = words_of(taught), words_of(kept)
    assert (after.names, tuple(after.owners)) == (before.names, tuple(before.owners))
    assert (kept.space, kept.doubt) == (taught.space, taught.doubt) and set(after.senses) == set(before.senses)
    for label, (phrase, *_) in LABELS.items():
        assert means(after, phrase) == [label]
    for modality in before.senses:
        for what in (ROOM, DOG, HUM, {"forest": 1.0}):
            vectors = perceived(modality, what)
            was, now = ratios(before, modality, vectors), ratios(after, modality, vectors)
            assert now == pytest.approx(was, abs=0.05, nan_ok=True)


def test_a_damaged_file_is_refused_by_its_name(taught: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    words, audio = words_of(taught), words_of(taught).senses["audio"]
    wrong = (
        replace(words, owners=words.owners + 5),
        replace(words, ranks=()),
        replace(words, ranks=(1.0, -1.0)),
        replace(words, senses={"audio": replace(audio, weights=audio.weights[:, 1:])}),
        replace(words, senses={"audio": replace(audio, biases=audio.biases[:1])}),
        replace(words, senses={"audio": replace(audio, directions=audio.directions[:, 1:])}),
    )
    for bad in wrong:
        replace(taught, words=bad).save(path)
        with pytest.raises(CalibrationError, match=r"mine.safetensors.*sensebind calibrate"):
            load(path)
    taught.save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CalibrationError, match=r"mine.safetensors.*sensebind calibrate"):
        load(path)


def test_words_of_which_the_lessons_show_too_little_are_not_taught(taught: Calibration) -> None:
    car = words_of(taught).names.index("car")
    assert all(np.isnan(sense.biases[car]) for sense in words_of(taught).senses.values())
    ticks, _ = lesson(0)
    assert teach(LABELS, [(ticks, [])])[0] is None


def test_a_sensor_of_a_simulated_robot_fails_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, bag = tmp_path / "short.yaml", tmp_path / "bag"
    scenario.write_text("duration: 3\nevents:\n  - {type: knock, at: 1}\n")
    command = ["simulate", "--scenario", str(scenario), "-o", str(bag)]
    assert main([*command, "--fault", "thermal:unplugged:1:1.5", "--fault", "imu:frozen"]) == 0
    told = Path(f"{bag}.faults.tsv").read_text().splitlines()[1:]
    assert sorted(told) == ["0.000\t3.000\timu\tfrozen", "1.000\t2.500\tthermal\tunplugged"]
    capsys.readouterr()
    for bad, named in (
        ("nose:frozen", "nose"),
        ("imu:asleep", "asleep"),
        ("imu", "fault"),
        ("imu:frozen:soon", "imu:frozen:soon"),
        ("imu:frozen:9", "imu:frozen:9"),
        ("imu:frozen:nan", "imu:frozen:nan"),
        ("imu:frozen:1:1:1", "imu:frozen:1:1:1"),
    ):
        assert main([*command, "--overwrite", "--fault", bad]) == 2, bad
        assert named in capsys.readouterr().err, bad


def test_unlikely_words_do_not_make_likeness_to_other_words_surer(taught: Calibration) -> None:
    plain = PromptDetector(PROMPTS, embed_text)
    rare = calibrated(plain, replace(taught, words=replace(words_of(taught), prior=1e-4)))
    world = World(5)
    tick = next(world.ticks(1))
    strange = {"vision": replace(world.perceive("vision", ROOM), vector=perceived("vision", {"forest": 1.0})[0])}
    scores = [d.score(d.start(), tick, strange)[1]["dog"].score for d in (plain, rare)]
    assert scores[0] == pytest.approx(scores[1])
