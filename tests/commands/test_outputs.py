"""What a command writes is whole or not there, and never replaces what it reads or what others wrote."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.rocking_imu import rocking_motion
from helpers.toy_space import ToySpace
from sensebind.cli import main
from sensebind.fusion.core import atomic
from sensebind.fusion.core.atomic import WriteError, require_apart, require_space, require_writable, staged, write_bytes
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.io.recordings import BagWriter
from sensebind.fusion.models import registry
from sensebind.simulation.messages import imu_messages

CONFIG = """
/**:
  ros__parameters:
    space: toy
    modalities: [imu]
    detectors: [prompt]
    prompts: {bump: [a bump]}
"""


@pytest.fixture(autouse=True)
def toy_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line embeds with the toy space."""
    monkeypatch.setattr(registry, "load_space", lambda name, **given: ToySpace())


def record(path: Path, seconds: float = 6.0) -> Path:
    """A bag with an IMU."""
    with BagWriter(path) as bag:
        for stamp, topic, kind, message in imu_messages(bag.message_factory, *rocking_motion(seconds)):
            bag.write(topic, kind, stamp, message)
    return path


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(CONFIG)
    return record(tmp_path / "bag")


def contents(folder: Path) -> dict[str, bytes]:
    """Path → bytes of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def replay(recording: Path, out: Path, *more: object) -> int:
    """Run `sensebind replay` with the parameter file beside the bag of the fixture."""
    config = next(parent / "p.yaml" for parent in recording.absolute().parents if (parent / "p.yaml").exists())
    return main(["replay", str(recording), "--config", str(config), "--out", str(out), *map(str, more)])


@contextmanager
def disk_that_holds(size: int) -> Iterator[None]:
    """No file can be longer than `size` bytes: the error of a full disk, for this process alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_replay_deletes_its_recording(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = record(tmp_path / "out" / "outputs")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "outputs").symlink_to(recording)
    before = contents(tmp_path)
    for given, out, relation in (
        (recording, tmp_path / "out", "is"),
        (recording, tmp_path / "link", "is"),
        (recording, tmp_path / "other", "is"),
        (tmp_path / "link" / "outputs", tmp_path / "out" / ".." / "out", "is"),
        (next(recording.glob("*.mcap")), tmp_path / "out", "contains"),
        (bag, bag, "is inside"),
    ):
        assert replay(given, out, "--overwrite") == 2
        assert f" {relation} the input '{given}'" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_no_file_of_the_input_is_an_output(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, sound, scenario = tmp_path / "p.yaml", tmp_path / "a.wav", tmp_path / "s.yaml"
    sound.write_bytes(b"sound")
    scenario.write_text("duration: 2")
    truth = Path(f"{bag}.truth.tsv")
    truth.write_text("1\t2\tbump\n")
    os.link(truth, tmp_path / "hard_link")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    before = contents(tmp_path)
    replayed = ["replay", str(bag), "--config", str(config), "--out", str(tmp_path / "out")]
    for arguments in (
        [*replayed, "--suggest", str(truth)],
        [*replayed, "--suggest", str(tmp_path / "hard_link")],
        [*replayed, "--suggest", str(config)],
        [*replayed, "--rerun", str(bag / "x.rrd")],
        [*replayed, "--rerun", str(tmp_path / "out" / "summary.json")],
        ["calibrate", str(bag), "--config", str(config), "-o", str(truth)],
        ["calibrate", str(bag), "--config", str(config), "-o", str(bag / "calibration.safetensors")],
        ["embed", str(sound), "--modality", "audio", "-o", str(sound)],
        ["simulate", "--scenario", str(scenario), "-o", str(scenario), "--overwrite"],
        ["align", str(bag), "--modality", "imu", "-o", str(bag / "spoke.safetensors")],
        ["evaluate", "false-alarms", str(bag), "--out", str(bag)],
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "summary.json").write_text("{}")
        assert main(arguments) == 2, arguments
        assert "name another place for the output" in capsys.readouterr().err, arguments
        (tmp_path / "out" / "summary.json").unlink()
    assert contents(tmp_path) == before


def test_a_spoke_may_be_written_beside_the_folders_of_its_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "audio").mkdir()
    work = ["align", "--pairs", str(tmp_path), "--modality", "audio", "-o"]
    assert main([*work, str(tmp_path / "audio" / "spoke.safetensors")]) == 2
    assert "name another place for the output" in capsys.readouterr().err
    assert main([*work, str(tmp_path / "spoke.safetensors")]) == 2
    assert "must hold folders 'audio' and" in capsys.readouterr().err, "the next check"


def test_paths_are_compared_by_file_and_not_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("")
    monkeypatch.chdir(tmp_path / "in")
    require_apart(tmp_path / "in2", [tmp_path / "in"])
    require_apart("../out", [".", None, "no such file"])
    for output in ("file", "../in", "new", tmp_path, tmp_path / "in" / "deep" / "new"):
        with pytest.raises(ConfigError, match="name another place"):
            require_apart(output, [tmp_path / "in", tmp_path / "in" / "file"])


def test_only_files_of_this_program_are_overwritten(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert replay(bag, out) == 0
    assert replay(bag, out) == 2 and "outputs' exists already" in capsys.readouterr().err
    assert replay(bag, out, "--overwrite") == 0
    (out / "outputs" / "thesis.tex").write_text("my thesis")
    assert replay(bag, out, "--overwrite") == 2
    assert "files that are not of its bag (thesis.tex)" in capsys.readouterr().err
    (out / "outputs" / "thesis.tex").unlink()
    metadata = out / "outputs" / "metadata.yaml"
    own = metadata.read_text()
    metadata.write_text(own.replace("written_by: sensebind", "written_by: me"))
    assert replay(bag, out, "--overwrite") == 2 and "did not write" in capsys.readouterr().err
    metadata.write_text(own)
    (out / "summary.json").write_text('{"accounts": []}')
    assert replay(bag, out, "--overwrite") == 2 and "is of another program" in capsys.readouterr().err
    assert (out / "summary.json").read_text() == '{"accounts": []}'
    (out / "summary.json").unlink()
    assert replay(bag, out, "--overwrite") == 0
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "report.html").write_text("my report")
    assert replay(bag, fresh) == 2 and (fresh / "report.html").read_text() == "my report"


def test_a_simulation_keeps_a_truth_that_a_person_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bag.faults.tsv").write_text("mine")
    (tmp_path / "s.yaml").write_text("duration: 1")
    work = ["simulate", "--scenario", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "bag"), "--overwrite"]
    assert main(work) == 2 and "bag.faults.tsv' exists" in capsys.readouterr().err
    assert (tmp_path / "bag.faults.tsv").read_text() == "mine" and not (tmp_path / "bag").exists()


@pytest.mark.parametrize("size", [0, 3000, 30_000])
def test_a_replay_on_a_full_disk_leaves_nothing(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    with disk_that_holds(size):
        assert replay(bag, tmp_path / "out") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("sensebind replay: ") and f"'{tmp_path / 'out'}" in error
    assert "cannot be written: File too large; free space" in error
    assert not (tmp_path / "out").exists()


def test_a_replay_on_a_full_disk_keeps_the_earlier_one(bag: Path, tmp_path: Path) -> None:
    assert replay(bag, tmp_path / "out") == 0
    before = contents(tmp_path)
    with disk_that_holds(30_000):
        assert replay(bag, tmp_path / "out", "--overwrite") == 2
    assert contents(tmp_path) == before


def test_other_commands_on_a_full_disk_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text("duration: 1")
    before = contents(tmp_path)
    phrases = [f"phrase {number}" for number in range(200)]
    for arguments in (
        ["embed", *phrases, "--modality", "text", "-o", str(tmp_path / "v.npz")],
        ["keys", "--out", str(tmp_path / "keys")],
        ["simulate", "--scenario", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "bag")],
    ):
        with disk_that_holds(20):
            assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert "cannot be written" in error and "File too large" in error and "Traceback" not in error
    assert contents(tmp_path) == before


def test_a_key_that_was_not_written_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zmq")
    with disk_that_holds(50):
        assert main(["keys", "--out", str(tmp_path / "keys")]) == 2
    assert "keys cannot be written" in capsys.readouterr().err
    assert main(["keys", "--out", str(tmp_path / "keys")]) == 0
    secret = tmp_path / "keys" / "bridge.key_secret"
    assert "secret-key" in secret.read_text() and secret.stat().st_mode & 0o777 == 0o600


def test_a_training_checkpoint_on_a_full_disk_is_an_error_that_keeps_the_earlier_one(tmp_path: Path) -> None:
    from sensebind.training.spoke_training import TrainingOptions, _TrainingState

    network = torch.nn.Linear(64, 64)
    log_scale = torch.nn.Parameter(torch.zeros(()))
    state = _TrainingState(network, torch.optim.AdamW(network.parameters()), log_scale, TrainingOptions())
    state.save(tmp_path / "c.pt")
    before = contents(tmp_path)
    with disk_that_holds(2000), pytest.raises(WriteError, match="cannot be written: File too large"):
        state.save(tmp_path / "c.pt")
    assert contents(tmp_path) == before


def test_a_place_that_cannot_be_written_is_an_error_before_the_work(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    config = str(tmp_path / "p.yaml")
    Path(f"{bag}.truth.tsv").write_text("1\t2\tbump\n")
    for arguments in (
        ["replay", str(bag), "--config", config, "--out", str(tmp_path / "file")],
        ["replay", str(bag), "--config", config, "--out", str(tmp_path / "file" / "deep")],
        ["evaluate", "false-alarms", str(bag), "--config", config, "--out", str(tmp_path / "file")],
        ["calibrate", str(bag), "--config", config, "-o", str(tmp_path / "file" / "c.safetensors")],
        ["embed", "a", "--modality", "text", "-o", str(tmp_path / "file" / "v.npz")],
        ["embed", "a", "--modality", "text", "-o", "/proc/nothing/v.npz"],
        ["keys", "--out", str(tmp_path / "file")],
        ["simulate", "--scenario", "house", "-o", str(tmp_path / "file" / "bag")],
        ["align", str(bag), "--modality", "imu", "-o", str(tmp_path / "file" / "s.safetensors")],
        ["bench", "windows", "-o", str(tmp_path / "file" / "w.json")],
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "cannot be written" in error, (arguments, error)


def test_the_space_that_is_needed_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: usage)
    require_space(tmp_path / "new" / "folder", 1000)
    with pytest.raises(WriteError, match="it needs 5 MB, and the disk has 0 MB free; free space"):
        write_bytes(tmp_path / "new" / "file", bytes(5_000_000))
    with pytest.raises(WriteError, match="needs"), staged(tmp_path / "new", 2000):
        pass
    assert not list(tmp_path.iterdir())


def test_the_check_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_embeddings_are_whole(tmp_path: Path) -> None:
    assert main(["embed", "a", "b", "--modality", "text", "-o", str(tmp_path / "v.npz")]) == 0
    with np.load(tmp_path / "v.npz") as file:
        assert file["vectors"].shape == (2, 16) and list(file["names"]) == ["a", "b"]


def test_topics_of_a_recording_cannot_write_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(CONFIG)
    hostile = "/imu\x1b[2J\n[INFO] all is well"
    with BagWriter(tmp_path / "bag") as bag:
        for stamp, _, kind, message in imu_messages(bag.message_factory, *rocking_motion(6.0)):
            message.header.frame_id = "\x1b]0;title\x07\nbase"
            bag.write(hostile, kind, stamp, message)
    assert main(["topics", str(tmp_path / "bag")]) in (0, 1)
    replay(tmp_path / "bag", tmp_path / "out")
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert "\x1b" not in text and "\x07" not in text and "\n[INFO]" not in text
    assert "/imu\\x1b[2J\\n[INFO] all is well" in shown.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "\x1b" not in page
    json.loads((tmp_path / "out" / "summary.json").read_text())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--duration", "1e308"), "36000"),
        (("--duration", "1e-300"), "36000"),
        (("--seed", "-1"), "use 0 to 4294967295"),
        (("--seed", "1" * 40), "use 0 to 4294967295"),
    ],
)
def test_a_simulation_that_no_machine_can_make_is_an_error_in_one_line(
    options: tuple[str, str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = ["simulate", "--scenario", "patrol", "-o", str(tmp_path / "bag"), *options]
    if options[0] == "--seed":
        with pytest.raises(SystemExit) as ended:
            main(work)
        assert ended.value.code == 2
    else:
        assert main(work) == 2
    assert text in capsys.readouterr().err.splitlines()[-1] and not list(tmp_path.iterdir())
