"""A running embedder unites an IMU that publishes its halves on two topics, and names a clock that differs."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from helpers.diagnostic_statuses import DIAGNOSTICS, statuses
from helpers.ros_processes import PATIENCE, peer, ros_environment, running
from sensebind.fusion.io import messages
from sensebind.fusion.stream.accounting.identity import COUNTERS, accounts, unaccounted

GYRO, ACCELERATION = "/camera/gyro/sample", "/camera/accel/sample"
VALUES = {"modalities": ["imu", "vision"], "imu.topic": GYRO, "imu.window": 2.0, "vision.topic": "/camera/image"}


def test_two_topics_of_an_imu_are_embedded_and_a_wrong_clock_is_an_error_with_the_remedy() -> None:
    environment = ros_environment("sensebind_msgs", "diagnostic_msgs", "sensor_msgs")
    with peer(environment) as me, running("embedder", environment=environment, values=VALUES) as embedder:
        from rclpy.duration import Duration
        from sensor_msgs.msg import Image, Imu

        embedder.wait_for_output("subscribed to", 60)
        publishers = {topic: me.publisher(messages.IMU_TYPE, topic) for topic in (GYRO, ACCELERATION)}
        camera = me.publisher(messages.IMAGE_TYPE, "/camera/image")
        embeddings = me.subscribe(messages.EMBEDDING_TYPE, "embeddings/imu")
        diagnostics = me.subscribe(DIAGNOSTICS, "/diagnostics")
        noise = np.random.default_rng(0)

        def message(topic: str) -> Imu:
            reading = Imu()
            reading.header.stamp = me.node.get_clock().now().to_msg()
            vector = reading.angular_velocity if topic == GYRO else reading.linear_acceleration
            vector.x, vector.y, vector.z = noise.normal(0, 0.02, 3) + [0, 0, 0.1 if topic == GYRO else 9.81]
            return reading

        def problem() -> str:
            found = statuses(diagnostics, "embedder: vision")
            return next((s.message for s in found if "its clock differs" in s.message), "")

        for turn in range(int(60 * PATIENCE * 20)):
            for topic, publisher in publishers.items():
                if topic == GYRO or turn % 3 == 0:
                    publisher.publish(message(topic))
            if turn % 5 == 0:
                image = Image(height=24, width=32, encoding="rgb8", step=96)
                image.data = noise.integers(0, 255, 24 * 32 * 3, dtype=np.uint8).tobytes()
                image.header.stamp = (me.node.get_clock().now() + Duration(seconds=37)).to_msg()
                camera.publish(image)
            me.spin(0.05)
            if len(embeddings) >= 4 and problem():
                break
        assert len(embeddings) >= 4 and all(message.coverage > 0.4 for _, message in embeddings)
        found = re.search(r"stamps are ([\d.]+) s ahead", problem())
        assert found and float(found[1]) == pytest.approx(37.0, abs=0.5)
        assert re.search(r"vision\.time_offset: -3[67]", problem())

        for sensor in ("imu", "vision"):
            for status in statuses(diagnostics, f"embedder: {sensor}"):  # at each moment at which it was published
                lines = accounts({name: status.count(name) for name in COUNTERS if name in status.values})
                assert len(lines) == 5 and not unaccounted(lines), sensor
        doctor = subprocess.run(
            [sys.executable, "-m", "sensebind.cli", "doctor", "--live", "--seconds", "4"],
            env=environment, capture_output=True, text=True, timeout=60 * PATIENCE,
        )  # fmt: skip
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        assert "embedder: imu" in doctor.stdout and "embedder: vision" in doctor.stdout
        assert re.search(r"messages +\d+ = decoded \d+ \+ applied \d+", doctor.stdout), "both topics of the IMU"
        assert re.search(r"samples +\d+ = used 0 \+ clock \d+", doctor.stdout), "the camera, and why"
        assert "  clock: its clock is not that of the other sensors" in doctor.stdout
