"""What a fuzz target is, and how one input is run and judged."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hypothesis.strategies import SearchStrategy

from sensebind.fusion.core.errors import SensebindError

MEMORY_LIMIT = 1.0  # GB that the process may grow by
HANG_TIMEOUT = 30.0  # s for one input

Work = Mapping[str, int]  # what was done for an input: name of a count → count


class FuzzError(AssertionError):
    """An input for which more was done than the target allows."""


@dataclass(frozen=True)
class Target:
    """An entry point. `run(data)` reads an input and returns the work that was done.

    The entry point may raise `SensebindError`: the input is refused. Every other exception is a failure. `limits`: the
    most work for one input, by name.
    """

    name: str
    strategy: SearchStrategy[bytes]
    run: Callable[[bytes], Work]
    limits: Work = field(default_factory=dict)


@dataclass
class Tally:
    """The inputs so far: how many, how many were refused, and the most work for one."""

    inputs: int = 0
    refused: int = 0
    most: Counter[str] = field(default_factory=Counter)
    memory: float = 0.0  # GB by which the process has grown since `start`
    start: float = field(default_factory=lambda: peak_memory())

    def try_input(self, target: Target, data: bytes) -> None:
        """Run one input. Raises what the target raises, and `FuzzError`."""
        self.inputs += 1
        try:
            work = target.run(data)
        except SensebindError as error:
            self.refused += 1
            text = str(error)
            if not text or len(text) > 2000 or "\n" in text:
                raise FuzzError(f"the error is empty, longer than a line, or longer than 2000: {text!r}") from error
        else:
            for name, count in work.items():
                self.most[name] = max(self.most[name], count)
                if count > target.limits.get(name, count):
                    raise FuzzError(f"{count} {name}, more than {target.limits[name]}")
        self.memory = peak_memory() - self.start
        if self.memory > MEMORY_LIMIT:
            self.start = peak_memory()  # so that only the input that took it fails
            raise FuzzError(f"the process grew by {self.memory:.1f} GB")


def peak_memory() -> float:
    """The most memory of this process so far, in GB. It never falls."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
