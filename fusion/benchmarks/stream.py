"""`sensebind bench stream`: robots with five sensors each, in real time, through one engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from sensebind.fusion.benchmarks import robot
from sensebind.fusion.pipeline import Pipeline
from sensebind.fusion.samples import SECOND


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
