"""Robots with five sensors that run in real time: their samples are delivered when they are due, and each vector's
latency is measured."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from sensebind.benchmarks.harness import resources, sensor_load, timing
from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.freed_memory import objects_frozen
from sensebind.fusion.core.samples import SECOND, Sample
from sensebind.fusion.core.threads import available_cores
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.scheduler import Scheduler
from sensebind.fusion.stream.statistics import WINDOW_DROPS, SensorStatistics
from sensebind.replay.progress import progress

MISS_CAUSES = ("overload", "expired", "failure")  # causes for which a window with enough data was not embedded


@dataclass
class RealtimeRun:
    """Measurements of robots that ran in real time. Latencies in ms."""

    seconds: float
    latencies: dict[str, timing.RingBuffer]
    cpu_seconds: float = 0.0  # processor seconds of the process
    feeder_cpu_seconds: float = 0.0  # of these, the thread that delivers samples and cuts windows
    sample_delays_ms: timing.RingBuffer = field(default_factory=timing.RingBuffer)  # of late samples only
    first_half: dict[str, float] = field(default_factory=dict)  # p99 of each modality after half of the time
    held: dict[str, Any] = field(default_factory=dict)  # memory, threads, files: `ResourceSampler.summary`
    engine_turns: int = 0
    is_finished: bool = False


# Long, because one loop delivers the samples of all robots and notes when it was late.
def run_realtime(
    pipelines: Sequence[Pipeline],
    sensors: Sequence[sensor_load.Sensor],
    seconds: float,
    *,
    lead_in: float = 0.0,
    device: str = "cpu",
    period: float = 1.0,
    began: int | None = None,
    numbers: Sequence[int] | None = None,
) -> RealtimeRun:
    """Deliver every pipeline its robot's samples in real time; a scheduler embeds. The pipelines share an engine.

    Stamps are those of the system clock, as on a robot. If this machine is late, it delivers the due samples as fast as
    possible, and their delay counts. Robots start within 1 s of each other, at 97 different phases; their samples are
    delivered in time order. `lead_in`: seconds at the start whose latencies do not count. `began` (ns), `numbers`: the
    start of the run and the numbers of these robots, if other processes run further ones.
    """
    by_name = {sensor.modality: sensor for sensor in sensors}
    result = RealtimeRun(seconds, {m: timing.RingBuffer() for m in by_name})
    began = sensor_load.next_start_time() if began is None else began
    numbers = range(len(pipelines)) if numbers is None else numbers
    starts = [began + i * SECOND // 97 % SECOND for i in numbers]

    def recorder(number: int, specs: Mapping[str, Any]) -> Callable[[list[Output]], None]:
        def record(outputs: list[Output]) -> None:
            now = time.time_ns()
            if result.is_finished or now < began + lead_in * SECOND:
                return
            for output in outputs:
                if isinstance(output, Embedding) and output.modality in by_name:
                    reached = output.tick + specs[output.modality].lateness
                    closing = by_name[output.modality].closing_time(starts[number], reached)
                    result.latencies[output.modality].add((now - closing) / 1e6)

        return record

    scheduler = Scheduler(pipelines[0].engine)
    for number, pipeline in enumerate(pipelines):
        scheduler.add(pipeline, recorder(number, pipeline.specs))
    streams = [sensor_load.sample_stream(sensors, seconds, start, i) for i, start in zip(numbers, starts, strict=True)]
    owned = [zip(stream, repeat(pipeline)) for stream, pipeline in zip(streams, pipelines, strict=True)]
    schedule = heapq.merge(*owned, key=lambda item: item[0].end)
    cpu, feeder_cpu = time.process_time(), time.thread_time()
    try:
        with objects_frozen(), resources.ResourceSampler(period, device) as sampler:
            for sample, pipeline in _shown(schedule, began, seconds):
                if (left := (sample.end - time.time_ns()) / SECOND) > 0:
                    time.sleep(left)
                else:
                    result.sample_delays_ms.add(-1e3 * left)
                if pipeline.accept(sample):
                    scheduler.notify()
                if not result.first_half and time.time_ns() > began + seconds * SECOND / 2:
                    result.first_half = {m: timing.quantiles(x.values())["p99"] for m, x in result.latencies.items()}
            result.cpu_seconds, result.feeder_cpu_seconds = time.process_time() - cpu, time.thread_time() - feeder_cpu
    finally:
        result.is_finished = True  # the remaining windows are embedded at once: their latency does not count
        scheduler.close()
    result.held, result.engine_turns = sampler.summary(), scheduler.turn_count
    return result


def _shown(
    schedule: Iterable[tuple[Sample, Pipeline]], began: int, seconds: float
) -> Iterator[tuple[Sample, Pipeline]]:
    """The samples, with the progress of the run, once in a second."""
    last = 0
    with progress("in real time", seconds) as shown:
        for sample, pipeline in schedule:
            if (passed := (sample.end - began) // SECOND) > last:
                last = passed
                shown.reach(passed)
            yield sample, pipeline


def realtime_summary(run: RealtimeRun, pipelines: Sequence[Pipeline]) -> dict[str, Any]:
    """The figures of a run in this process: see `summary_of`."""
    return summary_of(run, [pipeline.statistics() for pipeline in pipelines], pipelines[0].engine.space.modalities)


def summary_of(
    run: RealtimeRun, totals: Sequence[Mapping[str, SensorStatistics]], modalities: Iterable[str]
) -> dict[str, Any]:
    """Figures in the form of ros2_benchmark's: rates, latency, jitter, missed windows, processor and GPU use.

    `totals`: the statistics of each robot. `modalities`: those that the space has encoders for.
    """
    modalities = set(modalities)
    counts = {m: [of_robot[m].counts for of_robot in totals] for m in run.latencies}
    embeds = [m for m in run.latencies if m in modalities]
    embedded = {m: sum(c["embedded"] for c in counts[m]) for m in embeds}
    missed = {m: sum(c[cause] for c in counts[m] for cause in MISS_CAUSES) for m in embeds}
    latencies = {m: run.latencies[m].values() for m in embeds}
    return {
        "robots": len(totals),
        "seconds": run.seconds,
        "latency_ms": {m: timing.quantiles(values) for m, values in latencies.items()},
        "latency_all_modalities_ms": timing.quantiles(np.concatenate([*latencies.values(), np.empty(0)])),
        "jitter_ms": {m: round(float(np.std(values)), 3) for m, values in latencies.items() if len(values)},
        "windows": embedded,
        "windows_per_s": round(sum(embedded.values()) / run.seconds, 1),
        "missed": sum(missed.values()),
        "missed_share": {m: round(missed[m] / max(1, missed[m] + embedded[m]), 4) for m in embeds},
        "dropped": {
            cause: total
            for cause in WINDOW_DROPS
            if (total := sum(c[cause] for group in counts.values() for c in group))
        },
        "windows_per_turn": round(sum(embedded.values()) / max(1, run.engine_turns), 2),
        "cpu_percent": {
            "of_a_core": round(100 * run.cpu_seconds / run.seconds, 1),
            "of_which_samples_and_windows": round(100 * run.feeder_cpu_seconds / run.seconds, 1),
            "of_the_machine": round(100 * run.cpu_seconds / run.seconds / available_cores(), 1),
        },
        "samples_given_late_ms": timing.quantiles(run.sample_delays_ms.values()),
        "held": run.held,
    }
