"""Pooling of the scores of several sensors to one probability, and running baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Vector
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import Effect, Options, parameter
from sensebind.fusion.events.lifecycle import LifecycleOptions

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Bounds in s of parameters that several detectors have.
TIME_CONSTANT_BOUNDS, WARM_UP_BOUNDS = (1.0, 86400.0), (0.1, 3600.0)


@dataclass(frozen=True, slots=True)
class EvidenceOptions(Options):
    """Options of detectors that pool several modalities. Raises `ConfigError`.

    `prior`: the score without evidence. `support`: a modality with this score or more supports the event.
    `reliability`: modality → weight of its evidence, 0 to 10, 1 if it is missing.
    """

    effect = Effect.AT_ONCE

    threshold: float = parameter(
        4.0, "Deviation from the baseline at which the score is 0.5", bounds=(0.0, 20.0), unit="σ"
    )
    slope: float = parameter(
        1.5, "Steepness of the score: log-odds for each deviation", bounds=(0.1, 10.0), unit="nats/σ"
    )
    time_constant: float = parameter(
        60.0,
        "Time constant of the baseline: the running mean and deviation of the similarity or distance",
        bounds=TIME_CONSTANT_BOUNDS,
        unit="s",
        formerly="memory",
    )
    max_age: float = parameter(
        3.0,
        "Time that a sensor's last score stays in use when no new window arrives",
        bounds=(0.05, 3600.0),
        unit="s",
        formerly="staleness",
    )
    prior: float = 0.02
    support: float = 0.3
    reliability: Mapping[str, float] = field(default_factory=dict)
    lifecycle: LifecycleOptions = LifecycleOptions()

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        for name, value, most in (
            ("prior", self.prior, self.lifecycle.offset_threshold / 2),  # else an event would never end
            ("support", self.support, self.lifecycle.offset_threshold),
        ):
            if not 1e-6 <= value <= most:
                raise ConfigError(f"{name} must be 1e-06 to {most:g}, not {value!r}")
        for modality, weight in self.reliability.items():
            if not 0 <= weight <= 10:
                raise ConfigError(f"reliability of '{modality}' must be 0 to 10, not {weight:g}")

    def scores_from_deviations(self, deviations: FloatArray) -> FloatArray:
        """Convert deviations from the baseline (L,) to scores (L,), 0.5 at `threshold`."""
        return logistic(self.slope * (deviations - self.threshold))


def logistic(x: npt.ArrayLike) -> FloatArray:
    """1 / (1 + e^−x), without overflow."""
    clipped = np.clip(np.asarray(x, np.float64), -60.0, 60.0)
    return np.asarray(1.0 / (1.0 + np.exp(-clipped)))


def logit(p: npt.ArrayLike) -> FloatArray:
    """The inverse of `logistic`. The argument is clipped to 1e-9 … 1 − 1e-9."""
    inside = np.clip(np.asarray(p, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1.0 - inside)))


MAX_NEGATIVE_EVIDENCE = 1.0  # nats that one modality can subtract
MAX_POSITIVE_EVIDENCE = 8.0  # nats that one modality can add


def pool_scores(scores: npt.ArrayLike, weights: npt.ArrayLike, prior: float) -> FloatArray:
    """Pool the scores (M, L) of M modalities for L labels, with weights (M,), to scores (L,). All scores are 0..1.

    Calls `pool_log_likelihood_ratios` with the log-odds of each score minus those of the prior. The result for one
    modality of weight 1 is its score. Weight 0 leaves a modality out.
    """
    gains = logit(scores) - float(logit(prior))
    return pool_log_likelihood_ratios(gains, np.asarray(weights, np.float64)[:, None], prior, MAX_NEGATIVE_EVIDENCE)


def pool_log_likelihood_ratios(
    log_likelihood_ratios: FloatArray,
    weights: npt.ArrayLike,
    prior: npt.ArrayLike,
    max_negative_evidence: npt.ArrayLike,
) -> FloatArray:
    """Pool log likelihood ratios (M, L) of M modalities for L labels to probabilities (L,).

    `weights` are (M, 1) or (M, L), `prior` a number or (L,). Log-odds are added, as for independent sources of evidence
    with one common prior (Genest and Zidek, "Combining probability distributions", 1986): logit p = logit prior +
    Σ w·ratio. Each ratio is limited to −`max_negative_evidence` … `MAX_POSITIVE_EVIDENCE`: a microphone that detects no
    dog is weak evidence against a dog in the image. If M is 0, the result is the prior.
    """
    limited = np.clip(log_likelihood_ratios, -np.asarray(max_negative_evidence, np.float64), MAX_POSITIVE_EVIDENCE)
    return logistic(logit(prior) + np.sum(np.asarray(weights, np.float64) * limited, axis=0))


def best_of_modality(modalities: Sequence[str], scores: FloatArray) -> BoolArray:
    """Return which sensors count for each label, (S, L): in each modality the one with the highest score, the first of
    equals. So the sensors of one modality never outvote another modality. `modalities` (S,), `scores` (S, L)."""
    counts = np.ones(scores.shape, bool)
    for modality in {m for m in modalities if modalities.count(m) > 1}:
        rows = np.array([at for at, own in enumerate(modalities) if own == modality])
        counts[rows] = np.arange(len(rows))[:, None] == scores[rows].argmax(axis=0)
    return counts


def distance_from_mean(mean: Vector, vector: Vector) -> float:
    """Return the cosine distance, 0..2, of a unit vector (D,) from a mean (D,) of any length; 1 if the mean is 0."""
    length = float(np.linalg.norm(mean))
    return 1.0 - float(mean @ vector) / length if length > 0 else 1.0


@dataclass(frozen=True, slots=True)
class RunningBaseline:
    """Running mean and deviation of L values, (L,), and the observed time, at most `time_constant`, s (L,)."""

    mean: FloatArray
    deviation: FloatArray
    observed_time: FloatArray

    @classmethod
    def empty(cls, size: int) -> RunningBaseline:
        return cls(np.zeros(size), np.zeros(size), np.zeros(size))

    def z_scores(self, values: FloatArray, min_deviation: float) -> FloatArray:
        """Return `values` (L,) minus the mean, in deviations, (L,). A deviation is at least `min_deviation`."""
        return np.asarray((values - self.mean) / np.maximum(self.deviation, min_deviation), np.float64)

    def updated(
        self,
        values: FloatArray,
        seconds: float,
        time_constant: float,
        min_deviation: float,
        hold_mask: BoolArray | None = None,
    ) -> RunningBaseline:
        """Return the baseline after `values` (L,), which stand for `seconds`. Values with `hold_mask` change nothing.

        The mean is a plain average at first, and forgets exponentially after `time_constant` seconds. A value further
        than three deviations (each at least `min_deviation`) from the mean counts as one at three: Huber's influence
        function, so a single outlier has little effect. The deviation is 1.2533 times the mean absolute deviation, as
        for a Gaussian.
        """
        share = np.maximum(seconds / (self.observed_time + seconds), 1.0 - np.exp(-seconds / time_constant))
        new = self.observed_time == 0
        clip = 3.0 * np.maximum(self.deviation, min_deviation)
        step = np.where(new, values - self.mean, np.clip(values - self.mean, -clip, clip))
        mean = self.mean + share * step
        # One value has no deviation.
        spread = np.where(new, 0.0, 1.2533 * np.abs(step))
        deviation = self.deviation + share * (spread - self.deviation)
        observed_time = np.minimum(self.observed_time + seconds, time_constant)
        if hold_mask is None:
            return RunningBaseline(mean, deviation, observed_time)
        return RunningBaseline(
            np.where(hold_mask, self.mean, mean),
            np.where(hold_mask, self.deviation, deviation),
            np.where(hold_mask, self.observed_time, observed_time),
        )
