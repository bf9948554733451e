"""Pipelines driven by the calling thread: what waits, a turn of it, or a whole recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sensebind.fusion.core.samples import Sample
from sensebind.fusion.inference.engine import Failure, Job
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.window_queue import WindowBatch

BATCH = 8  # closed windows that are worth a call of the encoders


def process(pipeline: Pipeline, quota: Mapping[str, int] | None = None) -> list[Output]:
    """Embed and complete what waits: of each modality at most `quota` windows; None: all."""
    batch = pipeline.dequeue(quota)
    return list(pipeline.complete(batch, pipeline.engine.embed(batch.windows)))


def process_turn(pipeline: Pipeline) -> list[Output]:
    """As `process`, where each modality has its turn of the device and no more: call it while windows are `waiting`.

    A window that is not in this turn waits, and a newer window may take its place. So a slow modality loses windows of
    its own, and delays those of others by one turn at most.
    """
    return process(pipeline, {modality: pipeline.engine.turn(modality) for modality in pipeline.specs})


def finish(pipeline: Pipeline) -> list[Output]:
    """The end of a recording: close all whole windows, fuse all ticks, end open events."""
    pipeline.flush()
    return process(pipeline) + pipeline.close()


def process_samples(pipeline: Pipeline, samples: Iterable[Sample | Failure], batch: int = BATCH) -> Iterator[Output]:
    """A whole recording through a pipeline, as fast as it goes: the same outputs as `process` after each sample gives,
    then `finish`. A `Failure` among the samples (a message that could not be read) is passed on.

    Windows are embedded `batch` at a time. Meanwhile the next samples are read and windowed, and the batch before is
    completed.
    """
    under_way: tuple[WindowBatch, Job] | None = None
    for sample in samples:
        if isinstance(sample, Failure):
            yield sample
            continue
        pipeline.accept(sample)
        if pipeline.waiting() >= batch:
            dequeued = pipeline.dequeue()
            begun = dequeued, pipeline.engine.submit(dequeued.windows)
            if under_way is not None:
                yield from pipeline.complete(under_way[0], pipeline.engine.answers(under_way[1]))
            under_way = begun
    if under_way is not None:
        yield from pipeline.complete(under_way[0], pipeline.engine.answers(under_way[1]))
    yield from finish(pipeline)
