"""The robots of a soak in this process: pipelines with detectors, and the publisher of the bridge."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from sensebind.benchmarks.encoders.spaces import SyntheticImageBind
from sensebind.benchmarks.harness import sensor_load
from sensebind.benchmarks.harness.processes import subprocess_environment
from sensebind.benchmarks.overload import Load
from sensebind.benchmarks.soak.deliveries import deliveries, sample_of, sensor_name
from sensebind.benchmarks.soak.faults import DEVICE_FAILS, POISON, PROMPTS, READER_KILLED, FaultPlan
from sensebind.benchmarks.soak.flatness import ProcessWatch
from sensebind.benchmarks.soak.readers import DRAIN, SLOW_PAUSE, Reader, drained
from sensebind.benchmarks.stream import RealtimeBenchmark
from sensebind.fusion.config import build
from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Event
from sensebind.fusion.core.freed_memory import objects_frozen
from sensebind.fusion.core.futures import EmbeddingFuture
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Preparation, Space
from sensebind.fusion.events.tracker import EventTracker
from sensebind.fusion.inference.batch_runner import Runner
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.io.wire import encode, topic_for
from sensebind.fusion.io.zmq_publisher import ZmqPublisher
from sensebind.fusion.stream.accounting.identity import sensor_accounts, unaccounted_by_line
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.replay.progress import progress
from sensebind.replay.session import Settings
from sensebind.simulation.delivery_faults import disturbed

ADDRESS = "tcp://127.0.0.1:*"
QUEUE_SIZE = 1000  # `client_queue_size` of the bridge
READER_START = 20.0  # s for a reader to connect


class FailingRunner:
    """The device of an engine, which raises while `fails` is set."""

    def __init__(self, space: Space, device: Runner | None) -> None:
        self._space, self._device = space, device
        self.on_gpu = device is not None and device.on_gpu
        self.device_input: Preparation = space.tensor if device is None else device.device_input
        self.fails = False

    def launch(self, modality: str, rows: Sequence[torch.Tensor]) -> EmbeddingFuture:
        if self.fails:
            raise RuntimeError("the device failed, as the soak asked it to")
        if self._device is not None:
            return self._device.launch(modality, rows)
        return self._space.embed_async(modality, torch.stack(list(rows)))

    def free_memory(self) -> None:
        if self._device is not None:
            self._device.free_memory()


@dataclass(slots=True)
class Wire:
    """Publishes embeddings and events of robots as the bridge does. Use it in one thread."""

    publisher: ZmqPublisher
    sequences: defaultdict[bytes, Iterator[int]] = field(default_factory=lambda: defaultdict(count))
    newest: dict[bytes, tuple[Embedding | Event, str]] = field(default_factory=dict)
    published: int = 0
    polled: float = 0.0

    def send(self, item: Embedding | Event, robot: str) -> None:
        """Send one item."""
        topic = topic_for(item, robot)
        self.newest[topic] = item, robot
        self.publisher.send(*encode(item, next(self.sequences[topic]), "", robot))
        self.published += 1
        if time.monotonic() - self.polled > 0.5:  # as the bridge
            self.polled = time.monotonic()
            self.publisher.poll_connection_events()

    def send_newest_again(self) -> None:
        """One more message on each topic: a reader that lost the last ones notices it when the next one arrives."""
        for item, robot in list(self.newest.values()):
            self.send(item, robot)


class SoakRobots:
    """Robots with five sensors in real time, whose deliveries are disturbed. `folder`: for the readers."""

    def __init__(self, bench: RealtimeBenchmark, load: Load, folder: Path) -> None:
        self._bench, self._load = bench, load
        self._engine = bench.engine
        self._tracked = {m: m for m in sensor_load.MESSAGE_RATES if m in bench.space.modalities}
        self.sensors = [self._name(m, robot) for robot in range(load.robots) for m in self._tracked]
        self._publisher = ZmqPublisher(ADDRESS, queue_size=QUEUE_SIZE)
        self._wire = Wire(self._publisher)
        environment = subprocess_environment()
        self._fast, self._slow = (
            Reader(name, self._publisher.endpoint, pause, folder, environment)
            for name, pause in (("fast reader", 0.0), ("slow reader", SLOW_PAUSE))
        )
        self._sent: Counter[str] = Counter()  # sensor → samples that were given to its pipeline
        self._published: Counter[str] = Counter()  # sensor → embeddings
        self._errors: Counter[str] = Counter()

    def _name(self, modality: str, robot: int) -> str:
        return sensor_name(modality, robot, self._load.robots)

    def __enter__(self) -> SoakRobots:
        return self

    def __exit__(self, *_: object) -> None:
        """End the readers and the publisher."""
        for reader in (self._fast, self._slow):
            reader.kill()
        self._publisher.close()

    def run(self, plan: FaultPlan, start: int, seconds: float, seed: int) -> dict[str, Any]:
        """Run from `start` (ns) on. Returns the figures."""
        self._wait_for_readers()
        prompts = {f"prompts.{label}": list(phrases) for label, phrases in PROMPTS.items()}
        settings = Settings.of(self._load.values, prompts)
        if isinstance(self._bench.space, SyntheticImageBind):  # random weights: texts mean nothing
            settings = settings.with_detector({"detectors": ["novelty", "disagreement", "change", "fault"]})
        pipelines = [
            build.make_pipeline(
                self._load.values,
                self._bench.space,
                engine=self._engine,
                live=True,
                tracker=EventTracker(settings.detectors(self._bench.space), self._bench.space.id),
            )
            for _ in range(self._load.robots)
        ]
        device = self._engine.batches.runner
        failing = self._engine.batches.runner = FailingRunner(self._bench.space, device)
        scheduler = Scheduler(self._engine)
        for robot, pipeline in enumerate(pipelines):
            scheduler.add(pipeline, self._recorder(robot, plan))
        names = {thread.name for thread in threading.enumerate()}
        watched = {"robots": None, "fast reader": self._fast.pid}
        try:
            with objects_frozen(), ProcessWatch(watched, min(3.0, max(0.1, seconds / 600))) as watch:
                self._feed(pipelines, scheduler, failing, plan, start, seconds, seed)
                ended = names - {thread.name for thread in threading.enumerate()}
        finally:
            scheduler.close()
            self._engine.batches.runner = device
        self._drain()
        plan.note_reader(self._slow)
        return {
            "processes": watch.summary(),
            "ended": ", ".join(sorted(ended)) or "none",
            "exceptions": dict(self._errors),
            **self._accounting(pipelines),
        }

    def _wait_for_readers(self) -> None:
        deadline = time.monotonic() + READER_START
        while self._publisher.client_count < 2 and time.monotonic() < deadline:
            self._publisher.poll_connection_events()
            time.sleep(0.05)

    def _recorder(self, robot: int, plan: FaultPlan) -> Callable[[list[Output]], None]:
        def record(outputs: list[Output]) -> None:
            now = time.time_ns()
            for output in outputs:
                if isinstance(output, Failure):
                    continue
                if isinstance(output, Embedding) and output.modality != FUSED:
                    sensor = self._name(output.source, robot)
                    self._published[sensor] += 1
                    plan.note_window(sensor, output.tick, now)
                self._wire.send(output, f"robot{robot}")

        return record

    def _feed(
        self,
        pipelines: Sequence[Pipeline],
        scheduler: Scheduler,
        device: FailingRunner,
        plan: FaultPlan,
        start: int,
        seconds: float,
        seed: int,
    ) -> None:
        """Deliver the samples when they are due, and cause the faults that are not of delivery."""
        own = sensor_load.sensors(self._tracked)
        stream = deliveries([own] * self._load.robots, seconds, start)
        shown_at = 0.0
        with progress("in real time", seconds) as shown:
            for delivery in disturbed(stream, plan.deliveries, seed):
                if (left := (delivery.arrival - time.time_ns()) / SECOND) > 0:
                    time.sleep(left)
                now = time.time_ns()
                device.fails = plan.active(now, DEVICE_FAILS) is not None
                if plan.active(now, READER_KILLED):
                    self._slow.kill()
                else:
                    self._slow.start()
                robot = delivery.item.robot
                self._sent[delivery.sensor] += 1
                try:
                    sample = sample_of(delivery, now, plan.active(now, POISON))
                    if pipelines[robot].accept(sample):
                        scheduler.notify()
                except Exception as error:  # counted: no sample may raise
                    self._errors[f"{type(error).__name__}: {error}"[:200]] += 1
                if (passed := (now - start) / SECOND) > shown_at + 1:
                    shown_at = passed
                    shown.reach(passed)

    def _drain(self) -> None:
        """Wait until the fast reader has read everything."""
        time.sleep(1.0)
        self._wire.send_newest_again()
        drained(self._fast, self._wire.published, DRAIN)
        self._publisher.poll_connection_events()

    def _accounting(self, pipelines: Sequence[Pipeline]) -> dict[str, Any]:
        totals = {
            self._name(m, n): s
            for n, p in enumerate(pipelines)
            for m, s in p.statistics().items()
            if m in self._tracked
        }
        fast, slow = self._fast.counts(), self._slow.counts()
        differences = {
            "samples given, not counted": sum(abs(self._sent[m] - s.counts["samples"]) for m, s in totals.items()),
            **unaccounted_by_line(line for s in totals.values() for line in sensor_accounts(s)),
            "windows that still wait": sum(s.waiting_windows + s.windows_in_flight for s in totals.values()),
            "embedded, not published": sum(abs(s.counts["embedded"] - self._published[m]) for m, s in totals.items()),
            "published, neither received nor noticed as lost": abs(self._wire.published - sum(fast.values())),
        }
        counted = sum((s.counts for s in totals.values()), Counter[str]())
        return {
            "counts": {name: counted[name] for name in sorted(counted)},
            "published": self._wire.published,
            "queue_full": self._publisher.counts["queue_full"],
            "fast_reader": fast,
            "slow_reader": {**slow, "starts": len(self._slow.starts)},
            "unaccounted_by_kind": differences,
            "unaccounted": sum(differences.values()) + sum(self._errors.values()),
        }
