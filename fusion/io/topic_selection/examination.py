"""Examines the topics of a recording that may carry images, sound or motion: reads a few messages of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np

from sensebind.fusion.core import encodings
from sensebind.fusion.core.encodings import EncodingError, Pixels, pixels_of
from sensebind.fusion.core.encodings.file_headers import (
    COMPRESSED_DEPTH_HEADER,
    FILE_FORMATS,
    PNG_SIGNATURE,
    declared_size,
    file_format,
    jpeg_header,
    png_header,
)
from sensebind.fusion.core.encodings.image_files import is_grey
from sensebind.fusion.core.samples import AUDIO, IMU, VISION, Frame
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import Topic
from sensebind.fusion.io.sensor_messages.images import SAMPLE_CONVERTERS, image_sample
from sensebind.fusion.io.sensor_messages.sample_decoder import MESSAGE_FIELD_ERRORS, MESSAGE_TYPES
from sensebind.fusion.io.topic_names import sibling_topic

PEEKED_MESSAGES = 4  # of each topic: two devices on one topic show in their frame_ids
SMALLEST_FILE = 32  # bytes: fewer show nothing
# Message types of images that are not read → what they are, and the remedy. A type of `MESSAGE_TYPES` is read.
UNREAD_IMAGES = {
    "stereo_msgs/msg/DisparityImage": "disparity in pixels, not metres: record depth images too (stereo_image_proc)",
    "theora_image_transport/msg/Packet": "compressed video, which is not read: record images, or convert the packets "
    "with image_transport republish",
}
IMAGE_TOPIC_TYPES = (*MESSAGE_TYPES[VISION], *UNREAD_IMAGES)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What is known of a topic from the recording's index and its first messages.

    `encoding`: of an Image, or the format of a CompressedImage; empty: none, or no message can be read. `original`: of
    a compressed image, what it was before. `width`, `height` in pixels; 0: not known. `info_size`: width and height in
    the CameraInfo beside it; None: there is none. `frame_ids` and `stamps` (ns) are those of the first messages.
    `content`: what the bytes of compressed images are, such as `JPEG` or `h264 video`. `problem`: why no image can be
    decoded, and what to do; empty: nothing is known against it.
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
    content: str = ""
    problem: str = ""

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
        """The encoding in a few words: `rgb8`, `jpeg of 16UC1`, or what the bytes are, if it does not say that."""
        first, _, rest = (part.strip() for part in self.encoding.partition(";"))
        if self.pixels is Pixels.VIDEO and not encodings.is_video_format(self.encoding):
            return f"{self.content} as '{self.encoding}'" if self.encoding else self.content
        if self.pixels is Pixels.VIDEO:
            return self.encoding
        if not rest:
            return first or self.content or "unknown encoding"
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
                sizes[info] = _info_size(source.first_messages(info, 1))
            first = source.first_messages(topic.name, PEEKED_MESSAGES)
            try:
                found.append(_image_facts(topic, first, sizes.get(info)))
            except MESSAGE_FIELD_ERRORS as error:
                found.append(TopicFacts(topic, info_size=sizes.get(info), problem=_wrong_fields_text(topic, error)))
        elif topic.type in (*MESSAGE_TYPES[AUDIO], *MESSAGE_TYPES[IMU]):
            first = source.first_messages(topic.name, PEEKED_MESSAGES)
            try:
                found.append(TopicFacts(topic, frame_ids=_frame_ids(first), stamps=_stamps(first)))
            except MESSAGE_FIELD_ERRORS:  # each message is refused when it is read
                found.append(TopicFacts(topic))
    return found


def _info_size(first: list[Any]) -> tuple[int, int]:
    """Width and height in the first CameraInfo; (0, 0) if there is none."""
    try:
        return next(((int(m.width), int(m.height)) for m in first), (0, 0))
    except MESSAGE_FIELD_ERRORS:
        return 0, 0


def _wrong_fields_text(topic: Topic, error: Exception) -> str:
    return f"its messages do not have the fields of '{topic.type}' ({error}): check which package defines it"


def _frame_ids(first: Iterable[Any]) -> tuple[str, ...]:
    """The frames of these messages, each once, in order."""
    headers = (getattr(message, "header", message) for message in first)  # messages of other packages have no header
    return tuple(dict.fromkeys(str(getattr(header, "frame_id", "")) for header in headers))


def _stamps(first: Iterable[Any]) -> tuple[int, ...]:
    """The stamps of these messages in ns."""
    return tuple(messages.stamp_to_ns(message.header.stamp) for message in first if hasattr(message, "header"))


def _image_facts(topic: Topic, first: list[Any], info_size: tuple[int, int] | None) -> TopicFacts:
    facts = TopicFacts(topic, frame_ids=_frame_ids(first), info_size=info_size)
    if not first or topic.type in UNREAD_IMAGES:
        return facts
    message = _clear_message(first)
    if topic.type in messages.VIDEO_TYPES:
        frame = SAMPLE_CONVERTERS[topic.type](VISION, message).data
        assert isinstance(frame, Frame)
        video = encodings.video_in(frame)
        return replace(facts, pixels=Pixels.VIDEO, problem=video.problem if video else "")
    facts = replace(facts, stamps=_stamps(first))
    if topic.type == messages.IMAGE_TYPE:
        encoding = str(message.encoding)
        kind, problem = pixels_of(encoding), encodings.why_not_decoded(encoding)
        if kind is Pixels.VECTORS:
            kind, problem = _vector_pixels(image_sample(VISION, message).data)
        width, height = int(message.width), int(message.height)
        facts = replace(facts, encoding=encoding, pixels=kind, original=kind, problem=problem)
        return replace(facts, width=width, height=height)
    text, data = str(message.format), np.asarray(message.data, np.uint8).tobytes()
    kind, width, height = compressed_pixels(text, data, topic.name)
    before = pixels_of(text.partition(";")[0]) if ";" in text else Pixels.UNKNOWN
    content, problem = _content(text, data, kind)
    facts = replace(facts, encoding=text, pixels=kind, original=before, content=content, problem=problem)
    return replace(facts, width=width, height=height)


def _clear_message(first: list[Any]) -> Any:
    """The first of these messages whose bytes show what they are: drivers start with empty or damaged ones."""
    some = [message for message in first if len(message.data)] or first[:1]
    return next((own for own in some if _is_recognised(own)), some[0])


def _is_recognised(message: Any) -> bool:
    if not hasattr(message, "format"):
        return not encodings.why_not_decoded(str(message.encoding))
    data = np.asarray(message.data, np.uint8)
    is_file = file_format(data[:12].tobytes()) != ""
    return is_file or encodings.video_in(Frame(data, str(message.format), compressed=True)) is not None


def _vector_pixels(frame: Any) -> tuple[Pixels, str]:
    """What three floats for each pixel are: colours of 0 to 1; or points or normals, with what to do if they are
    colours."""
    try:
        values = encodings.raw_pixels(frame)
    except EncodingError as error:
        return Pixels.COLOUR, str(error)
    low, high = float(values.min()), float(values.max())  # NaN: it is no colour
    if 0 <= low <= high <= 1:
        return Pixels.COLOUR, ""
    return Pixels.OTHER, (
        f"'{frame.encoding}' has values from {low:.4g} to {high:.4g}: points or normals, because colours are 0 to 1. "
        "If these are images of a camera, set the driver to 0 to 1, or to rgb8"
    )


def compressed_pixels(text: str, data: bytes, topic: str) -> tuple[Pixels, int, int]:
    """What the pixels of a CompressedImage are, its width and its height (0: not known).

    `text` is its format. The bytes decide where they are those of a file or of a video.
    """
    sent, name = text.lower().partition(";")[0], file_format(data[:12])
    width, height = declared_size(np.frombuffer(data, np.uint8))
    if name == "JPEG":
        _, _, channels = jpeg_header(memoryview(data))
        kind = Pixels.GREY if channels == 1 or not _has_colours(data) else Pixels.COLOUR
        return Pixels.MOSAIC if kind is Pixels.GREY and "bayer" in sent else kind, width, height
    if "compresseddepth" in text.lower() or topic.lower().endswith("/compresseddepth"):
        size = (width, height) if name else _compressed_depth_size(data)
        return Pixels.COMPRESSED_DEPTH, *size
    if name == "PNG":
        width, height, bits, colours = _png_header(data)
        if colours:
            return Pixels.COLOUR, width, height
        if bits <= 8:
            return Pixels.MOSAIC if "bayer" in sent else Pixels.GREY, width, height
        return Pixels.COUNTS if pixels_of(sent) is Pixels.COUNTS else Pixels.GREY16, width, height
    if name:
        return pixels_of(sent), width, height
    is_video = encodings.video_in(Frame(np.frombuffer(data, np.uint8), text, compressed=True)) is not None
    return Pixels.VIDEO if is_video else Pixels.UNKNOWN, 0, 0


def _content(text: str, data: bytes, kind: Pixels) -> tuple[str, str]:
    """What the bytes of a CompressedImage are; and why they cannot be decoded, with the remedy."""
    if kind is Pixels.VIDEO:
        video = encodings.video_in(Frame(np.frombuffer(data, np.uint8), text, compressed=True))
        assert video is not None
        return f"{video.codec} video", video.problem
    name = file_format(data[:12])
    if name or len(data) < SMALLEST_FILE or kind is Pixels.COMPRESSED_DEPTH:
        return name, ""
    return "", (
        f"its messages (format '{text}') are none of {', '.join(FILE_FORMATS)}, and no video that is known: set the "
        "driver to JPEG or PNG"
    )


def _compressed_depth_size(data: bytes) -> tuple[int, int]:
    """Width and height of an image after the header of compressedDepth; (0, 0) if they are not known."""
    content = data[COMPRESSED_DEPTH_HEADER:]
    return _png_header(content)[:2] if content.startswith(PNG_SIGNATURE) else (0, 0)


def _png_header(data: bytes) -> tuple[int, int, int, bool]:
    """As `png_header`; colours of unknown size if it is cut off."""
    return png_header(data) if len(data) >= 26 else (0, 0, 0, True)


def _has_colours(data: bytes) -> bool:
    """Whether a JPEG file with three channels has colours: grey images are often sent in three. True if unreadable."""
    frame = Frame(np.frombuffer(data, np.uint8), "jpeg", compressed=True)
    try:
        small = encodings.decode_reduced(frame, cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION)
    except EncodingError:
        return True
    return not is_grey(small)
