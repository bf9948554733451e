"""One space for all of a robot's modalities: `sensebind.fusion` without ROS, `sensebind.nodes` with it.

The names in `__all__` are the public API. They are imported when they are first used (PEP 562), so `import sensebind`
is quick and loads no model. Everything else may move from one version to the next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sensebind.fusion.core import threads

if TYPE_CHECKING:
    from sensebind.fusion.config.build import pipeline as build_pipeline
    from sensebind.fusion.core.embeddings import Embedding
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.core.events import Event
    from sensebind.fusion.core.samples import Sample
    from sensebind.fusion.core.space import Hub, Space
    from sensebind.fusion.inference.engine import Engine
    from sensebind.fusion.io.recordings import Recording
    from sensebind.fusion.io.wire import decode
    from sensebind.fusion.models.registry import load as load_space
    from sensebind.fusion.stream.drivers import process_samples
    from sensebind.fusion.stream.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = [
    "Embedding",
    "Engine",
    "Event",
    "Hub",
    "Pipeline",
    "Recording",
    "Sample",
    "SensebindError",
    "Space",
    "build_pipeline",
    "decode",
    "load_space",
    "process_samples",
]
_PLACES = {
    "Embedding": "fusion.core.embeddings",
    "Engine": "fusion.inference.engine",
    "Event": "fusion.core.events",
    "Hub": "fusion.core.space",
    "Pipeline": "fusion.stream.pipeline",
    "Recording": "fusion.io.recordings",
    "Sample": "fusion.core.samples",
    "SensebindError": "fusion.core.errors",
    "Space": "fusion.core.space",
    "build_pipeline": "fusion.config.build:pipeline",
    "decode": "fusion.io.wire",
    "load_space": "fusion.models.registry:load",
    "process_samples": "fusion.stream.drivers",
}

threads.settle()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'sensebind' has no attribute '{name}'")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"sensebind.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
