"""The forms in which drivers and recorders send images: each gives the same colours, distances or temperatures."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensebind.fusion.core.encodings import (
    CAMERA_ENCODINGS,
    EncodingError,
    Video,
    decode_depth,
    decode_photograph,
    decode_rgb,
    decode_thermal,
    image_size,
    video_in,
)
from sensebind.fusion.core.samples import Calibration, Frame
from sensebind.fusion.preprocess.thermal import to_uint8

SIDE = 64
COLOURS = ((200, 30, 20), (30, 190, 40), (20, 40, 210), (128, 128, 128))  # of the quarters
BGR_ORDERS = ("bgr8", "bgr16", "bgra8", "bgra16", "8UC3", "8UC4", "16UC3", "16UC4", "32FC3")


def scene() -> np.ndarray:
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    half = SIDE // 2
    for index, colour in enumerate(COLOURS):
        image[index // 2 * half : (index // 2 + 1) * half, index % 2 * half : (index % 2 + 1) * half] = colour
    return image


def assert_scene(found: np.ndarray, tolerance: int = 6) -> None:
    assert found.dtype == np.uint8 and found.shape == (SIDE, SIDE, 3)
    half, edge = SIDE // 2, 8
    for index, colour in enumerate(COLOURS):
        top, left = index // 2 * half, index % 2 * half
        part = found[top + edge : top + half - edge, left + edge : left + half - edge].astype(int)
        assert np.abs(part - colour).max() <= tolerance, (index, part.reshape(-1, 3).mean(axis=0))


def mosaic(pattern: str, image: np.ndarray) -> np.ndarray:
    result = np.empty(image.shape[:2], image.dtype)
    for index, colour in enumerate(pattern):
        rows, columns = index // 2, index % 2
        result[rows::2, columns::2] = image[rows::2, columns::2, "rgb".index(colour)]
    return result


def planes(name: str) -> np.ndarray:
    """The scene in an encoding with planes, uint8 (rows, 64)."""
    i420 = cv2.cvtColor(scene(), cv2.COLOR_RGB2YUV_I420)
    y, u, v = i420[:SIDE], i420[SIDE : SIDE * 5 // 4].reshape(32, 32), i420[SIDE * 5 // 4 :].reshape(32, 32)
    if name == "i420":
        return i420
    if name == "nv24":
        pairs = np.repeat(np.repeat(np.stack([u, v], axis=2), 2, axis=0), 2, axis=1)
        return np.concatenate([y, pairs.reshape(2 * SIDE, SIDE)])
    return np.concatenate([y, np.stack([u, v] if name == "nv12" else [v, u], axis=2).reshape(SIDE // 2, SIDE)])


def sent_scene(encoding: str, bits: int = 16) -> np.ndarray:
    """The scene as a camera sends it. `bits`: how many bits of 16 it uses."""
    if encoding in ("nv12", "nv21", "nv24", "i420"):
        return planes(encoding)
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        i420 = planes("i420")
        y, u, v = i420[:SIDE], *(np.repeat(part.reshape(32, 32), 2, axis=0) for part in (i420[64:80], i420[80:]))
        chroma = np.stack([u, v], axis=2).reshape(SIDE, SIDE)
        return np.stack([chroma, y] if encoding in ("yuv422", "uyvy") else [y, chroma], axis=2)
    image = scene()
    if encoding.startswith("bayer"):
        image = mosaic(encoding[6:10], image)
    elif encoding in BGR_ORDERS:
        image = image[..., ::-1]
    if encoding in ("mono8", "8UC1", "mono16", "16UC1"):
        image = image[..., 1]
    if encoding == "32FC3":
        return image.astype(np.float32) / 255
    if "16" in encoding:
        image = image.astype(np.uint16) << (bits - 8)
    if encoding.startswith(("rgba", "bgra")) or encoding in ("8UC4", "16UC4"):
        opaque = np.full((SIDE, SIDE, 1), np.iinfo(image.dtype).max, image.dtype)
        image = np.concatenate([image, opaque], axis=2)
    return image


def raw(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False, bits: int = 0) -> Frame:
    table = np.ascontiguousarray(pixels.byteswap() if big_endian else pixels)
    rows = np.pad(table.view(np.uint8).reshape(len(table), -1), ((0, 0), (0, padding)), constant_values=99)
    return Frame(rows.reshape(-1), encoding, SIDE, SIDE, rows.shape[1], big_endian, bits=bits)


COLOUR_ENCODINGS = [name for name in CAMERA_ENCODINGS if name not in ("mono8", "8UC1", "mono16", "16UC1")]


@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
@pytest.mark.parametrize("padding", [0, 6])
def test_every_encoding_of_a_camera_gives_its_colours(encoding: str, padding: int) -> None:
    sent = sent_scene(encoding)
    if encoding == "nv24":  # a row of its colours is twice as long as a row of brightness
        colours = np.pad(sent[SIDE:].reshape(SIDE, 2 * SIDE), ((0, 0), (0, 2 * padding)), constant_values=99)
        data = np.concatenate([np.pad(sent[:SIDE], ((0, 0), (0, padding))).ravel(), colours.ravel()])
        assert_scene(decode_rgb(Frame(data, encoding, SIDE, SIDE, SIDE + padding)))
    else:
        assert_scene(decode_rgb(raw(sent, encoding, padding)))


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bayer_rggb16", "16UC3", "32FC3"])
def test_values_of_several_bytes_are_read_in_the_order_of_the_message(encoding: str) -> None:
    assert_scene(decode_rgb(raw(sent_scene(encoding), encoding, big_endian=True)))


@pytest.mark.parametrize("encoding", ["RGB8", "Bgr8", "NV12", "8uc3", "16uc3", "BAYER_RGGB8", "YUV422_YUY2"])
def test_the_name_of_an_encoding_may_be_written_in_any_case(encoding: str) -> None:
    known = next(name for name in CAMERA_ENCODINGS if name.lower() == encoding.lower())
    assert_scene(decode_rgb(raw(sent_scene(known), encoding)))
    depth = raw(np.full((SIDE, SIDE), 2000, np.uint16), "16uc1")
    assert decode_depth(depth).max() == pytest.approx(2.0)
    assert decode_thermal(raw(np.full((SIDE, SIDE), 30_000, np.uint16), "Mono16")).values.max() == pytest.approx(300.0)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("encoding", ["rgb16", "bayer_rggb16", "bayer_gbrg16"])
def test_a_camera_with_fewer_bits_gives_its_colours(encoding: str, bits: int) -> None:
    sent = sent_scene(encoding, bits)
    assert decode_rgb(raw(sent, encoding)).max() < 60  # nearly black
    assert_scene(decode_rgb(raw(sent, encoding, bits=bits)))
    grey = scene()[..., 1].astype(np.uint16) << (bits - 8)
    found = decode_rgb(raw(grey, "mono16", bits=bits))
    np.testing.assert_array_equal(found[..., 0], scene()[..., 1])
    packed = Frame(cv2.imencode(".png", grey)[1].reshape(-1), "mono16; png compressed ", compressed=True, bits=bits)
    np.testing.assert_array_equal(decode_rgb(packed)[..., 2], scene()[..., 1])


def test_values_above_the_bits_of_a_camera_are_white() -> None:
    assert decode_rgb(raw(np.full((SIDE, SIDE), 60_000, np.uint16), "mono16", bits=12)).min() == 255


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "i420"])
def test_an_image_whose_pixels_share_colours_must_have_even_sizes(encoding: str) -> None:
    for height, width in ((6, 5), (5, 6)):
        with pytest.raises(EncodingError, match=f"'{encoding}' image must be even"):
            decode_rgb(Frame(np.zeros(200, np.uint8), encoding, height, width, 6))
    with pytest.raises(EncodingError, match="needs 96 bytes, but has 90"):
        decode_rgb(Frame(np.zeros(90, np.uint8), encoding, 8, 8, 8))


# Image files, in CompressedImage


def encoded(extension: str, image: np.ndarray, name: str, *flags: int) -> Frame:
    return Frame(cv2.imencode(extension, image, list(flags))[1].reshape(-1), name, compressed=True)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("extension", "flags"), [(".jpg", (cv2.IMWRITE_JPEG_QUALITY, 100)), (".png", ())])
def test_a_mosaic_in_a_file_becomes_colours_by_the_format_of_the_message(
    pattern: str, extension: str, flags: tuple[int, ...]
) -> None:
    kind = "jpeg" if extension == ".jpg" else "png"
    for name in (f"bayer_{pattern}8; {kind} compressed ", f"BAYER_{pattern.upper()}8; {kind} compressed bayer"):
        assert_scene(decode_rgb(encoded(extension, mosaic(pattern, scene()), name, *flags)))
    coloured = encoded(extension, scene()[..., ::-1], f"bayer_{pattern}8; {kind} compressed bgr8", *flags)
    assert_scene(decode_rgb(coloured))  # the publisher made the colours


def test_a_mosaic_of_16_bits_in_a_png_becomes_colours() -> None:
    deep = mosaic("rggb", scene()).astype(np.uint16) << 4
    frame = encoded(".png", deep, "bayer_rggb16; png compressed ")
    assert_scene(decode_rgb(Frame(frame.data, frame.encoding, compressed=True, bits=12)))


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif", ".jp2"])
@pytest.mark.parametrize("name", ["", "image/jpeg", "JPEG", "rgb8; unknown compressed "])
def test_a_file_is_decoded_by_its_content(extension: str, name: str) -> None:
    frame = encoded(extension, scene()[..., ::-1], name)
    found = decode_rgb(frame)
    if extension == ".gif":  # it has few colours: neighbours are mixed
        found = cv2.blur(found, (11, 11))
    assert_scene(found, 12 if extension == ".gif" else 6)
    assert image_size(frame) == (SIDE, SIDE)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif", ".jp2"]),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4), st.integers(0, 10**6),
)  # fmt: skip
def test_a_damaged_file_of_any_format_gives_an_image_or_an_encoding_error(extension, changes, length) -> None:
    data = encoded(extension, scene(), "").data.copy()
    for at, value in changes:
        data[at % len(data)] = value
    frame = Frame(data[: 1 + length % len(data)], "", compressed=True)
    for read in (decode_rgb, decode_depth, decode_thermal, lambda f: decode_photograph(f.data)):
        try:
            assert read(frame) is not None
        except EncodingError as error:
            assert str(error)


def test_the_orientation_of_a_photograph_is_kept_and_that_of_a_message_ignored() -> None:
    turned = cv2.imencode(".jpg", cv2.rotate(scene()[..., ::-1], cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, 6, 0, 0)  # turn clockwise by 90°
    exif = b"Exif\0\0" + tiff
    data = np.frombuffer(turned[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + turned[2:], np.uint8)
    assert_scene(decode_photograph(data))
    assert_scene(cv2.rotate(decode_rgb(Frame(data, "jpeg", compressed=True)), cv2.ROTATE_90_CLOCKWISE))


def test_a_sound_file_is_not_an_image() -> None:
    wave = np.frombuffer(b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), np.uint8)
    with pytest.raises(EncodingError, match="is none of JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000"):
        decode_photograph(wave)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("h264", "h264"), ("H.264", "h264"), ("video/H264; codec=avc1", "h264"), ("vp8", "vp8"),
     ("video/x-h264", "h264"), ("libx264", "h264"), ("h265", "hevc"),
     ("hevc_nvenc", "hevc"), ("hevc;yuv420p;bgr8;bgr8", "hevc"), ("av1", "av1"), ("vp9", "vp9"), ("jpeg", None),
     ("rgb8; jpeg compressed bgr8", None), ("", None)],
)  # fmt: skip
def test_the_codec_of_a_video_is_in_its_format(name: str, codec: str | None) -> None:
    found = video_in(Frame(np.arange(1, 40, dtype=np.uint8), encoding=name, compressed=True))
    assert found == (None if codec is None else Video(codec, found.problem if found else ""))
    assert found is None or bool(found.problem) == (codec == "vp8")


# Depth

SLOPE = (1.0 + 0.02 * np.mgrid[0:SIDE, 0:SIDE][1] + 0.015 * np.mgrid[0:SIDE, 0:SIDE][0]).astype(np.float32)
SLOPE[:8, :8] = np.nan  # no reading
MILLIMETRES = np.nan_to_num(np.round(SLOPE * 1000)).astype(np.uint16)
HEADER = struct.pack("<iff", 0, 0.0, 0.0)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def packed(data: bytes, name: str) -> Frame:
    return Frame(np.frombuffer(data, np.uint8), name, compressed=True)


def rvl(values: np.ndarray) -> bytes:
    """A depth image in RVL, after its header: columns, rows, words of eight nibbles (Wilson, 2017)."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            nibbles.append(number & 7 | (8 if number > 7 else 0))
            number >>= 3
            if not number:
                return

    flat, at, before = values.ravel().astype(int).tolist(), 0, 0
    while at < len(flat):
        for is_reading in (False, True):
            end = at
            while end < len(flat) and (flat[end] != 0) == is_reading:
                end += 1
            put(end - at)
            if is_reading:
                for value in flat[at:end]:
                    put((value - before) << 1 ^ (value - before) >> 31)
                    before = value
            at = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = (sum(n << 28 - 4 * i for i, n in enumerate(nibbles[k : k + 8])) for k in range(0, len(nibbles), 8))
    return struct.pack("<ii", values.shape[1], values.shape[0]) + b"".join(struct.pack("<I", word) for word in words)


def quantized(a: float = 10_100.0, b: float = -1009.0) -> tuple[bytes, np.ndarray]:
    inverse = np.nan_to_num(np.floor(a / SLOPE + b)).astype(np.uint16)
    return struct.pack("<iff", 0, a, b), inverse


DEPTH_FORMS = {
    "16UC1": raw(MILLIMETRES, "16UC1"),
    "16UC1 big-endian": raw(MILLIMETRES, "16UC1", big_endian=True),
    "16SC1": raw(MILLIMETRES.astype(np.int16), "16SC1"),
    "32SC1": raw(MILLIMETRES.astype(np.int32), "32SC1"),
    "mono16": raw(MILLIMETRES, "mono16", 4),
    "32FC1": raw(SLOPE, "32FC1"),
    "64FC1": raw(SLOPE.astype(np.float64), "64FC1", 8),
    "compressedDepth": packed(HEADER + png(MILLIMETRES), "16UC1; compressedDepth png"),
    "compressedDepth without its name": packed(HEADER + png(MILLIMETRES), "16UC1; png compressed"),
    "compressedDepth without header": packed(png(MILLIMETRES), "16UC1; compressedDepth"),
    "compressedDepth without encoding": packed(HEADER + png(MILLIMETRES), "compressedDepth"),
    "compressedDepth RVL": packed(HEADER + rvl(MILLIMETRES), "16UC1; compressedDepth rvl"),
    "compressedDepth of floats": packed(quantized()[0] + png(quantized()[1]), "32FC1; compressedDepth png"),
    "compressedDepth RVL of floats": packed(quantized()[0] + rvl(quantized()[1]), "32FC1; compressedDepth rvl"),
    "PNG": packed(png(MILLIMETRES), "png"),
    "TIFF of floats": packed(cv2.imencode(".tiff", SLOPE)[1].tobytes(), "32FC1; tiff compressed "),
}


@pytest.mark.parametrize("form", DEPTH_FORMS)
def test_every_form_of_depth_gives_the_same_metres(form: str) -> None:
    found = decode_depth(DEPTH_FORMS[form])
    assert np.isnan(found[:8, :8]).all() and np.isfinite(found).sum() == SIDE * SIDE - 64
    assert np.nanmedian(found) == pytest.approx(np.nanmedian(SLOPE), abs=0.001)
    assert np.nanmax(np.abs(found - SLOPE)) <= 0.002


@pytest.mark.parametrize("encoding", ["32FC1", "64FC1"])
def test_the_unit_of_depth_holds_for_floats_too(encoding: str) -> None:
    values = (SLOPE * 1000).astype(np.float32 if encoding == "32FC1" else np.float64)
    found = decode_depth(raw(values, encoding), Calibration(depth_unit=0.001))
    assert np.nanmax(np.abs(found - SLOPE)) <= 0.001


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.97, 1.0]), st.integers(1, 30), st.integers(1, 30))
def test_any_depth_image_in_rvl_is_read_exactly(seed: int, missing: float, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(1, 65535, (height, width)).astype(np.uint16)
    values[random.random((height, width)) < missing] = 0
    found = decode_depth(packed(HEADER + rvl(values), "16UC1; compressedDepth rvl"))
    np.testing.assert_array_equal(np.nan_to_num(np.round(found * 1000)).astype(np.uint16), values)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(-2, 40), st.integers(-2, 40))
def test_damaged_rvl_gives_an_image_or_an_encoding_error(data: bytes, columns: int, rows: int) -> None:
    body = struct.pack("<ii", columns, rows) + data
    try:
        assert decode_depth(packed(HEADER + body, "16UC1; compressedDepth rvl")).shape == (rows, columns)
    except EncodingError as error:
        assert "compressedDepth rvl" in str(error)


def test_rvl_that_declares_too_many_pixels_or_is_cut_off_is_refused() -> None:
    name = "16UC1; compressedDepth rvl"
    for data in (struct.pack("<ii", 30_000, 30_000) + bytes(40), rvl(MILLIMETRES)[:-8], b"\1"):
        with pytest.raises(EncodingError, match=name):
            decode_depth(packed(HEADER + data, name))


# Temperature

KELVIN = (293.15 + 1.5 * np.sin(np.mgrid[0:SIDE, 0:SIDE][1] / 10)).astype(np.float32)
KELVIN[20:40, 20:30] = 307.15  # a person


@pytest.mark.parametrize(
    ("encoding", "values", "calibration"),
    [
        ("mono16", np.round(KELVIN * 100), Calibration()),
        ("16UC1", np.round(KELVIN / 0.04), Calibration(thermal_unit=0.04)),
        ("mono16", np.round((KELVIN - 273.15) * 10 + 1000), Calibration(thermal_unit=0.1, thermal_offset=173.15)),
        ("16SC1", np.round((KELVIN - 273.15) * 100), Calibration(thermal_unit=0.01, thermal_offset=273.15)),
        ("32FC1", KELVIN, Calibration()),
        ("32FC1", KELVIN - 273.15, Calibration(thermal_offset=273.15)),
        ("64FC1", (KELVIN - 273.15) * 10, Calibration(thermal_unit=0.1, thermal_offset=273.15)),
        ("mono8", np.round((KELVIN - 273.15) * 4), Calibration(thermal_unit=0.25, thermal_offset=273.15)),
    ],
    ids=["0.01 K", "0.04 K", "Optris", "signed", "kelvin", "Celsius", "tenths of Celsius", "8 bits"],
)  # fmt: skip
def test_unit_and_offset_of_temperatures_hold_for_every_form(
    encoding: str, values: np.ndarray, calibration: Calibration
) -> None:
    kinds = {"mono16": np.uint16, "16UC1": np.uint16, "16SC1": np.int16, "mono8": np.uint8, "64FC1": np.float64}
    found = decode_thermal(raw(values.astype(kinds.get(encoding, np.float32)), encoding), calibration)
    assert found.radiometric
    np.testing.assert_allclose(found.values, KELVIN, atol=0.2)


@pytest.mark.parametrize(
    "counts",
    [
        np.round(8000 + (KELVIN - 293.15) * 28).astype(np.uint16),
        np.round(22_000 + (KELVIN - 293.15) * 110).astype(np.uint16),
        np.round(np.clip((KELVIN - 291) / 17, 0, 1) * 16383).astype(np.uint16),
    ],
    ids=["14 bits", "16 bits", "automatic gain"],
)
def test_raw_counts_of_a_thermal_camera_are_used_by_their_contrast(counts: np.ndarray) -> None:
    found = decode_thermal(raw(counts, "mono16"), Calibration(thermal_radiometric=False))
    assert not found.radiometric
    assert found.values.min() == 0.0 and found.values.max() == 1.0
    assert found.values[30, 25] - np.median(found.values) > 0.6  # the person
    assert to_uint8(found)[30, 25] - np.median(to_uint8(found)) > 150


def test_noise_of_raw_counts_is_not_amplified() -> None:
    noise = np.random.default_rng(0).normal(8000, 2, (SIDE, SIDE)).round().astype(np.uint16)
    levels = decode_thermal(raw(noise, "mono16"), Calibration(thermal_radiometric=False)).values
    assert levels.std() < 0.03 and abs(float(np.median(levels)) - 0.5) < 0.05
