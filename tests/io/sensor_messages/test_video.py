"""A camera's video becomes images as its packets arrive, live and from recordings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensebind.benchmarks.harness.video_packets import encode_video
from sensebind.fusion.config.parameters import embedder_parameters, resolve_values
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import DEPTH, SECOND, THERMAL, VISION, Frame, Sample
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.recordings import BagWriter, Recording, RosbagsMessageFactory
from sensebind.fusion.io.sensor_messages.codecs.video import MAX_PACKETS_WITHOUT_KEYFRAME, VideoDecoder
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder, data_topic
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.io.topic_names import sibling_topic
from sensebind.replay.reader import SampleReader

BAG = RosbagsMessageFactory()
START, PERIOD = 1_700_000_000 * SECOND, SECOND // 10
HEIGHT, WIDTH = 96, 128
BEFORE_KEYFRAME = "a packet of its h264 video before the first keyframe gives no image"


def image_of(number: int) -> np.ndarray:
    """A grey image with a coloured field that moves, uint8 (96, 128, 3), red first."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[16:64, 16 + number : 64 + number] = (200, 30, 20)
    return image


def packets(count: int, codec: str = "h264", **options: Any) -> list[bytes]:
    return encode_video([image_of(number) for number in range(count)], codec, rate=10, **options)


def message(type_name: str, number: int, packet: bytes, name: str) -> Any:
    stamp, data = START + number * PERIOD, np.frombuffer(packet, np.uint8)
    if type_name == m.COMPRESSED_VIDEO_TYPE:
        return BAG.make(type_name, timestamp=m.stamp_message(BAG, stamp), frame_id="camera", data=data, format=name)
    header = m.header_message(BAG, stamp, "camera")
    if type_name == m.COMPRESSED_IMAGE_TYPE:
        return BAG.make(type_name, header=header, format=name, data=data)
    sizes = {"width": WIDTH, "height": HEIGHT, "pts": number, "flags": 0, "is_bigendian": False}
    return BAG.make(type_name, header=header, encoding=name, data=data, **sizes)


def decode(
    own: Sequence[bytes], type_name: str = m.COMPRESSED_VIDEO_TYPE, name: str = "h264", modality: str = VISION
) -> list[Sample | str]:
    """The sample of each packet, or the text of its error. Packet N has the stamp of image N."""
    decoder = SampleDecoder(SensorOptions(modality), type_name)
    results: list[Sample | str] = []
    for number, packet in enumerate(own):
        try:
            results += decoder.decode(message(type_name, number, packet, name), 0)
        except EncodingError as error:
            results.append(str(error))
    return results


def assert_image(sample: Sample | str, number: int, tolerance: float = 12.0) -> None:
    assert isinstance(sample, Sample), sample
    assert (sample.stamp, sample.frame_id) == (START + number * PERIOD, "camera")
    frame = sample.data
    assert isinstance(frame, Frame) and (frame.encoding, frame.height, frame.width) == ("rgb8", HEIGHT, WIDTH)
    found = frame.data.reshape(HEIGHT, WIDTH, 3).astype(int)
    assert not frame.compressed and np.abs(found - image_of(number))[:, 8:-8].mean() < 6
    assert np.abs(found[24:56, 24 + number : 56 + number] - [200, 30, 20]).mean() < tolerance


@pytest.mark.parametrize(
    ("type_name", "name", "codec"),
    [
        (m.COMPRESSED_VIDEO_TYPE, "h264", "h264"),
        (m.COMPRESSED_VIDEO_TYPE, "h265", "hevc"),
        (m.COMPRESSED_VIDEO_TYPE, "vp9", "vp9"),
        (m.COMPRESSED_VIDEO_TYPE, "av1", "av1"),
        (m.FFMPEG_PACKET_TYPE, "libx264", "h264"),
        (m.FFMPEG_PACKET_TYPE, "hevc;yuv420p;bgr8;bgr8", "hevc"),
        (m.COMPRESSED_IMAGE_TYPE, "h264", "h264"),
        (m.COMPRESSED_IMAGE_TYPE, "H265", "hevc"),
    ],
)
def test_each_packet_gives_its_image_with_its_stamp(type_name: str, name: str, codec: str) -> None:
    results = decode(packets(12, codec), type_name, name)
    assert len(results) == 12
    for number, sample in enumerate(results):
        assert_image(sample, number)


def test_a_video_begins_at_its_first_keyframe_and_the_packets_before_it_are_counted() -> None:
    own = packets(30, keyframe_interval=10)
    results = decode([b"", *own][4:])  # packet N is at place N − 3 of the list
    assert results[:7] == [BEFORE_KEYFRAME] * 7
    assert all(isinstance(result, Sample) for result in results[7:]) and len(results) == 27


def test_after_a_damaged_packet_no_image_is_wrong() -> None:
    own = packets(30, keyframe_interval=10)
    own[13] = own[13][:3] + b"\x67" + bytes(30)  # a parameter set that makes no sense
    results = decode(own)
    for number in (*range(13), *range(20, 30)):
        assert_image(results[number], number)
    assert results[13] == "a packet of its h264 video is damaged"
    assert set(results[14:20]) == {
        "a packet of its h264 video after a damaged packet, until the next keyframe, gives no image"
    }


def test_a_video_without_further_keyframes_goes_on_after_damage() -> None:
    """Some encoders renew parts of each image instead of sending keyframes."""
    count = MAX_PACKETS_WITHOUT_KEYFRAME + 40
    own = encode_video((image_of(i % 40) for i in range(count)), keyframe_interval=10**6)
    own[5] = own[5][:3] + b"\x67" + bytes(30)
    results = decode(own)
    assert isinstance(results[4], Sample)
    assert not any(isinstance(result, Sample) for result in results[5 : 5 + MAX_PACKETS_WITHOUT_KEYFRAME])
    assert len(results) == count and all(isinstance(result, Sample) for result in results[-30:])


def test_images_of_a_video_with_b_frames_keep_their_stamps() -> None:
    options = {"preset": "fast", "x264-params": "log=-1:bframes=2:b-adapt=0:keyint=30:rc-lookahead=5"}
    order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8]  # in which such packets are sent
    own = packets(10, options=options)
    decoder = SampleDecoder(SensorOptions(VISION), m.COMPRESSED_VIDEO_TYPE)
    found: dict[int, Sample] = {}
    texts = []
    for number, packet in zip(order, own, strict=True):
        try:
            [sample] = decoder.decode(message(m.COMPRESSED_VIDEO_TYPE, number, packet, "h264"), 0)
        except EncodingError as error:
            texts.append(str(error))
        else:
            found[sample.stamp] = sample
    assert len(found) + len(texts) == 10 and 0 < len(texts) <= 3  # as many as are held back at the end
    for number in range(len(found)):
        assert_image(found[START + number * PERIOD], number)
    assert "tune=zerolatency" in texts[-1]


def test_a_video_that_begins_again_needs_a_keyframe_again() -> None:
    """A recording that is played in a loop."""
    own = packets(20, keyframe_interval=20)
    decoder = SampleDecoder(SensorOptions(VISION), m.COMPRESSED_VIDEO_TYPE)
    for number, packet in enumerate(own):
        decoder.decode(message(m.COMPRESSED_VIDEO_TYPE, number + 100, packet, "h264"), 0)
    with pytest.raises(EncodingError, match="before the first keyframe"):
        decoder.decode(message(m.COMPRESSED_VIDEO_TYPE, 3, own[3], "h264"), 0)
    assert_image(decoder.decode(message(m.COMPRESSED_VIDEO_TYPE, 0, own[0], "h264"), 0)[0], 0)


@pytest.mark.parametrize("name", ["h264", "h265", "av1", "vp9"])
def test_bytes_that_are_no_video_give_an_error_for_each_packet(name: str) -> None:
    noise = np.random.default_rng(0)
    texts = decode([b"", b"\0\0\0\1\x67" + bytes(40), *(noise.bytes(50) for _ in range(20))], name=name)
    assert all(isinstance(text, str) and "video" in text for text in texts)


def test_a_thermal_camera_may_send_video_and_a_depth_camera_may_not() -> None:
    assert_image(decode(packets(3), modality=THERMAL)[0], 0)
    with pytest.raises(EncodingError, match=r"does not carry depth.* and depth\.transport to raw or compressed"):
        SampleDecoder(SensorOptions(DEPTH), m.COMPRESSED_VIDEO_TYPE)


def test_without_pyav_one_line_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    assert set(decode([b"\0\0\0\1\x67"] * 3)) == {"its images are h264 video, which needs PyAV: pip install av"}


def write_bag(folder: Path, topic: str, type_name: str, own: Sequence[bytes], name: str) -> None:
    with BagWriter(folder) as bag:
        for number, packet in enumerate(own):
            bag.write(topic, type_name, START + number * PERIOD, message(type_name, number, packet, name))


@pytest.mark.parametrize(
    ("topic", "type_name", "name"),
    [
        ("/camera/image_raw/foxglove", m.COMPRESSED_VIDEO_TYPE, "h264"),
        ("/camera/image_raw/ffmpeg", m.FFMPEG_PACKET_TYPE, "h264"),
        ("/camera/image_raw/compressed", m.COMPRESSED_IMAGE_TYPE, "h264"),
    ],
)
def test_a_recording_whose_only_camera_is_video_is_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, topic: str, type_name: str, name: str
) -> None:
    write_bag(tmp_path / "bag", topic, type_name, packets(20, keyframe_interval=10)[2:], name)
    values = resolve_values(embedder_parameters([VISION]), {"modalities": [VISION]})
    with caplog.at_level(logging.WARNING), Recording(tmp_path / "bag") as recording:
        reader = SampleReader(recording, values, (VISION,))
        results = list(reader.samples())
    assert reader.topics == {VISION: topic}
    failures = [r for r in results if isinstance(r, Failure)]
    assert [f.message for f in failures] == [BEFORE_KEYFRAME] * 8
    assert len(results) == 18 and all(isinstance(r, Sample) for r in results[8:])


def test_the_transport_of_a_video_names_its_topic_and_type() -> None:
    for transport, type_name in (("ffmpeg", m.FFMPEG_PACKET_TYPE), ("foxglove", m.COMPRESSED_VIDEO_TYPE)):
        options = SensorOptions(VISION, transport=transport)
        assert options.message_type == type_name
        assert data_topic(options, "/camera/image") == f"/camera/image/{transport}"
        assert data_topic(options, f"/camera/image/{transport}") == f"/camera/image/{transport}"
        assert sibling_topic(f"/camera/image/{transport}", "camera_info") == "/camera/camera_info"


def test_a_video_with_larger_images_than_max_pixels_allocates_none_of_them() -> None:
    own = packets(4)
    for most, is_read in ((HEIGHT * WIDTH, True), (HEIGHT * WIDTH - 1, False)):
        decoder = SampleDecoder(SensorOptions(VISION, max_pixels=most), m.COMPRESSED_VIDEO_TYPE)
        found: list[Sample] = []
        for number, packet in enumerate(own):
            try:
                found += decoder.decode(message(m.COMPRESSED_VIDEO_TYPE, number, packet, "h264"), START)
            except EncodingError:
                assert not is_read
        assert bool(found) == is_read


def test_a_packet_that_repeats_an_image_without_end_is_refused() -> None:
    """AV1 and VP9 repeat an image with two bytes: 20 kB could ask for 10,000 images."""
    decoder = VideoDecoder("h264")
    converted = []

    class Image:
        is_corrupt, width, height, pts = False, WIDTH, HEIGHT, None

        def to_ndarray(self, format: str) -> np.ndarray:
            converted.append(format)
            return image_of(0)

    class Context:
        def decode(self, packet: Any) -> list[Image]:
            return [Image()] * 10_000

    decoder._context = Context()
    key = packets(1)[0]
    sample = Sample(VISION, START, Frame(np.frombuffer(key, np.uint8), "h264", compressed=True))
    with pytest.raises(EncodingError, match="more than 16 images"):
        decoder.decode(sample)
    assert not converted
