"""The options of the prompt detector, and where its calibration comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.events.evidence import (
    WARM_UP_BOUNDS,
    EvidenceOptions,
)
from sensebind.fusion.events.lifecycle import LifecycleOptions, with_onset_threshold
from sensebind.fusion.events.prompt_calibration import PromptCalibration, find_calibration, shipped_names
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers

# Common concepts, which need not be present: the similarity of a phrase is compared with theirs. A prompt may have one
# of these phrases: a single phrase has little effect on the median and the deviation.
DEFAULT_BACKGROUND_PHRASES = (
    "a photo", "an ordinary scene", "a room", "a street", "silence", "noise",
    "a wall", "the floor", "the sky", "clouds", "water", "trees", "a field", "a mountain", "a building", "a door",
    "furniture", "a table", "a lamp", "a screen", "a tool", "a machine", "a box", "a bottle", "food", "clothes",
    "a book", "a sign", "a pattern", "an animal", "a bird", "an insect", "a plant", "a vehicle", "a boat",
    "a sport", "music", "speech", "wind", "rain", "a hum", "a click", "an engine", "darkness", "light",
)  # fmt: skip
MIN_BACKGROUND_PHRASES = 8  # the deviation of fewer phrases is not reliable
CalibrationLookup = Callable[[str], PromptCalibration | None]  # id of a space → its calibration


@dataclass(frozen=True, slots=True)
class PromptOptions(EvidenceOptions):
    """Options of the prompt detector. Raises `ConfigError`.

    `min_modalities` may also be a mapping from label to number, 1 for the others. `calibration` may also be a function
    from the id of a space to its calibration or None. `onset_thresholds`: label → its own onset threshold; the other
    thresholds of the label move along (`with_onset_threshold`).
    """

    threshold: float = parameter(
        3.0,
        "Similarity above the background at which a modality's score is 0.5. No effect on labels with a trained "
        "classifier, and on modalities with a fitted score curve or a naming curve in the calibration",
        bounds=(0.0, 20.0),
        unit="σ",
    )
    # One modality alone gives at most 0.984 (`MAX_POSITIVE_EVIDENCE`): one wrong image makes no event.
    lifecycle: LifecycleOptions = LifecycleOptions(min_duration=0.5, immediate_onset_threshold=0.99)
    background: tuple[str, ...] = parameter(
        (),
        f"Phrases that each label is compared with, at least {MIN_BACKGROUND_PHRASES} different ones. "
        f"Empty: {len(DEFAULT_BACKGROUND_PHRASES)} "
        f"built-in ones",
    )
    competition: float = parameter(
        0.5,
        "Fraction of the best competing label's margin that is subtracted from this label's similarity. 0: no "
        "competition",
        bounds=(0.0, 2.0),
        formerly="rivalry",
    )
    baseline_weight: float = parameter(
        0.7,
        "Fraction of a label's running mean similarity that is subtracted. 0: only its running deviation counts",
        bounds=(0.0, 1.0),
        formerly="trust",
    )
    baseline_warm_up: float = parameter(
        10.0,
        "Observed time after which a label's running mean counts half. Well below `time_constant`",
        bounds=WARM_UP_BOUNDS,
        unit="s",
        formerly="maturity",
    )
    min_modalities: int | Mapping[str, int] = parameter(
        1, "Number of modalities that must support an event. With fewer present, none begins", bounds=(1, 16)
    )
    smoothing: float = parameter(
        0.0, "Length of the median filter over the scores. 0: no filter", bounds=(0.0, 60.0), unit="s"
    )
    calibration: str | CalibrationLookup = parameter(
        "",
        "Calibration file from `sensebind calibrate`: trained classifiers of labels, and score curves of modalities. A "
        f"path, or the name of a shipped file: {', '.join(shipped_names())}. Empty: the shipped score curves and "
        "naming curves of the space's encoders. none: similarity of windows alone",
    )
    onset_thresholds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        EvidenceOptions.__post_init__(self)  # super() does not work in a class with slots
        phrases = set(self.background_phrases)
        if len(phrases) < MIN_BACKGROUND_PHRASES:
            raise ConfigError(
                f"background needs at least {MIN_BACKGROUND_PHRASES} different phrases, not {len(phrases)}"
            )
        for label, count in self.min_modalities.items() if isinstance(self.min_modalities, Mapping) else ():
            if count < 1:
                raise ConfigError(f"min_modalities of {label!r} must be 1 or more, not {count}")
        for label in self.onset_thresholds:
            self.lifecycle_for(label)

    def lifecycle_for(self, label: str) -> LifecycleOptions:
        """Return when an event of this label begins and ends. Raises `ConfigError` for a threshold out of bounds."""
        own = self.onset_thresholds.get(label)
        return self.lifecycle if own is None else with_onset_threshold(self.lifecycle, own)

    @property
    def background_phrases(self) -> tuple[str, ...]:
        """The phrases that each label is compared with."""
        return self.background or DEFAULT_BACKGROUND_PHRASES

    def prior_score(self, calibration: PromptCalibration | None) -> float:
        """Return the score without evidence: the calibration's, else `prior`. At most half of `offset_threshold`."""
        return (
            min(calibration.prior, self.lifecycle.offset_threshold / 2)
            if calibration and calibration.modalities
            else self.prior
        )

    def classifier_prior_score(self, classifiers: PromptClassifiers) -> float:
        """Return the score of a trained label without evidence: at most half of `offset_threshold`."""
        return min(classifiers.prior, self.lifecycle.offset_threshold / 2)

    def modality_weight(self, modality: str, calibration: PromptCalibration | None) -> float:
        """Return the weight of this modality's evidence: the option, else the calibration's, else 1."""
        fitted = calibration.modalities.get(modality) if calibration else None
        return self.reliability.get(modality, fitted.reliability if fitted else 1.0)

    def min_modalities_for(self, label: str) -> int:
        """Return the number of modalities that must support this label."""
        needed = self.min_modalities
        return needed.get(label, 1) if isinstance(needed, Mapping) else needed


def calibration_lookup(
    calibration: str | CalibrationLookup, encoders: Mapping[str, str] | None = None
) -> CalibrationLookup:
    """Return `PromptOptions.calibration` as a function from the id of a space to its calibration.

    `encoders` is modality → id of its encoder in the space. Raises `CalibrationError` for a file that cannot be read.
    The function raises it for a file of other encoders.
    """
    if callable(calibration):
        return calibration
    find_calibration(calibration, "")  # a file that cannot be read is reported now
    return lru_cache(maxsize=8)(partial(find_calibration, calibration, encoders=encoders))
