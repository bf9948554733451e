"""Runs of the nodes with faults: what the embedder publishes and reports while sensors or nodes fail.

with fault_run(tmp_path) as run:
    report = run.cause("stop", VISION, 2.0)
    assert run.recovered(report) < RECOVERY
    assert not run.account()
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.diagnostic_statuses import DIAGNOSTICS, OK, WARN, Status, newest, statuses
from helpers.installed_spaces import with_space
from helpers.ros_processes import PATIENCE, Executable, Peer, parameter_arguments, peer, ros_environment
from helpers.sensor_publisher import EMBEDDER_VALUES, RATES, TOPICS
from sensebind.fusion.core.embeddings import FUSED
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.io import messages
from sensebind.fusion.stream.accounting.identity import accounts, unaccounted

RECOVERY = 3.0  # s after the end of a cause until all sensors are fused again: the promise
DETECTOR_VALUES: dict[str, Any] = {
    "detectors": ["prompt", "fault"],
    "prompts.dog": ["a dog barks"],
    "prompt.calibration": "none",
}


def toy_environment(folder: Path, **extra: str) -> dict[str, str]:
    """An environment in which nodes can load the space `toy` of `helpers.toy_space`, as that of another package."""
    environment = ros_environment("sensebind_msgs", "audio_common_msgs", "diagnostic_msgs", **extra)
    return with_space(folder, environment, "toy", "helpers.toy_space:ToySpace.load")


class Publisher:
    """The process of `helpers.sensor_publisher`."""

    def __init__(self, environment: Mapping[str, str], *, simulated: bool = False) -> None:
        arguments = ["--clock"] if simulated else []
        command = [sys.executable, "-m", "helpers.sensor_publisher", *arguments]
        self.process = Executable(command, environment, has_input=True)

    def answers(self) -> list[dict[str, Any]]:
        """What it has answered so far; the first one when it began."""
        return [json.loads(line) for line in list(self.process.lines) if line.startswith('{"at"')]

    def send(self, **command: Any) -> None:
        """Give it a command."""
        self.process.send(json.dumps(command))


class WireReader:
    """A client of the bridge. `messages`: (time.monotonic() of arrival, topic, sequence). It waits for `period` s after
    each message."""

    def __init__(self, address: str, period: float = 0.0) -> None:
        import zmq

        self.period = period
        self.messages: list[tuple[float, str, int]] = []
        self._is_closed = False
        self._context = zmq.Context()
        self._address = address
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def newest(self) -> float:
        """When the newest message arrived."""
        return self.messages[-1][0] if self.messages else 0.0

    def gaps(self, first: int = 0) -> dict[str, int]:
        """Topic → missing sequence numbers, from message number `first` on."""
        found: dict[str, list[int]] = {}
        for _, topic, sequence in self.messages[first:]:
            found.setdefault(topic, []).append(sequence)
        gaps = {topic: numbers[-1] - numbers[0] + 1 - len(numbers) for topic, numbers in found.items()}
        return {topic: count for topic, count in gaps.items() if count}

    def close(self) -> None:
        self._is_closed = True
        self._thread.join(5)
        self._context.term()

    def _read(self) -> None:
        import msgpack
        import zmq

        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        if self.period:
            socket.setsockopt(zmq.RCVHWM, 1)
        socket.connect(self._address)
        while not self._is_closed:
            if socket.poll(50):
                topic, payload = socket.recv_multipart()
                self.messages.append((time.monotonic(), topic.decode(), int(msgpack.unpackb(payload)["sequence"])))
                if self.period:
                    time.sleep(self.period)
        socket.close()


@dataclass
class FaultRun:
    """Running nodes, and what they have published so far. Commands to the publisher serve callbacks while they wait.

    `parameters`: node → its parameters. `reader`: a client of the bridge, if that runs.
    """

    me: Peer
    environment: Mapping[str, str]
    parameters: Mapping[str, Mapping[str, Any]]
    publisher: Publisher
    diagnostics: list[tuple[float, Any]]
    embeddings: Mapping[str, list[tuple[float, Any]]]
    events: list[tuple[float, Any]]
    reader: WireReader
    nodes: dict[str, Executable] = field(default_factory=dict)
    earlier: dict[str, int] = field(default_factory=dict)  # topic → messages of publishers that have ended
    before: dict[str, int] = field(default_factory=dict)  # topic → vectors of embedders that have ended

    def start(self, node: str) -> None:
        """Start a node, also one that has ended."""
        command = [sys.executable, "-m", f"sensebind.nodes.{node}", *parameter_arguments(self.parameters[node])]
        self.nodes[node] = Executable(command, self.environment)

    def wait_for_output(self, node: str, text: str, timeout: float = 60.0) -> None:
        """Wait until a node has printed `text`, and serve callbacks meanwhile."""
        self.me.wait_until(lambda: text in self.nodes[node].output, timeout, f"'{text}' of the {node}")

    def forget_embedder(self) -> None:
        """The embedder has ended: the next one counts anew, with all messages of the publisher that runs."""
        self.me.spin(0.2)
        self.earlier.clear()
        self.before.update({name: len(found) for name, found in self.embeddings.items()})

    # --- causes

    def command(self, timeout: float = 30.0, **command: Any) -> dict[str, Any]:
        """Give the publisher a command, and wait for its answer."""
        before = len(self.publisher.answers())
        self.publisher.send(**command)
        self.me.wait_until(lambda: len(self.publisher.answers()) > before, timeout, f"the answer to {command}")
        return self.publisher.answers()[-1]

    def cause(self, fault: str, sensor: str, seconds: float) -> dict[str, Any]:
        """Let a sensor have a fault of delivery. Returns the answer at its end."""
        return self.command(seconds + 10, fault=fault, sensor=sensor, seconds=seconds)

    # --- what the nodes report

    @staticmethod
    def now() -> float:
        """The clock of the answers and arrivals."""
        return time.monotonic()

    def statuses(self, name: str, since: float = 0.0) -> list[Status]:
        """The statuses of a component, such as `embedder: vision`, since `time.monotonic()`, the oldest first."""
        return statuses(self.diagnostics, name, since)

    def sensor(self, name: str, since: float = 0.0) -> Status:
        """The newest status of a sensor."""
        return newest(self.diagnostics, f"embedder: {name}", since)

    def counted(self, sensor: str, since: float, until: float | None = None) -> dict[str, int]:
        """How much each counter of a sensor grew from the newest status before `since` on."""
        found = self.statuses(f"embedder: {sensor}")
        first = [status for status in found if status.arrived_at < since][-1:]
        last = [status for status in found if until is None or status.arrived_at <= until][-1:]
        if not last:
            return {}
        values = {name for name, value in last[0].values.items() if value.lstrip("-").isdigit()}
        return {name: last[0].count(name) - (first[0].count(name) if first else 0) for name in values}

    # --- recovery

    def recovered(self, answer: Mapping[str, Any], *, timeout: float = 15.0) -> float:
        """Seconds from the end of a cause to the first fused vector of all sensors with a tick after it, without the
        time in which the machine was too busy to run the publisher. Fails the test if none comes."""

        def fused() -> list[float]:
            return [
                at
                for at, message in self.embeddings[FUSED]
                if at > answer["at"]
                and set(message.sources) == set(RATES)
                and answer["stamp"] < messages.stamp_to_ns(message.header.stamp) <= answer["stamp"] + 60 * SECOND
            ]

        self.me.wait_until(lambda: bool(fused()), timeout, f"all sensors after {answer}: {self.summary()}")
        stall = self.command()["stall"]
        return fused()[0] - float(answer["at"]) - (stall if stall > 0.3 else 0.0)

    def wait_until_all_are_fused(self, timeout: float = 15.0) -> None:
        """Wait until all sensors are fused now, and the newest status of none is an error."""
        began = self.now()
        self.me.wait_until(
            lambda: (
                all(self.sensor(s, began).level in (OK, WARN) for s in RATES)
                and any(at > began and set(m.sources) == set(RATES) for at, m in self.embeddings[FUSED])
            ),
            timeout,
            f"all sensors to be fused: {self.summary()}",
        )

    # --- accounting

    def published(self, topic: str) -> int:
        """Messages on a topic, by the last answer of the publisher, and those of publishers before it."""
        return int(self.publisher.answers()[-1]["published"].get(topic, 0)) + self.earlier.get(topic, 0)

    def account(self, timeout: float = 10.0) -> list[str]:
        """Let the sensors stop for a moment. Returns what has not been counted exactly once."""
        self.command(hold=True)
        problems: list[str] = []

        def is_exact() -> bool:
            problems[:] = [text for sensor in RATES for text in self._differences(sensor)]
            return not problems

        self.me.spin_until(is_exact, timeout / PATIENCE)
        self.command(hold=False)
        return problems

    def _differences(self, sensor: str) -> list[str]:
        status, sent = self.sensor(sensor), self.published(TOPICS[sensor])
        counts = {name: int(value) for name, value in status.values.items() if value.isdigit()}
        result = [f"{sensor}: {text}" for text in unaccounted(accounts(counts, sent))]
        vectors, before = self._vectors(sensor)
        if counts.get("embedded") != len(vectors) + before:
            result.append(f"{sensor}: {counts.get('embedded')} embedded, {before} and {len(vectors)} vectors received")
        fused, before = self._vectors(FUSED)
        found = sum(sensor in message.sources for message in fused)
        if not found <= counts.get("fused", -1) <= found + before:
            result.append(f"{sensor}: {counts.get('fused')} fused, {found} received in fused vectors")
        return result

    def _vectors(self, source: str) -> tuple[list[Any], int]:
        """The vectors of the embedder that runs, and how many it published before the first that was received, when it
        was not connected yet. Fails if one was lost after that."""
        found = [message for _, message in self.embeddings[source][self.before.get(source, 0) :]]
        numbers = [message.sequence for message in found]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True, numbers
        return found, numbers[0] if numbers else 0

    def summary(self) -> str:
        """The newest statuses, for messages of failures."""
        return "\n".join(
            f"{sensor}: {status.level!r} {status.message} {dict(status.values)}"
            for sensor in RATES
            for status in [self.sensor(sensor)]
        )


@contextmanager
def fault_run(
    folder: Path,
    *nodes: str,
    values: Mapping[str, Mapping[str, Any]] | None = None,
    simulated: bool = False,
) -> Iterator[FaultRun]:
    """The sensors, the embedder and other `nodes` as processes. `values`: node → its parameters beside the usual ones.

    Returns once the embedder reports OK for all sensors. `simulated`: the sensors publish /clock, the nodes use it.
    """
    from sensebind.nodes.support.qos import EMBEDDING_INPUT_QOS, EVENT_QOS

    environment, values = toy_environment(folder), values or {}
    address = f"ipc://{folder}/wire"
    usual: dict[str, dict[str, Any]] = {
        "embedder": {"space": "toy", **EMBEDDER_VALUES},
        "detector": DETECTOR_VALUES,
        "bridge": {"address": address},
    }
    own = {node: {**found, **values.get(node, {}), "use_sim_time": simulated} for node, found in usual.items()}
    with peer(environment) as me:
        run = FaultRun(
            me,
            environment,
            own,
            publisher=None,  # type: ignore[arg-type]
            diagnostics=me.subscribe(DIAGNOSTICS, "/diagnostics", 100),
            embeddings={
                name: me.subscribe(messages.EMBEDDING_TYPE, f"embeddings/{name}", EMBEDDING_INPUT_QOS)
                for name in (*RATES, FUSED)
            },
            events=me.subscribe(messages.EVENT_TYPE, "events", EVENT_QOS),
            reader=WireReader(address),
        )
        try:
            for node in ("embedder", *nodes):
                run.start(node)
            run.nodes["embedder"].wait_for_output("audio: subscribed to", 60)
            run.publisher = Publisher(environment, simulated=simulated)
            run.me.wait_until(lambda: bool(run.publisher.answers()), 30, "the publisher")
            if "detector" in nodes:
                run.nodes["detector"].wait_for_output("events from", 60)
            run.wait_until_all_are_fused(30)
            yield run
            for name, process in run.nodes.items():
                assert process.is_running, f"the {name} ended:\n{process.output}"
                assert "Traceback" not in process.output, process.output
                assert process.stop() == 0, process.output
        finally:
            for process in [*run.nodes.values(), *([run.publisher.process] if run.publisher else [])]:
                process.kill()
            run.reader.close()
