"""Robots in worker processes, as those of an embedder: each process delivers, checks and prepares the data of its
robots, and this process embeds the windows of all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sensebind.benchmarks.harness import resources, sensor_load, timing
from sensebind.benchmarks.realtime.run import RealtimeRun, run_realtime, summary_of
from sensebind.fusion.config import build
from sensebind.fusion.core.futures import CompletedFuture, EmbeddingFuture
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import Preparation, Space
from sensebind.fusion.inference.engine import Engine
from sensebind.fusion.inference.remote_runner import SpaceDescription, describe_space
from sensebind.fusion.inference.row_engine import RowEngine
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.fusion.stream.statistics import SensorStatistics
from sensebind.nodes.robots.link import Command, WorkerEnd, open_worker_end
from sensebind.nodes.robots.workers import WorkerProcess

START_TIMEOUT = 120.0  # s in which a process must import its modules
START_MARGIN = 2 * SECOND  # ns from the command to run until the robots begin
END_MARGIN = 30.0  # s in which the processes must report after a run


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """What one process runs: the robots with these `numbers`, for `seconds` from `began` (ns) on."""

    values: Mapping[str, Any]
    numbers: Sequence[int]
    sensors: Sequence[sensor_load.Sensor]
    seconds: float
    lead_in: float
    began: int


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The measurements of one process, and the statistics of its robots."""

    run: RealtimeRun
    totals: Sequence[Mapping[str, SensorStatistics]]


class InstantRunner:
    """A device that answers at once, with vectors that mean nothing: it measures the host alone."""

    on_gpu = False

    def __init__(self, space: Space) -> None:
        self.device_input: Preparation = space.tensor
        self._vector = torch.nn.functional.normalize(torch.ones(1, space.dimension))

    def launch(self, modality: str, rows: Sequence[torch.Tensor]) -> EmbeddingFuture:
        """Copies the rows, as any device, and returns equal vectors."""
        return CompletedFuture(self._vector.expand(len(torch.stack(list(rows))), -1).clone(), 1e-6 * len(rows))

    def free_memory(self) -> None:
        """Nothing."""


class StreamWorkers:
    """The processes. `engine`: the one that this process would use for robots of its own. `instant`: replace its
    encoders by an `InstantRunner`."""

    def __init__(self, count: int, engine: Engine, *, instant: bool = False) -> None:
        self._engine = RowEngine(engine.space, engine.batches.batch_size)
        self._instant = instant
        self._engine.batches.runner = InstantRunner(engine.space) if instant else engine.batches.runner
        self._scheduler = Scheduler(self._engine)
        self._workers = [WorkerProcess(f"worker {i + 1}", __name__) for i in range(count)]
        description = describe_space(engine.space, tuple(sensor_load.MESSAGE_RATES))
        for worker in self._workers:
            worker.serve_rows(self._engine, self._scheduler)
            worker.send(Command("configure", (description, engine.batches.batch_size)))
        sent = time.monotonic()
        for worker in self._workers:
            worker.wait("configure", sent, START_TIMEOUT)

    def conditions(self) -> dict[str, Any]:
        """Conditions of a run."""
        return {"count": len(self._workers), "device": "answers at once" if self._instant else "computes"}

    def measure(
        self,
        values: Mapping[str, Any],
        robots: int,
        sensors: Sequence[sensor_load.Sensor],
        seconds: float,
        lead_in: float,
    ) -> dict[str, Any]:
        """Run `robots` robots, spread over the processes. The figures of `summary_of`; processor time is that of all
        processes, and of this one."""
        began = (time.time_ns() + START_MARGIN) // SECOND * SECOND + SECOND
        count, turns, cpu = len(self._workers), self._scheduler.turn_count, time.process_time()
        shares = [range(robots)[first::count] for first in range(count)]
        with resources.ResourceSampler(1.0, str(self._engine.space.device)) as sampler:
            for worker, numbers in zip(self._workers, shares, strict=True):
                worker.send(Command("run", StreamLoad(values, numbers, sensors, seconds, lead_in, began)))
            sent, longest = time.monotonic(), seconds + START_MARGIN / SECOND + END_MARGIN
            results: list[StreamResult] = [worker.wait("run", sent, longest) for worker in self._workers]
        own = time.process_time() - cpu
        run = merged([result.run for result in results])
        run.held, run.engine_turns = sampler.summary(), self._scheduler.turn_count - turns
        run.cpu_seconds += own
        totals = [robot for result in results for robot in result.totals]
        found = summary_of(run, totals, self._engine.space.modalities)
        found["cpu_percent"]["of_which_this_process"] = round(100 * own / seconds, 1)
        return found

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()
        self._scheduler.close()


def merged(runs: Sequence[RealtimeRun]) -> RealtimeRun:
    """One run with the latencies and the processor times of several, which ran at the same time."""
    modalities = runs[0].latencies
    total = RealtimeRun(runs[0].seconds, {m: timing.RingBuffer() for m in modalities})
    for run in runs:
        total.cpu_seconds += run.cpu_seconds
        total.feeder_cpu_seconds += run.feeder_cpu_seconds
        for own, latencies in total.latencies.items():
            latencies_of_run = run.latencies[own].values()
            for value in np.asarray(latencies_of_run, float):
                latencies.add(float(value))
        for value in np.asarray(run.sample_delays_ms.values(), float):
            total.sample_delays_ms.add(float(value))
    return total


class StreamWorker:
    """The robots of one process."""

    def __init__(self, end: WorkerEnd) -> None:
        self._end = end
        self._engine: Engine | None = None

    def run(self) -> None:
        """Carry out commands until `stop`."""
        while (command := self._end.commands.get()).name != "stop":
            self._end.carry_out(command, self._carry_out)
        self._end.close()

    def _carry_out(self, command: Command) -> StreamResult | None:
        if command.name == "configure":
            description, batch_size = command.argument
            assert isinstance(description, SpaceDescription)
            self._engine = self._end.make_engine(description, batch_size)
            return None
        load: StreamLoad = command.argument
        engine = self._engine
        assert engine is not None
        if not load.numbers:
            return StreamResult(RealtimeRun(load.seconds, {s.modality: timing.RingBuffer() for s in load.sensors}), [])
        pipelines = [build.make_pipeline(load.values, engine.space, engine=engine, live=True) for _ in load.numbers]
        run = run_realtime(
            pipelines,
            load.sensors,
            load.seconds,
            lead_in=load.lead_in,
            began=load.began,
            numbers=load.numbers,
        )
        return StreamResult(run, [pipeline.statistics() for pipeline in pipelines])


def main(arguments: Sequence[str]) -> int:
    """Run a process. `arguments`: see `open_worker_end`."""
    StreamWorker(open_worker_end(arguments)).run()
    return 0
