"""Metrics of events and faults, compared with reference values of sed_scores_eval."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from helpers.patrols import record_patrol
from sensebind import evaluation as S
from sensebind.evaluation.activity_baseline import (
    ANYTHING,
    SignalActivity,
    active_spans,
    best_label_per_modality,
    best_threshold,
    max_over_modalities,
)
from sensebind.evaluation.detection_runs import ALL, LATE, DetectionRun, RecordingRuns
from sensebind.evaluation.matching import active_segments, sum_counts
from sensebind.evaluation.metrics import (
    MODEL_FREE,
    ONE_LABEL,
    calibration_error,
    compute_metrics,
    metrics_table,
    score_run,
)
from sensebind.evaluation.plots import plot
from sensebind.fusion.core.samples import AUDIO, DEPTH, IMU, SECOND, THERMAL, VISION, Frame, Reading, Sample, Sound
from sensebind.fusion.io.ground_truth import read_faults

NO_SPANS = S.Spans.of(())


def synthetic_recordings(seed: int) -> tuple[list[S.Spans], list[S.ScoreTimeline]]:
    """Three recordings of a minute with events of three labels, and noisy scores."""
    rng = np.random.default_rng(seed)
    labels, steps, hop = ("a", "b", "c"), 120, 0.5
    truths, timelines = [], []
    for _ in range(3):
        rows = []
        for label in labels:
            t = float(rng.uniform(0, 30))
            while t < steps * hop - 4:
                length = round(float(rng.uniform(1, 4)), 3)
                rows.append((round(t, 3), round(t, 3) + length, label))
                t += length + float(rng.uniform(15, 40))
        edges = np.arange(steps + 1) * hop
        raw = rng.normal(0, 1, (steps, len(labels)))
        for k, label in enumerate(labels):
            for onset, offset, name in rows:
                if name == label:
                    raw[(edges[:-1] >= onset - 0.4) & (edges[:-1] < offset), k] += 2.5
        smooth = (raw + np.roll(raw, 1, axis=0) + np.roll(raw, -1, axis=0)) / 3
        truths.append(S.Spans.of(rows))
        timelines.append(S.ScoreTimeline(edges, labels, 1 / (1 + np.exp(-2 * (smooth - 1.2)))))
    return truths, timelines


def spans_above(timeline: S.ScoreTimeline, threshold: float) -> S.Spans:
    """Spans in which scores are above a threshold: a detector without an event lifecycle."""
    rows = []
    for k, label in enumerate(timeline.labels):
        change = np.diff(np.concatenate([[0], (timeline.scores[:, k] > threshold).astype(int), [0]]))
        for a, b in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
            rows.append((float(timeline.edges[a]), float(timeline.edges[b]), label))
    return S.Spans.of(rows)


# PSDS 1 and 2, event-based F1 (macro, micro) and segment-based F1 at threshold 0.5 of `synthetic_recordings(seed)`,
# computed with sed_scores_eval 0.0.4 (collar 1 s, offset 1 s or 50 %, segments of 1 s; DCASE's two scenarios).
REFERENCE_FIGURES = {
    0: ((0.642383, 0.839052), (0.721331, 0.7), 0.769231),
    1: ((0.629994, 0.973175), (0.630159, 0.622222), 0.836879),
    2: ((0.702452, 1.0), (0.68254, 0.68), 0.793651),
}


@pytest.mark.parametrize("seed", REFERENCE_FIGURES)
def test_metrics_equal_those_of_sed_scores_eval(seed: int) -> None:
    truths, timelines = synthetic_recordings(seed)
    seconds = [float(timeline.edges[-1]) for timeline in timelines]
    areas, (macro, micro), by_segment = REFERENCE_FIGURES[seed]
    for scenario, area in zip(S.PSDS_SCENARIOS.values(), areas, strict=True):
        assert S.psds(truths, timelines, sum(seconds), scenario) == pytest.approx(area, abs=1e-6)
    found = [spans_above(timeline, 0.5) for timeline in timelines]
    overall = score_run(truths, found, seconds, None, timelines)["overall"]
    assert overall["event"]["f1"] == pytest.approx(micro, abs=1e-4)
    assert overall["event"]["f1_macro"] == pytest.approx(macro, abs=1e-4)
    assert overall["segment"]["f1"] == pytest.approx(by_segment, abs=1e-4)
    assert (overall["psds1"], overall["psds2"]) == pytest.approx(areas, abs=1e-4)


def test_spans_are_sorted_and_chosen_by_label() -> None:
    spans = S.Spans.of([(7.7, 14.0, "cat"), (0.2, 6.5, "a person"), (0.2, 6.25, "b")])
    assert spans.rows() == sorted(spans.rows())
    assert spans.onsets.dtype == np.float64 and spans.with_labels("cat").labels == ("cat",) and len(NO_SPANS) == 0


@pytest.mark.parametrize(
    ("onset", "offset", "matches"),
    [
        (10.0, 20.0, True),
        (11.0, 20.0, True),  # the collar of 1 s
        (11.1, 20.0, False),
        (9.0, 25.0, True),  # half of the true duration
        (10.0, 25.1, False),
        (10.0, 15.0, True),
        (10.0, 14.9, False),
    ],
)
def test_the_tolerance_is_1_s_for_onsets_and_half_the_duration_for_offsets(
    onset: float, offset: float, matches: bool
) -> None:
    counts = S.match(S.Spans.of([(10.0, 20.0, "dog")]), S.Spans.of([(onset, offset, "dog")])).counts
    assert counts == (S.Counts(1, 0, 0) if matches else S.Counts(0, 1, 1))


def test_offsets_of_short_events_have_a_tolerance_of_1_s() -> None:
    assert S.match(S.Spans.of([(5.0, 5.2, "bump")]), S.Spans.of([(5.5, 6.2, "bump")])).counts.hits == 1


def test_matching_is_one_to_one_and_prefers_the_nearest_detections() -> None:
    truth = S.Spans.of([(1.0, 3.0, "dog"), (2.0, 4.0, "dog"), (8.0, 9.0, "cat")])
    detected = S.Spans.of([(1.1, 3.0, "dog"), (1.2, 3.5, "dog"), (1.9, 4.0, "dog"), (8.0, 9.0, "dog")])
    found = S.match(truth, detected)
    assert found.pairs == [(0, 0), (1, 2)] and found.missed == [2] and found.false == [1, 3]
    assert S.event_based_counts(truth, detected) == {"cat": S.Counts(0, 0, 1), "dog": S.Counts(2, 2, 0)}
    # The number of pairs is maximal, although other pairs are nearer.
    assert len(S.match(S.Spans.of([(1.0, 3.0, "a"), (1.9, 3.9, "a")]),
                       S.Spans.of([(1.6, 3.6, "a"), (2.8, 3.9, "a")])).pairs) == 2  # fmt: skip
    assert S.match(truth, detected, labels=False).counts == S.Counts(3, 1, 0)
    assert S.match(NO_SPANS, detected).counts == S.Counts(0, 4, 0)
    assert S.match(truth, NO_SPANS).counts == S.Counts(0, 0, 3)


def test_f1_is_none_without_truth_and_detections() -> None:
    assert S.Counts().f1 is None and S.Counts().precision is None and S.Counts(0, 1, 0).f1 == 0.0
    assert sum_counts([S.Counts(1, 0, 1), S.Counts(1, 2, 0)]) == S.Counts(2, 2, 1)


def test_a_segment_counts_if_it_overlaps_an_event() -> None:
    truth, detected = S.Spans.of([(0.5, 2.5, "a")]), S.Spans.of([(1.5, 4.0, "a"), (0.0, 1.0, "b")])
    assert active_segments(truth, 4.2).tolist() == [True, True, True, False, False]
    assert S.segment_based_counts(truth, detected, 4.2) == {"a": S.Counts(2, 1, 1), "b": S.Counts(0, 1, 0)}


def test_a_detection_near_an_event_of_its_label_is_not_a_false_alarm() -> None:
    truth = S.Spans.of([(10.0, 20.0, "dog")])
    detected = S.Spans.of([(14.0, 19.0, "dog"), (20.5, 22.0, "dog"), (30.0, 31.0, "dog"), (12.0, 13.0, "cat")])
    alarms = S.false_alarm_indices(truth, detected)
    assert [detected.rows()[i][2::-2] for i in alarms] == [("cat", 12.0), ("dog", 30.0)]
    assert S.false_alarm_indices(truth, NO_SPANS) == [] and S.false_alarm_indices(NO_SPANS, detected) == [0, 1, 2, 3]


def test_psds_needs_truth_and_ignores_labels_without_events() -> None:
    truths, timelines = synthetic_recordings(0)
    for scenario in S.PSDS_SCENARIOS.values():
        assert S.psds([NO_SPANS], timelines[:1], 60.0, scenario) is None
        empty = [S.ScoreTimeline(t.edges, (), np.zeros((len(t.scores), 0))) for t in timelines]
        assert S.psds(truths, empty, 180.0, scenario) == 0.0
    truth = S.Spans.of([(2.0, 4.0, "a"), (6.0, 8.0, "a")])
    edges = np.arange(21) * 0.5
    active = ((edges[:-1] >= 2) & (edges[:-1] < 4)) | ((edges[:-1] >= 6) & (edges[:-1] < 8))
    perfect = S.ScoreTimeline(edges, ("a", "z"), np.stack([np.where(active, 0.9, 0.1), np.ones(20)], axis=1))
    assert S.psds([truth], [perfect], 10.0, S.PSDS_SCENARIOS["psds1"]) == 1.0


def test_the_calibration_error_is_the_mean_difference_of_score_and_frequency() -> None:
    found = S.reliability([0.0, 0.1, 0.9, 0.9, 0.9, 1.0], [0, 0, 1, 1, 0, 1])
    assert found.counts.sum() == 6 and found.counts[-1] == 1 and len(found.counts) == 15
    assert found.expected_calibration_error == pytest.approx((0.0 + 0.1 + 3 * abs(2 / 3 - 0.9) + 0.0) / 6)
    assert S.reliability([], []).expected_calibration_error is None
    generator = np.random.default_rng(0)
    calibrated = generator.random(40_000)
    assert S.reliability(calibrated, generator.random(40_000) < calibrated).expected_calibration_error == pytest.approx(
        0, abs=0.01
    )
    with pytest.raises(ValueError, match="0..1"):
        S.reliability([1.5], [1])


def test_the_calibration_error_covers_every_scored_second() -> None:
    edges = np.arange(9) * 0.5 + 1.0  # from 1 s to 5 s
    timeline = S.ScoreTimeline(edges, ("a",), np.array([[0.9], [0.9], [0.9], [0.5], [0.1], [0.1], [0.0], [0.0]]))
    truth = S.Spans.of([(1.0, 3.0, "a")])
    found = calibration_error([DetectionRun(truth, np.zeros(1), timeline)], [truth], [6.0])
    assert found["segments"] == 4  # whole seconds from 1 to 5
    assert found["ece"] == pytest.approx((0.1 + 0.3 + 0.1 + 0.0) / 4, abs=1e-4)
    assert found["segments_high_scores"] == 3 and sum(b["segments"] for b in found["bins"]) == 4


def faults(*rows: tuple[float, float, str, str]) -> S.FaultSpans:
    return S.FaultSpans(S.Spans.of(row[:3] for row in rows), tuple(row[3] for row in rows))


def fault_report(sensor: str, onset: float, offset: float = 100.0, cause: str = "frozen") -> S.FaultReport:
    return S.FaultReport(onset, offset, onset, sensor, cause)


def test_a_fault_is_detected_by_a_report_on_its_sensor_within_three_seconds() -> None:
    truth = faults((10, 20, "thermal", "frozen"), (30, 40, "audio", "muted"), (50, 60, "imu", "frozen"))
    reports = [
        fault_report("thermal", 12, 21),
        fault_report("audio", 34, 40, "muted"),
        fault_report("imu", 51, 58, "saturated"),
    ]
    found = S.score_faults(truth, reports)
    assert (found.faults, found.detected, found.cause_correct, found.false_alarms) == (3, 2, 1, 0)
    assert found.delays == (2.0, 4.0, 1.0)
    wrong = S.score_faults(
        truth, [fault_report("vision", 11, 19), fault_report("thermal", 25, 29), fault_report("thermal", 2, 4)]
    )
    assert (wrong.detected, wrong.false_alarms, wrong.delays) == (0, 3, ())
    assert (found + wrong).faults == 6 and S.score_faults(faults(), []) == S.FaultScore()


def test_faults_are_read_and_other_labels_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "f.tsv").write_text("onset\toffset\tsensor\tfault\n30\t40\taudio\tmuted\n1\t2\timu\tfrozen\n")
    found = S.FaultSpans.of(read_faults(tmp_path / "f.tsv"))
    assert found.spans.rows() == [(1, 2, "imu"), (30, 40, "audio")] and found.causes == ("frozen", "muted")
    from sensebind.evaluation.fault_metrics import parse_fault_label as read

    assert read("fault:thermal:frozen", 1, 2, 1.5) == S.FaultReport(1, 2, 1.5, "thermal", "frozen")
    assert read("audio+vision", 1, 2, 1.5) is None and read("fault", 1, 2, 1.5) is None


def image(modality: str, second: float, pixels: np.ndarray) -> Sample:
    encoding = "mono8" if pixels.dtype == np.uint8 else "16UC1"
    data = Frame(np.ascontiguousarray(pixels).view(np.uint8).ravel(), encoding, *pixels.shape, pixels.strides[0])
    return Sample(modality, round(second * SECOND) + SECOND, data)


@pytest.mark.parametrize("modality", [VISION, DEPTH, THERMAL, AUDIO, IMU])
def test_the_model_free_detector_finds_activity_in_every_modality(modality: str) -> None:
    noise = np.random.default_rng(0)
    activity = SignalActivity()
    for i in range(300):  # 30 s at 10 Hz; something happens from 12 s to 15 s
        t, busy = i / 10, 120 <= i < 150
        if modality == VISION:
            pixels = noise.integers(100, 104, (24, 32), np.uint8)
            pixels[:12] += np.uint8(60 * (i % 2) * busy)
            activity.add(image(modality, t, pixels))
        elif modality in (DEPTH, THERMAL):
            counts = noise.integers(2000, 2010, (24, 32)).astype("<u2") + np.uint16(500 * (i % 2) * busy)
            activity.add(image(modality, t, counts))
        elif modality == AUDIO:
            wave = noise.normal(0, 0.2 if busy else 0.01, (1600, 1)).astype(np.float32)
            activity.add(Sample(AUDIO, round(t * SECOND) + SECOND, Sound(wave, 16_000.0)))
        else:
            values = np.array([0, 0, 9.8, 0, 0, 0]) + noise.normal(0, 3.0 if busy else 0.05, 6)
            activity.add(Sample(IMU, round(t * SECOND) + SECOND, Reading(values)))
    edges, z_scores = activity.z_scores(SECOND, 31 * SECOND)
    assert list(z_scores) == [modality] and len(edges) == len(z_scores[modality]) + 1 == 61
    truth = S.Spans.of([(12.0, 15.0, "something")])
    _, threshold, (detected,) = best_threshold([truth], [(edges, z_scores)])
    assert S.match(truth, detected, labels=False).counts == S.Counts(1, 0, 0) and threshold > 1
    assert S.label_from_truth(truth, detected, ANYTHING).labels == ("something",)
    assert S.label_from_truth(NO_SPANS, detected, ANYTHING).labels == (ANYTHING,)
    assert np.array_equal(max_over_modalities(z_scores), z_scores[modality]) and not len(max_over_modalities({}))


def test_the_model_free_detector_can_assign_one_label_to_a_modality() -> None:
    edges = np.arange(61) * 0.5
    audio, vision = np.zeros(60), np.zeros(60)
    audio[10:14], audio[30:34], vision[20:26] = 9.0, 9.0, 9.0
    truth = S.Spans.of([(5.0, 7.0, "dog"), (15.0, 17.0, "dog"), (10.0, 13.0, "light")])
    z_scores = {AUDIO: audio, VISION: vision, IMU: np.zeros(60)}
    chosen, (detected,) = best_label_per_modality([truth], [(edges, z_scores)])
    assert {modality: label for modality, (label, _) in chosen.items()} == {AUDIO: "dog", VISION: "light"}
    assert S.match(truth, detected).counts == S.Counts(3, 0, 0)


def test_an_activity_ends_after_the_quiet_time() -> None:
    edges = np.arange(11) * 0.5
    assert active_spans(edges, np.array([0, 5, 1, 3, 0, 0, 0, 9, 9, 9]), 4.0).rows() == [
        (0.5, 2.0, ANYTHING),
        (3.5, 5.0, ANYTHING),
    ]
    assert len(active_spans(edges, np.zeros(10), 4.0)) == 0


def recording_runs(
    name: str, detected: S.Spans, truth: S.Spans, prompts: tuple[str, ...], **more: object
) -> RecordingRuns:
    timeline = S.ScoreTimeline(np.arange(61) * 0.5, prompts, np.full((60, len(prompts)), 0.05))
    run = DetectionRun(detected, detected.onsets + 1.0, timeline)
    runs = {ALL: run, VISION: run, AUDIO: DetectionRun(NO_SPANS, np.zeros(0), timeline), LATE: run}
    activity = np.arange(61) * 0.5, {AUDIO: np.zeros(60)}
    values: dict = {"faults": None, "fault_reports": (), "unscored_events": {}, **more}
    return RecordingRuns(name, 30.0, "toy@0", prompts, truth, runs=runs, activity=activity, **values)


def test_the_metrics_have_all_labels_runs_and_faults(tmp_path: Path) -> None:
    truth = S.Spans.of([(2.0, 6.0, "cat"), (10.0, 14.0, "ghost")])
    detected = S.Spans.of([(2.5, 6.0, "cat"), (20.0, 22.0, "dog")])
    first = recording_runs("one", detected, truth, ("cat", "dog"), faults=faults((5, 9, "audio", "muted")),
                           fault_reports=(fault_report("audio", 6, 9),), unscored_events={"NOVELTY": 2})  # fmt: skip
    found = compute_metrics([first, recording_runs("two", NO_SPANS, NO_SPANS, ("cat", "dog"))])
    json.dumps(found, allow_nan=False)
    overall = found["detectors"][ALL]["overall"]
    assert overall["event"] == {
        "f1": 0.5, "precision": 0.5, "recall": 0.5, "hits": 1, "false": 1, "missed": 1, "f1_macro": 0.5,
    }  # fmt: skip
    assert overall["false_alarms_per_hour"] == 60.0  # one in a minute
    assert overall["onset_latency_s"]["stamp"]["median"] == 0.5
    assert overall["onset_latency_s"]["report"]["median"] == 1.5
    assert list(found["detectors"]) == [ALL, VISION, AUDIO, LATE, MODEL_FREE, ONE_LABEL]
    assert found["best_single"] == VISION
    assert set(found["detectors"][ALL]["labels"]) == {"cat", "dog", "ghost"}
    assert found["faults"]["fraction_detected"] == 1.0 and found["faults"]["false_per_hour"] == 0.0
    table = metrics_table(found)
    for words in ("ghost", "dog", "counted as missed", "2 novelty", "two: the truth is empty", "1 of 1 detected"):
        assert words in table, words
    assert not math.isnan(found["calibration"]["ece"])
    plot(found, tmp_path / "events.png")
    assert (tmp_path / "events.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def patrol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the simulated robot, its truth, a file with a fault that it does not have, and a configuration."""
    folder = tmp_path_factory.mktemp("patrol")
    record_patrol(folder / "bag", duration=9.0)
    (folder / "bag.faults.tsv").write_text("onset\toffset\tsensor\tfault\n2\t3\timu\tfrozen\n")
    (folder / "config.yaml").write_text(
        "embedder:\n  ros__parameters:\n    space: starter\n    device: cpu\n    modalities: [vision, audio]\n"
        "detector:\n  ros__parameters:\n    prompts: {person: [an astronaut], dog: [a dog]}\n"
    )
    return folder


def test_the_runs_do_not_depend_on_the_number_of_processes(patrol: Path) -> None:
    from sensebind.evaluation.run_recordings import run_recordings
    from sensebind.replay.session import Settings

    settings = Settings.read(patrol / "config.yaml")
    one, two = run_recordings([(patrol / "bag", None)] * 2, settings, jobs=2)
    (alone,) = run_recordings([(patrol / "bag", patrol / "bag.truth.tsv")], settings)
    for other in (two, alone):
        assert list(one.runs) == [ALL, VISION, AUDIO, LATE]
        for name, run in one.runs.items():
            assert run.spans.rows() == other.runs[name].spans.rows()
            np.testing.assert_array_equal(run.timeline.edges, other.runs[name].timeline.edges)
            np.testing.assert_allclose(run.timeline.scores, other.runs[name].timeline.scores, atol=1e-4)
        np.testing.assert_allclose(one.activity[1][AUDIO], other.activity[1][AUDIO])
    assert one.truth.labels[0] == "person" and one.prompts == ("dog", "person")
    assert one.faults is not None and one.faults.causes == ("frozen",)
    assert set(one.activity[1]) == {VISION, AUDIO}
    best = np.maximum(one.runs[VISION].timeline.scores, one.runs[AUDIO].timeline.scores)
    np.testing.assert_allclose(one.runs[LATE].timeline.scores, best)
    assert one.runs[VISION].spans.labels == one.runs[LATE].spans.labels == ("person",)
    assert (one.runs[VISION].reported_at >= one.runs[VISION].spans.onsets).all()


def test_evaluate_events_writes_metrics_a_table_and_plots(
    patrol: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sensebind.cli import main

    config = ["--config", str(patrol / "config.yaml")]
    assert main(["evaluate", "events", str(patrol / "bag"), *config, "--out", str(tmp_path / "o")]) == 0
    output = capsys.readouterr().out
    found = json.loads((tmp_path / "o" / "events.json").read_text())
    assert list(found["detectors"]) == [ALL, VISION, AUDIO, LATE, MODEL_FREE, ONE_LABEL]
    assert found["recordings"][0]["name"] == "bag" and found["faults"]["faults"] == 1
    assert "| late fusion |" in output and "dog" in output
    assert output.startswith((tmp_path / "o" / "events.md").read_text())
    assert (tmp_path / "o" / "events.png").stat().st_size > 10_000
    truth = str(patrol / "bag.truth.tsv")
    assert main(["evaluate", "events", str(patrol / "bag"), "--truth", truth, truth]) == 2
    assert "2 files for 1 recordings" in capsys.readouterr().err
    (tmp_path / "bare").symlink_to(patrol / "bag")
    assert main(["evaluate", "events", str(tmp_path / "bare"), *config]) == 2
    assert "bare.truth.tsv" in capsys.readouterr().err


def test_the_report_of_a_replay_shows_the_truth_next_to_the_recording(patrol: Path, tmp_path: Path) -> None:
    from sensebind.cli import main
    from sensebind.fusion.io.recordings import Recording

    config = ["--config", str(patrol / "config.yaml")]
    assert main(["replay", str(patrol / "bag"), *config, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Truth detected" in page and "<h1><bdi>bag</bdi></h1>" in page and "fault:imu:frozen" in page
    assert 'alt="person at ' in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    entry = summary["truth"][0]
    assert (entry["onset"], entry["offset"], entry["label"], entry["detected"]) == (3.2, 7.2, "person", True)
    with Recording(tmp_path / "outputs") as bag:
        texts = [text.text for _, _, _, m in bag.messages(["/annotated/vision/annotations"]) for text in m.texts]
    assert any(text.startswith("person (vision ") for text in texts)
