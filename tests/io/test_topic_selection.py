"""Which topics of a recording are sensors, and what the sensors are called."""

from __future__ import annotations

from typing import Any

import pytest

from sensebind.fusion.io.messages import COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, IMU_TYPE
from sensebind.fusion.io.recordings import Topic
from sensebind.fusion.io.topic_selection import TopicSelection


class Unreadable:
    """Stands in for a recording of which no message can be read: types and names alone decide."""

    start = end = 0

    def __init__(self, topics: list[Topic]) -> None:
        self.topics = sorted(topics, key=lambda topic: topic.name)

    def first_messages(self, topic: str, count: int) -> list[Any]:
        return []

    def time_span(self, topic: str) -> tuple[int, int]:
        return 0, 0


def sensors(modality: str, reserved: tuple[str, ...] = (), **kinds: list[str]) -> dict[str, str]:
    """Sensor → topic in a recording with these topics of each kind: image, compressed, imu."""
    types = {"image": IMAGE_TYPE, "compressed": COMPRESSED_IMAGE_TYPE, "imu": IMU_TYPE}
    topics = [Topic(name, types[kind], 9) for kind, names in kinds.items() for name in names]
    return {
        name: choice.topic for name, choice in TopicSelection(Unreadable(topics)).sensors(reserved)[modality].items()
    }


def test_the_only_camera_is_named_as_its_modality() -> None:
    assert sensors("vision", image=["/usb_cam/image_raw"]) == {"vision": "/usb_cam/image_raw"}


def test_raw_rectified_and_compressed_images_of_one_camera_are_one_sensor() -> None:
    found = sensors(
        "vision", image=["/cam/image_raw", "/cam/image_rect_color"], compressed=["/cam/image_raw/compressed"]
    )
    assert list(found) == ["vision"] and found["vision"] in ("/cam/image_raw", "/cam/image_rect_color")


def test_several_cameras_are_named_by_what_differs_in_their_topics() -> None:
    found = sensors("vision", image=["/robot/front/image_raw", "/robot/rear/image_raw", "/robot/Left-Cam/image_raw"])
    assert found == {
        "front": "/robot/front/image_raw",
        "rear": "/robot/rear/image_raw",
        "left_cam": "/robot/Left-Cam/image_raw",
    }


def test_a_camera_with_compressed_images_alone_stands_beside_a_raw_one() -> None:
    found = sensors("vision", image=["/front/image"], compressed=["/rear/image/compressed", "/front/image/compressed"])
    assert found == {"front": "/front/image", "rear": "/rear/image/compressed"}


def test_images_that_programs_drew_are_no_further_cameras() -> None:
    drawn = ["/yolo/debug_image", "/seg/mask", "/slam/trajectory_image", "/local_map_image", "/oakd/rgb/preview"]
    assert sensors("vision", image=["/cam/image_raw", "/cam/image_resized", *drawn]) == {"vision": "/cam/image_raw"}


def test_a_camera_is_not_taken_for_a_drawn_image_because_of_a_part_of_a_word() -> None:
    assert sorted(sensors("vision", image=["/tracking_camera/image", "/mapper_cam/image"])) == [
        "mapper_cam",
        "tracking_camera",
    ]


def test_acceleration_and_angular_velocity_of_one_imu_are_not_two_imus() -> None:
    assert list(sensors("imu", imu=["/camera/accel/sample", "/camera/gyro/sample"])) == ["imu"]


def test_a_depth_image_aligned_to_the_colour_camera_is_no_second_sensor() -> None:
    found = sensors("depth", image=["/camera/depth/image_rect_raw", "/camera/aligned_depth_to_color/image_raw"])
    assert list(found) == ["depth"]


@pytest.mark.parametrize(
    "topics",
    [
        ["/depth_front/image", "/depth_rear/image"],
        ["/front_depth", "/rear_depth"],
        ["/camera1/depth/image_rect_raw", "/camera2/aligned_depth_to_color/image_raw"],
    ],
)
def test_two_depth_cameras_are_two_sensors(topics: list[str]) -> None:
    assert sorted(sensors("depth", image=topics).values()) == topics


@pytest.mark.parametrize(
    "other", ["depth_registered/image_raw", "depth_registered/hw_registered/image", "depth_to_rgb/image_raw"]
)
def test_other_depth_images_of_one_camera_are_the_same_sensor(other: str) -> None:
    assert list(sensors("depth", image=["/camera/depth/image_raw", f"/camera/{other}"])) == ["depth"]


def test_two_imus_are_named_and_the_filtered_topic_of_one_is_not_a_third() -> None:
    found = sensors("imu", imu=["/camera/imu", "/base/imu/data", "/base/imu/data_raw"])
    assert sorted(found) == ["base", "camera"] and found["base"] == "/base/imu/data"


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["/imu/data", "/camera/imu"], {"imu_data", "camera"}),
        (["/0/imu", "/1/imu"], {"imu_0", "imu_1"}),
        (["/imu0", "/imu1"], {"imu0", "imu1"}),
    ],
)
def test_every_name_can_be_the_name_of_a_sensor(topics: list[str], names: set[str]) -> None:
    assert set(sensors("imu", imu=topics)) == names


def test_no_name_is_taken_twice_or_reserved() -> None:
    found = sensors("vision", ("front",), image=["/front/image", "/FRONT/image", "/rear/image"])
    assert len(found) == 3 and "front" not in found


def test_sensors_of_a_device_with_several_modalities_are_named_by_modality() -> None:
    found = sensors("depth", ("camera1", "camera2"), image=["/camera1/depth/image_raw", "/camera2/depth/image_raw"])
    assert sorted(found) == ["camera1_depth", "camera2_depth"]


def test_the_name_of_a_sensor_has_a_length_that_a_topic_can_have() -> None:
    found = sensors("vision", image=[f"/{'a' * 200}/image", f"/{'a' * 199}b/image"])
    assert len(found) == 2 and all(len(name) <= 64 for name in found)
