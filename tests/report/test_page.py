"""The report: one file that needs no other file, for any recording and any strings in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.report_examples import START, Page, event, figures, frame, make_similarity, motion, recorded, report, sound
from sensebind.fusion.core.events import EventKind
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Reading,
    Sample,
)
from sensebind.report import (
    SensorPreviews,
    Similarity,
    render_report,
    write_report,
    write_summary,
)
from sensebind.report.panels.charts import Axis, downsample, format_time

LIMIT = 5_000_000  # bytes of a page
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "</style><b>",
    "a\x00b\u202ec\ud800d\u2028",
    "{}; url(https://example.org/x)",
    "x" * 5000,
    "",
]


def test_the_page_loads_no_other_resource() -> None:
    text = render_report(report())
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "//" not in re.sub(r"base64,[^\"')]*|//[^\n]*\n", "", text)
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "base", "form")
    assert all(url.startswith("data:") for url in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_the_security_policy_allows_only_the_script_of_the_page() -> None:
    text = render_report(report())
    policy = next(a["content"] for t, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_the_page_shows_events_truth_and_statistics() -> None:
    page = Page(render_report(report()))
    for words in ("Patrol", "toy@0", "Apache-2.0", "cat", "Novelty", "Disagreement", "Truth detected", "1 of 2", "12.5",
                  "not detected", "Played once.", "coverage: 1 window", "late: 3 samples", "ongoing"):  # fmt: skip
        assert words in page.text, words
    labels = [a["aria-label"] for _, a in page.tags if "aria-label" in a]
    assert any(label.startswith("cat: 2 s to 5 s, highest score 0.90; vision 0.90") for label in labels)
    for modality in (VISION, DEPTH, THERMAL):
        assert any(label.startswith(f"{modality}: ") and "image" in label for label in labels)
    assert any("spectrogram" in label for label in labels) and any("acceleration" in label for label in labels)


def test_every_cursor_output_has_a_series_of_values() -> None:
    text = render_report(report())
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["duration"] == 10_000
    outputs = [a for tag, a in Page(text).tags if tag == "output"]
    assert len(outputs) == 3 * 2 + 1 + 6  # similarities, level, motion
    for attributes in outputs:
        series = data["series"][int(attributes["data-s"])]
        row = series["v"][int(attributes["data-r"])]
        assert len(row) == len(series["t"]) == len(series["e"]) > 0
        assert series["t"] == sorted(series["t"])


def test_a_report_of_an_offline_replay_has_no_latencies() -> None:
    live, offline = (
        render_report(report(modalities={VISION: {**figures(), **own}})) for own in ({}, {"latency_ms": None})
    )
    assert "latency p99" in live and "Latency p99" in live and "<h2>Load and latency</h2>" in live
    assert "atency p99" not in offline and "<h2>Load</h2>" in offline and "An offline replay has no latency" in offline


@pytest.mark.parametrize("bad", HOSTILE)
def test_strings_from_outside_are_escaped(bad: str) -> None:
    data = report(
        title=bad,
        recording=bad,
        space=bad,
        licence=bad,
        modalities={
            VISION: figures(),
            bad: {**figures(), "dropped": {bad: 3}},
            "x": {"windows": bad, "latency_ms": bad},
        },
        similarities={VISION: make_similarity((bad, "cat")), bad: make_similarity((bad,))},
        events=[*event(bad, 1, 3), *event(bad, 4, None, EventKind.NOVELTY)],
        truth=[(1.0, 2.0, bad)],
        notes=[bad],
    )
    data.previews.add(Sample(bad or "other", START + SECOND, Reading(np.arange(3.0))))
    data.previews.add(Sample(bad or "more", START + SECOND, frame(VISION, 1).data))
    text = render_report(data)
    page = Page(text)
    assert text.encode("utf-8")
    assert sum(tag == "script" for tag, _ in page.tags) == 2 and sum(tag == "style" for tag, _ in page.tags) == 1
    assert all(a["src"].startswith("data:image/") for tag, a in page.tags if tag == "img")
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert not [a for _, a in page.tags if "example" in a.get("style", "") + a.get("href", "") + a.get("class", "")]
    assert not set("\x00\u202e\u2028") & set(text)
    assert len(text) < LIMIT


@pytest.mark.parametrize(
    "changes",
    [
        {"events": ()},
        {"similarities": {}},
        {"previews": SensorPreviews(), "truth": None},
        {
            "previews": SensorPreviews(),
            "truth": [],
            "events": (),
            "similarities": {},
            "modalities": {},
            "realtime_factor": None,
        },
        {"modalities": {IMU: figures()}, "similarities": {}, "previews": recorded(3, (IMU,)), "events": ()},
        {
            "modalities": {AUDIO: figures(0)},
            "similarities": {AUDIO: make_similarity(("dog",), 1.1)},
            "previews": recorded(1, (AUDIO,)),
        },
        {"start": 0, "end": 0, "previews": SensorPreviews(), "events": (), "similarities": {}},
        {"end": START},
        {"end": START + 3 * 3600 * SECOND},
        {"end": START + 10**18},
        {"realtime_factor": float("inf"), "modalities": {VISION: {"coverage_mean": float("nan")}}},
        {"similarities": {VISION: Similarity(np.zeros(0, np.int64), ("cat",), np.zeros((0, 1), np.float32))}},
        {"similarities": {VISION: Similarity(np.array([START + SECOND]), ("cat",), np.array([[np.nan]], np.float32))}},
    ],
)
def test_a_report_with_missing_data_is_written(changes: dict, tmp_path: Path) -> None:
    data = report(**changes)
    write_report(tmp_path / "report.html", data)
    write_summary(tmp_path / "summary.json", data)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    Page(text)
    assert "nan" not in re.sub(r"base64,[^\"')]*", "", text).lower() and "Infinity" not in text
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)


def test_the_page_does_not_depend_on_the_order_of_arrival() -> None:
    readings = [motion(i / 200, np.sin(i / 70)) for i in range(4000)]
    ordered, shuffled = SensorPreviews(), SensorPreviews()
    for sample in readings:
        ordered.add(sample)
    for i in np.random.default_rng(0).permutation(len(readings)):
        shuffled.add(readings[i])
    assert (
        render_report(report(previews=ordered))
        == render_report(report(previews=shuffled))
        == render_report(report(previews=ordered))
    )
    events = report().events
    assert render_report(report(events=events)) == render_report(report(events=[*events, *events[:1]]))


def test_the_page_of_a_dense_hour_is_below_the_size_limit() -> None:
    seconds = 3600
    labels = [f"label {i}" for i in range(60)]
    previews = SensorPreviews()
    for i in range(500):
        for modality in (VISION, DEPTH, THERMAL, "rear camera"):
            sample = frame(VISION if modality == "rear camera" else modality, i * 7.2, i, noise=True)
            previews.add(Sample(modality, sample.stamp, sample.data))
        previews.add(sound(i * 7.2, 300 + i))
        previews.add(motion(i * 7.2, np.sin(i)))
    generator = np.random.default_rng(0)
    ticks = START + np.arange(1, 2 * seconds) * (SECOND // 2)
    noise = generator.normal(0.2, 0.1, (len(ticks), len(labels))).astype(np.float32)
    text = render_report(
        report(
            end=START + seconds * SECOND,
            previews=previews,
            similarities={
                m: Similarity(ticks, tuple(labels), noise) for m in ("fused", *(VISION, DEPTH, THERMAL, AUDIO, IMU))
            },
            events=[e for i in range(8000) for e in event(labels[i % 60], i * 0.45, i * 0.45 + 2.4)],
            truth=[(i * 7.0, i * 7.0 + 3, labels[i % 60]) for i in range(500)],
        )
    )
    Page(text)
    assert len(text.encode()) < LIMIT


def test_downsampling_keeps_the_peaks() -> None:
    similarity = make_similarity(("cat",), 3600)
    similarity.scores[777] = 0.9
    axis = Axis(START, START + 3600 * SECOND)
    few = downsample(similarity, axis, 100)
    assert len(few.starts) <= 100 and few.scores.max() == np.float32(0.9)
    peak = int(few.scores.argmax())
    assert few.starts[peak] < similarity.ticks[777] <= few.ends[peak]
    complete = downsample(similarity, axis, 10_000)
    assert len(complete.starts) == len(similarity.ticks)
    assert (complete.ends - complete.starts == SECOND // 2).all()


def test_data_of_sensors_with_another_clock_are_shown() -> None:
    data = report(start=10 * SECOND, end=20 * SECOND)
    start, end = data.time_range()
    assert START <= start < end <= START + 10 * SECOND
    assert "outside the recording" in Page(render_report(data)).text


@pytest.mark.parametrize(
    ("seconds", "duration", "words"),
    [(0, 10, "0 s"), (0.5, 10, "0.5 s"), (65, 300, "1:05"), (3725, 9000, "1:02:05")],
)
def test_times_are_written_in_hours_minutes_and_seconds(seconds: float, duration: float, words: str) -> None:
    assert format_time(seconds, duration) == words


@pytest.mark.parametrize("seconds", [0.001, 0.7, 10, 62, 299, 4000, 90_000, 10**9])
def test_the_axis_has_at_most_13_ticks(seconds: float) -> None:
    axis = Axis(START, START + round(seconds * SECOND))
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 13 and ticks[0] == 0 and ticks[-1] <= axis.seconds * (1 + 1e-9)


def test_missed_truth_and_false_alarms_are_marked() -> None:
    data = report(
        events=[
            *event("cat", 2, 5),
            *event("cat", 8.5, 10),
            *event("dog", 1, 2),
            *event("unusual", 3, 4, EventKind.NOVELTY),
        ],
        truth=[(2.0, 5.0, "cat"), (6.0, 7.0, "cat"), (3.0, 4.0, "unseen")],
    )
    page = Page(render_report(data))
    marks = {a["aria-label"]: a.get("class", "") for tag, a in page.tags if "aria-label" in a and tag == "div"}
    assert marks["truth, 2 s to 5 s"] == "" and marks["truth, 6 s to 7 s, not detected"] == "missed"
    assert marks["truth, 3 s to 4 s, not detected"] == "missed" and "unseen" in page.text
    false = [words for words, kind in marks.items() if kind == "false"]
    assert sorted(words.split(":")[0] for words in false) == ["cat", "dog"]  # a truth does not list all that is unusual
    assert all("false alarm" in words for words in false)
    assert "Event F1 0.33" in page.text  # one hit, two false alarms, two misses
    assert "missed" not in {a.get("class") for _, a in Page(render_report(report(truth=None))).tags}


def test_true_faults_and_detected_faults_share_a_lane() -> None:
    kind = EventKind["FAULT"]
    label = "fault:thermal:frozen"
    truth = [(1.0, 5.0, label), (7.0, 8.0, "fault:imu:dark")]
    page = Page(render_report(report(events=[*event(label, 2, 5, kind), *event("cat", 2, 3)], truth=truth)))
    assert page.text.count(label) == 2  # one lane, one row of the table
    assert "Faults" in page.text and "fault:imu:dark" in page.text


def test_an_image_at_an_onset_is_of_the_modality_that_supports_the_event() -> None:
    previews = SensorPreviews()
    for i in range(40):
        previews.add(frame(VISION, i / 4, i))
        previews.add(frame(THERMAL, i / 4, i))
        if i == 14:
            previews.keep_images(START + 3 * SECOND)  # 0.5 s after the onset, as in a replay
    kept = previews.event_images[START + 3 * SECOND]
    assert set(kept) == {VISION, THERMAL}
    assert all(abs(image.stamp - START - 3 * SECOND) <= SECOND // 4 for image in kept.values())
    page = Page(render_report(report(previews=previews, events=[*event("cat", 3, 5), *event("dog", 8.25, 9)])))
    seen = [a for tag, a in page.tags if tag == "img" and a.get("alt")]
    assert [a["alt"] for a in seen] == ["cat at 3 s, vision", "dog at 8.25 s, vision"]
    assert all(a["src"].startswith("data:image/jpeg") and a["class"] == "s-vision" for a in seen)
    assert not previews.images_near(START + 30 * SECOND)


def test_noise_of_a_still_sensor_is_not_drawn_at_full_height() -> None:
    still, noisy = SensorPreviews(), SensorPreviews()
    for i in range(200):
        still.add(motion(i / 20))
        noisy.add(Sample(IMU, START + i * SECOND // 20, Reading(np.array([0, 0, 9.81, 0, 0, 1e-3 * (i % 2)]))))
    assert "acceleration, m/s²; does not change" in Page(render_report(report(previews=still))).text
    text = Page(render_report(report(previews=noisy))).text
    assert "angular velocity, rad/s; each row is 0.1 rad/s high" in text and "is 0 " not in text
