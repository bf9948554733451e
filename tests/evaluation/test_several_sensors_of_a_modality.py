"""Evaluation and training on a recording with several sensors of one modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.several_sensors import DARK_ONSET, DURATION, SENSORS, TOPICS, record_several_sensors
from helpers.toy_space import ToySpace
from sensebind.evaluation.activity_baseline import SignalActivity
from sensebind.evaluation.detection_runs import ALL, LATE
from sensebind.evaluation.real import false_alarms
from sensebind.evaluation.run_recordings import run_recording
from sensebind.evaluation.simulated_faults import detect_in_recording
from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.samples import IMU, SECOND, VISION, Sample
from sensebind.fusion.io.recordings import Recording
from sensebind.replay.session import Settings, open_replay
from sensebind.training.data.labelled_streams import labelled_stream
from sensebind.training.data.pairs import pairs_from_recording, windows_by_tick
from sensebind.training.prompt_classifiers import train_prompt_classifiers

SETTINGS = Settings.of(
    {"modalities": [VISION, IMU], "device": "cpu"}, {"detectors": ["prompt", "fault"], "prompts.dark": ["darkness"]}
)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording, with a truth file and a faults file."""
    path = tmp_path_factory.mktemp("several") / "bag"
    record_several_sensors(path)
    path.with_name("bag.truth.tsv").write_text("3.0\t6.0\tdark\n")
    path.with_name("bag.faults.tsv").write_text(f"{DARK_ONSET}\t{DURATION}\tfront\tdark\n")
    return path


def test_events_are_detected_with_all_sensors_and_again_with_those_of_each_modality(bag: Path) -> None:
    found = run_recording(bag, SETTINGS, ToySpace((VISION, IMU)))
    assert set(found.runs) == {ALL, LATE, VISION, IMU}
    assert [(report.sensor, report.cause) for report in found.fault_reports] == [("front", "dark")]
    assert found.faults is not None and found.faults.spans.labels == ("front",)
    assert set(found.activity[1]) == set(SENSORS)


def test_fault_reports_in_recordings_name_the_sensor(bag: Path) -> None:
    _, reports = detect_in_recording(bag, SETTINGS)
    assert [(report.sensor, report.cause) for report in reports] == [("front", "dark")]


def test_false_alarms_are_counted_with_all_sensors(bag: Path) -> None:
    runs = false_alarms.run_recording(bag, SETTINGS, ToySpace((VISION, IMU)))
    assert all(list(run.run.windows) == list(SENSORS) for run in runs)
    assert "front, rear, arm, base" in false_alarms.false_alarm_table(false_alarms.false_alarm_metrics(runs))


def test_the_activity_of_one_camera_is_not_that_of_another(bag: Path) -> None:
    with Recording(bag) as recording:
        settings = SETTINGS.with_sensors_in(recording)
    activity = SignalActivity()
    with open_replay(bag, settings.embedder) as replay:
        for sample in replay.samples():
            assert isinstance(sample, Sample)
            activity.add(sample)
        edges, found = activity.z_scores(replay.start, replay.end)
    darkening = int(np.searchsorted(edges, DARK_ONSET, side="right")) - 1
    assert int(found["front"].argmax()) == darkening != int(found["rear"].argmax())


def test_a_tick_of_a_labelled_stream_has_the_vectors_of_all_sensors(bag: Path) -> None:
    ticks, spans = labelled_stream(bag, [(3.0, 6.0, "dark")], SETTINGS, ToySpace((VISION, IMU)))
    assert len(ticks) > 8 and len(spans) == 1
    complete = [present for _, present in ticks if set(present) == set(SENSORS)]
    assert len(complete) > 8, "those of the cameras and of both IMUs"
    assert all(present[sensor].modality == modality for present in complete for sensor, modality in SENSORS.items())


def test_pairs_are_of_the_first_sensor_of_each_modality(bag: Path) -> None:
    named = {
        "modalities": [VISION, IMU], "vision.sensors": ["rear", "front"], "imu.sensors": ["base", "arm"],
        **{f"{sensor}.topic": topic for sensor, topic in TOPICS.items()},
    }  # fmt: skip
    values, space = Settings.of(named).embedder, ToySpace((VISION, IMU))
    with open_replay(bag, values) as replay:
        samples = (sample for sample in replay.samples() if isinstance(sample, Sample))
        windows = windows_by_tick(samples, values, space.trained_windows)
    assert set(windows) == set(SENSORS) and all(w.sensor == s for s, own in windows.items() for w in own.values())
    pairs = pairs_from_recording(bag, IMU, space, space.tensor, values, space.trained_windows)  # type: ignore[arg-type]
    ticks = sorted(windows["rear"].keys() & windows["base"].keys())
    assert len(pairs) == len(ticks)
    expected = [space.embed(VISION, space.tensor(windows["rear"][tick])[None])[0].numpy() for tick in ticks]
    np.testing.assert_allclose(pairs.targets.numpy(), expected, atol=1e-5)


def test_a_prompt_classifier_is_trained_on_all_cameras_and_the_one_that_sees_the_label_counts() -> None:
    noise, ticks, spans = np.random.default_rng(0), [], []
    dog, room = np.eye(8, dtype=np.float32)[:2]
    for number in range(1, 401):
        tick = number * SECOND // 2
        is_dog = number // 8 % 2 == 1
        if is_dog:
            spans.append((tick - SECOND // 2, tick, "dog"))
        seen_by = ("front", "rear")[number // 16 % 2] if is_dog else None
        present = {}
        for camera in ("front", "rear"):
            vector = l2_normalize((dog if camera == seen_by else room) + noise.normal(0, 0.05, 8))
            present[camera] = Embedding(VISION, tick - SECOND // 2, tick, "toy@0", 1.0, vector, sensor=camera)
        ticks.append((tick, present))
    classifiers, _ = train_prompt_classifiers({"dog": dog[None]}, [(ticks, spans)])
    assert classifiers is not None and set(classifiers.modalities) == {VISION}, "one for the modality, not for a camera"
    matches = np.ones((1, 1), bool)
    ratios = [classifiers.log_likelihood_ratios(VISION, vector, matches)[0] for vector in (dog, room)]
    assert ratios[0] > 1 > 0 > ratios[1]
