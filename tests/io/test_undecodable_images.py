"""Images and video that cannot be decoded are named with what to do, by the selection of topics and by the decoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.recorded_topics import COLOUR_PIXELS, GREY_PIXELS, Images, record
from helpers.sensor_messages import BAG, START
from sensebind.benchmarks.harness.video_packets import encode_video
from sensebind.fusion.core.encodings import (
    PIXEL_FORMATS,
    EncodingError,
    canonical_encoding,
    decode_depth,
    decode_rgb,
    decode_thermal,
)
from sensebind.fusion.core.samples import DEPTH, THERMAL, VISION, Frame
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.recordings import BagWriter, Recording
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.io.topic_selection import TopicSelection

DECODERS = {VISION: decode_rgb, DEPTH: decode_depth, THERMAL: decode_thermal}
# Encodings of sensor_msgs/image_encodings.hpp and of drivers; those of `PIXEL_FORMATS` are among them.
FIELD_ENCODINGS = (
    *PIXEL_FORMATS, "bayer_rggb10", "bayer_rggb12", "bayer_gbrg12p", "yuv411", "yuv444", "mono10", "mono12", "8UC2",
    "8SC1", "16SC2", "32FC2", "32FC4", "64FC3", "hsv8", "jpeg", "", " RGB8 ", "Mono8", "yuv420p",
)  # fmt: skip


def verdict(folder: Path, images: Images) -> tuple[str | None, str]:
    """The modality of the only topic of a recording, and the reason."""
    with Recording(record(folder, [images])) as recording:
        (candidate,) = TopicSelection(recording).candidates
        return candidate.verdict.modality, candidate.verdict.reason


def image_of(encoding: str, height: int = 8, width: int = 8, step: int | None = None, data: bytes | None = None) -> Any:
    """An Image of zeros, which fits its encoding unless the arguments say otherwise."""
    header = m.header_message(BAG, START, "camera")
    layout = PIXEL_FORMATS.get(canonical_encoding(encoding))
    own = width * (layout.channels * np.dtype(layout.dtype).itemsize if layout else 8)
    raw = np.zeros(4 * height * own, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return BAG.make(
        m.IMAGE_TYPE, header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
        step=own if step is None else step, data=raw,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", FIELD_ENCODINGS)
def test_what_the_selection_takes_for_a_sensor_can_be_decoded(tmp_path: Path, encoding: str) -> None:
    message = image_of(encoding)
    with BagWriter(tmp_path / "bag") as bag:
        for place in ("camera", "depth", "thermal", "infra1"):
            bag.write(f"/{place}/image", m.IMAGE_TYPE, START, message)
    with Recording(tmp_path / "bag") as recording:
        verdicts = [candidate.verdict for candidate in TopicSelection(recording).candidates]
    assert len(verdicts) == 4
    for found in verdicts:
        if found.modality is not None:
            (sample,) = SampleDecoder(SensorOptions(found.modality), m.IMAGE_TYPE, "/the/topic").decode(message, 0)
            assert DECODERS[found.modality](sample.data) is not None
        elif canonical_encoding(encoding) not in PIXEL_FORMATS:
            assert "set the driver to" in found.reason and (f"'{encoding}'" in found.reason or not encoding)
        else:
            assert found.reason


@pytest.mark.parametrize(
    ("encoding", "remedy"),
    [("bayer_grbg12", "bayer_grbg16"), ("yuv411", "yuyv"), ("mono12", "mono16"), ("hsv8", "rgb8"), ("", "rgb8")],
)
def test_a_message_in_an_unknown_encoding_is_refused_with_encoding_remedy_and_parameter(
    encoding: str, remedy: str
) -> None:
    with pytest.raises(EncodingError, match=rf"{encoding}.*set the driver to .*{remedy}.*or set vision\.topic"):
        SampleDecoder(SensorOptions(VISION), m.IMAGE_TYPE, "/the/topic").decode(image_of(encoding), 0)


@pytest.mark.parametrize(("scale", "modality"), [(1.0, VISION), (255.0, None), (-1.0, None), (np.nan, None)])
def test_three_floats_are_colours_if_they_are_0_to_1(tmp_path: Path, scale: float, modality: str | None) -> None:
    pixels = COLOUR_PIXELS.astype(np.float32) / 255 * np.float32(scale)
    found, reason = verdict(tmp_path / "bag", Images("/camera/image", "32FC3", pixels=pixels))
    assert found == modality
    assert "colour images (32FC3)" in reason if modality else "points or normals" in reason


# Video in CompressedImage


def packets(codec: str = "h264") -> list[bytes]:
    return encode_video([np.roll(COLOUR_PIXELS, 2 * number, axis=1) for number in range(4)], codec, rate=10)


def with_lengths(packet: bytes) -> bytes:
    """A packet with the lengths of its units in place of start codes (ISO/IEC 14496-15)."""
    units = [unit for unit in re.split(b"\0\0\0\1|\0\0\1", packet) if unit]
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("name", ["", "jpeg", "video/H264; codec=avc1", "bgr8; video"])
def test_a_video_is_recognised_by_its_bytes_and_decoded(tmp_path: Path, codec: str, name: str) -> None:
    if codec == "hevc" and "264" in name:
        name = "video/H265; codec=hvc1"
    own = packets(codec)
    found, reason = verdict(tmp_path / "bag", Images("/camera/image/compressed", name, own[0]))
    assert found == VISION and reason.startswith("video (")
    assert codec in reason or name in reason
    decoder = SampleDecoder(SensorOptions(VISION), m.COMPRESSED_IMAGE_TYPE, "/the/topic")
    for number, packet in enumerate(own):
        (sample,) = decoder.decode(compressed(name, packet), 0)
        error = decode_rgb(sample.data).astype(int) - np.roll(COLOUR_PIXELS, 2 * number, axis=1)
        assert np.abs(error).mean() < 12


def compressed(name: str, data: bytes) -> Any:
    header = m.header_message(BAG, START, "camera")
    return BAG.make(m.COMPRESSED_IMAGE_TYPE, header=header, format=name, data=np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("h264", b"lengths", "h264 video with lengths in place of start codes .* byte stream"),
        ("", b"lengths", "h264 video with lengths in place of start codes .* byte stream"),
        ("vp9", b"DKIF" + bytes(60), "IVF files"),
        ("", (b"G" + bytes(187)) * 3, "MPEG-TS files"),
        ("video/mp4", b"\0\0\0\x18ftypisom" + bytes(40), "MP4 files"),
        ("", b"\x1aE\xdf\xa3" + bytes(40), "Matroska files"),
        ("vp8", b"\x10\2\0\x9d\1\x2a" + bytes(40), "vp8 video, which is not read"),
        ("jpeg", bytes(range(60)), "none of JPEG, PNG"),
        ("avif", b"\0\0\0\x20ftypavif" + bytes(60), "none of JPEG, PNG"),
        ("", bytes(60), "none of JPEG, PNG"),
    ],
    ids=["AVCC", "AVCC unnamed", "IVF", "MPEG-TS", "MP4", "Matroska", "VP8", "no file", "AVIF", "zeros"],
)
def test_compressed_data_that_are_not_read_are_named_with_a_remedy(
    tmp_path: Path, name: str, data: bytes, text: str
) -> None:
    data = with_lengths(packets()[0]) if data == b"lengths" else data
    found, reason = verdict(tmp_path / "bag", Images("/camera/image/compressed", name, data))
    assert found is None and re.search(f"{text}.*", reason) and "set the" in reason
    decoder = SampleDecoder(SensorOptions(VISION), m.COMPRESSED_IMAGE_TYPE, "/the/topic")
    with pytest.raises(EncodingError, match=text):
        for sample in decoder.decode(compressed(name, data), 0):
            decode_rgb(sample.data)


def test_a_damaged_message_at_the_start_does_not_hide_a_camera(tmp_path: Path) -> None:
    good = cv2.imencode(".jpg", COLOUR_PIXELS)[1].tobytes()
    with BagWriter(tmp_path / "bag") as bag:
        for number, data in enumerate((b"", bytes(100), good, good)):
            bag.write("/camera/image/compressed", m.COMPRESSED_IMAGE_TYPE, START + number, compressed("jpeg", data))
    with Recording(tmp_path / "bag") as recording:
        (candidate,) = TopicSelection(recording).candidates
    assert (candidate.verdict.modality, candidate.facts.width) == (VISION, COLOUR_PIXELS.shape[1])


def test_a_video_on_a_depth_topic_is_named() -> None:
    with pytest.raises(EncodingError, match="packet of h264 video, not an image"):
        decode_depth(Frame(np.frombuffer(packets()[0], np.uint8), "", compressed=True))


# Sizes that do not fit


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (image_of("rgb8", step=8), "rows of 8 pixels need 24 bytes, but step is 8: the driver must set the width"),
        (image_of("rgb8", data=bytes(100)), "needs 192 bytes, but has 100: it is cut off, or of another size"),
        (image_of("rgb8", data=b""), "needs 192 bytes, but has 0"),
        (image_of("rgb8", height=0, width=0), "cannot have 0 × 0 pixels: the driver must set"),
        (image_of("yuyv", width=7), "width of a 'yuyv' image must be even, not 7: set the driver to"),
        (image_of("nv12", height=7), "height of a 'nv12' image must be even, not 7: set the driver to"),
    ],
    ids=["small step", "cut off", "no data", "no size", "odd width", "odd height"],
)
def test_sizes_that_do_not_fit_are_named_with_what_must_change(message: Any, text: str) -> None:
    (sample,) = SampleDecoder(SensorOptions(VISION), m.IMAGE_TYPE, "/the/topic").decode(message, 0)
    with pytest.raises(EncodingError, match=text):
        decode_rgb(sample.data)


def test_padding_spare_bytes_and_flags_without_a_meaning_change_nothing() -> None:
    height, width = GREY_PIXELS.shape
    plain = decode_rgb(Frame(COLOUR_PIXELS.reshape(-1), "rgb8", height, width, 3 * width))
    padded = np.pad(COLOUR_PIXELS.reshape(height, -1), ((0, 0), (0, 50)), constant_values=9).reshape(-1)
    for frame in (
        Frame(padded, "rgb8", height, width, 3 * width + 50),
        Frame(padded[:-50], "rgb8", height, width, 3 * width + 50),  # the last row lacks its padding
        Frame(np.append(COLOUR_PIXELS.reshape(-1), np.zeros(77, np.uint8)), " Rgb8", height, width, 3 * width),
        Frame(COLOUR_PIXELS.reshape(-1), "rgb8", height, width, 3 * width, big_endian=True),  # of single bytes
        Frame(COLOUR_PIXELS.reshape(-1), "rgb8", height, width, 0),
    ):
        np.testing.assert_array_equal(decode_rgb(frame), plain)


@pytest.mark.parametrize("bytes_per_pixel", [1.5, 2.0])
def test_the_step_of_planes_may_count_all_bytes_of_a_pixel(bytes_per_pixel: float) -> None:
    planes = np.random.default_rng(0).integers(16, 235, 8 * 8 * 3 // 2).astype(np.uint8)
    expected = decode_rgb(Frame(planes, "nv12", 8, 8, 8))
    np.testing.assert_array_equal(decode_rgb(Frame(planes, "nv12", 8, 8, int(8 * bytes_per_pixel))), expected)
