"""The objects of an embedding: regions in pixels of the received image, and bearings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from helpers.pipelines import START, image
from helpers.toy_space import ToySpace
from sensebind.fusion.core.embeddings import DetectedObject, Embedding
from sensebind.fusion.core.encodings import image_size
from sensebind.fusion.core.futures import SceneFuture
from sensebind.fusion.core.samples import VISION, Calibration, Frame, Sample
from sensebind.fusion.core.windows import Window
from sensebind.fusion.inference.cuda import GpuRunner
from sensebind.fusion.inference.engine import Engine, Failure
from sensebind.fusion.inference.objects import MIN_OBJECT_SCORE, bearing_of, detected_objects

NAMES = ("Person", "Dog", "Car")
CALIBRATED = Calibration(focal_length=320.0, focal_width=640, principal_x=319.5)


def window(width: int = 320, height: int = 240, calibration: Calibration = CALIBRATED) -> Window:
    frame = Frame(np.zeros(width * height * 3, np.uint8), "rgb8", height, width, 3 * width)
    return Window(VISION, START, START + 1, 1.0, (Sample(VISION, START, frame, "camera"),), calibration)


def found(*rows: Sequence[float]) -> Any:
    table = np.zeros((len(NAMES), 5), np.float32)
    table[: len(rows)] = rows
    return table


def test_regions_are_in_pixels_of_the_received_image_and_the_best_object_is_first() -> None:
    objects = detected_objects(NAMES, found([0.4, 0.0, 0.5, 0.25, 1.0], [0.9, 0.5, 0.25, 1.0, 0.75]), window())
    assert [(o.name, o.region) for o in objects] == [("Dog", (160, 60, 160, 120)), ("Person", (0, 120, 80, 120))]
    assert [o.score for o in objects] == pytest.approx([0.9, 0.4])


def test_objects_with_a_low_score_are_left_out() -> None:
    rows = found([MIN_OBJECT_SCORE + 0.01, 0, 0, 1, 1], [MIN_OBJECT_SCORE - 0.01, 0, 0, 1, 1])
    assert [o.name for o in detected_objects(NAMES, rows, window())] == ["Person"]


@pytest.mark.parametrize("edges", [(0, 0, 0, 0), (1, 1, 1, 1), (0.3, 0.3, 0.3, 0.3), (0, 0, 1, 1)])
def test_a_region_is_in_the_image_and_has_a_pixel(edges: Sequence[float]) -> None:
    (only,) = detected_objects(NAMES, found([0.9, *edges]), window(7, 5))
    x, y, width, height = only.region
    assert x >= 0 and y >= 0 and width >= 1 and height >= 1 and x + width <= 7 and y + height <= 5


def test_a_bearing_is_positive_to_the_left_and_0_ahead() -> None:
    assert bearing_of(320.0, 640, CALIBRATED) == pytest.approx(0.0)
    assert bearing_of(0.0, 640, CALIBRATED) == pytest.approx(math.pi / 4)
    assert bearing_of(640.0, 640, CALIBRATED) == pytest.approx(-math.pi / 4)
    assert bearing_of(0.0, 160, CALIBRATED) == pytest.approx(math.pi / 4), "an image of a quarter of the width"
    assert bearing_of(320.0, 640, replace(CALIBRATED, principal_x=399.5)) == pytest.approx(math.atan2(80, 320))


@pytest.mark.parametrize("calibration", [Calibration(), Calibration(320.0, 640), Calibration(principal_x=3.0)])
def test_without_focal_length_or_principal_point_there_is_a_region_and_no_bearing(calibration: Calibration) -> None:
    (only,) = detected_objects(NAMES, found([0.9, 0, 0, 0.5, 1]), window(calibration=calibration))
    assert only.region == (0, 0, 160, 240) and only.bearing is None


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_the_size_of_a_compressed_image_is_read_from_its_header(extension: str) -> None:
    data = cv2.imencode(extension, np.zeros((30, 50, 3), np.uint8))[1].reshape(-1)
    frame = Frame(data, extension[1:], compressed=True)
    assert image_size(frame) == (50, 30)
    of_window = replace(window(), samples=(Sample(VISION, START, frame, "camera"),))
    assert detected_objects(NAMES, found([0.9, 0, 0, 0.5, 1]), of_window)[0].region == (0, 0, 25, 30)
    assert image_size(replace(frame, data=data[:10])) == (0, 0)


def test_the_size_of_a_jpeg_with_fill_bytes_or_long_metadata_is_found() -> None:
    data = cv2.imencode(".jpg", np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    metadata = b"\xff\xe1\xff\xff" + b"x" * 65_533
    for changed in (data[:2] + b"\xff\xff" + data[2:], data[:2] + 2 * metadata + data[2:]):
        assert image_size(Frame(np.frombuffer(changed, np.uint8), "jpeg", compressed=True)) == (50, 30)


class LocatingSpace(ToySpace):
    """Locates a person in each image. `objects`: what its futures have."""

    def __init__(self, objects: torch.Tensor | None = None) -> None:
        super().__init__()
        row = torch.from_numpy(found([0.9, 0.0, 0.0, 0.5, 1.0]))
        self.objects, self.runs = row[None] if objects is None else objects, 0

    def object_names(self, modality: str) -> tuple[str, ...]:
        return NAMES if modality == VISION else ()

    def embed_async(self, modality: str, batch: torch.Tensor) -> Any:
        def finish() -> tuple[torch.Tensor, torch.Tensor]:
            self.runs += 1
            return self.embed(modality, batch), self.objects.expand(len(batch), -1, -1)

        return SceneFuture(finish)


def embed(engine: Engine, *windows: Window) -> list[Embedding]:
    results = engine.embed(windows)
    assert all(isinstance(result, Embedding) for result in results), results
    return results  # type: ignore[return-value]


def windows_of(*seeds: int) -> list[Window]:
    samples = [image(START + number, seed) for number, seed in enumerate(seeds)]
    return [Window(VISION, s.stamp - 1, s.stamp + 1, 1.0, (s,), CALIBRATED) for s in samples]


def test_the_engine_returns_the_objects_with_the_vectors_also_for_equal_images() -> None:
    space = LocatingSpace()
    engine = Engine(space)
    first = embed(engine, *windows_of(1, 2, 2))
    again = embed(engine, *windows_of(2))
    for embedding in (*first, *again):
        (person,) = embedding.objects
        assert isinstance(person, DetectedObject) and person.name == "Person"
        assert person.region[0] == 0 and person.bearing is not None and person.bearing > 0
    assert space.runs == 1 and engine.reused_count == 2


@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 3, 4)])
def test_objects_of_another_shape_are_a_failure(shape: tuple[int, ...]) -> None:
    (result,) = Engine(LocatingSpace(torch.zeros(shape))).embed(windows_of(1))
    assert isinstance(result, Failure) and "objects of vision" in result.message
    (result,) = Engine(LocatingSpace(torch.full((1, 3, 5), torch.nan))).embed(windows_of(1))
    assert isinstance(result, Failure)


def test_spaces_without_an_object_detector_and_the_gpu_runner_give_no_objects() -> None:
    assert ToySpace().object_names(VISION) == () and ToySpace().named_objects(["a dog", "a cat"]) == ["", ""]
    assert embed(Engine(ToySpace()), *windows_of(1))[0].objects == ()
    space = LocatingSpace()
    assert embed(Engine(space, runner=GpuRunner(space)), *windows_of(1))[0].objects == ()
