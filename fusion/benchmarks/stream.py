"""`sensebind bench stream`: robots with five sensors each, in real time, through one engine."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from typing import Any

import torch

from sensebind.fusion.benchmarks import figures, robot
from sensebind.fusion.config import FREE, embedder_parameters, resolve
from sensebind.fusion.engine import Engine
from sensebind.fusion.models import registry
from sensebind.fusion.models.registry import Space
from sensebind.fusion.pipeline import Pipeline
from sensebind.fusion.samples import SECOND
from sensebind.fusion.threads import cores_at_hand
from sensebind.fusion.windows import Window


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--space", default="starter", help="(default: %(default)s)")
    parser.add_argument("--weights", default="", help="of the space")
    parser.add_argument("--dtype", default="auto", help="of the encoders (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    parser.add_argument("--robots", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--hop", type=float, default=0.2, help="seconds from window to window (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default: %(default)s)")
    parser.add_argument("-o", "--output", metavar="F", help="write the figures to this JSON file as well")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    result = measure(args)
    figures.show(result)
    if args.output:
        figures.write(args.output, figures.report("stream", result, args.device))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """In real time; then as fast as it goes, beside the plain way, in turns.

    The plain way embeds each window when it comes, one at a time, in eager float32. `replay_speed` is seconds of
    five sensors for each second of this machine, from samples in memory; a modality without an encoder is windowed
    only.
    """
    asked = tuple(robot.RATES)
    settings = {"space": args.space, "weights": args.weights, "device": args.device, "dtype": args.dtype}
    given = settings | {f"{m}.hop": args.hop for m in asked}
    values = resolve(embedder_parameters(asked), given, free=FREE)
    space, plain = (
        registry.load(args.space, modalities=asked, device=args.device, weights=args.weights, dtype=dtype)
        for dtype in (args.dtype, "float32")
    )
    embedded = [m for m in asked if m in space.modalities]
    engine = Engine(space, values["batch_size"])
    pipelines = [Pipeline.of(values, space, queue_size=values["queue_size"]) for _ in range(args.robots)]
    for pipeline in pipelines:
        pipeline.engine = engine
    cpu = live(pipelines, robot.sensors(), args.seconds)
    latencies = {m: [x for p in pipelines for x in p.statistics[m].latencies] for m in embedded}
    fast, slow = [], []
    for _ in range(3):
        fast.append(_replay(Pipeline.of(values, space), args.seconds, 8))
        slow.append(_replay(_plain(Pipeline.of(values, plain), plain), args.seconds, 1))
    return {
        "input": robot.digest(),
        "space": space.id,
        "embedded": ", ".join(embedded),
        "robots": args.robots,
        "threads": torch.get_num_threads(),
        "latency_ms": {m: figures.quantiles(values) for m, values in latencies.items()},
        "windows": {m: sum(p.statistics[m].counts["embedded"] for p in pipelines) for m in embedded},
        "dropped": {m: sum(p.statistics[m].counts["overload"] for p in pipelines) for m in embedded},
        "cpu_percent_of_the_machine": round(100 * cpu / args.seconds / cores_at_hand(), 1),
        "replay_speed": round(args.seconds / min(fast), 2),
        "replay_times_plain": round(min(slow) / min(fast), 2),
    }


class _Plain(Engine):
    """What one would write first: each window by itself."""

    def embed(self, windows: Sequence[Window]) -> list[Any]:
        return [
            self._embedding(w, self.space.embed(w.modality, self.space.tensor(w)[None])[0].numpy()) for w in windows
        ]


def _plain(pipeline: Pipeline, space: Space) -> Pipeline:
    pipeline.engine = _Plain(space)
    return pipeline


def _replay(pipeline: Pipeline, seconds: float, batch: int) -> float:
    """Seconds that it takes to put a recording of `seconds` through, `batch` windows at a time."""
    began = time.perf_counter()
    for sample in robot.recording(robot.sensors(), seconds):
        pipeline.accept(sample)
        if pipeline.waiting() >= batch:
            pipeline.drain()
    pipeline.finish()
    return time.perf_counter() - began


def live(pipelines: Sequence[Pipeline], own: Sequence[robot.Sensor], seconds: float) -> float:
    """Give every pipeline its robot's samples at their times; another thread drains. Processor seconds used.

    Stamps are those of the clock, as a robot's are. What arrived late because this machine could not keep up is not
    forgiven: the samples come as fast as they can then.
    """
    work, stopping = threading.Event(), threading.Event()

    def drain() -> None:
        while True:
            work.wait()
            work.clear()
            last = stopping.is_set()
            for pipeline in pipelines:
                pipeline.finish() if last else pipeline.step()
            if last:
                return
            if any(pipeline.waiting() for pipeline in pipelines):
                work.set()

    worker = threading.Thread(target=drain, name="embedding")
    worker.start()
    began, cpu = time.time_ns() + SECOND // 10, time.process_time()
    streams = [robot.recording(own, seconds, began + i * SECOND // 97, i) for i in range(len(pipelines))]
    plan = ((s, p) for group in zip(*streams, strict=True) for s, p in zip(group, pipelines, strict=True))
    try:
        for sample, pipeline in plan:
            if (left := (sample.end - time.time_ns()) / SECOND) > 0:
                time.sleep(left)
            if pipeline.accept(sample):
                work.set()
    finally:
        stopping.set()
        work.set()
        worker.join()
    return time.process_time() - cpu
