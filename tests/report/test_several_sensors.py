"""All that a replay writes and shows keeps the sensors of one modality apart."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.report_examples import START, Page, figures, make_similarity, report
from helpers.several_sensors import DARK_ONSET, DURATION, SENSORS, TOPICS, record_several_sensors
from sensebind.cli import main
from sensebind.fusion.core.embeddings import FUSED, Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence, intervals_from_events
from sensebind.fusion.core.samples import DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample
from sensebind.fusion.io.messages import event_from_message
from sensebind.fusion.io.recordings import Recording
from sensebind.report import SensorPreviews, render_report, similarities, summary
from sensebind.report.style import SHADE_COUNT, colour_code, colour_names
from sensebind.simulation.messages import SIMULATION_START

PARAMETERS = """
/**:
  ros__parameters:
    space: starter
    device: cpu
    modalities: [vision, imu]
    vision: {sensors: [front, rear]}
    front: {topic: /front/image_raw}
    rear: {topic: /rear/image_raw, hop: 1.0}
    detectors: [prompt, fault]
    prompts: {person: [a person]}
"""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a replay. The parameters name the cameras; the IMUs are found in the recording."""
    folder = tmp_path_factory.mktemp("several")
    record_several_sensors(folder / "bag")
    (folder / "p.yaml").write_text(PARAMETERS)
    command = ["replay", str(folder / "bag"), "--config", str(folder / "p.yaml"), "--out", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        assert main(command) == 0
    (folder / "out" / "printed.txt").write_text("\n".join(printed))
    return folder / "out"


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_the_summary_names_each_sensor_with_its_modality_and_topic(replayed: Path) -> None:
    found = summary_of(replayed)
    assert found["sensors"] == {s: {"modality": m, "topic": TOPICS[s]} for s, m in SENSORS.items()}
    assert list(found["modalities"]) == list(SENSORS)
    windows = {sensor: own["windows"] for sensor, own in found["modalities"].items()}
    assert windows["front"] > 10 and windows["rear"] < 8, "each camera has its own hop"
    assert windows["arm"] == windows["base"] > 10


def test_an_event_says_which_sensor_saw_it(replayed: Path) -> None:
    (dark,) = (event for event in summary_of(replayed)["events"] if event["label"] == "fault:front:dark")
    assert dark["onset"] == pytest.approx(DARK_ONSET, abs=1.0)
    assert dark["score_by_sensor"] == {"front": 0.95} and dark["score_by_modality"] == {VISION: 0.95}
    with Recording(replayed / "outputs") as bag:
        reports = [event_from_message(message) for _, _, _, message in bag.messages(["/events"])]
    (onset,) = (e for e in reports if e.label == "fault:front:dark" and e.phase is EventPhase.ONSET)
    assert onset.supporting_sensors == ("front",)


def test_the_command_prints_each_sensor_and_who_saw_an_event(replayed: Path) -> None:
    lines = (replayed / "printed.txt").read_text().splitlines()
    for sensor, topic in TOPICS.items():
        assert any(line.startswith(f"{sensor:8} {topic} (") for line in lines), sensor
        assert any(re.match(rf"{sensor} +\d+ windows, \d+ embedded", line) for line in lines), sensor
    assert any(re.search(r"fault:front:dark at \d\.\d s \(front\)", line) for line in lines)


def test_the_output_bag_has_topics_of_each_sensor(replayed: Path) -> None:
    with Recording(replayed / "outputs") as bag:
        counts = {topic.name: topic.message_count for topic in bag.topics}
        embeddings = {s: [m for _, _, _, m in bag.messages([f"/embeddings/{s}"])] for s in SENSORS}
        images = {
            camera: {stamp: cv2.imdecode(np.asarray(m.data), cv2.IMREAD_COLOR) for _, _, stamp, m in messages}
            for camera in ("front", "rear")
            for messages in [bag.messages([f"/annotated/{camera}/image"])]
        }
        texts = {
            camera: [len(m.points) for _, _, _, m in bag.messages([f"/annotated/{camera}/annotations"])]
            for camera in ("front", "rear")
        }
    assert set(counts) == {
        "/embedding_space", "/embeddings/fused", "/events", "/prompt_scores",
        *(f"/embeddings/{sensor}" for sensor in SENSORS),
        *(f"/annotated/{camera}/{kind}" for camera in ("front", "rear") for kind in ("image", "annotations")),
    }  # fmt: skip
    for sensor, modality in SENSORS.items():
        assert {(m.sensor, m.modality) for m in embeddings[sensor]} == {(sensor, modality)}
        assert [m.sequence for m in embeddings[sensor]] == list(range(len(embeddings[sensor])))
    dark = SIMULATION_START + round((DARK_ONSET + 0.5) * SECOND)
    for camera, is_dark in (("front", True), ("rear", False)):
        late = [image.mean() for stamp, image in images[camera].items() if stamp > dark]
        assert late and all((level < 20) == is_dark for level in late), camera
    assert any(texts["front"]) and not any(texts["rear"]), "only the camera that saw the event has a frame"


def test_the_layout_for_foxglove_shows_each_sensor(replayed: Path) -> None:
    text = (replayed / "foxglove_layout.json").read_text()
    panels = json.loads(text)["configById"]
    assert panels["Image!front"]["imageMode"]["imageTopic"] == "/annotated/front/image" and "Image!rear" in panels
    for sensor in ("front", "rear"):
        (line,) = (
            path for path in panels["Plot!score0"]["paths"] if f'modalities[:]{{sensor=="{sensor}"}}' in path["value"]
        )
        assert line["label"] == sensor
    lines = [path["color"] for path in panels["Plot!similarity0"]["paths"]]
    assert len(set(lines)) == len(lines), "each sensor has its own colour"


def test_the_report_shows_each_sensor_with_its_modality(replayed: Path) -> None:
    text = (replayed / "report.html").read_text()
    page = Page(text)
    for sensor, modality in SENSORS.items():
        assert text.count(f"<h3>{sensor} ({modality})</h3>") == 2, "its data, and its similarities"
        assert f'<th scope="row">{sensor}</th><td>{modality}</td>' in text
        assert f"{sensor}: {TOPICS[sensor]} (" in page.text
    assert "<tr><th>sensor</th><th>modality</th>" in text and "<th>modality</th><th>modality</th>" not in text
    assert "by 2 encoders from 4 sensors" in page.text
    films = re.findall(r'aria-label="(\w+) \(vision\): (\d+) images, 0 s to ([\d.]+) s', text)
    assert [(name, int(count)) for name, count, _ in films] == [("front", 35), ("rear", 35)]
    assert all(float(end) == pytest.approx(DURATION - 0.2) for *_, end in films)
    (title,) = set(re.findall(r'title="(fault:front:dark: [^"]*)"', text))
    assert title.endswith("; front 0.95")


def event_of(scores: Mapping[str, float], modality: str = VISION) -> list[Event]:
    """An event that sensors with these scores saw; those below 0.3 do not support it. Its region is that of `rear`."""
    evidence = tuple(
        Evidence(
            modality, score, score >= 0.3, START, START + SECOND, sensor=sensor,
            region=(10, 20, 30, 40) if sensor == "rear" else None, bearing=-0.5 if sensor == "rear" else None,
        )
        for sensor, score in scores.items()
    )  # fmt: skip
    onset = Event(
        "prompt/cat/1", EventKind.PROMPT, "cat", EventPhase.ONSET, START + SECOND, 0, START + 2 * SECOND, 0.9, "toy@0",
        evidence,
    )  # fmt: skip
    return [onset]


def test_of_several_cameras_the_one_that_saw_the_event_is_named_with_its_place_and_its_image() -> None:
    previews = SensorPreviews()
    for camera, level in (("front", 40), ("left", 120), ("rear", 200)):
        pixels = np.full((120, 160, 3), level, np.uint8)
        for number in range(30):
            stamp = START + number * SECOND // 10
            previews.add(Sample(VISION, stamp, Frame(pixels.ravel(), "rgb8", 120, 160), sensor=camera))
    cameras = ("front", "left", "rear")
    data = report(
        events=event_of({"front": 0.1, "left": 0.4, "rear": 0.9}), previews=previews, truth=None,
        modalities={camera: figures() for camera in cameras}, sensors=dict.fromkeys(cameras, VISION),
        similarities={name: make_similarity(("cat",)) for name in (FUSED, *cameras)},
    )  # fmt: skip
    (item,) = intervals_from_events(data.events)
    assert item.score_by_modality == {VISION: 0.9} and item.score_by_sensor == {"left": 0.4, "rear": 0.9}
    assert item.sensors_by_score() == ["rear", "left"] and item.modality_by_sensor == dict.fromkeys(cameras, VISION)
    (listed,) = summary(data)["events"]
    place = {"region": [10, 20, 30, 40], "bearing": -0.5}
    assert listed["place_by_sensor"] == {"rear": place} and listed["place_by_modality"] == {VISION: place}
    text = render_report(data)
    assert "rear at 10, 20, 30 × 40 px, 29° right" in text
    (image,) = re.findall(r'<img class="s-vision-2" src="data:image/jpeg;base64,([^"]+)" alt="cat at 1 s, rear"', text)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(image), np.uint8), cv2.IMREAD_COLOR)
    assert shown.mean() == pytest.approx(200, abs=3), "the image at the onset is that of the camera that saw it"
    lane = text.partition("<h2>Events</h2>")[2].partition("<h2>")[0]
    for number, camera in enumerate(cameras):
        assert f'<div class="sub"><bdi>{camera}</bdi></div>' in lane
        assert f'<g class="s-vision{f"-{number}" if number else ""}">' in lane


def test_depth_and_thermal_cameras_with_names_of_their_own_have_the_colours_of_their_modality() -> None:
    previews, plain = SensorPreviews(), SensorPreviews()
    counts = np.linspace(500, 4000, 60 * 80).astype("<u2")
    for modality, camera, offset in ((DEPTH, "floor", 0), (THERMAL, "sky", 28_000)):
        frame = Frame(np.frombuffer((counts + offset).astype("<u2").tobytes(), np.uint8), "16UC1", 60, 80)
        previews.add(Sample(modality, START + SECOND, frame, sensor=camera))
        plain.add(Sample(modality, START + SECOND, frame))
    named = render_report(report(previews=previews, sensors={"floor": DEPTH, "sky": THERMAL}, events=[]))
    images = re.compile(r'src="(data:image/jpeg[^"]+)"')
    shown = images.findall(named)
    assert len(shown) == 2 and shown == images.findall(render_report(report(previews=plain, events=[])))
    assert "floor (depth)" in named and "°C" in named


def test_sensors_of_one_modality_have_shades_of_its_colour_that_differ() -> None:
    sensors = {"a": VISION, "b": VISION, "c": VISION, "d": VISION, "e": VISION, "left": IMU, "nose": "smell"}
    names = colour_names(sensors, list(sensors))
    assert names["a"] == names["e"] == (VISION, 0), "after the last shade they begin again"
    assert names["left"] == (IMU, 0) and names["nose"] == ("other0", 0)
    for scheme in (0, 1):
        for name in (VISION, DEPTH, THERMAL, "audio", IMU, "other0", "other1", "other2"):
            codes = [colour_code(name, shade, scheme) for shade in range(SHADE_COUNT)]
            parts = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in codes], float)
            assert np.abs(np.diff(parts, axis=0)).max(axis=1).min() > 12, (name, scheme)


def test_a_long_name_of_a_sensor_is_shown_whole() -> None:
    name = "arm_camera_of_the_left_gripper_wrist"
    text = render_report(report(modalities={name: figures()}, sensors={name: VISION}))
    assert f'<th scope="row">{name}</th><td>vision</td>' in text


def test_a_rerun_file_has_the_data_of_each_sensor(tmp_path: Path) -> None:
    from sensebind.report.rerun_file import RerunFile

    pytest.importorskip("rerun")
    file = RerunFile(tmp_path / "x.rrd", "x")
    counts = np.full(60 * 80, 2000, "<u2")
    embeddings = []
    for number in range(1, 20):
        stamp = START + number * SECOND // 4
        for camera in ("floor", "ceiling"):
            frame = Frame(np.frombuffer(counts.tobytes(), np.uint8), "16UC1", 60, 80)
            file.add(Sample(DEPTH, stamp, frame, sensor=camera))
        for imu in ("arm", "base"):
            file.add(Sample(IMU, stamp, Reading(np.arange(6.0)), sensor=imu))
            vector = l2_normalize(np.random.default_rng(number).normal(0, 1, 4))
            embeddings.append(Embedding(IMU, stamp - SECOND, stamp, "toy@0", 1.0, vector, sensor=imu))
    compared = similarities(embeddings, {"cat": np.eye(4, dtype=np.float32)[:1]})
    file.finish(embeddings, compared, intervals_from_events(event_of({"arm": 0.9, "base": 0.1}, IMU)))
    data = (tmp_path / "x.rrd").read_bytes()
    readings = [f"{kind}/{imu}" for kind in ("sensors", "embeddings", "similarity") for imu in ("arm", "base")]
    for path in ("sensors/floor/metres", "sensors/ceiling/image", "sensors/arm/acceleration", *readings):
        assert path.encode() in data, path
