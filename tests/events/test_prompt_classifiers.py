"""Trained prompt classifiers: match of phrases, out-of-distribution vectors, and fusion of modalities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.scripted_modalities import DOG, HOP, PROMPTS, ROOM, SIZE, SPACE, ScriptedModalities, embed_text
from sensebind.cli import main
from sensebind.fusion.core.embeddings import Vector, l2_normalize
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.prompt_calibration import CalibrationError, ModalityCalibration, PromptCalibration, load
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers, rank_weighted_sum
from sensebind.training.calibration import with_calibration
from sensebind.training.prompt_classifiers import LabelledStream, LabelSpanNs, TickEmbeddings, train_prompt_classifiers

LABELS = {label: embed_text(phrases) for label, phrases in PROMPTS.items()}
CAMERA_VIEW_OF_DOG = {"room": 1.0, "hum": 1.0}  # image of a dog: dissimilar to all phrases
RANK_WEIGHTS = (1.0, 0.5, 0.25)
GAINS = st.lists(st.floats(-4, 8), min_size=0, max_size=6)


def labelled_stream(seed: int) -> LabelledStream:
    """A stream with dogs and no cars: audio like the phrase, vision unlike it, imu without information."""
    world, random = ScriptedModalities(seed, noise=0.6), np.random.default_rng(seed)
    ticks: list[TickEmbeddings] = []
    spans: list[LabelSpanNs] = []
    present = False
    for number, tick in enumerate(world.ticks(240)):
        if number % 8 == 0:
            present = bool(random.random() < 0.4)
        if present:
            spans.append((tick - HOP, tick, "dog"))
        ticks.append((tick, {"audio": world.perceive("audio", DOG if present else ROOM),
                             "imu": world.perceive("imu", ROOM),
                             "vision": world.perceive("vision", CAMERA_VIEW_OF_DOG if present else ROOM)}))  # fmt: skip
    return ticks, spans


@pytest.fixture(scope="module")
def trained() -> PromptCalibration:
    classifiers, max_negative_evidence = train_prompt_classifiers(LABELS, [labelled_stream(seed) for seed in range(5)])
    assert classifiers is not None
    return PromptCalibration(SPACE, 0.02, {}, classifiers, max_negative_evidence)


def classifiers_of(calibration: PromptCalibration) -> PromptClassifiers:
    assert calibration.classifiers is not None
    return calibration.classifiers


def matched_prompts(classifiers: PromptClassifiers, *phrases: Vector) -> list[str]:
    flags = classifiers.match_labels(l2_normalize(np.stack(phrases)), np.array([0], np.intp))[0]
    return [name for name, flag in zip(classifiers.class_names, flags, strict=True) if flag]


def log_likelihood_ratios(classifiers: PromptClassifiers, modality: str, vectors: Sequence[Vector]) -> np.ndarray:
    """Return the ratios of the label `dog` for N vectors, (N,)."""
    dog = np.array([[name == "dog" for name in classifiers.class_names]])
    return np.array([float(classifiers.log_likelihood_ratios(modality, vector, dog)[0]) for vector in vectors])


def example_vectors(modality: str, what: dict[str, float], count: int = 40, seed: int = 99) -> list[Vector]:
    world = ScriptedModalities(seed, noise=0.6)
    return [world.perceive(modality, what).vector for _ in world.ticks(count)]


def test_a_phrase_uses_the_nearest_classifier_or_none(trained: PromptCalibration) -> None:
    classifiers = classifiers_of(trained)
    noise = np.random.default_rng(3).normal(size=SIZE) / np.sqrt(SIZE)
    for label, (phrase, *_) in LABELS.items():
        assert matched_prompts(classifiers, phrase) == [label]
        assert matched_prompts(classifiers, (phrase + 0.3 * noise).astype(np.float32)) == [label]
    assert matched_prompts(classifiers, noise.astype(np.float32)) == []


def test_a_label_can_use_two_classifiers(trained: PromptCalibration) -> None:
    assert sorted(matched_prompts(classifiers_of(trained), LABELS["dog"][1], LABELS["car"][0])) == ["car", "dog"]


def test_uninformative_modalities_give_ratios_near_zero(
    trained: PromptCalibration,
) -> None:
    classifiers = classifiers_of(trained)
    for modality, dog in (("audio", DOG), ("vision", CAMERA_VIEW_OF_DOG)):
        assert np.nanmedian(log_likelihood_ratios(classifiers, modality, example_vectors(modality, dog))) > 1
        assert np.nanmedian(log_likelihood_ratios(classifiers, modality, example_vectors(modality, ROOM))) < -1
    assert np.nanmax(np.abs(log_likelihood_ratios(classifiers, "imu", example_vectors("imu", ROOM)))) < 0.5


def test_trained_classifiers_detect_what_similarity_misses(trained: PromptCalibration) -> None:
    plain = PromptDetector(PROMPTS, embed_text)
    world = ScriptedModalities(5, noise=0.6)
    tick = next(world.ticks(1))
    present = {"vision": world.perceive("vision", CAMERA_VIEW_OF_DOG)}
    by_similarity = plain.score(plain.initial_state(), tick, present)[1]["dog"].score
    prior = plain.options.prior  # so that both have the same score without evidence
    calibrated = with_calibration(plain, replace(trained, classifiers=replace(classifiers_of(trained), prior=prior)))
    by_classifier = calibrated.score(calibrated.initial_state(), tick, present)[1]["dog"].score
    lifecycle = plain.lifecycle_options
    assert by_similarity < lifecycle.offset_threshold < lifecycle.onset_threshold < by_classifier


def test_out_of_distribution_vectors_give_no_evidence(trained: PromptCalibration) -> None:
    classifiers = classifiers_of(trained)
    unlike = example_vectors("vision", {"forest": 1.0})
    dogs = example_vectors("vision", CAMERA_VIEW_OF_DOG)
    assert np.isnan(log_likelihood_ratios(classifiers, "vision", unlike)).all()
    assert not np.isnan(log_likelihood_ratios(classifiers, "vision", dogs)).any()
    assert np.isnan(log_likelihood_ratios(classifiers, "thermal", unlike)).all()  # a modality without training data

    plain = PromptDetector(PROMPTS, embed_text)
    same_prior = replace(trained, classifiers=replace(classifiers_of(trained), prior=plain.options.prior))
    calibrated, world = with_calibration(plain, same_prior), ScriptedModalities(5)
    tick = next(world.ticks(1))
    present = {"vision": replace(world.perceive("vision", ROOM), vector=unlike[0])}
    scores = [d.score(d.initial_state(), tick, present)[1]["dog"].score for d in (plain, calibrated)]
    assert scores[0] == pytest.approx(scores[1])


def combined_evidence(gains: Sequence[float], rank_weights: tuple[float, ...] = RANK_WEIGHTS) -> float:
    return float(rank_weighted_sum(np.array(gains, np.float64).reshape(-1, 1), rank_weights)[0])


@given(gain=st.floats(0, 8), others=st.integers(0, 4))
def test_the_strongest_modality_has_full_weight(gain: float, others: int) -> None:
    for position in range(others + 1):
        gains = [0.0] * others
        gains.insert(position, gain)
        assert combined_evidence(gains) == pytest.approx(gain)


@given(gains=GAINS, more=st.floats(-2, 8))
@settings(max_examples=300)
def test_negative_evidence_of_a_modality_is_bounded(gains: list[float], more: float) -> None:
    change = combined_evidence([*gains, more]) - combined_evidence(gains)
    assert change >= min(more, 0.0) - 1e-9


def test_the_detector_bounds_negative_evidence(trained: PromptCalibration) -> None:
    limited = replace(
        trained, max_negative_evidence=0.5, classifiers=replace(classifiers_of(trained), rank_weights=RANK_WEIGHTS)
    )
    detector, world = with_calibration(PromptDetector(PROMPTS, embed_text), limited), ScriptedModalities(5, noise=0.6)
    tick = next(world.ticks(1))
    positive = {"audio": world.perceive("audio", DOG)}
    negative = world.perceive("vision", ROOM)
    assert log_likelihood_ratios(classifiers_of(limited), "vision", [negative.vector])[0] < -0.5
    alone, both = (
        detector.score(detector.initial_state(), tick, present)[1]["dog"].score
        for present in (positive, {**positive, "vision": negative})
    )
    assert 0 < np.log(alone / (1 - alone)) - np.log(both / (1 - both)) <= 0.5 + 1e-9


def test_saved_classifiers_give_the_same_scores(trained: PromptCalibration, tmp_path: Path) -> None:
    trained.save(tmp_path / "trained.safetensors")
    loaded = load(tmp_path / "trained.safetensors")
    before, after = classifiers_of(trained), classifiers_of(loaded)
    assert (after.class_names, tuple(after.phrase_classes)) == (before.class_names, tuple(before.phrase_classes))
    assert (loaded.space, loaded.max_negative_evidence) == (trained.space, trained.max_negative_evidence) and set(
        after.modalities
    ) == set(before.modalities)
    for label, (phrase, *_) in LABELS.items():
        assert matched_prompts(after, phrase) == [label]
    for modality in before.modalities:
        for what in (ROOM, DOG, CAMERA_VIEW_OF_DOG, {"forest": 1.0}):
            vectors = example_vectors(modality, what)
            expected = log_likelihood_ratios(before, modality, vectors)
            found = log_likelihood_ratios(after, modality, vectors)
            assert found == pytest.approx(expected, abs=0.05, nan_ok=True)


def test_a_damaged_file_is_rejected_and_named(trained: PromptCalibration, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    classifiers, audio = classifiers_of(trained), classifiers_of(trained).modalities["audio"]
    damaged = (
        replace(classifiers, phrase_classes=classifiers.phrase_classes + 5),
        replace(classifiers, rank_weights=()),
        replace(classifiers, rank_weights=(1.0, -1.0)),
        replace(classifiers, modalities={"audio": replace(audio, weights=audio.weights[:, 1:])}),
        replace(classifiers, modalities={"audio": replace(audio, biases=audio.biases[:1])}),
        replace(
            classifiers, modalities={"audio": replace(audio, principal_directions=audio.principal_directions[:, 1:])}
        ),
    )
    for bad in damaged:
        replace(trained, classifiers=bad).save(path)
        with pytest.raises(CalibrationError, match=r"mine.safetensors.*sensebind calibrate"):
            load(path)
    trained.save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CalibrationError, match=r"mine.safetensors.*sensebind calibrate"):
        load(path)


def test_labels_with_too_few_examples_get_no_classifier(trained: PromptCalibration) -> None:
    car = classifiers_of(trained).class_names.index("car")
    assert all(np.isnan(m.biases[car]) for m in classifiers_of(trained).modalities.values())
    ticks, _ = labelled_stream(0)
    assert train_prompt_classifiers(LABELS, [(ticks, [])])[0] is None


def test_simulate_adds_sensor_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario, bag = tmp_path / "short.yaml", tmp_path / "bag"
    scenario.write_text("duration: 3\nevents:\n  - {type: knock, at: 1}\n")
    command = ["simulate", "--scenario", str(scenario), "-o", str(bag)]
    assert main([*command, "--fault", "thermal:unplugged:1:1.5", "--fault", "imu:frozen"]) == 0
    rows = Path(f"{bag}.faults.tsv").read_text().splitlines()[1:]
    assert sorted(rows) == ["0.000\t3.000\timu\tfrozen", "1.000\t2.500\tthermal\tunplugged"]
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
    rare = with_calibration(plain, replace(trained, classifiers=replace(classifiers_of(trained), prior=1e-4)))
    world = ScriptedModalities(5)
    tick = next(world.ticks(1))
    unlike = {"vision": replace(world.perceive("vision", ROOM), vector=example_vectors("vision", {"forest": 1.0})[0])}
    scores = [d.score(d.initial_state(), tick, unlike)[1]["dog"].score for d in (plain, rare)]
    assert scores[0] == pytest.approx(scores[1])


def test_a_calibration_file_of_version_0_1_0_is_read(trained: PromptCalibration, tmp_path: Path) -> None:
    path, old_path = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    trained.save(path, {"recordings": 3})
    with safetensors.safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["calibration"])
    own = metadata["classifiers"]
    curves = {"audio": {"deviation": 1.0, "lead": 0.5, "bias": -3.0, "reliability": 0.8}}
    old = {
        "space": metadata["space"],
        "prior": metadata["prior"],
        "notes": {"recordings": 3},
        "senses": curves,
        "doubt": metadata["max_negative_evidence"],
        "words": {
            "names": own["class_names"],
            "owners": own["phrase_classes"],
            "near": own["min_similarity"],
            "reaches": own["residual_thresholds"],
            "ranks": own["rank_weights"],
            "prior": own["prior"],
        },
    }
    old_names = {"phrase_vectors": "phrases", "mean": "middle", "principal_directions": "directions"}
    tensors = {}
    for name, tensor in safetensors.numpy.load_file(path).items():
        modality, dot, last = name.rpartition(".")
        tensors[f"{modality}{dot}{old_names.get(last, last)}"] = tensor
    header = {"format": "sensebind calibration 1", "calibration": json.dumps(old)}
    safetensors.numpy.save_file(tensors, old_path, header)
    before, after = load(path), load(old_path)
    assert after.modalities == {"audio": ModalityCalibration(1.0, 0.5, -3.0, 0.8)}
    assert after.max_negative_evidence == before.max_negative_evidence
    expected, found = classifiers_of(before), classifiers_of(after)
    assert (found.class_names, found.rank_weights) == (expected.class_names, expected.rank_weights)
    for modality in expected.modalities:
        vectors = example_vectors(modality, DOG)
        ratios = log_likelihood_ratios(expected, modality, vectors)
        np.testing.assert_array_equal(log_likelihood_ratios(found, modality, vectors), ratios)
