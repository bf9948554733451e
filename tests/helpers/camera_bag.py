"""A recording of a camera that sees one photograph all the time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.simulation.messages import camera_info_message, image_message

START = 1_700_000_000 * 10**9  # ns
RATE = 5  # images per second


def read_photograph(path: Path, width: int = 0) -> npt.NDArray[np.uint8]:
    """RGB pixels (H, W, 3) of a file, resized to `width` unless that is 0."""
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    if width:
        pixels = cv2.resize(pixels, (width, round(pixels.shape[0] * width / pixels.shape[1])))
    return np.asarray(pixels, np.uint8)


def record_photograph(
    path: Path, photograph: npt.NDArray[np.uint8], seconds: float, *, camera_info: bool = True
) -> None:
    """Write a bag with `/camera/image` and, if `camera_info`, `/camera/camera_info`. A little noise makes each image
    differ from the one before."""
    noise = np.random.default_rng(2)
    height, width = photograph.shape[:2]
    with BagWriter(path) as bag:
        types = bag.message_factory
        for number in range(round(seconds * RATE)):
            stamp = START + number * 10**9 // RATE
            if camera_info:
                info = camera_info_message(types, stamp, "camera", (width, height))
                bag.write("/camera/camera_info", messages.CAMERA_INFO_TYPE, stamp, info)
            pixels = np.clip(photograph + noise.normal(0, 3, photograph.shape), 0, 255).astype(np.uint8)
            bag.write(
                "/camera/image", messages.IMAGE_TYPE, stamp, image_message(types, stamp, "camera", "rgb8", pixels)
            )


PERSON_PROMPTS = {"detectors": ["prompt"], "prompts.person": ["a person"], "prompts.glass": ["breaking glass"]}


def person_at_the_left(shared: Path, width: int = 480) -> npt.NDArray[np.uint8]:
    """A photograph of one person, who is left of its middle. Skips the test if it is not there."""
    path = shared / "evaluation" / "coco256" / "images" / "000000000322.jpg"
    if not path.is_file():
        pytest.skip("no photographs of COCO in the shared data")
    return read_photograph(path, width)
