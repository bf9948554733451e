"""The command line, run as a user does."""

from __future__ import annotations

import gzip
import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch

from helpers.command_line import sensebind as sensebind_process
from helpers.command_line import without_progress
from helpers.paths import ROOT
from helpers.patrols import record_patrol
from helpers.rocking_imu import record_rocking_imu
from sensebind.cli import main
from sensebind.fusion.io.recordings import Recording

ROCKING_CONFIG = """
/**:
  ros__parameters:
    space: starter
    device: cpu
    modalities: [vision, imu]
    detectors: [prompt]
    prompts:
      person: [a person nearby, somebody nearby, a person walking]
      dog: [a dog]
      bump: [a bump, the robot hits something]
"""


class Ended(NamedTuple):
    """The end of a command: its exit status and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def sensebind(*arguments: object) -> Ended:
    """Run the command in this process, which has the libraries loaded. An error that is not expected is raised."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as ended:  # of the parser
            status = ended.code if isinstance(ended.code, int) else 1
    return Ended(status, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def patrol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("patrol") / "bag"
    record_patrol(path, duration=8.0)
    return path


def test_replay_writes_a_bag_a_summary_and_a_report(patrol: Path, tmp_path: Path) -> None:
    config = ROOT / "config" / "demo.yaml"
    done = sensebind_process("replay", patrol, "--config", config, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not without_progress(done.stderr)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["space"].startswith("starter@") and summary["realtime_factor"] > 0
    assert summary["duration_s"] == pytest.approx(8, abs=0.2)
    for modality in ("vision", "depth", "thermal", "audio", "imu"):
        figures, lost = summary["modalities"][modality], summary["losses"]["sensors"][modality]["windows_lost"]
        not_embedded = sum(count for cause, count in lost.items() if cause != "unfused")
        assert figures["windows"] == figures["embedded"] + not_embedded
        assert figures["windows"] >= 12 and 0 < figures["coverage_mean"] <= 1
    assert summary["modalities"]["vision"]["latency_ms"] is None  # it is that of batches, not of a robot
    assert [(item["label"], item["detected"]) for item in summary["truth"]] == [("person", True)]
    with Recording(tmp_path / "outputs") as bag:
        counts = {topic.name: topic.message_count for topic in bag.topics}
        vectors = [np.asarray(m.vector) for _, _, _, m in bag.messages(["/embeddings/vision"])]
    assert counts["/embeddings/vision"] == summary["modalities"]["vision"]["embedded"] == len(vectors)
    assert counts["/embedding_space"] == 1 and counts["/events"] >= 2
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    page = (tmp_path / "report.html").read_text()
    assert "person" in page and "<script src" not in page and "https://" not in page


def test_a_replay_of_motion_alone_detects_no_person_and_names_the_prompts_that_motion_cannot_recognise(
    tmp_path: Path,
) -> None:
    record_rocking_imu(tmp_path / "bag", 16.0)
    (tmp_path / "p.yaml").write_text(ROCKING_CONFIG)
    done = sensebind("replay", tmp_path / "bag", "--config", tmp_path / "p.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no modality with data can recognise the prompts dog, person:") == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["modalities"]["imu"]["embedded"] > 20
    assert not {event["label"] for event in summary["events"]} & {"person", "dog"}
    assert any("prompts dog, person" in note for note in summary["notes"])


def test_a_replay_does_not_overwrite_outputs_unasked(patrol: Path, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    done = sensebind_process("replay", patrol, "--out", tmp_path)
    assert done.returncode == 2 and "outputs" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "vectors"),
    [("gopro_drone", ("vision",)), ("euroc_stereo_imu", ("vision",)), ("auv", ())],
)
def test_real_recordings_replay_without_warnings(
    shared: Path, tmp_path: Path, name: str, vectors: tuple[str, ...]
) -> None:
    done = sensebind("replay", shared / "recordings" / name, "--out", tmp_path)
    assert done.returncode == 0 and not without_progress(done.stderr), done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    motion = summary["modalities"]["imu"]
    if name == "auv":  # its driver leaves the stamps empty: dropped and reported, not an error
        lost = summary["losses"]["sensors"]["imu"]["samples_lost"]
        assert lost == {"unstamped": 161} and "161 of 161 messages have no stamp" in done.stdout
    else:
        assert motion["windows"] > 5
    for modality in vectors:
        assert summary["modalities"][modality]["embedded"] == summary["modalities"][modality]["windows"] > 5


def test_an_output_that_is_a_folder_is_named_without_a_traceback(tmp_path: Path) -> None:
    done = sensebind("embed", "--modality", "text", "-o", tmp_path, "a dog")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is a folder: name a file" in done.stderr and str(tmp_path) in done.stderr


def test_captions_that_are_not_text_and_a_damaged_checkpoint_are_named(tmp_path: Path) -> None:
    for number in range(20):
        for folder, content in (
            ("thermal", cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()),
            ("text", b"\xff"),
        ):
            (tmp_path / "pairs" / folder).mkdir(parents=True, exist_ok=True)
            suffix = "png" if folder == "thermal" else "txt"
            (tmp_path / "pairs" / folder / f"{number:02}.{suffix}").write_bytes(content)
    arguments = ("align", "--pairs", tmp_path / "pairs", "--modality", "thermal", "-o", tmp_path / "x.safetensors")
    done = sensebind(*arguments)
    assert done.returncode == 2 and "00.txt' is not text in UTF-8" in done.stderr and "Traceback" not in done.stderr
    for number in range(20):
        (tmp_path / "pairs" / "text" / f"{number:02}.txt").write_text(f"object {number}")
    torch.save([1, 2], tmp_path / "checkpoint.pt")
    done = sensebind(*arguments, "--method", "head", "--checkpoint", tmp_path / "checkpoint.pt")
    assert done.returncode == 2 and "checkpoint.pt' cannot be read: remove it" in done.stderr


def test_training_options_of_a_join_and_text_that_is_not_utf8_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    join = ["align", "--through", "text", "--source", "starter", "--modality", "audio", "-o", "x.safetensors"]
    assert main([*join, "--epochs", "3", "--held-out", "0.5", "--checkpoint", "c.pt"]) == 2
    assert "leave out --epochs, --held-out, --checkpoint" in capsys.readouterr().err
    assert main(["embed", "--modality", "text", "-o", "x.npz", os.fsdecode(b"\xff dog")]) == 2
    shown = capsys.readouterr().err
    assert "dog' is not text in UTF-8" in shown and "Traceback" not in shown


def test_odd_tables_of_evaluation_data_are_named_with_the_line_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data := tmp_path / "data").mkdir()
    heading = "file,words,fall,subject,peak_at_s_from_first_stamp (computed)\n"
    for table, words in (
        (b"file;words;fall\nx;y;0\n", "no column 'file': its first line names file;words;fall; separate columns by"),
        (b"file,words\n\xff,b\n", "labels.csv' is not a CSV table in UTF-8"),
        (b'"file,words\nx', "labels.csv' is not a CSV table in UTF-8"),
        (b"", "labels.csv' has no column 'file': it is empty"),
        (heading.encode(), "labels.csv' has no recordings"),
        (heading.encode() + b"a.csv.gz,b\n", "labels.csv', line 2: 2 columns, but the first line has 5"),
        (heading.encode() + b"a.csv.gz,b,0,1,\n", "a.csv.gz' cannot be read: No such file"),
        (heading.encode() + b"labels.csv,b,0,1,\n", "labels.csv' has no column 'sensor'"),
    ):
        (data / "labels.csv").write_bytes(table)
        assert main(["evaluate", "falls", str(data), "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    (data / "labels.csv").write_text(f"{heading}a.csv.gz,b,0,1,\n")
    for rows, words in (
        ("acc,1,2,3,x\n", "a.csv.gz', line 2: column 'z' must be a number, not 'x'"),
        ("acc,1,2,3,4\n", "a.csv.gz' has no rows of the sensor 'gyro'"),
        ("baro,1,2,3,4\n", "a.csv.gz', line 2: 'sensor' must be acc or gyro"),
    ):
        (data / "a.csv.gz").write_bytes(gzip.compress(f"sensor,stamp_ns,x,y,z\n{rows}".encode()))
        assert main(["evaluate", "falls", str(data), "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    (data / "a.csv.gz").write_bytes(b"not compressed")
    assert main(["evaluate", "falls", str(data)]) == 2 and "a.csv.gz' cannot be read" in capsys.readouterr().err


def test_embeddings_of_images_are_nearest_to_their_phrases(tmp_path: Path) -> None:
    skimage = pytest.importorskip("skimage.data")
    phrases = ("a cat", "a rocket launch", "a cup of coffee")
    assert sensebind("embed", "--modality", "text", "-o", tmp_path / "t.npz", *phrases).returncode == 0
    for name in ("chelsea.png", "rocket.jpg", "coffee.png"):
        image = cv2.imread(str(Path(skimage.__file__).parent / name))
        cv2.imwrite(str(tmp_path / Path(name).with_suffix(".png")), image)
    files = [tmp_path / name for name in ("chelsea.png", "rocket.png", "coffee.png")]
    done = sensebind("embed", "--space", "starter", "--modality", "vision", "-o", tmp_path / "v.npz", *files)
    assert done.returncode == 0, done.stderr
    text, vision = np.load(tmp_path / "t.npz"), np.load(tmp_path / "v.npz")
    assert text["space"] == vision["space"] and list(text["names"]) == list(phrases)
    assert vision["vectors"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vision["vectors"], axis=1), 1, atol=1e-5)
    assert (vision["vectors"] @ text["vectors"].T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("replay", "nowhere.mcap"), "nowhere.mcap"),
        (("embed", "--modality", "smell", "-o", "x.npz", "a"), "smell"),
        (("embed", "--space", "mars", "--modality", "text", "-o", "x.npz", "a"), "mars"),
        (("embed", "--modality", "vision", "-o", "x.npz", "nowhere.png"), "nowhere.png"),
        (("replay", "nowhere", "--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_the_error_of_a_wrong_argument_names_it_without_a_traceback(arguments: tuple[str, ...], name: str) -> None:
    done = sensebind(*arguments)
    assert done.returncode == 2 and name in done.stderr and "Traceback" not in done.stderr


def test_the_error_of_a_misspelt_parameter_suggests_the_nearest_one(patrol: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("embedder:\n  ros__parameters:\n    vision: {hopp: 1.0}\n")
    done = sensebind("replay", patrol, "--config", file, "--out", tmp_path / "out")
    assert done.returncode == 2 and "vision.hopp" in done.stderr and "vision.hop'" in done.stderr


def test_doctor_lists_the_spaces() -> None:
    done = sensebind_process("doctor")
    assert "space starter: starter@" in done.stdout.replace("ok   ", "")
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr


@pytest.mark.slow  # the quick sibling: `bench all` in tests/benchmarks has this part
def test_bench_pipeline_prints_the_cpu_time_of_five_sensors() -> None:
    done = sensebind("bench", "pipeline", "--seconds", 6)
    assert done.returncode == 0 and "five sensors: % of one core" in done.stdout


def test_bench_pipeline_names_the_shortest_run() -> None:
    short = sensebind("bench", "pipeline", "--seconds", 1)
    assert short.returncode == 1 and "--seconds must be at least 6" in short.stderr
