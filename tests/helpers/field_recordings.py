"""Messages and recordings as robots in the field send them: readings of IMUs, images and sounds with any stamps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages as m
from sensebind.fusion.io.recordings import BagWriter, RosbagsMessageFactory
from sensebind.simulation.messages import image_message

START = 1_700_000_000 * SECOND
BAG = RosbagsMessageFactory()
STAMPED_SOUND = "audio_common_msgs/msg/AudioDataStamped"

Logged = tuple[str, str, int, Any]  # topic, type, log time in ns, message


def imu_message(
    stamp: int,
    acceleration: Sequence[float],
    rotation: Sequence[float],
    covariances: tuple[float, float] = (0.01, 0.01),
) -> Any:
    """sensor_msgs/Imu. `covariances`: the first of the acceleration and of the angular velocity."""

    def vector(values: Sequence[float]) -> Any:
        return BAG.make("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, values), strict=True)))

    return BAG.make(
        m.IMU_TYPE,
        header=m.header_message(BAG, stamp, "imu"),
        orientation=BAG.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.zeros(9),
        angular_velocity=vector(rotation),
        angular_velocity_covariance=np.array([covariances[1], *[0.0] * 8]),
        linear_acceleration=vector(acceleration),
        linear_acceleration_covariance=np.array([covariances[0], *[0.0] * 8]),
    )


def shaking(times: npt.NDArray[np.float64], seed: int = 0, amplitude: float = 1.0) -> npt.NDArray[np.float64]:
    """Acceleration and angular velocity (N, 6) at times in s of a robot that shakes by `amplitude` m/s² and turns, with
    noise; with an amplitude of 0 it stands."""
    noise = np.random.default_rng(seed).normal(0, 1, (len(times), 6)) * [0.05, 0.05, 0.05, 0.01, 0.01, 0.01]
    values = np.zeros((len(times), 6))
    values[:, 0], values[:, 2], values[:, 5] = amplitude * np.sin(2 * np.pi * 2 * times), 9.81, 0.3 * amplitude
    return values + noise


def imu_rows(
    topic: str,
    seconds: float = 6.0,
    rate: int = 100,
    *,
    offset: float = 0.0,
    late: float = 0.0,
    amplitude: float = 1.0,
) -> list[Logged]:
    """The readings of an IMU. `offset`: s added to their stamps. `late`: s from their true stamps to their log
    times."""
    times = np.arange(0.0, seconds, 1 / rate)
    rows = []
    for time, values in zip(times, shaking(times, amplitude=amplitude), strict=True):
        now = START + round(time * SECOND)
        message = imu_message(now + round(offset * SECOND), values[:3], values[3:])
        rows.append((topic, m.IMU_TYPE, now + round(late * SECOND), message))
    return rows


def camera_rows(
    topic: str, seconds: float = 6.0, rate: float = 10.0, *, offset: float = 0.0, late: float = 0.0
) -> list[Logged]:
    """The images of a camera: noise. `offset`, `late`: as for `imu_rows`."""
    noise, rows = np.random.default_rng(5), []
    for number in range(int(seconds * rate)):
        now = START + round(number / rate * SECOND)
        pixels = noise.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        image = image_message(BAG, now + round(offset * SECOND), "camera", "rgb8", pixels)
        rows.append((topic, m.IMAGE_TYPE, now + round(late * SECOND), image))
    return rows


def tone(rate: int, seconds: float = 5.0) -> npt.NDArray[np.float64]:
    """A tone that goes on and off, over noise, −1..1."""
    times = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(2).normal(0, 0.02, len(times))
    return np.asarray(0.4 * np.sin(2 * np.pi * 440 * times) * (np.sin(2 * np.pi * 0.7 * times) > 0) + noise)


def sound_message(stamp: int, data: bytes) -> Any:
    content = BAG.make("audio_common_msgs/msg/AudioData", data=np.frombuffer(data, np.uint8))
    return BAG.make(STAMPED_SOUND, header=m.header_message(BAG, stamp, "mic"), audio=content)


def pieces(data: bytes, count: int) -> list[bytes]:
    """Data in `count` pieces, cut anywhere."""
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


def record(path: Path, rows: Iterable[Logged]) -> Path:
    """Write a bag with these messages."""
    with BagWriter(path) as bag:
        for topic, kind, logged, message in sorted(rows, key=lambda row: row[2]):
            bag.write(topic, kind, logged, message)
    return path
