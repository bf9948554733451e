"""All common encodings of images and sounds are decoded; all other data raise `EncodingError`."""

from __future__ import annotations

import struct
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensebind.fusion.core.encodings import (
    PIXEL_FORMATS,
    EncodingError,
    decode_depth,
    decode_pcm,
    decode_rgb,
    decode_thermal,
    pcm_to_float,
)
from sensebind.fusion.core.samples import Calibration, Frame

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)

# The header of a PNG that claims 2,147,483,647 × 2,147,483,647 pixels.
OVERSIZED_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0\0\0\0\0"


def frame(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Frame:
    table = np.ascontiguousarray(pixels)
    if big_endian:
        table = table.byteswap()
    rows = table.view(np.uint8).reshape(table.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Frame(rows.reshape(-1), encoding, pixels.shape[0], pixels.shape[1], rows.shape[1], big_endian)


def compressed(pixels: np.ndarray, extension: str, name: str) -> Frame:
    return Frame(cv2.imencode(extension, pixels)[1].reshape(-1), name, compressed=True)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [("rgb8", None), ("bgr8", cv2.COLOR_RGB2BGR), ("8UC3", cv2.COLOR_RGB2BGR), ("rgba8", cv2.COLOR_RGB2RGBA),
     ("bgra8", cv2.COLOR_RGB2BGRA)],
)  # fmt: skip
@given(padding=st.integers(0, 9))
def test_colours_are_decoded_exactly_for_any_step(encoding: str, code: int | None, padding: int) -> None:
    sent = IMAGE if code is None else cv2.cvtColor(IMAGE, code)
    np.testing.assert_array_equal(decode_rgb(frame(sent, encoding, padding)), IMAGE)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding: str) -> None:
    np.testing.assert_array_equal(decode_rgb(frame(IMAGE[..., 0], encoding, 3)), np.repeat(IMAGE[..., :1], 3, axis=2))


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_the_upper_eight_of_sixteen_bits_are_kept(encoding: str, big_endian: bool) -> None:
    deep = IMAGE[..., 0].astype(np.uint16) * 256 + 99
    np.testing.assert_array_equal(decode_rgb(frame(deep, encoding, 2, big_endian))[..., 0], IMAGE[..., 0])


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_image_of_one_colour_is_decoded_to_that_colour(pattern: str) -> None:
    colour = {"r": 200, "g": 100, "b": 30}
    mosaic = np.zeros((16, 16), np.uint8)
    for index, name in enumerate(pattern):
        mosaic[index // 2 :: 2, index % 2 :: 2] = colour[name]
    found = decode_rgb(frame(mosaic, f"bayer_{pattern}8"))[4:-4, 4:-4].reshape(-1, 3)
    assert np.abs(found.astype(int) - [200, 100, 30]).max() <= 1


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", (1, 0, 3, 2)), ("yuv422_yuy2", (0, 1, 2, 3))])
def test_a_yuv_image_of_one_colour_is_decoded_to_that_colour(encoding: str, order: tuple[int, ...]) -> None:
    # ITU-R BT.601, in the studio range, as in 4:2:2 video.
    to_yuv = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
    y, u, v = np.round([16, 128, 128] + to_yuv @ np.array([60, 120, 200]) / 255).astype(np.uint8)
    pair = np.array([y, u, y, v], np.uint8)[list(order)]
    found = decode_rgb(frame(np.tile(pair, (4, 4)).reshape(4, 8, 2), encoding))
    assert np.abs(found.reshape(-1, 3).astype(int) - [60, 120, 200]).max() <= 3


@pytest.mark.parametrize("name", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8"])
def test_png_is_decoded_exactly(name: str) -> None:
    sent = cv2.cvtColor(IMAGE, cv2.COLOR_RGB2BGR)
    np.testing.assert_array_equal(decode_rgb(compressed(sent, ".png", name)), IMAGE)


@pytest.mark.parametrize("name", ["jpeg", "rgb8; jpeg compressed bgr8", "mono8; jpeg compressed "])
def test_jpeg_is_decoded_approximately(name: str) -> None:
    flat = np.full((32, 32, 3), (20, 120, 220), np.uint8)
    assert np.abs(decode_rgb(compressed(flat, ".jpg", name)).astype(int) - [220, 120, 20]).max() <= 4


def test_a_plane_at_two_metres_has_a_depth_of_two_metres_in_every_encoding() -> None:
    millimetres = np.full((5, 7), 2000, np.uint16)
    millimetres[0, 0], millimetres[0, 1] = 0, 65535
    metres = millimetres.astype(np.float32) / 1000
    metres[0, 0], metres[0, 1] = np.nan, np.inf
    a, b = 100.0, -0.5  # A / metres + B
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = np.nan_to_num(np.round(a / metres + b)).clip(0).astype(np.uint16)
    inverse[0, 1] = 0
    png = cv2.imencode(".png", millimetres)[1].tobytes()
    quantised = cv2.imencode(".png", inverse)[1].tobytes()

    def transport(head: bytes, body: bytes, name: str) -> Frame:
        return Frame(np.frombuffer(head + body, np.uint8), name, compressed=True)

    for sent in (
        frame(millimetres, "16UC1", 4),
        frame(millimetres, "mono16", 0, True),
        frame(metres, "32FC1"),
        frame(metres, "32FC1", 8, True),
        transport(b"", png, "png"),
        transport(struct.pack("<iff", 0, 0, 0), png, "16UC1; compressedDepth"),
        transport(struct.pack("<iff", 0, a, b), quantised, "32FC1; compressedDepth png"),
    ):
        found = decode_depth(sent)
        assert found.dtype == np.float32 and np.isnan(found[0, :2]).all(), sent.encoding
        np.testing.assert_allclose(found[1:], 2.0, atol=0.02)
    np.testing.assert_allclose(decode_depth(frame(millimetres, "16UC1"), Calibration(depth_unit=0.0001))[1:], 0.2)


def test_radiometric_images_are_decoded_to_kelvin_and_others_to_levels() -> None:
    counts = np.full((4, 4), 30_000, np.uint16)
    for sent in (frame(counts, "mono16"), frame(counts, "16UC1", 2, True), compressed(counts, ".png", "png")):
        found = decode_thermal(sent)
        assert found.radiometric
        np.testing.assert_allclose(found.values, 300.0, rtol=1e-5)
    linear = decode_thermal(frame(counts, "16UC1"), Calibration(thermal_unit=0.04, thermal_offset=-900))
    np.testing.assert_allclose(linear.values, 300.0, rtol=1e-4)
    for sent in (frame(np.full((4, 4), 51, np.uint8), "mono8"), frame(np.full((4, 4, 3), 51, np.uint8), "bgr8")):
        found = decode_thermal(sent)
        assert not found.radiometric
        np.testing.assert_allclose(found.values, 0.2, atol=0.005)


@pytest.mark.parametrize(
    "wrong",
    [
        Frame(np.zeros(10, np.uint8), "rgb8", 4, 4, 12),
        Frame(np.zeros(48, np.uint8), "rgb8", 4, 4, 11),
        Frame(np.zeros(48, np.uint8), "rgb8", 0, 4, 12),
        Frame(np.zeros(48, np.uint8), "rgb8", 2**31, 2**31, 12),
        Frame(np.zeros(48, np.uint8), "klingon8", 4, 4, 12),
        Frame(np.zeros(48, np.uint8), "jpeg", compressed=True),
        Frame(np.frombuffer(OVERSIZED_PNG, np.uint8), "png", compressed=True),
        Frame(np.zeros(18, np.uint8), "yuv422", 3, 3, 6),
    ],
    ids=["short", "step", "empty", "huge", "unknown", "not jpeg", "oversized png", "odd yuv"],
)  # fmt: skip
def test_an_invalid_image_is_refused_with_the_name_of_its_encoding(wrong: Frame) -> None:
    for read in (decode_rgb, decode_thermal, decode_depth):
        with pytest.raises(EncodingError, match=wrong.encoding):
            read(wrong)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*PIXEL_FORMATS, "jpeg", "png", "16UC1; compressedDepth", "32FC1; compressedDepth png", "", "x"]),
    st.binary(max_size=200), st.integers(-1, 9), st.integers(-1, 9), st.integers(-1, 40), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_bytes_give_an_image_or_an_encoding_error(encoding, data, height, width, step, big_endian, packed) -> None:
    sent = Frame(np.frombuffer(data, np.uint8), encoding, height, width, step, big_endian, packed)
    for read in (decode_rgb, decode_thermal, decode_depth):
        try:
            read(sent)
        except EncodingError as error:
            assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([".png", ".jpg"]), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8))
def test_a_damaged_file_gives_an_image_or_an_encoding_error(extension, changes) -> None:
    data = cv2.imencode(extension, IMAGE)[1].reshape(-1).copy()
    for at, value in changes:
        data[at % len(data)] = value
    for read in (decode_rgb, decode_thermal, decode_depth):
        with suppress(EncodingError):
            assert read(Frame(data, "png" if extension == ".png" else "jpeg", compressed=True)) is not None


@pytest.mark.parametrize(
    ("name", "dtype", "scale"),
    [("S16LE", "<i2", 2**15), ("s16", "<i2", 2**15), ("S16BE", ">i2", 2**15), ("S32LE", "<i4", 2**31),
     ("F32LE", "<f4", 1.0), ("F32", "<f4", 1.0), ("S8", "i1", 2**7)],
)  # fmt: skip
def test_every_sample_format_gives_the_same_sound(name: str, dtype: str, scale: float) -> None:
    wave = np.array([[0.5, -0.5], [0.25, -1.0]])
    found = pcm_to_float(decode_pcm((wave * scale).astype(dtype).tobytes(), name, 2))
    np.testing.assert_allclose(found, wave, atol=1e-6)
    assert found.dtype == np.float32


def test_samples_of_24_bits_and_unsigned_bytes_are_decoded() -> None:
    assert pcm_to_float(decode_pcm(b"\x00\x00\x40\x00\x00\xc0", "S24LE", 1)).ravel().tolist() == [0.5, -0.5]
    assert pcm_to_float(decode_pcm(bytes([192, 64]), "U8", 1)).ravel().tolist() == [0.5, -0.5]


def test_incomplete_samples_and_unknown_formats_are_refused() -> None:
    for data, name, channels in ((b"123", "S16LE", 1), (b"1234", "S16LE", 3), (b"12", "MP3", 1), (b"12", "S16LE", 0)):
        with pytest.raises(EncodingError):
            decode_pcm(data, name, channels)
