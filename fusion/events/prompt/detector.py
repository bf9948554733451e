"""The prompt detector: scores labels by the similarity of windows and intervals to their phrases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, Vector, l2_normalize
from sensebind.fusion.core.events import EventKind, Evidence, Score
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.core.space import MIN_COMPETENCE
from sensebind.fusion.events.detector import Detector, unfused_sensors
from sensebind.fusion.events.evidence import (
    MAX_NEGATIVE_EVIDENCE,
    MAX_POSITIVE_EVIDENCE,
    BoolArray,
    FloatArray,
    RunningBaseline,
    best_of_modality,
    logistic,
    logit,
    pool_log_likelihood_ratios,
)
from sensebind.fusion.events.lifecycle import LifecycleOptions
from sensebind.fusion.events.prompt.intervals import UNKNOWN_LABEL, began_with, interval_of, unknown_score
from sensebind.fusion.events.prompt.options import PromptOptions, calibration_lookup
from sensebind.fusion.events.prompt.state import ExplainedIntervals, PromptSensorState, PromptState
from sensebind.fusion.events.prompt.z_scores import (
    background_z_score,
    deviation_from_baseline,
    margins,
    subtract_competition,
)
from sensebind.fusion.events.prompt_calibration import PromptCalibration
from sensebind.fusion.events.prompt_classifiers import PromptClassifiers, rank_weighted_sum
from sensebind.fusion.events.proposals.intervals import updated_proposals
from sensebind.fusion.events.proposals.naming import (
    COMPETING_PHRASES,
    Competition,
    IntervalNamer,
    NamingCurve,
    NamingState,
    best_similarities,
)
from sensebind.fusion.events.scores import half_window, timestamp_correction

# N phrases → modality → its competence for each phrase (N,), 0 to 1. A modality that is missing has competence 1.
CompetenceLookup = Callable[[Sequence[str]], Mapping[str, npt.ArrayLike]]
# N phrases → for each the name of the `DetectedObject` that it means; empty if it means none.
ObjectLookup = Callable[[Sequence[str]], Sequence[str]]
PAUSE_FACTOR = 1.03  # of the offset threshold: the highest score of an interval in a pause
FIRST_NAME_TIME = 3 * SECOND  # ns after the start of an interval; until then another name is for all of it


def full_competence(phrases: Sequence[str]) -> Mapping[str, npt.ArrayLike]:
    """The `CompetenceLookup` of a space whose competences are not known: 1 for all modalities and phrases."""
    return {}


def no_objects(phrases: Sequence[str]) -> Sequence[str]:
    """The `ObjectLookup` of a space that locates no objects."""
    return [""] * len(phrases)


def unrecognisable_text(labels: Sequence[str], suggestions: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the warning for labels that no present modality can recognise (`unrecognisable_labels`).

    `suggestions`: label → the nearest phrases that a present modality can recognise.
    """
    near = [f"{label}: {'; '.join(phrases)}" for label, phrases in (suggestions or {}).items() if phrases]
    return (
        f"no modality with data can recognise the prompts {', '.join(labels)}: they are not detected. Add a sensor "
        "that can, or use phrases that these modalities can recognise"
        + (f" (the nearest for {'. For '.join(near)})" if near else "")
        + ": docs/guides/prompts.md"
    )


class LabelMatches(NamedTuple):
    """The classes of each label in a calibration's classifiers, (L, K), and modality → the labels (L,) for which a
    trained classifier gives it the competence 1."""

    calibration: PromptCalibration
    classes: BoolArray
    trained: Mapping[str, BoolArray]


class PromptDetector(Detector[PromptOptions]):
    """Scores each label by the similarity of all modalities to its phrases, or by trained prompt classifiers. If a
    modality has several sensors, the one with the highest score for a label counts.

    A modality with a naming curve in the calibration is scored by intervals, in which its raw data stand out; others by
    windows. An interval that no label explains has the label `UNKNOWN_LABEL`.

    `prompts` is label → phrases. `embed_text` embeds N phrases as (N, D) unit vectors of the stream's space.
    `competences` returns how well its modalities can recognise N phrases. The competence of a modality for a label is
    the highest of the label's phrases. `named_objects` returns which objects the phrases mean: the region of a label is
    that of the best one. `encoders` is modality → id of its encoder, which finds its part of the calibration; the id
    of the space for those that are missing. Raises `ValueError` if a label has no phrase, or what these functions
    return does not fit.
    """

    kind = EventKind.PROMPT
    default_options = PromptOptions()

    def __init__(
        self,
        prompts: Mapping[str, Sequence[str]],
        embed_text: Callable[[Sequence[str]], npt.ArrayLike],
        options: PromptOptions | None = None,
        competences: CompetenceLookup = full_competence,
        named_objects: ObjectLookup = no_objects,
        encoders: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(options)
        self._encoders = encoders
        self.prompts = {label: tuple(prompts[label]) for label in sorted(prompts)}
        for label, phrases in self.prompts.items():
            if not label or not phrases or not all(p.strip() for p in phrases):
                raise ValueError(f"prompt '{label}' needs a name and at least one phrase, none of them empty")
        if UNKNOWN_LABEL in self.prompts:
            raise ValueError(f"a prompt cannot have the label '{UNKNOWN_LABEL}': it is that of events without a prompt")
        flat = [phrase for phrases in self.prompts.values() for phrase in phrases]
        background = list(dict.fromkeys(self.options.background_phrases))
        competing = {m: list(phrases) for m, phrases in COMPETING_PHRASES.items()} if flat else {}
        vectors = l2_normalize(embed_text([*flat, *background, *(p for own in competing.values() for p in own)]))
        wanted = len(flat) + len(background) + sum(map(len, competing.values()))
        if vectors.ndim != 2 or len(vectors) != wanted:
            raise ValueError(f"embed_text returned an array of shape {vectors.shape} for {wanted} phrases")
        self.phrase_vectors, self.background_vectors = vectors[: len(flat)], vectors[len(flat) :][: len(background)]
        sizes = [len(phrases) for phrases in self.prompts.values()]
        self.label_starts = np.cumsum([0, *sizes], dtype=np.intp)[:-1]
        found = competences(flat)
        self._competences = self._label_competences(found, len(flat))
        self._recognisable = {m: self._recognisable_phrases(values) for m, values in found.items()} if flat else {}
        # Of the modalities that can name intervals, and the part of the vectors that they compare; None: whole vectors.
        self._namers: dict[tuple[str, tuple[int, int] | None], IntervalNamer] = {}
        rest = vectors[len(flat) + len(background) :]
        for modality, own in competing.items():
            self._namers[modality, None] = IntervalNamer.of(
                self.phrase_vectors, self.label_starts, self._recognisable.get(modality), rest[: len(own)]
            )
            rest = rest[len(own) :]
        names = list(named_objects(flat))
        if len(names) != len(flat):
            raise ValueError(f"named_objects returned {len(names)} names for {len(flat)} phrases")
        ends = [*self.label_starts[1:], len(flat)]
        # The objects that the phrases of each label mean.
        self._label_objects = [
            frozenset(names[start:end]) - {""} for start, end in zip(self.label_starts, ends, strict=True)
        ]
        self._calibration = calibration_lookup(self.options.calibration, encoders)
        self._onset_thresholds, self._offset_thresholds = self._threshold_table()
        self._matches: LabelMatches | None = None  # of the last calibration

    def with_options(self, options: PromptOptions) -> PromptDetector:
        """Return a detector with the same prompts and other options. Raises `ValueError` if the background differs."""
        if options.background_phrases != self.options.background_phrases:
            raise ValueError("the background phrases differ and must be embedded: create a new detector")
        result = copy(self)
        result.options, result._calibration = options, calibration_lookup(options.calibration, self._encoders)
        result._onset_thresholds, result._offset_thresholds = result._threshold_table()
        return result

    def has_label(self, label: str) -> bool:
        return label in self.prompts or label == UNKNOWN_LABEL

    def kind_of(self, label: str) -> EventKind:
        return EventKind.UNKNOWN if label == UNKNOWN_LABEL else self.kind

    def calibration(self, space: str) -> PromptCalibration | None:
        """Return the calibration in the space of this id. Raises `CalibrationError` for a file of other encoders."""
        return self._calibration(space)

    def lifecycle_options_for(self, label: str) -> LifecycleOptions:
        return self.options.lifecycle_for(label)

    def _threshold_table(self) -> tuple[FloatArray, FloatArray]:
        """Return the onset thresholds and the offset thresholds of the labels, (L,) each."""
        own = [self.options.lifecycle_for(label) for label in self.prompts]
        return np.array([o.onset_threshold for o in own]), np.array([o.offset_threshold for o in own])

    def _prior(self, prior: float) -> FloatArray:
        """Return the score of each label without evidence, (L,): at most half of its offset threshold, so that every
        event can end."""
        return np.minimum(prior, self._offset_thresholds / 2)

    def competence(self, modality: str, calibration: PromptCalibration | None = None) -> FloatArray:
        """Return how well a modality can recognise each label, (L,), 0 to 1: as the space states it; 1 for labels with
        a trained classifier of this modality in `calibration`, if the space does not limit it."""
        own = self._competences.get(modality, np.ones(len(self.prompts)))
        return np.where(self._trained_labels(calibration, modality), 1.0, own)

    def competition(self, modality: str) -> Competition:
        """Return what competes with the labels in an interval of a modality. Raises `KeyError` for one that does not
        name intervals."""
        return self._namers[modality, None].competition

    def unrecognisable_labels(self, modalities: Iterable[str], space: str = "") -> list[str]:
        """Return the labels that none of `modalities` can recognise: their competence is below `MIN_COMPETENCE`.

        `space`: its id, with which the calibration is found. Without modalities, the list is empty.
        """
        calibration = self._calibration(space) if space else None
        table = [self.competence(modality, calibration) for modality in modalities]
        if not table:
            return []
        return [label for label, best in zip(self.prompts, np.max(table, axis=0), strict=True) if best < MIN_COMPETENCE]

    def _label_competences(self, found: Mapping[str, npt.ArrayLike], count: int) -> dict[str, FloatArray]:
        """Return modality → competence for each label (L,), from those for all `count` phrases. Raises `ValueError`."""
        result: dict[str, FloatArray] = {}
        for modality, values in found.items():
            of_phrases = np.asarray(values, np.float64)
            if of_phrases.shape != (count,) or not ((of_phrases >= 0) & (of_phrases <= 1)).all():
                raise ValueError(
                    f"the competence of '{modality}' must be one number of 0 to 1 for each of {count} phrases"
                )
            result[modality] = np.maximum.reduceat(of_phrases, self.label_starts) if count else of_phrases
        return result

    def _namer(self, modality: str, curve: NamingCurve) -> IntervalNamer:
        """Return what names the intervals of a modality that can: it compares the part of vectors that `curve` does."""
        key = modality, curve.dimensions
        if key not in self._namers and curve.dimensions is not None:
            self._namers[key] = self._namers[modality, None].within(curve.dimensions)
        return self._namers[key]

    def _similarities(self, modality: str, vector: Vector) -> FloatArray:
        """Return the cosine of a vector (D,) of a modality and the best phrase that it can recognise of each label."""
        return best_similarities(vector, self.phrase_vectors, self.label_starts, self._recognisable.get(modality))

    def _recognisable_phrases(self, competences: npt.ArrayLike) -> BoolArray:
        """Return which phrases (N,) count for a modality with these competences (N,): those above 0, and all of a label
        that has no such phrase."""
        own = np.asarray(competences, np.float64) > 0
        sizes = np.diff([*self.label_starts, len(own)])
        return own | ~np.repeat(np.maximum.reduceat(own, self.label_starts), sizes)

    def initial_state(self) -> PromptState:
        return PromptState()

    def migrate_state(self, old: Detector, state: PromptState) -> PromptState:
        """Keep the values and baselines of labels whose phrases are the same. Other labels start again: with similarity
        0 so far, in an open interval and in what is steady."""
        if not isinstance(old, PromptDetector) or old.options.background_phrases != self.options.background_phrases:
            return PromptState()
        old_labels = list(old.prompts)
        kept = [old_labels.index(n) if old.prompts.get(n) == p else -1 for n, p in self.prompts.items()]
        index = np.array(kept, np.intp)

        def move(values: FloatArray, blank: float = 0.0) -> FloatArray:
            return np.where(index >= 0, values[index], blank) if len(values) else np.full(len(index), blank)

        sensor_states = {
            sensor: replace(
                sensor_state,
                deviations=move(sensor_state.deviations),
                margins=move(sensor_state.margins),
                log_likelihood_ratios=move(sensor_state.log_likelihood_ratios, np.nan),
                scores=move(sensor_state.scores, self.options.prior),
                similarities=move(sensor_state.similarities),
                baseline=RunningBaseline(
                    move(sensor_state.baseline.mean),
                    move(sensor_state.baseline.deviation),
                    move(sensor_state.baseline.observed_time),
                ),
                naming=self._migrated_naming(sensor_state.modality, sensor_state.naming, move),
                named=None,
            )
            for sensor, sensor_state in state.sensor_states.items()
        }
        recent = tuple((tick, move(pooled, self.options.prior)) for tick, pooled in state.recent_scores)
        open_labels = state.explained.open_labels
        if open_labels is not None:
            open_labels = move(open_labels.astype(np.float64)) > 0
        explained = ExplainedIntervals(open_labels, state.explained.starts)
        return PromptState(sensor_states, recent, None, explained, state.calibration)

    def _migrated_naming(
        self, modality: str, naming: NamingState | None, move: Callable[[FloatArray], FloatArray]
    ) -> NamingState | None:
        """Return the pooled similarities of a modality for these labels, with `move`; 0 for new labels."""
        if naming is None or (modality, None) not in self._namers:
            return None
        interval, steady = (replace(p, labels=move(p.labels)) for p in (naming.interval, naming.steady))
        return replace(naming, interval=interval, steady=steady)

    def score(
        self, state: PromptState, tick: int, embeddings: Mapping[str, Embedding]
    ) -> tuple[PromptState, dict[str, Score]]:
        """Score the windows of one tick. Pool the scores of all modalities that are not older than `max_age`."""
        if not self.prompts:
            return PromptState(), {}
        options = self.options
        sensor_states, z_scores, seconds, calibration = dict(state.sensor_states), {}, {}, state.calibration
        for sensor in unfused_sensors(embeddings):
            embedding = embeddings[sensor]
            if embedding.vector.shape != self.background_vectors.shape[1:]:
                raise ValueError(
                    f"{sensor} has vectors of shape {embedding.vector.shape}, but the phrases "
                    f"{self.background_vectors.shape[1:]}: they are of different spaces"
                )
            known = sensor_states.get(sensor)
            if embedding.symptoms:  # data of a faulty sensor are not used
                if known:
                    sensor_states[sensor] = replace(known, faulty=True)
                continue
            calibration = self._calibration(embedding.space)
            seconds[sensor] = min((tick - known.tick) / SECOND if known else 0.5, options.max_age)
            sensor_states[sensor], z_scores[sensor] = self._score_window(
                known, tick, embedding, calibration, seconds[sensor]
            )
        fresh = PromptState(sensor_states).current_sensors(tick, options.max_age)
        table = np.array([s.scores for s in fresh.values()]).reshape(len(fresh), len(self.prompts))
        competences = self._window_competences(calibration, fresh)
        log_ratios = self._log_likelihood_ratios(fresh)
        weights = self._weights(calibration, fresh, log_ratios) * competences
        counts = best_of_modality([s.modality for s in fresh.values()], np.where(weights > 0, table, -1.0))
        weights = weights * counts
        limits = np.array([0.0 if s.naming is not None else MAX_NEGATIVE_EVIDENCE for s in fresh.values()])
        pooled = self._apply_min_modalities(
            self._pool_modalities(calibration, table, weights, log_ratios, limits.reshape(-1, 1)),
            table * (competences >= MIN_COMPETENCE) * counts,
        )
        since = tick - options.smoothing * SECOND
        recent = (*((t, p) for t, p in state.recent_scores if t > since), (tick, pooled))
        pooled = np.median([p for _, p in recent], axis=0)
        # At `offset_threshold` or above the baseline is frozen, so that a long event does not become usual.
        held = pooled >= self._offset_thresholds
        for sensor, u in z_scores.items():
            sensor_state = sensor_states[sensor]
            baseline = sensor_state.baseline.updated(u, seconds[sensor], options.time_constant, 1.0, held)
            sensor_states[sensor] = replace(sensor_state, baseline=baseline)
        supported_since = self._supported_since(state.supported_since, tick, fresh, competences)
        explained = self._explained(state.explained, pooled, fresh)
        scored = self._scores(tick, pooled, fresh, weights, competences, supported_since, state.explained)
        if (unknown := unknown_score(tick, fresh, explained, float(pooled.max()))) is not None:
            scored[UNKNOWN_LABEL] = unknown
        return PromptState(sensor_states, recent, supported_since, explained, calibration), scored

    def _score_window(
        self,
        known: PromptSensorState | None,
        tick: int,
        embedding: Embedding,
        calibration: PromptCalibration | None,
        seconds: float,
    ) -> tuple[PromptSensorState, FloatArray]:
        """Return the state of a modality after a window, `seconds` after the one before, with its baseline of before;
        and the background z-scores after competition, (L,), with which the baseline can be updated."""
        options, modality = self.options, embedding.modality
        baseline = known.baseline if known else RunningBaseline.empty(len(self.prompts))
        cosines = self._similarities(modality, embedding.vector)
        u = background_z_score(cosines, embedding.vector, self.background_vectors)
        z_scores = subtract_competition(u, options.competition)
        deviations = deviation_from_baseline(z_scores, baseline, options.baseline_weight, options.baseline_warm_up)
        label_margins = margins(u)
        ratios = self._classify(calibration, modality, embedding.vector)
        proposals = updated_proposals(known.proposals if known else None, embedding.activity, tick)
        curve = calibration.naming.get(modality) if calibration else None
        naming, named = None, None
        if curve is not None and proposals is not None and (modality, None) in self._namers:
            namer = self._namer(modality, curve)
            naming = namer.updated(known.naming if known else None, proposals, embedding, seconds)
            similar, named = namer.scores(proposals, naming, curve, PAUSE_FACTOR * self._offset_thresholds)
        elif calibration is not None and modality in calibration.modalities:
            similar = calibration.modalities[modality].probabilities(deviations, label_margins)
        else:
            similar = options.scores_from_deviations(deviations)
        scores = self._modality_scores(calibration, similar, ratios)
        state = PromptSensorState(
            modality,
            embedding.start,
            tick,
            embedding.coverage,
            deviations,
            label_margins,
            ratios,
            scores,
            cosines,
            baseline,
            embedding.objects,
            proposals,
            naming,
            named,
        )
        return state, z_scores

    def _supported_since(
        self,
        before: npt.NDArray[np.int64] | None,
        tick: int,
        fresh: Mapping[str, PromptSensorState],
        competences: FloatArray,
    ) -> npt.NDArray[np.int64]:
        """Return since when (ns) a modality has supported each label, (L,): 0 if none does at this tick."""
        since = np.zeros(len(self.prompts), np.int64)
        for (_, sensor_state), competence in zip(fresh.items(), competences, strict=True):
            began = tick - half_window(sensor_state.start, sensor_state.tick)
            starts = np.full(len(since), began)
            if sensor_state.named is not None and (proposal := sensor_state.proposal) is not None:
                starts = np.where(sensor_state.named, proposal.start, starts)
            supports = (sensor_state.scores >= self._support) & (competence >= MIN_COMPETENCE)
            since = np.where(supports & ((since == 0) | (starts < since)), starts, since)
        if before is not None:
            since = np.where((since > 0) & (before > 0), np.minimum(since, before), since)
        return since

    def _explained(
        self, before: ExplainedIntervals, pooled: FloatArray, fresh: Mapping[str, PromptSensorState]
    ) -> ExplainedIntervals:
        """Return which intervals are explained after a tick with the pooled scores (L,)."""
        stays = np.zeros(len(pooled), bool) if before.open_labels is None else before.open_labels
        open_labels = (pooled >= self._onset_thresholds) | (stays & (pooled >= self._offset_thresholds))
        starts = dict(before.starts)
        if open_labels.any():
            starts.update({sensor: s.proposal.start for sensor, s in fresh.items() if s.proposal is not None})
        return ExplainedIntervals(open_labels, starts)

    def _scores(
        self,
        tick: int,
        pooled: FloatArray,
        fresh: Mapping[str, PromptSensorState],
        weights: FloatArray,
        competences: FloatArray,
        supported_since: npt.NDArray[np.int64],
        explained: ExplainedIntervals,
    ) -> dict[str, Score]:
        """Return the score of each label. `explained`: the intervals that were explained before this tick."""
        scored = {}
        for at, label in enumerate(self.prompts):
            evidence = self._evidence(fresh, weights, competences, at, int(supported_since[at]))
            similarities = tuple(float(s.similarities[at]) for s in fresh.values())
            interval = interval_of(fresh, evidence, at)
            # In an interval that another label explained for long, a label names the part from now on.
            changes = interval and tick - interval[0] > FIRST_NAME_TIME and explained.by_another(interval[0], at)
            correction = 0 if interval and not changes else timestamp_correction(evidence)
            scored[label] = Score(float(pooled[at]), evidence, correction, similarities, interval)
        return scored

    def _weights(
        self, calibration: PromptCalibration | None, fresh: Mapping[str, PromptSensorState], log_ratios: FloatArray
    ) -> FloatArray:
        """Return the weights of the sensors' scores, (M, L), without their competence: reliability times coverage.
        `log_ratios` (M, L).

        For a label with a trained classifier, the reliabilities of the options count, not those of the calibration.
        """
        trained = ~np.isnan(log_ratios)
        coverage = np.array([sensor_state.coverage for sensor_state in fresh.values()]).reshape(-1, 1)
        modalities = [sensor_state.modality for sensor_state in fresh.values()]
        plain = np.array([self.options.modality_weight(m, calibration) for m in modalities]).reshape(-1, 1)
        own = np.array([self.options.reliability.get(m, 1.0) for m in modalities]).reshape(-1, 1)
        return np.asarray(np.where(trained.any(axis=0), own, plain) * coverage)

    def _log_likelihood_ratios(self, fresh: Mapping[str, PromptSensorState]) -> FloatArray:
        """Return the ratios of the modalities, (M, L): NaN without a trained classifier."""
        ratios = [sensor_state.log_likelihood_ratios for sensor_state in fresh.values()]
        return np.array(ratios).reshape(len(fresh), len(self.prompts))

    @property
    def _support(self) -> FloatArray:
        """The score with which a modality supports each label, (L,)."""
        return np.minimum(self.options.support, self._offset_thresholds)

    def _evidence(
        self,
        fresh: Mapping[str, PromptSensorState],
        weights: FloatArray,
        competences: FloatArray,
        at: int,
        since: int,
    ) -> tuple[Evidence, ...]:
        """Return the evidence for label number `at`, from the weights and competences of the modalities, (M, L).

        `since`: the time in ns since when a modality has supported the label; 0: none does.
        """
        evidence = []
        support = float(self._support[at])
        for (sensor, sensor_state), weight, competence in zip(
            fresh.items(), weights[:, at], competences[:, at], strict=True
        ):
            # The objects are sorted by score.
            best = next((o for o in sensor_state.objects if o.name in self._label_objects[at]), None)
            names = bool(sensor_state.scores[at] >= support and competence >= MIN_COMPETENCE)
            coincides = since > 0 and not names and began_with(sensor_state.proposals, since)
            evidence.append(
                Evidence(
                    sensor_state.modality,
                    float(sensor_state.scores[at]),
                    names or coincides,
                    sensor_state.start,
                    sensor_state.tick,
                    weight=float(weight),
                    competence=float(competence),
                    coincides=coincides,
                    sensor=sensor,
                    region=best.region if best else None,
                    bearing=best.bearing if best else None,
                )
            )
        return tuple(evidence)

    def _pool_modalities(
        self,
        calibration: PromptCalibration | None,
        table: FloatArray,
        weights: FloatArray,
        log_ratios: FloatArray,
        limits: FloatArray,
    ) -> FloatArray:
        """Pool the modalities' scores (M, L), with weights and log likelihood ratios (M, L), to scores (L,).

        `limits` (M, 1): the most that each modality can subtract, in nats, without a trained classifier.
        """
        options = self.options
        base = self._prior(options.prior_score(calibration))
        gains = logit(table) - logit(base)
        pooled = pool_log_likelihood_ratios(gains, weights, base, limits)
        if not (calibration and calibration.classifiers):
            return pooled
        trained = ~np.isnan(log_ratios)
        limited = np.where(
            trained,
            np.clip(log_ratios, -calibration.max_negative_evidence, MAX_POSITIVE_EVIDENCE),
            np.clip(gains, -limits, MAX_POSITIVE_EVIDENCE),
        )
        prior = logit(self._prior(options.classifier_prior_score(calibration.classifiers)))
        classified = logistic(prior + rank_weighted_sum(limited * weights, calibration.classifiers.rank_weights))
        return np.where(trained.any(axis=0), classified, pooled)

    def _classify(self, calibration: PromptCalibration | None, modality: str, vector: Vector) -> FloatArray:
        """Return the ratios of the trained classifiers, (L,): NaN without one, and for labels that the modality cannot
        recognise at all."""
        if calibration is None or calibration.classifiers is None:
            return np.full(len(self.prompts), np.nan)
        classes = self._match_labels(calibration, calibration.classifiers).classes
        ratios = calibration.classifiers.log_likelihood_ratios(modality, vector, classes)
        return np.where(self.competence(modality, calibration) > 0, ratios, np.nan)

    def _window_competences(
        self, calibration: PromptCalibration | None, fresh: Mapping[str, PromptSensorState]
    ) -> FloatArray:
        """Return how well the modalities can recognise each label in their last windows, (M, L). A trained classifier
        counts only if it classified the window."""
        table = [
            np.where(
                np.isnan(s.log_likelihood_ratios), self.competence(s.modality), self.competence(s.modality, calibration)
            )
            for s in fresh.values()
        ]
        return np.array(table).reshape(len(fresh), len(self.prompts))

    def _trained_labels(self, calibration: PromptCalibration | None, modality: str) -> BoolArray:
        """Return the labels (L,) for which a trained classifier gives a modality the competence 1."""
        none = np.zeros(len(self.prompts), bool)
        if calibration is None or calibration.classifiers is None:
            return none
        return self._match_labels(calibration, calibration.classifiers).trained.get(modality, none)

    def _match_labels(self, calibration: PromptCalibration, classifiers: PromptClassifiers) -> LabelMatches:
        if self._matches is None or self._matches.calibration is not calibration:
            classes = classifiers.match_labels(self.phrase_vectors, self.label_starts)
            trained = {
                m: np.asarray((classes & own.trained_classes()).any(axis=1))
                for m, own in classifiers.modalities.items()
                if m not in classifiers.limited_modalities
            }
            self._matches = LabelMatches(calibration, classes, trained)
        return self._matches

    def _modality_scores(
        self, calibration: PromptCalibration | None, similar: FloatArray, log_likelihood_ratios: FloatArray
    ) -> FloatArray:
        """Return the scores of one modality, (L,): by trained classifiers if there is a ratio, else `similar` (L,), by
        similarity."""
        known = ~np.isnan(log_likelihood_ratios)
        if not (calibration and calibration.classifiers and known.any()):
            return similar
        prior = logit(self._prior(self.options.classifier_prior_score(calibration.classifiers)))
        return np.where(known, logistic(prior + np.where(known, log_likelihood_ratios, 0.0)), similar)

    def _apply_min_modalities(self, pooled: FloatArray, table: FloatArray) -> FloatArray:
        """Limit the score of a label to that of its k-th best modality, if it needs k and fewer support it."""
        ordered = -np.sort(-table, axis=0)
        result = pooled.copy()
        for at, label in enumerate(self.prompts):
            needed = self.options.min_modalities_for(label)
            limit = float(ordered[needed - 1, at]) if needed <= len(ordered) else 0.0
            if needed > 1 and limit < min(self.options.support, self._offset_thresholds[at]):
                result[at] = min(result[at], limit)
        return result
