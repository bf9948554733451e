"""A recording of an IMU alone, which somebody rocks and carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from sensebind.fusion.io.recordings import BagWriter
from sensebind.simulation.messages import imu_messages

RATE = 100.0  # Hz
STANDARD_GRAVITY = 9.80665  # m/s²
SPEED = 1.6  # rad/s, highest angular velocity


def rocking_motion(seconds: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times (N,) in s, and acceleration and angular velocity (N, 6). The IMU is turned to and fro around its x axis,
    about once a second, and lifted and lowered twice as often."""
    times = np.arange(0.0, seconds, 1 / RATE)
    phase = 2 * np.pi * 0.9 * times
    angle = SPEED / (2 * np.pi * 0.9) * np.sin(phase)
    values = np.zeros((len(times), 6))
    vertical = STANDARD_GRAVITY + 1.0 * np.sin(2 * phase)
    values[:, 1], values[:, 2] = np.sin(angle) * vertical, np.cos(angle) * vertical
    values[:, 3] = SPEED * np.cos(phase)
    values += np.random.default_rng(5).normal(0, [0.05] * 3 + [0.01] * 3, values.shape)
    return times, values


def record_rocking_imu(path: Path, seconds: float) -> None:
    """Write a bag with the topic `/imu`."""
    with BagWriter(path) as bag:
        for stamp, topic, kind, message in imu_messages(bag.message_factory, *rocking_motion(seconds)):
            bag.write(topic, kind, stamp, message)
