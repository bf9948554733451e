"""Compares the readings of an IMU with what is possible, to find wrong units."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.samples import SECOND, Reading, Sample
from sensebind.fusion.io.sensor_options import ACCELERATION_UNITS, SensorOptions

BLOCK_TIME, MIN_BLOCK_READINGS = SECOND, 5  # ns and number of the readings that units are judged by
MAX_BLOCK_READINGS = 5000  # stamps that stand still never end a block: it begins again
LIKE_GRAVITY = (0.8, 1.25)  # mean length of an acceleration in g
MAX_GRAVITY_SPREAD = 0.25  # standard deviation of the lengths, relative to their mean, of gravity and some motion
MAX_STEADY_ACCELERATION = 50.0  # m/s²: no robot accelerates so for `UNIT_BLOCKS` blocks
NO_GRAVITY = 0.5  # m/s²: a shorter mean acceleration contains no gravity
MAX_TURNING_RATE = 6.0  # rad/s: no robot turns so fast for `UNIT_BLOCKS` blocks
UNIT_BLOCKS = 3  # blocks in a row that must agree before a warning
TURNED = (0.5, 6.0)  # rad: turns of gravity in a block, by the angular velocity, that are compared with the measured


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
        if not self._rows or sample.stamp < self._start or len(self._rows) >= MAX_BLOCK_READINGS:
            self._rows, self._start = [], sample.stamp
        assert isinstance(sample.data, Reading)
        self._rows.append(sample.data.values)
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
