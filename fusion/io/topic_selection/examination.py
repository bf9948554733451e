"""Examines the topics of a recording that may carry images, sound or motion: reads a few messages of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import cv2
import numpy as np

from sensebind.fusion.core.encodings import JPEG_SIGNATURE, MAX_PIXELS, PNG_SIGNATURE, jpeg_header, png_header
from sensebind.fusion.core.samples import AUDIO, IMU, VISION
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import Topic
from sensebind.fusion.io.sensor_messages.sample_decoder import COLOUR_ENCODING, MESSAGE_TYPES, MOSAIC_ENCODING
from sensebind.fusion.io.topic_names import sibling_topic

PEEKED_MESSAGES = 4  # of each topic: two devices on one topic show in their frame_ids
# Message types of images that are not read → what they are, and the remedy. A type of `MESSAGE_TYPES` is read.
UNREAD_IMAGES = {
    "stereo_msgs/msg/DisparityImage": "disparity in pixels, not metres: record depth images too (stereo_image_proc)",
    "theora_image_transport/msg/Packet": "compressed video, which is not read: record images, or convert the packets "
    "with image_transport republish",
}
IMAGE_TOPIC_TYPES = (*MESSAGE_TYPES[VISION], *UNREAD_IMAGES)
MAX_GREY_SPREAD = 12  # of the values of a pixel whose colour is grey: JPEG does not keep them equal


class Pixels(Enum):
    """What the pixels of an image are, by its encoding. The value is the word for it."""

    COLOUR = "colour"
    MOSAIC = "colour, as a Bayer mosaic"
    GREY = "grey"
    GREY16 = "grey of 16 bits"
    COUNTS = "counts of 16 bits"
    FLOAT = "floating-point numbers"
    COMPRESSED_DEPTH = "compressed depth"
    VIDEO = "video"
    OTHER = "no image"
    UNKNOWN = "unknown"


# Patterns of lower-case encodings. The first that fits counts.
ENCODING_PATTERNS = (
    (Pixels.MOSAIC, MOSAIC_ENCODING),
    (Pixels.COLOUR, COLOUR_ENCODING),
    (Pixels.GREY, re.compile("mono8|8[us]c1")),
    (Pixels.GREY16, re.compile("mono16")),
    (Pixels.COUNTS, re.compile("16[us]c1")),
    (Pixels.FLOAT, re.compile("(32|64)fc1")),
    (Pixels.VIDEO, re.compile(r"h\.?26[45]|hevc|av1|vp[89]|mpeg4")),
    (Pixels.OTHER, re.compile(r"\d+[usf]c\d")),
)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What is known of a topic from the recording's index and its first messages.

    `encoding`: of an Image, or the format of a CompressedImage; empty: none, or no message can be read. `original`: of
    a compressed image, what it was before. `width`, `height` in pixels; 0: not known. `info_size`: width and height in
    the CameraInfo beside it; None: there is none. `frame_ids` and `stamps` (ns) are those of the first messages.
    """

    topic: Topic
    encoding: str = ""
    pixels: Pixels = Pixels.UNKNOWN
    original: Pixels = Pixels.UNKNOWN
    width: int = 0
    height: int = 0
    frame_ids: tuple[str, ...] = ()
    stamps: tuple[int, ...] = ()
    info_size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return self.topic.name

    @property
    def namespace(self) -> str:
        """The namespace that a camera shares with its CameraInfo."""
        return sibling_topic(self.name, "")

    @property
    def is_compressed(self) -> bool:
        return self.topic.type == messages.COMPRESSED_IMAGE_TYPE

    @property
    def encoding_text(self) -> str:
        """The encoding in a few words: `rgb8`, or `jpeg of 16UC1`."""
        first, _, rest = (part.strip() for part in self.encoding.partition(";"))
        if not rest:
            return first or "unknown encoding"
        return f"{'compressedDepth' if self.pixels is Pixels.COMPRESSED_DEPTH else rest.split()[0]} of {first}"


class Source(Protocol):
    """A recording, for the examination of its topics (`Recording`)."""

    @property
    def topics(self) -> list[Topic]: ...

    def first_messages(self, topic: str, count: int) -> list[Any]: ...

    def time_span(self, topic: str) -> tuple[int, int]: ...


def examine(source: Source) -> list[TopicFacts]:
    """The facts of each topic whose type may carry images, sound or motion, in the order of their names."""
    infos = {topic.name for topic in source.topics if topic.type == messages.CAMERA_INFO_TYPE}
    sizes: dict[str, tuple[int, int]] = {}
    found = []
    for topic in source.topics:
        if topic.type in IMAGE_TOPIC_TYPES:
            info = sibling_topic(topic.name, "camera_info")
            if info in infos and info not in sizes:
                sizes[info] = next(((int(m.width), int(m.height)) for m in source.first_messages(info, 1)), (0, 0))
            found.append(_image_facts(topic, source.first_messages(topic.name, PEEKED_MESSAGES), sizes.get(info)))
        elif topic.type in (*MESSAGE_TYPES[AUDIO], *MESSAGE_TYPES[IMU]):
            first = source.first_messages(topic.name, PEEKED_MESSAGES)
            found.append(TopicFacts(topic, frame_ids=_frame_ids(first), stamps=_stamps(first)))
    return found


def _frame_ids(first: Iterable[Any]) -> tuple[str, ...]:
    """The frames of these messages, each once, in order."""
    headers = (getattr(message, "header", message) for message in first)  # messages of other packages have no header
    return tuple(dict.fromkeys(str(getattr(header, "frame_id", "")) for header in headers))


def _stamps(first: Iterable[Any]) -> tuple[int, ...]:
    """The stamps of these messages in ns."""
    return tuple(messages.stamp_to_ns(message.header.stamp) for message in first if hasattr(message, "header"))


def _image_facts(topic: Topic, first: list[Any], info_size: tuple[int, int] | None) -> TopicFacts:
    frames = _frame_ids(first)
    stamps = _stamps(first)
    if not first or topic.type not in (messages.IMAGE_TYPE, messages.COMPRESSED_IMAGE_TYPE):
        video = Pixels.UNKNOWN if not first or topic.type == messages.IMAGE_TYPE else Pixels.VIDEO
        return TopicFacts(topic, pixels=video, frame_ids=frames, info_size=info_size)
    message = next((message for message in first if len(message.data)), first[0])  # drivers start with empty ones
    if topic.type == messages.IMAGE_TYPE:
        width, height = int(message.width), int(message.height)
        encoding = str(message.encoding)
        kind = pixels_of(encoding)
        return TopicFacts(topic, encoding, kind, kind, width, height, frames, stamps, info_size)
    text, data = str(message.format), np.asarray(message.data, np.uint8).tobytes()
    kind, width, height = compressed_pixels(text, data, topic.name)
    before = pixels_of(text.partition(";")[0]) if ";" in text else Pixels.UNKNOWN
    return TopicFacts(topic, text, kind, before, width, height, frames, stamps, info_size)


def pixels_of(encoding: str) -> Pixels:
    """What the pixels of an encoding of sensor_msgs/Image are."""
    lower = encoding.strip().lower()
    return next((kind for kind, pattern in ENCODING_PATTERNS if pattern.search(lower)), Pixels.UNKNOWN)


def compressed_pixels(text: str, data: bytes, topic: str) -> tuple[Pixels, int, int]:
    """What the pixels of a CompressedImage are, its width and its height (0: not known).

    `text` is its format. The bytes decide where they are those of a PNG or JPEG file; these are read up to the size.
    """
    lower = text.lower()
    if data.startswith(JPEG_SIGNATURE):
        width, height, channels = jpeg_header(memoryview(data))
        kind = Pixels.GREY if channels == 1 or not _has_colours(data) else Pixels.COLOUR
        if kind is Pixels.GREY and "bayer" in lower.partition(";")[0]:
            kind = Pixels.MOSAIC
        return kind, width, height
    if "compresseddepth" in lower or topic.lower().endswith("/compresseddepth"):
        if data[12:20] == PNG_SIGNATURE:
            width, height, *_ = _png_header(data[12:])
            return Pixels.COMPRESSED_DEPTH, width, height
        return Pixels.COMPRESSED_DEPTH, 0, 0
    if data.startswith(PNG_SIGNATURE):
        width, height, bits, colours = _png_header(data)
        if colours:
            return Pixels.COLOUR, width, height
        if bits <= 8:
            return Pixels.MOSAIC if "bayer" in lower.partition(";")[0] else Pixels.GREY, width, height
        return Pixels.COUNTS if pixels_of(lower.partition(";")[0]) is Pixels.COUNTS else Pixels.GREY16, width, height
    kind = pixels_of(lower.rpartition(";")[2])
    return kind if kind is Pixels.VIDEO else Pixels.UNKNOWN, 0, 0


def _png_header(data: bytes) -> tuple[int, int, int, bool]:
    """As `png_header`; colours of unknown size if it is cut off."""
    return png_header(data) if len(data) >= 26 else (0, 0, 0, True)


def _has_colours(data: bytes) -> bool:
    """Whether a JPEG file with three channels has colours: grey images are often sent in three. True if unreadable."""
    width, height, _ = jpeg_header(memoryview(data))
    if not 0 < width * height <= MAX_PIXELS:
        return True
    small = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION)
    return small is None or bool(np.max(np.ptp(small.astype(np.int16), axis=2)) > MAX_GREY_SPREAD)
