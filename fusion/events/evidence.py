"""How the scores of several modalities become one probability, and what is usual of a score: its running baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Vector
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.parameters import Options, parameter
from sensebind.fusion.events.lifecycle import LifecycleOptions

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


TIME_CONSTANT_BOUNDS, WARM_UP_BOUNDS = (
    (1.0, 86400.0),
    (0.1, 3600.0),
)  # s, bounds of parameters that several options have


@dataclass(frozen=True, slots=True)
class EvidenceOptions(Options):
    """What the detectors that pool several modalities have in common.

    `prior`: the score where no modality gives evidence. `support`: a modality with this score supports the event.
    `reliability`: modality → weight of its evidence, 0 to 10, 1 where it is not named. Raises `ConfigError`.
    """

    threshold: float = parameter(
        4.0, "Deviation from the usual at which the score is 0.5", bounds=(0.0, 20.0), unit="σ"
    )
    slope: float = parameter(
        1.5, "Steepness of the score: log-odds for each deviation", bounds=(0.1, 10.0), unit="nats/σ"
    )
    time_constant: float = parameter(
        60.0,
        "Time constant of the running mean and deviation that a score is compared with",
        bounds=TIME_CONSTANT_BOUNDS,
        unit="s",
        formerly="memory",
    )
    max_age: float = parameter(
        3.0,
        "Time that a modality's last score stays in use when no new window arrives",
        bounds=(0.05, 3600.0),
        unit="s",
        formerly="staleness",
    )
    prior: float = 0.02
    support: float = 0.3
    reliability: Mapping[str, float] = field(default_factory=dict)
    life: LifecycleOptions = LifecycleOptions()

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # super() does not work in a class with slots
        for name, value, most in (
            ("prior", self.prior, self.life.offset_threshold / 2),  # else an event would stay open without evidence
            ("support", self.support, self.life.offset_threshold),
        ):
            if not 1e-6 <= value <= most:
                raise ConfigError(f"{name} must be 1e-06 to {most:g}, not {value!r}")
        for modality, weight in self.reliability.items():
            if not 0 <= weight <= 10:
                raise ConfigError(f"reliability of '{modality}' must be 0 to 10, not {weight:g}")

    def scores_from_deviations(self, deviations: FloatArray) -> FloatArray:
        """Deviations from the usual (L,) → scores (L,), one half at `threshold`."""
        return logistic(self.slope * (deviations - self.threshold))


def logistic(x: npt.ArrayLike) -> FloatArray:
    """1 / (1 + e^−x), without overflow."""
    clipped = np.clip(np.asarray(x, np.float64), -60.0, 60.0)
    return np.asarray(1.0 / (1.0 + np.exp(-clipped)))


def logit(p: npt.ArrayLike) -> FloatArray:
    """The inverse of `logistic`; 0 and 1 count as 1e-9 from there."""
    inside = np.clip(np.asarray(p, np.float64), 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1.0 - inside)))


MAX_NEGATIVE_EVIDENCE = 1.0  # nats that one sense, noticing nothing, may take from the others
MAX_POSITIVE_EVIDENCE = 8.0  # nats that one sense may give


def pool_scores(scores: npt.ArrayLike, weights: npt.ArrayLike, prior: float) -> FloatArray:
    """Scores of M senses for L labels, (M, L) in 0..1, and their weights (M,) → (L,) in 0..1:
    `pool_log_likelihood_ratios` of what each score says beyond the prior. With weight 1 and one sense, p is its score;
    weight 0 leaves it out."""
    gains = logit(scores) - float(logit(prior))
    return pool_log_likelihood_ratios(gains, np.asarray(weights, np.float64)[:, None], prior, MAX_NEGATIVE_EVIDENCE)


def pool_log_likelihood_ratios(
    log_likelihood_ratios: FloatArray,
    weights: npt.ArrayLike,
    prior: npt.ArrayLike,
    max_negative_evidence: npt.ArrayLike,
) -> FloatArray:
    """Log likelihood ratios (M, L) of M senses for L labels → probabilities (L,). `prior` is one or (L,).

    Log-odds add up, as for independent witnesses (Genest and Zidek, "Combining probability distributions",
    1986, with the prior counted once): logit p = logit prior + Σ w·ratio. A sense that notices nothing lowers the sum
    by `max_negative_evidence` at most: a microphone that hears no dog hardly speaks against the dog that the camera
    sees. M = 0 gives the prior.
    """
    held = np.clip(log_likelihood_ratios, -np.asarray(max_negative_evidence, np.float64), MAX_POSITIVE_EVIDENCE)
    return logistic(logit(prior) + np.sum(np.asarray(weights, np.float64) * held, axis=0))


def distance_from_mean(mean: Vector, vector: Vector) -> float:
    """Cosine distance, 0..2, of a unit vector (D,) from a mean (D,) of any length; 1 where the mean is 0."""
    length = float(np.linalg.norm(mean))
    return 1.0 - float(mean @ vector) / length if length > 0 else 1.0


@dataclass(frozen=True, slots=True)
class RunningBaseline:
    """What some numbers, (L,), usually are: running mean, running deviation, and the seconds that they stand on."""

    mean: FloatArray
    deviation: FloatArray
    observed_time: FloatArray

    @classmethod
    def empty(cls, size: int) -> RunningBaseline:
        return cls(np.zeros(size), np.zeros(size), np.zeros(size))

    def z_scores(self, values: FloatArray, min_deviation: float) -> FloatArray:
        """How far `values` (L,) lie above the mean, (L,), in running deviations of `min_deviation` at least."""
        return np.asarray((values - self.mean) / np.maximum(self.deviation, min_deviation), np.float64)

    def updated(
        self,
        values: FloatArray,
        seconds: float,
        time_constant: float,
        min_deviation: float,
        hold_mask: BoolArray | None = None,
    ) -> RunningBaseline:
        """The baseline after `values` (L,), which stand for `seconds`. Where `hold_mask` is true it stays as it was.

        A plain average until it is `time_constant` seconds old, from then on an exponentially forgetting one. A value
        further than three deviations (of `min_deviation` at least) counts as one at three: Huber's influence function,
        so one outlier does not move it. The deviation is 1.2533 times the mean absolute one, that of a Gaussian.
        """
        share = np.maximum(seconds / (self.observed_time + seconds), 1.0 - np.exp(-seconds / time_constant))
        new = self.observed_time == 0
        clip = 3.0 * np.maximum(self.deviation, min_deviation)
        step = np.where(new, values - self.mean, np.clip(values - self.mean, -clip, clip))
        mean = self.mean + share * step
        # A baseline on its first value knows no spread yet.
        spread = np.where(new, 0.0, 1.2533 * np.abs(step))
        deviation = self.deviation + share * (spread - self.deviation)
        age = np.minimum(self.observed_time + seconds, time_constant)
        if hold_mask is None:
            return RunningBaseline(mean, deviation, age)
        return RunningBaseline(
            np.where(hold_mask, self.mean, mean),
            np.where(hold_mask, self.deviation, deviation),
            np.where(hold_mask, self.observed_time, age),
        )
