"""Faults: a sensor that lies, as its data show, or that has fallen silent while others go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.events.detector import Detector, unfused_modalities
from sensebind.fusion.events.lifecycle import LifecycleOptions

UNPLUGGED = "unplugged"
FAULT_CAUSES = (*SYMPTOMS, UNPLUGGED)
VOTING_WINDOWS = 3  # windows: a sensor that fails shows another symptom at first, in a window that is half lost
FAULT_SCORE = 0.95  # the score of a fault that shows
MAX_MISSED_INTERVALS = 2.5  # usual intervals of a sense without a window after which it is silent
FIRST_WINDOW_TIMEOUT_FACTOR = 4.0  # times `timeout` for a sense that has had one window only: its rhythm is not known


@dataclass(frozen=True, slots=True)
class FaultOptions(Options):
    """How sensor faults are detected. Raises `ConfigError`."""

    causes: tuple[str, ...] = parameter(
        (),
        "Faults to detect. Empty: all. Omit `frozen` for sensors that are simulated without noise",
        choices=FAULT_CAUSES,
    )
    timeout: float = parameter(
        1.25,
        "Time without a window after which a sensor is unplugged, while others have windows. Longer where 2.5 of its "
        "usual intervals are longer, and 4 times as long after its first window",
        bounds=(0.1, 3600.0),
        unit="s",
        formerly="silence",
    )
    expected: tuple[str, ...] = parameter(
        (),
        "Modalities that must have windows from the start. `configured`: all that the embedder is configured for. "
        "Others "
        "are unplugged only after a first window",
    )
    life: LifecycleOptions = LifecycleOptions(min_duration=0.5, hold_time=1.5, update_period=5.0)

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        if self.life.onset_threshold > FAULT_SCORE:
            raise ConfigError(
                f"onset_threshold must be at most {FAULT_SCORE:g}, the score of every fault, "
                f"and it is {self.life.onset_threshold:g}"
            )

    def detects(self, cause: str) -> bool:
        """Whether this cause is one of those to detect."""
        return cause in (self.causes or FAULT_CAUSES)


def fault_label(modality: str, cause: str) -> str:
    """``fault:thermal:frozen``."""
    return f"fault:{modality}:{cause}"


@dataclass(frozen=True, slots=True)
class FaultModalityState:
    """What is remembered of one sense: its last window, how far its windows usually are apart, and what it showed."""

    start: int
    tick: int
    window_interval: float  # s; 0 until it is known
    recent_causes: tuple[str, ...]  # causes at its last `VOTING_WINDOWS` windows, empty ones where it seemed well

    @property
    def cause(self) -> str:
        """What it showed most often of late, of equals the latest; empty where its last window seemed well."""
        if not self.recent_causes[-1]:
            return ""
        return max(reversed(self.recent_causes), key=lambda name: self.recent_causes.count(name) if name else 0)


FaultState = Mapping[str, FaultModalityState]


class FaultDetector(Detector[FaultOptions]):
    """Scores a label for each sense that shows a symptom, or no window at all: one cause at a time, the most telling.

    `Embedding.symptoms` say what a window shows; silence is told from the ticks of the others.
    """

    kind = EventKind.FAULT
    default_options = FaultOptions()

    def has_label(self, label: str) -> bool:
        return self.options.detects(label.rpartition(":")[2])

    def score(
        self, state: FaultState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[FaultState, dict[str, Score]]:
        """One tick: what the new windows show, and which senses have had none for too long."""
        modality_states = dict(state)
        for modality in self.options.expected:
            modality_states.setdefault(
                modality, FaultModalityState(tick, tick, self.options.timeout / MAX_MISSED_INTERVALS, ("",))
            )
        for modality in unfused_modalities(embeddings):
            modality_states[modality] = self._update_modality(state.get(modality), tick, embeddings[modality])
        scores = {}
        for modality, watch in sorted(modality_states.items()):
            silent = (tick - watch.tick) / SECOND
            cause = watch.cause
            limit = max(self.options.timeout, MAX_MISSED_INTERVALS * watch.window_interval)
            if silent >= (limit if watch.window_interval else FIRST_WINDOW_TIMEOUT_FACTOR * limit):
                cause = UNPLUGGED
            if self.options.detects(cause):
                evidence = (Evidence(modality, FAULT_SCORE, True, watch.start, watch.tick),)
                scores[fault_label(modality, cause)] = Score(FAULT_SCORE, evidence)
        return modality_states, scores

    def _update_modality(self, watch: FaultModalityState | None, tick: int, embedding: Embedding) -> FaultModalityState:
        cause = next((c for c in FAULT_CAUSES if c in embedding.symptoms and self.options.detects(c)), "")
        if watch is None or watch.tick == tick:
            return FaultModalityState(embedding.start, tick, 0.0, (cause,))
        gap = (tick - watch.tick) / SECOND
        # One long gap is no rhythm: half a step towards it at most.
        interval = (
            gap
            if not watch.window_interval
            else watch.window_interval + 0.2 * min(gap - watch.window_interval, 0.5 * watch.window_interval)
        )
        return FaultModalityState(embedding.start, tick, interval, (*watch.recent_causes, cause)[-VOTING_WINDOWS:])
