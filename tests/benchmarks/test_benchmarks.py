"""The benchmarks run, count correctly, and write the conditions of a run. These tests do not check speed."""

from __future__ import annotations

import argparse
import json
import math
import mmap
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import minimal_installation
from helpers.small_imagebind import SIZES
from helpers.toy_space import ToySpace
from sensebind.benchmarks import all as everything
from sensebind.benchmarks import model, overload, start, stream
from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness import environment, report_file, resources, sensor_load, timing
from sensebind.benchmarks.realtime import run as realtime
from sensebind.benchmarks.recordings import reading
from sensebind.cli import main
from sensebind.fusion.config import build
from sensebind.fusion.config.build import make_window_specs
from sensebind.fusion.config.parameters import embedder_values
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Space
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.models.imagebind.space import ImageBindSpace
from sensebind.fusion.stream.pipeline import Pipeline

BENCHES = ("pipeline", "model", "stream", "windows", "ros", "start", "overload", "soak", "events", "imagebind")
BENCHES += ("gpu", "recordings", "all")


def options(module: Any, *given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(given)


@pytest.fixture
def tiny_bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Space]:
    """Benchmarks measure ImageBind with synthetic weights and 16 dimensions."""

    def load(args: Any, modalities: Any = tuple(sensor_load.MESSAGE_RATES), dtype: str | None = None) -> Space:
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        return spaces.SyntheticImageBind(modalities, "cpu", kind, SIZES)

    monkeypatch.setattr(spaces, "load", load)
    return load


def test_every_window_of_a_live_robot_is_embedded_or_counted_as_dropped() -> None:
    modalities = ("vision", "audio", "imu")
    values = embedder_values({"modalities": modalities, **{f"{m}.hop": 0.2 for m in modalities}})
    engine = Engine(ToySpace())
    pipelines = [build.make_pipeline(values, ToySpace(), engine=engine, live=True) for _ in range(2)]
    seen = realtime.run_realtime(pipelines, sensor_load.sensors(modalities), 1.0)
    summary = realtime.realtime_summary(seen, pipelines)
    assert seen.cpu_seconds > 0 and summary["robots"] == 2
    for pipeline in pipelines:
        for modality, statistics in pipeline.statistics().items():
            assert statistics.counts["samples"] == sensor_load.MESSAGE_RATES[modality]
        vision = pipeline.statistics()["vision"].counts
        assert vision["embedded"] + vision["overload"] == vision["windows"] >= 3
    assert summary["windows"]["vision"] == sum(p.statistics()["vision"].counts["embedded"] for p in pipelines)
    assert summary["latency_ms"]["vision"]["count"] >= 2 and summary["latency_ms"]["vision"]["p50"] > 0


@pytest.mark.slow
def test_robots_in_worker_processes_are_measured_with_a_device_that_answers_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stream.json"
    options = ["--tiny", "--space", "imagebind_huge", "--device", "cpu", "--workers", "2", "--instant-device"]
    assert main(["bench", "stream", *options, "--robots", "3", "--seconds", "4", "-o", str(file)]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert figures["workers"] == {"count": 2, "device": "answers at once"}
    run = figures["fixed_rate"]
    assert run["robots"] == 3 and min(run["windows"].values()) > 3
    assert run["latency_all_modalities_ms"]["count"] > 9
    assert 0 < run["cpu_percent"]["of_which_this_process"] < run["cpu_percent"]["of_a_core"]


@given(
    st.sampled_from(sorted(sensor_load.MESSAGE_RATES)),
    st.integers(0, 10 * SECOND),
    st.floats(0, 0.1),
    st.integers(1, 40),
)
def test_a_window_closes_with_the_first_message_that_reaches_its_time(
    modality: str, time: int, phase: float, factor: int
) -> None:
    sensor = sensor_load.Sensor(modality, sensor_load.MESSAGE_RATES[modality] * factor / 10, phase)
    start_ = sensor_load.DEFAULT_START
    got = sensor.closing_time(start_, start_ + time)
    ends = [sensor.stamp(start_, i) + sensor.duration for i in range(int(12 * sensor.rate) + 3)]
    assert got == next(end for end in ends if end >= start_ + time)


def test_a_report_has_machine_versions_command_and_source(tmp_path: Path) -> None:
    target = tmp_path / "new" / "figures.json"
    report_file.write_json(target, report_file.with_conditions("pipeline", {"a": 1.0}))
    report = json.loads(target.read_text())
    assert report["figures"] == {"a": 1.0} and report["machine"]["cores"] >= 1
    assert "torch" in report["versions"] and report["command"].startswith("sensebind")
    assert report["machine"]["attention"] in ("FLASH_ATTENTION", "MATH", "EFFICIENT_ATTENTION")
    assert len(report["source"]["digest"]) == 12
    assert [p.name for p in target.parent.iterdir()] == ["figures.json"]


def test_numbers_that_json_cannot_express_are_written_as_null(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    report_file.write_json(target, {"a": math.nan, "b": [math.inf, 1.0], "c": {"d": (np.float64("nan"), 2)}})
    assert json.loads(target.read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, 1.0],
        "c": {"d": [None, 2]},
    }


def test_the_source_digest_changes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(environment, "SOURCE_FOLDER", tmp_path)
    first = environment.source_version()
    assert first == environment.source_version() and "commit" not in first, "a folder outside of git has no commit"
    (tmp_path / "a.py").write_text("x = 2\n")
    assert environment.source_version()["digest"] != first["digest"]


def test_quantiles_of_values_and_of_no_values() -> None:
    assert timing.quantiles(list(range(101)))["p95"] == 95
    assert timing.quantiles([])["count"] == 0


@given(st.lists(st.floats(-1e6, 1e6), max_size=40), st.integers(1, 12))
def test_a_ring_buffer_keeps_the_newest_values_in_order(values: list[float], size: int) -> None:
    buffer = timing.RingBuffer(size)
    for value in values:
        buffer.add(value)
    assert list(buffer.values()) == values[-size:] and buffer.count == len(values)


def test_growth_is_the_least_squares_slope() -> None:
    times = np.arange(20.0)
    assert resources.least_squares_slope(times, 3 + 0.5 * times) == pytest.approx(0.5)
    assert resources.least_squares_slope(times, np.full(20, 7.0)) == 0 and math.isnan(
        resources.least_squares_slope([1.0], [1.0])
    )


def test_memory_of_a_process_is_counted_without_shared_memory_and_shared_memory_by_its_size() -> None:
    before = resources.process_resources()
    block = np.frombuffer(mmap.mmap(-1, 320_000_000), np.uint8)  # shared memory, none of it resident yet
    mapped = resources.process_resources()
    block[:] = 1
    used = resources.process_resources()
    assert mapped["shared_mb"] == used["shared_mb"] == pytest.approx(before["shared_mb"] + 305.2, abs=0.1)
    assert used["rss_mb"] > before["rss_mb"] + 150 and used["private_mb"] < before["private_mb"] + 50
    assert all(math.isnan(value) for value in resources.process_resources(2**22 + 1).values())


def test_open_files_and_memory_of_a_process_are_counted(tmp_path: Path) -> None:
    before = resources.process_resources()
    files = [(tmp_path / str(i)).open("w") for i in range(5)]
    block = np.frombuffer(mmap.mmap(-1, 320_000_000), np.uint8)  # pages that no earlier test has left resident
    block[:] = 1
    after = resources.process_resources()
    assert after["files"] == before["files"] + 5 and after["rss_mb"] > before["rss_mb"] + 150
    for file in files:
        file.close()
    assert block.sum() == 320_000_000


def test_bench_model_compares_every_batch_with_single_windows_in_float32(tiny_bench: Callable[..., Space]) -> None:
    args = options(model, "--modalities", "vision", "imu", "--batches", "1", "3", "20", "--seconds", "0.01")
    result = model.measure(args)
    for modality in ("vision", "imu"):
        encoder = result["encoders"][modality]
        assert set(encoder["by_batch"]) == {"1", "3", "20"} and encoder["gflop_per_window"] > 0
        for row in encoder["by_batch"].values():
            assert row["min_cosine"] >= 0.999 and row["windows_per_s"] > 0 and row["times_float32_eager_1"] > 0
            assert row["share_of_matmul"] > 0 and row["wrong_window"] == 0
    assert "synthetic" in result["weights"] and result["matmul_tflops"]["float32"] > 0


def test_operations_of_one_window_are_counted_correctly() -> None:
    """One block of the small vision encoder, counted by hand: patches, attention over 257 tokens, MLP, head."""
    space = spaces.SyntheticImageBind(["vision"], sizes=SIZES)
    tokens, width = 257, 16
    patches = 2 * 256 * (3 * 2 * 14 * 14) * width
    block = 2 * tokens * width * (3 * width + width + 8 * width) + 2 * 2 * tokens * tokens * width
    assert model.flops_per_window(space, "vision", torch.zeros(3, 224, 224)) == patches + block + 2 * width * 16


def test_the_search_for_most_robots_doubles_then_bisects(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    class Linear(stream.RealtimeBenchmark):
        def measure_robots(self, robots: int, seconds: float, factor: float = 1.0) -> dict[str, Any]:
            tried.append(robots)
            return {"latency_ms": {"vision": {"p99": 2.2 * robots}}, "missed": 0, "cpu_percent": {}}

    bench = Linear(ToySpace(), Engine(ToySpace()), {}, "cpu")
    found = bench.find_max_robots(1.0)
    assert found["robots"] == 22 and found["complete"]  # 48.4 ms; 23 take 50.6
    assert tried == [1, 2, 4, 8, 16, 32, 32, 24, 24, 20, 22, 23, 23], "a number that fails is tried once more"


def test_one_failed_try_does_not_end_the_search_for_most_robots() -> None:
    """Every number of robots fails at the first try. Numbers up to 5 pass at the second."""
    tried: list[int] = []

    class FailsFirst(stream.RealtimeBenchmark):
        def measure_robots(self, robots: int, seconds: float, factor: float = 1.0) -> dict[str, Any]:
            tried.append(robots)
            missed = int(tried.count(robots) == 1 or robots > 5)
            return {"latency_ms": {"vision": {"p99": 1.0}}, "missed": missed, "cpu_percent": {}}

    assert FailsFirst(ToySpace(), Engine(ToySpace()), {}, "cpu").find_max_robots(1.0)["robots"] == 5


def test_a_search_without_time_left_reports_the_largest_number_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(stream.RealtimeBenchmark):
        def measure_robots(self, robots: int, seconds: float, factor: float = 1.0) -> dict[str, Any]:
            return {"latency_ms": {"vision": {"p99": 1.0}}, "missed": 0, "cpu_percent": {}}

    reports: list[int] = []
    bench = Slow(ToySpace(), Engine(ToySpace()), {}, "cpu")
    monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: 10.0 * len(reports)))
    found = bench.find_max_robots(10.0, until=36.0, report=lambda result: reports.append(result["robots"]))
    assert reports == [1, 2, 4] and found["robots"] == 4 and not found["complete"]


def test_a_modality_without_latencies_does_not_pass() -> None:
    class Short(stream.RealtimeBenchmark):
        def measure_robots(self, robots: int, seconds: float, factor: float = 1.0) -> dict[str, Any]:
            latency = {"vision": {"p99": 1.0}, "imu": {"p99": math.nan}}
            return {"latency_ms": latency, "missed": 0, "cpu_percent": {}}

    assert Short(ToySpace(), Engine(ToySpace()), {}, "cpu").find_max_robots(1.0)["robots"] == 0


def test_a_search_without_time_for_one_run_reports_no_number() -> None:
    found = stream.RealtimeBenchmark(ToySpace(), Engine(ToySpace()), {}, "cpu").find_max_robots(1.0, until=0.0)
    assert found["robots"] is None and found["tried"] == [] and not found["complete"]


def test_a_search_expects_more_robots_to_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes one second per robot beyond its length, so a run with eight would end after the deadline."""
    clock = [0.0]

    class Late(stream.RealtimeBenchmark):
        def measure_robots(self, robots: int, seconds: float, factor: float = 1.0) -> dict[str, Any]:
            clock[0] += seconds + robots
            assert clock[0] <= 18.0, "a run went past the deadline"
            return {"latency_ms": {"vision": {"p99": 1.0}}, "missed": 0, "cpu_percent": {}}

    monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    found = Late(ToySpace(), Engine(ToySpace()), {}, "cpu").find_max_robots(1.0, until=18.0)
    assert found["robots"] == 4 and not found["complete"]


def test_samples_of_many_robots_are_delivered_in_time_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are sorted by time, not by robot: no robot waits for all samples of another."""
    delivered: list[tuple[int, str]] = []
    accept = Pipeline.accept

    def record(pipeline: Pipeline, sample: Any) -> bool:
        delivered.append((sample.end, sample.frame_id))
        return accept(pipeline, sample)

    monkeypatch.setattr(Pipeline, "accept", record)
    values = embedder_values({"modalities": ["imu"], "imu.hop": 0.2})
    engine = Engine(ToySpace(["imu"]))
    pipelines = [build.make_pipeline(values, ToySpace(["imu"]), engine=engine, live=True) for _ in range(120)]
    realtime.run_realtime(pipelines, sensor_load.sensors(["imu"]), 0.05)
    ends = [end for end, _ in delivered]
    assert ends == sorted(ends) and len({name for _, name in delivered}) == 120
    assert max(ends) - min(ends) < 1.05 * SECOND, "the last robots start more than a second after the first"


def test_overload_exceeds_the_capacity_and_every_window_is_counted(tiny_bench: Callable[..., Space]) -> None:
    result = overload.measure(options(overload, "--seconds", "3", "--times", "3"))
    assert result["offered_windows_per_s"] >= 2.9 * result["carried_windows_per_s"]
    assert result["unaccounted"] == 0 and result["held"]["samples"] > 2 and "rss_mb" in result["held"]


def test_bench_start_measures_a_new_process() -> None:
    result = start.measure(options(start, "--modalities", "vision", "--times", "1"))
    assert 0 < result["imported_s"] < result["loaded_s"] < result["first_vector_s"]
    assert result["peak_memory_mb"] > 50 and list(result["by_modality_s"]) == ["vision"]


def test_bench_all_continues_after_a_failed_part_and_keeps_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "all.json"

    def parts(args: Any) -> list[everything.Part]:
        def broken(left: float, report: everything.Report) -> dict[str, Any]:
            report({"half": 1})
            assert json.loads(target.read_text())["parts"]["broken"]["half"] == 1, "reported, but not written"
            raise RuntimeError("the device is gone")

        def stopped(left: float, report: everything.Report) -> dict[str, Any]:
            report({"begun": 1})
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the signal was ignored")

        return [
            everything.Part("broken", 1, broken),
            everything.Part("too long", 1e9, broken),
            everything.Part("good", 1, lambda left, report: {"left": left}),
            everything.Part("stopped", 1, stopped),
        ]

    monkeypatch.setattr(everything, "parts", parts)
    assert main(["bench", "all", "--budget", "60", "-o", str(target)]) == 1
    content = json.loads(target.read_text())
    results = content["parts"]
    assert results["broken"]["half"] == 1 and "the device is gone" in results["broken"]["failed"]
    assert "skipped" in results["too long"] and 0 < results["good"]["left"] <= 60
    assert results["stopped"]["begun"] == 1 and content["stopped"]


def test_bench_all_runs_without_ros_and_optional_packages(tmp_path: Path) -> None:
    """ROS and the packages for sound files, bags and texts are missing. The encoders are small, to save time."""
    target = tmp_path / "all.json"
    given = ["--space", "imagebind_huge", "--tiny", "--budget", "36", "--only", "one_robot", "model_vision"]
    ended = minimal_installation.run_sensebind(tmp_path, "bench", "all", *given, "-o", str(target), timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads(target.read_text())["parts"]
    assert results["one_robot"]["windows"]["vision"] > 0 and "synthetic" in results["one_robot"]["weights"]
    assert "1" in results["model_vision"]["encoders"]["vision"]["by_batch"]


def test_windows_of_the_simulated_robot_have_high_coverage() -> None:
    values = embedder_values({})
    found = sensor_load.windows(make_window_specs(values, ImageBindSpace.trained_windows), 2)
    assert set(found) == set(sensor_load.MESSAGE_RATES)
    assert all(len(windows) == 2 and min(w.coverage for w in windows) >= 0.9 for windows in found.values())


@pytest.mark.parametrize("factor", stream.RATE_FACTORS)
def test_windows_stay_aligned_at_every_rate_factor(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stream, "run_realtime", lambda pipelines, own, *rest, **more: seen.append((pipelines, own)))
    monkeypatch.setattr(stream, "realtime_summary", lambda *anything: {})
    args = argparse.Namespace(device="cpu", every_frame=True)
    bench = stream.RealtimeBenchmark.load(args, spaces.SyntheticImageBind(["vision"], sizes=SIZES))
    bench.measure_robots(1, 1.0, factor)
    (pipelines, own) = seen[0]
    hops = {m: spec.hop for m, spec in pipelines[0].specs.items()}
    assert hops["audio"] == hops["imu"] == 3 * hops["vision"]
    (camera,) = (sensor for sensor in own if sensor.modality == "vision")
    assert camera.rate * hops["vision"] == pytest.approx(SECOND, rel=1e-6), "every image is embedded once"


def test_the_benchmark_of_recordings_reads_the_same_messages_with_both_readers() -> None:
    result = reading.measure(options(reading, "--seconds", "2", "--rounds", "1"))
    assert set(result) == {"mcap", "sqlite", "ros1"}
    for figures in result.values():
        assert figures["messages"] == 2 * 230 and figures["messages_per_s"] > 0 and figures["times_rosbags"] > 0


@pytest.mark.parametrize("name", BENCHES)
def test_every_benchmark_prints_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", name, "--help"])
    assert ended.value.code == 0 and name in capsys.readouterr().out
