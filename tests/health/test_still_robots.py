"""A robot that stands in a simulation without noise, and a thermal camera behind its shutter, have no fault."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Event, EventKind, EventPhase
from sensebind.fusion.core.samples import DEPTH, IMU, SECOND, THERMAL, VISION, Calibration, Frame, Reading, Sample
from sensebind.fusion.core.windows import Window, WindowSpec
from sensebind.fusion.events.fault import FaultDetector, FaultOptions
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.health.checks import SensorHealthMonitor
from sensebind.fusion.stream.windower import Windower

START = 1_700_000_000 * SECOND
SEEN = np.random.default_rng(1).integers(20, 230, (120, 400)).astype(np.uint8)
SPECS = {
    VISION: WindowSpec(VISION, SECOND, SECOND // 2, frames=1),
    DEPTH: WindowSpec(DEPTH, SECOND, SECOND // 2, frames=1),
    IMU: WindowSpec(IMU, 5 * SECOND, SECOND // 2),
}


def samples_of(seconds: float, stands: tuple[float, float], noisy: tuple[str, ...]) -> list[Sample]:
    """A robot that drives, stands from `stands[0]` to `stands[1]` s, and drives on. Only `noisy` sensors have noise."""
    random = np.random.default_rng(0)
    result = []
    for number in range(round(seconds * 20)):
        time = number / 20
        driven = time if time < stands[0] else max(stands[0], stands[0] + time - stands[1])
        place = round(driven * 8) % 200
        image = SEEN[:, place : place + 160]
        if VISION in noisy:
            image = np.clip(image + random.normal(0, 2, image.shape), 1, 254).astype(np.uint8)
        stamp = START + round(time * SECOND)
        result.append(Sample(VISION, stamp, Frame(image.reshape(-1), "mono8", 120, 160, 160)))
        far = 500 + 10 * SEEN[:, place : place + 160].astype(np.uint16)
        result.append(Sample(DEPTH, stamp, Frame(far.view(np.uint8).reshape(-1), "16UC1", 120, 160, 320)))
    for number in range(round(seconds * 100)):
        time = number / 100
        drives = not stands[0] <= time < stands[1]
        values = np.array([0.3 * np.sin(9 * time) * drives, 0, 9.81, 0, 0, 0.2 * np.sin(3 * time) * drives])
        if IMU in noisy:
            values = values + random.normal(0, 0.02, 6)
        result.append(Sample(IMU, START + round(time * SECOND) + 1000, Reading(values)))
    return sorted(result, key=lambda sample: sample.stamp)


def events_of(samples: list[Sample], **options: object) -> list[Event]:
    """The faults of a robot with these samples."""
    windowers = {sensor: Windower(spec) for sensor, spec in SPECS.items()}
    monitors = {sensor: SensorHealthMonitor() for sensor in SPECS}
    ticks: dict[int, dict[str, Embedding]] = defaultdict(dict)
    vector = np.eye(4, dtype=np.float32)[0]
    for sample in samples:
        for window in windowers[sample.modality].accept(sample):
            ticks[window.tick][window.modality] = Embedding(
                window.modality, window.start, window.tick, "space", 1.0, vector,
                symptoms=monitors[window.modality].check(window),
            )  # fmt: skip
    tracker = EventTracker([FaultDetector(FaultOptions(**options), {name: name for name in SPECS})], "space")  # type: ignore[arg-type]
    return [event for tick in sorted(ticks) for event in tracker.step(tick, ticks[tick])] + tracker.finish()


def onsets(events: list[Event]) -> list[str]:
    assert all(event.kind is EventKind.FAULT for event in events)
    return sorted(event.label for event in events if event.phase is EventPhase.ONSET)


@pytest.mark.parametrize("stop", [0.0, 8.0, 8.07, 8.13, 8.29, 8.41, 8.49])
def test_a_robot_that_stands_in_a_simulation_without_noise_has_no_fault(stop: float) -> None:
    assert onsets(events_of(samples_of(20.0, (stop, 16.0), ()))) == []


@pytest.mark.parametrize(
    ("noisy", "frozen"),
    [
        ((IMU,), ["fault:depth:frozen", "fault:vision:frozen"]),
        ((VISION,), ["fault:depth:frozen", "fault:imu:frozen"]),
        ((VISION, IMU), ["fault:depth:frozen"]),
    ],
)
def test_sensors_that_freeze_while_others_have_noise_are_faulty(noisy: tuple[str, ...], frozen: list[str]) -> None:
    events = events_of(samples_of(20.0, (8.0, 16.0), noisy))
    assert onsets(events) == frozen
    first = [event for event in events if event.phase is EventPhase.ONSET]
    assert all(event.tick <= START + 11 * SECOND for event in first)


def test_a_sensor_that_is_frozen_from_the_start_is_reported_before_the_first_window_of_the_imu() -> None:
    events = events_of(samples_of(6.0, (0.0, 16.0), (VISION, IMU)))
    assert onsets(events) == ["fault:depth:frozen"] and events[0].tick <= START + 2 * SECOND
    events = events_of(samples_of(8.0, (0.0, 16.0), (IMU,)))  # all cameras: the IMU decides
    assert onsets(events) == ["fault:depth:frozen", "fault:vision:frozen"] and events[0].tick <= START + 5 * SECOND


def test_a_camera_simulated_without_noise_beside_sensors_with_noise_needs_the_time_that_the_robot_stands() -> None:
    samples = samples_of(20.0, (4.0, 16.0), (IMU,))
    assert onsets(events_of(samples, frozen_time=30.0)) == []
    events = [e for e in events_of(samples, frozen_time=5.0) if e.phase is EventPhase.ONSET]
    assert onsets(events) == ["fault:depth:frozen", "fault:vision:frozen"]
    assert all(START + 9 * SECOND <= event.tick <= START + 11.5 * SECOND for event in events)


class Recorder(FaultDetector):
    """A detector of another kind that keeps the symptoms that it is given."""

    kind = EventKind.NOVELTY

    def __init__(self) -> None:
        super().__init__()
        self.symptoms: list[tuple[str, ...]] = []

    def score(self, state, tick, embeddings):  # type: ignore[no-untyped-def]
        self.symptoms += [embedding.symptoms for embedding in embeddings.values()]
        return state, {}


@pytest.mark.parametrize("imu_symptoms", [("frozen",), ()])
def test_the_data_of_a_robot_that_stands_in_a_simulation_are_evidence(imu_symptoms: tuple[str, ...]) -> None:
    recorder = Recorder()
    tracker = EventTracker([FaultDetector(), recorder], "space")
    vector = np.eye(4, dtype=np.float32)[0]
    for number in range(1, 5):
        tick = START + number * SECOND // 2
        present = {
            name: Embedding(name, tick - SECOND, tick, "space", 1.0, vector, symptoms=symptoms)
            for name, symptoms in ((VISION, ("frozen",)), (IMU, imu_symptoms))
        }
        tracker.step(tick, present)
    assert set(recorder.symptoms) == ({()} if imu_symptoms else {("frozen",), ()})


# Thermal cameras


def thermal_windows(repeats: range, count: int = 40) -> list[Window]:
    """Windows half a second apart. From the tick `repeats.start` to `repeats.stop` the image is that of the first."""
    result = []
    for number in range(count):
        seed = repeats.start if number in repeats else number
        image = (29_400 + 5 * np.random.default_rng(seed).standard_normal((60, 80))).astype(np.uint16)
        tick = START + (number + 1) * SECOND // 2
        frame = Frame(image.view(np.uint8).reshape(-1), "mono16", 60, 80, 160)
        result.append(Window(THERMAL, tick - SECOND // 2, tick, 1.0, (Sample(THERMAL, tick - SECOND // 10, frame),)))
    return result


def test_a_thermal_camera_behind_its_shutter_is_not_frozen_and_one_that_stays_so_is() -> None:
    monitor = SensorHealthMonitor()
    assert not any(monitor.check(window) for window in thermal_windows(range(10, 13)))  # 1 s
    monitor = SensorHealthMonitor()
    found = [monitor.check(window) for window in thermal_windows(range(10, 30))]
    assert not any(found[:13]) and set(found[13:30]) == {("frozen",)} and not any(found[30:])


@pytest.mark.parametrize("base", [8000, 22_000, 900])
def test_raw_counts_that_are_no_temperatures_have_no_symptom_if_the_camera_is_not_radiometric(base: int) -> None:
    image = (base + 40 * np.sin(np.mgrid[:60, :80][1] / 9)).astype(np.uint16)
    calibration = Calibration(thermal_radiometric=False)

    def symptoms(values: np.ndarray, own: Calibration) -> tuple[str, ...]:
        frame = Frame(values.view(np.uint8).reshape(-1), "mono16", 60, 80, 160)
        return SensorHealthMonitor().check(Window(THERMAL, 0, SECOND, 1.0, (Sample(THERMAL, 1, frame),), own))

    assert symptoms(image, calibration) == ()
    assert symptoms(np.zeros_like(image), calibration) == ("dark",)
    assert symptoms(np.full_like(image, 65_535), calibration) == ("blinded",)


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "i420", "nv24", "uyvy", "yuyv"])
def test_a_covered_camera_is_dark_in_encodings_that_keep_colours_apart(encoding: str) -> None:
    black = np.full((120 * (6 if encoding == "nv24" else 3) // 2, 160), 128, np.uint8)
    black[:120] = 2
    if encoding in ("uyvy", "yuyv"):
        black = np.full((120, 320), 128, np.uint8)
        black[:, encoding == "uyvy" :: 2] = 2
    frame = Frame(black.reshape(-1), encoding, 120, 160, black.shape[1])
    window = Window(VISION, 0, SECOND, 1.0, (Sample(VISION, 1, frame),))
    assert SensorHealthMonitor().check(window) == ("dark",)
