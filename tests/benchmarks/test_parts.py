"""A benchmark of several parts keeps the figures that it measured, even if a part fails."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sensebind.benchmarks.harness import parts
from sensebind.benchmarks.harness.parts import Part

MODULE = """
import os, signal, subprocess, sys, time
from sensebind.benchmarks.harness.parts import Part

def good(seconds, report):
    return {"value": 1, "process": os.getpid()}

def raises(seconds, report):
    report({"half": 1})
    raise RuntimeError("the device is gone")

def dies(seconds, report):
    report({"half": 2})
    os.kill(os.getpid(), signal.SIGKILL)

def exits(seconds, report):
    os._exit(3)

def hangs(seconds, report):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report({"half": 3, "process": os.getpid()})
    time.sleep(6000)

def parts(args):
    return [Part(name, 0, globals()[name], time_limit=args.limit if name == "hangs" else 600.0) for name in args.names]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "some_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(parts, "TERMINATE_TIMEOUT", 0.5)
    import some_parts

    return some_parts


def perform(module: Any, *names: str, output: Path, budget: float = 3000.0, limit: float = 600.0) -> dict[str, Any]:
    args = argparse.Namespace(names=names, only=None, budget=budget, output=str(output), device="cpu", limit=limit)
    parts.run_parts("some", module.parts(args), args, parts.run_in_subprocess("some_parts", args))
    content: dict[str, Any] = json.loads(output.read_text())["parts"]
    return content


def test_a_part_that_raises_dies_or_hangs_does_not_affect_the_others(module: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    perform(module, "good", output=tmp_path / "out.json")
    limit = round(4.0 + 4 * (time.monotonic() - began))  # s, in which a process starts surely, also on a busy machine
    content = perform(module, "raises", "dies", "exits", "hangs", "good", output=tmp_path / "out.json", limit=limit)
    assert content["raises"]["half"] == 1 and "the device is gone" in content["raises"]["failed"]
    assert content["dies"]["half"] == 2 and "SIGKILL" in content["dies"]["failed"]
    assert "status 3" in content["exits"]["failed"]
    assert content["hangs"]["half"] == 3 and f"limit of {limit} s was exceeded" in content["hangs"]["failed"]
    assert content["good"]["value"] == 1 and content["good"]["process"] != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(content["hangs"]["process"], 0)


def test_a_part_is_skipped_if_too_little_time_is_left(tmp_path: Path) -> None:
    args = argparse.Namespace(only=None, budget=10.0, output=str(tmp_path / "out.json"), device="cpu")
    some = [Part("long", 60, lambda seconds, report: {}), Part("short", 1, lambda seconds, report: {"left": seconds})]
    content = parts.run_parts("some", some, args)
    assert "needs 60" in content["parts"]["long"]["skipped"] and 0 < content["parts"]["short"]["left"] <= 10
    assert not parts.exit_status(content)


def test_a_run_fails_if_every_part_is_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real one takes time of the budget.
    monkeypatch.setattr(parts.environment, "run_conditions", lambda bench, device: {"machine": {}})
    args = argparse.Namespace(only=None, budget=10.0, output=None, device="cpu")
    content = parts.run_parts("some", [Part("long", 60, lambda seconds, report: {})], args)
    assert parts.exit_status(content) == 1 and "long is skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": ["visoin"]}, "no part 'visoin': --only takes good, bad"),
        ({"only": ["good,bad"]}, "separated by spaces"),
        ({"budget": 0.0}, "positive number of seconds"),
        ({"budget": float("nan")}, "positive number of seconds"),
        ({"output": "/proc/none/out.json"}, "cannot write the figures to '/proc/none/out.json'"),
    ],
)
def test_wrong_arguments_are_an_error_before_anything_is_measured(given: dict[str, Any], message: str) -> None:
    def never(seconds: float, report: parts.Report) -> dict[str, Any]:
        raise AssertionError("the part was run")

    args = argparse.Namespace(**{"only": None, "budget": 10.0, "output": None, "device": "cpu", **given})
    with pytest.raises(parts.PartError, match=re.escape(message)):
        parts.run_parts("some", [Part("good", 1, never), Part("bad", 1, never)], args)


def test_an_output_that_is_a_folder_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    args = argparse.Namespace(only=None, budget=10.0, output=str(tmp_path / "out"), device="cpu")
    with pytest.raises(parts.PartError, match="cannot write"):
        parts.run_parts("some", [], args)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_terminated_benchmark_ends_its_part_and_keeps_the_figures(module: Any, tmp_path: Path) -> None:
    script = """
import argparse, sys, some_parts
from sensebind.benchmarks.harness import parts
parts.TERMINATE_TIMEOUT = 0.5
names = ["good", "hangs"]
args = argparse.Namespace(names=names, only=None, budget=3000.0, output=sys.argv[1], device="cpu", limit=600.0)
measure = parts.run_in_subprocess("some_parts", args)
sys.exit(parts.exit_status(parts.run_parts("some", some_parts.parts(args), args, measure)))
"""
    target = tmp_path / "out.json"
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], env=parts.subprocess_environment())
    until = time.monotonic() + 300
    while not (target.exists() and "half" in target.read_text()):
        assert time.monotonic() < until, "the part did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 1
    content = json.loads(target.read_text())
    assert content["stopped"] == "during hangs" and "SIGTERM" in content["parts"]["hangs"]["failed"]
    assert content["parts"]["good"]["value"] == 1 and content["parts"]["hangs"]["half"] == 3
    with pytest.raises(ProcessLookupError):
        os.kill(content["parts"]["hangs"]["process"], 0)
