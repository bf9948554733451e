"""Targets: messages of sensors, from their bytes to windows that an encoder could take."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
import torch
from hypothesis import strategies as st

from fuzz.hostile_structures import changed_message
from fuzz.hostile_values import FEW, INT32, NUMBERS, TEXTS, UINT8, UINT32, framed, mutated, unframed
from fuzz.target import READ, Target, Work
from helpers import sensor_messages as valid
from helpers.field_recordings import STAMPED_SOUND, imu_message, sound_message
from helpers.small_imagebind import SIZES
from sensebind.benchmarks.harness.video_packets import encode_video
from sensebind.fusion.config.build import make_pipeline
from sensebind.fusion.config.parameters import embedder_values, sensor_options
from sensebind.fusion.core import encodings
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.recordings.message_types import typestore
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder
from sensebind.fusion.models.imagebind.network import ImageBind
from sensebind.fusion.models.imagebind.space import ImageBindSpace
from sensebind.fusion.stream.drivers import finish, process

IMAGE_MODALITIES = (VISION, DEPTH, THERMAL)
# One input has at most 64 messages, of at most 0.3 s each: more windows would be made of what a message claims.
MOST_MESSAGES, MOST_WINDOWS = 64, 400
ENCODINGS = sorted({*encodings.CHANNELS} if hasattr(encodings, "CHANNELS") else {"rgb8", "bgr8", "mono8", "mono16"})
ENCODING_NAMES = [
    *ENCODINGS, "rgb8", "RGB8", "bgra8", "16UC1", "32FC1", "64FC1", "nv12", "nv21", "nv24", "yuv422", "yuv422_yuy2",
    "bayer_rggb8", "bayer_gbrg16", "8UC4", "16UC3", "mono16", "rgb16", "8SC1", "32SC1", "32FC3", "yuv411",
]  # fmt: skip
FORMATS = [
    "jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", "16UC1; compressedDepth rvl",
    "32FC1; compressedDepth", "16UC1; png compressed ", "bayer_rggb8; jpeg compressed bgr8", "h264", "h265", "", "webp",
]  # fmt: skip


@cache
def space() -> ImageBindSpace:
    """ImageBind's frontends with encoders of a few numbers."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.pth"
        torch.save(ImageBind(**SIZES).state_dict(), path)
        return ImageBindSpace.load(weights=str(path), dtype="float32", **SIZES)


@cache
def parameter_values(modality: str, **given: Any) -> Mapping[str, Any]:
    """The embedder's parameters for one sensor. `given`: name of a parameter of the sensor → value."""
    own = {f"{modality}.{name}": list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return embedder_values({"modalities": [modality], f"{modality}.topic": "sensor", **own})


def process_messages(modality: str, type_name: str, data: bytes, repeats: int = 1, **given: Any) -> Work:
    """Decode the messages of an input, and make and embed their windows, as a node does.

    `repeats`: each message is sent so many times, 0.5 s apart, so that few messages fill a window.
    """
    values = parameter_values(modality, **given)
    decoder = SampleDecoder(sensor_options(values, modality), type_name, "/sensor")
    pipeline = make_pipeline(values, space(), live=True)
    samples = windows = refused = unreadable = 0
    parts = [part for part in unframed(data)[:MOST_MESSAGES] for _ in range(repeats)]
    for number, part in enumerate(parts):
        try:
            message = typestore().deserialize_cdr(part, type_name)
        except Exception:  # of rosbags: these bytes are no message
            unreadable += 1
            continue
        if repeats > 1 and hasattr(message, "header"):
            message.header.stamp.sec = (message.header.stamp.sec + number // 2) % 2**31
            message.header.stamp.nanosec ^= number % 2 * 2**29  # half a second
        try:
            found = decoder.decode(message, valid.START + number * SECOND // (2 if repeats > 1 else 50))
        except encodings.EncodingError as error:
            assert str(error) and "\n" not in str(error)
            refused += 1
            continue
        for sample in found:
            samples += 1
            pipeline.accept(sample)
            outputs = process(pipeline)
            windows += sum(isinstance(output, (Embedding, Failure)) for output in outputs)
            _check(outputs)
    for sample in decoder.finish():
        pipeline.accept(sample)
    outputs = finish(pipeline)
    _check(outputs)
    windows += sum(isinstance(output, (Embedding, Failure)) for output in outputs)
    return {READ: len(parts) - unreadable, "samples": samples, "windows": windows, "refused": refused}


def _check(outputs: Iterable[Any]) -> None:
    for output in outputs:
        if isinstance(output, Embedding):
            assert np.isfinite(output.vector).all(), "a vector that is not finite is published"


def cdr(message: Any, type_name: str) -> bytes:
    """The bytes of a message."""
    return bytes(typestore().serialize_cdr(message, type_name))


@st.composite
def headers(draw: st.DrawFn) -> Any:
    """Headers with good and bad stamps and frame ids."""
    stamp = draw(st.one_of(st.just(valid.START), st.integers(valid.START, valid.START + 3 * SECOND)))
    header = m.header_message(
        valid.BAG, stamp, draw(st.one_of(st.just("sensor"), TEXTS.filter(lambda t: "\0" not in t)))
    )
    if draw(st.integers(0, 9)) == 0:
        header.stamp.sec, header.stamp.nanosec = draw(INT32), draw(UINT32)
    return header


@st.composite
def image_messages(draw: st.DrawFn) -> bytes:
    """Images of all encodings, with sizes that fit their data or do not."""
    height, width = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    encoding = draw(st.one_of(st.sampled_from(ENCODING_NAMES), TEXTS.filter(lambda text: "\0" not in text)))
    step = width * draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12])) + draw(st.sampled_from([0, 0, 0, 1, 16]))
    count = draw(st.sampled_from([height * step, height * step, height * step * 3 // 2, height * step + 7, step, 0]))
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, count, dtype=np.uint8)
    if draw(st.integers(0, 3)) == 0:
        pixels[:] = draw(UINT8)
    sizes = {"height": height, "width": width, "step": step}
    for name in draw(st.lists(st.sampled_from(sorted(sizes)), max_size=2)):
        sizes[name] = draw(UINT32)
    message = valid.BAG.make(
        m.IMAGE_TYPE, header=draw(headers()), encoding=encoding, is_bigendian=draw(UINT8) % 256, data=pixels, **sizes
    )
    return framed([cdr(message, m.IMAGE_TYPE)])


def compressed_pixels() -> list[bytes]:
    """Valid compressed images."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    depth = np.random.default_rng(0).integers(500, 4000, (24, 32)).astype(np.uint16)
    result = [cv2.imencode(suffix, pixels)[1].tobytes() for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff")]
    png = cv2.imencode(".png", depth)[1].tobytes()
    return [
        *result,
        png,
        bytes(12) + png,
        bytes(8) + (32).to_bytes(4, "little") + (24).to_bytes(4, "little") + bytes(64),
    ]


@st.composite
def compressed_images(draw: st.DrawFn) -> bytes:
    """Compressed images with damaged data, and with formats that do not fit."""
    form = draw(st.one_of(st.sampled_from(FORMATS), TEXTS.filter(lambda text: "\0" not in text)))
    data = np.frombuffer(draw(mutated(compressed_pixels())), np.uint8)
    message = valid.BAG.make(m.COMPRESSED_IMAGE_TYPE, header=draw(headers()), format=form, data=data)
    return framed([cdr(message, m.COMPRESSED_IMAGE_TYPE)])


@st.composite
def readings(draw: st.DrawFn) -> bytes:
    """Readings of an IMU: with steps of time from 0 to hours, also back, and with any values."""
    stamp, parts = valid.START, []
    step = draw(st.sampled_from([0, 1, 2000, 100_000, 5_000_000, 10_000_000, 100_000_000]))
    for _ in range(draw(st.integers(1, MOST_MESSAGES))):
        stamp += draw(st.sampled_from([step] * 30 + [0, 2000, SECOND, -SECOND, 3600 * SECOND, 10**17]))
        values = [0.0, 0.0, 9.81, 0.0, 0.0, 0.0]
        if draw(st.integers(0, 15)) == 0:
            values[draw(st.integers(0, 5))] = draw(NUMBERS)
        stamp = min(max(stamp, 0), 2**31 * SECOND)
        parts.append(cdr(imu_message(stamp, values[:3], values[3:]), m.IMU_TYPE))
    return framed(parts)


@st.composite
def sounds(draw: st.DrawFn) -> bytes:
    """Sounds of mgonzs13's audio_common in Foxglove's form: any rate, number of channels and format."""
    parts = []
    rate = draw(st.one_of(st.sampled_from([8000, 16_000, 44_100, 48_000]), UINT32))
    channels = draw(st.one_of(st.just(1), st.integers(0, 8), UINT32))
    for number in range(draw(st.integers(1, 6))):
        content = np.random.default_rng(number).integers(0, 256, 2 * draw(st.integers(0, 40_000)), dtype=np.uint8)
        message = valid.BAG.make(
            valid.RAW_AUDIO,
            timestamp=m.stamp_message(valid.BAG, valid.START + number * draw(st.sampled_from([SECOND, SECOND // 10]))),
            data=content,
            format=draw(st.sampled_from(["pcm-s16", "pcm-s16", "pcm-f32", "", "mp3", "opus"])),
            sample_rate=rate,
            number_of_channels=channels,
        )
        parts.append(cdr(message, valid.RAW_AUDIO))
    return framed(parts)


def any_bytes(*messages: Any) -> st.SearchStrategy[bytes]:
    """Several messages with changed fields, or with bytes that are changed anywhere, also in lengths and stamps."""
    parts = [cdr(message, message.__msgtype__) for message in messages]
    changed = st.one_of(*(changed_message(message) for message in messages))
    return st.lists(st.one_of(mutated(parts), changed), min_size=1, max_size=4).map(framed)


@st.composite
def sound_pieces(draw: st.DrawFn) -> bytes:
    """Raw samples, and pieces of WAV, MP3 and Ogg, some damaged, in messages with stamps."""
    content = draw(st.sampled_from(sound_contents()))
    content = draw(mutated([content])) if draw(st.booleans()) else content
    size = draw(st.sampled_from([100, 1000, 4000, 30_000]))
    pieces = [content[at : at + size] for at in range(0, len(content), size)][: draw(st.integers(1, 20))]
    stamp, parts = valid.START, []
    for piece in pieces:
        stamp += draw(st.sampled_from([SECOND // 10] * 8 + [0, -SECOND, SECOND, 10**15]))
        parts.append(cdr(sound_message(stamp, piece), STAMPED_SOUND))
    return framed([draw(mutated([part])) if draw(st.integers(0, 9)) == 0 else part for part in parts])


@cache
def sound_contents() -> list[bytes]:
    """The same noise as raw samples and in the formats that drivers send."""
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
    found = [(noise * 9000).astype("<i2").tobytes()]
    for form, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("MP3", None), ("OGG", "OPUS"), ("OGG", "VORBIS")):
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 16_000, format=form, subtype=subtype)
        found.append(buffer.getvalue())
    return found


@cache
def videos() -> list[tuple[str, list[bytes]]]:
    """(codec, packets) of videos with a keyframe every four images."""
    found, images = [], np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)
    for codec in ("h264", "hevc", "av1", "vp9"):
        try:
            found.append((codec, encode_video(list(images), codec, rate=10, keyframe_interval=4)))
        except (ValueError, OSError, RuntimeError):  # this build of FFmpeg has no such encoder
            continue
    assert found
    return found


@st.composite
def video_packets(draw: st.DrawFn) -> bytes:
    """Packets of a video: damaged, lost, out of order, twice, of another codec, and with false names of the codec."""
    codec, packets = draw(st.sampled_from(videos()))
    packets = list(packets)
    for _ in range(draw(FEW)):
        kind, at = (
            draw(st.sampled_from(["damage"] * 4 + ["lose", "repeat", "swap", "other"])),
            draw(st.integers(0, 2**16)),
        )
        at %= max(1, len(packets))
        if kind == "damage" and packets:
            packets[at] = draw(mutated([packets[at]]))
        elif kind == "lose" and packets:
            del packets[at]
        elif kind == "repeat":
            packets[at:at] = packets[at : at + 1] * draw(st.sampled_from([1, 3, 20]))
        elif kind == "swap" and packets:
            packets[at], packets[0] = packets[0], packets[at]
        else:
            packets[at:at] = draw(st.sampled_from(videos()))[1][:2]
    names = [codec] * 6 + ["h264", "h265", "av1", "vp9", "", "jpeg"]
    parts = []
    for number, packet in enumerate(packets[:MOST_MESSAGES]):
        stamp = m.stamp_message(valid.BAG, valid.START + number * SECOND // 10)
        content = {"data": np.frombuffer(packet, np.uint8), "format": draw(st.sampled_from(names))}
        message = valid.BAG.make(m.COMPRESSED_VIDEO_TYPE, timestamp=stamp, frame_id="camera", **content)
        parts.append(cdr(message, m.COMPRESSED_VIDEO_TYPE))
    return framed(parts)


def run_video(data: bytes) -> Work:
    """Decode the packets of a video, with a limit on the size of its images."""
    return process_messages(VISION, m.COMPRESSED_VIDEO_TYPE, data, max_pixels=2**20)


def run_images(type_name: str, data: bytes) -> Work:
    """All image modalities read the same messages."""
    work: dict[str, int] = {}
    for modality in IMAGE_MODALITIES:
        for name, count in process_messages(modality, type_name, data, repeats=6).items():
            work[name] = work.get(name, 0) + count
    return work


LIMITS = {"windows": MOST_WINDOWS}
RAW_SOUND = {"sample_format": "S16LE", "sample_rate": 16_000, "channels": 1}
TARGETS = [
    Target(
        "images",
        image_messages() | any_bytes(valid.colour(), valid.depth()),
        partial(run_images, m.IMAGE_TYPE),
        LIMITS,
    ),
    Target("compressed_images", compressed_images(), partial(run_images, m.COMPRESSED_IMAGE_TYPE), LIMITS),
    Target("video_packets", video_packets(), run_video, LIMITS),
    Target("readings", readings() | any_bytes(valid.motion()), partial(process_messages, IMU, m.IMU_TYPE), LIMITS),
    Target(
        "sounds", sounds() | any_bytes(valid.raw_audio()), partial(process_messages, AUDIO, valid.RAW_AUDIO), LIMITS
    ),
    Target(
        "sounds_with_stamp",
        sound_pieces() | any_bytes(valid.sound_with_stamp()),
        partial(process_messages, AUDIO, STAMPED_SOUND, **RAW_SOUND),
        LIMITS,
    ),
    Target(
        "sounds_without_format",
        sound_pieces() | any_bytes(valid.sound_with_stamp()),
        partial(process_messages, AUDIO, STAMPED_SOUND),
        LIMITS,
    ),
]
