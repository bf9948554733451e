"""A modality that cannot recognise a label neither supports nor opposes its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.scripted_modalities import CONCEPTS, DOG, PROMPTS, ROOM, SIZE, SPACE, ScriptedModalities, embed_text
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Evidence, Score
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.events.prompt_classifiers import ModalityClassifiers, PromptClassifiers
from sensebind.fusion.events.proposals.naming import best_similarities
from sensebind.training.calibration import collect_examples, with_calibration
from sensebind.training.prompt_classifiers import train_prompt_classifiers


def detector(competences: Mapping[str, float], **options: Any) -> PromptDetector:
    """A detector whose `imu` has these competences for phrases; 1 for others."""
    return PromptDetector(
        PROMPTS,
        embed_text,
        PromptOptions(calibration="none", **options),
        lambda phrases: {"imu": [competences.get(phrase, 1.0) for phrase in phrases]},
    )


def score(found: PromptDetector, embeddings: Mapping[str, Embedding], label: str = "dog") -> Score:
    (tick,) = {embedding.tick for embedding in embeddings.values()}
    return found.score(found.initial_state(), tick, embeddings)[1][label]


def evidence(found: Score, modality: str) -> Evidence:
    (own,) = [e for e in found.evidence if e.modality == modality]
    return own


def perceive(seed: int = 0, coverage: float = 1.0, **modalities: Mapping[str, float]) -> dict[str, Embedding]:
    world = ScriptedModalities(seed)
    tick = next(world.ticks(1))
    return {m: replace(world.perceive(m, what, coverage), start=tick - 10**9) for m, what in modalities.items()}


BLIND = {"a dog": 0.0, "a puppy": 0.0}


def test_without_competence_a_modality_does_not_change_the_score() -> None:
    for what in (DOG, ROOM):
        both = perceive(vision=DOG, imu=what)
        alone = {"vision": both["vision"]}
        assert score(detector(BLIND), both).score == pytest.approx(score(detector(BLIND), alone).score)
        assert score(detector({}), both).score != pytest.approx(score(detector({}), alone).score, abs=1e-3)
    only = score(detector(BLIND), perceive(imu=DOG))
    assert only.score == pytest.approx(PromptOptions().prior)
    own = evidence(only, "imu")
    assert (own.supports, own.weight, own.competence) == (False, 0.0, 0.0) and own.score > 0.9
    assert only.timestamp_correction == 0, "no modality has an onset to correct"
    assert score(detector(BLIND), perceive(imu={"car": 1.0}), "car").score > 0.9, "other labels are not limited"


def test_the_weight_of_evidence_is_multiplied_by_the_competence() -> None:
    seen = perceive(coverage=0.8, imu=DOG)
    full, half = (evidence(score(detector(dict.fromkeys(BLIND, c)), seen), "imu") for c in (1.0, 0.5))
    assert full.weight == pytest.approx(0.8) and half.weight == pytest.approx(0.4)
    assert full.competence == 1 and half.competence == 0.5 and full.score == half.score
    assert full.supports and half.supports
    assert not evidence(score(detector(dict.fromkeys(BLIND, 0.49)), seen), "imu").supports


def test_the_competence_for_a_label_is_the_highest_of_its_phrases() -> None:
    assert detector({"a dog": 0.0, "a puppy": 0.7}).competence("imu").tolist() == [1.0, 0.7]
    assert detector(BLIND).competence("vision").tolist() == [1.0, 1.0]


def test_of_a_label_only_the_phrases_that_a_modality_can_recognise_count() -> None:
    dog, puppy, starts = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0])
    phrases = np.stack([dog, puppy])
    assert best_similarities(dog, phrases, starts).tolist() == [1.0]
    assert best_similarities(dog, phrases, starts, np.array([False, True])).tolist() == [0.0]
    seen = perceive(imu=DOG)
    full, mixed = (score(detector(of), seen) for of in ({}, {"a dog": 0.0}))
    assert full.score > 0.9 and mixed.similarities[0] < full.similarities[0]
    assert score(detector(BLIND), seen).similarities == full.similarities  # reported all the same


def test_a_modality_without_competence_does_not_count_for_min_modalities() -> None:
    seen = perceive(vision=DOG, imu=DOG)
    assert score(detector({}, min_modalities=2), seen).score > 0.9
    assert score(detector(BLIND, min_modalities=2), seen).score < 0.1


def one_classifier(ratio: float, slope: float = 0.0) -> PromptCalibration:
    """A calibration in which `imu` has the log likelihood ratio `ratio` for a dog, plus `slope` times the concept."""
    own = ModalityClassifiers(
        (slope * CONCEPTS["dog"])[None],
        np.array([ratio]),
        np.zeros(SIZE, np.float32),
        np.eye(SIZE, dtype=np.float32),
        9,
    )
    phrases = embed_text(PROMPTS["dog"])
    classifiers = PromptClassifiers(("dog",), phrases, np.zeros(2, np.intp), 0.9, {"imu": own}, (1.0, 0.5), 0.02)
    return PromptCalibration(SPACE, 0.02, {}, classifiers)


@pytest.mark.parametrize("ratio", [6.0, -6.0])
def test_a_classifier_that_does_not_depend_on_the_vector_gives_no_competence(ratio: float) -> None:
    seen = perceive(vision=DOG, imu=ROOM)
    trained = with_calibration(detector({}), one_classifier(ratio))
    assert score(trained, seen).score != pytest.approx(score(detector({}), seen).score, abs=1e-3)
    blind = with_calibration(detector(BLIND), one_classifier(ratio))
    assert score(blind, seen).score == pytest.approx(score(detector({}), {"vision": seen["vision"]}).score)
    own = evidence(score(blind, seen), "imu")
    assert (own.supports, own.weight) == (False, 0.0)


def test_a_trained_classifier_gives_its_modality_the_competence_for_its_label() -> None:
    trained = one_classifier(-2.0, slope=12.0)
    detectors = [with_calibration(detector(BLIND), calibration) for calibration in (None, trained)]
    assert [d.competence("imu", trained).tolist() for d in detectors] == [[1.0, 1.0]] * 2
    assert detectors[0].competence("imu").tolist() == [1.0, 0.0], "car, dog"
    seen = perceive(imu=DOG)
    plain, classified = (evidence(score(d, seen), "imu") for d in detectors)
    assert (plain.competence, plain.weight, plain.supports) == (0.0, 0.0, False)
    assert (classified.competence, classified.weight, classified.supports) == (1.0, 1.0, True)
    assert [d.unrecognisable_labels(["imu"], SPACE) for d in detectors] == [["dog"], []]
    assert trained.classifiers is not None
    limited = replace(trained, classifiers=replace(trained.classifiers, limited_modalities=frozenset({"imu"})))
    own = evidence(score(with_calibration(detector(BLIND), limited), seen), "imu")
    assert (own.competence, own.weight, own.supports) == (0.0, 0.0, False)


def test_a_window_that_no_classifier_scores_gives_no_competence() -> None:
    found = one_classifier(-2.0, slope=12.0)
    assert found.classifiers is not None
    narrow = replace(
        found.classifiers.modalities["imu"], residual_threshold=-1.0
    )  # every vector is out of distribution
    nothing = replace(found, classifiers=replace(found.classifiers, modalities={"imu": narrow}))
    seen = perceive(vision=DOG, imu=DOG)
    own = score(with_calibration(detector(BLIND), nothing), seen)
    assert evidence(own, "imu").competence == 0.0
    assert own.score == pytest.approx(score(detector(BLIND), {"vision": seen["vision"]}).score)


def test_labels_that_no_present_modality_can_recognise_are_named() -> None:
    found = detector(BLIND)
    assert found.unrecognisable_labels(["imu"]) == ["dog"]
    assert found.unrecognisable_labels(["imu", "vision"]) == [] == found.unrecognisable_labels([])
    assert detector({"a dog": 0.4, "a puppy": 0.4}).unrecognisable_labels(["imu"]) == ["dog"]
    assert detector({"a dog": 0.4, "a puppy": 0.6}).unrecognisable_labels(["imu"]) == []


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0, 2.0], [1.0, np.nan, 1.0]])
def test_competences_that_do_not_fit_are_an_error(values: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="competence of 'imu'"):
        PromptDetector(PROMPTS, embed_text, None, lambda phrases: {"imu": values})


def test_a_calibration_learns_nothing_from_a_modality_without_competence() -> None:
    world, spans, ticks = ScriptedModalities(3), [], []
    for number, tick in enumerate(world.ticks(80)):
        what = DOG if number % 8 < 3 else ROOM
        spans += [(tick - 500_000_000, tick, "dog")] if what is DOG else []
        ticks.append((tick, {m: world.perceive(m, what) for m in ("imu", "vision")}))
    inputs = collect_examples(detector(BLIND), ticks, spans).inputs
    dogs = np.arange(len(inputs["imu"])) % 2 == 1
    assert np.isnan(inputs["imu"][dogs]).all() and not np.isnan(inputs["vision"][dogs]).any()
    assert not np.isnan(inputs["imu"][~dogs]).any()
    labels = {"dog": embed_text(PROMPTS["dog"])}
    found, _ = train_prompt_classifiers(labels, [(ticks, spans)], {"imu": np.zeros(1)}, frozenset({"imu"}))
    assert found is not None and set(found.modalities) == {"vision"}
