"""What a detector is: options that score labels, tick by tick, on a state that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.events import Kind
from sensebind.fusion.events.lifecycle import LifeOptions
from sensebind.fusion.events.scores import Score


class Detector(Protocol):
    """Scores labels, tick by tick. It holds options only; all that time needs is in the state it is given."""

    @property
    def kind(self) -> Kind: ...

    @property
    def life(self) -> LifeOptions: ...

    def knows(self, label: str) -> bool:
        """Whether it still scores this label: an open event of one that it does not is closed."""

    def start(self) -> Any:
        """The state before the first tick."""

    def adopt(self, old: Detector, state: Any) -> Any:
        """The state with which this detector takes over from another of its kind."""

    def score(self, state: Any, tick: int, present: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        """(state, tick in ns, the tick's embeddings) → (new state, label → score). Labels left out score 0."""
