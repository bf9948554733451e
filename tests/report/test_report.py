"""The report: one file that needs no other file, for any recording and any strings in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.events import Event, EventKind, EventPhase, Evidence, intervals_from_events
from sensebind.fusion.core.samples import (
    AUDIO,
    DEPTH,
    IMU,
    SECOND,
    THERMAL,
    VISION,
    Calibration,
    Frame,
    Reading,
    Sample,
    Sound,
)
from sensebind.fusion.stream.statistics import ModalityStatistics
from sensebind.report import (
    ReportData,
    SensorPreviews,
    Similarity,
    render_report,
    similarities,
    summary,
    write_report,
    write_summary,
)
from sensebind.report.panels.charts import Axis, downsample, format_time, image_strip, spectrogram
from sensebind.report.sensor_previews import (
    MAX_IMAGES,
    MAX_SOUND_BINS,
    MAX_TRACE_BINS,
    MEL_BANDS,
    PREVIEW_SIDE,
    band_edges,
)

START = 1_790_000_000 * SECOND
LIMIT = 5_000_000  # bytes of a page
VOID = {"meta", "link", "img", "br"}
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


class Page(HTMLParser):
    """A parsed page: its tags, attributes and text. Fails if a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def frame(modality: str, second: float, seed: int = 0, noise: bool = False) -> Sample:
    generator = np.random.default_rng(seed)
    if modality == VISION:
        pixels = generator.integers(0, 255 if noise else 40, (120, 160, 3), np.uint8)
        data = Frame(pixels.ravel(), "rgb8", 120, 160)
    else:
        counts = generator.integers(500, 4000, (60, 80)).astype("<u2") + (29_000 if modality == THERMAL else 0)
        data = Frame(np.frombuffer(counts.astype("<u2").tobytes(), np.uint8), "16UC1", 60, 80)
    return Sample(modality, START + round(second * SECOND), data)


def sound(second: float, hertz: float = 1000.0, length: float = 0.1, rate: float = 16_000.0) -> Sample:
    instants = second + np.arange(round(length * rate)) / rate
    wave = np.sin(2 * np.pi * hertz * instants).astype(np.float32)
    return Sample(AUDIO, START + round(second * SECOND), Sound(wave[:, None], rate))


def motion(second: float, value: float = 0.0) -> Sample:
    return Sample(IMU, START + round(second * SECOND), Reading(np.array([value, 0, 9.81, 0, 0, value])))


def recorded(seconds: float = 10.0, modalities=(VISION, DEPTH, THERMAL, AUDIO, IMU)) -> SensorPreviews:
    media = SensorPreviews()
    for i in range(round(seconds * 10)):
        for modality in modalities:
            if modality == AUDIO:
                media.add(sound(i / 10))
            elif modality == IMU:
                media.add(motion(i / 10, np.sin(i / 5)))
            else:
                media.add(frame(modality, i / 10, i), Calibration())
    return media


def event(
    label: str, onset: float, offset: float | None, kind: EventKind = EventKind.PROMPT, score: float = 0.9
) -> list[Event]:
    """ONSET, an UPDATE each second, and OFFSET if `offset` is given. Times in s after `START`."""
    begin = START + round(onset * SECOND)
    identity = f"{kind.name.lower()}/{label}/{begin}"
    reports = []
    tick = begin + SECOND
    phase = EventPhase.ONSET
    until = START + round((offset if offset is not None else onset + 3) * SECOND)
    while tick < until:
        evidence = (
            Evidence(VISION, score, True, tick - SECOND, tick),
            Evidence(AUDIO, 0.1, False, tick - SECOND, tick),
        )
        reports.append(Event(identity, kind, label, phase, begin, 0, tick, score, "toy@0", evidence))
        tick, phase = tick + SECOND, EventPhase.UPDATE
    if offset is not None:
        reports.append(Event(identity, kind, label, EventPhase.OFFSET, begin, until, until + SECOND, 0.1, "toy@0"))
    return reports


def make_similarity(labels, seconds: float = 10.0, hop: float = 0.5) -> Similarity:
    ticks = START + (np.arange(1, int(seconds / hop)) * hop * SECOND).astype(np.int64)
    scores = 0.2 + 0.1 * np.sin(np.arange(len(ticks))[:, None] / 4 + np.arange(len(labels)))
    return Similarity(ticks, tuple(labels), scores.astype(np.float32))


def figures(windows: int = 20) -> dict:
    counts = Counter(windows=windows, embedded=windows - 2, coverage=1, overload=1, late=3)
    return ModalityStatistics(counts, [10.0] * 99 + [40.0], 0.9 * windows).summary()


def report(**changes) -> ReportData:
    labels = ("cat", "fire")
    given = {
        "title": "Patrol",
        "recording": "patrol",
        "space": "toy@0",
        "licence": "Apache-2.0",
        "start": START,
        "end": START + 10 * SECOND,
        "modalities": {VISION: figures(), AUDIO: figures()},
        "similarities": {m: make_similarity(labels) for m in ("fused", VISION, AUDIO)},
        "events": [
            *event("cat", 2, 5),
            *event("unusual", 4, 7, EventKind.NOVELTY),
            *event("audio+vision", 7, None, EventKind.DISAGREEMENT),
        ],
        "media": recorded(),
        "truth": [(2.0, 5.5, "cat"), (8.0, 9.0, "fire")],
        "realtime_factor": 12.5,
        "notes": ["Played once."],
    }
    return ReportData(**{**given, **changes})


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
    assert any(label.startswith("cat: 2 s to 5 s, peak 0.90; vision 0.90") for label in labels)
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
        {"media": SensorPreviews(), "truth": None},
        {
            "media": SensorPreviews(),
            "truth": [],
            "events": (),
            "similarities": {},
            "modalities": {},
            "realtime_factor": None,
        },
        {"modalities": {IMU: figures()}, "similarities": {}, "media": recorded(3, (IMU,)), "events": ()},
        {
            "modalities": {AUDIO: figures(0)},
            "similarities": {AUDIO: make_similarity(("dog",), 1.1)},
            "media": recorded(1, (AUDIO,)),
        },
        {"start": 0, "end": 0, "media": SensorPreviews(), "events": (), "similarities": {}},
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
        render_report(report(media=ordered))
        == render_report(report(media=shuffled))
        == render_report(report(media=ordered))
    )
    events = report().events
    assert render_report(report(events=events)) == render_report(report(events=[*events, *events[:1]]))


def test_the_page_of_a_dense_hour_is_below_the_size_limit() -> None:
    seconds = 3600
    labels = [f"label {i}" for i in range(60)]
    media = SensorPreviews()
    for i in range(500):
        for modality in (VISION, DEPTH, THERMAL, "rear camera"):
            sample = frame(VISION if modality == "rear camera" else modality, i * 7.2, i, noise=True)
            media.add(Sample(modality, sample.stamp, sample.data))
        media.add(sound(i * 7.2, 300 + i))
        media.add(motion(i * 7.2, np.sin(i)))
    generator = np.random.default_rng(0)
    ticks = START + np.arange(1, 2 * seconds) * (SECOND // 2)
    noise = generator.normal(0.2, 0.1, (len(ticks), len(labels))).astype(np.float32)
    text = render_report(
        report(
            end=START + seconds * SECOND,
            media=media,
            similarities={
                m: Similarity(ticks, tuple(labels), noise) for m in ("fused", *(VISION, DEPTH, THERMAL, AUDIO, IMU))
            },
            events=[e for i in range(8000) for e in event(labels[i % 60], i * 0.45, i * 0.45 + 2.4)],
            truth=[(i * 7.0, i * 7.0 + 3, labels[i % 60]) for i in range(500)],
        )
    )
    Page(text)
    assert len(text.encode()) < LIMIT


def test_previews_are_bounded_and_cover_the_whole_recording() -> None:
    media = SensorPreviews()
    count = 100_000
    for i in range(count):
        media.add(motion(i / 200))
        if i % 10 == 0:
            media.add(frame(VISION, i / 200, 0))
            media.add(sound(i / 200, length=0.05, rate=2000.0))
    axis = Axis(START, START + count * SECOND // 200)
    stamps = [start for start, _ in image_strip(VISION, media.images[VISION], axis).times]
    assert MAX_IMAGES / 2 <= len(stamps) <= MAX_IMAGES
    steps = np.diff(stamps) / SECOND
    assert (
        steps.max() <= 2.1 * steps.min() and stamps[0] == START and stamps[-1] > axis.end - 2.1 * steps.max() * SECOND
    )
    assert MAX_TRACE_BINS / 2 <= len(media.traces[IMU].values) <= MAX_TRACE_BINS
    assert MAX_SOUND_BINS / 2 <= len(media.spectra[AUDIO].bins.values) <= MAX_SOUND_BINS
    assert len(media.spectra[AUDIO].remainder) < 2000


def test_a_wrong_stamp_costs_one_column() -> None:
    media = recorded(10, (IMU,))
    width = media.traces[IMU].width
    media.add(Sample(IMU, 1, Reading(np.ones(6))))
    media.add(Sample(IMU, START * 3, Reading(np.ones(6))))
    media.add(Sample(IMU, 0, Reading(np.ones(6))))
    media.add(Sample(IMU, START, Reading(np.full(6, np.nan))))
    assert media.traces[IMU].width == width and len(media.traces[IMU].values) == 100 + 2


def test_data_that_cannot_be_decoded_are_left_out() -> None:
    media = SensorPreviews()
    for encoding in ("no such encoding", "rgb8"):
        media.add(Sample(VISION, START, Frame(np.zeros(10, np.uint8), encoding, 4, 4)))
    media.add(Sample(AUDIO, START, Sound(np.zeros((0, 1), np.float32), 16_000.0)))
    media.add(Sample(AUDIO, START, Sound(np.ones((10, 1), np.float32), 0.0)))
    assert not media.images[VISION].values and not media.spectra
    media.add(frame(VISION, 0.0))
    assert len(media.images[VISION].values) == 1


def test_compressed_images_are_shown() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[..., 2] = 200
    data = cv2.imencode(".jpg", image)[1].ravel()
    media = SensorPreviews()
    media.add(Sample(VISION, START, Frame(data, "jpeg", compressed=True)))
    kept = next(iter(media.images[VISION].values.values())).values
    assert max(kept.shape) == PREVIEW_SIDE and kept.reshape(-1, 3).mean(axis=0) == pytest.approx([200, 0, 0], abs=3)


def test_previews_do_not_share_memory_with_a_message() -> None:
    media = SensorPreviews()
    sample = frame(VISION, 0.0, 1)
    assert isinstance(sample.data, Frame)
    media.add(sample)
    kept = next(iter(media.images[VISION].values.values())).values.copy()
    sample.data.data[:] = 255
    np.testing.assert_array_equal(next(iter(media.images[VISION].values.values())).values, kept)


@pytest.mark.parametrize("length", [0.005, 0.1, 7.0])
@pytest.mark.parametrize("rate", [8000.0, 44_100.0])
def test_the_spectrum_of_a_tone_does_not_depend_on_the_length_of_blocks(length: float, rate: float) -> None:
    media = SensorPreviews()
    for i in range(round(7 / length)):
        media.add(sound(i * length, 1000.0, length, rate))
    spectra = media.spectra[AUDIO]
    _, values = spectra.bins.between(START, START + 7 * SECOND)
    total = np.sum(values, axis=0)
    band = int(np.argmax(total[2:]))
    edges = band_edges(spectra.max_frequency)
    assert edges[max(band - 1, 0)] <= 1000 <= edges[min(band + 2, MEL_BANDS)]
    assert total[1] / total[0] == pytest.approx(0.5, rel=0.02)
    assert total[2:].sum() / total[0] == pytest.approx(0.5, rel=0.05)
    starts, _ = spectra.bins.between(START, START + 7 * SECOND)
    assert (np.diff(starts) == spectra.bins.width).all()  # no empty columns
    shown = spectrogram(spectra, Axis(START, START + 7 * SECOND))
    assert shown is not None and shown.level.mean() == pytest.approx(-3.01, abs=0.1)


def test_depth_and_thermal_images_have_one_colour_scale_each_in_their_units() -> None:
    media = SensorPreviews()
    for i, (metres, kelvin) in enumerate([(1.0, 290.0), (5.0, 310.0)]):
        for modality, count in ((DEPTH, metres * 1000), (THERMAL, kelvin * 100)):
            rows = np.full((4, 4), count).astype("<u2")
            data = Frame(np.frombuffer(rows.tobytes(), np.uint8), "16UC1", 4, 4)
            media.add(Sample(modality, START + i * SECOND, data))
    axis = Axis(START, START + 10 * SECOND)
    depth, thermal = (image_strip(m, media.images[m], axis) for m in (DEPTH, THERMAL))
    assert depth.scale[:2] == pytest.approx((1.0, 5.0), abs=0.01) and depth.scale[2] == "m"
    assert thermal.scale[:2] == pytest.approx((16.85, 36.85), abs=0.02) and thermal.scale[2] == "°C"
    near, far = (image.mean() for image in depth.images)
    cold, hot = (image.mean() for image in thermal.images)
    assert near > far and hot > cold


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
    assert vision["dropped"] == {"coverage": 1, "overload": 1} and vision["latency_ms"]["p50"] == 10.0
    cat, _, open_one = written["events"]
    assert (cat["kind"], cat["label"], cat["onset"], cat["offset"]) == ("PROMPT", "cat", 2.0, 5.0)
    assert cat["onset_ns"] == START + 2 * SECOND and cat["score_by_modality"] == {VISION: 0.9} and cat["score"] == 0.9
    assert open_one["offset"] is None and open_one["offset_ns"] is None


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


def test_onsets_show_data_of_the_reporting_modality() -> None:
    media = SensorPreviews()
    for i in range(40):
        media.add(frame(VISION, i / 4, i))
        media.add(frame(THERMAL, i / 4, i))
        if i == 14:
            media.keep_images(START + 3 * SECOND)  # 0.5 s after the onset, as in a replay
    kept = media.event_images[START + 3 * SECOND]
    assert set(kept) == {VISION, THERMAL}
    assert all(abs(image.stamp - START - 3 * SECOND) <= SECOND // 4 for image in kept.values())
    page = Page(render_report(report(media=media, events=[*event("cat", 3, 5), *event("dog", 8.25, 9)])))
    seen = [a for tag, a in page.tags if tag == "img" and a.get("alt")]
    assert [a["alt"] for a in seen] == ["cat at 3 s, vision", "dog at 8.25 s, vision"]
    assert all(a["src"].startswith("data:image/jpeg") and a["class"] == "s-vision" for a in seen)
    assert not media.images_near(START + 30 * SECOND)


def test_noise_of_a_still_sensor_is_not_drawn_at_full_height() -> None:
    still, noisy = SensorPreviews(), SensorPreviews()
    for i in range(200):
        still.add(motion(i / 20))
        noisy.add(Sample(IMU, START + i * SECOND // 20, Reading(np.array([0, 0, 9.81, 0, 0, 1e-3 * (i % 2)]))))
    assert "acceleration, m/s²; does not change" in Page(render_report(report(media=still))).text
    text = Page(render_report(report(media=noisy))).text
    assert "angular velocity, rad/s; each row is 0.1 rad/s high" in text and "is 0 " not in text


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
        writer.annotate()
    assert warned == [f"{m}: topic '{t}': no such encoding" for m, t in ((VISION, "/eye"), (DEPTH, "/depth"))]
    assert dict(writer.problems) == {warned[0]: 3, warned[1]: 1}
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
