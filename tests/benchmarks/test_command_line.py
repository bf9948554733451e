"""The shared command line of the benchmarks: a run ends with a table, a file and an exit status."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sensebind.benchmarks import all as everything
from sensebind.benchmarks.harness import command_line, processes
from sensebind.nodes.support.processes import stop_process


def options(tmp_path: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command_line.add_hop(parser, 0.3)
    command_line.add_output(parser)
    return parser.parse_args(["-o", str(tmp_path / "figures.json")])


def test_a_run_prints_and_writes_the_figures_with_the_device_that_was_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def report(bench: str, result: dict[str, Any], device: str) -> dict[str, Any]:
        devices.append(device)
        return {"bench": bench, "figures": result}

    def measure(args: argparse.Namespace) -> dict[str, Any]:
        args.device = "resolved"
        return {"hop": args.hop}

    monkeypatch.setattr(command_line.report_file, "with_conditions", report)
    args = options(tmp_path)
    assert command_line.run_and_report("some", measure, args) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == {"bench": "some", "figures": {"hop": 0.3}}
    assert "hop" in capsys.readouterr().out
    assert (
        command_line.run_and_report("some", measure, args, device="cpu", passed=lambda result: result["hop"] > 1) == 1
    )
    assert command_line.run_and_report("some", lambda args: {}, options(tmp_path)) == 0
    assert devices == ["resolved", "cpu", "cpu"]


def test_an_expected_error_gives_a_message_and_exit_status_1_and_others_are_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: argparse.Namespace) -> dict[str, Any]:
        raise processes.ProcessError("the embedder did not start")

    assert command_line.run_and_report("ros", fail, options(tmp_path), expected=(processes.ProcessError,)) == 1
    assert capsys.readouterr().err == "bench ros: the embedder did not start\n"
    with pytest.raises(processes.ProcessError):
        command_line.run_and_report("ros", fail, options(tmp_path))
    assert not (tmp_path / "figures.json").exists()


def test_nodes_of_a_benchmark_use_the_ros_domain_and_modules_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS" and "ROS_" not in name}
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(sys, "path", ["", "/some/checkout"])
    environment = processes.ros_environment()
    assert environment["PYTHONPATH"] == "/some/checkout" and environment["OMP_NUM_THREADS"] == "1"
    assert variables["ROS_DOMAIN_ID"] == environment["ROS_DOMAIN_ID"] and variables.get("OMP_NUM_THREADS") is None
    variables["OMP_NUM_THREADS"] = "3"
    assert processes.ros_environment()["OMP_NUM_THREADS"] == "3"


def test_a_process_that_ignores_the_signal_is_killed() -> None:
    for ignore, status in ((False, 0), (True, -signal.SIGKILL)):
        handler = "signal.SIG_IGN" if ignore else "lambda *_: sys.exit(0)"
        program = (
            f"import signal, sys, time; signal.signal(signal.SIGINT, {handler}); print(flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        stop_process(process, 0.5 if ignore else 30)
        assert process.returncode == status and time.monotonic() - began < 20
        process.stdout.close()


def test_bench_all_begins_with_gpu_benchmarks_or_on_a_cpu_with_the_quickest() -> None:
    names = {d: [p.name for p in everything.parts(argparse.Namespace(device=d))] for d in ("cpu", "cuda")}
    assert names["cuda"][:3] == ["model_vision", "one_robot", "most_robots"] and names["cpu"][0] == "pipeline"
    assert len(names["cpu"]) == 11 and sorted(names["cpu"]) == sorted(names["cuda"]) and names["cpu"][-1] == "ros"
