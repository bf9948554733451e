"""Converts the messages of IMUs to samples, also of IMUs with one topic for each half."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import SECOND, Reading, Sample
from sensebind.fusion.io.messages import Message, stamp_to_ns
from sensebind.fusion.io.sensor_messages.imu_units import UnitCheck
from sensebind.fusion.io.sensor_options import (
    ACCELERATION_UNITS,
    ANGULAR_VELOCITY_UNITS,
    RECEIVED_STAMPS,
    USE_UNMEASURED,
    SensorOptions,
)
from sensebind.fusion.io.topic_names import imu_half, other_imu_half

MAX_ACCELERATION_GAP = SECOND // 4  # ns between two accelerations, one of which is used at the stamps between them
ACCELERATION_WAIT = SECOND  # ns of stamps that an angular velocity waits for an acceleration
MAX_KEPT_READINGS = 5000  # of each of two topics; stamps that stand still bound no time
HALF_IMU_TIME = SECOND  # ns of readings after which an angular velocity that is always 0 is judged
MIN_ACCELERATION_NOISE = 1e-4  # m/s²: a robot at rest in a simulator without noise has less


def imu_sample(modality: str, message: Message, *, use_unmeasured: bool = False) -> Sample:
    """sensor_msgs/Imu → acceleration x y z (m/s²), angular velocity x y z (rad/s).

    A first covariance of −1 means that the sensor does not measure this quantity (sensor_msgs/Imu). Its values are
    then NaN, unless `use_unmeasured`.
    """
    a, w = message.linear_acceleration, message.angular_velocity
    values = np.array([a.x, a.y, a.z, w.x, w.y, w.z], np.float64)
    if message.linear_acceleration_covariance[0] == -1 and not use_unmeasured:
        values[:3] = np.nan
    if message.angular_velocity_covariance[0] == -1 and not use_unmeasured:
        values[3:] = np.nan
    return Sample(modality, stamp_to_ns(message.header.stamp), Reading(values), message.header.frame_id)


class ImuDecoder:
    """Converts the messages of one IMU to samples, in m/s² and rad/s.

    The IMU may publish angular velocity and acceleration on two topics: then each angular velocity gets the
    acceleration whose stamp is nearest. A reading that lacks one of them is never a sample: it raises
    `EncodingError`, with the parameter that mends it. `topic`: that of `decode`; `other_topic`: that of `decode_other`;
    empty: none.
    """

    def __init__(self, options: SensorOptions, topic: str = "") -> None:
        self._options = options
        half = imu_half(topic)
        self._topic = topic or options.topic_name
        self.other_topic = options.acceleration_topic or other_imu_half(topic)
        self._is_acceleration = half == "accel" and not options.acceleration_topic  # what the messages of `topic` are
        scales = (ACCELERATION_UNITS[options.acceleration_unit], ANGULAR_VELOCITY_UNITS[options.angular_velocity_unit])
        self._scale = None if scales == (1.0, 1.0) else np.repeat(scales, 3)
        self._check = UnitCheck(options)
        self.unused: Counter[str] = Counter()  # reason → readings that ended without use, besides those that raised
        self.accelerations = 0  # messages that were an acceleration for the readings of the other topic
        # Two topics:
        self._stamps: list[int] = []  # ns, ascending, of the accelerations
        self._accelerations: list[npt.NDArray[np.float64]] = []  # (3,) each
        self._pending: deque[Sample] = deque()  # angular velocities that wait for an acceleration
        # One topic:
        self._has_acceleration = self._has_rotation = False  # whether any was not exactly 0
        self._held: list[Sample] = []  # readings without rotation from the beginning

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the readings so far."""
        return self._check.warnings

    @property
    def waiting(self) -> int:
        """How many readings wait for others."""
        return len(self._pending) + len(self._held)

    def decode(self, message: Any, received_ns: int) -> list[Sample]:
        """Convert a message of the sensor's topic to the readings that are complete now. Raises `EncodingError`."""
        sample = self._read(message, received_ns)
        if self._is_acceleration and self.other_topic and not self._is_whole(sample):
            self._add_acceleration(sample)
            return self._checked(self._united())
        return self._checked(self._accept(sample))

    def decode_other(self, message: Any, received_ns: int) -> None:
        """Use a message of `other_topic`. `decode` returns the readings that it completes. Raises `EncodingError`."""
        sample = self._read(message, received_ns)
        if self._is_acceleration:
            self._add_rotation(sample)
        else:
            self._add_acceleration(sample)

    def finish(self) -> list[Sample]:
        """End a recording: the readings that wait, with the last acceleration; those without one are in `unused`."""
        found, self._held = self._held, []
        if self._stamps:
            found += self._united(last=True)
        if self._pending:
            self.unused[self._missing_acceleration()] += len(self._pending)
            self._pending.clear()
        return self._checked(found)

    def _read(self, message: Any, received_ns: int) -> Sample:
        sample = imu_sample(self._options.modality, message, use_unmeasured=self._options.unmeasured == USE_UNMEASURED)
        assert isinstance(sample.data, Reading)
        stamp = received_ns if self._options.stamps == RECEIVED_STAMPS else sample.stamp
        reading = sample.data if self._scale is None else Reading(sample.data.values * self._scale)
        return Sample(sample.modality, stamp, reading, sample.frame_id, received=received_ns)

    def _checked(self, samples: list[Sample]) -> list[Sample]:
        for sample in samples:
            self._check.update(sample)
        return samples

    # --- one topic

    def _is_whole(self, sample: Sample) -> bool:
        """Whether a reading has an acceleration and an angular velocity that are not 0."""
        values = _values(sample)
        return bool(values[:3].any() and values[3:].any() and np.isfinite(values).all())

    def _accept(self, sample: Sample) -> list[Sample]:
        """Use a reading of the sensor's topic, which should be whole."""
        if self._options.unmeasured == USE_UNMEASURED:
            return [sample]
        values = _values(sample)
        numbers = values.tolist()  # comparisons of six numbers are faster than functions on arrays
        lacks_acceleration = all(map(math.isnan, numbers[:3]))
        lacks_rotation = all(map(math.isnan, numbers[3:]))
        if not lacks_acceleration and any(numbers[:3]):
            self._has_acceleration = True
        half = lacks_acceleration or not self._has_acceleration
        if self.other_topic and half and not lacks_rotation:
            self._add_rotation(sample)
            return self._united()
        if lacks_acceleration or lacks_rotation:
            names = [
                name
                for name, lacks in (("acceleration", lacks_acceleration), ("angular velocity", lacks_rotation))
                if lacks
            ]
            raise EncodingError(self._lacking(names, "has a covariance of -1, or NaN, which means that it lacks"))
        if half and values.any():
            raise EncodingError(
                self._lacking(["acceleration"], "has an acceleration of exactly 0, without gravity: it lacks")
            )
        if half:
            return [sample]  # all values are 0: a check of the sensor detects it
        return self._accept_rotation(sample)

    def _accept_rotation(self, sample: Sample) -> list[Sample]:
        """Use a reading with an acceleration. While the angular velocity has always been exactly 0, readings are held:
        if their accelerations have noise, the messages lack the angular velocity."""
        if self._has_rotation:
            return [sample]
        self._held.append(sample)
        if _values(sample)[3:].any():
            self._has_rotation = True
        elif abs(sample.stamp - self._held[0].stamp) < HALF_IMU_TIME and len(self._held) < 2000:
            return []
        else:
            accelerations = np.array([_values(held)[:3] for held in self._held])
            if float(np.ptp(accelerations, axis=0).max()) > MIN_ACCELERATION_NOISE:
                del self._held[0]
                raise EncodingError(
                    self._lacking(["angular velocity"], "has had an angular velocity of exactly 0 so far: it lacks")
                )
            self._has_rotation = True  # a robot that stands, in a simulator without noise
        found, self._held = self._held, []
        return found

    def _lacking(self, names: Sequence[str], cause: str) -> str:
        sensor = self._options.sensor
        return (
            f"the message {cause} the {' and the '.join(names)}, so it is not used: if another topic carries it, set "
            f"{sensor}.topic to that of the angular velocity and {sensor}.acceleration_topic to that of the "
            f"acceleration; if the driver measures it all the same, set {sensor}.unmeasured: {USE_UNMEASURED}"
        )

    # --- two topics

    def _add_rotation(self, sample: Sample) -> None:
        """Keep an angular velocity until it has an acceleration. Raises `EncodingError` if one has waited too long."""
        if not np.isfinite(_values(sample)[3:]).all():
            raise EncodingError(self._lacking(["angular velocity"], "has a covariance of -1, or NaN: it lacks"))
        if self._pending and sample.stamp < self._pending[-1].stamp - SECOND:  # the clock jumped back
            self.unused[self._missing_acceleration()] += len(self._pending)
            self._pending.clear()
        self._pending.append(sample)
        if sample.stamp - self._pending[0].stamp > ACCELERATION_WAIT or len(self._pending) > MAX_KEPT_READINGS:
            self._pending.popleft()
            raise EncodingError(self._missing_acceleration())

    def _add_acceleration(self, sample: Sample) -> None:
        """Keep an acceleration. Raises `EncodingError` if it has none."""
        value = _values(sample)[:3]
        if not np.isfinite(value).all() or not value.any():
            raise EncodingError(
                f"a message of '{self._topic if self._is_acceleration else self.other_topic}' has no acceleration: set "
                f"{self._options.sensor}.acceleration_topic to the topic of the acceleration"
            )
        self.accelerations += 1
        if self._stamps and sample.stamp < self._stamps[-1] - SECOND:  # the clock jumped back
            self._stamps.clear()
            self._accelerations.clear()
        at = bisect_left(self._stamps, sample.stamp)
        if at < len(self._stamps) and self._stamps[at] == sample.stamp:
            return
        self._stamps.insert(at, sample.stamp)
        self._accelerations.insert(at, value)
        old = max(
            bisect_left(self._stamps, sample.stamp - 2 * ACCELERATION_WAIT), len(self._stamps) - MAX_KEPT_READINGS
        )
        del self._stamps[:old], self._accelerations[:old]

    def _united(self, last: bool = False) -> list[Sample]:
        """Remove the angular velocities that are not newer than the newest acceleration, and return them with their
        accelerations. `last`: also those that are newer by less than `MAX_ACCELERATION_GAP`."""
        found: list[Sample] = []
        while self._stamps and self._pending:
            stamp = self._pending[0].stamp
            if stamp > self._stamps[-1] + (MAX_ACCELERATION_GAP if last else 0):
                break
            sample = self._pending.popleft()
            value = self._acceleration_at(stamp)
            if value is None:
                self.unused[self._missing_acceleration()] += 1
            else:
                found.append(replace(sample, data=Reading(np.concatenate([value, _values(sample)[3:]]))))
        return found

    def _acceleration_at(self, stamp: int) -> npt.NDArray[np.float64] | None:
        """The acceleration at a stamp: the nearer of those before and after it; None if they are too far.

        Linear interpolation would average noise and vibrations away, which the vectors depend on: with 63 accelerations
        for 200 angular velocities a second, their cosine with those of one topic is 0.97, and 0.99 with the nearest.
        """
        after = bisect_left(self._stamps, stamp)
        if after in (0, len(self._stamps)):  # beyond the first or the last
            at = 0 if after == 0 else -1
            return self._accelerations[at] if abs(stamp - self._stamps[at]) <= MAX_ACCELERATION_GAP else None
        first, second = self._stamps[after - 1], self._stamps[after]
        if second - first > MAX_ACCELERATION_GAP:
            return None
        return self._accelerations[after if second - stamp < stamp - first else after - 1]

    def _missing_acceleration(self) -> str:
        topics = (self._topic, self.other_topic)
        rotation, acceleration = topics[::-1] if self._is_acceleration else topics
        sensor = self._options.sensor
        return (
            f"topic '{rotation}' carries the angular velocity, and no acceleration of the same time was received on "
            f"'{acceleration}': start it, or set {sensor}.acceleration_topic to the topic of the acceleration"
        )


def _values(sample: Sample) -> npt.NDArray[np.float64]:
    assert isinstance(sample.data, Reading)
    return sample.data.values
