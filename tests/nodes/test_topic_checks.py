"""Why no messages of a sensor arrive: the reason and the parameter that mends it are in the log and in diagnostics."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed here: see `sensebind doctor`")

from helpers.diagnostic_statuses import DIAGNOSTICS, STALE, Status, newest
from helpers.ros_processes import peer, ros_environment, running
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, VISION
from sensebind.fusion.io import messages
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.nodes.topic_checks import missing_text, topic_problem

IMAGE, COMPRESSED = messages.IMAGE_TYPE, messages.COMPRESSED_IMAGE_TYPE
STAMPED = "audio_common_msgs/msg/AudioDataStamped"
STRING = "std_msgs/msg/String"


@pytest.mark.parametrize(
    ("options", "published", "expected"),
    [
        (SensorOptions(VISION), {"/t/compressed": [COMPRESSED]}, "set vision.transport: compressed"),
        (SensorOptions(DEPTH), {"/t/compressedDepth": [COMPRESSED]}, "set depth.transport: compressed"),
        (
            SensorOptions(VISION),
            {"/t": [COMPRESSED]},
            "set vision.transport: compressed, and remap /t/compressed to /t",
        ),
        (SensorOptions(VISION), {"/t": [STRING]}, f"set vision.topic to a topic of type {IMAGE}"),
        (SensorOptions(VISION), {"/t": [IMAGE, COMPRESSED]}, f"several types: {IMAGE} is read, {COMPRESSED} is not"),
        (SensorOptions(IMU), {"/t": [STRING]}, f"set imu.topic to a topic of type {messages.IMU_TYPE}"),
        (SensorOptions(AUDIO, type="a/msg/B"), {"/t": [STAMPED]}, f"set audio.type: {STAMPED}"),
        (SensorOptions(AUDIO), {"/t": [STAMPED, STRING]}, f"several types: {STAMPED} is read, {STRING} is not"),
        (SensorOptions(VISION), {"/t": [IMAGE, IMAGE], "/t/compressed": [COMPRESSED]}, ""),
        (SensorOptions(AUDIO), {"/t": [STAMPED]}, ""),
        (SensorOptions(VISION), {}, ""),
    ],
)
def test_the_problem_of_a_topic_names_what_to_set(
    options: SensorOptions, published: Mapping[str, list[str]], expected: str
) -> None:
    text = topic_problem(options, "/t", lambda topic: published.get(topic, []))
    assert expected in text and bool(text) == bool(expected)


def test_a_raw_topic_of_a_camera_that_is_set_to_compressed_is_named() -> None:
    options = SensorOptions(VISION, transport="compressed")
    text = topic_problem(options, "/t/compressed", lambda topic: [IMAGE] if topic == "/t" else [])
    assert text == "topic '/t/compressed' has no publisher, and '/t' has: set vision.transport: raw"


def test_a_sensor_of_which_nothing_arrives_is_named_with_the_topics_that_could_be_it() -> None:
    topics = {
        "/front/image_raw": [IMAGE],
        "/rear/image_raw/compressed": [COMPRESSED],
        "/front/depth/image": [IMAGE],
        "/mic/audio": [STAMPED],
        "/chatter": [STRING],
        "/imu": [messages.IMU_TYPE],
    }
    missing = {"rear": (VISION, "/rear/image"), AUDIO: (AUDIO, "/audio"), IMU: (IMU, "/imu"), "gas": ("gas", "/gas")}
    text = missing_text(missing, topics, {"/front/image_raw", "/rear/image", "/audio", "/imu"})
    assert (
        "rear: '/rear/image' is not published, but '/rear/image_raw/compressed' (with rear.transport: compressed) "
        "could be: set rear.topic" in text
    )
    assert "audio: '/audio' is not published, but '/mic/audio' could be: set audio.topic" in text
    assert "imu: '/imu';" in text, "it is published, and silent"
    assert "gas: '/gas' is not published." in text and "'modalities'" in text
    assert "/front/image_raw" not in text and "depth" not in text and "/chatter" not in text


def test_the_embedder_logs_once_what_it_lacks_and_what_is_published_instead() -> None:
    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    values = {"modalities": ["vision", "audio", "imu"], "device": "cpu", "vision.topic": "/front/image_raw"}
    with peer(environment) as me:
        me.publisher(STAMPED, "/mic/audio")
        me.publisher(IMAGE, "/front/image_raw")
        with running("embedder", environment=environment, values=values) as embedder:
            embedder.wait_for_output("no message has arrived yet", 90)
            embedder.wait_for_output("'/audio' is not published, but '/mic/audio' could be: set audio.topic", 5)
            line = next(line for line in embedder.lines if "no message has arrived yet" in line)
            assert "vision: '/front/image_raw';" in line and "imu: '/imu' is not published." in line
            me.spin(2.0)
            assert embedder.output.count("no message has arrived yet") == 1


def test_the_embedder_logs_each_reason_once_and_that_all_sensors_arrive() -> None:

    environment = ros_environment("sensebind_msgs", "audio_common_msgs")
    values = {"modalities": ["vision", "imu"], "device": "cpu", "memory_limit_mb": 4000}
    arguments = ("--ros-args", "-r", "__ns:=/robot1")
    with peer(environment) as me:
        diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics")
        compressed = me.publisher(COMPRESSED, "/robot1/camera/image/compressed")
        wrong_imu = me.publisher(STRING, "/robot1/imu")
        with running("embedder", *arguments, environment=environment, values=values) as embedder:

            def status(name: str) -> Status:
                return newest(diagnostics, f"robot1/embedder: {name}")

            embedder.wait_for_output("set vision.transport: compressed", 90)
            embedder.wait_for_output("set imu.topic to a topic of type sensor_msgs/msg/Imu", 10)
            me.wait_until(lambda: "vision.transport: compressed" in status("vision").message, 10, "diagnostics")
            assert status("vision").level == STALE
            assert {s.name for _, message in diagnostics for s in message.status} == {
                "robot1/embedder: vision",
                "robot1/embedder: imu",
                "robot1/embedder: memory",
            }, "sensors that are not configured have no status"
            assert {s.hardware_id for _, message in diagnostics for s in message.status} == {
                "robot1/vision",
                "robot1/imu",
                "robot1/sensebind",
            }
            memory = status("memory").values
            assert memory["memory_limit_mb"] == "4000" and 100 < float(memory["memory_mb"]) < 4000
            me.node.destroy_publisher(compressed)
            me.node.destroy_publisher(wrong_imu)
            camera, imu = me.publisher(IMAGE, "/robot1/camera/image"), me.publisher(messages.IMU_TYPE, "/robot1/imu")
            for publisher in (camera, imu):
                me.wait_for_subscribers(publisher)

            def publish() -> None:
                from sensor_msgs.msg import Image, Imu

                now = me.node.get_clock().now()
                image = Image(height=2, width=2, step=6, encoding="rgb8", data=array("B", bytes(12)))
                image.header.stamp = now.to_msg()
                camera.publish(image)
                reading = Imu()
                reading.header.stamp.sec, reading.header.stamp.nanosec = divmod(now.nanoseconds - 5 * 10**9, 10**9)
                imu.publish(reading)

            timer = me.node.create_timer(0.05, publish)
            me.wait_until(lambda: "all sensors arrive" in embedder.output, 20, "the note")

            def offset(name: str) -> float:
                return float(status(name).values.get("clock_offset_s", "nan"))

            me.wait_until(lambda: abs(offset("imu") - 5) < 1 and abs(offset("vision")) < 1, 10, "the offsets")
            me.wait_until(lambda: "unfused" in status("imu").message, 10, "the warning")
            assert "later after their stamps than those of the other sensors" in status("imu").message
            timer.cancel()
            for text in ("set vision.transport: compressed", "set imu.topic", "all sensors arrive: vision, imu"):
                assert embedder.output.count(text) == 1, embedder.output


def test_a_publisher_of_embeddings_with_another_quality_of_service_is_logged() -> None:
    from rclpy.qos import qos_profile_sensor_data

    environment = ros_environment("sensebind_msgs")
    with peer(environment) as me, running("detector", environment=environment) as detector:
        me.publisher(messages.EMBEDDING_TYPE, "embeddings/fused", qos_profile_sensor_data)
        detector.wait_for_output("incompatible QoS", 20)
        line = next(line for line in detector.lines if "incompatible QoS" in line)
        assert "embeddings/fused" in line and "RELIABILITY" in line
