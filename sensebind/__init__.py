"""One embedding space for all sensors of a robot: `sensebind.fusion` runs without ROS, `sensebind.nodes` needs it.

The names in `__all__` are the public API: see docs/python.md. They are imported when they are first used (PEP 562), so
`import sensebind` is quick and loads no model. All other names may move from one version to the next.

In the command `sensebind`, its nodes, and programs that `python -m sensebind…` starts, no module is imported from the
current folder, which may hold a recording of others and code beside it: not by `-m`, and not by an empty entry of
PYTHONPATH. A folder that PYTHONPATH names, or that has this package, stays in use.

The import sets the environment variables that limit the threads of OpenMP and OpenCV, unless the user has set them:
see `fusion.core.threads`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any


def _drop_current_folder() -> None:
    """Remove the current folder from the places of modules, where `python -m` or an empty entry of PYTHONPATH, as in
    `PYTHONPATH=$PYTHONPATH:/opt/more`, has put it."""
    program = sys.argv[0] if sys.argv else ""
    is_node = os.path.dirname(program).endswith(os.path.join("lib", "sensebind"))
    if program != "-m" and os.path.basename(program) != "sensebind" and not is_node:
        return  # another program imports this package
    try:
        here = os.getcwd()
    except FileNotFoundError:  # the folder was deleted, so no module is there
        return
    own = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    if os.path.realpath(here) != own and here not in named:
        sys.path[:] = [path for path in sys.path if path not in ("", here)]


_drop_current_folder()

from sensebind.fusion.core import threads  # noqa: E402 - the first import of other modules

if TYPE_CHECKING:
    from sensebind.fusion.core.embeddings import Embedding
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.core.events import Event, EventPhase
    from sensebind.fusion.core.samples import Calibration, Frame, Reading, Sample, Sound
    from sensebind.fusion.core.space import Hub, Space
    from sensebind.fusion.core.windows import WindowSpec
    from sensebind.fusion.inference.engine import Engine, Failure
    from sensebind.fusion.io.recordings import Recording, Selection
    from sensebind.fusion.io.wire import decode as decode_message
    from sensebind.fusion.models.registry import load_space as load_space
    from sensebind.fusion.stream.drivers import finish, process, process_samples
    from sensebind.fusion.stream.pipeline import Pipeline
    from sensebind.fusion.stream.scheduler import Scheduler
    from sensebind.replay.session import Settings, open_replay

__version__ = "0.2.0"
_EXPORTS = {  # public name → "module", or "module:name"
    "Calibration": "fusion.core.samples",
    "Embedding": "fusion.core.embeddings",
    "Engine": "fusion.inference.engine",
    "Event": "fusion.core.events",
    "Failure": "fusion.inference.engine",
    "Frame": "fusion.core.samples",
    "Hub": "fusion.core.space",
    "EventPhase": "fusion.core.events",
    "Pipeline": "fusion.stream.pipeline",
    "Reading": "fusion.core.samples",
    "Recording": "fusion.io.recordings",
    "Sample": "fusion.core.samples",
    "Scheduler": "fusion.stream.scheduler",
    "Selection": "fusion.io.recordings",
    "SensebindError": "fusion.core.errors",
    "Settings": "replay.session",
    "Sound": "fusion.core.samples",
    "Space": "fusion.core.space",
    "WindowSpec": "fusion.core.windows",
    "decode_message": "fusion.io.wire:decode",
    "finish": "fusion.stream.drivers",
    "load_space": "fusion.models.registry:load_space",
    "open_replay": "replay.session",
    "process": "fusion.stream.drivers",
    "process_samples": "fusion.stream.drivers",
}
__all__ = [
    "Calibration",
    "Embedding",
    "Engine",
    "Event",
    "EventPhase",
    "Failure",
    "Frame",
    "Hub",
    "Pipeline",
    "Reading",
    "Recording",
    "Sample",
    "Scheduler",
    "Selection",
    "SensebindError",
    "Settings",
    "Sound",
    "Space",
    "WindowSpec",
    "decode_message",
    "finish",
    "load_space",
    "open_replay",
    "process",
    "process_samples",
]

threads.set_thread_environment()


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'sensebind' has no attribute '{name}'")
    module, _, attribute = _EXPORTS[name].partition(":")
    return getattr(import_module(f"sensebind.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
