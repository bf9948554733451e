"""Drive a pipeline in the calling thread: all waiting windows, one turn of them, or a whole recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sensebind.fusion.core.samples import Sample
from sensebind.fusion.inference.engine import Failure, Job
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.window_queue import WindowBatch

BATCH = 8  # closed windows that are worth a call of the encoders


def process(pipeline: Pipeline, quota: Mapping[str, int] | None = None) -> list[Output]:
    """Embed and complete the waiting windows: at most `quota[modality]` of each modality; None: all."""
    batch = pipeline.dequeue(quota)
    return list(pipeline.complete(batch, pipeline.engine.embed(batch.windows)))


def process_turn(pipeline: Pipeline) -> list[Output]:
    """As `process`, for one turn of each modality (`Engine.turn`). Call it again while windows are `waiting`.

    Windows past the turn wait, and may be dropped for newer ones. So a slow modality loses its own windows, and delays
    those of other modalities by one turn at most.
    """
    return process(pipeline, {modality: pipeline.engine.turn(modality) for modality in pipeline.specs})


def finish(pipeline: Pipeline) -> list[Output]:
    """End a recording: close and embed all complete windows, fuse all ticks, end open events."""
    pipeline.flush()
    return process(pipeline) + pipeline.close()


def process_samples(pipeline: Pipeline, samples: Iterable[Sample | Failure], batch: int = BATCH) -> Iterator[Output]:
    """Drive a pipeline with a whole recording, as fast as possible. The outputs equal those of `process` after each
    sample, then `finish`. A `Failure` among the samples (a message that could not be read) is passed on.

    Windows are embedded `batch` at a time. Meanwhile the previous batch is completed, and the next samples are read and
    windowed. Raises `KeyError` for a sample of a modality that is not configured.
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
