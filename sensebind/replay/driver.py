"""The offline driver: drives a pipeline with the samples of a recording, as fast as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sensebind.fusion.core.samples import Sample
from sensebind.fusion.inference.engine import Failure
from sensebind.fusion.stream.drivers import process_samples
from sensebind.fusion.stream.pipeline import Output, Pipeline
from sensebind.replay.reader import SampleReader


def process_recording(
    reader: SampleReader,
    pipeline: Pipeline,
    *,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_progress: Callable[[int], None] = lambda stamp: None,
) -> Iterator[Output]:
    """Drive `pipeline` with all samples and calibrations of `reader`. Yields its outputs. Raises `RecordingError`."""
    for sensor, calibration in reader.parameter_calibrations.items():  # `calibrations` may be of an earlier read
        pipeline.set_calibration(sensor, calibration)

    for sensor, (stamp, received) in reader.first_stamps().items():
        pipeline.check_clock(sensor, stamp, received)  # so that the first sample of a wrong clock is dropped

    def read() -> Iterator[Sample | Failure]:
        for sample in reader.samples(on_progress, pipeline.set_calibration):
            if isinstance(sample, Sample) and pipeline.check_clock(sample.sensor, sample.end, sample.received):
                on_sample(sample)
            yield sample

    yield from process_samples(pipeline, read())
