"""Which topic of a recording is which sensor follows from what the messages contain, and only then from the name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.recorded_topics import COLOUR_PIXELS, DISTANCES, GREY_PIXELS, Images, compressed_depth, jpeg, record
from sensebind.fusion.core.encodings import CAMERA_ENCODINGS, Pixels, pixels_of
from sensebind.fusion.io.recordings import BagWriter, Recording, RosbagsMessageFactory
from sensebind.fusion.io.topic_selection import TopicSelection
from sensebind.fusion.io.topic_selection.examination import compressed_pixels
from sensebind.simulation.messages import SIMULATION_START

COLOUR = Images("/camera/color/image_raw", "rgb8")
DEPTH = Images("/camera/depth/image_rect_raw", "16UC1", frame_id="camera_depth_optical_frame")


def selected(folder: Path, topics: Sequence[Images]) -> dict[str, list[str]]:
    """Modality → the topics of its sensors."""
    with Recording(record(folder, topics)) as recording:
        return {m: [c.topic for c in own.values()] for m, own in TopicSelection(recording).sensors().items()}


def reason(folder: Path, topics: Sequence[Images], topic: str) -> str:
    """Why a topic is a sensor, or why not."""
    with Recording(record(folder, topics)) as recording:
        selection = TopicSelection(recording)
        sensors = selection.sensors()
        chosen = {c.topic: c.reason for own in sensors.values() for c in own.values()}
        (candidate,) = [c for c in selection.candidates if c.facts.name == topic]
        return chosen.get(topic) or selection.reason_against(candidate, sensors)


# Infrared and thermal


@pytest.mark.parametrize(
    "infrared",
    [
        Images("/camera/infra1/image_rect_raw", "mono8"),
        Images("/camera/infra1/image_rect_raw", "mono8", info_width=64),
        Images("/ir/image_raw", "mono16", frame_id="depth_camera_link"),
        Images("/sd/image_ir", "16UC1", info_width=64),
        Images("/left/image_rect", "mono8", frame_id="camera_infra1_optical_frame", info_width=64),
        jpeg("/nir/image_raw/compressed", "mono8", GREY_PIXELS),
    ],
    ids=lambda images: images.topic,
)
def test_near_infrared_images_are_not_thermal_and_yield_to_a_colour_camera(tmp_path: Path, infrared: Images) -> None:
    topics = [infrared, COLOUR, DEPTH]
    assert selected(tmp_path / "bag", topics) == {"vision": [COLOUR.topic], "depth": [DEPTH.topic]}
    assert "near-infrared" in reason(tmp_path / "again", topics, infrared.topic)


def test_images_of_a_lidar_are_no_camera_beside_one_and_ranges_are_never_colours(tmp_path: Path) -> None:
    lidar = [Images(f"/ouster/{name}_image", "mono16", frame_id="os_lidar") for name in ("signal", "reflec", "nearir")]
    ranges = Images("/ouster/range_image", "mono16", frame_id="os_lidar")
    assert selected(tmp_path / "both", [*lidar, ranges, COLOUR]) == {"vision": [COLOUR.topic]}
    assert ranges.topic not in selected(tmp_path / "lidar", [*lidar, ranges])["vision"]
    assert "set depth.topic" in reason(tmp_path / "why", [*lidar, ranges], ranges.topic)
    assert "near-infrared" in reason(tmp_path / "light", [*lidar, COLOUR], "/ouster/signal_image")


def test_the_topic_of_a_video_is_described_by_its_type(tmp_path: Path) -> None:
    message_factory = RosbagsMessageFactory()
    stamp = message_factory.make("builtin_interfaces/msg/Time", sec=1, nanosec=0)
    kind = "foxglove_msgs/msg/CompressedVideo"
    packet = np.zeros(8, np.uint8)
    with BagWriter(tmp_path / "bag") as bag:
        message = bag.message_factory.make(kind, timestamp=stamp, frame_id="camera", data=packet, format="h264")
        bag.write("/camera/foxglove", kind, SIMULATION_START, message)
    with Recording(tmp_path / "bag") as recording:
        assert TopicSelection(recording).single_topics()["vision"].reason.endswith("video (CompressedVideo)")


def test_a_near_infrared_camera_that_is_the_only_camera_is_vision(tmp_path: Path) -> None:
    topics = [Images("/camera/infra1/image_rect_raw", "mono8"), DEPTH]
    assert selected(tmp_path / "bag", topics) == {"vision": [topics[0].topic], "depth": [DEPTH.topic]}
    assert "near-infrared" in reason(tmp_path / "again", topics, topics[0].topic)


@pytest.mark.parametrize(
    "thermal",
    [
        Images("/thermal/image_raw", "mono16"),
        Images("/lwir/image", "16UC1", info_width=64),
        Images("/waermebild/image_raw", "mono16"),
        Images("/camara_termica/image_raw", "mono16"),
        Images("/flir/ir/image_raw", "mono8"),
        Images("/boson/image", "mono16", frame_id="thermal_optical_frame"),
        Images("/thermal_camera/temperature", "32FC1"),
        jpeg("/thermal/image_raw/compressed", "mono8", np.dstack([GREY_PIXELS] * 3)),
    ],
    ids=lambda images: images.topic,
)
def test_grey_images_of_a_thermal_camera_are_thermal(tmp_path: Path, thermal: Images) -> None:
    assert selected(tmp_path / "bag", [thermal, COLOUR]) == {"vision": [COLOUR.topic], "thermal": [thermal.topic]}


@pytest.mark.parametrize("device", ["thermal", "depth", "flir"])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "bayer_rggb8"])
def test_colours_and_bayer_mosaics_are_never_temperatures_or_distances(
    tmp_path: Path, device: str, encoding: str
) -> None:
    assert selected(tmp_path / "bag", [Images(f"/{device}/image_raw", encoding)]) == {
        "vision": [f"/{device}/image_raw"]
    }


def test_false_colours_of_temperatures_and_distances_yield_to_a_camera(tmp_path: Path) -> None:
    coloured = [Images("/thermal/image_color", "rgb8"), jpeg("/camera/depth/view/compressed", "rgb8")]
    assert selected(tmp_path / "bag", [*coloured, DEPTH, COLOUR]) == {"vision": [COLOUR.topic], "depth": [DEPTH.topic]}


def test_false_colours_of_a_sensor_that_the_recording_has_are_no_camera(tmp_path: Path) -> None:
    view = Images("/camera/depth/view", "bgr8")
    assert selected(tmp_path / "bag", [view, DEPTH]) == {"depth": [DEPTH.topic]}
    assert "not distances" in reason(tmp_path / "again", [view, DEPTH], view.topic)


def test_colour_images_are_preferred_to_grey_ones_of_the_same_device(tmp_path: Path) -> None:
    topics = [Images("/cam/image_mono", "mono8"), jpeg("/cam/image_raw/compressed", "rgb8")]
    assert selected(tmp_path / "bag", topics) == {"vision": [topics[1].topic]}
    assert "because it has colours" in reason(tmp_path / "again", topics, topics[1].topic)


def test_the_colour_camera_of_a_depth_camera_is_vision(tmp_path: Path) -> None:
    topics = [
        Images("/depth_camera/image_raw", "rgb8", info_width=64),
        Images("/depth_camera/depth/image_raw", "32FC1", info_width=64),
        Images("/rear/image_raw", "rgb8", info_width=64, frame_id="rear"),
    ]
    found = selected(tmp_path / "bag", topics)
    assert found == {"vision": [topics[0].topic, topics[2].topic], "depth": [topics[1].topic]}


# Depth


def test_an_8_bit_image_of_depth_yields_to_compressed_depth(tmp_path: Path) -> None:
    shallow = jpeg(f"{DEPTH.topic}/compressed", "16UC1", GREY_PIXELS)
    real = compressed_depth(f"{DEPTH.topic}/compressedDepth")
    assert selected(tmp_path / "bag", [shallow, real]) == {"depth": [real.topic]}
    assert "8 bits" in reason(tmp_path / "again", [shallow, real], shallow.topic)
    assert selected(tmp_path / "alone", [shallow]) == {}


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_images_of_distances_with_camera_info_are_depth_under_any_name(tmp_path: Path, encoding: str) -> None:
    stereo = Images("/stereo/points_image", encoding, info_width=64)
    assert selected(tmp_path / "bag", [COLOUR, stereo]) == {"vision": [COLOUR.topic], "depth": [stereo.topic]}


def test_depth_by_encoding_alone_yields_to_depth_that_more_says(tmp_path: Path) -> None:
    assert selected(tmp_path / "bag", [Images("/height", "32FC1"), DEPTH]) == {"depth": [DEPTH.topic]}


@pytest.mark.parametrize(
    ("topic", "encoding"),
    [
        ("/stereo/disparity", "32FC1"),
        ("/stereo/disparity_image", "mono8"),
        ("/camera/confidence/image", "16UC1"),
        ("/net/labels", "32SC1"),
        ("/net/inverse_depth", "32FC1"),
        ("/net/relative_depth/image", "32FC1"),
        ("/net/segmentation_ids", "16UC1"),
    ],
)
def test_numbers_that_are_no_metres_are_not_depth(tmp_path: Path, topic: str, encoding: str) -> None:
    assert selected(tmp_path / "bag", [Images(topic, encoding, info_width=64), COLOUR]) == {"vision": [COLOUR.topic]}


def test_a_disparity_image_is_not_depth_and_the_reason_says_what_to_record(tmp_path: Path) -> None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "stereo_msgs/msg/DisparityImage"
    with BagWriter(tmp_path / "bag") as bag:
        write_disparity(bag, store, kind)
    with Recording(tmp_path / "bag") as recording:
        selection = TopicSelection(recording)
        assert selection.sensors() == {}
        (candidate,) = selection.candidates
        assert (
            "not metres" in selection.reason_against(candidate, {}) and "stereo_image_proc" in candidate.verdict.reason
        )
        assert "/stereo/points" in selection.reason_without_topic("depth")


def write_disparity(bag: BagWriter, store: Any, kind: str) -> None:
    from helpers.sensor_messages import image

    make = RosbagsMessageFactory().make
    region = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    float_image = image("32FC1", DISTANCES.astype(np.float32))
    numbers = dict.fromkeys(("f", "t", "min_disparity", "max_disparity", "delta_d"), 1.0)
    message = store.types[kind](header=float_image.header, image=float_image, valid_window=region, **numbers)
    bag.write("/stereo/points", kind, SIMULATION_START, message)


# Topics of one camera


def test_raw_images_that_stop_yield_to_the_compressed_ones_that_go_on(tmp_path: Path) -> None:
    raw, compressed = COLOUR.but(end=1.0), jpeg(f"{COLOUR.topic}/compressed", "rgb8")
    assert selected(tmp_path / "bag", [raw, compressed]) == {"vision": [compressed.topic]}
    assert "covers 3.8 s" in reason(tmp_path / "again", [raw, compressed], compressed.topic)


def test_raw_images_that_begin_late_or_are_few_yield_too(tmp_path: Path) -> None:
    compressed = jpeg(f"{COLOUR.topic}/compressed", "rgb8")
    assert selected(tmp_path / "late", [COLOUR.but(start=2.5), compressed]) == {"vision": [compressed.topic]}
    assert selected(tmp_path / "few", [COLOUR.but(rate=1), compressed]) == {"vision": [compressed.topic]}


def test_raw_images_are_preferred_if_both_go_on(tmp_path: Path) -> None:
    topics = [COLOUR.but(end=3.8), jpeg(f"{COLOUR.topic}/compressed", "rgb8")]
    assert selected(tmp_path / "bag", topics) == {"vision": [COLOUR.topic]}


def test_images_are_preferred_to_video_of_the_same_camera(tmp_path: Path) -> None:
    video = Images("/cam/image_raw/h264", "h264", b"\0\0\0\1\x67" + bytes(40))
    images = jpeg("/cam/image_raw/compressed", "rgb8")
    assert selected(tmp_path / "bag", [video, images]) == {"vision": [images.topic]}
    assert "it is no video" in reason(tmp_path / "again", [video, images], images.topic)


# Images that other programs made


@pytest.mark.parametrize(
    "name", ["/yolo/dbg_image", "/net/bboxes", "/camera/debug/image", "/net/heatmap", "/dvs/rendering", "/bev/image"]
)
def test_drawn_images_yield_to_the_camera(tmp_path: Path, name: str) -> None:
    drawn = [Images(name, "bgr8"), jpeg("/overlay/image/compressed", "bgr8")]
    topics = [*drawn, Images("/front/image_raw", "rgb8")]
    assert selected(tmp_path / "bag", topics) == {"vision": ["/front/image_raw"]}
    with Recording(tmp_path / "bag") as recording:
        assert TopicSelection(recording).single_topics()["vision"].topic == "/front/image_raw"


def test_images_with_the_frame_and_stamps_of_a_camera_and_no_camera_info_are_made_from_it(tmp_path: Path) -> None:
    camera = Images("/front/image_raw", "rgb8", frame_id="front_optical", info_width=64)
    made = Images("/perception/out", "bgr8", frame_id="front_optical")
    rear = Images("/rear/image_raw", "bgr8", frame_id="rear_optical")
    assert selected(tmp_path / "bag", [camera, made, rear]) == {"vision": [camera.topic, rear.topic]}
    assert "made by another program from the images of /front/image_raw" in reason(
        tmp_path / "again", [camera, made, rear], made.topic
    )


# Side by side


def test_two_views_side_by_side_are_noted(tmp_path: Path) -> None:
    wide = np.concatenate([COLOUR_PIXELS] * 2, axis=1)
    zed = Images("/zed/image_raw", "rgb8", pixels=wide, info_width=64)
    assert "two views side by side" in reason(tmp_path / "info", [zed], zed.topic)
    named = Images("/side_by_side/image", "rgb8")
    assert "two views side by side" in reason(tmp_path / "name", [named], named.topic)
    panorama = zed.but(info_width=128)
    assert "side by side" not in reason(tmp_path / "panorama", [panorama], panorama.topic)


# Reading


def test_the_choice_reads_a_few_messages_of_each_topic_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = record(tmp_path / "bag", [COLOUR, DEPTH, jpeg(f"{COLOUR.topic}/compressed", "rgb8")])
    read: list[str] = []
    with Recording(folder) as recording:
        found = recording._merged

        def counted(*arguments: Any) -> Any:
            for item in found(*arguments):
                read.append(item[1].topic)
                yield item

        monkeypatch.setattr(recording, "_merged", counted)
        TopicSelection(recording).sensors()
        assert max(read.count(topic) for topic in set(read)) <= 4 < recording.topics[0].message_count


@pytest.mark.parametrize("topic", ["/a", "/b", "/c"])
def test_the_time_span_of_a_topic_is_that_of_its_first_and_last_message(tmp_path: Path, topic: str) -> None:
    spans = {"/a": (0.0, 20.0), "/b": (3.0, 7.0), "/c": (19.4, 19.8)}
    folder = record(tmp_path / "bag", [Images(name, "mono8", start=s, end=e) for name, (s, e) in spans.items()])
    with Recording(folder) as recording:
        stamps = [stamp for _, _, stamp, _ in recording.messages([topic])]
        assert recording.time_span(topic) == (stamps[0], stamps[-1])
        assert recording.time_span("/nowhere") == (0, 0)


def test_a_png_of_16_bits_named_depth_is_depth(tmp_path: Path) -> None:
    png = Images("/depth/image/compressed", "png", cv2.imencode(".png", DISTANCES)[1].tobytes())
    assert selected(tmp_path / "bag", [png, COLOUR]) == {"vision": [COLOUR.topic], "depth": [png.topic]}


# Encodings


@pytest.mark.parametrize("encoding", [name for name in CAMERA_ENCODINGS if name != "32FC3"])
def test_the_selection_knows_what_each_camera_encoding_holds(encoding: str) -> None:
    is_grey = encoding.lower() in ("mono8", "8uc1", "mono16", "16uc1")
    colours, greys = {Pixels.COLOUR, Pixels.MOSAIC}, {Pixels.GREY, Pixels.GREY16, Pixels.COUNTS}
    assert pixels_of(encoding) in (greys if is_grey else colours)


def test_fill_bytes_before_a_marker_do_not_hide_the_size_of_a_jpeg() -> None:
    _, file = cv2.imencode(".jpg", COLOUR_PIXELS)
    data = file.tobytes()
    height, width = COLOUR_PIXELS.shape[:2]
    filled = data[:2] + b"\xff\xff" + data[2:]  # ITU-T T.81, B.1.1.2
    assert compressed_pixels("jpeg", filled, "/image/compressed") == (Pixels.COLOUR, width, height)
