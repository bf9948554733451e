"""Bags are read and written. The error for an unreadable bag names the bag and the problem."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from sensebind.fusion.io.messages import header_message
from sensebind.fusion.io.recordings import (
    BagWriter,
    Recording,
    RecordingError,
    RosbagsMessageFactory,
    typestore,
)
from sensebind.fusion.io.topic_selection import TopicSelection

STRING, IMU, IMAGE = "std_msgs/msg/String", "sensor_msgs/msg/Imu", "sensor_msgs/msg/Image"
HEADER = "std_msgs/msg/Header"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
TYPES = RosbagsMessageFactory()


def imu(z: float) -> Any:
    """A sensor_msgs/Imu with an acceleration of `z` m/s² along z."""
    zero, none = TYPES.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0), np.zeros(9)
    return TYPES.make(
        IMU,
        header=header_message(TYPES, 5, "imu"),
        orientation=TYPES.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=none,
        angular_velocity=zero,
        angular_velocity_covariance=none,
        linear_acceleration=TYPES.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=z),
        linear_acceleration_covariance=none,
    )


def empty_image(type_name: str, encoding: str = "rgb8") -> Any:
    """An image message of type `type_name` with one black pixel."""
    data = np.zeros(3, np.uint8)
    if type_name == COMPRESSED:
        return TYPES.make(type_name, header=header_message(TYPES, 5), format="jpeg", data=data)
    return TYPES.make(
        type_name,
        header=header_message(TYPES, 5),
        height=1,
        width=1,
        encoding=encoding,
        is_bigendian=0,
        step=3,
        data=data,
    )


def two_topics(folder: Path) -> Path:
    """A bag with three strings and one Imu between them."""
    with BagWriter(folder) as bag:
        for stamp, text in ((10, "a"), (30, "c"), (40, "d")):
            bag.write("/text", STRING, stamp, TYPES.make(STRING, data=text))
            if stamp == 10:
                bag.write("/imu", IMU, 20, imu(9.81))
    return folder


def select_topics_of_bag(folder: Path, *topics: tuple[str, str, int]) -> dict[str, str]:
    """Modality → topic that is selected in a bag with these (topic, type, message count)."""
    with BagWriter(folder) as bag:
        for topic, type_name, count in topics:
            for stamp in range(count):
                encoding = "mono16" if "depth" in topic or "lepton" in topic else "rgb8"
                bag.write(topic, type_name, stamp, imu(0) if type_name == IMU else empty_image(type_name, encoding))
    with Recording(folder) as recording:
        return {modality: found.topic for modality, found in TopicSelection(recording).single_topics().items()}


def sqlite_bag(folder: Path) -> Path:
    """A bag with one string in SQLite, the default of rosbag2 before Iron."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/text", STRING, typestore=typestore())
        writer.write(connection, 10, typestore().serialize_cdr(TYPES.make(STRING, data="a"), STRING))
    return folder


# Reading


def test_written_messages_are_read_in_order_of_time(tmp_path: Path) -> None:
    with Recording(two_topics(tmp_path / "bag")) as recording:
        read = list(recording.messages())
        assert [(topic, stamp) for topic, _, stamp, _ in read] == [
            ("/text", 10), ("/imu", 20), ("/text", 30), ("/text", 40)
        ]  # fmt: skip
        assert read[0][3].data == "a" and read[1][3].linear_acceleration.z == 9.81
        assert [(t.name, t.type, t.message_count) for t in recording.topics] == [("/imu", IMU, 1), ("/text", STRING, 3)]
        assert recording.start == 10 and recording.end in (40, 41)


def test_only_the_given_topics_are_read(tmp_path: Path) -> None:
    with Recording(two_topics(tmp_path / "bag")) as recording:
        assert {topic for topic, *_ in recording.messages(["/imu"])} == {"/imu"}
        assert not list(recording.messages([]))
        assert not list(recording.messages(["/none"]))


def test_cdr_messages_can_be_deserialized(tmp_path: Path) -> None:
    with Recording(two_topics(tmp_path / "bag")) as recording:
        [(_, type_name, _, data)] = recording.cdr_messages(["/imu"])
        assert typestore().deserialize_cdr(data, type_name).linear_acceleration.z == 9.81


def test_an_mcap_file_can_be_opened_without_its_folder(tmp_path: Path) -> None:
    [file] = two_topics(tmp_path / "bag").glob("*.mcap")
    alone = shutil.copy(file, tmp_path / "alone.mcap")
    with Recording(alone) as recording:
        assert len(list(recording.messages())) == 4


def test_a_folder_without_metadata_can_be_opened_if_it_has_one_bag_file(tmp_path: Path) -> None:
    folder = two_topics(tmp_path / "bag")
    (folder / "metadata.yaml").unlink()
    with Recording(folder) as recording:
        assert len(list(recording.messages())) == 4


@pytest.mark.parametrize("alone", [False, True], ids=["folder", "file"])
def test_an_sqlite_bag_can_be_opened(tmp_path: Path, alone: bool) -> None:
    folder = sqlite_bag(tmp_path / "bag")
    [file] = folder.glob("*.db3")
    with Recording(shutil.copy(file, tmp_path / "alone.db3") if alone else folder) as recording:
        assert [(topic, message.data) for topic, _, _, message in recording.messages()] == [("/text", "a")]


def test_a_ros_1_bag_can_be_opened_and_its_messages_are_converted_to_ros_2(tmp_path: Path) -> None:
    types = get_typestore(Stores.ROS1_NOETIC)
    types.register(get_types_from_msg("std_msgs/Header header\nuint8 level", "odd_msgs/msg/Odd"))
    time = types.types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    head = types.types[HEADER](seq=1, stamp=time, frame_id="base")
    zero = types.types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=9.81)
    turn = types.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    messages = {
        HEADER: head,
        IMU: types.types[IMU](head, turn, np.zeros(9), zero, np.zeros(9), zero, np.zeros(9)),
        "odd_msgs/msg/Odd": types.types["odd_msgs/msg/Odd"](head, 7),  # defined only in the bag
        # ROS 2 added a field.
        "sensor_msgs/msg/Range": types.types["sensor_msgs/msg/Range"](head, 1, 0.1, 0.2, 4.0, 2.0),
    }
    with Writer1(tmp_path / "old.bag") as writer:
        for stamp, (name, message) in enumerate(messages.items()):
            connection = writer.add_connection(f"/{name}", name, typestore=types)
            writer.write(connection, stamp, types.serialize_ros1(message, name))
    new = get_typestore(Stores.ROS2_JAZZY)
    new.register(get_types_from_msg("std_msgs/Header header\nuint8 level", "odd_msgs/msg/Odd"))
    with Recording(tmp_path / "old.bag") as recording:
        read = {name: message for _, name, _, message in recording.messages()}
        raw = {name: new.deserialize_cdr(data, name) for _, name, _, data in recording.cdr_messages()}
        assert not recording.unreadable_counts
    for result in (read, raw):
        assert result[HEADER].stamp.sec == 3 and result[HEADER].frame_id == "base"
        assert result[IMU].linear_acceleration.z == 9.81 and result[IMU].header.frame_id == "base"
        assert result["odd_msgs/msg/Odd"].level == 7
        assert result["sensor_msgs/msg/Range"].range == 2.0


# Unknown types


def bag_of_odd_type(folder: Path, definition: str) -> Path:
    """A bag with two messages of a type with this definition, and one string."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        odd = writer.add_connection("/odd", "odd_msgs/msg/Odd", msgdef=definition, rihs01="RIHS01_0")
        text = writer.add_connection("/text", STRING, typestore=typestore())
        for stamp in (1, 2):
            writer.write(odd, stamp, b"\x00\x01\x00\x00\x01\x00\x00\x00")
        writer.write(text, 3, typestore().serialize_cdr(TYPES.make(STRING, data="a"), STRING))
    return folder


def test_types_that_are_defined_only_in_the_bag_are_read(tmp_path: Path) -> None:
    with Recording(bag_of_odd_type(tmp_path / "bag", "uint32 number")) as recording:
        assert [message.number for *_, message in recording.messages(["/odd"])] == [1, 1]


@pytest.mark.parametrize("definition", ["this is ! no definition", "other_msgs/Missing field", "float64[400] long"])
def test_unreadable_messages_cause_one_warning_and_do_not_affect_other_topics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, definition: str
) -> None:
    with (
        Recording(bag_of_odd_type(tmp_path / "bag", definition)) as recording,
        caplog.at_level(logging.WARNING, "sensebind"),
    ):
        assert [topic for topic, *_ in recording.messages(["/text"])] == ["/text"]
        assert [topic for topic, *_ in recording.peek()] == ["/text"]
        assert not caplog.records and not recording.unreadable_counts and not recording.losses
        assert [topic for topic, *_ in recording.messages()] == ["/text"]
        assert recording.unreadable_counts == {"/odd": 2}
        [record] = caplog.records
        assert "/odd" in record.getMessage() and "odd_msgs/msg/Odd" in record.getMessage()
        assert len(list(recording.cdr_messages())) == 3


def test_a_bag_without_definitions_is_read_with_known_types(tmp_path: Path) -> None:
    folder = sqlite_bag(tmp_path / "bag")
    [file] = folder.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM message_definitions")
    database.close()
    with Recording(folder) as recording:
        assert [message.data for *_, message in recording.messages()] == ["a"]


# Errors


def test_the_error_names_a_missing_bag(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recording '.*nowhere'"):
        Recording(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"not a bag" * 100], ids=["empty", "garbage"])
def test_the_error_names_a_file_that_is_not_a_bag(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError, match=name):
        Recording(tmp_path / name)


def test_the_error_for_a_folder_that_is_not_a_bag_names_metadata_yaml(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="metadata.yaml"):
        Recording(tmp_path)


def test_the_error_names_a_bag_without_messages(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag"):
        pass
    with pytest.raises(RecordingError, match="bag"):
        Recording(tmp_path / "bag")


def test_the_error_for_a_bag_of_which_nothing_is_left_names_the_bag_and_the_remedy(tmp_path: Path) -> None:
    [file] = two_topics(tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(RecordingError, match="bag.*mcap recover"):
        Recording(tmp_path / "bag")


def test_a_damaged_bag_is_read_or_raises_an_error_that_names_it(tmp_path: Path) -> None:
    [file] = two_topics(tmp_path / "bag").glob("*.mcap")
    whole = bytearray(file.read_bytes())
    for offset in range(8, len(whole), 61):
        file.write_bytes(whole[:offset] + bytes(b ^ 0xFF for b in whole[offset : offset + 4]) + whole[offset + 4 :])
        try:
            with Recording(tmp_path / "bag") as recording:
                list(recording.messages())
        except RecordingError as error:
            assert "bag" in str(error)


# The topic of each modality


def test_the_modality_of_images_is_found_from_the_topic_name(tmp_path: Path) -> None:
    found = select_topics_of_bag(
        tmp_path / "bag",
        ("/camera/color/image_raw", IMAGE, 2),
        ("/camera/depth/image_rect_raw", IMAGE, 2),
        ("/lepton/ir/image", IMAGE, 2),
        ("/imu/data", IMU, 2),
    )
    assert found == {
        "vision": "/camera/color/image_raw",
        "depth": "/camera/depth/image_rect_raw",
        "thermal": "/lepton/ir/image",
        "imu": "/imu/data",
    }


def test_ir_inside_a_word_does_not_make_a_camera_thermal(tmp_path: Path) -> None:
    assert select_topics_of_bag(tmp_path / "bag", ("/air/first/image", IMAGE, 1)) == {"vision": "/air/first/image"}


def test_colour_topics_are_preferred_and_raw_is_preferred_to_compressed(tmp_path: Path) -> None:
    found = select_topics_of_bag(
        tmp_path / "bag",
        ("/aux", IMAGE, 9),
        ("/rgb/image/compressed", COMPRESSED, 5),
        ("/rgb/image", IMAGE, 4),
    )
    assert found["vision"] == "/rgb/image"


def test_the_imu_with_the_most_messages_is_selected(tmp_path: Path) -> None:
    assert select_topics_of_bag(tmp_path / "bag", ("/a", IMU, 2), ("/b", IMU, 5), ("/c", IMU, 5))["imu"] == "/b"


def test_the_reason_for_a_topic_is_given(tmp_path: Path) -> None:
    select_topics_of_bag(tmp_path / "bag", ("/rgb/image", IMAGE, 1), ("/x/compressed", COMPRESSED, 1), ("/imu", IMU, 1))
    with Recording(tmp_path / "bag") as recording:
        found = TopicSelection(recording).single_topics()
    assert found["imu"].reason == "the only sensor_msgs/msg/Imu for imu"
    assert "of 2" in found["vision"].reason and "'rgb'" in found["vision"].reason


# Writing


def test_a_bag_is_overwritten_only_if_requested(tmp_path: Path) -> None:
    folder = two_topics(tmp_path / "bag")
    with pytest.raises(RecordingError, match="exists already"):
        BagWriter(folder)
    with BagWriter(folder, overwrite=True) as bag:
        bag.write("/text", STRING, 1, TYPES.make(STRING, data="new"))
    with Recording(folder) as recording:
        assert [message.data for *_, message in recording.messages()] == ["new"]


def test_a_folder_that_is_not_a_bag_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(RecordingError, match="not a bag"):
        BagWriter(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "thesis.tex").exists()


def test_latched_topics_are_marked(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/once", STRING, 1, TYPES.make(STRING, data="a"), latched=True)
        bag.write("/often", STRING, 1, TYPES.make(STRING, data="b"))
    with Recording(tmp_path / "bag") as recording:
        assert {topic.name: topic.latched for topic in recording.topics} == {"/once": True, "/often": False}


def test_rosbag2_reads_a_written_bag(tmp_path: Path) -> None:
    rosbag2 = pytest.importorskip("rosbag2_py", reason="rosbag2_py is not installed")
    reader = rosbag2.SequentialReader()
    reader.open_uri(str(two_topics(tmp_path / "bag")))
    read = []
    while reader.has_next():
        read.append(reader.read_next()[0])
    assert read == ["/text", "/imu", "/text", "/text"]


# Real recordings


@pytest.mark.parametrize(
    ("path", "topics"),
    [
        ("auv/cougars_SO_bag_0.mcap", {"imu": "/coug2/modem_imu"}),
        ("euroc_stereo_imu", {"vision": "/cam0/image_raw/compressed", "imu": "/imu0"}),
        (
            "gopro_drone",
            {"vision": "/camera/image_raw/compressed", "audio": "/audio/audio_stamped", "imu": "/imu/data_raw"},
        ),
    ],
)
def test_real_recordings_are_read(shared: Path, path: str, topics: dict[str, str]) -> None:
    file = shared / "recordings" / path
    if not file.exists():
        pytest.skip(f"'{path}' is not in the folder 'shared'")
    with Recording(file) as recording:
        assert {
            modality: found.topic for modality, found in TopicSelection(recording).single_topics().items()
        } == topics
        expected = sum(topic.message_count for topic in recording.topics if topic.name in topics.values())
        stamps = [stamp for _, _, stamp, _ in recording.messages(list(topics.values()))]
        assert len(stamps) == expected and stamps == sorted(stamps) and not recording.unreadable_counts
