"""The base class of detectors: they score labels tick by tick, and get their state from the caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import Kind, Score
from sensebind.fusion.events.lifecycle import LifeOptions


class DetectorOptions(Protocol):
    """Frozen options of a detector."""

    @property
    def life(self) -> LifeOptions:
        """When an event of this detector begins and ends."""


Options = TypeVar("Options", bound=DetectorOptions)


class Detector(ABC, Generic[Options]):
    """Scores labels, tick by tick. It holds options only; all that changes with time is in the state.

    A state is immutable: `score` and `adopt` return a new one. So the tracker can go back to an earlier state when
    data arrive late. A subclass sets `kind` and `default_options`, and defines `knows` and `score`. A wrapper of
    another detector forwards all members that are declared here.
    """

    kind: Kind
    default_options: Options

    def __init__(self, options: Options | None = None) -> None:
        """`options`: None means `default_options`."""
        self.options: Options = self.default_options if options is None else options

    @property
    def life(self) -> LifeOptions:
        """When an event of each of its labels begins and ends."""
        return self.options.life

    @abstractmethod
    def knows(self, label: str) -> bool:
        """Whether it scores this label. An open event of a label that it does not score is closed."""

    def start(self) -> Any:
        """The state before the first tick. By default an empty mapping, for a state per modality."""
        return {}

    def adopt(self, old: Detector, state: Any) -> Any:
        """The state with which this detector takes over from `old`, of the same kind. By default `state` unchanged."""
        return state

    @abstractmethod
    def score(self, state: Any, tick: int, present: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        """(state, tick in ns, the tick's embeddings) → (new state, label → score). Labels left out score 0."""


def modalities(present: Mapping[str, Embedding]) -> list[str]:
    """The modalities of a tick's embeddings, without `fused`, sorted by name."""
    return sorted(set(present) - {FUSED})


def healthy_modalities(present: Mapping[str, Embedding]) -> list[str]:
    """`modalities` whose window shows no symptom of a faulty sensor."""
    return [modality for modality in modalities(present) if not present[modality].symptoms]
