"""Converts messages to readings: those of IMUs, and numeric fields of any message, so that a user-defined modality
needs no code."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import SECOND, Reading, Sample
from sensebind.fusion.io.messages import imu_sample, stamp_to_ns
from sensebind.fusion.io.sensor_options import (
    ACCELERATION_UNITS,
    ANGULAR_VELOCITY_UNITS,
    RECEIVED_STAMPS,
    USE_UNMEASURED,
    SensorOptions,
)

PATH_PART = re.compile(r"([A-Za-z_]\w*)((?:\[[\d:]*\])*)")
ARRAY_INDEX = re.compile(r"\[(\d*)(:?)(\d*)\]")


def numeric_sample_converter(modality: str, fields: Sequence[str], fill: float = 0.0) -> Callable[[Any, int], Sample]:
    """A function (message, time of arrival in ns) → sample. Its reading contains the numbers of `fields`, in order.

    A field is a path, for example `range`, `wrench.force.x`, `data`, `ranges[0:360]` or `cells[2].voltage`. An array
    gives all its elements. Numbers that are not finite (a laser beam without an echo) become `fill`, unless no number
    is finite. The stamp is the header's, or the time of arrival if the message has no header. Raises `ValueError` for a
    wrong path. The function raises `EncodingError` for a message that lacks a field, or has no numbers in it.
    """
    paths = [(field, _parse_field_path(field)) for field in fields]
    if not paths:
        raise ValueError(f"{modality}.fields is empty")

    def read(message: Any, received_ns: int) -> Sample:
        values = np.concatenate([_read_field(modality, message, field, steps) for field, steps in paths])
        finite = np.isfinite(values)
        if finite.any():
            values[~finite] = fill
        header = getattr(message, "header", None)
        stamp = received_ns if header is None else stamp_to_ns(header.stamp)
        return Sample(modality, stamp, Reading(values), "" if header is None else header.frame_id)

    return read


def _parse_field_path(field: str) -> list[str | int | slice]:
    steps: list[str | int | slice] = []
    for part in field.split("."):
        match = PATH_PART.fullmatch(part)
        if match is None:
            raise ValueError(f"field '{field}' is not a path like data, wrench.force.x or ranges[0:360]")
        steps.append(match[1])
        for first, colon, last in ARRAY_INDEX.findall(match[2]):
            if colon:
                steps.append(slice(int(first) if first else None, int(last) if last else None))
            elif first:
                steps.append(int(first))
            else:
                raise ValueError(f"field '{field}': [] must contain a number")
    return steps


def _read_field(modality: str, message: Any, field: str, steps: Sequence[str | int | slice]) -> npt.NDArray[np.float64]:
    value = message
    for step in steps:
        try:
            value = getattr(value, step) if isinstance(step, str) else value[step]
        except (AttributeError, IndexError, TypeError) as error:
            raise EncodingError(
                f"a message has no field '{field}' ('{step}' is missing): set {modality}.fields to fields that it has"
            ) from error
    try:
        return np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise EncodingError(
            f"field '{field}' contains {type(value).__name__}, not numbers: name other fields in {modality}.fields"
        ) from error


# Words in topics that carry one half of an IMU. The word of one half, in place of that of the other, names its topic.
GYROSCOPE_WORDS = ("gyroscope", "angular_velocity", "angular_vel", "gyros", "gyro", "gyr", "angular_rate")
ACCELERATION_WORDS = ("accelerometer", "linear_acceleration", "linear_acc", "accels", "accel", "acc", "acceleration")
_HALF = re.compile(rf"(?<![a-z])({'|'.join(GYROSCOPE_WORDS + ACCELERATION_WORDS)})(?![a-z])")

MAX_ACCELERATION_GAP = SECOND // 4  # ns between two accelerations, one of which is used at the stamps between them
ACCELERATION_WAIT = SECOND  # ns of stamps that an angular velocity waits for an acceleration
HALF_IMU_TIME = SECOND  # ns of readings after which an angular velocity that is always 0 is judged
MIN_ACCELERATION_NOISE = 1e-4  # m/s²: a robot at rest in a simulator without noise has less
BLOCK_TIME, MIN_BLOCK_READINGS = SECOND, 5  # ns and number of the readings that units are judged by
LIKE_GRAVITY = (0.8, 1.25)  # mean length of an acceleration in g
MAX_GRAVITY_SPREAD = 0.25  # standard deviation of the lengths, relative to their mean, of gravity and some motion
MAX_STEADY_ACCELERATION = 50.0  # m/s²: no robot accelerates so for `UNIT_BLOCKS` blocks
NO_GRAVITY = 0.5  # m/s²: a shorter mean acceleration contains no gravity
MAX_TURNING_RATE = 6.0  # rad/s: no robot turns so fast for `UNIT_BLOCKS` blocks
UNIT_BLOCKS = 3  # blocks in a row that must agree before a warning
TURNED = (0.5, 6.0)  # rad: turns of gravity in a block, by the angular velocity, that are compared with the measured


def imu_half(topic: str) -> str:
    """The half of an IMU that the name of a topic says: ``gyro``, ``accel``, or empty."""
    words = set(_HALF.findall(topic.lower()))
    if len(words) != 1:  # Orbbec's gyro_accel carries both
        return ""
    return "gyro" if words <= set(GYROSCOPE_WORDS) else "accel"


def other_imu_half(topic: str) -> str:
    """The topic of the other half of an IMU, ``/camera/accel/sample`` for ``/camera/gyro/sample``. Empty: there is none
    because the name of this topic does not say that it is one half."""
    found = _HALF.search(topic.lower())
    if found is None or not imu_half(topic):
        return ""
    words, others = GYROSCOPE_WORDS, ACCELERATION_WORDS
    if found[1] not in words:
        words, others = others, words
    return topic[: found.start()] + others[words.index(found[1])] + topic[found.end() :]


def other_imu_halves(topic: str) -> list[str]:
    """All names that the topic of the other half of an IMU may have, `other_imu_half` first."""
    found = _HALF.search(topic.lower())
    if found is None or not imu_half(topic):
        return []
    others = ACCELERATION_WORDS if found[1] in GYROSCOPE_WORDS else GYROSCOPE_WORDS
    return [other_imu_half(topic), *(topic[: found.start()] + word + topic[found.end() :] for word in others)]


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
            self._pending.clear()
        self._pending.append(sample)
        if sample.stamp - self._pending[0].stamp > ACCELERATION_WAIT:
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
        if self._stamps and sample.stamp < self._stamps[-1] - SECOND:  # the clock jumped back
            self._stamps.clear()
            self._accelerations.clear()
        at = bisect_left(self._stamps, sample.stamp)
        if at < len(self._stamps) and self._stamps[at] == sample.stamp:
            return
        self._stamps.insert(at, sample.stamp)
        self._accelerations.insert(at, value)
        old = bisect_left(self._stamps, sample.stamp - 2 * ACCELERATION_WAIT)
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


class UnitCheck:
    """Compares the readings of an IMU with what is possible, in blocks of `BLOCK_TIME`, and says what their units look
    like."""

    def __init__(self, options: SensorOptions) -> None:
        self.warnings: list[str] = []
        self._options = options
        self._rows: list[npt.NDArray[np.float64]] = []
        self._start = 0  # ns, stamp of the first of them
        self._findings = {"acceleration": ("", 0), "rotation": ("", 0)}  # the newest, and in how many blocks in a row
        self._turned_as_predicted = 0  # blocks in which gravity turned as the angular velocity says

    def update(self, sample: Sample) -> None:
        """Add a reading."""
        if not self._findings:
            return
        if not self._rows or sample.stamp < self._start:
            self._rows, self._start = [], sample.stamp
        self._rows.append(_values(sample))
        seconds = (sample.stamp - self._start) / SECOND
        if seconds * SECOND < BLOCK_TIME:
            return
        rows, self._rows = np.array(self._rows), []
        if len(rows) < MIN_BLOCK_READINGS or not np.isfinite(rows).all():
            return
        for part, (before, blocks) in list(self._findings.items()):
            text = self._acceleration_finding(rows) if part == "acceleration" else self._rotation_finding(rows, seconds)
            self._findings[part] = text, blocks + 1 if text == before else 1
            if text and self._findings[part][1] >= UNIT_BLOCKS:
                self.warnings.append(text)
                del self._findings[part]  # said once

    def _acceleration_finding(self, rows: npt.NDArray[np.float64]) -> str:
        """What a block says about the acceleration; empty: nothing."""
        sensor, unit = self._options.sensor, self._options.acceleration_unit
        lengths = np.linalg.norm(rows[:, :3], axis=1)
        length = float(lengths.mean())
        if length > 0 and float(np.linalg.norm(rows[:, :3].mean(axis=0))) < NO_GRAVITY:  # motion has a mean near 0
            return (
                f"the mean acceleration is less than {NO_GRAVITY} m/s² long, so gravity was removed from it. REP-145 "
                "wants gravity included: tilts and falls are not recognised without it, and the fault detector reports "
                f"miscalibrated; set {sensor}.topic to the topic of the driver, often imu/data_raw or imu/data"
            )
        if float(lengths.std()) > MAX_GRAVITY_SPREAD * length:
            return ""  # not gravity alone
        in_message = length / ACCELERATION_UNITS[unit]
        for name, gravity in (("m/s^2", 9.8), ("g", 1.0), ("mg", 1000.0)):
            if name != unit and LIKE_GRAVITY[0] * gravity <= in_message <= LIKE_GRAVITY[1] * gravity:
                return (
                    f"the acceleration is about {gravity:g} long: it looks like gravity in {name}, and not in {unit}: "
                    f"set {sensor}.acceleration_unit: {name}"
                )
        if length > MAX_STEADY_ACCELERATION:
            return (
                f"the acceleration is longer than {MAX_STEADY_ACCELERATION:g} m/s² for seconds, which is gravity in "
                f"none of the units of {sensor}.acceleration_unit, {', '.join(ACCELERATION_UNITS)}: perhaps it is in "
                "counts of the device; make the driver convert it"
            )
        return ""

    def _rotation_finding(self, rows: npt.NDArray[np.float64], seconds: float) -> str:
        """What a block says about the angular velocity; empty: nothing."""
        if self._options.angular_velocity_unit == "deg/s" or self._turned_as_predicted >= UNIT_BLOCKS:
            return ""
        rates = rows[:, 3:6]
        text = f"it looks like deg/s, and not rad/s: set {self._options.sensor}.angular_velocity_unit: deg/s"
        if float(np.linalg.norm(rates, axis=1).mean()) > MAX_TURNING_RATE:
            return f"the angular velocity is larger than {MAX_TURNING_RATE:g} for seconds: {text}"
        # The path of the direction of gravity over the quarters of the block, as measured and by the angular velocity.
        parts = np.array_split(rows, 4)
        directions = np.array([part[:, :3].mean(axis=0) for part in parts])
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        if (lengths <= 0).any():
            return ""
        directions /= lengths
        steps = np.array([part[:, 3:6].mean(axis=0) for part in parts]) * seconds / 4
        measured = float(np.arccos(np.clip((directions[1:] * directions[:-1]).sum(axis=1), -1.0, 1.0)).sum())
        predicted = float(np.linalg.norm(np.cross((steps[1:] + steps[:-1]) / 2, directions[:-1]), axis=1).sum())
        if not TURNED[0] <= predicted <= TURNED[1]:
            return ""
        if measured > 0.4 * predicted:
            self._turned_as_predicted += 1
        if measured > 0.1 * predicted:
            return ""
        return f"gravity turns less than a tenth of what the angular velocity says: {text}"
