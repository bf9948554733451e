"""Drives a pipeline in the calling thread: with all waiting windows, one turn of them, or a whole recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from sensebind.fusion.core.samples import Sample
from sensebind.fusion.inference.engine import EmbeddingJob, Failure
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.fusion.stream.waiting_windows import QueueState, WindowBatch

MIN_BATCH_WINDOWS = 8  # `process_samples` embeds when this many windows wait


class Client(Protocol):
    """What a driver serves: a `Pipeline`, or a `RowQueue` of another process. They say what the methods do."""

    engine: Any

    def queue_state(self) -> QueueState: ...

    def dequeue(self, quota: Mapping[str, int] | None = None) -> Any: ...

    def complete(self, batch: Any, results: Any) -> Iterator[Output]: ...

    def flush(self) -> bool: ...

    def close(self) -> list[Output]: ...


def process(client: Client, quota: Mapping[str, int] | None = None) -> list[Output]:
    """Embed and complete the waiting windows: at most `quota[modality]` of each modality, or all if `quota` is None."""
    batch = client.dequeue(quota)
    return list(client.complete(batch, client.engine.embed(batch.windows)))


def process_turn(pipeline: Pipeline) -> list[Output]:
    """Embed and complete one turn: at most `Engine.windows_per_time_slice` windows of each modality.

    Call it again while `pipeline.waiting()` is not 0. The other windows stay in the queue and may be dropped. So a slow
    modality loses only its own windows, and delays other modalities by at most one turn.
    """
    modalities = {spec.modality for spec in pipeline.specs.values()}
    return process(pipeline, {modality: pipeline.engine.windows_per_time_slice(modality) for modality in modalities})


def finish(client: Client) -> list[Output]:
    """End a recording: close and embed all complete windows, fuse all ticks, end open events."""
    client.flush()
    return process(client) + client.close()


def process_samples(
    pipeline: Pipeline, samples: Iterable[Sample | Failure], batch: int = MIN_BATCH_WINDOWS
) -> Iterator[Output]:
    """Drive a pipeline with a whole recording, as fast as possible. The outputs equal those of `process` after each
    sample, followed by `finish`. A `Failure` among the samples (a message that could not be read) is yielded unchanged.

    Windows are embedded `batch` at a time. Meanwhile the previous batch is completed, and the next samples are read and
    windowed. Raises `KeyError` for a sample of a sensor that is not configured.
    """
    in_progress: tuple[WindowBatch, EmbeddingJob] | None = None
    for sample in samples:
        if isinstance(sample, Failure):
            yield sample
            continue
        pipeline.accept(sample)
        if pipeline.waiting() >= batch:
            dequeued = pipeline.dequeue()
            submitted = dequeued, pipeline.engine.submit(dequeued.windows)
            if in_progress is not None:
                yield from pipeline.complete(in_progress[0], pipeline.engine.iter_results(in_progress[1]))
            in_progress = submitted
    if in_progress is not None:
        yield from pipeline.complete(in_progress[0], pipeline.engine.iter_results(in_progress[1]))
    yield from finish(pipeline)
