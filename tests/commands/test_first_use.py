"""The first hour with the command line: broken installations, wrong names, and what is shown while work runs."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from io import StringIO
from pathlib import Path

import pytest

from helpers.command_line import command, environment, sensebind
from helpers.paths import ROOT
from sensebind.cli import main
from sensebind.commands.doctor import installation as doctor
from sensebind.replay import progress

# Runs when Python starts: packages named in HIDDEN_PACKAGES are not found, as if they were not installed.
HIDE = """
import os, sys
HIDDEN = os.environ["HIDDEN_PACKAGES"].split()
class Without:
    def __init__(self, finder):
        self._finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self._finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self._finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def doctor_in(folder: Path, hidden: str, broken: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run doctor where packages are hidden, and others are broken: package → its program."""
    (folder / "sitecustomize.py").write_text(HIDE)
    for package, program in broken.items():
        (folder / f"{package}.py").write_text(program)
    path = os.pathsep.join([str(folder), str(ROOT)])
    return sensebind("doctor", variables={"HIDDEN_PACKAGES": hidden, "PYTHONPATH": path, "ROS_DISTRO": "jazzy"})


def test_doctor_works_without_any_package_and_names_the_commands_that_install_them(tmp_path: Path) -> None:
    packages = [package.module for package in (*doctor.REQUIRED, *doctor.OPTIONAL)]
    done = doctor_in(tmp_path, " ".join([*packages, "rclpy", "transformers"]), {})
    assert done.returncode == 1 and not done.stderr
    assert (
        "ok   python: " in done.stdout and f"FAIL packages: 0 of {len(doctor.REQUIRED)}; not installed" in done.stdout
    )
    assert "pip install -c constraints.txt numpy scipy" in done.stdout and "rosdep install" in done.stdout
    if Path("/etc/debian_version").is_file():
        assert "sudo apt install python3-numpy python3-scipy python3-yaml python3-opencv" in done.stdout
    assert "note tqdm: not installed" in done.stdout and "FAIL spaces: the check failed" in done.stdout


def test_doctor_reports_packages_that_crash_or_raise_and_still_checks_the_others(tmp_path: Path) -> None:
    broken = {"cv2": "import os; os.abort()", "soxr": "raise SystemExit('bye')", "ftfy": "import nowhere"}
    done = doctor_in(tmp_path, "scipy", broken)
    assert done.returncode == 1 and not done.stderr
    lines = done.stdout.splitlines()
    (crash,) = [line for line in lines if line.startswith("FAIL opencv-python-headless: ")]
    assert "Python crashed" in crash and "FAIL soxr: cannot be imported: SystemExit: bye" in lines
    assert "FAIL ftfy: cannot be imported: No module named 'nowhere'" in lines
    assert any(line.endswith("not installed: scipy") for line in lines)
    assert "FAIL spaces: not checked, because cv2 crashes Python" in lines


def test_a_command_without_its_packages_names_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = sensebind("replay", "x", variables={"HIDDEN_PACKAGES": "numpy", "PYTHONPATH": path})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "run `sensebind doctor`" in done.stderr


def test_scenarios_are_found_by_name_from_any_folder(tmp_path: Path) -> None:
    listed = sensebind("simulate", "--list", folder=tmp_path)
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert listed.returncode == 0 and names == sorted(p.stem for p in (ROOT / "config" / "scenarios").glob("*.yaml"))
    done = sensebind("simulate", "--scenario", "house", "--duration", 1, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "house" / "house.mcap").is_file() and (tmp_path / "out" / "house.truth.tsv").is_file()


@pytest.mark.parametrize("name", ["hosue", "config/scenarios/hous.yaml", "./nowhere/house.yml"])
def test_the_error_of_a_misspelt_scenario_suggests_the_nearest_one(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--scenario", name]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and f"'{name}'" in shown and "did you mean 'house'" in shown


def test_a_misspelt_key_or_event_of_a_scenario_is_named_with_the_nearest_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, wrong, near in (
        ("durations: 5", "durations", "duration"),
        ("events: [{type: persn, at: 1}]", "persn", "person"),
    ):
        (tmp_path / "s.yaml").write_text(text)
        assert main(["simulate", "--scenario", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "bag")]) == 2
        shown = capsys.readouterr().err
        assert f"'{wrong}'" in shown and f"did you mean '{near}'?" in shown


def test_progress_is_a_line_now_and_then_and_none_for_quick_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = StringIO()
    lines = progress.Lines("replay", 120.0, "s", out)
    for second in range(121):
        now = 100.0 + second / 2
        lines.reach(second)
    assert out.getvalue().splitlines() == [
        "replay: 20 of 120 s (17 %), about 50 s left",
        "replay: 80 of 120 s (67 %), about 20 s left",
    ]
    quick = StringIO()
    lines = progress.Lines("replay", 3.0, "s", quick)
    lines.reach(3.0)
    assert not quick.getvalue()


def test_a_terminal_shows_a_bar_with_the_time_left_on_stderr_alone(tmp_path: Path) -> None:
    side, terminal = pty.openpty()  # it does not say how wide it is
    work = ("simulate", "--scenario", "house", "--duration", 2, "-o", tmp_path / "bag")
    process = subprocess.Popen(command(*work), stdout=subprocess.PIPE, stderr=terminal, text=True, env=environment())
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(side, 4096):
            shown += part
    except OSError:  # the terminal was closed
        pass
    out, _ = process.communicate(timeout=60)
    os.close(side)
    assert process.returncode == 0 and b"simulating" in shown and b"left" in shown and b"%|" in shown
    assert out.count("\n") == 1 and "simulating" not in out
