"""Open-vocabulary events: something that the user named in words is seen, heard or felt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, Vector, l2_normalize
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.detector import Detector, unfused_modalities
from sensebind.fusion.events.evidence import (
    MAX_NEGATIVE_EVIDENCE,
    MAX_POSITIVE_EVIDENCE,
    WARM_UP_BOUNDS,
    BoolArray,
    EvidenceOptions,
    FloatArray,
    RunningBaseline,
    logistic,
    logit,
    pool_log_likelihood_ratios,
)
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.events.prompt_calibration import PromptCalibration, find_calibration
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers, rank_weighted_sum
from sensebind.fusion.events.scores import timestamp_correction

# What anything could be. A phrase must stand out against these; they need not be true of the place. A label may
# be among them: the middle and the spread of the crowd hardly notice one of their own.
DEFAULT_BACKGROUND_PHRASES = (
    "a photo", "an ordinary scene", "a room", "a street", "silence", "noise",
    "a wall", "the floor", "the sky", "clouds", "water", "trees", "a field", "a mountain", "a building", "a door",
    "furniture", "a table", "a lamp", "a screen", "a tool", "a machine", "a box", "a bottle", "food", "clothes",
    "a book", "a sign", "a pattern", "an animal", "a bird", "an insect", "a plant", "a vehicle", "a boat",
    "a sport", "music", "speech", "wind", "rain", "a hum", "a click", "an engine", "darkness", "light",
)  # fmt: skip
MIN_BACKGROUND_PHRASES = 8  # background phrases below which their spread says nothing
MIN_BACKGROUND_SPREAD = 0.005  # cosine: a background narrower than this is not believed
CalibrationLookup = Callable[[str], PromptCalibration | None]  # a space's id → its calibration
MAX_BASELINE_INCREASE, MAX_BASELINE_DECREASE = (
    2.0,
    1.0,
)  # deviations by which the usual level may raise and lower the bar


@dataclass(frozen=True, slots=True)
class PromptOptions(EvidenceOptions):
    """How phrases are detected in a stream. Raises `ConfigError`.

    `min_modalities` may also be a mapping from label to number, 1 for the others. `calibration` may also be a function
    from the space's id to a calibration, or to None.
    """

    threshold: float = parameter(
        3.0,
        "Similarity above the background at which a modality's score is 0.5. Not for trained labels",
        bounds=(0.0, 20.0),
        unit="σ",
    )
    life: LifecycleOptions = LifecycleOptions(min_duration=0.5, immediate_onset_threshold=0.95)
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
        "Calibration file from `sensebind calibrate`: trained classifiers of labels, and score curves of modalities. "
        "Empty: the one shipped for the space. none: similarity alone",
    )

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

    @property
    def background_phrases(self) -> tuple[str, ...]:
        """The phrases that a label is compared against."""
        return self.background or DEFAULT_BACKGROUND_PHRASES

    def prior_score(self, calibration: PromptCalibration | None) -> float:
        """The score without evidence: the prior of the calibration if there is one. At most half `offset_threshold`."""
        return (
            min(calibration.prior, self.life.offset_threshold / 2) if calibration and calibration.senses else self.prior
        )

    def classifier_prior_score(self, words: PromptClassifiers) -> float:
        """The score of a taught word where no sense says anything, half of `offset_threshold` at most."""
        return min(words.prior, self.life.offset_threshold / 2)

    def modality_weight(self, modality: str, calibration: PromptCalibration | None) -> float:
        """How much this sense's evidence counts."""
        fitted = calibration.senses.get(modality) if calibration else None
        return self.reliability.get(modality, fitted.reliability if fitted else 1.0)

    def min_modalities_for(self, label: str) -> int:
        """How many senses must support this label."""
        needed = self.min_modalities
        return needed.get(label, 1) if isinstance(needed, Mapping) else needed


def calibration_lookup(calibration: str | CalibrationLookup) -> CalibrationLookup:
    """The function from a space's id to its calibration that `PromptOptions.calibration` stands for.

    Raises `CalibrationError` for a file that cannot be read. The function raises it for a file of another space.
    """
    if callable(calibration):
        return calibration
    find_calibration(calibration, "")  # a file that cannot be read is reported now
    return lru_cache(maxsize=8)(partial(find_calibration, calibration))


def background_z_score(
    vector: Vector, phrases: Vector, label_starts: npt.NDArray[np.intp], background: Vector
) -> FloatArray:
    """How far each label stands out of the background, (L,) float64, in deviations of the background's cosines.

    `vector` (D,), `phrases` (N, D) and `background` (M, D) are unit vectors; label l owns the phrases from
    `label_starts[l]` to the next. A label's cosine is its best phrase's. The middle and the spread of the background
    are its median and 1.4826 times its median absolute deviation. Cosines of image and text, sound and text, …
    lie in different, narrow bands; in these units they compare. This is the test normalisation of speaker
    verification, a score against a cohort of others (Auckenthaler, Carey and Lloyd-Thomas, "Score normalization
    for text-independent speaker verification systems", 2000), with order statistics.
    """
    crowd = background @ vector
    middle = np.median(crowd)
    spread = max(1.4826 * float(np.median(np.abs(crowd - middle))), MIN_BACKGROUND_SPREAD)
    return np.asarray((best_similarities(vector, phrases, label_starts) - middle) / spread, np.float64)


def best_similarities(vector: Vector, phrases: Vector, label_starts: npt.NDArray[np.intp]) -> FloatArray:
    """The cosine of `vector` (D,) and the best phrase of each label, (L,). `phrases` as in `background_z_score`, whose
    `label_starts` are `label_starts` here."""
    return np.asarray(np.maximum.reduceat(phrases @ vector, label_starts))


def subtract_competition(z_scores: FloatArray, competition: float) -> FloatArray:
    """Background z-scores (L,), less `competition` times the margin of the best other label: like looks like like."""
    return np.asarray(z_scores - competition * np.maximum(-margins(z_scores), 0.0), np.float64)


def margins(z_scores: FloatArray) -> FloatArray:
    """Background z-scores (L,) over the best other label's, (L,): negative for all but the best. 0 where there is one
    label."""
    if len(z_scores) < 2:
        return np.zeros(len(z_scores))
    order = np.sort(z_scores)
    return np.asarray(z_scores - np.where(z_scores == order[-1], order[-2], order[-1]), np.float64)


def deviation_from_baseline(
    z_scores: FloatArray, baseline: RunningBaseline, baseline_weight: float, warm_up: float
) -> FloatArray:
    """Background z-scores u (L,) against their own baseline in this stream, (L,):
    x = (u − w·baseline_weight·mean) / max(1, w·deviation).

    w = t / (t + warm_up), where t is the observed time. So a z-score has no baseline at first, and something that is
    present from the start is detected. The mean is clipped to −`MAX_BASELINE_DECREASE` … `MAX_BASELINE_INCREASE`.
    """
    weight = baseline.observed_time / (baseline.observed_time + warm_up)
    usual = weight * baseline_weight * np.clip(baseline.mean, -MAX_BASELINE_DECREASE, MAX_BASELINE_INCREASE)
    return np.asarray((z_scores - usual) / np.maximum(1.0, weight * baseline.deviation), np.float64)


@dataclass(frozen=True, slots=True)
class PromptModalityState:
    """What is remembered of one modality: its last window, what that said of the L labels, and what is usual."""

    start: int
    tick: int
    coverage: float
    deviations: FloatArray  # (L,) deviations from the baseline
    margins: FloatArray  # (L,) deviations over the best other label
    log_likelihood_ratios: FloatArray  # (L,) log likelihood ratios of words that it was taught, NaN of others
    scores: FloatArray  # (L,)
    similarities: FloatArray  # (L,) cosine similarities of the best phrases
    baseline: RunningBaseline  # of the background z-scores, (L,)
    faulty: bool = False  # a window since then showed that the sensor is faulty


@dataclass(frozen=True, slots=True)
class PromptState:
    modality_states: Mapping[str, PromptModalityState] = field(default_factory=dict)
    recent_scores: tuple[tuple[int, FloatArray], ...] = ()  # (tick, pooled scores (L,)) of the last `smoothing` seconds
    calibration: PromptCalibration | None = None  # of the stream's space

    def current_modalities(self, tick: int, max_age: float) -> dict[str, PromptModalityState]:
        """The senses that say something at a tick: neither stale (s) nor faulty."""
        return {
            m: s for m, s in sorted(self.modality_states.items()) if not s.faulty and tick - s.tick <= max_age * SECOND
        }


class PromptDetector(Detector[PromptOptions]):
    """Scores each label from all senses' similarity to its phrases.

    `prompts` is label → phrases; `embed_text` turns N phrases into (N, D) unit vectors of the stream's space.
    Raises `ValueError` where a label has no phrase or the vectors do not fit.
    """

    kind = EventKind.PROMPT
    default_options = PromptOptions()

    def __init__(
        self,
        prompts: Mapping[str, Sequence[str]],
        embed_text: Callable[[Sequence[str]], npt.ArrayLike],
        options: PromptOptions | None = None,
    ) -> None:
        super().__init__(options)
        self.prompts = {label: tuple(prompts[label]) for label in sorted(prompts)}
        for label, phrases in self.prompts.items():
            if not label or not phrases or not all(p.strip() for p in phrases):
                raise ValueError(f"prompt '{label}' needs a name and at least one phrase, none of them empty")
        flat = [phrase for phrases in self.prompts.values() for phrase in phrases]
        background = list(dict.fromkeys(self.options.background_phrases))
        vectors = l2_normalize(embed_text(flat + background))
        wanted = len(flat) + len(background)
        if vectors.ndim != 2 or len(vectors) != wanted:
            raise ValueError(f"embed_text gave an array of shape {vectors.shape} for {wanted} phrases")
        self.phrase_vectors, self.background_vectors = vectors[: len(flat)], vectors[len(flat) :]
        sizes = [len(phrases) for phrases in self.prompts.values()]
        self.label_starts = np.cumsum([0, *sizes], dtype=np.intp)[:-1]
        self._calibration = calibration_lookup(self.options.calibration)
        self._label_classes: tuple[PromptCalibration, BoolArray] | None = (
            None  # which taught words the labels mean, of a calibration
        )

    def with_options(self, options: PromptOptions) -> PromptDetector:
        """The same prompts with other options, but for the background."""
        if options.background_phrases != self.options.background_phrases:
            raise ValueError("another background must be embedded: make another detector")
        result = copy(self)
        result.options, result._calibration = options, calibration_lookup(options.calibration)
        return result

    def has_label(self, label: str) -> bool:
        return label in self.prompts

    def initial_state(self) -> PromptState:
        return PromptState()

    def migrate_state(self, old: Detector, state: PromptState) -> PromptState:
        """Labels whose phrases are the same keep what is usual for them; others begin."""
        if not isinstance(old, PromptDetector) or old.options.background_phrases != self.options.background_phrases:
            return PromptState()
        before = list(old.prompts)
        kept = [before.index(n) if old.prompts.get(n) == p else -1 for n, p in self.prompts.items()]
        index = np.array(kept, np.intp)

        def move(values: FloatArray, blank: float = 0.0) -> FloatArray:
            return np.where(index >= 0, values[index], blank) if len(values) else np.full(len(index), blank)

        senses = {
            modality: replace(
                modality_state,
                deviations=move(modality_state.deviations),
                margins=move(modality_state.margins),
                log_likelihood_ratios=move(modality_state.log_likelihood_ratios, np.nan),
                scores=move(modality_state.scores, self.options.prior),
                similarities=move(modality_state.similarities),
                baseline=RunningBaseline(
                    move(modality_state.baseline.mean),
                    move(modality_state.baseline.deviation),
                    move(modality_state.baseline.observed_time),
                ),
            )
            for modality, modality_state in state.modality_states.items()
        }
        recent = tuple((tick, move(pooled, self.options.prior)) for tick, pooled in state.recent_scores)
        return PromptState(senses, recent, state.calibration)

    def score(
        self, state: PromptState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[PromptState, dict[str, Score]]:
        """One tick: senses with a window that ended now are scored, then all that are not stale are pooled."""
        if not self.prompts:
            return PromptState(), {}
        options, labels = self.options, list(self.prompts)
        senses, z_scores, seconds, calibration = dict(state.modality_states), {}, {}, state.calibration
        for modality in unfused_modalities(embeddings):
            embedding = embeddings[modality]
            if embedding.vector.shape != self.background_vectors.shape[1:]:
                raise ValueError(
                    f"{modality} has vectors of shape {embedding.vector.shape} and the phrases "
                    f"{self.background_vectors.shape[1:]}: they are of different spaces"
                )
            known = senses.get(modality)
            if embedding.symptoms:  # what a faulty sensor says is neither believed nor learnt
                if known:
                    senses[modality] = replace(known, faulty=True)
                continue
            level = known.baseline if known else RunningBaseline.empty(len(labels))
            u = background_z_score(embedding.vector, self.phrase_vectors, self.label_starts, self.background_vectors)
            z_scores[modality] = subtract_competition(u, options.competition)
            x, ahead = (
                deviation_from_baseline(z_scores[modality], level, options.baseline_weight, options.baseline_warm_up),
                margins(u),
            )
            calibration = self._calibration(embedding.space)
            ratios = self._classify(calibration, modality, embedding.vector)
            scores = self._modality_scores(calibration, modality, x, ahead, ratios)
            similarities = best_similarities(embedding.vector, self.phrase_vectors, self.label_starts)
            senses[modality] = PromptModalityState(
                embedding.start, tick, embedding.coverage, x, ahead, ratios, scores, similarities, level
            )
            seconds[modality] = min((tick - known.tick) / SECOND if known else 0.5, options.max_age)
        fresh = PromptState(senses).current_modalities(tick, options.max_age)
        table = np.array([s.scores for s in fresh.values()]).reshape(len(fresh), len(labels))
        weights = self._weights(calibration, fresh)
        pooled = self._apply_min_modalities(self._pool_modalities(calibration, fresh, table, weights), table)
        since = tick - options.smoothing * SECOND
        recent = (*((t, p) for t, p in state.recent_scores if t > since), (tick, pooled))
        pooled = np.median([p for _, p in recent], axis=0)
        # What is on does not become what is usual, however long it lasts.
        held = pooled >= options.life.offset_threshold
        for modality, u in z_scores.items():
            modality_state = senses[modality]
            level = modality_state.baseline.updated(u, seconds[modality], options.time_constant, 1.0, held)
            senses[modality] = replace(modality_state, baseline=level)
        scored = {}
        for at, label in enumerate(labels):
            evidence = self._evidence(fresh, weights, at)
            cosines = tuple(float(s.similarities[at]) for s in fresh.values())
            scored[label] = Score(float(pooled[at]), evidence, timestamp_correction(evidence), cosines)
        return PromptState(senses, recent, calibration), scored

    def _weights(self, calibration: PromptCalibration | None, fresh: Mapping[str, PromptModalityState]) -> FloatArray:
        """Weights of the modalities' scores, (M, L): reliability times coverage.

        If a label has a trained classifier, only the options' reliabilities count, not those of the calibration.
        """
        trained = ~np.isnan(self._log_likelihood_ratios(fresh))
        coverage = np.array([modality_state.coverage for modality_state in fresh.values()]).reshape(-1, 1)
        plain = np.array([self.options.modality_weight(m, calibration) for m in fresh]).reshape(-1, 1)
        own = np.array([self.options.reliability.get(m, 1.0) for m in fresh]).reshape(-1, 1)
        return np.asarray(np.where(trained.any(axis=0), own, plain) * coverage)

    def _log_likelihood_ratios(self, fresh: Mapping[str, PromptModalityState]) -> FloatArray:
        """(M, L), NaN where there is no trained classifier."""
        ratios = [modality_state.log_likelihood_ratios for modality_state in fresh.values()]
        return np.array(ratios).reshape(len(fresh), len(self.prompts))

    def _evidence(self, fresh: Mapping[str, PromptModalityState], weights: FloatArray, at: int) -> tuple[Evidence, ...]:
        """The evidence for label number `at`. `weights` (M, L) as from `_weights`."""
        return tuple(
            Evidence(
                modality,
                float(modality_state.scores[at]),
                bool(modality_state.scores[at] >= self.options.support),
                modality_state.start,
                modality_state.tick,
                weight=float(weight),
            )
            for (modality, modality_state), weight in zip(fresh.items(), weights[:, at], strict=True)
        )

    def _pool_modalities(
        self,
        calibration: PromptCalibration | None,
        fresh: Mapping[str, PromptModalityState],
        table: FloatArray,
        weights: FloatArray,
    ) -> FloatArray:
        """The modalities' scores (M, L) with their weights (M, L) together, (L,)."""
        options = self.options
        base = options.prior_score(calibration)
        gains = logit(table) - float(logit(base))
        pooled = pool_log_likelihood_ratios(gains, weights, base, MAX_NEGATIVE_EVIDENCE)
        if not (calibration and calibration.words):
            return pooled
        ratios = self._log_likelihood_ratios(fresh)
        trained = ~np.isnan(ratios)
        held = np.where(
            trained,
            np.clip(ratios, -calibration.doubt, MAX_POSITIVE_EVIDENCE),
            np.clip(gains, -MAX_NEGATIVE_EVIDENCE, MAX_POSITIVE_EVIDENCE),
        )
        prior = float(logit(options.classifier_prior_score(calibration.words)))
        classified = logistic(prior + rank_weighted_sum(held * weights, calibration.words.ranks))
        return np.where(trained.any(axis=0), classified, pooled)

    def _classify(self, calibration: PromptCalibration | None, modality: str, vector: Vector) -> FloatArray:
        if calibration is None or calibration.words is None:
            return np.full(len(self.prompts), np.nan)
        if self._label_classes is None or self._label_classes[0] is not calibration:
            self._label_classes = calibration, calibration.words.match_labels(self.phrase_vectors, self.label_starts)
        return calibration.words.log_likelihood_ratios(modality, vector, self._label_classes[1])

    def _modality_scores(
        self, calibration: PromptCalibration | None, modality: str, x: FloatArray, ahead: FloatArray, ratios: FloatArray
    ) -> FloatArray:
        """By similarity to the words; of words that the sense was taught, by what it was taught where that holds."""
        if calibration is not None and modality in calibration.senses:
            similar = calibration.senses[modality].probabilities(x, ahead)
        else:
            similar = self.options.scores_from_deviations(x)
        known = ~np.isnan(ratios)
        if not (calibration and calibration.words and known.any()):
            return similar
        prior = float(logit(self.options.classifier_prior_score(calibration.words)))
        return np.where(known, logistic(prior + np.where(known, ratios, 0.0)), similar)

    def _apply_min_modalities(self, pooled: FloatArray, table: FloatArray) -> FloatArray:
        """Where a label must be supported by k senses and fewer do, it is no surer than its k-th surest sense."""
        ordered = -np.sort(-table, axis=0)
        result = pooled.copy()
        for at, label in enumerate(self.prompts):
            needed = self.options.min_modalities_for(label)
            surest = float(ordered[needed - 1, at]) if needed <= len(ordered) else 0.0
            if needed > 1 and surest < self.options.support:
                result[at] = min(result[at], surest)
        return result
