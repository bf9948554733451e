"""Drives a pipeline sample by sample."""

from __future__ import annotations

from sensebind.fusion.core.samples import Sample
from sensebind.fusion.stream.drivers import process
from sensebind.fusion.stream.pipeline import Output, Pipeline


def push(pipeline: Pipeline, sample: Sample) -> list[Output]:
    """Accept one sample and process the waiting windows. Returns the outputs."""
    pipeline.accept(sample)
    return process(pipeline)
