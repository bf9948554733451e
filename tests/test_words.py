"""Words that were taught: what a phrase means, where that holds, and how much each sense counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_events import DOG, HOP, PROMPTS, ROOM, SIZE, SPACE, ScriptedModalities, embed_text

from sensebind.cli import main
from sensebind.fusion.core.embeddings import Vector, l2_normalize
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.prompt_calibration import CalibrationError, PromptCalibration, load
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers, rank_weighted_sum
from sensebind.training.calibration import with_calibration
from sensebind.training.prompt_classifiers import LabelledStream, LabelSpanNs, TickEmbeddings, train_prompt_classifiers

LABELS = {label: embed_text(phrases) for label, phrases in PROMPTS.items()}
CAMERA_VIEW_OF_DOG = {"room": 1.0, "hum": 1.0}  # what a dog looks like to the camera: nothing that a phrase is near
RANKS = (1.0, 0.5, 0.25)
GAINS = st.lists(st.floats(-4, 8), min_size=0, max_size=6)


def labelled_stream(seed: int) -> LabelledStream:
    """A dog is heard as one, seen as a hum, and not felt at all; of cars, nothing is told."""
    world, random = ScriptedModalities(seed, noise=0.6), np.random.default_rng(seed)
    ticks: list[TickEmbeddings] = []
    spans: list[LabelSpanNs] = []
    there = False
    for number, tick in enumerate(world.ticks(240)):
        if number % 8 == 0:
            there = bool(random.random() < 0.4)
        if there:
            spans.append((tick - HOP, tick, "dog"))
        ticks.append((tick, {"audio": world.perceive("audio", DOG if there else ROOM),
                             "imu": world.perceive("imu", ROOM),
                             "vision": world.perceive("vision", CAMERA_VIEW_OF_DOG if there else ROOM)}))  # fmt: skip
    return ticks, spans


@pytest.fixture(scope="module")
def trained() -> PromptCalibration:
    words, doubt = train_prompt_classifiers(LABELS, [labelled_stream(seed) for seed in range(5)])
    assert words is not None
    return PromptCalibration(SPACE, 0.02, {}, words, doubt)


def classifiers_of(calibration: PromptCalibration) -> PromptClassifiers:
    assert calibration.words is not None
    return calibration.words


def matched_prompts(words: PromptClassifiers, *phrases: Vector) -> list[str]:
    flags = words.match_labels(l2_normalize(np.stack(phrases)), np.array([0], np.intp))[0]
    return [name for name, flag in zip(words.names, flags, strict=True) if flag]


def log_likelihood_ratios(words: PromptClassifiers, modality: str, vectors: Sequence[Vector]) -> np.ndarray:
    """Of the dog, (N,)."""
    dog = np.array([[name == "dog" for name in words.names]])
    return np.array([float(words.log_likelihood_ratios(modality, vector, dog)[0]) for vector in vectors])


def example_vectors(modality: str, what: dict[str, float], count: int = 40, seed: int = 99) -> list[Vector]:
    world = ScriptedModalities(seed, noise=0.6)
    return [world.perceive(modality, what).vector for _ in world.ticks(count)]


def test_a_phrase_uses_the_nearest_classifier_or_none(trained: PromptCalibration) -> None:
    words = classifiers_of(trained)
    aside = np.random.default_rng(3).normal(size=SIZE) / np.sqrt(SIZE)
    for label, (phrase, *_) in LABELS.items():
        assert matched_prompts(words, phrase) == [label]
        assert matched_prompts(words, (phrase + 0.3 * aside).astype(np.float32)) == [label]
    assert matched_prompts(words, aside.astype(np.float32)) == []


def test_a_label_can_use_two_classifiers(trained: PromptCalibration) -> None:
    assert sorted(matched_prompts(classifiers_of(trained), LABELS["dog"][1], LABELS["car"][0])) == ["car", "dog"]


def test_uninformative_modalities_give_ratios_near_zero(
    trained: PromptCalibration,
) -> None:
    words = classifiers_of(trained)
    for modality, dog in (("audio", DOG), ("vision", CAMERA_VIEW_OF_DOG)):
        assert np.nanmedian(log_likelihood_ratios(words, modality, example_vectors(modality, dog))) > 1
        assert np.nanmedian(log_likelihood_ratios(words, modality, example_vectors(modality, ROOM))) < -1
    assert np.nanmax(np.abs(log_likelihood_ratios(words, "imu", example_vectors("imu", ROOM)))) < 0.5


def test_trained_classifiers_detect_what_similarity_misses(trained: PromptCalibration) -> None:
    plain = PromptDetector(PROMPTS, embed_text)
    world = ScriptedModalities(5, noise=0.6)
    tick = next(world.ticks(1))
    present = {"vision": world.perceive("vision", CAMERA_VIEW_OF_DOG)}
    by_similarity = plain.score(plain.initial_state(), tick, present)[1]["dog"].score
    prior = plain.options.prior  # the score of no evidence is the same
    told = with_calibration(plain, replace(trained, words=replace(classifiers_of(trained), prior=prior)))
    by_lessons = told.score(told.initial_state(), tick, present)[1]["dog"].score
    assert (
        by_similarity < plain.lifecycle_options.offset_threshold < told.lifecycle_options.onset_threshold < by_lessons
    )


def test_out_of_distribution_vectors_give_no_evidence(trained: PromptCalibration) -> None:
    words = classifiers_of(trained)
    strange = example_vectors("vision", {"forest": 1.0})
    assert np.isnan(log_likelihood_ratios(words, "vision", strange)).all()
    assert not np.isnan(log_likelihood_ratios(words, "vision", example_vectors("vision", CAMERA_VIEW_OF_DOG))).any()
    assert np.isnan(log_likelihood_ratios(words, "thermal", strange)).all()  # a sense that had no lesson

    plain = PromptDetector(PROMPTS, embed_text)
    narrow = replace(trained, words=replace(classifiers_of(trained), prior=plain.options.prior))  # as without
    told, world = with_calibration(plain, narrow), ScriptedModalities(5)
    tick = next(world.ticks(1))
    present = {"vision": replace(world.perceive("vision", ROOM), vector=strange[0])}
    scores = [d.score(d.initial_state(), tick, present)[1]["dog"].score for d in (plain, told)]
    assert scores[0] == pytest.approx(scores[1])


def combined_evidence(gains: Sequence[float], ranks: tuple[float, ...] = RANKS) -> float:
    return float(rank_weighted_sum(np.array(gains, np.float64).reshape(-1, 1), ranks)[0])


@given(gain=st.floats(0, 8), silent=st.integers(0, 4))
def test_the_strongest_modality_has_full_weight(gain: float, silent: int) -> None:
    for place in range(silent + 1):
        gains = [0.0] * silent
        gains.insert(place, gain)
        assert combined_evidence(gains) == pytest.approx(gain)


@given(gains=GAINS, more=st.floats(-2, 8))
@settings(max_examples=300)
def test_negative_evidence_of_a_modality_is_bounded(gains: list[float], more: float) -> None:
    change = combined_evidence([*gains, more]) - combined_evidence(gains)
    assert change >= min(more, 0.0) - 1e-9


def test_the_detector_bounds_negative_evidence(trained: PromptCalibration) -> None:
    full = replace(trained, doubt=0.5, words=replace(classifiers_of(trained), ranks=RANKS))
    detector, world = with_calibration(PromptDetector(PROMPTS, embed_text), full), ScriptedModalities(5, noise=0.6)
    tick = next(world.ticks(1))
    heard = {"audio": world.perceive("audio", DOG)}
    blind = world.perceive("vision", ROOM)
    assert log_likelihood_ratios(classifiers_of(full), "vision", [blind.vector])[0] < -0.5
    alone, both = (
        detector.score(detector.initial_state(), tick, present)[1]["dog"].score
        for present in (heard, {**heard, "vision": blind})
    )
    assert 0 < np.log(alone / (1 - alone)) - np.log(both / (1 - both)) <= 0.5 + 1e-9


def test_saved_classifiers_give_the_same_scores(trained: PromptCalibration, tmp_path: Path) -> None:
    trained.save(tmp_path / "taught.safetensors")
    kept = load(tmp_path / "taught.safetensors")
    before, after = classifiers_of(trained), classifiers_of(kept)
    assert (after.names, tuple(after.owners)) == (before.names, tuple(before.owners))
    assert (kept.space, kept.doubt) == (trained.space, trained.doubt) and set(after.modalities) == set(
        before.modalities
    )
    for label, (phrase, *_) in LABELS.items():
        assert matched_prompts(after, phrase) == [label]
    for modality in before.modalities:
        for what in (ROOM, DOG, CAMERA_VIEW_OF_DOG, {"forest": 1.0}):
            vectors = example_vectors(modality, what)
            was, now = log_likelihood_ratios(before, modality, vectors), log_likelihood_ratios(after, modality, vectors)
            assert now == pytest.approx(was, abs=0.05, nan_ok=True)


def test_a_damaged_file_is_refused_by_its_name(trained: PromptCalibration, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    words, audio = classifiers_of(trained), classifiers_of(trained).modalities["audio"]
    wrong = (
        replace(words, owners=words.owners + 5),
        replace(words, ranks=()),
        replace(words, ranks=(1.0, -1.0)),
        replace(words, modalities={"audio": replace(audio, weights=audio.weights[:, 1:])}),
        replace(words, modalities={"audio": replace(audio, biases=audio.biases[:1])}),
        replace(words, modalities={"audio": replace(audio, directions=audio.directions[:, 1:])}),
    )
    for bad in wrong:
        replace(trained, words=bad).save(path)
        with pytest.raises(CalibrationError, match=r"mine.safetensors.*sensebind calibrate"):
            load(path)
    trained.save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CalibrationError, match=r"mine.safetensors.*sensebind calibrate"):
        load(path)


def test_labels_with_too_few_examples_get_no_classifier(trained: PromptCalibration) -> None:
    car = classifiers_of(trained).names.index("car")
    assert all(np.isnan(sense.biases[car]) for sense in classifiers_of(trained).modalities.values())
    ticks, _ = labelled_stream(0)
    assert train_prompt_classifiers(LABELS, [(ticks, [])])[0] is None


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


def test_unlikely_labels_do_not_raise_other_labels(trained: PromptCalibration) -> None:
    plain = PromptDetector(PROMPTS, embed_text)
    rare = with_calibration(plain, replace(trained, words=replace(classifiers_of(trained), prior=1e-4)))
    world = ScriptedModalities(5)
    tick = next(world.ticks(1))
    strange = {"vision": replace(world.perceive("vision", ROOM), vector=example_vectors("vision", {"forest": 1.0})[0])}
    scores = [d.score(d.initial_state(), tick, strange)[1]["dog"].score for d in (plain, rare)]
    assert scores[0] == pytest.approx(scores[1])
