"""What a fuzz target is, and how one input is run and judged."""

from __future__ import annotations

import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from sensebind.fusion.core.errors import SensebindError

MEMORY_LIMIT = 1.0  # GB that the process may grow by
HANG_TIMEOUT = 30.0  # s for one input
READ = "read"  # the count of `Work` that says how many parts of an input got past the first check

Work = Mapping[str, int]  # what was done for an input: name of a count → count


class FuzzError(AssertionError):
    """An input for which more was done than the target allows."""


@dataclass(frozen=True)
class Target:
    """An entry point. `run(data)` reads an input and returns the work that was done.

    The entry point may raise `SensebindError`: the input is refused. Every other exception is a failure. `limits`: the
    most work for one input, by name. `first_checks`: the functions that look at an input first, for example its format:
    an input that they refuse has not reached the rest.
    """

    name: str
    strategy: SearchStrategy[bytes]
    run: Callable[[bytes], Work]
    limits: Work = field(default_factory=dict)
    first_checks: frozenset[str] = frozenset()


@dataclass
class Tally:
    """The inputs so far: how many, how many were refused, and the most work for one.

    `reached`: how many got past the first checks. `places`: where inputs were refused, and how often.
    """

    inputs: int = 0
    reached: int = 0
    refused: int = 0
    slowest: float = 0.0  # s
    places: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    memory: float = 0.0  # GB by which the process has grown since `start`
    start: float = field(default_factory=lambda: peak_memory())

    def try_input(self, target: Target, data: bytes) -> None:
        """Run one input. Raises what the target raises, and `FuzzError`."""
        self.inputs += 1
        began = time.monotonic()
        try:
            work = target.run(data)
        except SensebindError as error:
            self._add_refusal(target, error)
        else:
            self.reached += work.get(READ, 1) > 0
            for name, count in work.items():
                self.most[name] = max(self.most[name], count)
                if count > target.limits.get(name, count):
                    raise FuzzError(f"{count} {name}, more than {target.limits[name]}")
        if self.inputs > 1:  # the first one also loads what all need
            self.slowest = max(self.slowest, time.monotonic() - began)
        self.memory = peak_memory() - self.start
        if self.memory > MEMORY_LIMIT:
            self.start = peak_memory()  # so that only the input that took it fails
            raise FuzzError(f"the process grew by {self.memory:.1f} GB")

    def _add_refusal(self, target: Target, error: SensebindError) -> None:
        self.refused += 1
        frames = _frames(error)
        self.reached += not any(frame.name in target.first_checks for frame in frames)
        self.places[f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}"] += 1
        text = str(error)
        if not text or len(text) > 2000 or "\n" in text:
            raise FuzzError(f"the error is empty, longer than a line, or longer than 2000: {text!r}") from error


def _frames(error: BaseException | None) -> list[traceback.FrameSummary]:
    """The calls that ended in an error, and in those that caused it."""
    found: list[traceback.FrameSummary] = []
    while error is not None and len(found) < 200:
        found = [*traceback.extract_tb(error.__traceback__), *found]
        error = error.__cause__
    return found


def peak_memory() -> float:
    """The most memory of this process so far, in GB. It never falls."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
