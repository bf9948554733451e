"""Calibration: fitted scores are probabilities, and modalities are weighted by their reliability."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from helpers.patrols import record_patrol
from helpers.scripted_modalities import DOG, HOP, PROMPTS, ROOM, SIZE, SPACE, START, ScriptedModalities, embed_text
from sensebind.cli import main
from sensebind.evaluation.reliability import reliability
from sensebind.fusion.config.detectors import make_detectors
from sensebind.fusion.config.parameters import detector_values
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.samples import SENSOR_MODALITIES
from sensebind.fusion.events import prompt_calibration as calibrations
from sensebind.fusion.events.evidence import logistic
from sensebind.fusion.events.prompt import PromptDetector, PromptOptions
from sensebind.fusion.events.prompt_calibration import (
    ANALYTIC,
    CalibrationError,
    ModalityCalibration,
    PromptCalibration,
    find_calibration,
    load,
)
from sensebind.fusion.events.prompt_classifiers import ModalityClassifiers, PromptClassifiers
from sensebind.fusion.events.proposals.naming import NamingCurve
from sensebind.fusion.models import registry
from sensebind.training.calibration import (
    CalibratedSpace,
    CalibrationExamples,
    collect_examples,
    fit_calibration,
    fit_calibration_on_streams,
    probability_metrics,
    with_calibration,
)
from sensebind.training.prompt_classifiers import (
    LabelledStream,
    LabelSpanNs,
    TickEmbeddings,
    nonnegative_logistic_regression,
)


def expected_calibration_error(scores: np.ndarray, truth: np.ndarray) -> float:
    error = reliability(scores, truth).expected_calibration_error
    assert error is not None and probability_metrics(scores, truth)["ece"] == round(error, 4)
    return error


TRAINED_IN = CalibratedSpace(SPACE, {"text": "t@1", "audio": "a@1", "vision": "v@1"}, source="scripted streams")
FITTED = PromptCalibration(SPACE, 0.05, {"audio": ModalityCalibration(0.5, 1.0, -4.0, 1.2)})


def two_modalities() -> PromptCalibration:
    """A calibration with curves and classifiers of audio and vision, for encoders with ids of their own."""
    phrases = embed_text(PROMPTS["dog"])
    own = ModalityClassifiers(
        2.0 * phrases[:1], np.zeros(1), np.zeros(SIZE, np.float32), np.eye(SIZE, dtype=np.float32), 9.0
    )
    classifiers = PromptClassifiers(
        ("dog",), phrases, np.zeros(2, np.intp), 0.9, {"audio": own, "vision": own}, (1.0, 0.5), 0.02
    )
    curves = {"audio": ModalityCalibration(0.5, 1.0, -4.0, 1.2, "real sounds"), "vision": ModalityCalibration(1, 0, -3)}
    return PromptCalibration(SPACE, 0.05, curves, classifiers, encoders=TRAINED_IN.encoders)


TWO_MODALITIES = two_modalities()


def test_a_modality_whose_encoder_is_the_same_keeps_its_calibration_when_another_encoder_is_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.safetensors"
    TWO_MODALITIES.save(path)
    whole = find_calibration(str(path), SPACE, TRAINED_IN.encoders)
    assert whole is not None and not whole.lost_modalities and not whole.warnings(["audio", "vision"])
    part = find_calibration(str(path), "toy@2", {**TRAINED_IN.encoders, "vision": "v@2"})
    assert part is not None and part.classifiers is not None and whole.classifiers is not None
    assert part.modalities == {"audio": TWO_MODALITIES.modalities["audio"]} and part.lost_modalities == ("vision",)
    assert part.sources == {"audio": "real sounds", "vision": ANALYTIC}
    assert list(part.classifiers.modalities) == ["audio"]
    np.testing.assert_array_equal(
        part.classifiers.modalities["audio"].weights, whole.classifiers.modalities["audio"].weights
    )
    (warning,) = part.warnings(["audio", "vision"])
    assert "vision" in warning and str(path) in warning and "sensebind calibrate" in warning
    assert "v@1" in warning and not part.warnings(["audio"])
    alone = find_calibration(str(path), "toy@2", {"text": "t@1", "audio": "a@1"})
    assert alone is not None and not alone.lost_modalities, "a modality that the space does not have is not lost"


@pytest.mark.parametrize(
    "encoders",
    [
        {"text": "t@2", "audio": "a@1", "vision": "v@1"},
        {"text": "t@1", "audio": "a@2", "vision": "v@2"},
        {"text": "t@1", "audio": "a@2"},
        {"text": "t@1", "audio": "a@2", "vision": "v@2", "depth": "d@1"},
        {},
    ],
)
def test_a_calibration_that_fits_no_modality_is_an_error(tmp_path: Path, encoders: dict[str, str]) -> None:
    path = tmp_path / "mine.safetensors"
    replace(TWO_MODALITIES, encoders={**TRAINED_IN.encoders, "depth": "d@1"}).save(path)
    with pytest.raises(CalibrationError, match=r"fits no modality of the space 'toy@2'.*sensebind calibrate"):
        find_calibration(str(path), "toy@2", encoders)


def stream(seed: int) -> tuple[list[TickEmbeddings], list[LabelSpanNs]]:
    """Return ticks and true spans of a stream whose audio depends on the label and whose vision does not."""
    world, random = ScriptedModalities(seed, noise=1.0), np.random.default_rng(seed)
    ticks, spans, present = [], [], False
    for number, tick in enumerate(world.ticks(400)):
        if number % 10 == 0:
            present = random.random() < 0.3
        if present:
            spans.append((tick - HOP, tick, "dog"))
        camera = DOG if random.random() < 0.1 else ROOM
        ticks.append((tick, {"audio": world.perceive("audio", DOG if present else ROOM),
                             "vision": world.perceive("vision", camera)}))  # fmt: skip
    return ticks, spans


def test_nonnegative_logistic_regression_recovers_the_sigmoid_of_the_labels() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(20_000, 2))
    truth = random.random(20_000) < logistic(-1.0 + 2.0 * inputs[:, 0] + 0.5 * inputs[:, 1])
    assert nonnegative_logistic_regression(inputs, truth.astype(float)) == pytest.approx((-1.0, 2.0, 0.5), abs=0.12)
    assert nonnegative_logistic_regression(-inputs, truth.astype(float))[1:] == pytest.approx((0.0, 0.0))


def test_a_calibration_gives_probabilities_on_a_stream_that_it_was_not_fitted_on() -> None:
    detector = PromptDetector(PROMPTS, embed_text)
    fitted = fit_calibration_on_streams(detector, [stream(seed) for seed in (1, 2, 3)], TRAINED_IN)
    held_out = stream(4)
    before = collect_examples(detector, *held_out)
    after = collect_examples(with_calibration(detector, fitted), *held_out)
    assert expected_calibration_error(after.scores, after.truth) <= 0.05
    assert (
        probability_metrics(after.scores, after.truth)["brier"]
        < probability_metrics(before.scores, before.truth)["brier"]
    )
    assert fitted.modalities["audio"].reliability > 3 * fitted.modalities["vision"].reliability
    assert (fitted.space, fitted.encoders) == (SPACE, TRAINED_IN.encoders)
    assert fitted.sources == {"audio": "scripted streams", "vision": "scripted streams"}


def test_a_fit_needs_positive_and_negative_examples() -> None:
    nothing = CalibrationExamples(np.zeros(50, bool), np.zeros(50), {"audio": np.zeros((50, 3))})
    with pytest.raises(CalibrationError, match="label more"):
        fit_calibration(nothing, TRAINED_IN)
    truth = np.arange(80) < 40
    inputs = np.full((80, 3), np.nan)
    inputs[:5] = inputs[-5:] = 1.0  # enough ticks in all, too few with this modality
    with pytest.raises(CalibrationError, match="no modality has"):
        fit_calibration(CalibrationExamples(truth, np.zeros(80), {"audio": inputs}), TRAINED_IN)


def test_without_competence_for_words_a_modality_gets_classifiers_and_no_score_curve() -> None:
    def blind(phrases: Sequence[str]) -> dict[str, list[float]]:
        return {"audio": [0.0] * len(phrases)}

    def audio_alone(seed: int) -> LabelledStream:
        ticks, spans = stream(seed)
        return [(tick, {"audio": present["audio"]}) for tick, present in ticks], spans

    detector = PromptDetector(PROMPTS, embed_text, PromptOptions(calibration="none"), blind)
    fitted = fit_calibration_on_streams(detector, [audio_alone(seed) for seed in (1, 2, 3)], TRAINED_IN)
    assert fitted.modalities == {} and fitted.classifiers is not None
    assert set(fitted.classifiers.modalities) == {"audio"} and fitted.fitted_modalities == ("audio",)
    held_out = audio_alone(4)
    after = collect_examples(with_calibration(detector, fitted), *held_out)
    assert probability_metrics(after.scores, after.truth)["roc_auc"] > 0.8
    limited = replace(TRAINED_IN, limited_modalities=frozenset({"audio"}))
    with pytest.raises(CalibrationError, match="label more"):
        fit_calibration_on_streams(detector, [audio_alone(1)], limited)


def test_metrics_of_probabilities_have_the_expected_values() -> None:
    truth = np.array([True, False, True, False])
    assert expected_calibration_error(np.full(4, 0.5), truth) == 0
    assert expected_calibration_error(np.ones(4), truth) == 0.5
    assert probability_metrics(np.array([0.9, 0.1, 0.8, 0.2]), truth)["roc_auc"] == 1.0


def test_a_calibration_file_is_only_used_in_its_space(tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    FITTED.save(path, {"recordings": 2})
    assert load(path) == FITTED == find_calibration(str(path), SPACE)
    with pytest.raises(CalibrationError, match="toy@2"):
        find_calibration(str(path), "toy@2")
    with safetensors.safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["calibration"])
    del metadata["encoders"], metadata["modalities"]["audio"]["source"]
    older = {"format": "sensebind calibration 2", "calibration": json.dumps(metadata)}
    safetensors.numpy.save_file({}, path, older)
    assert load(path) == FITTED == find_calibration(str(path), SPACE, {"text": "t@1", "audio": "a@1"})
    with pytest.raises(CalibrationError, match="toy@2"):
        find_calibration(str(path), "toy@2")
    FITTED.save(path)
    assert find_calibration("none", SPACE) is None and find_calibration("", "nobody@0") is None
    data = path.read_bytes()
    for bad in (b"", b"[]", data[:-1], data[:200], data.replace(b"calibration 3", b"calibration 9")):
        path.write_bytes(bad)
        with pytest.raises(CalibrationError, match="sensebind calibrate"):
            load(path)
    for version in (1, 2, 3):
        for content in ("1", "[]", '{"modalities": 1}', '{"senses": [1]}', '{"senses": {"audio": 1}, "words": 2}'):
            header = {"format": f"sensebind calibration {version}", "calibration": content}
            safetensors.numpy.save_file({}, path, header)
            with pytest.raises(CalibrationError, match="sensebind calibrate"):
                load(path)
    replace(FITTED, prior=2.0).save(path)
    with pytest.raises(CalibrationError, match="sensebind calibrate"):
        load(path)
    with pytest.raises(CalibrationError, match="cannot be read"):
        load(tmp_path / "none.safetensors")


def test_the_shipped_calibration_is_found_by_the_encoders_and_one_with_classifiers_by_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FITTED.save(tmp_path / "some.safetensors")
    monkeypatch.setattr(calibrations, "SHIPPED_FOLDER", tmp_path)
    assert find_calibration("", SPACE) == FITTED and find_calibration("", "toy@2") is None
    assert find_calibration("some", SPACE) == FITTED
    replace(FITTED, classifiers=TWO_MODALITIES.classifiers).save(tmp_path / "some.safetensors")
    assert find_calibration("", SPACE) is None
    named = find_calibration("some", SPACE)
    assert named is not None and named.classifiers is not None
    with pytest.raises(CalibrationError, match="cannot be read"):
        find_calibration("other", SPACE)


def test_a_file_keeps_the_part_of_the_vectors_that_a_naming_curve_compares(tmp_path: Path) -> None:
    for dimensions in (None, (3, 40)):
        given = replace(FITTED, naming={"audio": NamingCurve(30.0, 14.0, -3.0, "test", dimensions)})
        given.save(tmp_path / "some.safetensors")
        assert load(tmp_path / "some.safetensors").naming == given.naming
    replace(FITTED, naming={"audio": NamingCurve(30.0, 14.0, -3.0, "test", (40, 3))}).save(tmp_path / "bad.safetensors")
    with pytest.raises(CalibrationError, match="bad.safetensors.*dimensions 40 to 3"):
        load(tmp_path / "bad.safetensors")


def test_the_default_calibration_of_the_starter_has_no_classifiers_and_states_the_source_of_each_curve() -> None:
    space = registry.load_space("starter", modalities=["text"])
    encoders = {m: space.encoder_id(m) for m in ("text", *SENSOR_MODALITIES)}
    default = find_calibration("", space.id, encoders)
    house = find_calibration("starter_house", space.id, encoders)
    assert default is not None and default.classifiers is None and not default.lost_modalities
    assert set(default.sources) == set(SENSOR_MODALITIES)
    fitted = {*default.modalities, *default.naming}
    assert all((source == ANALYTIC) is (m not in fitted) for m, source in default.sources.items())
    own_sounds = find_calibration("", space.id, {**encoders, "audio": "own@1"})
    assert "audio" in default.naming and own_sounds is not None and "audio" not in own_sounds.naming
    (warning,) = own_sounds.warnings(list(SENSOR_MODALITIES))
    assert "has for audio is not used" in warning and encoders["audio"] in warning
    assert house is not None and house.classifiers is not None and not house.lost_modalities
    assert set(house.classifiers.class_names) >= {"person", "fire"}
    assert set(house.classifiers.modalities) == set(SENSOR_MODALITIES)
    assert house.classifiers.limited_modalities == {"imu"}


def test_the_detector_is_calibrated_by_parameter(tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    FITTED.save(path)
    given = {"prompts.dog": ["a dog"], "prompts.car": ["a car"], "prompt.calibration": str(path)}
    values = detector_values(given)
    detector = make_detectors(values, embed_text)[0]
    assert isinstance(detector, PromptDetector)
    embedding = ScriptedModalities().perceive("audio", DOG)
    state, scores = detector.score(detector.initial_state(), START, {"audio": embedding})
    audio = state.sensor_states["audio"]
    assert audio.scores == pytest.approx(FITTED.modalities["audio"].probabilities(audio.deviations, audio.margins))
    assert scores["dog"].score > 0.5 > scores["car"].score
    _, without_windows = detector.score(state, START + 60 * 2 * HOP, {})
    assert without_windows["dog"].score == pytest.approx(0.05)
    with pytest.raises(CalibrationError, match="cannot be read"):
        make_detectors({**values, "prompt.calibration": str(tmp_path / "none.safetensors")}, embed_text)


def test_a_calibration_prior_is_limited_to_half_of_the_offset_threshold() -> None:
    detector = with_calibration(PromptDetector(PROMPTS, embed_text), replace(FITTED, prior=0.45))
    _, scores = detector.score(detector.initial_state(), START, {})
    assert scores["dog"].score <= detector.lifecycle_options.offset_threshold / 2


def test_unknown_detectors_are_rejected_and_named() -> None:
    with pytest.raises(ConfigError, match="'detectors' must be some of prompt, .*change, fault, not 'smell'"):
        detector_values({"detectors": ["prompt", "smell"]})


def test_a_labelled_recording_becomes_a_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag, out, config = tmp_path / "bag", tmp_path / "calibration.safetensors", tmp_path / "config.yaml"
    record_patrol(bag, duration=17.0)
    config.write_text(
        "/**:\n  ros__parameters:\n    space: starter\n    modalities: [vision]\n"
        "    prompts: {person: [an astronaut], cat: [a cat], car: [a car]}\n"
    )
    assert main(["calibrate", str(bag), "-o", str(out), "--config", str(config)]) == 0
    assert "brier" in capsys.readouterr().out
    assert set(load(out).modalities) == {"vision"} and load(out).space.startswith("starter@")
    assert main(["calibrate", str(bag), "--truth", str(out), str(out), "-o", str(out)]) == 2
    assert main(["calibrate", str(bag), "--truth", str(out), "-o", str(out), "--config", str(config)]) == 2
