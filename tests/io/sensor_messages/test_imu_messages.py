"""IMUs as drivers send them: on two topics, in other units, without one half, without gravity."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.field_recordings import START, imu_message, shaking
from sensebind.fusion.core.encodings import EncodingError
from sensebind.fusion.core.samples import SECOND, Reading, Sample
from sensebind.fusion.io.messages import IMU_TYPE
from sensebind.fusion.io.sensor_messages.imu import MAX_KEPT_READINGS
from sensebind.fusion.io.sensor_messages.sample_decoder import SampleDecoder
from sensebind.fusion.io.sensor_options import SensorOptions
from sensebind.fusion.io.topic_names import imu_half, other_imu_half, other_imu_halves

GYRO, ACCEL = "/camera/gyro/sample", "/camera/accel/sample"
NOTHING = (0.0, 0.0, 0.0)


def imu(topic: str = "/imu/data", **options: Any) -> SampleDecoder:
    return SampleDecoder(SensorOptions("imu", **options), IMU_TYPE, topic)


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def values(samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    return np.array([sample.data.values for sample in samples if isinstance(sample.data, Reading)])


def read(decoder: SampleDecoder, rows: npt.NDArray[np.float64], rate: float = 100.0) -> list[Sample]:
    """The samples of one topic with these readings (N, 6)."""
    found = []
    for number, row in enumerate(rows):
        found += decoder.decode(imu_message(at(number / rate), row[:3], row[3:]), at(number / rate))
    return found + decoder.finish()


def united(decoder: SampleDecoder, main: str, seconds: float = 3.0, rates: tuple[int, int] = (200, 63)) -> list[Sample]:
    """The samples of an IMU that publishes its halves on two topics. `main`: the sensor's topic."""
    events: list[tuple[float, str, Any]] = []
    for time in np.arange(0.0, seconds, 1 / rates[0]):
        events.append((time, GYRO, imu_message(at(time), NOTHING, (0.01 * np.sin(time), 0.0, time))))
    for time in np.arange(0.001, seconds, 1 / rates[1]):
        events.append((time, ACCEL, imu_message(at(time), (time, 0.0, 9.81), NOTHING)))
    found = []
    for time, topic, message in sorted(events, key=lambda event: event[0]):
        if topic == main:
            found += decoder.decode(message, at(time))
        else:
            decoder.apply_side_message(message, at(time))
    return found + decoder.finish()


@pytest.mark.parametrize("main", [GYRO, ACCEL])
def test_two_topics_are_one_imu_with_the_stamps_of_the_angular_velocity(main: str) -> None:
    decoder = imu(main)
    (side,) = decoder.side_topics(main)
    assert side.name == (ACCEL if main == GYRO else GYRO) and side.type == IMU_TYPE
    samples = united(decoder, main)
    assert [sample.stamp for sample in samples] == [at(time) for time in np.arange(0.0, 3.0, 1 / 200)]
    found, times = values(samples), np.arange(0.0, 3.0, 1 / 200)
    assert np.allclose(found[:, 5], times) and np.allclose(found[:, 2], 9.81)
    assert np.abs(found[:, 0] - times).max() < 0.6 / 63 + 0.02, "the acceleration of the same time"
    assert not decoder.unused


def test_two_topics_without_such_names_are_united_by_the_parameter() -> None:
    decoder = imu("/a", acceleration_topic="/b")
    assert [side.name for side in decoder.side_topics("/a")] == ["/b"]
    decoder.apply_side_message(imu_message(at(0.0), (0, 0, 9.8), NOTHING), at(0.0))
    assert decoder.decode(imu_message(at(0.005), NOTHING, (0, 0, 1)), at(0.005)) == []
    decoder.apply_side_message(imu_message(at(0.01), (0, 0, 9.9), NOTHING), at(0.01))
    (sample,) = decoder.decode(imu_message(at(0.012), NOTHING, (0, 0, 2)), at(0.012))
    assert sample.stamp == at(0.005) and sample.data.values[5] == 1  # type: ignore[union-attr]


@given(
    st.lists(st.tuples(st.sampled_from([GYRO, ACCEL]), st.integers(1, 40), st.integers(0, 30)), max_size=120),
)
def test_no_reading_is_ever_half_an_imu_and_none_is_lost_without_a_reason(events: list[tuple[str, int, int]]) -> None:
    decoder, now, sent, refused = imu(GYRO), START, 0, 0
    found: list[Sample] = []
    for topic, step, late in events:
        now += step * SECOND // 1000
        if topic == GYRO:
            sent += 1
            try:
                found += decoder.decode(imu_message(now - late * SECOND // 1000, NOTHING, (0.1, 0.2, 0.3)), now)
            except EncodingError:
                refused += 1
        else:
            decoder.apply_side_message(imu_message(now - late * SECOND // 1000, (0.1, 0, 9.8), NOTHING), now)
    found += decoder.finish()
    assert len(found) + refused + sum(decoder.unused.values()) == sent
    assert all(row[:3].any() and row[3:].any() for row in values(found))


def test_an_angular_velocity_without_its_acceleration_is_refused_with_both_topics_and_the_parameter() -> None:
    decoder, refused = imu(GYRO), 0
    for number in range(300):
        try:
            assert decoder.decode(imu_message(at(number / 100), NOTHING, (0, 0, 0.1)), at(number / 100)) == []
        except EncodingError as error:
            assert all(part in str(error) for part in (GYRO, ACCEL, "imu.acceleration_topic"))
            refused += 1
    decoder.finish()
    assert refused + sum(decoder.unused.values()) == 300 and refused >= 190


def test_a_topic_named_after_one_half_with_a_whole_imu_is_read_as_it_is() -> None:
    rows = shaking(np.arange(0.0, 2.0, 0.01))
    assert np.allclose(values(read(imu(GYRO), rows)), rows)


@pytest.mark.parametrize(
    ("half", "name"),
    [(slice(0, 3), "acceleration"), (slice(3, 6), "angular velocity")],
)
def test_a_topic_that_never_carries_one_half_is_refused_by_name(half: slice, name: str) -> None:
    rows = shaking(np.arange(0.0, 5.0, 0.01))
    rows[:, half] = 0.0
    decoder, found, errors = imu(), [], []
    for number, row in enumerate(rows):
        try:
            found += decoder.decode(imu_message(at(number / 100), row[:3], row[3:]), at(number / 100))
        except EncodingError as error:
            errors.append(str(error))
    assert not found and len(errors) > 300
    assert name in errors[-1] and "imu.acceleration_topic" in errors[-1] and "imu.unmeasured: use" in errors[-1]


def test_a_robot_at_rest_in_a_simulator_without_noise_has_an_imu() -> None:
    rows = np.tile([0.0, 0.0, 9.81, 0.0, 0.0, 0.0], (300, 1))
    assert len(read(imu(), rows)) == 300


@pytest.mark.parametrize("covariances", [(-1.0, 0.01), (0.01, -1.0), (-1.0, -1.0)])
def test_a_covariance_of_minus_one_is_a_reason_and_a_parameter_overrides_it(covariances: tuple[float, float]) -> None:
    message = imu_message(START, (0.1, 0, 9.8), (0, 0, 0.1), covariances)
    with pytest.raises(EncodingError, match=r"covariance of -1.*imu\.unmeasured: use"):
        imu().decode(message, START)
    (sample,) = imu(unmeasured="use").decode(message, START)
    assert np.allclose(sample.data.values, [0.1, 0, 9.8, 0, 0, 0.1])  # type: ignore[union-attr]


SCALES = {"g": 1 / 9.80665, "mg": 1000 / 9.80665, "m/s^2": 1.0}


@pytest.mark.parametrize("unit", SCALES)
def test_units_by_parameters_are_converted_and_need_no_warning(unit: str) -> None:
    rows = shaking(np.arange(0.0, 6.0, 0.01))
    sent = np.hstack([rows[:, :3] * SCALES[unit], np.rad2deg(rows[:, 3:])])
    decoder = imu(acceleration_unit=unit, angular_velocity_unit="deg/s")
    assert np.allclose(values(read(decoder, sent)), rows)
    assert not decoder.warnings


@pytest.mark.parametrize("unit", ["g", "mg"])
def test_an_acceleration_in_g_is_named_with_the_parameter(unit: str) -> None:
    rows = shaking(np.arange(0.0, 6.0, 0.01))
    rows[:, :3] *= SCALES[unit]
    decoder = imu()
    read(decoder, rows)
    assert [f"imu.acceleration_unit: {unit}" in text for text in decoder.warnings] == [True]


def tilting(seconds: float, amplitude: float = 0.5) -> npt.NDArray[np.float64]:
    """A robot that tilts to and fro by `amplitude` (rad), once in 4 s."""
    times = np.arange(0.0, seconds, 0.01)
    angle = amplitude * np.sin(2 * np.pi * times / 4)
    rows = np.zeros((len(times), 6))
    rows[:, 1], rows[:, 2] = 9.81 * np.sin(angle), 9.81 * np.cos(angle)
    rows[:, 3] = amplitude * 2 * np.pi / 4 * np.cos(2 * np.pi * times / 4)
    return rows + np.random.default_rng(1).normal(0, 0.02, rows.shape)


@pytest.mark.parametrize("motion", ["turning", "tilting"])
def test_an_angular_velocity_in_degrees_is_named_with_the_parameter(motion: str) -> None:
    rows = tilting(10.0, 0.04) if motion == "tilting" else shaking(np.arange(0.0, 10.0, 0.01))
    right, wrong = imu(), imu()
    read(right, rows)
    assert not right.warnings
    rows[:, 3:] = np.rad2deg(rows[:, 3:])
    read(wrong, rows)
    assert [("deg/s" in text and "imu.angular_velocity_unit" in text) for text in wrong.warnings] == [True]


def test_fast_tilting_in_radians_is_not_taken_for_degrees() -> None:
    decoder = imu()
    read(decoder, tilting(20.0, 1.2))
    assert not decoder.warnings


def test_a_removed_gravity_is_named() -> None:
    rows = shaking(np.arange(0.0, 6.0, 0.01)) * [0.1, 0.1, 0.0, 1, 1, 1]
    decoder = imu()
    read(decoder, rows)
    assert ["gravity was removed" in text for text in decoder.warnings] == [True]


def test_gravity_that_was_removed_is_named_while_the_robot_moves_and_shakes_too() -> None:
    rows = shaking(np.arange(0.0, 6.0, 0.01))
    assert np.linalg.norm(rows[:, :3] - rows[:, :3].mean(axis=0), axis=1).mean() > 0.5, (
        "longer than NO_GRAVITY at each instant"
    )
    whole, removed = imu(), imu()
    read(whole, rows)
    assert not whole.warnings
    rows[:, :3] -= rows[:, :3].mean(axis=0)
    read(removed, rows)
    assert ["gravity was removed" in text for text in removed.warnings] == [True]


def test_accelerations_in_counts_of_the_device_are_named() -> None:
    decoder = imu()
    read(decoder, np.tile([12.0, 30.0, 16384.0, 0.01, 0.0, 0.02], (600, 1)))
    assert any("counts of the device" in text for text in decoder.warnings)


def test_names_of_topics_say_which_half_they_carry() -> None:
    assert other_imu_half("/camera/gyro/sample") == "/camera/accel/sample"
    assert other_imu_half("/imu/accel") == "/imu/gyro"
    assert other_imu_half("/imu/angular_velocity") == "/imu/linear_acceleration"
    assert other_imu_half("/zed/imu/angular_vel") == "/zed/imu/linear_acc" and other_imu_half("/gyr") == "/acc"
    assert "/imu/acceleration" in other_imu_halves("/imu/gyro") and "/imu/gyro" in other_imu_halves("/imu/acc")
    for whole in ("/imu/data", "/gyroid/imu", "/accelerated/imu_raw", "/camera/gyro_accel/sample"):
        assert other_imu_half(whole) == "" and imu_half(whole) == ""


@given(st.floats(-1e6, 1e6), st.booleans())
def test_stamps_are_those_of_the_header_or_of_the_arrival_plus_the_offset(offset: float, received: bool) -> None:
    options: dict[str, Any] = {"time_offset": offset, "stamps": "received" if received else "header"}
    (sample,) = imu(**options).decode(imu_message(START, (0, 0, 9.8), (0, 0, 1)), START + 5)
    assert sample.stamp == START + 5 * received + round(offset * SECOND)
    assert sample.received == START + 5


def test_a_message_without_a_stamp_stays_without_one_unless_received_stamps_are_wanted() -> None:
    message = imu_message(0, (0, 0, 9.8), (0, 0, 1))
    assert [s.stamp for s in imu(time_offset=5.0).decode(message, START)] == [0]
    assert [s.stamp for s in imu(stamps="received").decode(message, START)] == [START]


@pytest.mark.parametrize("topic", ["/imu/data", GYRO, ACCEL])
def test_stamps_that_stand_still_do_not_fill_the_memory(topic: str) -> None:
    """A driver whose clock has stopped: no time passes that would end what is kept. Each message is counted."""
    decoder, sent, errors = imu(topic), 4 * MAX_KEPT_READINGS, set[str]()
    whole = imu_message(at(1), (0.0, 0.0, 9.81), (0.1, 0.0, 0.0))
    half = imu_message(at(1), NOTHING, (0.1, 0.0, 0.0))
    tracemalloc.start()
    for number in range(sent):
        try:
            if topic == ACCEL:
                decoder.apply_side_message(half, at(number / 400))
            else:
                decoder.decode(half if topic == GYRO else whole, at(number / 400))
        except EncodingError as error:
            errors.add(str(error))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500 * MAX_KEPT_READINGS
    counts = decoder.message_counts()
    ends = ("decoded", "undecodable", "side_undecodable", "messages_waiting")
    assert sum(counts[name] for name in ends) == counts["arrived"] + counts["side"] == sent
    assert not errors if topic == "/imu/data" else len(errors) == 1 and "acceleration" in errors.pop()
