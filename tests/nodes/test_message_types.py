"""The name of a type, which comes from a recording or from another program, imports message packages of ROS only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command_line import environment
from helpers.paths import ROOT
from sensebind.commands.doctor.installation import IMPORT_PROGRAM
from sensebind.fusion.io.recordings import BagWriter

STRING = "std_msgs/msg/String"
ASK = """
import sys
from sensebind.nodes.support.message_types import message_type
for name in sys.argv[1:]:
    try:
        print(message_type(name).__name__)
    except ModuleNotFoundError as error:
        print(error)
"""


@pytest.fixture
def untrusted(tmp_path: Path) -> Path:
    """A folder with code under the names of packages of messages and of libraries."""
    for package in ("evil_msgs", "evil_msgs/msg", "std_msgs", "std_msgs/msg", "yaml", "numpy", "rclpy"):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").write_text("print('code of the folder')\nclass Evil: pass\n")
    return tmp_path


def run(folder: Path, *arguments: str, **variables: str) -> str:
    """The output of a Python program in `folder`."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, timeout=120,
        env=environment(variables),
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_type_imports_no_code_but_messages_of_ros(untrusted: Path) -> None:
    pytest.importorskip("rclpy")
    for library in ("yaml", "numpy", "rclpy"):
        (untrusted / library / "__init__.py").unlink()
        (untrusted / library).rmdir()
    (untrusted / "ask.py").write_text(ASK)
    names = (
        "std_msgs/msg/String", "sensebind_msgs/srv/EmbedText", "evil_msgs/msg/Evil", "antigravity/msg/Fly",
        "this/msg/That", "std_msgs/msg/Nothing", "std_msgs/msg/__doc__", "os/path/Join", "../msg/X", "x", "",
    )  # fmt: skip
    shown = run(untrusted, "ask.py", *names)
    assert "code of the folder" not in shown and "Beautiful is better" not in shown
    lines = shown.splitlines()
    assert lines[:2] == ["String", "EmbedText"] and len(lines) == len(names), shown
    assert all("is not installed" in line or "is no message type" in line for line in lines[2:])


def test_own_programs_run_no_code_of_an_untrusted_folder(untrusted: Path) -> None:
    with BagWriter(untrusted / "bag") as bag:
        bag.write("/text", STRING, 1, bag.message_factory.make(STRING, data="a"))
    shown = run(untrusted, "-m", "sensebind.cli", "topics", "bag")
    assert "1 topic of other types: std_msgs/msg/String" in shown and "code of the folder" not in shown
    for program in (untrusted / "bin" / "sensebind", untrusted / "lib" / "sensebind" / "embedder"):
        program.parent.mkdir(parents=True)
        program.write_text("from sensebind.cli import main\nmain(['topics', 'bag'])\n")
        for paths in (f"{os.pathsep}{ROOT}", f"{ROOT}{os.pathsep}"):  # with an empty entry, as ROS set-ups often have
            shown = run(untrusted, str(program), PYTHONPATH=paths)
            assert "1 topic of other types" in shown and "code of the folder" not in shown
        shown = run(untrusted, str(program), PYTHONPATH=f"{ROOT}{os.pathsep}{untrusted}")
        assert "code of the folder" in shown  # a folder that PYTHONPATH names stays in use
    named = run(untrusted, "-c", "import sys, sensebind; print('' in sys.path)")
    assert named == "True\n"  # another program keeps its own paths


def test_the_doctor_runs_no_code_of_the_current_folder(untrusted: Path) -> None:
    for name in ("json", "importlib"):
        (untrusted / f"{name}.py").write_text("print('code of the folder')\n")
    shown = run(untrusted, "-c", IMPORT_PROGRAM, "yaml")
    assert shown == '["yaml"]\n["yaml", null]\n'
