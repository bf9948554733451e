"""What a replay does not use is counted by cause: on the command line, in summary.json and in the report."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers.report_examples import Page
from helpers.rocking_imu import RATE, rocking_motion
from helpers.sensor_messages import image
from helpers.toy_space import ToySpace
from sensebind.cli import main
from sensebind.fusion.core.samples import IMU, SECOND, VISION
from sensebind.fusion.io.recordings import BagWriter, Selection
from sensebind.fusion.models import registry
from sensebind.replay.session import Settings, open_replay
from sensebind.simulation.messages import imu_messages

SECONDS = 12.0
STRING = "std_msgs/msg/String"
FILE = """
/**:
  ros__parameters:
    space: toy
    device: cpu
    modalities: [vision, imu]
    detectors: [prompt]
    prompts: {bump: [a bump]}
"""


@pytest.fixture(autouse=True)
def toy_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line embeds with the toy space."""
    monkeypatch.setattr(registry, "load_space", lambda name, **given: ToySpace())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(FILE)
    return tmp_path / "p.yaml"


def record_imu(path: Path, change: Any = lambda number, message: [message]) -> Path:
    """A bag with an IMU of 100 Hz and two strings. `change`: number and message → the messages to write instead."""
    with BagWriter(path) as bag:
        for number, (stamp, topic, kind, message) in enumerate(
            imu_messages(bag.message_factory, *rocking_motion(SECONDS))
        ):
            for own in change(number, message):
                bag.write(topic, kind, stamp, own)
            if number in (100, 200):
                bag.write("/notes", STRING, stamp, bag.message_factory.make(STRING, data="a"))
    return path


def faulty(number: int, message: Any) -> list[Any]:
    """Five messages without a stamp, three that are NaN, and two that come twice."""
    if number in range(100, 105):
        message.header.stamp.sec = message.header.stamp.nanosec = 0
    if number in range(200, 203):
        message.linear_acceleration.x = float("nan")
    return [message, message] if number in (300, 301) else [message]


def replayed(path: Path, config: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `sensebind replay`; return its exit status and the summary."""
    out = path.parent / "out"
    status = main(["replay", str(path), "--config", str(config), "--out", str(out), "--overwrite", *arguments])
    return status, json.loads((out / "summary.json").read_text())


def test_every_sample_is_used_or_counted_by_cause(tmp_path: Path, config: Path) -> None:
    settings = Settings.read(config)
    with open_replay(record_imu(tmp_path / "bag", faulty), settings.embedder) as replay:
        pipeline = settings.pipeline(ToySpace())
        list(replay.outputs(pipeline))
        losses = replay.losses(pipeline)
    own = losses.sensors[IMU]
    assert own.messages == own.samples == round(SECONDS * RATE) + 2 and not own.messages_lost
    assert {cause: own.samples_lost[cause] for cause in ("unstamped", "invalid", "duplicate")} == {
        "unstamped": 5, "invalid": 3, "duplicate": 2,
    }  # fmt: skip
    assert own.samples_lost["incomplete"] < RATE and set(own.samples_lost) == {
        "unstamped", "invalid", "duplicate", "incomplete",
    }  # fmt: skip
    embedded = pipeline.statistics()[IMU].counts["embedded"]
    assert own.windows == embedded + sum(n for cause, n in own.windows_lost.items() if cause != "unfused")
    assert [(topic.name, topic.message_count) for topic in losses.unused_topics] == [("/notes", 2)]
    assert not losses.recording


def test_messages_that_are_no_samples_and_windows_without_an_encoder_are_counted(tmp_path: Path, config: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for number in range(40):
            encoding = "odd16" if number % 4 == 0 else "rgb8"
            message = image(encoding, np.zeros((4, 4, 3), np.uint8), SECOND + number * SECOND // 10)
            bag.write("/camera/image", "sensor_msgs/msg/Image", SECOND + number * SECOND // 10, message)
    settings = Settings.read(config)
    for space, cause in ((ToySpace(), None), (ToySpace([IMU]), "no_encoder")):
        with open_replay(tmp_path / "bag", settings.embedder) as replay:
            pipeline = settings.pipeline(space)
            list(replay.outputs(pipeline))
            own = replay.losses(pipeline).sensors[VISION]
        lost = own.messages_lost.get("undecodable", 0) + own.windows_lost.get("encoding", 0)
        assert own.messages == 40 and own.windows > 5
        if cause is None:
            assert lost > 0 and "no_encoder" not in own.windows_lost
        else:
            assert own.windows_lost[cause] == own.windows


def test_the_command_line_the_summary_and_the_report_name_what_was_not_used(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, summary = replayed(record_imu(tmp_path / "bag", faulty), config)
    shown = capsys.readouterr().out
    assert status == 0
    [line] = [line for line in shown.splitlines() if line.startswith("imu") and "not used" in line]
    for text in ("unstamped 5", "invalid 3", "duplicate 2", "incomplete"):
        assert text in line
    assert "topics of no sensor: /notes (2 messages)" in shown
    losses = summary["losses"]
    assert losses["sensors"]["imu"]["samples_lost"]["duplicate"] == 2
    assert losses["topics_of_no_sensor"] == {"/notes": {"type": STRING, "messages": 2}}
    assert losses["recording"] == [] and losses["not_ros"] == {}
    page = " ".join(Page((tmp_path / "out" / "report.html").read_text()).words)
    for text in ("unstamped: 5 samples", "duplicate: 2 samples", "incomplete:", "topics of no sensor: /notes"):
        assert text in page


@pytest.mark.parametrize("strict", [False, True])
def test_missing_messages_are_a_warning_and_an_error_if_strict(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    file = record_imu(tmp_path / "bag") / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    for entry in content["rosbag2_bagfile_information"]["topics_with_message_count"]:
        entry["message_count"] += 100 * (entry["topic_metadata"]["name"] == "/imu")
    file.write_text(yaml.safe_dump(content))
    status, summary = replayed(tmp_path / "bag", config, *(["--strict"] if strict else []))
    captured = capsys.readouterr()
    text = "topic '/imu': 1200 of the 1300 messages that metadata.yaml counts can be read"
    assert status == int(strict) and ("--strict" in captured.err) == strict
    assert text in captured.out and caplog.text.count(text) == 1
    [loss] = summary["losses"]["recording"]
    assert loss == {"cause": "missing", "topic": "/imu", "messages": 100, "text": text}
    assert text in summary["notes"]
    assert text in " ".join(Page((tmp_path / "out" / "report.html").read_text()).words)


def test_strict_is_an_error_for_samples_that_are_wrong_and_none_for_what_every_recording_has(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, summary = replayed(record_imu(tmp_path / "whole"), config, "--strict")
    assert status == 0 and summary["losses"]["sensors"]["imu"]["samples_lost"], "samples after the last window"
    capsys.readouterr()
    status, _ = replayed(record_imu(tmp_path / "bag", faulty), config, "--strict", "--overwrite")
    assert status == 1 and "imu (unstamped 5, invalid 3, duplicate 2) (--strict)" in capsys.readouterr().err


def test_a_part_of_a_recording_is_replayed_with_its_truth(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = record_imu(tmp_path / "bag")
    (tmp_path / "bag.truth.tsv").write_text("onset\toffset\tlabel\n1.0\t2.0\tbump\n4.0\t5.5\tbump\n7.5\t9.0\tbump\n")
    status, summary = replayed(bag, config, "--start", "3", "--duration", "5", "--topics", "/imu")
    assert status == 0 and summary["duration_s"] == pytest.approx(5, abs=0.02)
    assert summary["losses"]["sensors"]["imu"]["messages"] == 500
    assert summary["losses"]["topics_of_no_sensor"] == {}
    assert [(item["onset"], item["offset"]) for item in summary["truth"]] == [(1.0, 2.5), (4.5, 5.0)]
    assert "from 3 s to 8 s" in capsys.readouterr().out
    for wrong in (["--start", "-1"], ["--duration", "nan"]):
        with pytest.raises(SystemExit):
            main(["replay", str(bag), *wrong])
    assert main(["replay", str(bag), "--config", str(config), "--topics", "/gps"]) == 2
    assert "no messages on /gps, but on /imu, /notes" in capsys.readouterr().err


def test_an_open_replay_of_a_part_gives_its_samples_only(tmp_path: Path, config: Path) -> None:
    settings = Settings.read(config)
    with open_replay(record_imu(tmp_path / "bag"), settings.embedder, selection=Selection(2.0, 1.5)) as replay:
        assert replay.seconds == pytest.approx(1.5)
        assert len(list(replay.samples())) == 150


def test_a_database_that_lost_its_end_replays_up_to_there(tmp_path: Path, config: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    from sensebind.fusion.io.recordings import Recording, typestore

    with (
        Recording(record_imu(tmp_path / "whole")) as whole,
        Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        connection = writer.add_connection("/imu", "sensor_msgs/msg/Imu", typestore=typestore())
        for _, _, stamp, data in whole.cdr_messages(["/imu"]):
            writer.write(connection, stamp, data)
    [file] = (tmp_path / "bag").glob("*.db3")
    assert sqlite3.connect(file).execute("SELECT count(*) FROM messages").fetchone() == (1200,)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    status, summary = replayed(tmp_path / "bag", config, "--strict")
    damage, missing = summary["losses"]["recording"]
    read = summary["losses"]["sensors"]["imu"]["messages"]
    assert status == 1 and 300 < read < 900 and missing["messages"] == 1200 - read
    assert damage["cause"] == "damaged" and "bytes" in damage["text"]


def test_each_count_is_at_one_place_of_the_summary(tmp_path: Path, config: Path) -> None:
    _, summary = replayed(record_imu(tmp_path / "bag", faulty), config)
    lost, figures = summary["losses"]["sensors"]["imu"], summary["modalities"]["imu"]
    assert not lost.keys() & figures.keys() and not {"dropped", "samples_dropped", "unfused"} & figures.keys()
    assert figures["samples"] == lost["messages"] and figures["windows"] >= figures["embedded"]


def test_the_identity_in_the_summary_holds_for_messages_samples_windows_and_embeddings(
    tmp_path: Path, config: Path
) -> None:
    _, summary = replayed(record_imu(tmp_path / "bag", faulty), config)
    accounts, figures = summary["losses"]["sensors"]["imu"]["accounts"], summary["modalities"]["imu"]
    assert list(accounts) == ["published", "messages", "samples", "windows", "embedded"]
    for name, account in accounts.items():
        assert account["total"] == sum(account["used"].values()) + sum(account["dropped"].values()), name
        assert account["unaccounted"] == 0 and "waiting" not in account, name
    totals = [accounts[name]["total"] for name in accounts]
    assert totals == [round(SECONDS * RATE) + 2] * 3 + [figures["windows"], figures["embedded"]]
    dropped = accounts["samples"]["dropped"]
    assert (dropped["unstamped"], dropped["invalid"], dropped["duplicate"]) == (5, 3, 2)


def test_values_of_images_that_do_not_fit_are_named_in_the_summary_and_the_report(tmp_path: Path, config: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for number in range(20):  # 12 bits in 16
            pixels = np.random.default_rng(number).integers(0, 4000, (8, 8)).astype(np.uint16)
            stamp = SECOND + number * SECOND // 10
            bag.write("/camera/image", "sensor_msgs/msg/Image", stamp, image("mono16", pixels, stamp))
    _, summary = replayed(tmp_path / "bag", config)
    page = " ".join(Page((tmp_path / "out" / "report.html").read_text()).words)
    [note] = [note for note in summary["notes"] if "vision.bits" in note]
    assert note.startswith("vision: ") and "vision.bits" in page


def test_samples_between_windows_are_named_as_configured(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(FILE + "    imu: {window: 0.2, hop: 0.5}\n")
    _, summary = replayed(record_imu(tmp_path / "bag"), config)
    count = summary["losses"]["sensors"]["imu"]["samples_lost"]["between"]
    text = f"imu: {count} samples are between two windows, because imu.window is shorter than imu.hop"
    assert count > 500 and text in capsys.readouterr().out and any(note.startswith(text) for note in summary["notes"])
