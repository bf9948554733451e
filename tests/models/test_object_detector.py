"""The object detector: its anchors and boxes, and the scores of the published model.

Set `SENSEBIND_OBJECTRON` to the tarball of the npm package `@mediapipe/objectron` 0.4.1675468480, or to its packed
assets, to compare with the published model itself. Otherwise a few of its scores are expected.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from sensebind.fusion.core.space import SpaceError
from sensebind.fusion.models.starter import object_detector
from sensebind.fusion.models.starter.object_detector import (
    ANCHOR_COUNT,
    CLASS_COUNT,
    IMAGE_SIZE,
    LABEL_COUNT,
    MAP_CHANNELS,
    MAP_SIZES,
    DetectorOutput,
    ObjectDetector,
    anchor_table,
    best_region,
    decode_boxes,
    presence,
)
from sensebind.fusion.models.starter.weight_files import OBJECT_WEIGHTS, find_weight_file
from sensebind.training.conversion import object_detector as conversion

PUBLISHED = os.environ.get("SENSEBIND_OBJECTRON")
# Presence that OpenVINO computes from the published model.
SYNTHETIC_PRESENCE = {"Computer monitor": 0.1073, "Book": 0.0847, "Laptop": 0.0703, "Table": 0.0616}
ASTRONAUT_PRESENCE = {"Person": 0.5921, "Bottle": 0.3026, "Footwear": 0.1449, "Camera": 0.1257}
ASTRONAUT_REGION = (0.041, 0.032, 0.708, 0.991)
TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def network() -> ObjectDetector:
    return object_detector.load(find_weight_file(OBJECT_WEIGHTS))


def synthetic_image() -> Tensor:
    """A disc and a bar on a shaded background, float32 (1, 3, 300, 300) in −1..1."""
    y, x = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / IMAGE_SIZE
    disc = np.hypot(x - 0.35, y - 0.6) < 0.2
    bar = (abs(x - 0.7) < 0.1) & (y > 0.2)
    planes = [np.where(disc, 0.9, 0.2 + 0.5 * x), np.where(bar, 0.1, 0.3 + 0.4 * y), 0.5 - 0.3 * disc + 0.4 * bar]
    return torch.from_numpy(np.stack(planes)).float()[None] * 2 - 1


def astronaut() -> Tensor:
    """A photograph of scikit-image, float32 (1, 3, 300, 300) in −1..1."""
    photograph = torch.from_numpy(pytest.importorskip("skimage.data").astronaut()).permute(2, 0, 1)[None]
    return interpolate(photograph, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True).float() / 127.5 - 1


def noise_images(count: int) -> Tensor:
    return torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


# ------------------------------------------------------------------------------------------------------ anchors, boxes


def test_anchors_are_ordered_by_map_row_and_column() -> None:
    anchors = anchor_table()
    assert anchors.shape == (ANCHOR_COUNT, 4) and ANCHOR_COUNT == 19 * 19 * 3 + (100 + 25 + 9 + 4 + 1) * 6
    assert anchors[0].tolist() == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert anchors[3, :2].tolist() == pytest.approx([1.5 / 19, 0.5 / 19])  # the next column
    assert anchors[19 * 3, :2].tolist() == pytest.approx([0.5 / 19, 1.5 / 19])  # the next row
    assert anchors[19 * 19 * 3, :2].tolist() == pytest.approx([0.05, 0.05])  # the next map
    assert anchors[-6:, :2].unique().tolist() == [0.5]


def test_anchors_have_the_scales_and_ratios_of_the_maps() -> None:
    anchors = anchor_table()
    scales, ratios = (anchors[:, 2] * anchors[:, 3]).sqrt(), anchors[:, 2] / anchors[:, 3]
    assert scales[:3].tolist() == pytest.approx([0.1, 0.2, 0.2]) and ratios[:3].tolist() == pytest.approx([1, 2, 0.5])
    starts = np.cumsum([19 * 19 * 3, 600, 150, 54, 24])
    for start, scale, following in zip(starts, (0.35, 0.5, 0.65, 0.8, 0.95), (0.5, 0.65, 0.8, 0.95, 1), strict=True):
        cell = slice(start, start + 6)
        assert scales[cell].tolist() == pytest.approx([scale] * 5 + [(scale * following) ** 0.5])
        assert ratios[cell].tolist() == pytest.approx([1, 2, 1 / 2, 3, 1 / 3, 1])


def test_a_zero_encoding_is_the_anchor_and_others_shift_and_stretch_it() -> None:
    anchor = torch.tensor([[0.5, 0.4, 0.2, 0.1]])  # centre x, centre y, width, height
    assert decode_boxes(torch.zeros(1, 4), anchor)[0].tolist() == pytest.approx([0.4, 0.35, 0.6, 0.45])
    moved = decode_boxes(torch.tensor([[10.0, -10.0, 0.0, 5 * np.log(2)]]), anchor)  # y, x, height, width
    assert moved[0].tolist() == pytest.approx([0.1, 0.45, 0.5, 0.55])


def test_boxes_end_at_the_edges_of_the_image() -> None:
    boxes = decode_boxes(torch.full((ANCHOR_COUNT, 4), 30.0), anchor_table())
    assert boxes.min() >= 0 and boxes.max() <= 1


def test_presence_and_best_region_are_those_of_the_best_anchor_of_each_label() -> None:
    scores, boxes = torch.zeros(2, ANCHOR_COUNT, LABEL_COUNT), torch.zeros(2, ANCHOR_COUNT, 4)
    scores[1, 700, 4], scores[1, 800, 5] = 0.9, 0.3
    boxes[1, 700], boxes[1, 800] = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.5, 0.6, 0.7, 0.8])
    regions = best_region(DetectorOutput(scores, boxes))
    assert presence(scores).shape == (2, LABEL_COUNT) and regions.shape == (2, LABEL_COUNT, 4)
    assert presence(scores)[1, 4:6].tolist() == pytest.approx([0.9, 0.3]) and presence(scores).count_nonzero() == 2
    assert torch.equal(regions[1, 4], boxes[1, 700]) and torch.equal(regions[1, 5], boxes[1, 800])


# ------------------------------------------------------------------------------------------------------------- network


@torch.inference_mode()
def test_outputs_have_a_score_for_each_label_and_a_box_for_each_anchor(network: ObjectDetector) -> None:
    images = noise_images(2)
    maps = [tuple(m.shape) for m in network.feature_maps(images)]
    assert maps == [(2, c, size, size) for c, size in zip(MAP_CHANNELS, MAP_SIZES, strict=True)]
    logits, encodings = network.raw_outputs(images)
    assert logits.shape == (2, ANCHOR_COUNT, CLASS_COUNT) and encodings.shape == (2, ANCHOR_COUNT, 4)
    output = network(images)
    assert output.scores.shape == (2, ANCHOR_COUNT, LABEL_COUNT) and output.boxes.shape == (2, ANCHOR_COUNT, 4)
    assert len(set(network.labels)) == LABEL_COUNT and {"Person", "Chair", "Dog", "Car"} < set(network.labels)
    assert (output.boxes[..., :2] <= output.boxes[..., 2:]).all()


@torch.inference_mode()
def test_the_output_of_an_image_does_not_depend_on_its_batch(network: ObjectDetector) -> None:
    images = torch.cat([synthetic_image(), noise_images(2)])
    batch = network(images)
    for row, image in enumerate(images):
        alone = network(image[None])
        torch.testing.assert_close(batch.scores[row], alone.scores[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.boxes[row], alone.boxes[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_presence_without_boxes_is_that_of_the_whole_output(network: ObjectDetector) -> None:
    images = torch.cat([synthetic_image(), noise_images(2)])
    torch.testing.assert_close(network.presence(images), presence(network(images).scores), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_best_objects_have_the_presence_and_the_best_region_of_each_label(network: ObjectDetector) -> None:
    images = torch.cat([synthetic_image(), noise_images(2)])
    objects, output = network.objects(images), network(images)
    assert objects.shape == (3, LABEL_COUNT, 5)
    torch.testing.assert_close(objects[..., 0], presence(output.scores), atol=1e-5, rtol=0)
    torch.testing.assert_close(objects[..., 1:], best_region(output), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_scores_of_a_synthetic_image_are_those_of_the_published_model(network: ObjectDetector) -> None:
    scores = dict(zip(network.labels, presence(network(synthetic_image()).scores)[0].tolist(), strict=True))
    assert {label: scores[label] for label in SYNTHETIC_PRESENCE} == pytest.approx(SYNTHETIC_PRESENCE, abs=TOLERANCE)
    assert max(scores, key=lambda label: scores[label]) == "Computer monitor"


@torch.inference_mode()
def test_the_astronaut_is_a_person_at_her_place(network: ObjectDetector) -> None:
    output = network(astronaut())
    scores = dict(zip(network.labels, presence(output.scores)[0].tolist(), strict=True))
    assert {label: scores[label] for label in ASTRONAUT_PRESENCE} == pytest.approx(ASTRONAUT_PRESENCE, abs=TOLERANCE)
    region = best_region(output)[0, network.labels.index("Person")]
    assert region.tolist() == pytest.approx(ASTRONAUT_REGION, abs=0.01)


@pytest.mark.skipif(not PUBLISHED, reason="SENSEBIND_OBJECTRON does not name the published model")
@torch.inference_mode()
def test_the_network_gives_the_outputs_of_the_published_model(network: ObjectDetector, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO, which runs the published model, is not installed")
    source = Path(str(PUBLISHED))
    (tmp_path / "published.tflite").write_bytes(conversion.split_assets(conversion.read_assets(source))[1])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    published = openvino.Core().compile_model(tmp_path / "published.tflite", "CPU", settings)
    for image in (synthetic_image(), noise_images(1), astronaut()):
        encodings, logits = sorted(
            published(image.permute(0, 2, 3, 1).numpy().copy()).values(), key=lambda o: o.shape[2]
        )
        ours = network.raw_outputs(image)
        np.testing.assert_allclose(ours[0], logits, atol=1e-3)
        np.testing.assert_allclose(ours[1], encodings, atol=1e-3)


@pytest.mark.skipif(not PUBLISHED, reason="SENSEBIND_OBJECTRON does not name the published model")
def test_the_shipped_file_is_what_the_conversion_writes(tmp_path: Path) -> None:
    conversion.convert(Path(str(PUBLISHED)), tmp_path / "converted.safetensors")
    assert (tmp_path / "converted.safetensors").read_bytes() == find_weight_file(OBJECT_WEIGHTS).read_bytes()


# --------------------------------------------------------------------------------------------------------------- files


def test_the_shipped_file_states_its_licence() -> None:
    from safetensors import safe_open

    with safe_open(find_weight_file(OBJECT_WEIGHTS), "pt") as file:
        about = object_detector.read_metadata(file.metadata())
    assert about["licence"] == "Apache-2.0" and "objectron" in about["origin"] and len(about["source_sha256"]) == 64


def test_a_missing_file_is_reported_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="install Sensebind again"):
        object_detector.load(tmp_path / "missing.safetensors")


def test_damaged_files_and_files_of_other_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(find_weight_file(OBJECT_WEIGHTS).read_bytes()[:100_000])
    with pytest.raises(SpaceError, match="damaged"):
        object_detector.load(path)
    save_file(load_file(find_weight_file(OBJECT_WEIGHTS)), path)
    with pytest.raises(SpaceError, match="do not state the format"):
        object_detector.load(path)
    with pytest.raises(SpaceError, match="do not state the format"):
        object_detector.load(find_weight_file(OBJECT_WEIGHTS).parents[1] / "spokes" / "depth.safetensors")
