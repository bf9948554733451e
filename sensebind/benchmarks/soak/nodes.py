"""The nodes of a soak, as processes over DDS: embedder, detector, bridge, and one that publishes the sensors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from sensebind.benchmarks.harness import sensor_load
from sensebind.benchmarks.harness.processes import ProcessError
from sensebind.benchmarks.soak.faults import DETECTOR, NODE_STOPS, PROMPTS, READER_KILLED, FaultPlan
from sensebind.benchmarks.soak.flatness import ProcessWatch
from sensebind.benchmarks.soak.publisher import SensorRun
from sensebind.benchmarks.soak.readers import DRAIN, SLOW_PAUSE, Reader, drained
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.io import messages
from sensebind.fusion.stream.accounting.identity import COUNTERS, WINDOWS_WAITING, accounts, unaccounted_by_line
from sensebind.fusion.stream.statistics import WINDOW_DROPS
from sensebind.nodes.support.message_types import message_type
from sensebind.nodes.support.processes import node_process, stop_process
from sensebind.nodes.support.qos import EMBEDDING_QOS
from sensebind.replay.progress import progress

NODES = ("embedder", "detector", "bridge")
STARTUP_TIMEOUT = 90.0  # s for all processes to find each other
SETTLE_TIMEOUT = 30.0  # s after the run until the counts of all nodes stay the same
SETTLING_COUNTS = ("arrived", "lost", "windows", "embedded", "ticks")  # of the sensors and of the detector
LOG_LINES = 20  # the last ones of a node that ended


def forwarded_embeddings(values: Mapping[str, str], sensor: str) -> dict[str, int]:
    """How many embeddings of a sensor the bridge has forwarded, how many did not arrive there (`lost`), and how many
    were published before the first one that arrived (`earlier`). `values`: of the bridge's status."""
    counts = {name: int(values.get(f"embeddings/{sensor}: {name}", 0)) for name in ("lost", "earlier")}
    return {"forwarded": int(values.get(f"embedding/{sensor}", 0)), **counts}


class Observer(Node):
    """Notes when windows are embedded and when the detector works, and keeps the newest values of each status."""

    def __init__(self, modalities: tuple[str, ...]) -> None:
        super().__init__("soak_observer")
        self.plan: FaultPlan | None = None
        self.values: dict[str, dict[str, str]] = {}  # name of the status → its values
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        for modality in modalities:
            on_embedding = partial(self._on_embedding, modality)
            kind = message_type(messages.EMBEDDING_TYPE)
            self.create_subscription(kind, f"embeddings/{modality}", on_embedding, EMBEDDING_QOS)

    def count(self, status: str, name: str) -> int:
        """A count in the newest values of a status."""
        return int(self.values.get(status, {}).get(name, 0))

    def _on_embedding(self, modality: str, message: Any) -> None:
        if self.plan is not None:
            self.plan.note_window(modality, messages.stamp_to_ns(message.header.stamp), time.time_ns())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            component = status.name.rpartition(": ")[2]
            self.values[component] = {pair.key: pair.value for pair in status.values}
            if component == "events" and self.plan is not None:
                self.plan.note(DETECTOR, time.time_ns())


class SoakNodes:
    """The processes. `values`: parameters of the embedder. `environment`: of `ros_environment`."""

    def __init__(self, values: Mapping[str, Any], folder: Path, environment: Mapping[str, str]) -> None:
        self._modalities = tuple(values["modalities"])
        self._wire_topics = (*(f"embedding/{m}" for m in (*self._modalities, FUSED)), "event")
        self._folder, self._environment = folder, environment
        detector = {"prompts": {label: list(phrases) for label, phrases in PROMPTS.items()}}
        own = {"embedder": dict(values), "detector": detector, "bridge": {"address": "tcp://127.0.0.1:*"}}
        file = folder / "parameters.yaml"
        file.write_text(yaml.safe_dump({name: {"ros__parameters": given} for name, given in own.items()}))
        self._arguments = ["--ros-args", "--params-file", str(file)]

    def run(self, sensors: SensorRun) -> tuple[FaultPlan, int, dict[str, Any]]:
        """The faults of the run, its start (ns), and the figures. Raises `ProcessError`."""
        rclpy.init()
        try:
            with ExitStack() as stack:
                nodes = {
                    name: stack.enter_context(
                        node_process(
                            name, self._arguments, environment=self._environment, log=self._folder / f"{name}.log"
                        )
                    )
                    for name in NODES
                }
                observer = Observer(self._modalities)
                stack.callback(observer.destroy_node)
                publisher = stack.enter_context(self._sensors(sensors))
                self._spin_until(observer, lambda: "events" in observer.values and "clients" in observer.values, nodes)
                address = observer.values["clients"]["address"]
                fast, slow = (
                    stack.enter_context(Reader(name, address, pause, self._folder, self._environment))
                    for name, pause in (("fast reader", 0.0), ("slow reader", SLOW_PAUSE))
                )
                self._spin_until(observer, lambda: observer.count("clients", "clients") == 2, nodes)
                return self._measure(sensors, observer, nodes, publisher, fast, slow)
        finally:
            rclpy.try_shutdown()

    # Long, because one loop causes the faults of processes while it receives.
    def _measure(
        self,
        sensors: SensorRun,
        observer: Observer,
        nodes: Mapping[str, subprocess.Popen[bytes]],
        publisher: subprocess.Popen[str],
        fast: Reader,
        slow: Reader,
    ) -> tuple[FaultPlan, int, dict[str, Any]]:
        assert publisher.stdin is not None and publisher.stdout is not None
        if (line := publisher.stdout.readline().strip()) != "ready":
            raise ProcessError(f"the sensors did not start: {line or 'their process ended'}")
        start = sensor_load.next_start_time()
        publisher.stdin.write(f"{start}\n")
        publisher.stdin.flush()
        plan = observer.plan = sensors.plan(start)
        pids = {**{name: process.pid for name, process in nodes.items()}, "fast reader": fast.pid}
        is_stopped = False
        shown_at = 0.0
        with (
            progress("in real time", sensors.seconds) as shown,
            ProcessWatch(pids, min(3.0, max(0.1, sensors.seconds / 600))) as watch,
        ):
            while publisher.poll() is None and (passed := time.time() - start / 1e9) < sensors.seconds + SETTLE_TIMEOUT:
                rclpy.spin_once(observer, timeout_sec=0.05)
                now = time.time_ns()
                if plan.active(now, READER_KILLED):
                    slow.kill()
                else:
                    slow.start()
                if (plan.active(now, NODE_STOPS) is not None) != is_stopped:
                    is_stopped = not is_stopped
                    nodes[DETECTOR].send_signal(signal.SIGSTOP if is_stopped else signal.SIGCONT)
                if passed > shown_at + 1:
                    shown_at = passed
                    shown.reach(min(passed, sensors.seconds))
        nodes[DETECTOR].send_signal(signal.SIGCONT)
        ended = [name for name, process in nodes.items() if process.poll() is not None]
        if publisher.poll() is None:
            raise ProcessError("the sensors did not end in time")
        sent = json.loads(publisher.stdout.read())
        self._settle(observer)
        drained(fast, sum(observer.count("clients", topic) for topic in self._wire_topics), DRAIN)
        plan.note_reader(slow)
        logs = [f"{name}: {self._end_of_log(name)}" for name in ended]
        found = {
            "processes": watch.summary(),
            "ended": "; ".join(logs) or "none",
            **self._accounting(observer, sent, fast, slow),
        }
        return plan, start, found

    def _accounting(self, observer: Observer, sent: Mapping[str, int], fast: Reader, slow: Reader) -> dict[str, Any]:
        count = observer.count
        published = sum(count("clients", topic) for topic in self._wire_topics)
        arrivals = {
            m: {name: count(m, name) for name in ("arrived", "undecodable", "lost", "earlier")}
            for m in self._modalities
        }
        windows = Counter(
            {name: sum(count(m, name) for m in self._modalities) for name in ("windows", "embedded", *WINDOW_DROPS)}
        )
        fast_counts = fast.counts()
        embeddings = {
            m: {"embedded": count(m, "embedded"), **forwarded_embeddings(observer.values["clients"], m)}
            for m in self._modalities
        }
        differences = {
            **unaccounted_by_line(
                line
                for m in self._modalities
                for line in accounts({name: count(m, name) for name in COUNTERS}, sent[m])
            ),
            "windows that still wait": sum(count(m, name) for m in self._modalities for name in WINDOWS_WAITING),
            "embedded, neither forwarded nor lost": sum(
                abs(counts["embedded"] - counts["forwarded"] - counts["lost"] - counts["earlier"])
                for counts in embeddings.values()
            ),
            "forwarded, neither received nor noticed as lost": abs(published - sum(fast_counts.values())),
        }
        return {
            "messages": {m: {"sent": sent[m], **arrivals[m]} for m in self._modalities},
            "counts": {name: number for name, number in windows.items() if number},
            "embeddings": embeddings,
            "forwarded": published,
            "queue_full": count("clients", "queue_full"),
            "fast_reader": fast_counts,
            "slow_reader": {**slow.counts(), "starts": len(slow.starts)},
            "unaccounted_by_kind": differences,
            "unaccounted": sum(differences.values()),
        }

    @contextmanager
    def _sensors(self, sensors: SensorRun) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "sensebind.benchmarks.soak.publisher", json.dumps(asdict(sensors))]
        process = subprocess.Popen(
            command, env=dict(self._environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            stop_process(process, 5)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _spin_until(self, observer: Observer, condition: Any, nodes: Mapping[str, subprocess.Popen[bytes]]) -> None:
        deadline = time.monotonic() + STARTUP_TIMEOUT
        while not condition():
            rclpy.spin_once(observer, timeout_sec=0.05)
            ended = [name for name, process in nodes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                name = (ended or ["embedder"])[0]
                raise ProcessError(f"the nodes did not start; the log of the {name}:\n{self._end_of_log(name)}")

    def _settle(self, observer: Observer) -> None:
        """Receive statuses until the counts stay the same for three seconds, at most `SETTLE_TIMEOUT`."""
        names = (*self._modalities, "events", "clients")
        before: Any = None
        since, deadline = time.monotonic(), time.monotonic() + SETTLE_TIMEOUT
        while time.monotonic() < min(deadline, since + 3.0):
            rclpy.spin_once(observer, timeout_sec=0.05)
            found = [observer.count(name, count) for name in names for count in (*SETTLING_COUNTS, *self._wire_topics)]
            if found != before:
                before, since = found, time.monotonic()

    def _end_of_log(self, name: str) -> str:
        lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])
