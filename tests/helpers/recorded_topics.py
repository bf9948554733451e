"""Small bags with topics of images as drivers, converters and other programs write them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter
from sensebind.fusion.io.topic_names import sibling_topic
from sensebind.simulation.messages import SIMULATION_START, camera_info_message, image_message

COLOUR_PIXELS = np.dstack([np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1)), np.full((48, 64, 2), 90, np.uint8)])
GREY_PIXELS = np.ascontiguousarray(COLOUR_PIXELS[..., 0])
DISTANCES = (1500 + 10 * np.arange(48 * 64, dtype=np.uint16) % 900).reshape(48, 64)  # mm

PIXELS_OF: dict[str, npt.NDArray[Any]] = {
    "rgb8": COLOUR_PIXELS,
    "bgr8": COLOUR_PIXELS,
    "bayer_rggb8": GREY_PIXELS,
    "mono8": GREY_PIXELS,
    "mono16": DISTANCES,
    "16UC1": DISTANCES,
    "32FC1": (DISTANCES / 1000).astype(np.float32),
    "32SC1": DISTANCES.astype(np.int32),
}


@dataclass(frozen=True)
class Images:
    """A topic with images: `encoding` of raw images, or the format of compressed ones if `file` has their bytes."""

    topic: str
    encoding: str
    file: bytes | None = None
    frame_id: str = "camera"
    rate: int = 5  # Hz
    start: float = 0.0  # s
    end: float = 4.0  # s
    info_width: int = 0  # of the CameraInfo beside it; 0: there is none
    pixels: npt.NDArray[Any] | None = None

    def but(self, **changes: Any) -> Images:
        """The same topic with other values."""
        return replace(self, **changes)


def jpeg(topic: str, encoding: str, pixels: npt.NDArray[Any] = COLOUR_PIXELS, **more: Any) -> Images:
    """A CompressedImage topic with JPEG files, as image_transport writes them."""
    return Images(topic, f"{encoding}; jpeg compressed bgr8", cv2.imencode(".jpg", pixels)[1].tobytes(), **more)


def compressed_depth(topic: str, **more: Any) -> Images:
    """A compressedDepth topic, as image_transport writes it: a header of 12 bytes, and a PNG file of 16 bits."""
    file = struct.pack("<iff", 0, 0.0, 0.0) + cv2.imencode(".png", DISTANCES)[1].tobytes()
    return Images(topic, "16UC1; compressedDepth png", file, **more)


def record(folder: Path, topics: Sequence[Images]) -> Path:
    """Write a bag with these topics. Log times are the stamps."""
    rows = sorted(
        (SIMULATION_START + round(own.start * SECOND) + number * SECOND // own.rate, place)
        for place, own in enumerate(topics)
        for number in range(round((own.end - own.start) * own.rate))
    )
    with BagWriter(folder) as bag:
        for stamp, place in rows:
            own = topics[place]
            kind = messages.IMAGE_TYPE if own.file is None else messages.COMPRESSED_IMAGE_TYPE
            bag.write(own.topic, kind, stamp, _message(bag, own, stamp))
            if own.info_width:
                info = camera_info_message(bag.message_factory, stamp, own.frame_id, (own.info_width, 48))
                bag.write(sibling_topic(own.topic, "camera_info"), messages.CAMERA_INFO_TYPE, stamp, info)
    return folder


def _message(bag: BagWriter, own: Images, stamp: int) -> Any:
    if own.file is None:
        pixels = PIXELS_OF[own.encoding] if own.pixels is None else own.pixels
        return image_message(bag.message_factory, stamp, own.frame_id, own.encoding, pixels)
    header = messages.header_message(bag.message_factory, stamp, own.frame_id)
    data = np.frombuffer(own.file, np.uint8)
    return bag.message_factory.make(messages.COMPRESSED_IMAGE_TYPE, header=header, format=own.encoding, data=data)
