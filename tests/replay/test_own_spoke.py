"""An own spoke replaces one encoder: the other modalities keep their calibration, and a warning names the one that lost
its own."""

from __future__ import annotations

import pytest

from helpers.own_spokes import write_own_spoke
from sensebind.fusion.config.files import shipped_parameter_file
from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.events import Score
from sensebind.fusion.core.samples import SECOND, SENSOR_MODALITIES, THERMAL
from sensebind.fusion.core.space import Space
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.models import registry
from sensebind.replay.session import Settings, prompt_warnings

OTHERS = [modality for modality in SENSOR_MODALITIES if modality != THERMAL]
SETTINGS = Settings.read(shipped_parameter_file("house.yaml"))


@pytest.fixture(scope="module")
def shipped() -> Space:
    return registry.load_space("starter")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """The starter with another spoke for thermal images: the shipped one with other weights."""
    path = write_own_spoke(THERMAL, tmp_path_factory.mktemp("spoke") / "my_thermal.safetensors")
    return registry.load_space("starter", spokes=[str(path)])


def house_detector(space: Space) -> tuple[PromptDetector, PromptCalibration]:
    detector = next(d for d in SETTINGS.detectors(space) if isinstance(d, PromptDetector))
    calibration = detector.calibration(space.id)
    assert calibration is not None and calibration.classifiers is not None
    return detector, calibration


def scores_of_typical_vectors(space: Space, calibration: PromptCalibration, modality: str) -> dict[str, Score]:
    """The scores of all labels for the typical vector of one modality alone, moved towards the class `person`."""
    detector, _ = house_detector(space)
    assert calibration.classifiers is not None
    classifiers = calibration.classifiers.modalities[modality]
    direction = classifiers.weights[calibration.classifiers.class_names.index("person")]
    vector = l2_normalize(classifiers.mean + 0.2 * l2_normalize(direction))
    embedding = Embedding(modality, SECOND, 2 * SECOND, space.id, 1.0, vector)
    return detector.score(detector.initial_state(), 2 * SECOND, {modality: embedding})[1]


def test_the_encoders_that_an_own_spoke_does_not_replace_keep_their_ids(shipped: Space, own: Space) -> None:
    assert own.id != shipped.id
    for modality in ("text", *OTHERS):
        assert own.encoder_id(modality) == shipped.encoder_id(modality), modality
    assert own.encoder_id(THERMAL) != shipped.encoder_id(THERMAL)
    assert len({shipped.encoder_id(m) for m in shipped.modalities}) == len(shipped.modalities)


def test_the_other_modalities_have_the_same_scores_with_an_own_spoke_for_thermal(shipped: Space, own: Space) -> None:
    _, calibration = house_detector(shipped)
    for modality in OTHERS:
        before = scores_of_typical_vectors(shipped, calibration, modality)
        after = scores_of_typical_vectors(own, calibration, modality)
        assert after == before, modality
    assert scores_of_typical_vectors(shipped, calibration, THERMAL)["person"].evidence[0].competence == 1.0
    lost = scores_of_typical_vectors(own, calibration, THERMAL)["person"]
    assert lost.evidence[0].competence == 0.0 and lost.score < 0.1, "thermal is no evidence without a classifier"


def test_one_warning_names_the_modality_the_file_and_the_remedy(shipped: Space, own: Space) -> None:
    modalities = [*SENSOR_MODALITIES, "fused"]
    assert prompt_warnings(SETTINGS.detectors(shipped), shipped, modalities) == []
    (warning,) = prompt_warnings(SETTINGS.detectors(own), own, modalities)
    assert all(part in warning for part in ("for thermal", "starter_house.safetensors", "sensebind calibrate"))
    assert prompt_warnings(SETTINGS.detectors(own), own, OTHERS) == [], "no thermal camera, no warning"


def test_a_prompt_that_no_modality_with_data_can_recognise_comes_with_near_phrases(shipped: Space) -> None:
    settings = SETTINGS.with_detector({"prompt.calibration": "", "prompts.forklift": ["a pallet lifter"]})
    (warning,) = prompt_warnings(settings.detectors(shipped), shipped, [THERMAL, "imu"])
    suggested = shipped.nearest_phrases("imu", "a pallet lifter")
    assert "the nearest for" in warning and f"forklift: {'; '.join(suggested)}" in warning
    assert "bump" not in warning.partition(": they are not detected")[0], "the IMU can recognise a bump"
    assert prompt_warnings(settings.detectors(shipped), shipped, ["vision", "imu"]) == []
