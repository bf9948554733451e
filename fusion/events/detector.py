"""The base class of detectors: they score labels tick by tick. The caller holds their state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from sensebind.fusion.core.embeddings import FUSED, Embedding
from sensebind.fusion.core.events import EventKind, Score
from sensebind.fusion.events.lifecycle import LifecycleOptions


class DetectorOptions(Protocol):
    """Frozen options of a detector."""

    @property
    def lifecycle(self) -> LifecycleOptions:
        """When an event of this detector begins and ends."""


OptionsT = TypeVar("OptionsT", bound=DetectorOptions)


class Detector(ABC, Generic[OptionsT]):
    """Scores labels, tick by tick. It holds options only: everything that changes with time is in the state.

    A state is immutable: `score` and `migrate_state` return a new one. So the tracker can go back to an earlier state
    when data arrive late. A subclass sets `kind` and `default_options`, and defines `has_label` and `score`. A wrapper
    of another detector forwards all members that are declared here.
    """

    kind: EventKind
    default_options: OptionsT

    def __init__(self, options: OptionsT | None = None) -> None:
        """`options`: None for `default_options`."""
        self.options: OptionsT = self.default_options if options is None else options

    @property
    def lifecycle_options(self) -> LifecycleOptions:
        """When an event begins and ends, for labels without options of their own."""
        return self.options.lifecycle

    def lifecycle_options_for(self, label: str) -> LifecycleOptions:
        """Return when an event of this label begins and ends: by default `lifecycle_options`."""
        return self.lifecycle_options

    def kind_of(self, label: str) -> EventKind:
        """Return the kind of the events of this label: by default `kind`."""
        return self.kind

    @abstractmethod
    def has_label(self, label: str) -> bool:
        """Return whether it scores this label. An open event of a label that it does not score is closed."""

    def initial_state(self) -> Any:
        """Return the state before the first tick: by default an empty mapping, for one state per sensor."""
        return {}

    def migrate_state(self, old: Detector, state: Any) -> Any:
        """Return the state for this detector when it replaces `old`, of the same kind: by default `state` unchanged."""
        return state

    @abstractmethod
    def score(self, state: Any, tick: int, embeddings: Mapping[str, Embedding]) -> tuple[Any, Mapping[str, Score]]:
        """Score one tick (ns), from sensor → embedding. Return the new state, and label → score. Labels that are not
        returned have score 0."""


def unfused_sensors(present: Mapping[str, Embedding]) -> list[str]:
    """Return the sensors of a tick's embeddings, without `fused`, sorted by name."""
    return sorted(set(present) - {FUSED})


def healthy_sensors(present: Mapping[str, Embedding]) -> list[str]:
    """Return those of `unfused_sensors` whose window shows no symptom of a fault."""
    return [sensor for sensor in unfused_sensors(present) if not present[sensor].symptoms]
