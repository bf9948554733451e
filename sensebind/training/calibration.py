"""Fits the calibration of prompts on labelled streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sensebind.evaluation.reliability import reliability
from sensebind.fusion.core.space import Space, encoder_ids, limited_modalities
from sensebind.fusion.events.evidence import (
    MAX_NEGATIVE_EVIDENCE,
    MAX_POSITIVE_EVIDENCE,
    BoolArray,
    FloatArray,
    logistic,
    logit,
)
from sensebind.fusion.events.prompt import PromptDetector
from sensebind.fusion.events.prompt_calibration import (
    MAX_MARGIN,
    UNKNOWN_SOURCE,
    CalibrationError,
    ModalityCalibration,
    PromptCalibration,
)
from sensebind.training.prompt_classifiers import (
    FOLDS,
    MIN_EXAMPLES,
    LabelledStream,
    LabelSpanNs,
    TickEmbeddings,
    nonnegative_logistic_regression,
    train_prompt_classifiers,
)

FIT_ITERATIONS = 2  # the detector's scores decide when its baselines are updated, so the examples depend on the fit


@dataclass(frozen=True, slots=True)
class CalibrationExamples:
    """R examples: one for every tick and label.

    `inputs`: modality → (R, 3), the columns are deviation from baseline, margin and coverage, of the modality's sensor
    with the highest score for the label. They are NaN if the modality has no current window, or cannot recognise the
    label.
    """

    truth: BoolArray  # (R,)
    scores: FloatArray  # (R,) of the detector, 0 to 1
    inputs: Mapping[str, FloatArray]


def collect_examples(
    detector: PromptDetector, ticks: Sequence[TickEmbeddings], spans: Sequence[LabelSpanNs]
) -> CalibrationExamples:
    """Run a detector over a stream.

    A label is true at a tick if its spans cover at least half of the time since the previous tick. Before the first
    tick, this time is 0.5 s.
    """
    labels = list(detector.prompts)
    modalities = sorted({embedding.modality for _, present in ticks for embedding in present.values()})
    state, previous = detector.initial_state(), None
    truth, scores = [], []
    inputs: dict[str, list[FloatArray]] = {m: [] for m in modalities}
    for tick, present in ticks:
        state, found = detector.score(state, tick, present)
        current = state.current_sensors(tick, detector.options.max_age).values()
        since = tick - 500_000_000 if previous is None else previous
        for modality in modalities:
            rows = np.full((len(labels), 3), np.nan)
            if own := [s for s in current if s.modality == modality]:
                best = np.argmax([s.scores for s in own], axis=0), np.arange(len(labels))
                rows[:, 0] = np.array([s.deviations for s in own])[best]
                rows[:, 1] = np.clip(np.array([s.margins for s in own])[best], -MAX_MARGIN, MAX_MARGIN)
                rows[:, 2] = np.array([s.coverage for s in own])[best[0]]
                rows[detector.competence(modality) == 0] = np.nan  # no evidence
            inputs[modality].append(rows)
        truth += [2 * _overlap_duration(since, tick, label, spans) >= tick - since for label in labels]
        scores += [found[label].score for label in labels]
        previous = tick
    return CalibrationExamples(
        np.array(truth, bool),
        np.array(scores, np.float64),
        {m: np.concatenate(rows) if rows else np.zeros((0, 3)) for m, rows in inputs.items()},
    )


def _overlap_duration(start: int, end: int, label: str, spans: Sequence[LabelSpanNs]) -> int:
    """Time in ns of `[start, end)` that the spans of a label cover."""
    return sum(max(0, min(end, off) - max(start, on)) for on, off, name in spans if name == label)


def concatenate_examples(parts: Sequence[CalibrationExamples]) -> CalibrationExamples:
    """All examples, in order. Inputs are NaN in parts that do not have the modality."""
    modalities = sorted({m for part in parts for m in part.inputs})
    return CalibrationExamples(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.scores for part in parts]),
        {
            m: np.concatenate([part.inputs.get(m, np.full((len(part.truth), 3), np.nan)) for part in parts])
            for m in modalities
        },
    )


@dataclass(frozen=True, slots=True)
class CalibratedSpace:
    """The space that a calibration is fitted in: its id, and modality → id of its encoder, as in `PromptCalibration`.

    `limited_modalities`: see `PromptClassifiers`. `source` names the data of the fit.
    """

    id: str
    encoders: Mapping[str, str] = field(default_factory=dict)
    limited_modalities: frozenset[str] = frozenset()
    source: str = UNKNOWN_SOURCE

    @classmethod
    def of(cls, space: Space, source: str) -> CalibratedSpace:
        """Describe a space, and the data of the fit."""
        return cls(space.id, encoder_ids(space), limited_modalities(space), source)


def fit_calibration(examples: CalibrationExamples, space: CalibratedSpace) -> PromptCalibration:
    """Fit a sigmoid for each modality, then the weights of their evidence.

    Both are logistic regressions with weights of 0 or more, so a higher similarity never makes a label less probable.
    The inputs of the second one are the log-odds that `evidence.pool_scores` adds up. A modality with fewer than
    `MIN_EXAMPLES` true or false examples is left out, and so is one without competence for the labels; if that are all,
    there are no curves. Raises `CalibrationError` if all examples together are too few.
    """
    truth = examples.truth.astype(np.float64)
    if min(int(truth.sum()), int((1 - truth).sum())) < MIN_EXAMPLES:
        raise CalibrationError(
            f"there are {int(truth.sum())} ticks with a prompt's label and {int((1 - truth).sum())} without; "
            f"a fit needs {MIN_EXAMPLES} of each: label more, or give the prompts the names of the labels"
        )
    base = float(logit(truth.mean()))
    fitted: dict[str, ModalityCalibration] = {}
    gains = []
    for modality, rows in examples.inputs.items():
        present = ~np.isnan(rows[:, 0])
        if min(truth[present].sum(), (1 - truth[present]).sum()) < MIN_EXAMPLES:
            continue
        (bias, deviation_weight, margin_weight) = nonnegative_logistic_regression(rows[present, :2], truth[present])
        fitted[modality] = ModalityCalibration(deviation_weight, margin_weight, bias, source=space.source)
        log_odds = bias + rows[present, :2] @ np.array([deviation_weight, margin_weight])
        gain = np.zeros(len(truth))
        gain[present] = np.clip(log_odds - base, -MAX_NEGATIVE_EVIDENCE, MAX_POSITIVE_EVIDENCE) * rows[present, 2]
        gains.append(gain)
    if not gains and not any((~np.isnan(rows[:, 0])).any() for rows in examples.inputs.values()):
        return PromptCalibration(space.id, float(np.clip(truth.mean(), 1e-4, 0.5)), encoders=space.encoders)
    if not gains:
        raise CalibrationError(
            f"no modality has {MIN_EXAMPLES} ticks with a prompt's label and {MIN_EXAMPLES} without: label more"
        )
    prior, *weights = nonnegative_logistic_regression(np.stack(gains, axis=1), truth)
    # The second fit changes the prior. The biases change by the same amount, so that the evidence stays as fitted.
    by_modality = {
        m: replace(calibration, bias=calibration.bias + prior - base, reliability=min(weight, 10.0))
        for (m, calibration), weight in zip(fitted.items(), weights, strict=True)
    }
    return PromptCalibration(space.id, float(np.clip(logistic(prior), 1e-4, 0.5)), by_modality, encoders=space.encoders)


def fit_calibration_on_streams(
    detector: PromptDetector, streams: Sequence[LabelledStream], space: CalibratedSpace
) -> PromptCalibration:
    """`fit_calibration` on streams, with the classifiers of `train_prompt_classifiers`.

    The fit is made `FIT_ITERATIONS` times. Each time, the detector scores the streams with the last calibration.
    Raises `CalibrationError`.
    """
    calibration: PromptCalibration | None = None
    for _ in range(FIT_ITERATIONS):
        calibration = fit_calibration(
            concatenate_examples(
                [collect_examples(with_calibration(detector, calibration), *stream) for stream in streams]
            ),
            space,
        )
    assert calibration is not None
    phrases = dict(zip(detector.prompts, np.split(detector.phrase_vectors, detector.label_starts[1:]), strict=True))
    modalities = {embedding.modality for ticks, _ in streams for _, present in ticks for embedding in present.values()}
    competences = {modality: detector.competence(modality) for modality in modalities}
    classifiers, max_negative_evidence = train_prompt_classifiers(
        phrases, streams, competences, space.limited_modalities
    )
    if classifiers is None:
        if not calibration.modalities:
            raise CalibrationError(
                "no modality can recognise the labels by similarity, and there are too few examples for classifiers: "
                "label more"
            )
        return calibration
    return replace(calibration, classifiers=classifiers, max_negative_evidence=max_negative_evidence)


def assessment_steps(streams: int) -> int:
    """The number of steps of `fit_and_assess` with this number of streams."""
    return 3 + (min(streams, FOLDS) if streams > 1 else 0)


def fit_and_assess(
    detector: PromptDetector,
    streams: Sequence[LabelledStream],
    space: CalibratedSpace,
    step_done: Callable[[], None] = lambda: None,
) -> tuple[PromptCalibration, dict[str, Any]]:
    """`fit_calibration_on_streams`, and notes on the fit.

    The notes are the numbers of ``recordings``, of ``examples`` (ticks × labels) and of ``true`` examples, and the
    `probability_metrics` of the scores ``before`` and ``after``. With several streams there is also ``each by
    others``: each of `FOLDS` parts is scored by a calibration that was fitted on the other parts. `step_done` is called
    after each of the `assessment_steps`. Raises `CalibrationError`.
    """
    before = concatenate_examples([collect_examples(detector, *stream) for stream in streams])
    step_done()
    calibration = fit_calibration_on_streams(detector, streams, space)
    step_done()
    after = concatenate_examples(
        [collect_examples(with_calibration(detector, calibration), *stream) for stream in streams]
    )
    step_done()
    notes = {
        "recordings": len(streams),
        "examples": len(after.truth),
        "true": int(after.truth.sum()),
        "before": probability_metrics(before.scores, before.truth),
        "after": probability_metrics(after.scores, after.truth),
    }
    if len(streams) > 1:
        scored = []
        for part in range(min(len(streams), FOLDS)):
            rest = [stream for i, stream in enumerate(streams) if i % FOLDS != part]
            fitted = with_calibration(detector, fit_calibration_on_streams(detector, rest, space))
            scored += [collect_examples(fitted, *stream) for stream in streams[part::FOLDS]]
            step_done()
        held_out = concatenate_examples(scored)
        notes["cross-validated"] = probability_metrics(held_out.scores, held_out.truth)
    return calibration, notes


def with_calibration(detector: PromptDetector, calibration: PromptCalibration | None) -> PromptDetector:
    """A copy of the detector with this calibration, or with none."""
    return detector.with_options(replace(detector.options, calibration=lambda space: calibration))


def probability_metrics(scores: FloatArray, truth: BoolArray) -> dict[str, Any]:
    """Expected calibration error, Brier score and area under the ROC curve of N probabilities and their truth (N,)."""
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    positive, negative = int(truth.sum()), int((~truth).sum())
    pairs = positive * negative
    area = (ranks[truth].sum() - positive * (positive + 1) / 2) / pairs if pairs else float("nan")
    return {
        "ece": round(reliability(scores, truth).expected_calibration_error or 0.0, 4),
        "brier": round(float(np.mean(np.square(scores - truth))), 4),
        "roc_auc": round(float(area), 4),
    }
