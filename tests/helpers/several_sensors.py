"""A recording of two cameras and two IMUs. The front camera goes dark, and the arm shakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.io.recordings import BagWriter, RosbagsMessageFactory
from sensebind.simulation.messages import (
    SIMULATION_START,
    LoggedMessage,
    image_message,
    imu_messages,
    merge_by_log_time,
)

DURATION = 7.0  # s
DARK_ONSET = 3.0  # s: from then on the front camera sees nothing
IMAGE_RATE, IMU_RATE = 5, 50  # Hz
SENSORS = {"front": "vision", "rear": "vision", "arm": "imu", "base": "imu"}
TOPICS = {"front": "/front/image_raw", "rear": "/rear/image_raw", "arm": "/arm/imu/data", "base": "/base/imu/data"}


def record_several_sensors(path: Path) -> None:
    """Write a bag with the topics `TOPICS`."""
    with BagWriter(path) as bag:
        types = bag.message_factory
        streams = [_images(types, "front"), _images(types, "rear"), _readings(types, "arm"), _readings(types, "base")]
        for logged, topic, kind, message in merge_by_log_time(streams):
            bag.write(topic, kind, logged, message)


def _images(types: RosbagsMessageFactory, camera: str) -> Iterator[LoggedMessage]:
    noise = np.random.default_rng([3, *camera.encode()])
    for number in range(round(DURATION * IMAGE_RATE)):
        level = 1 if camera == "front" and number / IMAGE_RATE >= DARK_ONSET else 120
        pixels = np.clip(level + noise.normal(0, 0.4 * level, (48, 64, 3)), 0, 255).astype(np.uint8)
        stamp = SIMULATION_START + number * SECOND // IMAGE_RATE
        image = image_message(types, stamp, f"{camera}_optical", "rgb8", pixels)
        yield stamp, TOPICS[camera], messages.IMAGE_TYPE, image


def _readings(types: RosbagsMessageFactory, imu: str) -> Iterator[LoggedMessage]:
    noise = np.random.default_rng([5, *imu.encode()])
    times = np.arange(0.0, DURATION, 1 / IMU_RATE)
    values = np.array([0.0, 0.0, 9.81, 0.0, 0.0, 0.0]) + noise.normal(0, 0.02, (len(times), 6))
    if imu == "arm":
        values[:, 0] += 4.0 * np.sin(2 * np.pi * 5 * times)
    for logged, _, kind, message in imu_messages(types, times, values):
        yield logged, TOPICS[imu], kind, message
