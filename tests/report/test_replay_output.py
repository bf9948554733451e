"""What a replay writes beside the page: the bag, the summary, the file for the Rerun viewer."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.report_examples import START, event, frame, motion, report, sound
from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.events import Event, intervals_from_events
from sensebind.fusion.core.samples import (
    DEPTH,
    SECOND,
    THERMAL,
    VISION,
)
from sensebind.report import (
    similarities,
    summary,
    write_summary,
)


def test_similarity_is_that_of_the_closest_phrase() -> None:
    prompts = {
        "cat": np.eye(4, dtype=np.float32)[:2],
        "dog": np.eye(4, dtype=np.float32)[2:3],
        "none": np.zeros((0, 4)),
    }
    vectors = l2_normalize([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 1]])
    stream = [Embedding(VISION, 0, (i + 1) * SECOND, "toy@0", 1.0, v) for i, v in enumerate(vectors)]
    found = similarities(stream[::-1], prompts)[VISION]
    assert found.labels == ("cat", "dog") and found.ticks.tolist() == [SECOND, 2 * SECOND, 3 * SECOND]
    np.testing.assert_allclose(found.scores, [[1, 0], [0.8, 0], [0, np.sqrt(0.5)]], atol=1e-6)
    assert found.scores.dtype == np.float32 and found.ticks.dtype == np.int64
    assert similarities(stream, {}) == {} and similarities([], prompts) == {}
    with pytest.raises(ValueError, match="same space"):
        similarities(stream, {"cat": np.ones((1, 3), np.float32)})


def test_intervals_are_built_from_reports() -> None:
    cat, fire = event("cat", 2, 5), event("fire", 1, None)
    found = intervals_from_events([*cat, *fire, *cat])
    assert [(o.label, o.offset is None) for o in found] == [("fire", True), ("cat", False)]
    assert found[1].score_by_modality == {VISION: 0.9} and found[1].peak_score == 0.9
    again = [
        Event(e.id, e.kind, e.label, e.phase, e.onset, e.offset, e.tick + 1, e.score, e.space, e.evidence) for e in cat
    ]
    assert len(intervals_from_events([*cat, *again])) == 2  # the recording was played twice
    assert len(intervals_from_events(cat[-1:])) == 1  # only the OFFSET arrived


def test_the_summary_holds_space_statistics_and_events(tmp_path: Path) -> None:
    data = report(realtime_factor=float("nan"))
    write_summary(tmp_path / "summary.json", data)
    written = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert written == json.loads(json.dumps(summary(data)))
    assert written["space"] == "toy@0" and written["duration_s"] == 10.0 and written["realtime_factor"] is None
    vision = written["modalities"][VISION]
    assert vision["windows"] == 20 and vision["embedded"] == 18 and vision["coverage_mean"] == 0.9
    assert vision["latency_ms"]["p50"] == 10.0 and "dropped" not in vision
    lost = written["losses"]["sensors"][VISION]
    assert lost["windows_lost"] == {"coverage": 1, "overload": 1} and lost["samples_lost"] == {"late": 3}
    cat, _, open_one = written["events"]
    assert (cat["kind"], cat["label"], cat["onset"], cat["offset"]) == ("PROMPT", "cat", 2.0, 5.0)
    assert cat["onset_ns"] == START + 2 * SECOND and cat["score_by_modality"] == {VISION: 0.9} and cat["score"] == 0.9
    assert open_one["offset"] is None and open_one["offset_ns"] is None


def test_annotated_images_are_written_to_the_bag(tmp_path: Path) -> None:
    from sensebind.fusion.io.recordings import BagWriter, Recording
    from sensebind.report.annotated_images import AnnotatedImages

    with BagWriter(tmp_path / "bag") as bag:
        annotator = AnnotatedImages(bag.message_factory)
        for i in range(20):
            for modality in (VISION, DEPTH, THERMAL):
                if (written := annotator.add(frame(modality, i / 4, i))) is not None:
                    bag.write(*written)
        assert annotator.add(sound(1.0)) is None and annotator.add(motion(1.0)) is None
        for written in annotator.annotations(intervals_from_events([*event("cat", 2, 4), *event("fire", 3, None)])):
            bag.write(*written)
    with Recording(tmp_path / "bag") as bag:
        types = {topic.name: (topic.type, topic.message_count) for topic in bag.topics}
        assert types["/annotated/thermal/image"] == ("sensor_msgs/msg/CompressedImage", 10)
        assert types["/annotated/vision/annotations"] == ("foxglove_msgs/msg/ImageAnnotations", 10)
        texts_at = {
            stamp: [t.text for t in m.texts] for _, _, stamp, m in bag.messages(["/annotated/vision/annotations"])
        }
        images = [
            (stamp, cv2.imdecode(np.asarray(m.data), cv2.IMREAD_COLOR))
            for _, _, stamp, m in bag.messages(["/annotated/vision/image"])
        ]
    assert [stamp for stamp, _ in images] == sorted(texts_at)
    assert all(image.shape == (120, 160, 3) for _, image in images)
    at = {round((stamp - START) / SECOND, 1): texts for stamp, texts in texts_at.items()}
    assert at[1.5] == [] and at[2.5] == ["cat (vision 0.90)"] and at[3.5] == ["cat (vision 0.90)", "fire (vision 0.90)"]
    assert at[4.5] == ["fire (vision 0.90)"]


def test_a_replay_writer_writes_outputs_and_warns_of_each_problem_once(tmp_path: Path) -> None:
    from sensebind.fusion.inference.engine import Failure
    from sensebind.fusion.io.recordings import BagWriter, Recording
    from sensebind.report.replay_output import ReplayWriter

    warned: list[str] = []
    vector = l2_normalize(np.ones((1, 4), np.float32))[0]
    with BagWriter(tmp_path / "bag") as bag:
        writer = ReplayWriter(bag, {VISION: "/eye", DEPTH: "/depth"}, warn=warned.append)
        writer.add_sample(frame(VISION, 1.0))
        writer.add_output(Embedding(VISION, START, START + SECOND, "toy@0", 1.0, vector))
        for output in (*event("cat", 1, 4), *[Failure(VISION, "encoding", "no such encoding")] * 3):
            writer.add_output(output)
        writer.add_output(Failure(DEPTH, "encoding", "no such encoding"))
        for size in (600, 577, 601):
            writer.add_output(Failure(DEPTH, "encoding", f"an image of {size} bytes is damaged"))
        writer.annotate()
    assert warned == [
        "vision: topic '/eye': no such encoding",
        "depth: topic '/depth': no such encoding",
        "depth: topic '/depth': an image of 600 bytes is damaged",
    ]
    assert dict(writer.problems) == {warned[0]: 3, warned[1]: 1, warned[2]: 3}
    assert [e.label for e in intervals_from_events(writer.events)] == ["cat"] and len(writer.embeddings) == 1
    with Recording(tmp_path / "bag") as recording:
        counts = {topic.name: topic.message_count for topic in recording.topics}
    assert counts == {
        "/embeddings/vision": 1, "/events": len(writer.events), "/annotated/vision/image": 1,
        "/annotated/vision/annotations": 1,
    }  # fmt: skip


def test_principal_components_are_the_axes_of_largest_variance() -> None:
    from sensebind.report.rerun_file import principal_components

    generator = np.random.default_rng(0)
    flat = generator.normal(0, 1, (200, 2)) * [3.0, 1.0]
    places = principal_components(flat @ np.linalg.qr(generator.normal(0, 1, (8, 8)))[0][:2] + 5.0)
    assert places.shape == (200, 2) and np.abs(places).max() == 1.0
    assert abs(np.corrcoef(places[:, 0], flat[:, 0])[0, 1]) > 0.99
    assert abs(np.corrcoef(places[:, 1], flat[:, 1])[0, 1]) > 0.99
    assert principal_components(np.ones((3, 4))).tolist() == [[0, 0]] * 3 and principal_components(
        np.ones((1, 1))
    ).shape == (1, 2)


def test_a_rerun_file_is_written_or_the_missing_package_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensebind.report import rerun_file

    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "rerun", None)
        with pytest.raises(rerun_file.RerunError, match=r"sensebind\[rerun\]"):
            rerun_file.RerunFile(tmp_path / "x.rrd", "x")
    pytest.importorskip("rerun")
    file = rerun_file.RerunFile(tmp_path / "x.rrd", "x")
    for i in range(20):
        for sample in (frame(VISION, i / 4), frame(THERMAL, i / 4), sound(i / 10), motion(i / 20)):
            file.add(sample)
    vectors = l2_normalize(np.random.default_rng(0).normal(0, 1, (10, 4)))
    stream = [Embedding(VISION, START, START + (i + 1) * SECOND, "toy@0", 1.0, v) for i, v in enumerate(vectors)]
    found = intervals_from_events([*event("cat", 2, 5), *event("a/b", 3, None)])
    truth = [(START + SECOND, START + 2 * SECOND, "cat")]
    file.finish(stream, similarities(stream, {"cat": np.eye(4, dtype=np.float32)[:1]}), found, truth)
    data = (tmp_path / "x.rrd").read_bytes()
    assert data[:3] == b"RRF" and len(data) > 10_000
    for path in (b"sensors/vision/image", b"sensors/audio/spectrogram", b"sensors/imu/acceleration",
                 b"embeddings/vision", b"similarity/vision", b"events/log", b"events/a_b", b"truth/cat"):  # fmt: skip
        assert path in data, path
