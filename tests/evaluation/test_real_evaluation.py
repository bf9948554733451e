"""Evaluation of events on real data: figures from known events, and the commands on small synthetic sets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.rocking_imu import record_rocking_imu
from sensebind.cli import main
from sensebind.evaluation.detection_runs import DetectionRun
from sensebind.evaluation.psds import ScoreTimeline
from sensebind.evaluation.real import falls, yamnet_threshold
from sensebind.evaluation.real.prompt_runs import PromptRun, settings_for
from sensebind.evaluation.real.sound_streams import SoundStream
from sensebind.evaluation.real.sounds_in_noise import (
    ABSENT_SOUNDS,
    StreamRun,
    class_prompts,
    first_report_delays,
    sound_metrics,
    sound_table,
)
from sensebind.evaluation.real.yamnet_threshold import Probabilities, ThresholdSetting
from sensebind.evaluation.spans import Spans
from sensebind.evaluation.tables import TableError
from sensebind.fusion.core.events import EventInterval, EventKind

RATE = 16_000
Row = tuple[float, float, str]


def prompt_run(rows: list[Row], delay: float = 0.5, unknown: int = 0) -> PromptRun:
    """A run with these detections, each reported `delay` s after its onset, and UNKNOWN events."""
    spans = Spans.of(rows)
    intervals = [EventInterval("", EventKind.PROMPT, label, 0, 1) for _, _, label in rows]
    intervals += [EventInterval("", EventKind.UNKNOWN, "unknown", 0, 1)] * unknown
    timeline = ScoreTimeline(np.array([0.0, 10.0]), ("dog_bark",), np.array([[0.6]]))
    return PromptRun(DetectionRun(spans, spans.onsets + delay, timeline), tuple(intervals), {"audio": 20})


def stream_run(truth: list[Row], present: PromptRun, absent: PromptRun | None = None) -> StreamRun:
    stream = SoundStream("a stream", np.zeros(10 * RATE, np.int16), Spans.of(truth))
    return StreamRun(stream, stream.truth, present, absent)


def test_figures_of_sounds_count_hits_delays_absent_sounds_and_unknown_events() -> None:
    truth = [(1.0, 3.0, "dog_bark"), (6.0, 8.0, "rain")]
    present = prompt_run([(1.2, 3.0, "dog_bark"), (5.0, 5.2, "dog_bark")], unknown=2)
    absent = prompt_run([(1.0, 2.0, "siren")], unknown=3)
    found = sound_metrics([stream_run(truth, present, absent), stream_run(truth, present, prompt_run([]))])
    assert found["events"] == 4 and found["seconds"] == 20
    assert {k: found["event"][k] for k in ("hits", "false", "missed")} == {"hits": 2, "false": 2, "missed": 2}
    assert found["reporting_delay_s"] == {"n": 2, "median": 0.7, "p95": 0.7}
    assert found["onset_error_s"]["median"] == pytest.approx(0.2)
    assert found["other_kinds"] == {"UNKNOWN": 4}
    assert found["absent"]["prompt_events"] == 1 and found["absent"]["unknown_events"] == 3
    assert [(e["label"], e["onset"]) for e in found["absent"]["list"]] == [("siren", 1.0)]
    assert found["calibration"]["segments_high_scores"] == 20  # the score is 0.6 everywhere, present in 2 of 10 s
    assert found["calibration"]["ece_high_scores"] == pytest.approx(0.4)
    table = sound_table({"title": found})
    assert "| title | 4 | 0.50 |" in table and "1 events in 0 minutes" in table and "a stream: siren" in table


def test_the_delay_of_the_first_report_includes_events_that_begin_too_late() -> None:
    truth = Spans.of([(1.0, 6.0, "rain"), (10.0, 12.0, "rain"), (20.0, 22.0, "rain")])
    run = prompt_run([(4.0, 6.0, "rain"), (9.0, 12.0, "rain"), (20.0, 22.0, "dog_bark")]).detections
    assert first_report_delays(truth, run) == pytest.approx([3.5, 0.0])


def test_settings_keep_the_defaults_and_replace_modalities_and_prompts() -> None:
    settings = settings_for(["audio"], class_prompts(["Dog bark", "sea waves"]), device="cpu")
    assert settings.modalities == ("audio",) and settings.embedder["device"] == "cpu"
    assert settings.prompts == {"dog_bark": ["the sound of Dog bark"], "sea_waves": ["the sound of sea waves"]}
    assert len(ABSENT_SOUNDS) == 10


def test_a_folder_of_clips_is_scored_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time = np.arange(2 * RATE) / RATE
    waves = {
        "001 - Siren": np.sin(2 * np.pi * (900 * time + 100 * np.sin(2 * np.pi * time))),
        "002 - Rain": np.random.default_rng(1).standard_normal(len(time)) / 4,
    }
    for name, wave in waves.items():
        (tmp_path / "clips" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / name / "1-a.wav", 0.3 * wave, RATE)
    arguments = ["evaluate", "sounds-in-noise", str(tmp_path / "clips"), "--folds", "1", "--minutes", "0.5"]
    assert main([*arguments, "--streams", "1", "--snr", "20", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    (found,) = json.loads((tmp_path / "out" / "sounds.json").read_text()).values()
    assert found["seconds"] == 30 and found["events"] >= 2
    assert {label for label in found["labels"] if found["labels"][label]["event"]["missed"] is not None} >= {"rain"}
    assert found["absent"]["seconds"] == 30
    assert "reporting delay, s: median" in capsys.readouterr().out
    assert main(["evaluate", "sounds-in-noise", str(tmp_path / "none")]) == 2
    assert "has no folders with sounds" in capsys.readouterr().err


def motion_run(impact: float | None, rows: list[tuple[float, float]]) -> falls.MotionRun:
    stamps = np.linspace(0, 10, 100)
    recording = falls.MotionRecording("x.csv.gz", "a motion", "2", impact, stamps, np.zeros((100, 6)))
    return falls.MotionRun(recording, prompt_run([(a, b, "fall") for a, b in rows]))


def test_a_fall_is_found_within_two_seconds_and_all_other_events_are_false() -> None:
    runs = [
        motion_run(5.0, [(4.8, 5.5)]),
        motion_run(5.0, [(7.0, 8.0), (9.0, 9.5)]),  # one just in time, one too late
        motion_run(5.0, [(0.5, 2.9)]),
        motion_run(None, [(1.0, 2.0), (5.0, 6.0)]),
        motion_run(None, []),
    ]
    found = falls.fall_metrics(runs)
    overall = found["overall"]
    assert (overall["falls"], overall["found"], overall["recall"]) == (3, 2, 0.6667)
    assert (overall["false"], overall["motions_with_false"], overall["false_per_10_motions"]) == (2, 1, 10.0)
    assert overall["false_in_recordings_of_falls"] == 2
    assert overall["reporting_delay_s"]["median"] == pytest.approx((0.3 + 2.5) / 2)
    assert found["subjects"] == {"2": overall}
    table = falls.fall_table(found)
    assert table.count("missed:") == 1 and table.count("false: ") == 1


@pytest.fixture
def motions(tmp_path: Path) -> Path:
    """A fall and a still phone: the gyroscope begins 0.1 s before the accelerometer and is twice as fast."""
    folder = tmp_path / "motions"
    folder.mkdir()
    for name in ("fall", "still"):
        lines = ["sensor,stamp_ns,x,y,z"]
        for i in range(600):
            x = 30.0 if name == "fall" and 300 <= i < 310 else 0.1
            lines.append(f"acc,{10**9 + 10**8 + i * 10**7},{x},9.8,0")
        lines += [f"gyro,{10**9 + i * 5 * 10**6},{i / 200},0,0" for i in range(1240)]
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (folder / "labels.csv").write_text(
        f"file,words,fall,subject,{falls.IMPACT_COLUMN},peak_m_s2\n"
        "fall.csv.gz,fall forward,1,2,3.10,30\nstill.csv.gz,walking,0,3,,9.8\n"
    )
    return folder


def test_motions_are_read_with_the_gyroscope_at_the_stamps_of_the_accelerometer(motions: Path) -> None:
    fall, still = falls.read_recordings(motions)
    assert fall.impact == 3.1 and still.impact is None and fall.values.shape == (600, 6)
    assert fall.stamps[0] == pytest.approx(0.1)  # from the first stamp of the file, which is the gyroscope's
    np.testing.assert_allclose(fall.values[:, 3], fall.stamps, atol=1e-6)  # turns by 1 rad/s more every second
    assert np.abs(fall.values[:, 0]).argmax() == 300
    assert fall.stamps[300] == pytest.approx(fall.impact)
    assert [r.name for r in falls.read_recordings(motions, ["3"])] == ["still.csv.gz"]
    with pytest.raises(falls.MotionDataError, match="subjects 9"):
        falls.read_recordings(motions, ["9"])
    with pytest.raises(TableError, match=r"labels\.csv"):
        falls.read_recordings(motions.parent)


def test_falls_are_scored_from_the_command_line(motions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", "falls", str(motions), "--subject", "3", "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads((out / "falls.json").read_text())
    assert found["overall"]["falls"] == 0 and found["overall"]["other_motions"] == 1
    assert (out / "falls.md").read_text().startswith("| subject |")


def test_false_alarms_list_the_windows_and_events_of_each_recording(tmp_path: Path) -> None:
    record_rocking_imu(tmp_path / "bag", 8.0)
    assert main(["evaluate", "false-alarms", str(tmp_path / "bag"), "--device", "cpu", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "false_alarms.json").read_text())
    assert [r["prompts"] for r in found["recordings"]] == ["prompts of the file", "absent objects"]
    for r in found["recordings"]:
        assert r["windows"]["imu"] > 5 and r["false"] == sum(e["kind"] == "PROMPT" for e in r["events"])
    assert found["sets"]["prompts of the file"]["seconds"] == pytest.approx(8, abs=0.3)


def test_events_without_recordings_evaluates_the_real_data_that_there_is(
    motions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "events", "--shared", str(tmp_path / "none")]) == 1
    assert "evaluation/imu_falls" in capsys.readouterr().out
    (tmp_path / "shared" / "evaluation").mkdir(parents=True)
    motions.rename(tmp_path / "shared" / "evaluation" / "imu_falls")
    arguments = ["evaluate", "events", "--shared", str(tmp_path / "shared"), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "real.json").read_text())
    assert list(found) == ["falls"] and list(found["falls"]["subjects"]) == ["3"]
    assert "## Falls" in (tmp_path / "out" / "real.md").read_text()


def test_yamnet_detections_join_short_pauses_and_the_best_threshold_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([[0.1], [0.6], [0.2], [0.6], [0.1], [0.1], [0.1], [0.1], [0.3], [0.1]])
    given = Probabilities(0.48 * np.arange(10) + 0.4875, ("rain",), values)
    separate = yamnet_threshold.detections(given, ThresholdSetting(0.5, 0.0))
    joined = yamnet_threshold.detections(given, ThresholdSetting(0.5, 0.5))
    assert len(separate) == 2 and len(joined) == 1
    assert joined.rows()[0][:2] == pytest.approx((0.7275, 2.1675))
    stream = SoundStream("x", np.zeros(5 * RATE, np.int16), Spans.of([(0.7, 2.2, "rain")]))
    monkeypatch.setattr(yamnet_threshold, "probabilities", lambda *arguments: given)
    setting, f1 = yamnet_threshold.choose([stream], {"rain": ("Rain",)}, None)  # type: ignore[arg-type]
    assert f1 == 1.0 and 0.3 < setting.threshold <= 0.6


def test_yamnet_patches_are_the_same_in_one_batch_and_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    from sensebind.fusion.models.starter.space import StarterSpace

    space = StarterSpace.load(modalities=["audio", "text"], device="cpu")
    noise = np.random.default_rng(0).integers(-3000, 3000, 9 * RATE + 77).astype(np.int16)
    stream = SoundStream("noise", noise, Spans.of(()))
    whole = yamnet_threshold.probabilities(stream, {"rain": ("Rain", "Raindrop")}, space)
    monkeypatch.setattr(yamnet_threshold, "BATCH_SECONDS", 2)
    parts = yamnet_threshold.probabilities(stream, {"rain": ("Rain", "Raindrop")}, space)
    assert len(whole.centres) == 17 and np.diff(whole.centres) == pytest.approx(0.48)
    np.testing.assert_allclose(whole.centres, parts.centres)
    np.testing.assert_allclose(whole.values, parts.values, atol=1e-4)
