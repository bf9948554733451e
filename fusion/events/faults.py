"""Faults: a sensor that lies, as its data show, or that has fallen silent while others go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensebind.fusion.core.embeddings import Embedding
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Evidence, Kind, Score
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.symptoms import SYMPTOMS
from sensebind.fusion.events.detector import Detector, modalities
from sensebind.fusion.events.lifecycle import LifeOptions

UNPLUGGED = "unplugged"
CAUSES = (*SYMPTOMS, UNPLUGGED)
VOTES = 3  # windows: a sensor that fails shows another symptom at first, in a window that is half lost
SURE = 0.95  # the score of a fault that shows
PATIENT = 2.5  # usual intervals of a sense without a window after which it is silent
UNKNOWN = 4.0  # times `timeout` for a sense that has had one window only: its rhythm is not known


@dataclass(frozen=True, slots=True)
class FaultOptions(Options):
    """How sensor faults are detected. Raises `ConfigError`."""

    causes: tuple[str, ...] = parameter(
        (), "Faults to detect. Empty: all. Omit `frozen` for sensors that are simulated without noise", choices=CAUSES
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
    life: LifeOptions = LifeOptions(min_duration=0.5, hold_time=1.5, update_period=5.0)

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        if self.life.onset_threshold > SURE:
            raise ConfigError(
                f"onset_threshold must be at most {SURE:g}, the score of every fault, "
                f"and it is {self.life.onset_threshold:g}"
            )

    def detects(self, cause: str) -> bool:
        """Whether this cause is one of those to detect."""
        return cause in (self.causes or CAUSES)


def fault_label(modality: str, cause: str) -> str:
    """``fault:thermal:frozen``."""
    return f"fault:{modality}:{cause}"


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one sense: its last window, how far its windows usually are apart, and what it showed."""

    start: int
    tick: int
    interval: float  # s; 0 until it is known
    shown: tuple[str, ...]  # causes at its last `VOTES` windows, empty ones where it seemed well

    @property
    def cause(self) -> str:
        """What it showed most often of late, of equals the latest; empty where its last window seemed well."""
        if not self.shown[-1]:
            return ""
        return max(reversed(self.shown), key=lambda name: self.shown.count(name) if name else 0)


State = Mapping[str, Watch]


class FaultDetector(Detector[FaultOptions]):
    """Scores a label for each sense that shows a symptom, or no window at all: one cause at a time, the most telling.

    `Embedding.symptoms` say what a window shows; silence is told from the ticks of the others.
    """

    kind = Kind.FAULT
    default_options = FaultOptions()

    def knows(self, label: str) -> bool:
        return self.options.detects(label.rpartition(":")[2])

    def score(self, state: State, tick: int, present: Mapping[str, Embedding]) -> tuple[State, dict[str, Score]]:
        """One tick: what the new windows show, and which senses have had none for too long."""
        watches = dict(state)
        for modality in self.options.expected:
            watches.setdefault(modality, Watch(tick, tick, self.options.timeout / PATIENT, ("",)))
        for modality in modalities(present):
            watches[modality] = self._see(state.get(modality), tick, present[modality])
        scores = {}
        for modality, watch in sorted(watches.items()):
            silent = (tick - watch.tick) / SECOND
            cause = watch.cause
            limit = max(self.options.timeout, PATIENT * watch.interval)
            if silent >= (limit if watch.interval else UNKNOWN * limit):
                cause = UNPLUGGED
            if self.options.detects(cause):
                evidence = (Evidence(modality, SURE, True, watch.start, watch.tick),)
                scores[fault_label(modality, cause)] = Score(SURE, evidence)
        return watches, scores

    def _see(self, watch: Watch | None, tick: int, embedding: Embedding) -> Watch:
        cause = next((c for c in CAUSES if c in embedding.symptoms and self.options.detects(c)), "")
        if watch is None or watch.tick == tick:
            return Watch(embedding.start, tick, 0.0, (cause,))
        gap = (tick - watch.tick) / SECOND
        # One long gap is no rhythm: half a step towards it at most.
        interval = gap if not watch.interval else watch.interval + 0.2 * min(gap - watch.interval, 0.5 * watch.interval)
        return Watch(embedding.start, tick, interval, (*watch.shown, cause)[-VOTES:])
