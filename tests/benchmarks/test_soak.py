"""`sensebind bench soak` finds what grows, what is lost, and when each fault has passed."""

from __future__ import annotations

import argparse
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.small_imagebind import SIZES
from sensebind.benchmarks.encoders import spaces
from sensebind.benchmarks.harness.processes import subprocess_environment
from sensebind.benchmarks.harness.sensor_load import MESSAGE_RATES
from sensebind.benchmarks.soak import flatness, run
from sensebind.benchmarks.soak.faults import NODE_FAULTS, OTHER_FAULTS, ROBOT_FAULTS, plan_faults
from sensebind.benchmarks.soak.readers import Reader, drained
from sensebind.benchmarks.soak.robots import FailingRunner, Wire
from sensebind.cli import main
from sensebind.fusion.core.embeddings import Embedding, l2_normalize
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io.zmq_publisher import ZmqPublisher
from sensebind.fusion.stream.accounting.topics import TopicCounts
from sensebind.simulation.delivery_faults import DELIVERY_FAULTS

HALF_AN_HOUR = np.arange(0.0, 1800.0, 3.0)


def noise(seed: int, size: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, len(HALF_AN_HOUR))


def test_the_slope_is_that_of_the_line_and_outliers_do_not_change_it() -> None:
    values = 7 + 0.5 * HALF_AN_HOUR
    values[[3, 200, 400]] += 1e6
    slope, low, high = flatness.theil_sen(HALF_AN_HOUR, values)
    assert slope == pytest.approx(0.5) and low <= 0.5 <= high


def test_the_interval_of_the_slope_includes_the_true_one_in_most_runs() -> None:
    x = np.arange(30.0)
    limits = [flatness.theil_sen(x, 0.1 * x + np.random.default_rng(n).normal(0, 1, 30))[1:] for n in range(200)]
    assert sum(low <= 0.1 <= high for low, high in limits) >= 180


@pytest.mark.parametrize(
    ("values", "tolerance", "flat"),
    [
        (500 + noise(1, 3.0), 0.01, True),  # memory that fluctuates
        (500 + 20 * (HALF_AN_HOUR % 20 < 8), 0.01, True),  # more in each fault
        (500 + 3000 * np.exp(-HALF_AN_HOUR / 60), 0.01, True),  # what is freed after the start
        (500 + 30 * HALF_AN_HOUR / 3600 + noise(2, 3.0), 0.01, False),  # 30 MB an hour
        (20 + HALF_AN_HOUR // 20, 0.0, False),  # one file for each fault
        (20 + 2.0 * (HALF_AN_HOUR % 40 < 20), 0.0, True),  # files that are closed again
        (np.full(len(HALF_AN_HOUR), np.nan), 0.0, False),  # the process has ended
    ],
)
def test_growth_and_noise_are_distinguished(values: np.ndarray, tolerance: float, flat: bool) -> None:
    assert flatness.judged(list(HALF_AN_HOUR), list(values), tolerance)["flat"] is flat


def test_what_is_not_judged_does_not_decide() -> None:
    grows = flatness.judged(list(HALF_AN_HOUR), list(HALF_AN_HOUR), None)
    stays = flatness.judged(list(HALF_AN_HOUR), [7.0] * len(HALF_AN_HOUR), 0.0)
    assert grows["slope_per_hour"] == 3600 and flatness.is_flat({"bridge": {"rss_mb": grows, "files": stays}})
    assert not flatness.is_flat({"bridge": {"files": flatness.judged(list(HALF_AN_HOUR), list(HALF_AN_HOUR))}})


@pytest.mark.parametrize("others", [ROBOT_FAULTS, NODE_FAULTS])
def test_each_period_has_one_fault_and_the_same_seed_gives_the_same(others: tuple[str, ...]) -> None:
    start = 10 * SECOND
    plans = [plan_faults(["vision", "imu"], others, 1800.0, 20.0, seed, start) for seed in (1, 1, 2)]
    names = [[fault.name for fault in plan.faults] for plan in plans]
    assert names[0] == names[1] != names[2] and len(names[0]) == 89
    assert set(names[0]) | set(names[2]) == set(DELIVERY_FAULTS) | set(others) and set(others) < set(OTHER_FAULTS)
    ends = [start, *(fault.end for fault in plans[0].faults)]
    for number, fault in enumerate(plans[0].faults):
        assert fault.begin == start + (number + 1) * 20 * SECOND and ends[number] <= fault.begin < fault.end
    assert all(fault.recovered and fault.recovery_s is None for fault in plans[0].faults)
    assert not plan_faults(["vision"], others, 1800.0, 0.0, 1, start).faults


def test_a_fault_has_passed_when_each_of_its_sensors_has_a_window_of_the_right_time() -> None:
    plan = plan_faults(["vision"], (), 60.0, 20.0, 0, 0)
    fault = plan.faults[0]
    plan.note_window("vision", fault.end - 1, fault.end + 1)  # a window of the fault
    plan.note_window("vision", fault.end + 60 * SECOND, fault.end + 2)  # a wrong clock
    assert fault.recovery_s is None
    plan.note_window("vision", fault.end + 1, fault.end + SECOND)
    plan.note_window("vision", fault.end + 2, fault.end + 2 * SECOND)
    assert fault.recovery_s == 1.0 and plan.figures(0)[0]["recovery_s"] == 1.0


def test_a_reader_counts_what_it_received_lost_and_missed_before_it_started(tmp_path: Path) -> None:
    vector = l2_normalize(np.ones(4))
    item = Embedding("imu", 0, SECOND, "space@1", 1.0, vector, sensor="imu")
    with ZmqPublisher("tcp://127.0.0.1:*") as publisher:
        wire = Wire(publisher)
        wire.send(item, "robot0")  # before the reader starts
        with Reader("reader", publisher.endpoint, 0.0, tmp_path, subprocess_environment()) as reader:
            for life, number in enumerate((20, 30), 1):
                deadline = time.monotonic() + 60
                while publisher.client_count < 1 and time.monotonic() < deadline:
                    publisher.poll_connection_events()
                    time.sleep(0.02)
                time.sleep(0.3)  # the subscription follows the connection
                for _ in range(number):
                    wire.send(item, "robot0")
                if life == 1:
                    next(wire.sequences[b"robot0/embedding/imu"])  # one message that is never sent
                    wire.send(item, "robot0")
                    assert drained(reader, 23, 60)
                    assert reader.counts() == {"received": 21, "lost": 1, "before": 1}
                    reader.kill()
                    while publisher.client_count and time.monotonic() < deadline:
                        publisher.poll_connection_events()
                    reader.start()
            assert drained(reader, 23 + 53, 60)
            assert reader.counts()["received"] == 51 and all(reader.first_messages())


def test_a_device_that_fails_works_again_afterwards() -> None:
    space = spaces.SyntheticImageBind(["imu"], "cpu", torch.float32, SIZES)
    device, rows = FailingRunner(space, None), [torch.zeros(6, 2000)]
    device.fails = True
    with pytest.raises(RuntimeError, match="as the soak asked"):
        device.launch("imu", rows)
    device.fails = False
    assert device.launch("imu", rows).fetch().shape == (1, 16)


def test_bench_soak_accounts_for_everything_while_faults_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(args: Any, modalities: Any = tuple(MESSAGE_RATES), dtype: Any = None) -> Any:
        return spaces.SyntheticImageBind(modalities, "cpu", torch.float32, SIZES)

    monkeypatch.setattr(spaces, "load", load)
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    result = run.measure(parser.parse_args(["--minutes", "0.035", "--faults-every", "0.7", "--seed", "3"]))
    assert result["unaccounted"] == 0 and result["ended"] == "none" and len(result["faults"]) == 2
    assert result["offered_windows_per_s"] > 1.9 * result["carried_windows_per_s"]
    assert result["fast_reader"]["received"] + sum(result["fast_reader"].values()) > result["published"] > 0
    for process in ("robots", "fast reader"):
        assert set(result["processes"][process]) == set(flatness.TOLERANCES)
    assert result["passed"] is (result["flat"] and not result["not_recovered"])


@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_embeddings_that_the_bridge_reports_as_lost_are_accounted_for() -> None:
    from sensebind.benchmarks.soak.nodes import forwarded_embeddings

    counts = TopicCounts()  # as in the bridge
    counts.of("embeddings/vision").update({"arrived": 5, "lost": 2, "earlier": 1, "used.forwarded": 5})
    values = {name: str(count) for name, count in {"embedding/vision": 5, **counts.values({})}.items()}
    assert forwarded_embeddings(values, "vision") == {"forwarded": 5, "lost": 2, "earlier": 1}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("rclpy") is None, reason="needs ROS")
def test_bench_soak_watches_the_real_nodes(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    main(["bench", "soak", "--nodes", "--minutes", "0.5", "--faults-every", "8", "-o", str(file)])
    figures = json.loads(file.read_text())["figures"]
    assert figures["unaccounted"] == 0 and figures["ended"] == "none"
    assert set(figures["processes"]) == {"embedder", "detector", "bridge", "fast reader"}
