"""`sensebind bench ros`: five sensors through DDS, each in its own process, to the embedder and back.

One run has three phases. `subscriber_only`: a node that only records arrival times, the cost of the middleware and
rclpy alone. `embedder`: the embedder, measured from outside: the time from the `publish` call of the message that
closes a window to the arrival of its vector. `in_process`: the same pipeline without ROS, from that message to its
vector. Then the rates are raised until more than 5 % of a sensor's messages are lost. The figures have the form of
ros2_benchmark's.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sensebind.benchmarks.harness import command_line, resources, sensor_load, timing
from sensebind.benchmarks.harness.processes import ProcessError, ros_environment
from sensebind.fusion.core.samples import IMAGE_MODALITIES, SECOND
from sensebind.nodes.support.processes import node_process, stop_process

if TYPE_CHECKING:
    from sensebind.nodes.support.listener import Listener

MAX_LOST_SHARE = 0.05  # fraction of messages that may be lost at the peak rate
RATE_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # factors of the sensors' rates, tried in this order
STARTUP_TIMEOUT = 60.0  # s for all processes to find each other


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each phase in s (default: %(default)s)")
    command_line.add_hop(parser)
    command_line.add_space_options(parser)
    parser.add_argument("--device", default="cpu", help="device of the embedder (default: %(default)s)")
    command_line.add_modalities(parser, "modalities of the sensors, separated by spaces ")
    parser.add_argument("--no-peak", action="store_true", help="do not search for the peak rate")
    command_line.add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Exit status 1 if ROS is missing or a process failed."""
    return command_line.run_and_report("ros", measure, args, device="cpu", expected=(ProcessError, ModuleNotFoundError))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all phases. Raises `ProcessError`, and `ModuleNotFoundError` without rclpy."""
    import rclpy

    environment = ros_environment()
    rates = {m: sensor_load.MESSAGE_RATES[m] for m in args.modalities}
    result: dict[str, Any] = {"input": sensor_load.input_digest(), "seconds": args.seconds, "hop_s": args.hop}
    rclpy.init()
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = RosBenchmark(args, environment, Path(folder))
            result["subscriber_only"] = bench.subscriber_baseline(rates)
            result["embedder"] = bench.embedder_latency(rates, args.seconds)
            result["in_process"] = in_process(args)
            result["added_p50_ms"] = {
                m: round(result["embedder"]["latency_ms"][m]["p50"] - latency["p50"], 3)
                for m, latency in result["in_process"]["latency_ms"].items()
                if m in result["embedder"]["latency_ms"]
            }
            subscriber, embedder = (result[n]["cpu_percent_of_a_core"] for n in ("subscriber_only", "embedder"))
            result["rclpy_share_of_cpu"] = round(subscriber["subscriber"] / max(embedder["embedder"], 0.1), 3)
            if not args.no_peak:
                result["peak"] = bench.find_peak_rate(rates)
    finally:
        rclpy.try_shutdown()
    return result


@dataclass
class RosBenchmark:
    """The phases that need DDS."""

    args: argparse.Namespace
    environment: Mapping[str, str]
    folder: Path

    def subscriber_baseline(self, rates: Mapping[str, float]) -> dict[str, Any]:
        """Measure the cost of rclpy: a node with the embedder's subscriptions and its executor, without processing."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from sensebind.benchmarks.harness.sensor_process import TOPICS, TYPES
        from sensebind.nodes.subscriptions import IMAGE_QUEUE_DEPTH, SERIES_QUEUE_DEPTH
        from sensebind.nodes.support.message_types import message_type
        from sensebind.nodes.support.qos import sensor_data_qos

        node = rclpy.create_node("subscriber")
        arrivals: dict[str, list[tuple[int, int]]] = defaultdict(list)

        def subscribe(modality: str) -> None:
            def record(message: Any) -> None:
                stamp = message.header.stamp
                arrivals[modality].append((time.time_ns(), stamp.sec * SECOND + stamp.nanosec))

            depth = IMAGE_QUEUE_DEPTH if modality in IMAGE_MODALITIES else SERIES_QUEUE_DEPTH
            node.create_subscription(message_type(TYPES[modality]), TOPICS[modality], record, sensor_data_qos(depth))

        for modality in rates:
            subscribe(modality)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        with self._sensors(rates, self.args.seconds, 1) as sensors:
            cpu, began = time.process_time(), time.monotonic()
            sensors.start_all()
            sent = sensors.wait_for_all(lambda: executor.spin_once(timeout_sec=0.05))
            cpu = (time.process_time() - cpu) / (time.monotonic() - began)
        executor.remove_node(node)
        executor.shutdown()
        node.destroy_node()
        late = {m: round(SECOND / rates[m]) if m == "audio" else 0 for m in rates}  # audio is stamped with its start
        return {
            "messages": {m: _arrival_counts(len(arrivals[m]), len(sent[m]["stamps"])) for m in rates},
            "latency_ms": {m: timing.quantiles([(t - s - late[m]) / 1e6 for t, s in arrivals[m]]) for m in rates},
            "cpu_percent_of_a_core": {"subscriber": round(100 * cpu, 1)} | _cpu_percent(sent),
        }

    def embedder_latency(self, rates: Mapping[str, float], seconds: float) -> dict[str, Any]:
        """Measure the embedder from outside, through its topics."""
        import rclpy

        from sensebind.fusion.io import messages
        from sensebind.nodes.support.listener import Listener
        from sensebind.nodes.support.message_types import message_type
        from sensebind.nodes.support.qos import EMBEDDING_QOS

        listener = Listener()
        vectors: dict[str, dict[int, int]] = defaultdict(dict)  # modality → tick → time of arrival

        def record(message: Any) -> None:
            vectors[message.modality][messages.stamp_to_ns(message.header.stamp)] = time.time_ns()

        for modality in rates:
            listener.create_subscription(
                message_type(messages.EMBEDDING_TYPE), f"embeddings/{modality}", record, EMBEDDING_QOS
            )

        def spin() -> None:
            rclpy.spin_once(listener, timeout_sec=0.05)

        with self._embedder() as embedder, self._sensors(rates, seconds, 1) as sensors:
            self._spin_until(lambda: listener.space is not None, spin, embedder)
            spent, began = resources.cpu_seconds(embedder.pid), time.monotonic()
            own = time.process_time()
            sensors.start_all()
            sent = sensors.wait_for_all(spin)
            cpu = (resources.cpu_seconds(embedder.pid) - spent) / (time.monotonic() - began)
            own = (time.process_time() - own) / (time.monotonic() - began)
            counts = self._final_counts(listener, spin, list(rates))
        closing = {m: sent[m]["stamps"] for m in rates}
        lateness = round(0.05 * SECOND)
        latencies: dict[str, list[float]] = {}
        for modality, ticks in vectors.items():
            found = [
                (arrival - closing[modality][at]) / 1e6
                for tick, arrival in ticks.items()
                if (at := bisect_left(closing[modality], tick + lateness)) < len(closing[modality])
            ]
            latencies[modality] = found
        listener.destroy_node()
        return {
            "messages": {
                m: _arrival_counts(counts[m]["arrived"], len(sent[m]["stamps"])) | {"lost": counts[m]["lost"]}
                for m in rates
            },
            "windows": {m: {k: counts[m][k] for k in ("windows", "embedded", "overload")} for m in rates},
            "latency_ms": {m: timing.quantiles(values) for m, values in latencies.items()},
            "jitter_ms": {m: round(float(np.std(values)), 3) for m, values in latencies.items() if values},
            "cpu_percent_of_a_core": {"embedder": round(100 * cpu, 1), "listener": round(100 * own, 1)}
            | _cpu_percent(sent),
        }

    def find_peak_rate(self, rates: Mapping[str, float]) -> dict[str, Any]:
        """Find the largest factor of the rates at which at most `MAX_LOST_SHARE` of any sensor's messages are lost."""
        tried = []
        for factor in RATE_FACTORS:
            result = self.embedder_latency({m: rate * factor for m, rate in rates.items()}, min(6.0, self.args.seconds))
            worst = min(item["share"] for item in result["messages"].values())
            p99 = max((q["p99"] for q in result["latency_ms"].values()), default=math.nan)
            tried.append({"factor": factor, "share_arrived": worst, "p99_ms": p99})
            if worst < 1 - MAX_LOST_SHARE:
                break
        held = [item["factor"] for item in tried if item["share_arrived"] >= 1 - MAX_LOST_SHARE]
        best = max(held, default=0.0)
        return {"image_rate_hz": best * max(rates.values() if not held else [rates.get("vision", 0.0)]), "tried": tried}

    @contextmanager
    def _embedder(self) -> Iterator[subprocess.Popen[bytes]]:
        import yaml

        values = ros_embedder_values(self.args)
        file = self.folder / "embedder.yaml"
        file.write_text(yaml.safe_dump({"embedder": {"ros__parameters": values}}))
        log = self.folder / "embedder.log"
        arguments = ["--ros-args", "--params-file", str(file)]
        with node_process("embedder", arguments, environment=self.environment, log=log) as process:
            yield process

    @contextmanager
    def _sensors(self, rates: Mapping[str, float], seconds: float, subscribers: int) -> Iterator[_SensorProcesses]:
        sensors = _SensorProcesses(rates, seconds, subscribers, self.environment)
        try:
            yield sensors
        finally:
            sensors.close()

    def _spin_until(self, condition: Any, spin: Any, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTUP_TIMEOUT
        while not condition():
            spin()
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "embedder.log").read_text(errors="replace")
                raise ProcessError(f"the embedder did not start:\n{log}")

    def _final_counts(self, listener: Listener, spin: Any, modalities: list[str]) -> dict[str, dict[str, int]]:
        """The counts that the embedder reports, once two successive reports are equal (at most 10 are read)."""
        names = ("arrived", "lost", "windows", "embedded", "overload")
        previous: Any = None
        for _ in range(10):
            listener.statuses.clear()
            deadline = time.monotonic() + 5
            while not all(m in listener.statuses for m in modalities) and time.monotonic() < deadline:
                spin()
            found = {m: {n: int(listener.diagnostic_value(m, n) or 0) for n in names} for m in modalities}
            if found == previous:
                break
            previous = found
        return found


class _SensorProcesses:
    """One `sensor_process` for each modality."""

    def __init__(
        self, rates: Mapping[str, float], seconds: float, subscribers: int, environment: Mapping[str, str]
    ) -> None:
        self._seconds = seconds
        self._processes = {
            modality: subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sensebind.benchmarks.harness.sensor_process",
                    modality,
                    str(rate),
                    str(seconds),
                    str(subscribers),
                ],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for modality, rate in rates.items()
        }

    def start_all(self) -> None:
        """Wait until all have their subscribers, then start all at `sensor_load.next_start_time`. Raises
        `ProcessError`."""
        for modality, process in self._processes.items():
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if line != "ready":
                raise ProcessError(f"the sensor '{modality}' did not start: {line or 'its process ended'}")
        start = sensor_load.next_start_time() / SECOND
        for process in self._processes.values():
            assert process.stdin is not None
            process.stdin.write(f"{start}\n")
            process.stdin.flush()

    def wait_for_all(self, spin: Any) -> dict[str, dict[str, Any]]:
        """Call `spin` until all have ended. Returns what each printed at its end. Raises `ProcessError`."""
        found: dict[str, str] = {}

        def read() -> None:
            for modality, process in self._processes.items():
                assert process.stdout is not None
                found[modality] = process.stdout.read()

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive():
            spin()
        try:
            return {m: json.loads(text) | {"seconds": self._seconds} for m, text in found.items()}
        except json.JSONDecodeError as error:
            raise ProcessError(f"a sensor process stopped early: {found}") from error

    def close(self) -> None:
        """Stop the processes that still run."""
        for process in self._processes.values():
            stop_process(process, 5)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def ros_embedder_values(args: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the embedder for these sensors."""
    values: dict[str, Any] = {
        "space": args.space,
        "weights": args.weights,
        "device": args.device,
        "modalities": list(args.modalities),
        **{f"{m}.hop": args.hop for m in args.modalities},
    }
    if "audio" in args.modalities:
        values |= {
            "audio.type": "audio_common_msgs/msg/AudioDataStamped",
            "audio.sample_rate": sensor_load.AUDIO_SAMPLE_RATE,
            "audio.channels": 1,
            "audio.sample_format": "S16LE",
        }
    return values


def in_process(args: argparse.Namespace) -> dict[str, Any]:
    """The same pipeline without ROS: one thread delivers the sensors' samples in real time, another embeds."""
    from sensebind.benchmarks.realtime.run import run_realtime
    from sensebind.fusion.config import build
    from sensebind.fusion.config import parameters as config
    from sensebind.fusion.models import registry

    values = config.embedder_values(ros_embedder_values(args))
    space = registry.load_space(args.space, modalities=args.modalities, device=args.device, weights=args.weights)
    pipeline = build.make_pipeline(values, space, live=True)
    seen = run_realtime([pipeline], sensor_load.sensors(args.modalities), args.seconds)
    latencies = {m: x.values() for m, x in seen.latencies.items()}
    return {
        "latency_ms": {m: timing.quantiles(values) for m, values in latencies.items() if len(values)},
        "cpu_percent_of_a_core": {"in process": round(100 * seen.cpu_seconds / args.seconds, 1)},
    }


def _arrival_counts(arrived: int, sent: int) -> dict[str, Any]:
    return {"sent": sent, "arrived": arrived, "share": round(arrived / sent, 4) if sent else math.nan}


def _cpu_percent(sent: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {m: round(100 * counts["cpu_s"] / counts["seconds"], 1) for m, counts in sent.items()}
