"""`sensebind bench gpu` from the command line to the file, on a CPU and on a simulated GPU."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import minimal_installation, simulated_cuda
from sensebind.benchmarks import gpu, model, stream
from sensebind.benchmarks.encoders import batch_profile
from sensebind.benchmarks.encoders.spaces import TINY_SIZES, SyntheticImageBind
from sensebind.benchmarks.harness import parts, report_file
from sensebind.cli import main
from sensebind.fusion.core.threads import available_cores

SMI = "580.1, 1980 MHz, 1980 MHz, 2619 MHz"  # a driver that does not report the causes of clock limits


def test_it_runs_from_a_checkout_with_five_packages_within_its_budget(tmp_path: Path) -> None:
    """Only PyTorch, NumPy, OpenCV, PyYAML and safetensors can be imported, also in its processes."""
    target, given = tmp_path / "gpu.json", ["--tiny", "--budget", "240", "--only", "correctness", "device"]
    ended = minimal_installation.run_sensebind(
        tmp_path, "bench", "gpu", "--device", "cpu", *given, "-o", str(target), timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    content = json.loads(target.read_text(), parse_constant=pytest.fail)
    assert list(content["parts"]) == ["correctness", "device"] and content["source"]["digest"]
    found = content["parts"]
    assert found["correctness"]["passed"] and len(found["correctness"]["modalities"]) == 5
    assert found["device"]["matmul_tflops"]["float32"] > 0
    assert sum(part["took_s"] for part in found.values()) < 240
    assert "vectors    right" in ended.stdout and "2 done" in ended.stdout


def test_without_a_gpu_it_is_an_error_and_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main(["bench", "gpu"]) == 2
    captured = capsys.readouterr()
    assert "finds no GPU" in captured.err and "--device cpu --tiny" in captured.err and not captured.out


@pytest.fixture
def simulated_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> argparse.Namespace:
    """Options of the benchmark on a simulated GPU, with sizes that a CPU computes fast."""
    simulated_cuda.install(monkeypatch)
    monkeypatch.setattr(model, "GPU_MATRIX_SIZE", 64)
    monkeypatch.setattr(gpu, "LINEAR_LAYER_SHAPES", ((64, 128, 256),))
    monkeypatch.setattr(gpu, "COPY_BYTES", 1000)
    monkeypatch.setattr(gpu, "GPU_CHECK_SIZES", (6, 8))
    monkeypatch.setattr(gpu, "ROBOT_SECONDS", 1.5)
    monkeypatch.setattr(gpu, "SEARCH_SECONDS", (4.0, 4.0))
    monkeypatch.setattr(stream, "MAX_ROBOTS", 1)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncase \"$*\" in *clocks_event*) exit 2;; esac\necho '{SMI}'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    return parser.parse_args(["--device", "cuda", "--tiny", "--space", "imagebind_huge"])


def test_every_part_runs_on_a_simulated_gpu(simulated_gpu: argparse.Namespace, tmp_path: Path) -> None:
    """The code for a GPU runs: graphs, streams, events, pinned memory, clocks."""
    found: dict[str, Any] = {}
    for part in gpu.parts(simulated_gpu):
        seconds = 100.0 if part.name.startswith("most_robots") else 4.0  # the search ends early: `MAX_ROBOTS` is 1
        found[part.name] = parts.run_in_process(part, seconds, lambda result: None)
        assert "failed" not in found[part.name], (part.name, found[part.name])
    report_file.write_json(tmp_path / "gpu.json", found)
    for modality, item in found["correctness"]["modalities"].items():
        assert item["passed"] and item["graphs"] == {"captured": 5, "shapes": 5, "passed": True}, modality
        assert item["reference_on_cpu"]["passed"]
    assert found["correctness"]["all_modalities"]["passed"]
    facts = found["device"]
    assert facts["gpu"] == f"{simulated_cuda.GPU_NAME}, 8 GiB" and facts["gpu_state"]["clocks.sm"] == "1980 MHz"
    assert facts["gpu_state"]["driver_version"] == "580.1" and "clocks_event_reasons.active" not in facts["gpu_state"]
    assert facts["pinned_copy_gb_per_s"] > 0 and facts["linear"][0]["tflops"] > 0
    vision = found["vision"]
    by_attention = vision["stages"]["32"]["encoder_ms_by_attention"]
    assert isinstance(by_attention["FLASH_ATTENTION"], float) and "failed" in by_attention["CUDNN_ATTENTION"]
    assert vision["stages"]["1"]["encoder_eager_ms"] > 0 and "failed" in vision["kernels"], "a CPU has no CUDA profiler"
    assert vision["targets"]["min_cosine"]["got"] >= 0.999 and vision["gpu_state_after"]["clocks.sm"] == "1980 MHz"
    assert found["one_robot"]["graphs"] and found["one_robot"]["windows"]["vision"] > 0
    assert found["most_robots"]["tried"]
    with_workers = found["most_robots_with_workers"]
    assert with_workers["tried"] and with_workers["workers"]["count"] == max(1, min(8, available_cores() // 2))
    with_workers = found["most_robots_with_workers"]
    assert with_workers["tried"] and with_workers["workers"]["count"] == max(1, min(8, available_cores() // 2))


def test_a_batch_is_timed_by_stage_and_kernel() -> None:
    space = SyntheticImageBind(["imu"], sizes=TINY_SIZES)
    raw = torch.randn(3, 6, 2000)
    *_, stages = batch_profile.batch_stage_times(space, "imu", raw, 0.01)
    assert stages["batch"] == 3 and stages["encoder_ms"] > 0 and stages["encoder_eager_ms"] > 0
    assert all(isinstance(ms, float) for ms in stages["encoder_ms_by_attention"].values())
    listed = batch_profile.slowest_kernels(space, "imu", raw)
    assert isinstance(listed, list) and listed[0]["ms"] >= listed[-1]["ms"] and "aten::" in listed[0]["name"]


def test_a_failed_graph_capture_is_reported_and_fails_the_check(
    simulated_gpu: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: Any, **options: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    monkeypatch.setattr(gpu.sensor_load, "MESSAGE_RATES", {"imu": gpu.sensor_load.MESSAGE_RATES["imu"]})
    found = gpu.check_vectors(simulated_gpu, 30.0, lambda result: None)
    graphs = found["modalities"]["imu"]["graphs"]
    assert not found["passed"] and graphs["captured"] == 0 and "not permitted" in graphs["error"]
    assert found["modalities"]["imu"]["device_path"]["wrong_window"] == 0, "without graphs the vectors are correct"


def test_out_of_memory_in_one_modality_does_not_stop_the_other_checks(
    simulated_gpu: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = gpu.spaces.load

    def cramped(args: Any, modalities: Any = (), dtype: str | None = None) -> Any:
        if "depth" in modalities:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(args, modalities, dtype)

    monkeypatch.setattr(gpu.spaces, "load", cramped)
    monkeypatch.setattr(
        gpu.sensor_load, "MESSAGE_RATES", {m: gpu.sensor_load.MESSAGE_RATES[m] for m in ("depth", "imu")}
    )
    found = gpu.check_vectors(simulated_gpu, 30.0, lambda result: None)
    assert not found["passed"] and "out of memory" in found["modalities"]["depth"]["failed"]
    assert found["modalities"]["imu"]["passed"] and found["all_modalities"]["passed"]
