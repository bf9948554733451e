"""No image, however it is packed, makes a decoder allocate more than the limits allow."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from sensebind.fusion.core import encodings
from sensebind.fusion.core.encodings import EncodingError, decode_depth, decode_rgb, image_size
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, VISION, Frame, Sample
from sensebind.fusion.core.windows import Window
from sensebind.fusion.health.checks import SensorHealthMonitor
from sensebind.fusion.io.topic_selection import examination
from sensebind.fusion.preprocess import depth as depth_inputs
from sensebind.fusion.preprocess.image import imagebind_tensor, starter_tensor

HUGE = 30_000  # pixels of a side: 2.7 GB of colours, in a few hundred bytes


def file_bytes(ending: str, image: np.ndarray | None = None) -> bytes:
    found, data = cv2.imencode(ending, np.zeros((16, 16, 3), np.uint8) if image is None else image)
    assert found
    return bytes(data)


def huge_jpeg(before: bytes) -> bytes:
    """A JPEG file of `HUGE` pixels a side; `before` stands between its start and its first segment."""
    data = bytearray(file_bytes(".jpg"))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", HUGE, HUGE)
    return bytes(data[:2] + before + data[2:])


def huge_png() -> bytes:
    data = bytearray(file_bytes(".png"))
    data[16:24] = struct.pack(">II", HUGE, HUGE)
    return bytes(data)


def huge_bmp() -> bytes:
    data = bytearray(file_bytes(".bmp"))
    data[18:26] = struct.pack("<ii", HUGE, HUGE)
    return bytes(data)


def huge_tiff() -> bytes:
    """The size comes after 70 other entries of the directory."""
    entries = [(65000 + i, 3, 1, 0) for i in range(70)] + [(256, 4, 1, HUGE), (257, 4, 1, HUGE)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)


def huge_webp() -> bytes:
    side = (HUGE // 2 - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + side + side


FILES: dict[str, bytes] = {
    "jpeg": huge_jpeg(b""),
    "jpeg, fill bytes": huge_jpeg(b"\xff" * 100),
    "jpeg, metadata": huge_jpeg((b"\xff\xe1" + struct.pack(">H", 65533) + bytes(65531)) * 3),
    "jpeg, a marker without a segment": huge_jpeg(b"\xff\x01"),
    "jpeg, another start": huge_jpeg(b"\xff\xd8"),
    "jpeg, garbage": huge_jpeg(b"\0\1\2"),
    "png": huge_png(),
    "bmp": huge_bmp(),
    "tiff": huge_tiff(),
    "gif": b"GIF89a" + struct.pack("<HH", HUGE, HUGE) + bytes(20),
    "webp": huge_webp(),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, HUGE, HUGE, 0, 0),
    "jpeg 2000 without a size": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The bytes of each image file that reaches a decoder."""
    sizes: list[int] = []
    original = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: sizes.append(len(data)) or original(data, flags))
    return sizes


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_declares_too_many_pixels_or_no_size_reaches_no_decoder(name: str, decoded: list[int]) -> None:
    frame = Frame(np.frombuffer(FILES[name], np.uint8), name, compressed=True)
    readers: list[Callable[[Frame], object]] = [decode_rgb, decode_depth, encodings.thermal_pixels]
    for read in readers:
        with pytest.raises(EncodingError, match="declare"):
            read(frame)
    for modality in (VISION, THERMAL, DEPTH):
        window = Window(modality, 0, SECOND, 1.0, (Sample(modality, 1, frame),))
        assert SensorHealthMonitor().inspect(window).symptoms == ()
    if name.startswith("jpeg") and "2000" not in name:
        examination._has_colours(FILES[name])
    assert not decoded


@pytest.mark.parametrize("before", [b"", b"\xff" * 9, b"\xff\xe1\0\x10" + bytes(14), b"\xff\x01"])
def test_a_whole_jpeg_is_decoded_with_anything_before_its_header(before: bytes) -> None:
    data = file_bytes(".jpg")
    frame = Frame(np.frombuffer(data[:2] + before + data[2:], np.uint8), "jpeg", compressed=True)
    assert image_size(frame) == (16, 16)
    assert decode_rgb(frame).shape == (16, 16, 3)


@pytest.mark.parametrize("size", [0, 1, 8, 10, 100])
def test_bytes_after_an_image_file_are_ignored(size: int) -> None:
    for name in (".png", ".jpg", ".webp"):
        frame = Frame(np.frombuffer(file_bytes(name) + bytes(size), np.uint8), "", compressed=True)
        assert decode_rgb(frame).shape == (16, 16, 3), name


def test_a_dark_image_of_any_format_is_decoded() -> None:
    dark = np.zeros((2160, 3840, 3), np.uint8)
    for name in (".png", ".jpg", ".webp", ".jp2"):
        frame = Frame(np.frombuffer(file_bytes(name, dark), np.uint8), "", compressed=True)
        assert not decode_rgb(frame).any(), name


def test_the_sizes_of_compressed_depth_are_known_before_it_is_decoded() -> None:
    png = file_bytes(".png", np.ones((20, 30), np.uint16))
    frame = Frame(np.frombuffer(bytes(12) + png, np.uint8), "16UC1; compressedDepth png", compressed=True)
    assert image_size(frame) == (30, 20)
    rvl = Frame(np.frombuffer(bytes(12) + struct.pack("<ii", 30, 20), np.uint8), "16UC1; compressedDepth rvl")
    rvl = Frame(rvl.data, rvl.encoding, compressed=True)
    assert image_size(rvl) == (30, 20)
    for size in ((HUGE, HUGE), (1, 10**6), (-5, 7)):
        hostile = Frame(np.frombuffer(bytes(12) + struct.pack("<ii", *size), np.uint8), rvl.encoding, compressed=True)
        with pytest.raises(EncodingError, match="declares"):
            decode_depth(hostile)


def test_an_image_of_one_row_is_refused_or_embedded_within_the_size_of_the_input() -> None:
    with pytest.raises(EncodingError, match="sides"):
        decode_rgb(Frame(np.zeros(3 * 10**6, np.uint8), "rgb8", 1, 10**6, 3 * 10**6))
    row = np.zeros((1, 60_000, 3), np.uint8)
    assert starter_tensor(row).shape == (3, 224, 224)
    with pytest.raises(ValueError, match="narrow"):
        imagebind_tensor(row)
    with pytest.raises(ValueError, match="narrow"):
        depth_inputs.imagebind_tensor(np.ones((1, 60_000), np.float32))


def tiff_of(side: int, channels: int, bits: int, kind: int) -> bytes:
    """A TIFF file of so many pixels a side, whose rows are all the same bytes. `kind`: of the numbers of its size: 4
    has 32 bits, 16 has 64 bits, which are at another place in the file."""
    row = zlib.compress(bytes(side * channels * bits // 8))
    tags = (256, 257, 258, 259, 262, 273, 277, 278, 279)
    values = dict(zip(tags, (side, side, bits, 8, 1, 0, channels, 1, len(row)), strict=True))
    begin, entries, more = 8 + 2 + 12 * len(tags) + 4, b"", b""
    for tag in tags:
        one = struct.pack("<Q" if kind == 16 and tag < 258 else "<I", values[tag])
        count = side if tag in (273, 279) else channels if tag == 258 else 1
        own = one * count if tag != 258 else one[:2] * count
        entries += struct.pack("<HHI", tag, {258: 3}.get(tag, kind if tag < 258 else 4), count)
        entries += own.ljust(4, b"\0") if len(own) <= 4 else struct.pack("<I", begin + len(more))
        more += own if len(own) > 4 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + more + row


def scans(count: int) -> bytes:
    """A progressive JPEG of 2000 pixels a side with so many more scans."""
    found, data = cv2.imencode(".jpg", np.zeros((2000, 2000), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert found
    first, second = (data.tobytes().index(b"\xff\xda", at) for at in (0, data.tobytes().index(b"\xff\xda") + 2))
    return data.tobytes()[:second] + data.tobytes()[first:second] * count + data.tobytes()[second:]


def png_of(bits: int, colours: int) -> bytes:
    """The begin of a PNG file of 9999 pixels a side."""
    head = struct.pack(">IIBBBBB", 9999, 9999, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + bytes(100_000)


def jpeg_2000(components: int) -> bytes:
    """A file with the small size of another codestream before its own, which is large."""
    own, other = (
        b"\xff\x4f\xff\x51" + struct.pack(">HHIIIIIIIIH", 41, 0, side, side, 0, 0, side, side, 0, 0, components)
        for side in (16 if components > 3 else HUGE, 16)
    )
    start = b"\0\0\0\x0cjP  \r\n\x87\n"
    return start + struct.pack(">I4s", 8 + len(other), b"free") + other + struct.pack(">I4s", 0, b"jp2c") + own


@pytest.mark.parametrize(
    "data",
    [
        *(tiff_of(*own) for own in ((9000, 1, 64, 4), (9000, 4, 32, 4), (9000, 4, 16, 4), (9000, 1, 32, 16))),
        *(png_of(*own) for own in ((16, 6), (16, 2))),
        *(jpeg_2000(components) for components in (3, 5, 16384)),
        scans(1000),
    ],
)
def test_a_file_whose_pixels_or_scans_take_too_much_reaches_no_decoder(data: bytes, decoded: list[int]) -> None:
    """With the pixels alone, 76 kB of TIFF took 1.4 GB, and 150 kB of JPEG a minute."""
    frame = Frame(np.frombuffer(data, np.uint8), "", compressed=True)
    for decode in (decode_rgb, decode_depth):
        with pytest.raises(EncodingError, match=r"limit is 400 MB|does not declare|declares|scans"):
            decode(frame)
    assert not decoded


def test_files_of_usual_kinds_are_still_decoded() -> None:
    for ending, kind in ((".tiff", np.uint8), (".tiff", np.uint16), (".jp2", np.uint8), (".jpg", np.uint8)):
        data = file_bytes(ending, np.full((40, 50, 3), 100, kind))
        assert decode_rgb(Frame(np.frombuffer(data, np.uint8), "", compressed=True)).shape == (40, 50, 3)
    assert decode_rgb(Frame(np.frombuffer(scans(20), np.uint8), "", compressed=True)).shape == (2000, 2000, 3)
    depth = file_bytes(".tiff", np.ones((40, 50), np.float32))
    assert decode_depth(Frame(np.frombuffer(depth, np.uint8), "", compressed=True)).max() == 1


def test_a_long_message_of_rvl_takes_work_for_the_pixels_that_it_declares() -> None:
    """Each byte of the rest would be two numbers, of 100 bytes of memory: 100 MB took minutes."""
    data = np.frombuffer(bytes(12) + struct.pack("<ii", 64, 48) + bytes(4_000_000), np.uint8)
    tracemalloc.start()
    with pytest.raises(EncodingError, match="cut off or damaged"):
        decode_depth(Frame(data, "16UC1; compressedDepth rvl", compressed=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_a_depth_image_without_a_reading_has_an_input_of_zeros() -> None:
    found = depth_inputs.imagebind_tensor(np.full((480, 640), np.nan, np.float32))
    assert torch.equal(found, torch.zeros(1, 224, 224))
    assert not depth_inputs.log_depth_image(np.full((480, 640), np.nan, np.float32)).any()
    frame = Frame(np.full((48, 64), np.nan, np.float32).view(np.uint8).reshape(-1), "32FC1", 48, 64, 256)
    window = Window(DEPTH, 0, SECOND, 1.0, (Sample(DEPTH, 1, frame),))
    assert SensorHealthMonitor().inspect(window).symptoms == ("dark",)
