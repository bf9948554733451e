"""Open-vocabulary events: something that the user named in words is seen, heard or felt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from sensebind.fusion.core.embeddings import Embedding, Vector, unit
from sensebind.fusion.core.errors import ConfigError
from sensebind.fusion.core.events import Evidence, Kind, Score
from sensebind.fusion.core.parameters import parameter
from sensebind.fusion.core.samples import SECOND
from sensebind.fusion.events.calibration import Calibration, calibration_for
from sensebind.fusion.events.detector import Detector, modalities
from sensebind.fusion.events.evidence import (
    CERTAINTY,
    DOUBT,
    WARM_UP,
    Array,
    Flags,
    Level,
    WitnessOptions,
    add_up,
    logistic,
    logit,
)
from sensebind.fusion.events.lifecycle import LifeOptions
from sensebind.fusion.events.probes import Words, ranked
from sensebind.fusion.events.scores import lead

# What anything could be. A phrase must stand out against these; they need not be true of the place. A label may
# be among them: the middle and the spread of the crowd hardly notice one of their own.
BACKGROUND = (
    "a photo", "an ordinary scene", "a room", "a street", "silence", "noise",
    "a wall", "the floor", "the sky", "clouds", "water", "trees", "a field", "a mountain", "a building", "a door",
    "furniture", "a table", "a lamp", "a screen", "a tool", "a machine", "a box", "a bottle", "food", "clothes",
    "a book", "a sign", "a pattern", "an animal", "a bird", "an insect", "a plant", "a vehicle", "a boat",
    "a sport", "music", "speech", "wind", "rain", "a hum", "a click", "an engine", "darkness", "light",
)  # fmt: skip
FEWEST = 8  # background phrases below which their spread says nothing
SPREAD = 0.005  # cosine: a background narrower than this is not believed
Lookup = Callable[[str], Calibration | None]  # a space's id → its calibration
RAISE, LOWER = 2.0, 1.0  # deviations by which the usual level may raise and lower the bar


@dataclass(frozen=True, slots=True)
class PromptOptions(WitnessOptions):
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
    life: LifeOptions = LifeOptions(min_duration=0.5, immediate_onset_threshold=0.95)
    background: tuple[str, ...] = parameter(
        (),
        f"Phrases that each label is compared with, at least {FEWEST} different ones. Empty: {len(BACKGROUND)} "
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
        bounds=WARM_UP,
        unit="s",
        formerly="maturity",
    )
    min_modalities: int | Mapping[str, int] = parameter(
        1, "Number of modalities that must support an event. With fewer present, none begins", bounds=(1, 16)
    )
    smoothing: float = parameter(
        0.0, "Length of the median filter over the scores. 0: no filter", bounds=(0.0, 60.0), unit="s"
    )
    calibration: str | Lookup = parameter(
        "",
        "Calibration file from `sensebind calibrate`: trained classifiers of labels, and score curves of modalities. "
        "Empty: the one shipped for the space. none: similarity alone",
    )

    def __post_init__(self) -> None:
        WitnessOptions.__post_init__(self)  # super() does not work in a class with slots
        phrases = set(self.background_phrases)
        if len(phrases) < FEWEST:
            raise ConfigError(f"background needs at least {FEWEST} different phrases, not {len(phrases)}")
        for label, count in self.min_modalities.items() if isinstance(self.min_modalities, Mapping) else ():
            if count < 1:
                raise ConfigError(f"min_modalities of {label!r} must be 1 or more, not {count}")

    @property
    def background_phrases(self) -> tuple[str, ...]:
        """The phrases that a label is compared against."""
        return self.background or BACKGROUND

    def base(self, calibration: Calibration | None) -> float:
        """The score without evidence: the prior of the calibration if there is one. At most half `offset_threshold`."""
        return (
            min(calibration.prior, self.life.offset_threshold / 2) if calibration and calibration.senses else self.prior
        )

    def taught_base(self, words: Words) -> float:
        """The score of a taught word where no sense says anything, half of `offset_threshold` at most."""
        return min(words.prior, self.life.offset_threshold / 2)

    def weight(self, modality: str, calibration: Calibration | None) -> float:
        """How much this sense's evidence counts."""
        fitted = calibration.senses.get(modality) if calibration else None
        return self.reliability.get(modality, fitted.reliability if fitted else 1.0)

    def needed(self, label: str) -> int:
        """How many senses must support this label."""
        needed = self.min_modalities
        return needed.get(label, 1) if isinstance(needed, Mapping) else needed


def lookup(calibration: str | Lookup) -> Lookup:
    """The function from a space's id to its calibration that `PromptOptions.calibration` stands for.

    Raises `CalibrationError` for a file that cannot be read. The function raises it for a file of another space.
    """
    if callable(calibration):
        return calibration
    calibration_for(calibration, "")  # a file that cannot be read is reported now
    return lru_cache(maxsize=8)(partial(calibration_for, calibration))


def standing(vector: Vector, phrases: Vector, groups: npt.NDArray[np.intp], background: Vector) -> Array:
    """How far each label stands out of the background, (L,) float64, in deviations of the background's cosines.

    `vector` (D,), `phrases` (N, D) and `background` (M, D) are unit vectors; label l owns the phrases from
    `groups[l]` to the next. A label's cosine is its best phrase's. The middle and the spread of the background
    are its median and 1.4826 times its median absolute deviation. Cosines of image and text, sound and text, …
    lie in different, narrow bands; in these units they compare. This is the test normalisation of speaker
    verification, a score against a cohort of others (Auckenthaler, Carey and Lloyd-Thomas, "Score normalization
    for text-independent speaker verification systems", 2000), with order statistics.
    """
    crowd = background @ vector
    middle = np.median(crowd)
    spread = max(1.4826 * float(np.median(np.abs(crowd - middle))), SPREAD)
    return np.asarray((best_similarities(vector, phrases, groups) - middle) / spread, np.float64)


def best_similarities(vector: Vector, phrases: Vector, groups: npt.NDArray[np.intp]) -> Array:
    """The cosine of `vector` (D,) and the best phrase of each label, (L,). `phrases` and `groups` as in `standing`."""
    return np.asarray(np.maximum.reduceat(phrases @ vector, groups))


def yielding(standings: Array, rivalry: float) -> Array:
    """Standings (L,), less `rivalry` times the lead of the best other label: like looks like like."""
    return np.asarray(standings - rivalry * np.maximum(-leads(standings), 0.0), np.float64)


def leads(standings: Array) -> Array:
    """Standings (L,) over the best other label's, (L,): negative for all but the best. 0 where there is one label."""
    if len(standings) < 2:
        return np.zeros(len(standings))
    order = np.sort(standings)
    return np.asarray(standings - np.where(standings == order[-1], order[-2], order[-1]), np.float64)


def departure(standings: Array, level: Level, trust: float, maturity: float) -> Array:
    """Standings (L,) against their own usual level in this stream, (L,): x = (u − w·trust·mean) / max(1, w·deviation).

    w = age / (age + maturity), so at first a standing counts as it is: what is there from the start is seen. The
    mean counts from −`LOWER` to `RAISE`, so no history puts the bar out of reach or onto the floor.
    """
    weight = level.age / (level.age + maturity)
    usual = weight * trust * np.clip(level.mean, -LOWER, RAISE)
    return np.asarray((standings - usual) / np.maximum(1.0, weight * level.deviation), np.float64)


@dataclass(frozen=True, slots=True)
class Sense:
    """What is remembered of one modality: its last window, what that said of the L labels, and what is usual."""

    start: int
    tick: int
    coverage: float
    x: Array  # (L,) departures, in deviations
    ahead: Array  # (L,) deviations over the best other label
    ratios: Array  # (L,) log likelihood ratios of words that it was taught, NaN of others
    scores: Array  # (L,)
    similarities: Array  # (L,) cosine similarities of the best phrases
    level: Level  # of the standings, (L,)
    lies: bool = False  # a window since then showed that the sensor is faulty


@dataclass(frozen=True, slots=True)
class State:
    senses: Mapping[str, Sense] = field(default_factory=dict)
    recent: tuple[tuple[int, Array], ...] = ()  # (tick, pooled scores (L,)) of the last `smoothing` seconds
    calibration: Calibration | None = None  # of the stream's space

    def heard(self, tick: int, staleness: float) -> dict[str, Sense]:
        """The senses that say something at a tick: neither stale (s) nor faulty."""
        return {m: s for m, s in sorted(self.senses.items()) if not s.lies and tick - s.tick <= staleness * SECOND}


class PromptDetector(Detector[PromptOptions]):
    """Scores each label from all senses' similarity to its phrases.

    `prompts` is label → phrases; `embed_text` turns N phrases into (N, D) unit vectors of the stream's space.
    Raises `ValueError` where a label has no phrase or the vectors do not fit.
    """

    kind = Kind.PROMPT
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
        vectors = unit(embed_text(flat + background))
        wanted = len(flat) + len(background)
        if vectors.ndim != 2 or len(vectors) != wanted:
            raise ValueError(f"embed_text gave an array of shape {vectors.shape} for {wanted} phrases")
        self.phrases, self.background = vectors[: len(flat)], vectors[len(flat) :]
        sizes = [len(phrases) for phrases in self.prompts.values()]
        self.groups = np.cumsum([0, *sizes], dtype=np.intp)[:-1]
        self._calibration = lookup(self.options.calibration)
        self._meant: tuple[Calibration, Flags] | None = None  # which taught words the labels mean, of a calibration

    def with_options(self, options: PromptOptions) -> PromptDetector:
        """The same prompts with other options, but for the background."""
        if options.background_phrases != self.options.background_phrases:
            raise ValueError("another background must be embedded: make another detector")
        result = copy(self)
        result.options, result._calibration = options, lookup(options.calibration)
        return result

    def knows(self, label: str) -> bool:
        return label in self.prompts

    def start(self) -> State:
        return State()

    def adopt(self, old: Detector, state: State) -> State:
        """Labels whose phrases are the same keep what is usual for them; others begin."""
        if not isinstance(old, PromptDetector) or old.options.background_phrases != self.options.background_phrases:
            return State()
        before = list(old.prompts)
        kept = [before.index(n) if old.prompts.get(n) == p else -1 for n, p in self.prompts.items()]
        index = np.array(kept, np.intp)

        def move(values: Array, blank: float = 0.0) -> Array:
            return np.where(index >= 0, values[index], blank) if len(values) else np.full(len(index), blank)

        senses = {
            modality: replace(
                sense,
                x=move(sense.x),
                ahead=move(sense.ahead),
                ratios=move(sense.ratios, np.nan),
                scores=move(sense.scores, self.options.prior),
                similarities=move(sense.similarities),
                level=Level(move(sense.level.mean), move(sense.level.deviation), move(sense.level.age)),
            )
            for modality, sense in state.senses.items()
        }
        recent = tuple((tick, move(pooled, self.options.prior)) for tick, pooled in state.recent)
        return State(senses, recent, state.calibration)

    def score(self, state: State, tick: int, present: Mapping[str, Embedding]) -> tuple[State, dict[str, Score]]:
        """One tick: senses with a window that ended now are scored, then all that are not stale are pooled."""
        if not self.prompts:
            return State(), {}
        options, labels = self.options, list(self.prompts)
        senses, standings, seconds, calibration = dict(state.senses), {}, {}, state.calibration
        for modality in modalities(present):
            embedding = present[modality]
            if embedding.vector.shape != self.background.shape[1:]:
                raise ValueError(
                    f"{modality} has vectors of shape {embedding.vector.shape} and the phrases "
                    f"{self.background.shape[1:]}: they are of different spaces"
                )
            known = senses.get(modality)
            if embedding.symptoms:  # what a faulty sensor says is neither believed nor learnt
                if known:
                    senses[modality] = replace(known, lies=True)
                continue
            level = known.level if known else Level.blank(len(labels))
            u = standing(embedding.vector, self.phrases, self.groups, self.background)
            standings[modality] = yielding(u, options.competition)
            x, ahead = (
                departure(standings[modality], level, options.baseline_weight, options.baseline_warm_up),
                leads(u),
            )
            calibration = self._calibration(embedding.space)
            ratios = self._ratios(calibration, modality, embedding.vector)
            scores = self._scores(calibration, modality, x, ahead, ratios)
            similarities = best_similarities(embedding.vector, self.phrases, self.groups)
            senses[modality] = Sense(
                embedding.start, tick, embedding.coverage, x, ahead, ratios, scores, similarities, level
            )
            seconds[modality] = min((tick - known.tick) / SECOND if known else 0.5, options.max_age)
        fresh = State(senses).heard(tick, options.max_age)
        table = np.array([s.scores for s in fresh.values()]).reshape(len(fresh), len(labels))
        pooled = self._corroborated(self._pooled(calibration, fresh, table), table)
        since = tick - options.smoothing * SECOND
        recent = (*((t, p) for t, p in state.recent if t > since), (tick, pooled))
        pooled = np.median([p for _, p in recent], axis=0)
        # What is on does not become what is usual, however long it lasts.
        held = pooled >= options.life.offset_threshold
        for modality, u in standings.items():
            sense = senses[modality]
            level = sense.level.follow(u, seconds[modality], options.time_constant, 1.0, held)
            senses[modality] = replace(sense, level=level)
        scored = {}
        for at, label in enumerate(labels):
            evidence = self._evidence(calibration, fresh, at)
            cosines = tuple(float(s.similarities[at]) for s in fresh.values())
            scored[label] = Score(float(pooled[at]), evidence, lead(evidence), cosines)
        return State(senses, recent, calibration), scored

    def _evidence(self, calibration: Calibration | None, fresh: Mapping[str, Sense], at: int) -> tuple[Evidence, ...]:
        """Of the label number `at`. The weights are those that `_pooled` uses."""
        options = self.options
        found = []
        for modality, sense in fresh.items():
            score, trained = float(sense.scores[at]), not np.isnan(sense.ratios[at])
            weight = options.reliability.get(modality, 1.0) if trained else options.weight(modality, calibration)
            found.append(
                Evidence(
                    modality, score, score >= options.support, sense.start, sense.tick, weight=weight * sense.coverage
                )
            )
        return tuple(found)

    def _pooled(self, calibration: Calibration | None, fresh: Mapping[str, Sense], table: Array) -> Array:
        """The senses' scores (M, L) together, (L,)."""
        options = self.options
        base = options.base(calibration)
        coverage = np.array([sense.coverage for sense in fresh.values()]).reshape(-1, 1)
        plain = np.array([options.weight(m, calibration) for m in fresh]).reshape(-1, 1)
        gains = logit(table) - float(logit(base))
        pooled = add_up(gains, plain * coverage, base, DOUBT)
        if not (calibration and calibration.words):
            return pooled
        ratios = np.array([sense.ratios for sense in fresh.values()]).reshape(table.shape)
        taught = ~np.isnan(ratios)
        trust = np.array([options.reliability.get(m, 1.0) for m in fresh]).reshape(-1, 1)
        held = np.where(taught, np.clip(ratios, -calibration.doubt, CERTAINTY), np.clip(gains, -DOUBT, CERTAINTY))
        prior = float(logit(options.taught_base(calibration.words)))
        told = logistic(prior + ranked(held * coverage * trust, calibration.words.ranks))
        return np.where(taught.any(axis=0), told, pooled)

    def _ratios(self, calibration: Calibration | None, modality: str, vector: Vector) -> Array:
        if calibration is None or calibration.words is None:
            return np.full(len(self.prompts), np.nan)
        if self._meant is None or self._meant[0] is not calibration:
            self._meant = calibration, calibration.words.meanings(self.phrases, self.groups)
        return calibration.words.ratios(modality, vector, self._meant[1])

    def _scores(self, calibration: Calibration | None, modality: str, x: Array, ahead: Array, ratios: Array) -> Array:
        """By similarity to the words; of words that the sense was taught, by what it was taught where that holds."""
        if calibration is not None and modality in calibration.senses:
            similar = calibration.senses[modality].scores(x, ahead)
        else:
            similar = self.options.scores(x)
        known = ~np.isnan(ratios)
        if not (calibration and calibration.words and known.any()):
            return similar
        prior = float(logit(self.options.taught_base(calibration.words)))
        return np.where(known, logistic(prior + np.where(known, ratios, 0.0)), similar)

    def _corroborated(self, pooled: Array, table: Array) -> Array:
        """Where a label must be supported by k senses and fewer do, it is no surer than its k-th surest sense."""
        ordered = -np.sort(-table, axis=0)
        result = pooled.copy()
        for at, label in enumerate(self.prompts):
            needed = self.options.needed(label)
            surest = float(ordered[needed - 1, at]) if needed <= len(ordered) else 0.0
            if needed > 1 and surest < self.options.support:
                result[at] = min(result[at], surest)
        return result
