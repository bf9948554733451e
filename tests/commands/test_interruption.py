"""Ctrl-C leaves no result that is not complete, at whichever moment it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers.command_line import command, environment
from helpers.patrols import record_patrol
from sensebind.fusion.core.atomic import STAGING_PREFIX, staged, staged_file, write_text
from sensebind.fusion.io.recordings import BagWriter

STRING = "std_msgs/msg/String"
# The shell sees 130 for both: CPython ends itself by the signal if Ctrl-C came while it compiled code.
INTERRUPTED = (130, -signal.SIGINT)


def interrupt(arguments: tuple[object, ...], folder: Path, when: Callable[[], bool]) -> None:
    """Run `sensebind`, send SIGINT to its process group when `when()` is true, and check how it ends."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=folder,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in INTERRUPTED, stderr
    lines = [line for line in stderr.splitlines() if not line.startswith("replay: ")]
    assert lines == [f"sensebind {arguments[0]}: interrupted"]


def staged_files(folder: Path) -> list[Path]:
    """The files that are being written in `folder`."""
    return [p for stage in folder.rglob(f"{STAGING_PREFIX}*") for p in stage.rglob("*") if p.is_file()]


@pytest.fixture(scope="module")
def patrol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("patrol") / "bag"
    record_patrol(path, duration=12.0)
    return path


def test_an_interrupted_replay_keeps_the_outputs_of_the_earlier_one(patrol: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "out" / "outputs"
    with BagWriter(earlier) as bag:
        bag.write("/text", STRING, 1, bag.message_factory.make(STRING, data="an earlier bag"))
    before = (earlier / "outputs.mcap").read_bytes()
    began = ("replay", patrol, "--out", tmp_path / "out", "--overwrite")

    def has_read_some() -> bool:
        return any(path.stat().st_size > 300_000 for path in staged_files(tmp_path))

    interrupt(began, tmp_path, has_read_some)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["outputs"]
    assert (earlier / "outputs.mcap").read_bytes() == before


def test_an_interrupted_simulation_writes_neither_bag_nor_truth(tmp_path: Path) -> None:
    work = ("simulate", "--scenario", "house", "-o", tmp_path / "new" / "bag")
    interrupt(work, tmp_path, lambda: any(path.stat().st_size > 1_000_000 for path in staged_files(tmp_path)))
    assert not any(tmp_path.iterdir())  # not even the folder


@contextmanager
def interrupted_after(step: int) -> Iterator[None]:
    """Raise KeyboardInterrupt as Ctrl-C does, `step` (0, 1, …) calls after the block begins to write files."""
    real, calls = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > step:
            signal.raise_signal(signal.SIGINT)
        return real(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        yield


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    for step in range(3):
        with pytest.raises(KeyboardInterrupt), interrupted_after(step), staged(tmp_path) as folder:
            for name in "abc":
                (folder / name).write_text(f"new {step}")
        assert [(tmp_path / name).read_text() for name in "abc"] == [f"new {step}"] * 3
    with pytest.raises(KeyboardInterrupt), staged(tmp_path) as folder:
        (folder / "a").write_text("never")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "new 2" and len(list(tmp_path.iterdir())) == 3


def test_a_link_is_followed_a_device_is_kept_and_a_folder_is_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    write_text("/dev/null", "nothing")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(IsADirectoryError, match="give another name"), staged_file(tmp_path):
        pass
    with pytest.raises(OSError, match="nowhere"):
        write_text(tmp_path / "file" / "nowhere" / "x", "")


def test_an_interrupted_conversion_writes_no_weights(tmp_path: Path) -> None:
    from sensebind.fusion.models.imagebind import weights

    source, target = tmp_path / "source.safetensors", tmp_path / "out" / "all.safetensors"
    save_file({f"w{i}": torch.randn(8, 8) for i in range(4)}, source)
    done: list[int] = []

    def progress(size: int) -> None:
        done.append(size)
        if len(done) == 3:  # the digest of the source, then entries
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        weights.convert(source, {target: [f"w{i}" for i in range(4)]}, torch.bfloat16, progress)
    assert not (tmp_path / "out").exists()
    weights.convert(source, {target: [f"w{i}" for i in range(4)]}, torch.bfloat16)
    assert target.is_file()
